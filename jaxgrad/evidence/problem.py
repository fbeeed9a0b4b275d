"""A claim made ready to be checked: options and data validated, functions traced once.

Every engine starts from a `Problem`. It gives inputs at some sizes, and two functions of them: the
closed form, and the loss, or the loss's exact expectation over the mask. Draws and traces are
shared between engines. `check_given` and `check_functions` refuse what cannot be right, with the
argument's name and the remedy.

Every piece of evidence starts from a `Problem` and asks it for inputs at some sizes and for two
functions of them: the closed form, and the loss, or the loss's exact expectation over the mask.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.claims import shapes
from jaxgrad.claims.derivation import Derivation
from jaxgrad.claims.domains import DISCRETE, WHOLE, kind
from jaxgrad.claims.labels import discrete_inputs, has_few_values
from jaxgrad.jaxprs.differentiation import value_and_gradient
from jaxgrad.jaxprs.traced import Filled, Traceable, TracedOnce
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.options import check_options

Tree = Any
Progress = Callable[[str, float, str], None]


@dataclass(frozen=True)
class Problem:
    """A derivation with the data, seed and options of one verification.

    Attributes:
        derivation: the claim.
        seed: all draws follow from it.
        given: {input name: float64 array}, the inputs that the user supplied.
        sizes: sizes that the user or the given inputs fix.
        false_alarm: probability, at most, that sampling refutes a right closed form.
        resolution: largest error, relative to the gradient's largest entry, that sampling may leave
            open.
        max_samples: number of mask samples at which sampling gives up.
        progress: called with (evidence, fraction done, text).
        chosen: names of the sizes that the user chose, not only gave data for.
        checkpoint: name of the file in which sampling keeps its state, if any.
        all_ratios: what `remember_ratio` was told.
    """

    derivation: Derivation
    seed: int = 0
    given: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    false_alarm: float = 1e-6
    resolution: float = 1e-2
    max_samples: int = 2**20
    progress: Progress | None = None
    chosen: frozenset[str] = frozenset()
    checkpoint: str | Path | None = None
    _known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    all_ratios: dict[Any, Fraction | None] = field(default_factory=dict, repr=False, compare=False)

    def report_progress(self, evidence: str, fraction: float, text: str = "") -> None:
        """Tell the listener, if there is one."""
        if self.progress is not None:
            self.progress(evidence, fraction, text)

    def once(self, name: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` made when this name was first asked for.

        Engines share draws and traced functions this way.
        """
        if name not in self._known:
            self._known[name] = make()
        return self._known[name]

    def choose_sizes(self, variant: int, *, few_masks: bool = False) -> dict[str, int]:
        """Choose what the user left open."""
        return self.derivation.choose_sizes(variant, self.sizes, few_masks=few_masks)

    @functools.cached_property
    def first_sizes(self) -> dict[str, int]:
        """The sizes at which most evidence is gathered.

        What holds at any sizes is read off there.
        """
        return self.choose_sizes(0, few_masks=self.derivation.mask is not None)

    def discrete(self, sizes: Mapping[str, int]) -> set[str]:
        """Return the names of the inputs with discrete domains, such as labels."""
        return self.once("discrete", lambda: discrete_inputs(self.derivation, sizes, self.seed))

    @functools.cached_property
    def likely_labels(self) -> set[str]:
        """The inputs that may be labels: few given values, not differentiated, no domain."""
        real = [
            name
            for name in self.given
            if self.derivation.domains.get(name, "real") == "real" and name not in self.wrt
        ]
        return {name for name in real if has_few_values(jax.tree.leaves(self.given[name]))}

    def draw(
        self, sizes: Mapping[str, int], number: int, *, special: bool = False
    ) -> dict[str, Tree]:
        """Draw the inputs that are not given; equal arguments give equal draws."""

        def drawn() -> dict[str, Tree]:
            arrays = self.derivation.drawn(
                [self.seed, number, int(special), *sizes.values()], sizes, special=special
            )
            return {name: self.given.get(name, array) for name, array in arrays.items()}

        return dict(self.once(("draw", *sizes.items(), number, special), drawn))

    @functools.cached_property
    def loss(self) -> TracedOnce:
        """The loss as a function of the inputs and, where there is a mask, of a draw.

        It is traced once for each of their shapes.
        """
        return TracedOnce(lambda inputs, *mask: self._call("loss", inputs, *mask))

    @functools.cached_property
    def gradient(self) -> TracedOnce:
        """The closed form as a function of the inputs and, where there is one, of a distribution.

        It is traced once for each of their shapes.

        It is traced once for each of their shapes.
        """
        return TracedOnce(lambda inputs, *mask: self._call("gradient", inputs, *mask))

    def _call(self, argument: str, inputs: dict[str, Tree], *mask: Any) -> Any:
        named = self.derivation.in_order({**inputs, **({"mask": mask[0]} if mask else {})})
        return _arrays(argument, getattr(self.derivation, argument)(**named))

    def closed_form(self, sizes: Mapping[str, int]) -> Traceable:
        """Return the closed form as a function of the inputs, the mask's distribution filled in."""
        return self.gradient if self.derivation.mask is None else self.at_mask(self.gradient, sizes)

    def at_mask(self, function: TracedOnce, sizes: Mapping[str, int]) -> Traceable:
        """Return a function of the inputs and the mask's distribution as one of the inputs.

        It shares the trace for all probabilities where there is one.
        """

        def filled() -> Traceable:
            distribution = self.derivation.distribution(sizes)
            if self.is_general(function, sizes):
                return Filled(function, (probabilities(distribution),))
            return TracedOnce(lambda inputs: function.function(inputs, distribution))

        return self.once(("at mask", function, *sizes.items()), filled)

    def is_general(self, function: TracedOnce, sizes: Mapping[str, int]) -> bool:
        """Say whether a function of inputs and mask can be traced for all probabilities."""
        try:
            function.program(
                self.derivation.drawn([self.seed], sizes),
                probabilities(self.derivation.distribution(sizes)),
            )
        except Exception:
            # a mask of the user's own may be no pytree, and a function may ask for the value of a
            # probability
            return False
        return True

    def differentiated(self, function: Traceable) -> Traceable:
        """Return a loss with its gradient, or Jacobian, in the differentiated inputs, traced once.

        Args:
            function: of the inputs, and of further arguments, such as the mask's distribution.
        """
        if isinstance(function, Filled):
            return Filled(self.differentiated(function.function), function.more)
        wrt = self.wrt

        def both(inputs: dict[str, Tree], *more: Any) -> tuple[Any, dict[str, Tree]]:
            return value_and_gradient(lambda x: function(x, *more), inputs, wrt)

        return self.once(("differentiated", function), lambda: TracedOnce(both))

    def remember(
        self, sizes: Mapping[str, int], number: int, claimed: dict[str, np.ndarray]
    ) -> None:
        """Keep the closed form's values at a draw, so that no other engine compiles it again."""
        self._known["claimed", *sizes.items(), number] = claimed

    def claimed(self, sizes: Mapping[str, int], number: int) -> dict[str, np.ndarray]:
        """Return the labelled values of the closed form at a draw."""
        if ("claimed", *sizes.items(), number) not in self._known:
            closed = self.once(
                ("compiled", *sizes.items()),
                lambda: Program(self.closed_form(sizes), check_options()),
            )
            for other in dict.fromkeys((number, 0, 1)):
                self.remember(
                    sizes,
                    other,
                    jax.tree.map(np.asarray, labelled(closed(self.draw(sizes, other)))),
                )
        return self._known["claimed", *sizes.items(), number]

    def remember_ratio(self, sizes: Mapping[str, int], label: str, ratio: Fraction | None) -> None:
        """Keep the exact ratio of a closed form's array and the gradient, None if there is none."""
        self.all_ratios[(label, tuple(sizes.items()))] = ratio

    def ratios(self, label: str) -> list[tuple[dict[str, int], Fraction]]:
        """Return the exact ratio of closed form and gradient at each choice of sizes.

        It is empty where at one of them the closed form is no multiple of the gradient.
        """
        found = [
            (dict(sizes), ratio)
            for (name, sizes), ratio in self.all_ratios.items()
            if name == label
        ]
        return (
            [(sizes, ratio) for sizes, ratio in found if ratio is not None]
            if all(r is not None for _, r in found)
            else []
        )

    @functools.cached_property
    def wrt(self) -> tuple[str, ...]:
        """The inputs that are differentiated."""
        return tuple(self.closed_form(self.first_sizes).program(self.draw(self.first_sizes, 0))[1])


