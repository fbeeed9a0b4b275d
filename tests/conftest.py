"""Compiled programs are kept for the next run, and for the other worker, as the command and the pytest plugin keep them."""

from jaxgrad import cache


def pytest_configure(config):
    """Keep them from the first test on."""
    cache.keep_executables()
