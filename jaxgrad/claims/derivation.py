"""The claim: a loss, the closed form claimed to be its gradient, and where the inputs live.

A claim knows nothing of how it is checked. Without a mask it says ∇loss = gradient; with a mask it
says ∇ E_mask[loss] = gradient, where the loss receives a draw and the closed form receives the
distribution.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgrad import masks
from jaxgrad.claims import shapes
from jaxgrad.claims.domains import DISCRETE, DOMAINS, WHOLE, draw_from, is_known, kind
from jaxgrad.jaxprs.user_calls import naming


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A claim that `gradient` is the gradient of `loss`, or of its expectation over a random mask.

    Args:
        name: a short name.
        loss: called with all inputs by name; returns a scalar. When it returns an array, `gradient`
            is its Jacobian, of shape (shape of the loss) + (shape of the input).
        gradient: the closed form, called with all inputs by name; returns {input name: array}. Its
            keys are what is differentiated.
        shapes: {input name: dimension string}, such as ``{"x": "m n", "w1": "p n"}``; "" is a
            scalar, a number a fixed size, and a product such as "2*k" a multiple. A value may be a
            pytree of dimension strings.
        mask: distribution of the random mask, or a function of sizes (by their names) that returns
            it; then `shapes` has "mask", the loss receives a draw as `mask` and the closed form the
            distribution as `mask`.
        domains: {input name: domain}, a name of `jaxgrad.claims.domains.DOMAINS`, "index n" for
            whole numbers from 0 to n − 1, or a function ``(key, shape) -> array``; "real" where
            nothing is said.
        formula: the closed form in LaTeX.
        reference: where it comes from.

    Raises:
        TypeError: when an argument is of the wrong kind.
        ValueError: when arguments do not fit each other.

    >>> square = Derivation(
    ...     name="square",
    ...     loss=lambda x: (x**2).sum(),
    ...     gradient=lambda x: {"x": 2 * x},
    ...     shapes={"x": "n"},
    ... )
    >>> square.inputs(jax.random.key(0), {"n": 2})["x"].shape
    (2,)
    """

    name: str
    loss: Callable[..., Any]
    gradient: Callable[..., Mapping[str, Any]]
    shapes: Mapping[str, Any]
    mask: masks.Mask | Callable[..., masks.Mask] | None = None
    domains: Mapping[str, str | Callable[..., Any]] = field(default_factory=dict)
    formula: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        """Refuse a claim that contradicts itself."""
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"`name` must be a non-empty string, but is {self.name!r}")
        for argument in ("loss", "gradient"):
            if not callable(getattr(self, argument)):
                raise TypeError(
                    f"`{argument}` must be a function, but is {getattr(self, argument)!r}"
                )
        if not isinstance(self.shapes, Mapping) or not self.shapes:
            raise TypeError(
                f"`shapes` must map each input's name to its shape, as {{'x': 'm n'}}, but is "
                f"{self.shapes!r}"
            )
        unnamed = [name for name in self.shapes if not isinstance(name, str)]
        if unnamed:
            raise TypeError(
                f"`shapes` must map names to shapes, as {{'x': 'm n'}}, but holds the name "
                f"{unnamed[0]!r}"
            )
        if not isinstance(self.domains, Mapping):
            raise TypeError(
                f"`domains` must map inputs' names to domains, as {{'x': 'positive'}}, but is "
                f"{self.domains!r}"
            )
        list(shapes.leaves(self.shapes))
        if ("mask" in self.shapes) != (self.mask is not None):
            raise ValueError(
                "`shapes` names a 'mask', but `mask` gives no distribution"
                if self.mask is None
                else "`mask` is given, but `shapes` has no entry 'mask'; add the shape of a draw, "
                "as {'mask': 'm n'}"
            )
        if (
            self.mask is not None
            and not isinstance(self.mask, masks.Mask)
            and not callable(self.mask)
        ):
            raise TypeError(
                f"`mask` must be a mask distribution or a function of sizes, but is {self.mask!r}"
            )
        for name, domain in self.domains.items():
            if name not in self.shapes or name == "mask":
                raise ValueError(
                    f"`domains` names {name!r}, which is not an input; the inputs are "
                    f"{', '.join(self.input_names)}"
                )
            if not callable(domain) and not is_known(domain, shapes.names(self.shapes)):
                raise ValueError(
                    f"`domains`: {domain!r} of `{name}` is unknown; use one of "
                    f"{', '.join(DOMAINS)}, 'index n' with n a size in "
                    "`shapes`, or a function"
                )
        for argument in ("loss", "gradient"):
            _check_arguments(argument, getattr(self, argument), self.shapes)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that are arrays on both sides: all of `shapes` but the mask."""
        return tuple(name for name in self.shapes if name != "mask")

    def in_order(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs in the order of `shapes`, which JAX's transforms do not keep.

        The order of ``**inputs`` may matter to a function.
        """
        return {name: inputs[name] for name in self.shapes if name in inputs}

    def choose_sizes(
        self,
        variant: int = 0,
        fixed: Mapping[str, int] | None = None,
        *,
        few_masks: bool = False,
        few_labels: bool = False,
    ) -> dict[str, int]:
        """Choose sizes, all dimensions distinct; see `jaxgrad.claims.shapes.choose`.

        Args:
            variant: which choice.
            fixed: sizes that are chosen already.
            few_masks: whether those of the mask are to be the smallest.
            few_labels: whether those on which the number of labels hangs are to be.
        """
        unknown = set(fixed or {}) - set(shapes.names(self.shapes))
        if unknown:
            raise ValueError(
                f"`sizes` names {', '.join(sorted(unknown))}; the sizes of {self.name} are "
                f"{', '.join(shapes.names(self.shapes))}"
            )
        for name, size in (fixed or {}).items():
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"`sizes`: {name} must be a positive integer, but is {size!r}")
        small = {"mask": self.shapes["mask"]} if few_masks else {}
        if few_labels:
            small |= {
                name: self.shapes[name]
                for name, domain in self.domains.items()
                if kind(domain) in DISCRETE
            }
            ends = {
                name: str(domain).removeprefix("index")
                for name, domain in self.domains.items()
                if kind(domain) == "index"
            }
            small |= {f"end of {name}": end for name, end in ends.items()}
        return shapes.choose(self.shapes, variant, fixed, shapes.names(small))

    def distribution(self, sizes: Mapping[str, int]) -> masks.Mask | None:
        """Return the mask's distribution at these sizes."""
        if self.mask is None or isinstance(self.mask, masks.Mask):
            return self.mask
        wanted = inspect.signature(self.mask).parameters
        missing = [name for name in wanted if name not in sizes]
        if missing:
            raise ValueError(
                f"`mask` has an argument {missing[0]!r}, which is not a size; the sizes of "
                f"{self.name} are {', '.join(sizes)}"
            )
        return self.mask(**{name: sizes[name] for name in wanted})

    def inputs(self, key: Array, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Draw all inputs, and a draw of the mask under "mask" where there is a mask.

        Args:
            key: PRNG key.
            sizes: {size name: size}; what it leaves open is chosen.

        Returns:
            {input name: array}, in the order of `shapes`, in JAX's default precision.
        """
        sizes = self.choose_sizes(0, sizes)
        drawn = {
            name: jax.tree.map(jnp.asarray, arrays)
            for name, arrays in self.arrays(key, sizes).items()
        }
        distribution = self.distribution(sizes)
        if distribution is None:
            return drawn
        mask = distribution.sample(jax.random.fold_in(key, len(drawn)), self.mask_shape(sizes))
        return {name: mask if name == "mask" else drawn[name] for name in self.shapes}

    def mask_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of a draw of the mask at these sizes."""
        return shapes.evaluate(self.shapes["mask"], sizes, "mask")

    def arrays(
        self, key: Array, sizes: Mapping[str, int], *, special: bool = False
    ) -> dict[str, Any]:
        """Draw all inputs but the mask, as numpy arrays.

        With `special` they come from the corners of their domains: exact zeros and ties.
        """
        words = np.asarray(
            jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        )
        return self.drawn(words.ravel().tolist(), sizes, special=special)

    def drawn(
        self, words: Sequence[int], sizes: Mapping[str, int], *, special: bool = False
    ) -> dict[str, Any]:
        """Draw as `arrays` does, from the words of a key, since a key takes long to make."""
        rng, kinds = np.random.default_rng([*words]), (jnp.result_type(float), jnp.result_type(int))

        def draw(name: str) -> Any:
            return jax.tree.map(
                lambda text: self._draw(rng, name, text, sizes, special, kinds), self.shapes[name]
            )

        return {name: draw(name) for name in self.input_names}

    def _draw(
        self,
        rng: np.random.Generator,
        name: str,
        text: str,
        sizes: Mapping[str, int],
        special: bool,
        kinds: tuple[Any, Any],
    ) -> np.ndarray:
        domain = self.domains.get(name, "real")
        shape = shapes.evaluate(text, sizes, name)
        if callable(domain):
            with naming(f"domains[{name!r}]"):
                array = np.asarray(domain(jax.random.key(int(rng.integers(2**31))), shape))
            if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):
                raise ValueError(
                    f"`domains`: the function for `{name}` must return real numbers, but returned "
                    f"{array.dtype}"
                )
        else:
            array = np.asarray(draw_from(domain, rng, shape, sizes, special=special))
            array = array.astype(kinds[kind(domain) in WHOLE], copy=False)
        if array.shape != shape:
            raise ValueError(
                f"`domains`: the function for `{name}` must return shape {shape}, but returned "
                f"{array.shape}"
            )
        return array

    @staticmethod
    def from_vjp(
        name: str,
        primal: Callable[..., Any],
        vjp: Callable[..., Mapping[str, Any]],
        shapes: Mapping[str, Any],
        *,
        cotangent: str | None = None,
        domains: Mapping[str, str | Callable[..., Any]] | None = None,
        formula: str = "",
        reference: str = "",
    ) -> "Derivation":
        """Claim that `vjp` is the vector-Jacobian product of `primal`.

        The loss is ⟨primal(inputs), cotangent⟩ with a drawn cotangent, whose gradient is the VJP.

        Args:
            name: a short name.
            primal: called with the inputs in the order of `shapes`; returns an array.
            vjp: called with the inputs and then the cotangent; returns {input name: array}.
            shapes: {input name: dimension string}.
            cotangent: dimension string of the primal's output; found by tracing where it is None.
            domains: as of `Derivation`.
            formula: the VJP in LaTeX.
            reference: where it comes from.

        >>> d = Derivation.from_vjp(
        ...     "double", lambda x: 2 * x, lambda x, ct: {"x": 2 * ct}, {"x": "n"}
        ... )
        >>> d.shapes["cotangent"]
        'n'
        """
        if not isinstance(shapes, Mapping):
            raise TypeError(
                f"`shapes` must map each input's name to its shape, as {{'x': 'm n'}}, but is "
                f"{shapes!r}"
            )
        for argument, function in (("primal", primal), ("vjp", vjp)):
            if not callable(function):
                raise TypeError(f"`{argument}` must be a function, but is {function!r}")
        if "cotangent" in shapes:
            raise ValueError(
                "`shapes` must not name 'cotangent': that is drawn; give its shape as the "
                "argument `cotangent`"
            )
        order = tuple(shapes)

        def loss(*, cotangent: Array, **inputs: Any) -> Array:
            return jnp.sum(primal(*(inputs[n] for n in order)) * cotangent)

        def gradient(*, cotangent: Array, **inputs: Any) -> Mapping[str, Any]:
            return vjp(*(inputs[n] for n in order), cotangent)

        if cotangent is None:
            from jaxgrad.claims.custom_rules import output_shapes

            cotangent = output_shapes(primal, shapes, domains or {}, "primal")
            if not isinstance(cotangent, str):
                raise ValueError(
                    f"`primal` must return one array, but returns a tree of them, of shapes "
                    f"{cotangent}"
                )
        for wrapper, function in ((loss, primal), (gradient, vjp)):
            functools.update_wrapper(wrapper, function)
            vars(wrapper).pop(
                "__wrapped__"
            )  # the signatures here are by name, those of primal and vjp by position
        loss.source = primal  # type: ignore[attr-defined]  # for `jaxgrad show`
        gradient.source = vjp  # type: ignore[attr-defined]  # likewise
        return Derivation(
            name=name,
            loss=loss,
            gradient=gradient,
            shapes={**shapes, "cotangent": cotangent},
            domains=domains or {},
            formula=formula,
            reference=reference,
        )

    @staticmethod
    def from_custom_vjp(
        f: Callable[..., Any],
        plain: Callable[..., Any],
        shapes: Mapping[str, Any],
        *,
        name: str = "",
        cotangent: Any = None,
        second_order: bool = True,
        domains: Mapping[str, str | Callable[..., Any]] | None = None,
        formula: str = "",
        reference: str = "",
    ) -> "Derivation":
        """Claim that the rule of `f`, a `jax.custom_vjp` or `jax.custom_jvp`, agrees with `plain`.

        The claim has a row for the value and the VJP under jit (``x``, ``cotangent``), for both
        under vmap (``x_batch``, ``cotangent_batch``), and for the derivative of the VJP
        (``x_twice``), each at inputs of its own.

        Args:
            f: the function with the rule, called with the inputs in the order of `shapes`.
            plain: the same function without a rule.
            shapes: {input name: dimension string, or a pytree of them}.
            name: a short name; that of `f` where it is empty.
            cotangent: dimension string, or a pytree of them, of the output; found by tracing where
                it is None.
            second_order: whether the derivative of the rule is claimed to be right too.
            domains: as of `Derivation`; inputs with discrete domains, such as "binary" or "index
                n", are not differentiated.
            formula: the rule in LaTeX.
            reference: where it comes from.

        Raises:
            TypeError: when `f` or `plain` is not a function.
            ValueError: when the output's shape cannot be found.

        >>> @jax.custom_vjp
        ... def square(x):
        ...     return x**2
        >>> square.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))
        >>> Derivation.from_custom_vjp(square, lambda x: x**2, {"x": "n"}).input_names[:3]
        ('x', 'cotangent', 'x_batch')
        """
        from jaxgrad.claims.custom_rules import claim_parts, output_shapes

        for argument, function in (("f", f), ("plain", plain)):
            if not callable(function):
                raise TypeError(f"`{argument}` must be a function, but is {function!r}")
        for taken in ("cotangent", "direction"):
            if any(own.startswith(taken) for own in shapes):
                raise ValueError(
                    f"`shapes` must not name inputs {taken!r}: these are drawn; give the input "
                    f"another name"
                )
        found = output_shapes(plain, shapes, domains or {}) if cotangent is None else cotangent
        parts = claim_parts(f, plain, shapes, found, domains or {}, second_order)
        label = name or str(getattr(f, "__name__", "") or "custom rule")
        return Derivation(name=label, formula=formula, reference=reference, **parts)


def _check_arguments(argument: str, function: Callable[..., Any], names: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # builtins and the like tell nothing
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise ValueError(
            f"`{argument}` takes {signature}, which does not fit the inputs {', '.join(names)} of "
            f"`shapes` ({error}); "
            "name its arguments as in `shapes`"
        ) from None