def probabilities(mask: Any) -> Any:
    """Return a mask's distribution with its probabilities as arrays of floating-point numbers."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, jnp.result_type(float)), mask)


def labelled(tree: dict[str, Tree]) -> dict[str, Any]:
    """Flatten {input: pytree} to {label: array}, with labels such as ``w`` and ``params['w']``."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path[0].key + jax.tree_util.keystr(path[1:]): leaf for path, leaf in flat}


def check_given(
    derivation: Derivation, inputs: Mapping[str, Any] | None, sizes: Mapping[str, int]
) -> tuple[dict, dict]:
    """Check the user's data; return them as numpy arrays, with the sizes they fix."""
    given: dict[str, Any] = {}
    fixed = dict(sizes)
    for name, value in (inputs or {}).items():
        if name == "mask":
            raise ValueError(
                "`inputs` holds 'mask'; masks are drawn from the derivation's distribution: leave "
                "it out"
            )
        if name not in derivation.shapes:
            raise ValueError(
                f"`inputs` holds {name!r}, which is no input of {derivation.name}; its inputs are "
                f"{', '.join(derivation.input_names)}"
            )
        declared, tree = jax.tree.flatten(derivation.shapes[name])
        try:
            arrays = tree.flatten_up_to(value)
        except ValueError as error:
            raise ValueError(
                f"`inputs`: {name!r} does not have the structure of its declared shapes: {error}"
            ) from None
        for text, array in zip(declared, arrays, strict=True):
            try:
                array = np.asarray(array)
                array = (
                    array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
                )  # bfloat16 is numpy's no float
            except ValueError as error:
                raise ValueError(
                    f"`inputs`: {name!r} is ragged; give an array whose rows are equally long"
                ) from error
            shapes.solve(shapes.parse(text, name), array.shape, fixed, f"inputs[{name!r}]")
            _check_numbers(derivation, name, array)
        whole = kind(derivation.domains.get(name, "real")) in WHOLE
        given[name] = tree.unflatten(
            [_whole(a) if whole else np.asarray(a, np.float64) for a in arrays]
        )
    return given, fixed


