"""Changes of a block's equations that undo a difference in convention.

Each function looks at a block and yields attempts: which equations get another meaning, and how that is said. Nothing here
knows whether an attempt is right; that is measured.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.arrays import dtype_of, shape_of
from jaxgrad.intermediates import bind
from jaxgrad.interpreter import location
from jaxgrad.parity.blocks import Block, Substitutes

_EPS = (1e-5, 1e-6, float(np.finfo(np.float64).eps), float(np.finfo(np.float32).eps), 1e-8, 1e-12, 1e-10, 1e-7, 1e-3)
_CONSTANTS = (1e-2, 1e-4, 0.1, 0.9, 0.99, 0.999, 1e-8, 1e-10, 1e-7, 0.0, 0.01, 0.25, 0.5, 2.0)


class Attempt(NamedTuple):
    """Equations with another meaning, and what that is in words."""

    substitutes: Substitutes
    words: str


class Scene(NamedTuple):
    """A block, and torch's options of the module that it stands for."""

    block: Block
    options: dict[str, Any]

    def each(self, *names: str) -> Iterator[tuple[int, core.JaxprEqn]]:
        """Yield the equations of some primitives, with their number."""
        for i, eqn in enumerate(self.block.equations):
            if eqn.primitive.name in names or (eqn.primitive.name in ("jit", "pjit") and eqn.params.get("name") in names):
                yield i, eqn

    def literals(self, *names: str) -> Iterator[tuple[int, int, float]]:
        """Yield the plain real numbers among operands: equation, operand and value."""
        for i, eqn in self.each(*names) if names else enumerate(self.block.equations):
            for k, atom in enumerate(eqn.invars):
                if isinstance(atom, core.Literal) and dtype_of(atom).kind == "f" and not shape_of(atom):
                    yield i, k, float(atom.val)

    def readers(self, eqn: core.JaxprEqn) -> list[core.JaxprEqn]:
        """Return the equations that use a result of this one."""
        return [e for e in self.block.equations if any(v in e.invars for v in eqn.outvars)]


def _with_operand(k: int, change: Callable[[Any], Any]) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    return lambda eqn, xs: bind(eqn, [change(x) if i == k else x for i, x in enumerate(xs)])


def _times(factor: float) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    return lambda eqn, xs: [out * factor for out in bind(eqn, xs)]


def _short(value: float) -> str:
    return f"{value:.8g}"


def _at(eqn: core.JaxprEqn) -> str:
    place = location(eqn)
    return "" if place == "an unknown line" else f" at {place.rpartition('/')[2]}"


def epsilons(scene: Scene) -> Iterator[Attempt]:
    """Another eps where a small number is added, or a maximum taken with it."""
    own = [v for k, v in scene.options.items() if "eps" in k and isinstance(v, float)]
    for i, k, value in scene.literals("add", "max"):
        if not 0 < value <= 1e-2:
            continue
        for other in dict.fromkeys((*own, *_EPS)):
            if other != value:
                yield Attempt({i: _with_operand(k, lambda x, v=other: jnp.full_like(x, v))}, f"eps={_short(other)} restores parity")


