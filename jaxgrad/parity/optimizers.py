"""Steps of an optimizer as functions, so that optax can be checked against torch.optim.

An optimizer is a function of parameters and gradients, w₁, …, wₖ = steps(w, g₁, …, gₖ), and where
it differs from another (weight decay, the place of eps, an accumulator's first value) the first wᵢ
does. Values alone are compared: torch detaches its state, so that the derivative of a step has no
meaning.

    golden = parity.record(parity.torch_steps(torch.optim.AdamW), {"parameters": w, "gradients": g})
    parity.check(parity.optax_steps(optax.adamw(1e-3, weight_decay=1e-2)), golden)
"""

from collections.abc import Callable
from typing import Any


def torch_steps(optimizer: Callable[[list[Any]], Any]) -> Callable[[Any, Any], dict[str, Any]]:
    """Return a torch optimizer's steps as a function of tensors, for `jaxgrad.parity.record`.

    Equation:
        {"step i": wᵢ} with wᵢ the parameters after i steps, at the gradients g₁, …, gᵢ

    Args:
        optimizer: makes it from a list of tensors: ``torch.optim.AdamW``, or ``lambda p:
            torch.optim.SGD(p, momentum=0.9)``.

    Returns:
        A function of ``parameters``, one array of any shape, and of ``gradients``, which has one
        more axis in front, the steps. Parameters as small as a step show the step most sharply, and
        what float32 does to it: optax's Adam is then found less accurate than torch's, since it
        computes 1 − βⁱ in float32. Pass ``precision=None`` to `check` where that does not matter.

    >>> import torch
    >>> steps = torch_steps(lambda p: torch.optim.SGD(p, lr=0.5))
    >>> steps(torch.ones(2), torch.ones(3, 2))["step 3"].tolist()
    [-0.5, -0.5]

    Source: torch.optim.
    """

    def steps(parameters: Any, gradients: Any) -> dict[str, Any]:
        moving = parameters.detach().clone().requires_grad_()
        taken, found = optimizer([moving]), {}
        for i, gradient in enumerate(gradients, 1):
            moving.grad = gradient.detach().clone()
            taken.step()
            found[f"step {i}"] = moving.detach().clone()
        return found

    return steps


def optax_steps(transformation: Any) -> Callable[..., dict[str, Any]]:
    """Return the steps of an optax transformation as a function that `jaxgrad.parity.check` takes.

    Equation:
        {"step i": wᵢ}, wᵢ = wᵢ₋₁ + uᵢ, with (uᵢ, sᵢ) = update(gᵢ, sᵢ₋₁, wᵢ₋₁) and s₀ = init(w₀)

    Args:
        transformation: anything with optax's ``init`` and ``update``.

    >>> import optax
    >>> import jax.numpy as jnp
    >>> optax_steps(optax.sgd(0.5))({}, jnp.ones(2), jnp.ones((3, 2)))["step 3"].tolist()
    [-0.5, -0.5]

    Source: optax.GradientTransformation.
    """

    def steps(params: Any, parameters: Any, gradients: Any) -> dict[str, Any]:
        state, found = transformation.init(parameters), {}
        for i, gradient in enumerate(gradients, 1):
            updates, state = transformation.update(gradient, state, parameters)
            parameters = found[f"step {i}"] = parameters + updates
        return found

    return steps
