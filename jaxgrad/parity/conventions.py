"""Conventions in which torch and the JAX libraries differ, and what is tried at a block that fails.

`DIFFERENCES` is the table. Where a difference can be undone inside a program, `attempts` yields changed equations of the
failing block; the first change with which the block agrees with torch, forward or backward, is the remedy that is told.
What cannot be tried on a program (an index out of range, TF32) is in the table to be read.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxgrad.parity import rewriting
from jaxgrad.parity.rewriting import Attempt, Scene


class Difference(NamedTuple):
    """One convention in which the two sides differ.

    Attributes:
        topic: what it is about.
        torch: what torch does.
        jax: what JAX, flax, Equinox or optax do.
        attempts: yields changes of a block that would undo it; None where none can.
    """

    topic: str
    torch: str
    jax: str
    attempts: Callable[[Scene], Iterator[Attempt]] | None = None


DIFFERENCES: tuple[Difference, ...] = (
    Difference("LayerNorm and GroupNorm eps", "1e-5", "flax 1e-6, Equinox 1e-5", rewriting.epsilons),
    Difference("RMSNorm eps", "the dtype's eps", "flax 1e-6, Equinox 1e-5", rewriting.epsilons),
    Difference("BatchNorm momentum", "0.1, the weight of the new", "flax 0.99, the weight of the old"),
    Difference("BatchNorm running variance", "divided by n − 1", "flax divides by n"),
    Difference("GELU", "erf", "jax.nn.gelu approximates by tanh", rewriting.gelus),
    Difference("Linear weight", "(out, in)", "flax kernel (in, out); a square one goes unnoticed", rewriting.transposes),
    Difference("bias", "Linear, convolutions and MultiheadAttention have one", "Equinox attention has none by default"),
    Difference("convolution padding", "0, or the same on both sides", "SAME, uneven at stride 2", rewriting.paddings),
    Difference("transposed convolution", "the kernel is turned", "transpose_kernel=False leaves it", rewriting.kernels),
    Difference("std and var", "divided by n − 1", "divided by n", rewriting.corrections),
    Difference("median", "the lower of the two in the middle", "their average", rewriting.medians),
    Difference("gradient of clamp at a bound", "1", "0.5 with jnp.clip and jnp.maximum", rewriting.bounds),
    Difference("gradient of abs at 0", "0", "1", rewriting.absolutes),
    Difference("gradient of max at ties", "to one index; amax splits evenly", "split evenly", rewriting.maxima),
    Difference("gradient of leaky_relu at 0, hardtanh at its bounds", "the lower side; 0", "the upper side; 1", rewriting.comparisons),
    Difference("gradient of norm at 0", "0", "NaN", rewriting.roots),
    Difference("gradient of x**0 at 0", "0", "NaN for an exponent that is an array"),
    Difference("mean squared error", "MSELoss", "optax.l2_loss is half of it", rewriting.factors),
    Difference("attention scores", "times 1/√d", "left out in hand-written ports", rewriting.scales),
    Difference("attention dropout", "drawn for each entry", "flax broadcasts one draw over heads: broadcast_dropout=True"),
    Difference("dropout, momentum, slopes", "the module's own number", "another default, such as PReLU .25 and .01", rewriting.options),
    Difference("resize", "no antialiasing", "jax.image.resize antialiases", rewriting.resizes),
    Difference("index out of range", "an error", "clamped, or NaN with take"),
    Difference("AdamW weight decay", "1e-2", "optax 1e-4", rewriting.constants),
    Difference("RMSprop", "alpha 0.99, eps 1e-8 outside of the root", "optax decay 0.9, eps inside", rewriting.constants),
    Difference("Adagrad", "accumulator 0, eps 1e-10", "optax 0.1 and 1e-7", rewriting.constants),
    Difference("clip_grad_norm_", "the norm plus 1e-6", "optax adds nothing", rewriting.added),
    Difference("GRU", "has a bias inside the reset gate, b_hn", "flax nnx's GRUCell has none"),
    Difference("variance in float32", "two passes", "flax E x² − (E x)²: use_fast_variance=False"),
    Difference("float64", "stays float64", "a constant in float32 rounds what it meets", rewriting.precisions),
    Difference("matrix products on a GPU", "float32, convolutions may use TF32", "TF32 at JAX's default precision"),
    Difference("derivative rules", "autograd's", "a custom_vjp may be wrong", rewriting.rules),
    Difference("stop_gradient", "detach", "in another place", rewriting.stops),
)
"""Conventions that ports get wrong: the topic, what torch does, what the JAX side does."""


def attempts(scene: Scene) -> Iterator[Attempt]:
    """Yield every change that may restore parity of a block, the likeliest first and each kind once."""
    tried: set[Any] = set()
    for difference in DIFFERENCES:
        if difference.attempts is not None and difference.attempts not in tried:
            tried.add(difference.attempts)
            yield from difference.attempts(scene)
