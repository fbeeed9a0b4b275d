"""Tests keep what they compile for the next run, and for the other worker, as the command and the
pytest plugin do.
"""

from jaxgrad.runtime import cache


def pytest_configure(config):
    """Keep it from the first test on."""
    cache.keep_executables()
