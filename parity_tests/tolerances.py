"""How far two right computations of one array may be apart, and on which devices they are compared.

Both sides get the same numbers in the same precision, and differ only in the order in which they
add and multiply. Each entry is then off by the rounding of a few dozen operations on numbers as
large as those that went in, so the distance is measured against the LARGEST entry of the array (an
entry that came out small by cancellation has the rounding of the large ones it was made of) and is
a modest multiple of the precision's eps, the same multiple for every dtype:

    |ours − torch| ≤ FACTOR · eps(dtype) · max |torch|

A loss is one number, and a signed sum that may cancel: its scale is that of its terms, for which
the loss at the absolute values of the inputs stands where that is larger than the loss itself. The
factor does not grow with the size of the arrays. It is set from measurement: over all entries, two
choices of sizes and twenty seeds on a CPU the largest distance is 7.5 eps; eight times that leaves
room for another order of summation. The smallest mistake of `tests/wrong_variants.py` is over 1000
times as large as what this lets pass at float32.
"""

import contextlib

import jax
import numpy as np
import torch

from jaxgrad.jaxprs.versions import enable_x64

FACTOR = 64
TOLERANCE = {dtype: FACTOR * float(np.finfo(dtype).eps) for dtype in ("float64", "float32")}


def _jax_gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:  # how jax says that there is none
        return []


GPU = bool(_jax_gpus()) and torch.cuda.is_available()
DEVICES = ("cpu", "gpu") if GPU else ("cpu",)
TORCH_DEVICE = {"cpu": "cpu", "gpu": "cuda"}


def describe_devices():
    """Say where the two frameworks are compared, and why not elsewhere."""
    if GPU:
        return (
            f"parity with torch {torch.__version__}: CPU and {torch.cuda.get_device_name()} "
            f"(TF32 off)"
        )
    missing = [
        n
        for n, has in (("jax", bool(_jax_gpus())), ("torch", torch.cuda.is_available()))
        if not has
    ]
    return (
        f"parity with torch {torch.__version__}: CPU only; NOT compared on a GPU, since "
        f"{' and '.join(missing)} found none"
    )


@contextlib.contextmanager
def precision(dtype, device="cpu"):
    """Compute in `dtype` on `device` inside, in both frameworks, with full products and without
    TF32.
    """
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with (
            enable_x64(dtype == "float64"),
            jax.default_device(jax.devices(device)[0]),
            jax.default_matmul_precision("highest"),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = flags


def distance(ours, theirs, scale=0.0):
    """Return the largest difference of two arrays in units of the largest entry of `theirs`, or of
    `scale` where it is larger.
    """
    ours, theirs = (
        np.asarray(ours),
        theirs.detach().cpu().numpy() if isinstance(theirs, torch.Tensor) else np.asarray(theirs),
    )
    assert ours.shape == theirs.shape, f"shapes differ: {ours.shape} and {theirs.shape}"
    assert ours.dtype == theirs.dtype, f"dtypes differ: {ours.dtype} and {theirs.dtype}"
    assert np.isfinite(ours).all()
    assert np.isfinite(theirs).all()
    scale = max(float(np.max(np.abs(theirs))), float(scale))
    assert scale > 0, "an array of zeros compares with nothing"
    return float(np.max(np.abs(ours.astype(float) - theirs)) / scale)


def assert_same(ours, theirs, what="", scale=0.0):
    """Fail unless the two arrays are the same to the rounding of their dtype."""
    found, allowed = distance(ours, theirs, scale), TOLERANCE[str(np.asarray(ours).dtype)]
    assert found <= allowed, (
        f"{what}: the sides are {found:.1e} of the largest entry apart, more than {allowed:.1e}"
    )