def _whole(array: Any) -> np.ndarray:
    """Return whole numbers as int64, as they are drawn; leave arrays with other numbers alone."""
    array = np.asarray(array)
    return array.astype(np.int64) if np.all(array == np.round(array)) else array


def _check_numbers(derivation: Derivation, name: str, array: np.ndarray) -> None:
    domain = kind(derivation.domains.get(name, "real"))
    if not (
        np.issubdtype(array.dtype, np.floating)
        or np.issubdtype(array.dtype, np.integer)
        or array.dtype == bool
    ):
        raise ValueError(
            f"`inputs`: {name!r} has dtype {array.dtype}; give an array of real numbers"
        )
    if not np.issubdtype(array.dtype, np.floating) and domain not in DISCRETE:
        raise ValueError(
            f"`inputs`: {name!r} has integer dtype {array.dtype}, but a real array is wanted; "
            f"convert it with {name}.astype('float64')"
        )
    if not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(
            f"`inputs`: {name!r} has {array[where]} at index {where}; remove or replace what is "
            f"not finite"
        )


def check_functions(problem: Problem) -> tuple[str, ...]:
    """Trace loss and closed form once; refuse keys, shapes and types that cannot be right."""
    derivation, sizes = problem.derivation, problem.first_sizes
    inputs = problem.draw(sizes, 0)
    shaped = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), inputs)
    claimed = problem.closed_form(sizes).program(shaped)[1]
    if not isinstance(claimed, Mapping) or not claimed:
        raise ValueError(
            f"`gradient` of {derivation.name} must return {{input name: array}}, but returns "
            f"{_describe(claimed)}"
        )
    for name in claimed:
        if name not in derivation.input_names:
            raise ValueError(
                f"`gradient` of {derivation.name} returns the key {name!r}, which is no input; "
                f"its keys must be among {', '.join(derivation.input_names)}"
            )
        for leaf in jax.tree.leaves(shaped[name]):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(
                    f"`gradient` of {derivation.name} differentiates {name!r}, which is of type "
                    f"{leaf.dtype}; "
                    "only real arrays have gradients: choose another domain, or leave the key out"
                )
    mask = (
        ()
        if derivation.mask is None
        else (jax.ShapeDtypeStruct(derivation.mask_shape(sizes), jnp.result_type(float)),)
    )
    value = problem.loss.program(shaped, *mask)[1]
    if not hasattr(value, "shape") or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"`loss` of {derivation.name} must return a real scalar or array, but returns "
            f"{_describe(value)}"
        )
    if derivation.mask is not None and value.shape != ():
        raise ValueError(
            f"`loss` of {derivation.name} must be a scalar where there is a mask, but has shape "
            f"{value.shape}; sum or average it"
        )
    wanted = {
        name: jax.tree.map(lambda leaf: (*value.shape, *leaf.shape), shaped[name])
        for name in claimed
    }
    _check_shapes(derivation.name, dict(claimed), wanted, value.shape)
    return tuple(claimed)


