"""Layers: activations, transposed weights, biases, paddings, statistics, attention, resizing."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.primitives import shape_of
from jaxgrad.jaxprs.taps import bind
from jaxgrad.parity.rewriting.module_block import (
    Attempt,
    ModuleBlock,
    at,
    short,
    times,
    with_operand,
)


def gelus(case: ModuleBlock) -> Iterator[Attempt]:
    """GELU by erf in place of tanh, or the other way round."""
    root = math.sqrt(2 / math.pi)

    def by_tanh(z: Any) -> Any:
        x = z * math.sqrt(2)
        return jnp.tanh(root * (x + 0.044715 * x**3))

    for i, _ in case.each("erf"):
        yield Attempt(
            {i: lambda eqn, xs: [by_tanh(xs[0])]},
            "the tanh form of GELU (approximate='tanh') restores parity",
        )
    for i, _ in case.each("erfc"):
        yield Attempt(
            {i: lambda eqn, xs: [1 - by_tanh(xs[0])]},
            "the tanh form of GELU (approximate='tanh') restores parity",
        )
    for i, _ in case.each("tanh"):
        yield Attempt(
            {i: lambda eqn, xs: [_erf_of(xs[0], root)]},
            "the erf form of GELU (approximate=False) restores parity",
        )


def _erf_of(u: Any, root: float) -> Any:
    """Return erf(x/√2) for the x with u = √(2/π)(x + 0.044715 x³), the one real root of a cubic."""
    p, q = 1 / 0.044715, -u / (root * 0.044715)
    s = 2 * math.sqrt(p / 3)
    x = -s * jnp.sinh(jnp.arcsinh(1.5 * q / p * math.sqrt(3 / p)) / 3)
    return jax.scipy.special.erf(x / math.sqrt(2))


def softplus(case: ModuleBlock) -> Iterator[Attempt]:
    """A softplus that is x itself above 20."""
    for i, eqn in case.each("custom_jvp_call"):
        if (eqn.params["call_jaxpr"].jaxpr.debug_info.func_name or "") == "logaddexp":

            def linear(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
                return [jnp.where(xs[0] > 20, xs[0], bind(eqn, xs)[0])]

            yield Attempt(
                {i: linear},
                f"x itself above 20, as torch's threshold has it,{at(eqn)} restores parity",
            )


def sixths(case: ModuleBlock) -> Iterator[Attempt]:
    """A division by 6 whose derivative is rounded to float32, as in torch's hardsigmoid."""
    rounded = float(np.float32(1 / 6))

    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        return [rounded * xs[0] + jax.lax.stop_gradient(bind(eqn, xs)[0] - rounded * xs[0])]

    for i, k, value in case.literals("div", "mul"):
        if (
            math.isclose(value, 6.0 if case.block.equations[i].primitive.name == "div" else 1 / 6)
            and k == 1
        ):
            text = (
                "torch's derivative of hardsigmoid is 1/6 rounded to float32: with that, "
                "parity is restored; the port is the more exact"
            )
            yield Attempt({i: run}, text)


def transposes(case: ModuleBlock) -> Iterator[Attempt]:
    """A square matrix that is read from the parameters, transposed before a product."""
    parameters = {
        v: key.name for key, v in case.block.reads.items() if key.kind in ("parameter", "fixed")
    }
    for i, eqn in case.each("dot_general"):
        for k, atom in enumerate(eqn.invars):
            shape = shape_of(atom)
            if len(shape) == 2 and shape[0] == shape[1]:
                name = (
                    parameters.get(atom, "the square matrix")
                    if isinstance(atom, core.Var)
                    else "the square matrix"
                )
                yield Attempt(
                    {i: with_operand(k, jnp.transpose)},
                    f"transposing {name}{at(eqn)} restores parity",
                )


def biases(case: ModuleBlock) -> Iterator[Attempt]:
    """The biases of every weight whose own is not read, added after its product."""
    made, read = case.producers(), {key.name for key in case.block.reads}
    parameters = {
        v: key.name for key, v in case.block.reads.items() if key.kind in ("parameter", "fixed")
    }
    for last in (True, False):
        changes, names = {}, {}
        for i, eqn in case.each("dot_general"):
            for atom in eqn.invars:
                name, rows = _origin(atom, made, parameters)
                module, _, kind = name.rpartition(".")
                bias = ".".join(filter(None, (module, kind.replace("weight", "bias"))))
                if bias == name or bias in read or bias not in case.vectors:
                    continue
                term = case.vectors[bias] if rows is None else case.vectors[bias][rows]
                shape = _placed(shape_of(eqn.outvars[0]), term.size, last)
                if shape is not None:
                    changes[i] = _plus(term.reshape(shape))
                    names[bias] = None
        if changes:
            yield Attempt(changes, f"adding {', '.join(names)} restores parity")


def _origin(atom: Any, made: Any, parameters: Any) -> tuple[str, slice | None]:
    """Return the parameter that an operand rearranges, and which of its rows; "" for none."""
    rows = None
    while atom in made if isinstance(atom, core.Var) else False:
        eqn = made[atom]
        name = eqn.primitive.name
        if name == "slice":
            axis = int(
                np.argmax(
                    [a != b for a, b in zip(shape_of(eqn.invars[0]), shape_of(atom), strict=True)]
                )
            )
            rows = slice(eqn.params["start_indices"][axis], eqn.params["limit_indices"][axis])
        elif name == "split":
            edges = np.cumsum([0, *eqn.params["sizes"]])
            at = eqn.outvars.index(atom)
            rows = slice(int(edges[at]), int(edges[at + 1]))
        elif name not in (
            "transpose",
            "reshape",
            "squeeze",
            "copy",
            "convert_element_type",
            "name",
        ):
            return "", None
        atom = eqn.invars[0]
    return (parameters.get(atom, ""), rows) if isinstance(atom, core.Var) else ("", None)


