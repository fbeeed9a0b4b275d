"""Matrix calculus: determinants, inverses, traces, spectra, and domains of matrices."""

import jax.numpy as jnp

from benchmarks.corpus.statement import BOYD, COOKBOOK, GILES, GOLUB, Kind, symmetric, well_posed

INV, DET = jnp.linalg.inv, jnp.linalg.det


def of(kind, source):
    """Return `kind.pair` with a source whose equation is given by its number."""
    return lambda *args, eq="", **more: kind.pair(
        *args, **({"source": f"{source}, eq. {eq}"} if eq else {}), **more
    )


pair = of(Kind("matrices: determinants and inverses"), COOKBOOK)
pair(
    "determinant",
    {"a": "n n"},
    lambda a: DET(a),
    lambda a: DET(a) * INV(a).T,
    "not transposed",
    lambda a: DET(a) * INV(a),
    domains=well_posed,
    eq="49",
)
pair(
    "log-determinant",
    {"a": "n n"},
    lambda a: jnp.linalg.slogdet(a)[1],
    lambda a: INV(a).T,
    "not transposed",
    lambda a: INV(a),
    domains=well_posed,
    eq="57",
)
pair(
    "trace of an inverse",
    {"a": "n n"},
    lambda a: jnp.trace(INV(a)),
    lambda a: -(INV(a) @ INV(a)).T,
    "the inverse once",
    lambda a: -INV(a).T,
    domains=well_posed,
    eq="64",
)
pair(
    "bilinear form of an inverse",
    {"a": "n n", "u": "n", "v": "n"},
    lambda a, u, v: u @ INV(a) @ v,
    lambda a, u, v: -INV(a).T @ jnp.outer(u, v) @ INV(a).T,
    "the vectors exchanged",
    lambda a, u, v: -INV(a).T @ jnp.outer(v, u) @ INV(a).T,
    domains=well_posed,
    eq="61",
)
pair(
    "determinant of a gram matrix",
    {"x": "4 2"},
    lambda x: jnp.log(DET(x.T @ x)),
    lambda x: 2 * x @ INV(x.T @ x),
    "two forgotten",
    lambda x: x @ INV(x.T @ x),
    eq="55",
)

pair = of(Kind("matrices: traces"), COOKBOOK)
pair(
    "linear",
    {"x": "m n", "a": "n m"},
    lambda x, a: jnp.trace(x @ a),
    lambda x, a: (a.T, x.T),
    "the second as if symmetric",
    lambda x, a: (a.T, jnp.sum(x) * jnp.ones_like(x.T)),
    eq="100",
)
pair(
    "quadratic",
    {"x": "m n", "b": "m m"},
    lambda x, b: jnp.trace(x.T @ b @ x),
    lambda x, b: b @ x + b.T @ x,
    "b taken for symmetric",
    lambda x, b: 2 * b @ x,
    eq="108",
)
pair(
    "two-sided",
    {"x": "m n", "a": "m m", "b": "n n"},
    lambda x, a, b: jnp.trace(a @ x @ b @ x.T),
    lambda x, a, b: a.T @ x @ b.T + a @ x @ b,
    "b not transposed",
    lambda x, a, b: a.T @ x @ b + a @ x @ b,
    eq="116",
)
pair(
    "trace of a cube",
    {"x": "n n"},
    lambda x: jnp.trace(x @ x @ x),
    lambda x: 3 * (x @ x).T,
    "not transposed",
    lambda x: 3 * x @ x,
    eq="121",
)
pair(
    "frobenius norm",
    {"x": "m n"},
    lambda x: jnp.sqrt(jnp.sum(x**2) + 1e-2),
    lambda x: x / jnp.sqrt(jnp.sum(x**2) + 1e-2),
    "norm of rows",
    lambda x: x / jnp.sqrt(jnp.sum(x**2, 1, keepdims=True) + 1e-2),
    eq="131",
)

pair = of(Kind("matrices: quadratic forms"), COOKBOOK)
pair(
    "any matrix",
    {"x": "n", "a": "n n"},
    lambda x, a: x @ a @ x,
    lambda x, a: (a + a.T) @ x,
    "2 a x",
    lambda x, a: 2 * a @ x,
    eq="81",
)
pair(
    "weighted least squares",
    {"s": "n", "x": "m", "a": "m n", "w": "m m"},
    lambda s, x, a, w: (x - a @ s) @ w @ (x - a @ s),
    lambda s, x, a, w: {"s": -a.T @ (w + w.T) @ (x - a @ s)},
    "weight as if symmetric",
    lambda s, x, a, w: {"s": -2 * a.T @ w @ (x - a @ s)},
    eq="84",
)
pair(
    "symmetric matrix",
    {"a": "n n", "x": "n"},
    lambda a, x: x @ a @ x,
    lambda a, x: jnp.outer(x, x),
    "off the diagonal twice, as of a structured matrix",
    lambda a, x: 2 * jnp.outer(x, x) - jnp.diag(x * x),
    domains={"a": symmetric},
    eq="138",
)
pair(
    "mahalanobis",
    {"x": "n", "s": "n n"},
    lambda x, s: x @ jnp.linalg.solve(s, x),
    lambda x, s: (
        2 * jnp.linalg.solve(s, x),
        -jnp.outer(jnp.linalg.solve(s, x), jnp.linalg.solve(s, x)),
    ),
    "sign in s",
    lambda x, s: (
        2 * jnp.linalg.solve(s, x),
        jnp.outer(jnp.linalg.solve(s, x), jnp.linalg.solve(s, x)),
    ),
    domains={"s": "spd"},
    eq="61",
)
pair(
    "rayleigh quotient",
    {"x": "n", "a": "n n"},
    lambda x, a: x @ a @ x / (x @ x),
    lambda x, a: ((a + a.T) @ x - 2 * x * (x @ a @ x) / (x @ x)) / (x @ x),
    "numerator alone",
    lambda x, a: (a + a.T) @ x / (x @ x),
    domains={"x": "positive"},
    eq="83",
)

