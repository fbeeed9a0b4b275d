"""Conventions in which torch and the JAX libraries differ, and what is tried at a block that fails.

`DIFFERENCES` is the table. Where a difference can be undone inside a program, `attempts` yields
changed equations of the failing block; the first change with which the block agrees with torch,
forward or backward, is the remedy that is told. Where it cannot, `elsewhere` says what sees it
instead.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxgrad.parity.rewriting import kinks, layers, numbers, programs, resizing
from jaxgrad.parity.rewriting.module_block import Attempt, ModuleBlock


class Difference(NamedTuple):
    """One convention in which the two sides differ.

    Attributes:
        topic: what it is about.
        torch: what torch does.
        jax: what JAX, flax, Equinox or optax do.
        attempts: yields changes of a block that would undo it; None where none can.
        elsewhere: what sees the difference where no change of a block does.
    """

    topic: str
    torch: str
    jax: str
    attempts: Callable[[ModuleBlock], Iterator[Attempt]] | None = None
    elsewhere: str = ""


_BUFFERS = "recognised in the running statistics after the update, with `buffers=True`"

DIFFERENCES: tuple[Difference, ...] = (
    Difference("LayerNorm and GroupNorm eps", "1e-5", "flax 1e-6, Equinox 1e-5", numbers.epsilons),
    Difference("RMSNorm eps", "the dtype's eps", "flax 1e-6, Equinox 1e-5", numbers.epsilons),
    Difference(
        "BatchNorm momentum",
        "0.1, the weight of the new",
        "flax 0.99, the weight of the old",
        elsewhere=_BUFFERS,
    ),
    Difference(
        "BatchNorm running variance",
        "divided by n − 1",
        "flax and Equinox divide by n",
        elsewhere=_BUFFERS,
    ),
    Difference("GELU", "erf", "jax.nn.gelu approximates by tanh", layers.gelus),
    Difference("softplus above 20", "x itself", "log(1 + eˣ), up to 2e-9 more", layers.softplus),
    Difference(
        "gradient of hardsigmoid in float64", "1/6 is rounded to float32", "1/6", layers.sixths
    ),
    Difference(
        "Linear weight",
        "(out, in)",
        "flax kernel (in, out); a square one goes unnoticed",
        layers.transposes,
    ),
    Difference(
        "attention biases",
        "MultiheadAttention has them",
        "Equinox's has none by default",
        layers.biases,
    ),
    Difference(
        "convolution padding",
        "0, or the same on both sides",
        "SAME, uneven at stride 2",
        layers.paddings,
    ),
    Difference(
        "transposed convolution",
        "the kernel is turned",
        "transpose_kernel=False leaves it",
        layers.kernels,
    ),
    Difference(
        "transposed convolution's padding",
        "cuts from both sides, output_padding at the end",
        "SAME pads more at the start",
        layers.paddings,
    ),
    Difference("std and var", "divided by n − 1", "divided by n", layers.corrections),
    Difference("median", "the lower of the two in the middle", "their average", layers.medians),
    Difference(
        "gradient of clamp at a bound", "1", "0.5 with jnp.clip and jnp.maximum", kinks.bounds
    ),
    Difference("gradient of abs at 0", "0", "1", kinks.absolutes),
    Difference(
        "gradient of max at ties",
        "along an axis to one index; of all, and amax, split evenly",
        "split evenly",
        kinks.maxima,
    ),
    Difference(
        "gradient of leaky_relu at 0, hardtanh at its bounds",
        "the lower side; 0",
        "the upper side; 1",
        kinks.comparisons,
    ),
    Difference("gradient of norm at 0", "0", "NaN", kinks.roots),
    Difference("gradient of x**0 at 0", "0", "NaN for an exponent that is an array", kinks.powers),
    Difference("mean squared error", "MSELoss", "optax.l2_loss is half of it", numbers.factors),
    Difference("attention scores", "times 1/√d", "left out in hand-written ports", layers.scales),
    Difference(
        "attention dropout",
        "drawn for each entry",
        "flax broadcasts one draw over heads: broadcast_dropout=True",
        elsewhere="the recorded draw refuses a smaller mask",
    ),
    Difference(
        "dropout, momentum, slopes", "the module's own number", "another default", numbers.options
    ),
    Difference(
        "resize",
        "no antialiasing; bicubic a = −0.75; nearest ⌊i n/m⌋",
        "jax.image.resize antialiases; a = −0.5; ⌊(i + ½) n/m⌋",
        resizing.resizes,
    ),
    Difference(
        "index out of range",
        "an error, so that none is recorded",
        "clamped, or NaN with jnp.take",
        elsewhere="NaN where torch has none refutes",
    ),
    Difference("AdamW weight decay", "1e-2", "optax 1e-4", numbers.constants),
    Difference(
        "RMSprop",
        "alpha 0.99, eps 1e-8 outside of the root",
        "optax decay 0.9, eps inside",
        numbers.decays,
    ),
    Difference(
        "Adagrad",
        "accumulator 0, eps 1e-10 outside of the root",
        "optax 0.1, 1e-7 inside",
        numbers.decays,
    ),
    Difference("clip_grad_norm_", "the norm plus 1e-6", "optax adds nothing", numbers.added),
    Difference(
        "GRU",
        "has a bias inside the reset gate, b_hn",
        "flax nnx's GRUCell has none",
        programs.scans,
    ),
    Difference(
        "variance in float32",
        "two passes",
        "flax E x² − (E x)²: use_fast_variance=False",
        elsewhere="the comparison in float32 says how many times less accurate it is",
    ),
    Difference(
        "float64",
        "stays float64",
        "a constant in float32 rounds what it meets",
        programs.precisions,
    ),
    Difference(
        "matrix products on a GPU",
        "float32, convolutions may use TF32",
        "TF32 at JAX's default precision",
        elsewhere="a measured product shows the precision in force",
    ),
    Difference("derivative rules", "autograd's", "a custom_vjp may be wrong", programs.rules),
    Difference("stop_gradient", "detach", "in another place", programs.stops),
)
"""Conventions that ports get wrong: the topic, what torch does, what the JAX side does."""


def attempts(case: ModuleBlock) -> Iterator[Attempt]:
    """Yield changes that may restore parity of a block: of each kind in turn, likeliest first."""
    kinds = dict.fromkeys(d.attempts for d in DIFFERENCES if d.attempts is not None)
    open_: list[Iterator[Attempt]] = [kind(case) for kind in kinds]
    nothing: Any = object()
    while open_:
        found = [(kind, next(kind, nothing)) for kind in open_]
        yield from (attempt for _, attempt in found if attempt is not nothing)
        open_ = [kind for kind, attempt in found if attempt is not nothing]
