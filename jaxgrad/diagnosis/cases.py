"""The closed form and the true gradient side by side, at several sizes and draws.

The truth is what autodiff makes of the loss, or of its exact expectation over the mask. Where the
loss has a differentiation rule of its own, the truth is autodiff without that rule. Programs are
traced once at each choice of sizes (`Setting`) and run in numpy, without compiling. The mask's
probabilities are inputs of both programs, and so can be varied.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.claims import shapes
from jaxgrad.diagnosis.flat import Flat, Run, leaves_of
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.differentiation import value_and_gradient, without_rules
from jaxgrad.jaxprs.numpy_run import floating
from jaxgrad.jaxprs.programs import has_own_rules
from jaxgrad.runtime.options import check_options

DRAWS = 2
"""Draws at each choice of sizes."""
DEBUG = "JAXGRAD_DEBUG"
"""With this in the environment, exceptions of a diagnosis are let through."""


@contextlib.contextmanager
def tolerated() -> Iterator[None]:
    """Suppress exceptions: the user's functions may fail at what the diagnosis alone chooses."""
    try:
        yield
    except Exception:
        if DEBUG in os.environ:
            raise


Arrays = Mapping[str, np.ndarray]
LossOf = Callable[[dict[str, int]], "Callable[[dict[str, Any], Any], Any] | str"]


class Program:
    """A function of (inputs, mask) that returns {label: array}, traced once and run in numpy."""

    def __init__(
        self,
        function: Callable[[dict[str, Any], Any], dict[str, Any]],
        inputs: dict[str, Any],
        mask: Any,
    ) -> None:
        """Trace at inputs like these."""
        self.closed, shaped = jax.make_jaxpr(function, return_shape=True)(inputs, mask)
        self.labels = tuple(sorted(shaped))
        self._compiled: Any = None

    def __call__(self, inputs: dict[str, Any], mask: Any) -> dict[str, np.ndarray]:
        """Run it."""
        leaves = jax.tree.leaves((inputs, mask))
        outputs = floating(self.closed, leaves) if self._compiled is None else None
        if outputs is None:
            if self._compiled is None:
                self._compiled = jax.jit(
                    core.jaxpr_as_fun(self.closed), compiler_options=check_options()
                )
            outputs = [np.asarray(x) for x in self._compiled(*leaves)]
        return {
            label: np.asarray(x, np.float64) for label, x in zip(self.labels, outputs, strict=True)
        }


@dataclass(eq=False)
class Setting:
    """A claim at one choice of sizes: its programs, traced when they are first asked for.

    Attributes:
        problem: the claim, with its seed and data.
        sizes: the sizes.
        loss: the loss, or its exact expectation, as a function of the inputs and the mask's
            distribution.
        mask: the mask's distribution, its probabilities as arrays; None where there is none.
    """

    problem: Problem
    sizes: dict[str, int]
    loss: Callable[[dict[str, Any], Any], Any]
    mask: Any
    example: dict[str, Any] = field(repr=False)

    @functools.cached_property
    def closed(self) -> Program:
        """The closed form."""
        derivation = self.problem.derivation
        extra = (lambda mask: {}) if self.mask is None else (lambda mask: {"mask": mask})
        return Program(
            lambda x, mask: labelled(
                dict(derivation.gradient(**derivation.in_order({**x, **extra(mask)})))
            ),
            self.example,
            self.mask,
        )

    @functools.cached_property
    def flat(self) -> Flat:
        """The closed form as a list of steps."""
        return Flat.of(self.closed.closed)

    @functools.cached_property
    def flat_truth(self) -> Flat:
        """The true gradient as a list of steps."""
        return Flat.of(self.truth.closed)

    @functools.cached_property
    def moments(self) -> dict[str, np.ndarray]:
        """The mean and the second moment of a row of the mask; nothing where there is none."""
        if self.mask is None:
            return {}
        n = self.problem.derivation.mask_shape(self.sizes)[-1]
        return {
            "mean": np.asarray(self.mask.mean(n), float),
            "second moment": np.asarray(self.mask.second_moment(n), float),
        }

    @functools.cached_property
    def own_rules(self) -> bool:
        """Whether the loss is differentiated by a rule of its own."""
        return has_own_rules(jax.make_jaxpr(self.loss)(self.example, self.mask))

    @functools.cached_property
    def autodiff(self) -> Program:
        """What reverse mode returns, the loss's own rules included."""
        return self.gradient_program(self.loss)

    @functools.cached_property
    def truth(self) -> Program:
        """What is true: autodiff, without the rules that the loss brings along."""
        return self.gradient_program(without_rules(self.loss)) if self.own_rules else self.autodiff

    @functools.cached_property
    def value(self) -> Program:
        """The loss itself, under the label "value"."""
        return Program(lambda x, mask: {"value": self.loss(x, mask)}, self.example, self.mask)

    def gradient_program(self, loss: Callable[[dict[str, Any], Any], Any]) -> Program:
        """Return the gradient of another loss of (inputs, mask) at these sizes."""
        wrt = self.problem.wrt
        return Program(
            lambda x, mask: labelled(value_and_gradient(lambda z: loss(z, mask), x, wrt)[1]),
            self.example,
            self.mask,
        )


