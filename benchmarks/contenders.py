"""The contenders of `benchmarks/monte_carlo.py`.

Each makes a function that takes N samples and returns the two mean gradients. What a contender
needs it imports itself, since each runs in a process of its own.
"""

PROB = 0.6


def arrays(m, n, h):
    import numpy as np

    rng = np.random.default_rng(0)
    x, w1, w2 = rng.random((m, n)), rng.random((h, n)), rng.random((n, h))
    if h != n:  # so that some units are off
        w1 -= 0.5
    return [
        a.astype(np.float32) for a in (x, w1 / n, w2)
    ]  # w1 / n keeps losses of order 1 at every n


def activation(n, h):
    import torch

    return torch.relu if h != n else lambda x: x


def make_loop(m, n, h, samples, calls):
    import torch

    x, w1, w2 = map(torch.from_numpy, arrays(m, n, h))
    phi = activation(n, h)

    def loss(w1, w2):
        z = phi((torch.zeros(m, n).bernoulli_(PROB) * x) @ w1.T) @ w2.T - x
        return sum(sum(z * z)) / m / n  # Python's sum, as the original has it

    def run():
        g1 = g2 = 0
        for _ in range(calls):
            g1 += torch.autograd.functional.jacobian(lambda w1: loss(w1, w2), w1)
            g2 += torch.autograd.functional.jacobian(lambda w2: loss(w1, w2), w2)
        return (g1 / calls).numpy(), (g2 / calls).numpy()

    return run


def make_func(m, n, h, samples, chunk):
    import torch

    x, w1, w2 = map(torch.from_numpy, arrays(m, n, h))
    phi = activation(n, h)

    def loss(w1, w2, mask):
        return ((phi((mask * x) @ w1.T) @ w2.T - x) ** 2).mean()

    gradients = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(None, None, 0))

    def run():
        g1, g2, left = 0, 0, samples
        while left:
            size = min(chunk, left)
            a, b = gradients(w1, w2, torch.empty(size, m, n).bernoulli_(PROB))
            g1, g2, left = g1 + a.sum(0), g2 + b.sum(0), left - size
        return (g1 / samples).numpy(), (g2 / samples).numpy()

    return run


def make_folded(m, n, h, samples, chunk, compiled=False):
    import torch

    x, w1, w2 = map(torch.from_numpy, arrays(m, n, h))
    w1.requires_grad_(True), w2.requires_grad_(True)
    phi = activation(n, h)

    def loss(w1, w2, x, mask):
        z = (phi((mask * x).view(-1, n) @ w1.T) @ w2.T).view(mask.shape) - x
        return (z * z).sum() / (m * n)

    loss = torch.compile(loss, dynamic=False) if compiled else loss

    def run():
        w1.grad = w2.grad = None
        left = samples
        while left:
            size = min(chunk, left)
            loss(w1, w2, x, torch.empty(size, m, n).bernoulli_(PROB)).backward()
            left -= size
        return (w1.grad / samples).numpy(), (w2.grad / samples).numpy()

    return run


def make_compiled(m, n, h, samples, chunk):
    return make_folded(m, n, h, samples, chunk, compiled=True)


def make_jaxgrad(m, n, h, samples, chunk):
    import jax
    import jax.numpy as jnp

    import jaxgrad as jg

    x, w1, w2 = map(jnp.asarray, arrays(m, n, h))
    phi = jax.nn.relu if h != n else lambda x: x

    def loss(w1, w2, x, mask):
        return jnp.mean((phi((mask * x) @ w1.T) @ w2.T - x) ** 2)

    estimate = jg.estimate(loss, jg.masks.Bernoulli(PROB), (m, n), argnums=(0, 1))
    key = jax.random.key(0)
    return lambda: estimate(key, w1, w2, x, samples=samples).mean


def make_convolution(m, n, c, samples, chunk):
    """Two convolutions of masked images, n × n pixels with c channels between."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxgrad as jg

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((m, 1, n, n)), jnp.float32)
    k1, k2 = (
        jnp.asarray(rng.standard_normal(shape) / 5, jnp.float32)
        for shape in ((c, 1, 5, 5), (1, c, 5, 5))
    )

    def loss(k1, k2, x, mask):
        z = jax.nn.relu(jax.lax.conv_general_dilated(mask * x, k1, (1, 1), "SAME"))
        return jnp.mean((jax.lax.conv_general_dilated(z, k2, (1, 1), "SAME") - x) ** 2)

    estimate = jg.estimate(loss, jg.masks.Bernoulli(PROB), x.shape, argnums=(0, 1))
    key = jax.random.key(0)
    return lambda: estimate(key, k1, k2, x, samples=samples).mean


MAKE = {
    "loop": make_loop,
    "func": make_func,
    "folded": make_folded,
    "compiled": make_compiled,
    "jaxgrad": make_jaxgrad,
}


def expected(m, n, h):
    """Return the closed form, by numpy in float64; None where there is none."""
    import numpy as np

    if h != n:
        return None
    x, w1, w2 = (a.astype(np.float64) for a in arrays(m, n, h))
    s = np.full((n, n), PROB**2)
    np.fill_diagonal(s, PROB)
    a = w2 @ w1 @ (s * (x.T @ x)) - PROB * x.T @ x
    return 2 / (m * n) * w2.T @ a, 2 / (m * n) * a @ w1.T
