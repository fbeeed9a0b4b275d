"""Ways to prove a claim: which two functions are compared, of which free variables.

Domains with equations or signs, such as the simplex, are written in free variables, so that a
formula is proved on its domain and not beyond. Labels and other discrete inputs take each of their
values; where there are too many, those that were drawn. A way says in words what its proof is
restricted to.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxgrad.claims.labels import Values, branches_on, is_smooth
from jaxgrad.claims.labels import values as values_of
from jaxgrad.evidence.problem import Problem, Tree
from jaxgrad.jaxprs.traced import Picked, Traceable, TracedOnce


def _cayley(a: Any) -> Any:
    skew, identity = a - jnp.swapaxes(a, -1, -2), jnp.eye(a.shape[-1])
    return jnp.linalg.solve(identity + skew, identity - skew)


def _turned(a: Any) -> Any:
    """Return Cayley's rotation, its first column times the sign of an entry it does not use."""
    rotation = _cayley(a)
    return jnp.concatenate(
        [rotation[..., :1] * jnp.sign(a[..., :1, :1]), rotation[..., 1:]], axis=-1
    )


_CHARTS: dict[str, Callable[[Any], Any]] = {
    "positive": lambda t: t * t,
    "probability": lambda t: t * t / (1 + t * t),
    "simplex": lambda t: t * t / jnp.sum(t * t, axis=-1, keepdims=True),
    "spd": lambda t: t @ jnp.swapaxes(t, -1, -2),
    "orthogonal": _cayley,
}
"""Maps from free variables onto the domains that equations or signs define: a formula need only
hold there.
"""
_WHOLE_CHARTS = {**_CHARTS, "orthogonal": _turned}
"""The same where those reach a part alone, on which a difference is exact: these have branches, and
reach reflections too.
"""


def parametrised(domains: Mapping[str, Any]) -> Callable[[Traceable], Traceable]:
    """Return what writes a function of the inputs in free variables of their domains."""
    known = {n: d for n, d in domains.items() if isinstance(d, str) and d in _CHARTS}
    atlas = [_CHARTS, _WHOLE_CHARTS] if "orthogonal" in known.values() else [_CHARTS]

    def on_free(function: Traceable) -> Traceable:
        if not known:
            return function

        def of_free(free: dict[str, Tree], *mask: Any) -> Any:
            points = [
                {n: jax.tree.map(charts[known[n]], x) if n in known else x for n, x in free.items()}
                for charts in atlas
            ]
            return jax.tree.map(
                lambda *sides: jnp.stack(sides), *(function(point, *mask) for point in points)
            )

        return TracedOnce(of_free)

    return on_free


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to prove a claim: two functions to compare, and their arguments.

    Attributes:
        claimed: the closed form.
        reference: the gradient.
        args: what both are functions of.
        where: the sizes and whatever else the proof is restricted to.
        partial: why a proof this way is no proof of the whole claim; empty where it is one.
        doubt: why a refutation this way is none of the claim; empty where it is one.
    """

    claimed: Traceable
    reference: Traceable
    args: tuple[Any, ...]
    where: str
    partial: str = ""
    doubt: str = ""

    def at(self, values: Values) -> "Way":
        """Return the same way at values of the discrete inputs."""
        partial = (
            ""
            if values.every
            else f"proved at {values.words} that were drawn, and there are others"
        )
        where = f"{self.where} with {values.words}"
        return dataclasses.replace(
            self,
            claimed=values.fill(self.claimed),
            reference=values.fill(self.reference),
            where=where,
            partial=partial,
            doubt="",
        )

    def of(self, label: str) -> "Way":
        """Return the same way for one array of the gradient."""
        pick = operator.itemgetter(label)
        return dataclasses.replace(
            self, claimed=Picked(self.claimed, pick), reference=Picked(self.reference, pick)
        )


def on_domains(
    problem: Problem, sizes: Mapping[str, int], ways: list[Way], entries: int
) -> list[Way]:
    """Return the ways that prove or refute on the domains of the inputs."""
    derivation = problem.derivation
    discrete = problem.discrete(sizes)
    unknown = [
        name
        for name, domain in derivation.domains.items()
        if callable(domain) and name not in discrete
    ]
    doubt = (
        f"the domain of `{unknown[0]}` may have equations, or bounds, that a proof does not know"
        if unknown
        else ""
    )
    ways = [dataclasses.replace(way, doubt=doubt) for way in ways]
    likely = problem.likely_labels
    if likely and any(
        branches_on(side, _marked(way, likely)) for way in ways for side in _programs(way)
    ):
        first = min(likely)
        hint = (
            f"`{first}` is given in few values; if these are labels, name their domain, such "
            f"as 'binary' or 'index n', in `domains`"
        )
        ways = [dataclasses.replace(way, doubt=hint, partial=hint) for way in ways]
    if not discrete:
        return ways
    listed = values_of(derivation, sizes, discrete, entries, problem.seed)
    fixed = [dataclasses.replace(way.at(listed), doubt=doubt) for way in ways]
    outside = f"{', '.join(sorted(discrete))} cannot take other values than its domain's"
    free = [
        dataclasses.replace(way, doubt=outside)
        for way in ways
        if not listed.every and _is_smooth(way, discrete)
    ]
    return free + fixed


def _is_smooth(way: Way, discrete: set[str]) -> bool:
    """Say whether both sides are smooth in discrete inputs, which may then be any real numbers."""
    if not all(
        jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(way.args)
    ):
        return False
    return all(is_smooth(program, _marked(way, discrete)) for program in _programs(way))


def _marked(way: Way, names: set[str]) -> list[bool]:
    """Mark these inputs among all arguments of a way."""
    marked = [name in names for name, x in sorted(way.args[0].items()) for _ in jax.tree.leaves(x)]
    return marked + [False] * (len(jax.tree.leaves(way.args)) - len(marked))


def _programs(way: Way) -> list[core.Jaxpr]:
    return [side.program(*way.args)[0].jaxpr for side in (way.claimed, way.reference)]
