"""The time that the arithmetic of a masked autoencoder's gradient takes at the least."""

import time

from contenders import PROB


def rates(repeats=15):
    """Return operations of a large matrix product, and mask entries on all cores, a second."""
    import jax
    import jax.numpy as jnp

    import jaxgrad as jg
    from jaxgrad.runtime.options import loop_options
    from jaxgrad.runtime.threads import for_each, workers

    def best(run):
        run()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    mask, steps, shape = jg.masks.Bernoulli(PROB), 16, (64, 64, 64)

    def draw(key):
        def step(total, i):
            return total + mask.sample(jax.random.fold_in(key, i), shape), None

        return jax.lax.scan(step, jnp.zeros(shape), jnp.arange(steps, dtype=jnp.uint32))[0]

    product, drawn, key = (
        jax.jit(jnp.matmul),
        jax.jit(draw, compiler_options=loop_options()),
        jax.random.key(0),
    )
    a, b, cores = jnp.ones((4096, 784)), jnp.ones((784, 784)), range(workers())
    return {
        "operations": 2 * 4096 * 784 * 784 / best(lambda: jax.block_until_ready(product(a, b))),
        "entries": len(cores)
        * steps
        * 64**3
        / best(lambda: for_each(lambda _: jax.block_until_ready(drawn(key)), cores)),
    }


def floor(problem, rates):
    """Return the seconds that the arithmetic alone takes."""
    m, n, h, samples = problem
    products = 2 * (2 * m * n * n if h == n else 5 * m * n * h)
    return samples * (products / rates["operations"] + m * n / rates["entries"])
