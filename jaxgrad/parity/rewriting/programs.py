"""Changes to a whole program: its precision, derivative rules, stop_gradient and scans."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.primitives import shape_of
from jaxgrad.jaxprs.taps import bind
from jaxgrad.jaxprs.versions import scan_counts
from jaxgrad.parity.blocks import evaluate
from jaxgrad.parity.rewriting.module_block import Attempt, ModuleBlock, at


def precisions(case: ModuleBlock) -> Iterator[Attempt]:
    """The whole block in float64."""
    low = [
        eqn
        for eqn in case.block.equations
        if any(getattr(v.aval, "dtype", None) == np.float32 for v in eqn.outvars)
    ]

    def wide(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        xs = [x.astype(np.float64) if x.dtype == np.float32 else x for x in map(jnp.asarray, xs)]
        params = dict(eqn.params)
        for name in ("new_dtype", "preferred_element_type", "dtype"):
            if params.get(name) == np.dtype(np.float32):
                params[name] = np.dtype(np.float64)
        out = eqn.primitive.bind(*xs, **params)
        return list(out) if eqn.primitive.multiple_results else [out]

    if low:
        changed = {
            i: wide
            for i, eqn in enumerate(case.block.equations)
            if eqn.primitive.name not in ("jit", "pjit", "scan")
        }
        yield Attempt(
            changed, f"float64 throughout, without the float32{at(low[0])}, restores parity"
        )


def rules(case: ModuleBlock) -> Iterator[Attempt]:
    """JAX's own derivative in place of a custom rule."""
    for i, eqn in case.each("custom_vjp_call", "custom_jvp_call", "custom_vjp_call_jaxpr"):
        program = eqn.params.get("call_jaxpr") or eqn.params.get("fun_jaxpr")

        def plain(eqn: core.JaxprEqn, xs: Sequence[Any], program: Any = program) -> list[Any]:
            return list(jax.core.eval_jaxpr(program.jaxpr, program.consts, *xs))

        name = eqn.params.get("name")
        called = f" of {name}" if isinstance(name, str) else ""
        yield Attempt(
            {i: plain}, f"without its custom derivative rule{called}{at(eqn)}, parity is restored"
        )


def stops(case: ModuleBlock) -> Iterator[Attempt]:
    """No stop_gradient."""
    every = dict(case.each("stop_gradient"))
    if len(every) > 1:
        words = (
            f"without any stop_gradient, of which the first "
            f"is{at(next(iter(every.values())))}, parity is restored"
        )
        yield Attempt(dict.fromkeys(every, lambda eqn, xs: list(xs)), words)
    for i, eqn in every.items():
        yield Attempt(
            {i: lambda eqn, xs: list(xs)}, f"without stop_gradient{at(eqn)}, parity is restored"
        )


def scans(case: ModuleBlock) -> Iterator[Attempt]:
    """One of the module's own biases, or a third of it, added to a product inside a scan."""
    terms = [(f"{name}", array) for name, array in case.vectors.items()]
    for name, array in case.vectors.items():
        if array.size % 3 == 0:
            size = array.size // 3
            terms += [
                (f"{name}[{k * size}:{(k + 1) * size}]", array[k * size : (k + 1) * size])
                for k in range(3)
            ]
            terms += [
                (
                    f"{name}[{k * size}:{(k + 1) * size}]",
                    np.where(np.arange(array.size) // size == k, array, 0.0),
                )
                for k in range(3)
            ]
    for i, eqn in case.each("scan"):
        body = eqn.params["jaxpr"].jaxpr.eqns
        products = {
            j: shape_of(e.outvars[0])
            for j, e in enumerate(body)
            if e.primitive.name == "dot_general"
        }
        products = {j: shape for j, shape in products.items() if shape}
        for j, shape in products.items():
            for name, term in terms:
                if shape[-1] == term.size:
                    text = f"adding {name} after the product{at(body[j])} restores parity"
                    yield Attempt({i: _with_term(j, term, products)}, text)


def _with_term(
    number: int, term: np.ndarray, products: Mapping[int, tuple[int, ...]]
) -> Callable[..., list[Any]]:
    """Run a scan in which a term is added to one of its products."""
    added = {j: np.zeros(shape[-1]) for j, shape in products.items()} | {number: term}
    return lambda eqn, xs: list(_scan_with_terms(eqn)(added, list(xs)))


@functools.lru_cache(maxsize=4)
def _scan_with_terms(eqn: core.JaxprEqn) -> Callable[..., Any]:
    """Return a scan that takes a term for each product of its body, compiled once for all terms."""
    params, body = eqn.params, eqn.params["jaxpr"]
    fixed, carried = scan_counts(params)

    def run(added: dict[int, Any], xs: list[Any]) -> list[Any]:
        changed = {
            j: lambda e, ys, term=term: [bind(e, ys)[0] + term.astype(ys[0].dtype)]
            for j, term in added.items()
        }

        def step(carry: Sequence[Any], given: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            env = dict(zip(body.jaxpr.constvars, body.consts, strict=True))
            env |= dict(zip(body.jaxpr.invars, (*xs[:fixed], *carry, *given), strict=True))
            outputs = evaluate(body.jaxpr.eqns, body.jaxpr.outvars, env, changed)
            return outputs[:carried], outputs[carried:]

        options = {k: params[k] for k in ("length", "reverse", "unroll")}
        last, rows = jax.lax.scan(
            step, xs[fixed : fixed + carried], xs[fixed + carried :], **options
        )
        return [*last, *rows]

    return jax.jit(run)