def options(scene: Scene) -> Iterator[Attempt]:
    """The torch module's own numbers, and what dropout makes of them, in place of each plain number."""
    given = {k: float(v) for k, v in scene.options.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    wanted = {f"{k}={_short(v)}": v for k, v in given.items()}
    p = given.get("p", given.get("dropout", 0.0))
    if 0 < p < 1:
        wanted |= {f"1 − p = {_short(1 - p)}": 1 - p, f"1/(1 − p) = {_short(1 / (1 - p))}": 1 / (1 - p)}
    for i, k, value in scene.literals():
        for words, other in wanted.items():
            if not math.isclose(other, value, rel_tol=1e-6):
                text = f"{words} in place of {_short(value)}{_at(scene.block.equations[i])} restores parity"
                yield Attempt({i: _with_operand(k, lambda x, v=other: jnp.full_like(x, v))}, text)


def constants(scene: Scene) -> Iterator[Attempt]:
    """The defaults of optimizers in place of each plain number, in blocks that have few."""
    found = [(i, k, v) for i, k, v in scene.literals() if 0 < abs(v) < 1]
    for i, k, value in found if len(found) <= 12 else ():
        for other in _CONSTANTS:
            if not math.isclose(other, value, rel_tol=1e-6):
                text = f"{_short(other)} in place of {_short(value)}{_at(scene.block.equations[i])} restores parity"
                yield Attempt({i: _with_operand(k, lambda x, v=other: jnp.full_like(x, v))}, text)


def added(scene: Scene) -> Iterator[Attempt]:
    """A small number added to what is divided by."""
    for i, eqn in scene.each("div"):
        if isinstance(eqn.invars[1], core.Var):
            text = f"adding 1e-6 to what is divided by{_at(eqn)} restores parity"
            yield Attempt({i: _with_operand(1, lambda x: x + 1e-6)}, text)


def gelus(scene: Scene) -> Iterator[Attempt]:
    """GELU by erf in place of tanh, or the other way round."""
    root = math.sqrt(2 / math.pi)

    def by_tanh(z: Any) -> Any:
        x = z * math.sqrt(2)
        return jnp.tanh(root * (x + 0.044715 * x**3))

    for i, _ in scene.each("erf"):
        yield Attempt({i: lambda eqn, xs: [by_tanh(xs[0])]}, "the tanh form of GELU (approximate='tanh') restores parity")
    for i, _ in scene.each("erfc"):
        yield Attempt({i: lambda eqn, xs: [1 - by_tanh(xs[0])]}, "the tanh form of GELU (approximate='tanh') restores parity")
    for i, _ in scene.each("tanh"):
        yield Attempt({i: lambda eqn, xs: [_erf_of(xs[0], root)]}, "the erf form of GELU (approximate=False) restores parity")


def _erf_of(u: Any, root: float) -> Any:
    """Return erf(x/√2) for the x with u = √(2/π)(x + 0.044715 x³), the one real root of a cubic."""
    p, q = 1 / 0.044715, -u / (root * 0.044715)
    s = 2 * math.sqrt(p / 3)
    x = -s * jnp.sinh(jnp.arcsinh(1.5 * q / p * math.sqrt(3 / p)) / 3)
    return jax.scipy.special.erf(x / math.sqrt(2))


def transposes(scene: Scene) -> Iterator[Attempt]:
    """A square matrix that is read from the parameters, transposed before a product."""
    parameters = {v: key.name for key, v in scene.block.reads.items() if key.kind in ("parameter", "fixed")}
    for i, eqn in scene.each("dot_general"):
        for k, atom in enumerate(eqn.invars):
            shape = shape_of(atom)
            if len(shape) == 2 and shape[0] == shape[1]:
                name = parameters.get(atom, "the square matrix") if isinstance(atom, core.Var) else "the square matrix"
                yield Attempt({i: _with_operand(k, jnp.transpose)}, f"transposing {name}{_at(eqn)} restores parity")


def paddings(scene: Scene) -> Iterator[Attempt]:
    """Torch's own padding of a convolution."""
    for i, eqn in scene.each("conv_general_dilated"):
        used = eqn.params["padding"]
        widths = {tuple(sum(p) for p in used)}
        guesses = [tuple((w // 2, w - w // 2) for w in ws) for ws in widths] + [
            tuple((w - w // 2, w // 2) for w in ws) for ws in widths
        ]
        guesses.append(tuple((max(p), max(p)) for p in used))
        own = scene.options.get("padding")
        if isinstance(own, (list, tuple)) and len(own) == len(used):
            guesses.insert(0, tuple((int(p), int(p)) for p in own))
        for guess in dict.fromkeys(guesses):
            if guess != tuple(map(tuple, used)):
                yield Attempt({i: _padded(guess)}, f"padding={[list(g) for g in guess]} restores parity")


def _padded(padding: Any) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        out = eqn.primitive.bind(*xs, **{**eqn.params, "padding": padding})
        if out.shape != shape_of(eqn.outvars[0]):
            raise ValueError("another shape")
        return [out]

    return run


def kernels(scene: Scene) -> Iterator[Attempt]:
    """A convolution's kernel turned by half a turn."""
    for i, eqn in scene.each("conv_general_dilated"):
        spatial = eqn.params["dimension_numbers"].rhs_spec[2:]
        turned = _with_operand(1, lambda x, axes=spatial: jnp.flip(x, axes))
        yield Attempt({i: turned}, f"turning the kernel by half a turn{_at(eqn)} restores parity (transpose_kernel=True)")


def corrections(scene: Scene) -> Iterator[Attempt]:
    """A variance or deviation divided by n − 1 in place of n, or the other way round."""
    for i, eqn in scene.each("_std", "_var"):
        n = math.prod(shape_of(eqn.invars[0])) // max(1, math.prod(shape_of(eqn.outvars[0])))
        ratio = n / max(1, n - 1)
        power = 0.5 if eqn.params["name"] == "_std" else 1.0
        yield Attempt({i: _times(ratio**power)}, f"dividing by n − 1 (ddof=1){_at(eqn)} restores parity")
        yield Attempt({i: _times(ratio**-power)}, f"dividing by n (ddof=0){_at(eqn)} restores parity")
    for i, k, value in scene.literals("div"):
        if k == 1 and value >= 2 and value == int(value):
            eqn = scene.block.equations[i]
            for other in (value - 1, value + 1):
                text = f"dividing by {_short(other)} in place of {_short(value)}{_at(eqn)} restores parity"
                yield Attempt({i: _with_operand(1, lambda x, v=other: jnp.full_like(x, v))}, text)


def medians(scene: Scene) -> Iterator[Attempt]:
    """The lower of the two entries in the middle."""
    for i, eqn in scene.each("median", "quantile"):
        shape, out = (shape_of(v) for v in (eqn.invars[0], eqn.outvars[0]))
        axes = [None] if not out else [a for a in range(len(shape)) if shape[:a] + shape[a + 1 :] == out]
        for axis in axes:

            def lower(eqn: core.JaxprEqn, xs: Sequence[Any], axis: Any = axis) -> list[Any]:
                x = xs[0].ravel() if axis is None else xs[0]
                along = 0 if axis is None else axis
                return [jnp.take(jnp.sort(x, along), (x.shape[along] - 1) // 2, axis=along)]

            yield Attempt({i: lower}, f"the lower of the two entries in the middle{_at(eqn)} restores parity")


def bounds(scene: Scene) -> Iterator[Attempt]:
    """At a bound, the derivative of max, min and clip that torch takes: 1, or 0."""
    for i, eqn in scene.each("max", "min", "clip"):
        for slope in (1.0, 0.0):
            text = f"a derivative of {slope:g} where the bound is met{_at(eqn)} restores parity"
            yield Attempt({i: _one_sided(slope)}, text)


def _one_sided(slope: float) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        (value,) = bind(eqn, xs)
        x = xs[0]
        passed = jnp.where(value == x, x, jax.lax.stop_gradient(value)) if slope else None
        tied = (
            jnp.any(jnp.stack([jnp.broadcast_to(value == b, value.shape) for b in xs[1:]]), 0)
            if len(xs) > 1
            else jnp.zeros(value.shape, bool)
        )
        if slope:
            return [jnp.asarray(passed)]
        return [jnp.where((value == x) & ~tied, x, jax.lax.stop_gradient(value))]

    return run


def absolutes(scene: Scene) -> Iterator[Attempt]:
    """The derivative of abs at 0 is 0."""
    for i, eqn in scene.each("abs"):
        yield Attempt({i: lambda eqn, xs: [xs[0] * jax.lax.stop_gradient(jnp.sign(xs[0]))]}, f"abs'(0) = 0{_at(eqn)} restores parity")


def maxima(scene: Scene) -> Iterator[Attempt]:
    """Ties of a maximum: the derivative goes to the first entry, or to the last."""
    for i, eqn in scene.each("reduce_max", "reduce_min"):
        for which in ("first", "last"):
            text = f"the whole derivative to the {which} of equal entries{_at(eqn)} restores parity"
            yield Attempt({i: _single(which)}, text)


def _single(which: str) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        (x,), axes = xs, tuple(eqn.params["axes"])
        rest = [a for a in range(x.ndim) if a not in axes]
        flat = jnp.transpose(x, (*rest, *axes)).reshape(*(x.shape[a] for a in rest), -1)
        flat = flat if which == "first" else flat[..., ::-1]
        at = (jnp.argmax if eqn.primitive.name == "reduce_max" else jnp.argmin)(flat, -1)
        return [jnp.take_along_axis(flat, at[..., None], -1)[..., 0]]

    return run


_OTHER = {"ge": (jax.lax.gt_p, ">"), "gt": (jax.lax.ge_p, ">="), "le": (jax.lax.lt_p, "<"), "lt": (jax.lax.le_p, "<=")}


def comparisons(scene: Scene) -> Iterator[Attempt]:
    """A comparison that counts equality, or does not."""
    for i, eqn in scene.each(*_OTHER):
        primitive, sign = _OTHER[eqn.primitive.name]
        text = f"{sign} as the comparison{_at(eqn)} restores parity"
        yield Attempt({i: lambda eqn, xs, p=primitive: [p.bind(*xs, **eqn.params)]}, text)


def roots(scene: Scene) -> Iterator[Attempt]:
    """A root whose derivative at 0 is 0."""

    def safe(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        zero = xs[0] == 0
        return [jnp.where(zero, 0.0, bind(eqn, [jnp.where(zero, 1.0, xs[0])])[0])]

    for i, eqn in scene.each("sqrt"):
        yield Attempt({i: safe}, f"a gradient of 0 where the norm is 0{_at(eqn)} restores parity")


def factors(scene: Scene) -> Iterator[Attempt]:
    """The result times 2 or half of it, and its negative."""
    last = len(scene.block.equations) - 1
    for factor in (2.0, 0.5, -1.0) if last >= 0 else ():
        hint = " (optax.l2_loss is half of torch's MSELoss)" if factor == 2.0 else ""
        yield Attempt({last: _times(factor)}, f"a factor of {factor:g} restores parity{hint}")


def scales(scene: Scene) -> Iterator[Attempt]:
    """A product divided by the root of the contracted length, or multiplied by it."""
    for i, eqn in scene.each("dot_general"):
        ((contracted, _), _), shape = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
        d = math.prod(shape[a] for a in contracted)
        if d > 1:
            yield Attempt({i: _times(d**-0.5)}, f"a factor of 1/√{d} after the product{_at(eqn)} restores parity")
            yield Attempt({i: _times(d**0.5)}, f"a factor of √{d} after the product{_at(eqn)} restores parity")


def resizes(scene: Scene) -> Iterator[Attempt]:
    """A resize without antialiasing."""
    for i, eqn in scene.each("_resize"):
        for method in ("linear", "cubic"):

            def plain(eqn: core.JaxprEqn, xs: Sequence[Any], method: str = method) -> list[Any]:
                return [jax.image.resize(xs[0], shape_of(eqn.outvars[0]), method, antialias=False)]

            yield Attempt({i: plain}, f"jax.image.resize(…, {method!r}, antialias=False){_at(eqn)} restores parity")


def precisions(scene: Scene) -> Iterator[Attempt]:
    """The whole block in float64."""
    low = [eqn for eqn in scene.block.equations if any(getattr(v.aval, "dtype", None) == np.float32 for v in eqn.outvars)]

    def wide(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        xs = [x.astype(np.float64) if x.dtype == np.float32 else x for x in map(jnp.asarray, xs)]
        params = dict(eqn.params)
        for name in ("new_dtype", "preferred_element_type", "dtype"):
            if params.get(name) == np.dtype(np.float32):
                params[name] = np.dtype(np.float64)
        out = eqn.primitive.bind(*xs, **params)
        return list(out) if eqn.primitive.multiple_results else [out]

    if low:
        changed = {i: wide for i, eqn in enumerate(scene.block.equations) if eqn.primitive.name not in ("jit", "pjit", "scan")}
        yield Attempt(changed, f"float64 throughout, without the float32{_at(low[0])}, restores parity")


def rules(scene: Scene) -> Iterator[Attempt]:
    """JAX's own derivative in place of a custom rule."""
    for i, eqn in scene.each("custom_vjp_call", "custom_jvp_call", "custom_vjp_call_jaxpr"):
        program = eqn.params.get("call_jaxpr") or eqn.params.get("fun_jaxpr")

        def plain(eqn: core.JaxprEqn, xs: Sequence[Any], program: Any = program) -> list[Any]:
            return list(jax.core.eval_jaxpr(program.jaxpr, program.consts, *xs))

        name = eqn.params.get("name")
        called = f" of {name}" if isinstance(name, str) else ""
        yield Attempt({i: plain}, f"without its custom derivative rule{called}{_at(eqn)}, parity is restored")


def stops(scene: Scene) -> Iterator[Attempt]:
    """No stop_gradient."""
    every = dict(scene.each("stop_gradient"))
    if len(every) > 1:
        words = f"without any stop_gradient, of which the first is{_at(next(iter(every.values())))}, parity is restored"
        yield Attempt(dict.fromkeys(every, lambda eqn, xs: list(xs)), words)
    for i, eqn in every.items():
        yield Attempt({i: lambda eqn, xs: list(xs)}, f"without stop_gradient{_at(eqn)}, parity is restored")
