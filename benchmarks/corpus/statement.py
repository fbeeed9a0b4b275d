"""How a claim of the corpus is stated: a kind, a loss, the right closed form and a wrong one.

A closed form returns the gradient in the first input, a tuple of those in the first inputs, or a
dict by name. `at` is the witness of a wrong form: values of inputs at which it is wrong; inputs it
leaves out are drawn, at `sizes`. Without it any draw shows the error.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

import jaxgrad as jg

CLAIMS: dict[str, "Claim"] = {}
"""Every claim, by its name."""

COOKBOOK = "K. B. Petersen, M. S. Pedersen, The Matrix Cookbook (2012)"
GOODFELLOW = "I. Goodfellow et al., Deep Learning (MIT Press 2016)"
BISHOP = "C. M. Bishop, Pattern Recognition and Machine Learning (2006)"
MURPHY = "K. P. Murphy, Probabilistic Machine Learning (2022)"
RASMUSSEN = "C. E. Rasmussen, C. K. I. Williams, Gaussian Processes (2006)"
BOYD = "S. Boyd, L. Vandenberghe, Convex Optimization (2004)"
GOLUB = "G. H. Golub, C. F. Van Loan, Matrix Computations (2013)"
HUBER = "P. J. Huber, Robust Estimation of a Location Parameter (1964)"
ESL = "T. Hastie et al., The Elements of Statistical Learning (2009)"
GILES = "M. B. Giles, Collected matrix derivative results (2008)"
SUTTON = "R. S. Sutton, A. G. Barto, Reinforcement Learning (2018)"
CS231N = "Stanford CS231n course notes"
TORCH = "PyTorch documentation"
JAX = "JAX documentation"
OPTAX = "optax documentation"
FLAX = "flax documentation"
SCIPY = "SciPy documentation"
DLMF = "NIST Digital Library of Mathematical Functions"
SRIVASTAVA = "N. Srivastava et al., Dropout, JMLR 15 (2014)"


@dataclass(frozen=True)
class Claim:
    """A claim with its true verdict.

    Attributes:
        name: unique; ends in "right" or in the mistake.
        kind: what it is one of.
        right: whether the closed form is right on the whole domain, at all sizes.
        make: states it.
        source: where the formula is published; "" for one of our own.
        at: values of inputs at which a wrong form is wrong.
        sizes: sizes at which it is, where `at` does not tell.
        truth: the gradient by a formula of its own, where differences of the loss do not do.
        dtype: type of the inputs in which a wrong form is wrong.
        below: whether the error lies below what an engine says it detects.
        options: what `verify` is told beside the claim.
    """

    name: str
    kind: str
    right: bool
    make: Callable[[], jg.Derivation]
    source: str = ""
    at: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] | None = None
    truth: Callable[..., Any] | None = None
    dtype: str = "float64"
    below: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class Kind:
    """A kind of claims; `pair` states two of them, `claim` one."""

    def __init__(self, name: str) -> None:
        """Take the kind's name."""
        self.name = name

    def claim(self, name: str, right: bool, make: Callable[[], jg.Derivation], **more: Any) -> None:
        """State one claim, made by `make`."""
        whole = f"{self.name}: {name}"
        if whole in CLAIMS:
            raise ValueError(f"{whole!r} is stated twice")
        CLAIMS[whole] = Claim(whole, self.name, right, make, **more)

    def pair(
        self,
        name: str,
        shapes: str | Mapping[str, Any],
        loss: Callable[..., Any],
        right: Callable[..., Any] | None,
        mistake: str = "",
        wrong: Callable[..., Any] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        sizes: Mapping[str, int] | None = None,
        domains: str | Callable[..., Any] | Mapping[str, Any] | None = None,
        mask: Any = None,
        **more: Any,
    ) -> None:
        """State a loss with its right closed form and a wrong one; either may be None."""
        shapes = {"x": shapes} if isinstance(shapes, str) else shapes
        first = next(iter(shapes))
        where = domains if isinstance(domains, Mapping) else {first: domains} if domains else {}

        def make(form: Callable[..., Any], label: str) -> Callable[[], jg.Derivation]:
            return lambda: jg.Derivation(
                name=label,
                loss=loss,
                gradient=named(form, tuple(shapes)),
                shapes=shapes,
                domains=where,
                mask=mask,
            )

        if right is not None:
            self.claim(f"{name}, right", True, make(right, name), **more)
        if wrong is not None:
            self.claim(
                f"{name}, {mistake}",
                False,
                make(wrong, name),
                at={key: value for key, value in (at or {}).items()},
                sizes=sizes,
                **more,
            )

    def rule(
        self,
        name: str,
        shapes: str | Mapping[str, Any],
        plain: Callable[..., Any],
        right: tuple[Callable[..., Any], Callable[..., Any]] | None,
        mistake: str = "",
        wrong: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        domains: Mapping[str, Any] | None = None,
        second_order: bool = True,
        **more: Any,
    ) -> None:
        """State a `jax.custom_vjp` by its (forward, backward), right and wrong."""
        shapes = {"x": shapes} if isinstance(shapes, str) else shapes

        def make(passes: Any) -> Callable[[], jg.Derivation]:
            def state() -> jg.Derivation:
                f = jax.custom_vjp(lambda *args: passes[0](*args)[0])
                f.defvjp(*passes)
                return jg.Derivation.from_custom_vjp(
                    f, plain, shapes, name=name, domains=domains, second_order=second_order
                )

            return state

        if right is not None:
            self.claim(f"{name}, right", True, make(right), **more)
        if wrong is not None:
            self.claim(f"{name}, {mistake}", False, make(wrong), at=at or {}, **more)


def named(form: Callable[..., Any], names: tuple[str, ...]) -> Callable[..., Any]:
    """Return a closed form that names the arrays of its gradient after the first inputs."""

    def gradient(*args: Any, **inputs: Any) -> Mapping[str, Any]:
        found = form(*args, **inputs)
        if isinstance(found, Mapping):
            return found
        found = found if isinstance(found, tuple) else (found,)
        return dict(zip(names, found, strict=False))

    gradient.__signature__ = inspect.signature(form)  # type: ignore[attr-defined]
    gradient.__wrapped__ = form  # type: ignore[attr-defined]
    return gradient


def interval(low: float, high: float) -> Callable[..., Any]:
    """Return the domain of numbers between two ends."""
    return lambda key, shape: jax.random.uniform(key, shape, float, low, high)


def scaled(scale: float) -> Callable[..., Any]:
    """Return the domain of normal numbers of a scale."""
    return lambda key, shape: scale * jax.random.normal(key, shape, float)


def symmetric(key: Any, shape: Any) -> Any:
    """Draw symmetric matrices."""
    a = jax.random.normal(key, shape, float)
    return (a + jnp.swapaxes(a, -1, -2)) / 2


def well_posed(key: Any, shape: Any) -> Any:
    """Draw matrices far from singular: a normal one plus three times the identity."""
    return jax.random.normal(key, shape, float) / shape[-1] + 3 * jnp.eye(shape[-1])


def zeros(key: Any, shape: Any) -> Any:
    """Draw nothing but zeros."""
    return jnp.zeros(shape)