def _arrays(argument: str, result: Any) -> Any:
    """Pass on what a user's function returned if it holds nothing but arrays and numbers."""
    for leaf in jax.tree.leaves(result, is_leaf=lambda x: x is None):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise ValueError(f"`{argument}` returns {leaf!r}, which is no array of numbers")
    return result


def _check_shapes(
    name: str, claimed: dict[str, Tree], wanted: dict[str, Tree], loss_shape: tuple[int, ...]
) -> None:
    for key, tree in claimed.items():
        targets, treedef = jax.tree.flatten(wanted[key], is_leaf=lambda x: isinstance(x, tuple))
        leaves, found = jax.tree.flatten(tree)
        if found != treedef:
            raise ValueError(
                f"`gradient` of {name} gives {key!r} the structure {found}, but the input has "
                f"{treedef}"
            )
        for leaf, target in zip(leaves, targets, strict=True):
            shape = tuple(np.shape(leaf))
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"`gradient` of {name} returns {key!r} with dtype {jnp.result_type(leaf)}; it "
                    f"must be floating-point"
                )
            if shape == target:
                continue
            if loss_shape:
                raise ValueError(
                    f"`gradient` of {name} returns {key!r} with shape {shape}, but `loss` is no "
                    f"scalar: it has shape "
                    f"{loss_shape}, so its Jacobian in {key!r} has shape {target}; return that, "
                    f"or make the loss a scalar"
                )
            raise ValueError(
                f"`gradient` of {name} returns {key!r} with shape {shape}; the shape of the input "
                f"is {target}"
            )


def _describe(value: Any) -> str:
    return (
        f"shape {value.shape} of {value.dtype}"
        if hasattr(value, "shape") and hasattr(value, "dtype")
        else repr(value)
    )