@dataclass(frozen=True, eq=False)
class Case:
    """One draw: the inputs, what the closed form says and what is true."""

    setting: Setting
    inputs: dict[str, Any]
    mask: Any
    claimed: Arrays
    truth: Arrays

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes."""
        return self.setting.sizes

    @functools.cached_property
    def run(self) -> Run | None:
        """All values of the closed form; None where it cannot be run step by step."""
        return self.setting.flat.run(leaves_of(self.inputs, self.mask))

    def at(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the true gradient at other inputs; those not given are as they are."""
        return self.setting.truth({**self.inputs, **inputs}, self.mask)

    def scale(self, label: str) -> float:
        """Return the largest entry of both sides."""
        return max(
            (float(np.abs(x[label]).max(initial=0.0)) for x in (self.claimed, self.truth)),
            default=0.0,
        )

    def error(self, label: str) -> float:
        """Return the largest error."""
        return float(np.abs(self.claimed[label] - self.truth[label]).max(initial=0.0))

    def usable(self) -> bool:
        """Say whether all is finite."""
        return all(
            np.all(np.isfinite(x)) for side in (self.claimed, self.truth) for x in side.values()
        )


def case(setting: Setting, inputs: dict[str, Any], mask: Any) -> Case:
    """Evaluate both sides at these inputs."""
    return Case(setting, inputs, mask, setting.closed(inputs, mask), setting.truth(inputs, mask))


def settings(problem: Problem, loss_of: LossOf, *, unseen: bool = False) -> Iterator[Setting]:
    """Yield the claim at up to three choices of sizes with a known loss, or at an unseen one.

    A loss is known where its exact expectation over the mask is.
    """
    seen: list[dict[str, int]] = choices(problem) if unseen else []
    for sizes in (
        [_chosen(problem, (4, 5, 3) if _masked(problem) else (5, 8, 3, 7, 4, 9, 6))]
        if unseen
        else choices(problem)
    ):
        if sizes in seen:
            continue
        seen.append(sizes)
        loss = loss_of(sizes)
        if isinstance(loss, str):
            continue
        distribution = problem.derivation.distribution(sizes)
        leaves = jax.tree.leaves(distribution)
        if all(
            isinstance(leaf, (float, int, np.ndarray, np.generic, jax.Array)) for leaf in leaves
        ):
            distribution = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), distribution)
        yield Setting(problem, sizes, loss, distribution, _numpy(problem.draw(sizes, 0)))


def choices(problem: Problem) -> list[dict[str, int]]:
    """Return the choices of sizes at which both sides are put side by side."""
    masked = _masked(problem)
    third = _chosen(problem, (5, 3, 4) if masked else (7, 4, 9, 5, 6, 3, 8))
    chosen = [*(problem.choose_sizes(variant, few_masks=masked) for variant in range(2)), third]
    return [problem.choose_sizes(0), *chosen[1:]] if not masked else chosen


def _masked(problem: Problem) -> bool:
    return problem.derivation.mask is not None


def _chosen(problem: Problem, extents: Sequence[int]) -> dict[str, int]:
    """Return sizes of which those that are free have these extents, as far as they go."""
    free = [name for name in shapes.names(problem.derivation.shapes) if name not in problem.sizes]
    given = {**dict(zip(free, extents, strict=False)), **problem.sizes}
    return problem.derivation.choose_sizes(0, given, few_masks=_masked(problem))


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def draws(setting: Setting, *, special: bool = False) -> list[Case]:
    """Evaluate both sides at generic draws, or at special ones: exact zeros and ties."""
    problem = setting.problem
    inputs = [
        _numpy(problem.draw(setting.sizes, number, special=special))
        for number in range(DRAWS * (1 + special))
    ]
    return [case(setting, x, setting.mask) for x in (inputs if _differ(inputs) else inputs[:1])]


def _differ(inputs: list[dict[str, Any]]) -> bool:
    first, *rest = (jax.tree.leaves(x) for x in inputs)
    return any(
        not np.array_equal(a, b) for other in rest for a, b in zip(first, other, strict=True)
    )


def with_other_probabilities(given: Case, number: int) -> Case | None:
    """Evaluate both sides with other probabilities of the mask; None where it has none."""
    leaves = jax.tree.leaves(given.mask)
    if (
        given.mask is None
        or not leaves
        or not all(isinstance(x, np.ndarray) and ((x >= 0) & (x <= 1)).all() for x in leaves)
    ):
        return None
    rng = np.random.default_rng([given.setting.problem.seed, number])
    mask = jax.tree.map(lambda leaf: np.round(rng.uniform(0.2, 0.9, np.shape(leaf)), 3), given.mask)
    varied = case(given.setting, given.inputs, mask)
    return varied if varied.usable() else None


def uniform_inputs(given: Case) -> dict[str, np.ndarray]:
    """Return the inputs that are single floating-point arrays."""
    arrays = {
        name: np.asarray(x)
        for name, x in given.inputs.items()
        if isinstance(x, (np.ndarray, np.generic))
    }
    return {name: x for name, x in arrays.items() if x.dtype.kind == "f"}
