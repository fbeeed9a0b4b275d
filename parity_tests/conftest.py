"""Say on which devices the two frameworks are compared; a device that is missing is named, not
passed over.
"""

import jax
import pytest
import torch

from parity_tests.tolerances import DEVICES, TORCH_DEVICE, describe_devices

torch.set_num_threads(1)  # the arrays are small, and pytest has a worker on every core


def pytest_report_header(config):
    """Head the run with the devices."""
    return describe_devices()


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Repeat the devices below the results, where they are read."""
    terminalreporter.write_line(describe_devices())


@pytest.fixture(params=DEVICES)
def device(request):
    """Every device that both frameworks have: torch's name for it, with JAX's arrays on it."""
    with jax.default_device(jax.devices(request.param)[0]):
        yield TORCH_DEVICE[request.param]
