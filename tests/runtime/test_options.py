"""The sampling loop's own way of compiling: the numbers are those of XLA's, and where XLA fails
with its options it goes without.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxgrad as jg
from jaxgrad.evidence.sampling import loop as sampler
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.runtime import options as compilation

N = 6


@jax.custom_vjp
def doubled(x):
    return jnp.sin(x)


doubled.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))


def convolved(x, kernel, **options):
    return lax.conv_general_dilated(
        x, kernel, **{"window_strides": (2,), "padding": "SAME", **options}
    )


FUNCTIONS = {
    "convolution": lambda x, m: convolved((x * m)[:, None], x[:2, None, :3], rhs_dilation=(2,)),
    "grouped convolution": lambda x, m: convolved(
        (x * m)[None], x[:, None, :3], feature_group_count=N
    ),
    "transposed convolution": lambda x, m: lax.conv_transpose(
        (x * m)[None, ..., None], x[:2, :2, None, None], (2, 2), "SAME"
    ),
    "negative padding": lambda x, m: convolved(
        x[None] * m, x[None, :, :2], padding=((-1, 2),), lhs_dilation=(2,)
    ),
    "largest of windows": lambda x, m: lax.reduce_window(
        x * m, -jnp.inf, lax.max, (3, 2), (2, 1), "SAME"
    ),
    "sort": lambda x, m: (
        jnp.sort(x * m) * jnp.arange(N),
        lax.top_k(x * m, 2)[0],
        x[jnp.argmax(x * m, axis=0)],
    ),
    "gather, scatter": lambda x, m: (
        x[m.astype(int)],
        jnp.zeros((3, N), x.dtype).at[jnp.array([0, 0, 2])].add(x[1:4] * m),
    ),
    "cumulative": lambda x, m: (
        jnp.cumsum(x * m, axis=1),
        jnp.cumprod(x * m + 1, axis=0),
        lax.cumlogsumexp(x * m),
    ),
    "fourier": lambda x, m: jnp.abs(jnp.fft.rfft(x * m + 0.1)),
    "solve": lambda x, m: (
        jnp.linalg.solve(x @ x.T + jnp.diag(3 + m), x),
        jnp.linalg.slogdet(x @ x.T + jnp.diag(m + 1))[1],
    ),
    "factors": lambda x, m: (
        jnp.linalg.cholesky(x @ x.T + jnp.diag(6 + m)),
        jnp.linalg.qr(x + 9 * jnp.diag(m + 1))[1],
    ),
    "spectra": lambda x, m: (
        jnp.linalg.eigvalsh(x + x.T + jnp.diag(3 * m * jnp.arange(N))),
        jnp.linalg.svd(x, compute_uv=False),
    ),
    "softmax": lambda x, m: (
        jax.nn.softmax(3 * x * m) @ x,
        jax.nn.logsumexp(jnp.where(m > 0, 5 * x, -1e9), axis=1),
    ),
    "slices": lambda x, m: lax.dynamic_update_slice(
        x, x[:2, :2] * m[:2], (9 * m[0].astype(int), 1)
    ),
    "loops": lambda x, m: (
        lax.scan(lambda c, r: (jnp.tanh(c * m + r), c), x[0], x)[1],
        lax.fori_loop(0, 5, lambda i, c: jnp.sin(c * m + x[i]), x[0]),
        lax.cond(m.sum() > 3, lambda x: x**2, jnp.cos, x * m),
    ),
    "integers": lambda x, m: (
        (((m.astype(jnp.int32) << 2 | 1) ^ jnp.arange(-3, N - 3)) // 2 % 3).astype(x.dtype) * x
    ),
    "booleans": lambda x, m: jnp.where((x > 0) & (m > 0) | ~(x.T > 0.3), x, -2 * x),
    "half precision": lambda x, m: (
        (x * m).astype(jnp.bfloat16) @ x.astype(jnp.bfloat16),
        jnp.exp((x * m).astype(jnp.float16)),
    ),
    "empty": lambda x, m: (jnp.concatenate([x[:0], x * m]), x[:, :0] @ x[:0]),
    "scalar": lambda x, m: x[0, 0] * m[0] ** 2,
    "shapes": lambda x, m: jnp.transpose((x * m).reshape(2, 3, N), (2, 0, 1)).reshape(4, 9)[
        1:, ::-2
    ],
    "kinks": lambda x, m: (
        jnp.clip(x * m, -0.5, 0.5),
        x * jnp.round(x),
        jnp.fmod(7 * x, 2.0) * m,
        jnp.mod(5 * x, 3.0),
    ),
    "special": lambda x, m: (
        lax.erf(x * m),
        lax.lgamma(jnp.abs(x * m) + 0.5),
        lax.digamma(jnp.abs(x) + 1 + m),
        jnp.expm1(x * m / 9e3),
    ),
    "complex": lambda x, m: (jnp.abs((x + 1j * m) * (x.T - 2j)), jnp.angle(x + 1j + m)),
    "custom rule": lambda x, m: doubled(x * m),
    "checkpoint": lambda x, m: jax.checkpoint(lambda y: jnp.sin(jnp.tanh(y @ y) @ y))(x * m),
    "large constant": lambda x, m: (
        jnp.asarray(np.sin(np.arange(60_000.0)), x.dtype).reshape(-1, N) @ (x * m)[:, :1]
    ),
    "infinities": lambda x, m: (
        jnp.exp(-jnp.where(m > 0, jnp.inf, x)),
        jnp.log(jnp.where(m > 0, x * x, 1.0)),
    ),
}


def total(function, x, mask):
    """Return a sum in which no entry of a function's results counts as much as another."""
    results = [jnp.ravel(leaf).astype(x.dtype) for leaf in jax.tree.leaves(function(x, mask))]
    return sum(jnp.sum(jnp.sin(1.0 + jnp.arange(len(r), dtype=x.dtype)) * r) for r in results)


