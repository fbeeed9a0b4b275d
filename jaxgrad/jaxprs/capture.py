"""Named values inside a function, and their cotangents: torch's hooks, for JAX functions.

A value has a name where `jax.ad_checkpoint.checkpoint_name` gave it one, or where it leaves a
`jax.named_scope`. Flax linen and Equinox set scopes by themselves. With ŷ the value at a tap and L
= ⟨c, f(x)⟩, the cotangent there is ∂L/∂ŷ, which is found by adding a zero to ŷ and differentiating
in it.

The function is traced and its program run again, so all transforms compose with `capture`. Calls
that hold no tap are run as they are; calls that do are opened, and scans with taps are unrolled. A
function with a derivative rule of its own keeps it: taps inside are seen forward, and no cotangent
reaches them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgrad.jaxprs.taps import Program


def capture(
    f: Callable[..., Any], *, cotangents: Any = False, scopes: bool = True
) -> Callable[..., Any]:
    """Return a function that also gives the named values inside `f`, and the cotangents there.

    Equation:
        (f(x), {name: ŷ}) and, with `cotangents`, {name: ∂⟨c, f(x)⟩/∂ŷ}

    Args:
        f: a function of arrays. Its values are named by `jax.ad_checkpoint.checkpoint_name`, or by
            the `jax.named_scope` that they leave; of several values that leave a scope, the last is
            taken. A scope's name is its path, such as ``"MLP/Dense_0"``; a name that comes again
            gets its occurrence: ``"a"``, ``"a#1"``, ``"a#2"``.
        cotangents: True where `f` is a scalar; or c, a tree of arrays like `f`'s output.
        scopes: whether scopes count; with False only `checkpoint_name` does.

    Returns:
        A function of `f`'s arguments that returns ``(output, {name: value})``, or with `cotangents`
        ``(output, {name: value}, {name: cotangent})``. Shapes and units are those of the values;
        inside `jax.vmap` a value has its batch axis where JAX put it.

    Raises:
        ValueError: when `cotangents=True` and the output is no scalar, or a tree of another
            structure than the output's.
        UnsupportedError: for a `checkpoint_name` inside a while loop, or inside a branch that
            depends on the data.

    >>> from jax.ad_checkpoint import checkpoint_name
    >>> def loss(w):
    ...     return jnp.sum(checkpoint_name(3.0 * w, "z") ** 2)
    >>> value, activations, cotangents = capture(loss, cotangents=True)(2.0)
    >>> float(activations["z"]), float(cotangents["z"])
    (6.0, 12.0)

    Source: the hooks of torch.nn.Module, register_forward_hook and register_full_backward_hook.
    """

    def captured(*args: Any, **kwargs: Any) -> Any:
        program = Program(f, *args, scopes=scopes, **kwargs)
        arrays = Program.flat(*args, **kwargs)
        if cotangents is False:
            seen: dict[str, Any] = {}
            return program(arrays, lambda name, value: seen.setdefault(name, value)), seen

        def perturbed(zeros: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            seen: dict[str, Any] = {}

            def visit(name: str, value: Any) -> Any:
                seen[name] = value
                return value + zeros[name] if name in zeros else value

            return program(arrays, visit), seen

        shapes = jax.eval_shape(perturbed, {})[1]
        zeros = {
            k: jnp.zeros(s.shape, s.dtype)
            for k, s in shapes.items()
            if jnp.issubdtype(s.dtype, jnp.inexact)
        }
        output, pull, activations = jax.vjp(perturbed, zeros, has_aux=True)
        (found,) = pull(_cotangent(output, cotangents))
        return (
            output,
            activations,
            {name: found[name] for name in found if name not in program.plan.opaque},
        )

    return captured


def _cotangent(output: Any, given: Any) -> Any:
    if given is True:
        if jax.tree.structure(output) != jax.tree.structure(0) or jnp.shape(output) != ():
            raise ValueError(
                "`cotangents=True` needs a scalar output; pass the output's cotangent, a tree "
                "like it, instead"
            )
        return jnp.ones_like(output)
    if jax.tree.structure(output) != jax.tree.structure(given) or jax.tree.map(
        jnp.shape, output
    ) != jax.tree.map(jnp.shape, given):
        raise ValueError(
            f"`cotangents` must be a tree like the output, {jax.tree.map(jnp.shape, output)}"
        )
    return jax.tree.map(lambda y, c: jnp.asarray(c, y.dtype), output, given)