pair = of(Kind("matrices: spectra"), GILES)
pair(
    "largest eigenvalue",
    {"s": "n n"},
    lambda s: jnp.linalg.eigvalsh(s)[-1],
    lambda s: jnp.outer(jnp.linalg.eigh(s)[1][:, -1], jnp.linalg.eigh(s)[1][:, -1]),
    "rows for columns",
    lambda s: jnp.outer(jnp.linalg.eigh(s)[1][-1], jnp.linalg.eigh(s)[1][-1]),
    domains="spd",
    eq="3.1",
)
pair(
    "spectral entropy",
    {"s": "n n"},
    lambda s: jnp.sum(jnp.log(jnp.linalg.eigvalsh(s)) ** 2),
    lambda s: (lambda e, v: (v * (2 * jnp.log(e) / e)) @ v.T)(*jnp.linalg.eigh(s)),
    "the chain rule's 1/λ lost",
    lambda s: (lambda e, v: (v * (2 * jnp.log(e))) @ v.T)(*jnp.linalg.eigh(s)),
    domains="spd",
    eq="3.1",
)
pair(
    "nuclear norm",
    {"x": "4 3"},
    lambda x: jnp.sum(jnp.linalg.svd(x, compute_uv=False)),
    lambda x: (lambda u, s, v: u @ v)(*jnp.linalg.svd(x, full_matrices=False)),
    "v not transposed",
    lambda x: (lambda u, s, v: u @ v.T)(*jnp.linalg.svd(x, full_matrices=False)),
    eq="3.2",
)
pair(
    "largest singular value",
    {"x": "m n"},
    lambda x: jnp.linalg.svd(x, compute_uv=False)[0],
    lambda x: (lambda u, s, v: jnp.outer(u[:, 0], v[0]))(*jnp.linalg.svd(x, full_matrices=False)),
    "times the value",
    lambda x: (lambda u, s, v: s[0] * jnp.outer(u[:, 0], v[0]))(
        *jnp.linalg.svd(x, full_matrices=False)
    ),
    eq="3.2",
)
pair(
    "schatten 4-norm's power",
    {"x": "m n"},
    lambda x: jnp.sum((x.T @ x) ** 2),
    lambda x: 4 * x @ x.T @ x,
    "half",
    lambda x: 2 * x @ x.T @ x,
    eq="3.2",
)

pair = of(Kind("matrices: factorisations and domains"), GILES)
pair(
    "log-determinant by cholesky",
    {"s": "n n"},
    lambda s: 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(s)))),
    lambda s: INV(s),
    "half",
    lambda s: INV(s) / 2,
    domains="spd",
    source=BOYD + ", A.4.1",
)
pair(
    "matrix power",
    {"x": "n n"},
    lambda x: jnp.sum(jnp.linalg.matrix_power(x, 3)),
    lambda x: sum(
        jnp.linalg.matrix_power(x.T, i) @ jnp.ones_like(x) @ jnp.linalg.matrix_power(x.T, 2 - i)
        for i in range(3)
    ),
    "as of a number",
    lambda x: 3 * jnp.ones_like(x) @ jnp.linalg.matrix_power(x.T, 2),
    source=COOKBOOK + ", eq. 91",
)
pair(
    "kronecker product",
    {"x": "m n", "y": "p q"},
    lambda x, y: jnp.sum(jnp.kron(x, y) ** 2),
    lambda x, y: (2 * x * jnp.sum(y**2), 2 * y * jnp.sum(x**2)),
    "sum for sum of squares",
    lambda x, y: (2 * x * jnp.sum(y) ** 2, 2 * y * jnp.sum(x**2)),
    source=GOLUB,
)
pair(
    "orthogonal penalty",
    {"q": "n n"},
    lambda q: jnp.sum((q.T @ q - jnp.eye(len(q))) ** 2),
    lambda q: 4 * q @ (q.T @ q - jnp.eye(len(q))),
    "transposed",
    lambda q: 4 * (q.T @ q - jnp.eye(len(q))) @ q,
    domains=well_posed,
)
pair(
    "alignment of a rotation",
    {"q": "n n", "a": "n n"},
    lambda q, a: jnp.sum(q * a) ** 2,
    lambda q, a: (2 * jnp.sum(q * a) * a, 2 * jnp.sum(q * a) * q),
    "qᵀ for q",
    lambda q, a: (2 * jnp.sum(q * a) * a, 2 * jnp.sum(q * a) * q.T),
    domains={"q": "orthogonal"},
    source="G. Wahba, A least squares estimate (1965)",
)