@pytest.mark.slow
def test_values_and_gradients_of_all_kinds_are_those_of_a_loop_compiled_without_options(
    monkeypatch,
):
    data = jnp.asarray(np.random.default_rng(0).standard_normal((N, N)), jnp.float32)

    def all_of_them(x, mask):
        return {
            name: jax.value_and_grad(lambda x, f=f: total(f, x, mask))(x)
            for name, f in FUNCTIONS.items()
        }

    def means():
        loop = sampler.Sampler(all_of_them, jg.masks.Bernoulli(0.6), (N,))
        return loop.unflatten(loop.round(jax.random.key(3), (data,), 0, 16, 2), loop.known((data,)))

    found = means()
    monkeypatch.setattr(sampler, "loop_options", lambda **_: None)
    for ours, plain in zip(found, means(), strict=True):
        for name in FUNCTIONS:
            for one, other in zip(ours[name], plain[name], strict=True):
                rounding = 100 * np.finfo(np.float32).eps * max(1.0, np.abs(other).max())
                np.testing.assert_allclose(one, other, rtol=0, atol=rounding, err_msg=name)


UNARY = {
    **{
        name: getattr(jnp, name)
        for name in (
            "sin",
            "cos",
            "tan",
            "arctan",
            "sinh",
            "cosh",
            "tanh",
            "arcsinh",
            "exp",
            "exp2",
            "expm1",
        )
    },
    **{
        name: getattr(jnp, name)
        for name in (
            "cbrt",
            "floor",
            "ceil",
            "round",
            "trunc",
            "sign",
            "square",
            "abs",
            "sinc",
            "i0",
        )
    },
    **{
        name: getattr(jax.nn, name)
        for name in ("sigmoid", "softplus", "silu", "gelu", "elu", "selu", "log_sigmoid", "relu6")
    },
    **{name: getattr(jax.scipy.special, name) for name in ("erf", "erfc", "ndtr", "log_ndtr")},
    "arctan2": lambda x: jnp.arctan2(x, 0.3 + x * x),
    **{
        f"{name} of less than 1": lambda x, f=f: f(0.2 * x)
        for name, f in (
            ("arcsin", jnp.arcsin),
            ("arccos", jnp.arccos),
            ("arctanh", jnp.arctanh),
            ("erfinv", jax.scipy.special.erfinv),
        )
    },
    **{
        f"{name} of positive": lambda x, f=f: f(0.5 + x * x)
        for name, f in (
            ("log", jnp.log),
            ("log2", jnp.log2),
            ("log10", jnp.log10),
            ("log1p", jnp.log1p),
            ("sqrt", jnp.sqrt),
            ("rsqrt", lax.rsqrt),
            ("reciprocal", jnp.reciprocal),
            ("gammaln", jax.scipy.special.gammaln),
            ("digamma", jax.scipy.special.digamma),
            ("power", lambda x: x**1.7),
            ("arccosh", lambda x: jnp.arccosh(1 + x)),
        )
    },
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("options", ["a loop", "a brief loop", "a check"])
def test_every_function_of_a_number_is_what_it_is_without_options(options, dtype):
    chosen = {
        "a loop": compilation.loop_options(),
        "a brief loop": compilation.loop_options(brief=True),
        "a check": compilation.check_options(),
    }[options]
    with enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).uniform(-3, 3, (37, 1023)), dtype)
        exact = jax.jit(lambda x: {name: f(x) for name, f in UNARY.items()})(x.astype(jnp.float64))
        found = jax.jit(
            lambda x: {name: f(x) for name, f in UNARY.items()}, compiler_options=chosen
        )(x)
        exact, found = (
            jax.tree.map(lambda y: np.asarray(y, np.float64), tree) for tree in (exact, found)
        )
    for name in UNARY:
        rounding = 200 * float(jnp.finfo(dtype).eps) * np.maximum(1, np.abs(exact[name]))
        np.testing.assert_array_less(np.abs(found[name] - exact[name]), rounding, err_msg=name)