def _placed(shape: tuple[int, ...], size: int, last: bool) -> tuple[int, ...] | None:
    """Return the shape in which a vector stands along the last, or first, axes of an array."""
    for end in range(len(shape), 0, -1) if last else range(1, len(shape) + 1):
        for start in range(end - 1, -1, -1):
            if math.prod(shape[start:end]) == size:
                return (1,) * start + shape[start:end] + (1,) * (len(shape) - end)
    return None


def _plus(term: np.ndarray) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    return lambda eqn, xs: [eqn.primitive.bind(*xs, **eqn.params) + jnp.asarray(term, xs[0].dtype)]


def paddings(case: ModuleBlock) -> Iterator[Attempt]:
    """Torch's own padding of a convolution."""
    for i, eqn in case.each("conv_general_dilated"):
        used = eqn.params["padding"]
        widths = {tuple(sum(p) for p in used)}
        guesses = [tuple((w // 2, w - w // 2) for w in ws) for ws in widths] + [
            tuple((w - w // 2, w // 2) for w in ws) for ws in widths
        ]
        guesses.append(tuple((max(p), max(p)) for p in used))
        own = case.options.get("padding")
        if isinstance(own, (list, tuple)) and len(own) == len(used):
            guesses.insert(0, tuple((int(p), int(p)) for p in own))
        for guess in dict.fromkeys(guesses):
            if guess != tuple(map(tuple, used)):
                yield Attempt(
                    {i: _padded(guess)}, f"padding={[list(g) for g in guess]} restores parity"
                )


def _padded(padding: Any) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        out = eqn.primitive.bind(*xs, **{**eqn.params, "padding": padding})
        if out.shape != shape_of(eqn.outvars[0]):
            raise ValueError("another shape")
        return [out]

    return run


def kernels(case: ModuleBlock) -> Iterator[Attempt]:
    """A convolution's kernel turned by half a turn."""
    for i, eqn in case.each("conv_general_dilated"):
        spatial = eqn.params["dimension_numbers"].rhs_spec[2:]
        turned = with_operand(1, lambda x, axes=spatial: jnp.flip(x, axes))
        yield Attempt(
            {i: turned},
            f"turning the kernel by half a turn{at(eqn)} restores parity (transpose_kernel=True)",
        )


def corrections(case: ModuleBlock) -> Iterator[Attempt]:
    """A variance or deviation divided by n − 1 in place of n, or the other way round."""
    for i, eqn in case.each("_std", "_var"):
        n = math.prod(shape_of(eqn.invars[0])) // max(1, math.prod(shape_of(eqn.outvars[0])))
        ratio = n / max(1, n - 1)
        power = 0.5 if eqn.params["name"] == "_std" else 1.0
        yield Attempt(
            {i: times(ratio**power)}, f"dividing by n − 1 (ddof=1){at(eqn)} restores parity"
        )
        yield Attempt({i: times(ratio**-power)}, f"dividing by n (ddof=0){at(eqn)} restores parity")
    for i, k, value in case.literals("div"):
        if k == 1 and value >= 2 and value == int(value):
            eqn = case.block.equations[i]
            for other in (value - 1, value + 1):
                text = (
                    f"dividing by {short(other)} in place of {short(value)}{at(eqn)} restores "
                    f"parity"
                )
                yield Attempt({i: with_operand(1, lambda x, v=other: jnp.full_like(x, v))}, text)


def medians(case: ModuleBlock) -> Iterator[Attempt]:
    """The lower of the two entries in the middle."""
    for i, eqn in case.each("median", "quantile"):
        shape, out = (shape_of(v) for v in (eqn.invars[0], eqn.outvars[0]))
        axes = (
            [None]
            if not out
            else [a for a in range(len(shape)) if shape[:a] + shape[a + 1 :] == out]
        )
        for axis in axes:

            def lower(eqn: core.JaxprEqn, xs: Sequence[Any], axis: Any = axis) -> list[Any]:
                x = xs[0].ravel() if axis is None else xs[0]
                along = 0 if axis is None else axis
                return [jnp.take(jnp.sort(x, along), (x.shape[along] - 1) // 2, axis=along)]

            yield Attempt(
                {i: lower}, f"the lower of the two entries in the middle{at(eqn)} restores parity"
            )


def scales(case: ModuleBlock) -> Iterator[Attempt]:
    """A product divided by the root of the contracted length, or multiplied by it."""
    for i, eqn in case.each("dot_general"):
        ((contracted, _), _), shape = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
        d = math.prod(shape[a] for a in contracted)
        if d > 1:
            yield Attempt(
                {i: times(d**-0.5)},
                f"a factor of 1/√{d} after the product{at(eqn)} restores parity",
            )
            yield Attempt(
                {i: times(d**0.5)}, f"a factor of √{d} after the product{at(eqn)} restores parity"
            )