CONSTANT_FACTORS = {
    "ones": lambda w: jnp.ones((40, 64)),
    "a column for all": lambda w: jnp.broadcast_to(w[:, :1], (40, 64)),
    "a row for all": lambda w: jnp.broadcast_to(w[:1], (40, 64)),
    "repeated": lambda w: jnp.repeat(w[:, :8], 8, axis=1),
    "sum and ones": lambda w: jnp.ones((40, 64)) + jnp.sum(w, axis=1, keepdims=True),
    "tanh of a column": lambda w: jnp.tanh(jnp.broadcast_to(w[:, :1], (40, 64))),
    "outer": lambda w: jnp.outer(w[:, 0], jnp.ones(64)),
}


@pytest.mark.parametrize("name", CONSTANT_FACTORS)
def test_a_product_with_a_matrix_of_equal_columns_is_that_product(name):
    factor = CONSTANT_FACTORS[name]
    w, x = (
        np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        for shape in ((40, 64), (8, 40))
    )

    def loss(w, mask):
        return jnp.sum(jnp.cos((mask * x) @ factor(w)))

    ones = jg.masks.Bernoulli(1.0)
    found = jg.estimate(loss, ones, (8, 40), argnums=0)(jax.random.key(0), w, samples=64).mean
    np.testing.assert_allclose(found, jax.grad(loss)(w, jnp.ones((8, 40))), rtol=1e-4, atol=1e-4)


def test_numbers_of_sixteen_bits_are_sampled():
    arrays = [
        jnp.asarray(np.random.default_rng(0).standard_normal((32, 32)), jnp.bfloat16)
        for _ in range(2)
    ]

    def loss(x, w, mask):
        return jnp.mean(jax.nn.silu((mask.astype(x.dtype) * x) @ w.T))

    found = jg.estimate(loss, jg.masks.Bernoulli(1.0), (32, 32), argnums=(0, 1))(
        jax.random.key(0), *arrays, samples=64
    ).mean
    exact = jax.grad(loss, (0, 1))(*(a.astype(jnp.float32) for a in arrays), jnp.ones((32, 32)))
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=0.03 * np.abs(other).max())


WAITING = """
import jax, jax.numpy as jnp, jaxgrad as jg
def loss(x, mask):
    masked = mask * x
    solved = jnp.linalg.solve(jnp.eye(32) + 0.01 * masked, x)
    return jnp.linalg.slogdet(masked.T @ masked + jnp.eye(32))[1] + jnp.sum(solved)
x = jax.random.normal(jax.random.key(0), (32, 32))
estimate = jg.estimate(loss, jg.masks.Bernoulli(0.6), (32, 32), argnums=0)
print(estimate(jax.random.key(1), x, samples=256).samples)
"""


@pytest.mark.parametrize("devices", [1, 2])
def test_programs_that_call_lapack_do_not_wait_for_each_other(devices):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", WAITING],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "256\n"), done.stderr


class Refusing:
    """A program that is lowered, and then not compiled."""

    def lower(self, *args):
        return self

    def compile(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: the options are too much")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are those of the CPU")
@pytest.mark.parametrize("late", [False, True])
def test_what_xla_cannot_compile_with_the_options_is_compiled_without(monkeypatch, late):
    estimate = jg.estimate(lambda x, mask: (mask * x).sum(), jg.masks.Bernoulli(0.5), (3,))
    whole = jax.jit

    def failing(function, compiler_options=None):
        if compiler_options and late:
            return Refusing()
        return Refusing().compile() if compiler_options else whole(function)

    monkeypatch.setattr(compilation.jax, "jit", failing)
    found = estimate(jax.random.key(0), jnp.ones(3), samples=1000)
    assert abs(found.mean - 1.5) < 6 * found.standard_error
