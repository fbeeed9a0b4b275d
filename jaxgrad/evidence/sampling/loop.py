"""The sampling loop: means over chunks of masks, of a function or of its gradient.

Samples are drawn in chunks of c. Inside a chunk they are folded into one batch by vmap, so that a
gradient costs one pass over the chunk; a loop runs over chunks under one jit. Chunk i draws from
``fold_in(key, i)``, whoever computes it. So a chunk's mean is the same to the last bit on the same
machine with as many devices and cores, and the same to rounding elsewhere.

A long loop may run a program that was rewritten for speed
(`jaxgrad.evidence.sampling.rewriting`), if that gives what the plain one gives on two samples.
"""

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgrad.evidence.sampling.checkpoints import fingerprint, program
from jaxgrad.evidence.sampling.chunk import ChunkMeans
from jaxgrad.evidence.sampling.devices import devices, gathered, shares
from jaxgrad.evidence.sampling.known import Known, known_of, refuse
from jaxgrad.masks import Mask
from jaxgrad.runtime.compiled import executable, placed
from jaxgrad.runtime.options import loop_options
from jaxgrad.runtime.threads import for_each, workers

MEMORY_BUDGET = 256 * 2**20
"""Bytes that the intermediate values of one chunk, and the chunk means of one round, may take."""

CACHE_BUDGET = 12 * 2**20
"""Bytes of intermediate values, counted before any are fused away, at which a chunk runs quickest;
chunks aim at it.
"""

DEALT_OUT = 8 * 2**20
"""Bytes of chunk means in a round up to which its chunks are dealt out to the cores; XLA fills the
cores with larger ones itself.
"""

FIXED_SHARE = 96
"""A chunk may be larger than the cache by so many times the result, whose own cost is paid once a
chunk.
"""

MIN_CHUNKS = 16
"""The fewest chunks of an estimate: its standard error is then itself good to 1/√30, about a
fifth.
"""


_COUNTED = 1009
"""Samples in the chunk whose arrays are counted: a prime, so that the arrays that grow with the
samples are known by their size.
"""

BRIEF_CHUNK = 31
"""The same where a loop is brief, and then the most samples that a chunk should have: its program
is the one that was counted.
"""

_turn = threading.Lock()
"""Held by the one program with such operations that runs."""


class Sampler:
    """The compiled sampling loop of one function, mask and shape.

    Args:
        f: takes positional arguments and the draw as keyword `mask`; returns a pytree of arrays, or
            a scalar with `argnums`.
        mask: distribution of the mask.
        shape: shape of a draw.
        argnums: None for the mean of f; a number or a tuple of them for the gradient of f's mean in
            these arguments.
        brief: whether it will run for no longer than about a second, in chunks of no more than
            about BRIEF_CHUNK samples.
        rewrite: whether its program may be rewritten; see `may_rewrite`.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        mask: Mask,
        shape: Sequence[int],
        argnums: int | Sequence[int] | None = None,
        *,
        brief: bool = False,
        rewrite: bool = False,
    ) -> None:
        """Set up; nothing is traced yet."""
        self.f, self.mask, self.shape, self.brief = f, mask, tuple(shape), brief
        self.argnums = argnums if argnums is None or isinstance(argnums, int) else tuple(argnums)
        self.rewrite = rewrite
        self.means = ChunkMeans(f, mask, self.shape, self.argnums)
        self.of_draw = self.means.of_draw
        self._loops: dict[Any, tuple[int, Sequence[Callable[..., Any]]]] = {}
        self._known: dict[Any, Known] = {}
        self._masks: dict[Any, Mask] = {}
        self._same: dict[Any, bool] = {}

    def may_rewrite(self, key: Array, args: tuple[Any, ...], chunk: int) -> bool:
        """Say whether the rewritten program gives what the plain one gives.

        They are compared once for arguments of these shapes, on two samples of the first chunk.
        """
        name = self.known(args).signature, chunk
        if name not in self._same:
            self._same[name] = self.rewrite and self.means.is_same(key, args, chunk)
        return self._same[name]

    def known(self, args: tuple[Any, ...], *, check: bool = False) -> Known:
        """Return what is known of the program at arguments of these shapes.

        It is traced, and may be checked, for the first of them.
        """
        leaves, treedef = jax.tree.flatten(args)
        signature = treedef, jnp.result_type(float), *map(jax.typeof, leaves)
        if signature not in self._known:
            if check:
                refuse(self.f, args, self.shape, self.argnums)
            key, many = (
                jax.eval_shape(lambda: jax.random.key(0)),
                BRIEF_CHUNK if self.brief else _COUNTED,
            )
            drawing, draws = jax.make_jaxpr(
                lambda key, mask: mask.sample(key, (many, *self.shape)), return_shape=True
            )(key, self.mask)
            if draws.shape != (many, *self.shape):
                raise ValueError(
                    f"`mask` draws an array of shape {draws.shape} where `sample` is asked for "
                    f"{(many, *self.shape)}"
                )
            traced = self.means.associated if self.rewrite else self.means.plain
            averaging, out = traced.program(args, draws)
            self._known[signature] = known_of(signature, drawing, averaging, out, many)
        return self._known[signature]

    def plan(self, known: Known, samples: int, *, cache: int = CACHE_BUDGET) -> tuple[int, int]:
        """Choose (samples a chunk, chunks a round) by what memory, and the cache, can hold."""
        one, row = known.one, known.row
        # what a gradient costs once a chunk, however large, is of the size of the result
        best = max(8, (cache + FIXED_SHARE * row) // one)
        chunk = max(1, min(-(-samples // MIN_CHUNKS), best, MEMORY_BUDGET // (workers() * one)))
        chunks = min(
            -(-samples // chunk), max(MIN_CHUNKS, min(1024, MEMORY_BUDGET // max(1, 4 * row)))
        )
        return chunk, max(1, chunks)

    def round(
        self,
        key: Array,
        args: tuple[Any, ...],
        first: int,
        chunk: int,
        chunks: int,
        *,
        quick: bool = False,
    ) -> np.ndarray:
        """Return the means of chunks first … first + chunks − 1, flattened to (chunks, size).

        The chunks are dealt out to the devices. Those of one device are dealt out to as many
        threads as there are cores, which small chunks by themselves would leave idle.
        """
        known, every = self.known(args), devices()
        mask, (key, args) = self._settled_mask(), jax.tree.map(_settled, (key, args))
        parts = shares(chunks, len(every) if len(every) > 1 else self._threads(known, chunks))
        length = parts[0][1]
        here = (
            [device for device in every if device in jax.local_devices()]
            if len(every) > 1
            else None
        )
        loops = self._compiled(known, key, mask, args, chunk, length, here, quick=quick)

        def start(loop: Callable[..., Any], part: tuple[int, int]) -> Array:
            begin, count = part
            return loop(
                *jax.tree.leaves((key, np.uint32(first + begin), np.int32(count), mask, args))
            )[0]

        with _turn if known.waits else contextlib.nullcontext():
            if here is None:
                each = map if known.waits else for_each
                means = [*each(lambda part: np.asarray(start(loops[0], part))[: part[1]], parts)]
                return means[0] if len(means) == 1 else np.concatenate(means)
            rows = []
            for loop, device in zip(loops, here, strict=True):
                row = start(loop, parts[every.index(device)])
                rows.append(row if len(row) == length else row[:length])
                if known.waits:
                    jax.block_until_ready(rows)
            return gathered(rows)[:chunks]

    def begin(self, key: Array, args: tuple[Any, ...], chunk: int, chunks: int) -> None:
        """Let another thread compile the loop of such rounds."""
        if len(devices()) == 1:
            known, mask, (key, args) = (
                self.known(args),
                self._settled_mask(),
                jax.tree.map(_settled, (key, args)),
            )
            length = shares(chunks, self._threads(known, chunks))[0][1]
            self._compiled(known, key, mask, args, chunk, length, wait=False)

    @staticmethod
    def _threads(known: Known, chunks: int) -> int:
        """Return how many threads share the chunks of a round on one device."""
        return 1 if known.row * chunks > DEALT_OUT else min(workers(), chunks)

    def _settled_mask(self) -> Mask:
        default = jnp.result_type(float)
        if default not in self._masks:
            self._masks[default] = jax.tree.map(_settled, self.mask)
        return self._masks[default]

    def _compiled(
        self, known: Known, key: Array, mask: Mask, args: tuple[Any, ...], chunk: int, length: int,
        here: Sequence[Any] | None = None, *, wait: bool = True, quick: bool = False,
    ) -> Sequence[Callable[..., Any]]:  # fmt: skip
        """Return the compiled loop over up to `length` chunks, for each device or the usual one."""
        signature = known.signature, jax.typeof(key), chunk, here and tuple(here), quick
        most, programs = self._loops.get(signature, (0, ()))
        if most < length:

            def run(
                key: Array, first: Array, count: Array, mask: Mask, args: tuple[Any, ...]
            ) -> Array:
                def step(i: Array, rows: Array) -> Array:
                    number = first + jax.lax.convert_element_type(i, jnp.uint32)
                    own = jax.random.fold_in(key, number)
                    leaves = jax.tree.leaves(self.means.mean(own, mask, args, chunk, quick=quick))
                    row = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
                    return jax.lax.dynamic_update_index_in_dim(rows, row, i, 0)

                dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(known.out)))
                return jax.lax.fori_loop(0, count, step, jnp.zeros((length, known.size), dtype))

            like = key, np.uint32(0), np.int32(0), mask, args
            closed, leaves = jax.make_jaxpr(run)(*like), jax.tree.leaves(like)
            options = loop_options(brief=self.brief)
            programs = (
                placed(closed, leaves, options, here)
                if here
                else [executable(closed, leaves, options, wait=wait)]
            )
            self._loops[signature] = length, programs
        return programs

    def fingerprint(self, key: Array, args: tuple[Any, ...], *plan: int) -> str:
        """Return a hash of all that the chunk means depend on."""
        text = program(functools.partial(self.means.mean, chunk=2), key, self.mask, args)
        return fingerprint(
            text,
            jax.random.key_data(key),
            *jax.tree.leaves((self.mask, args)),
            self.shape,
            self.argnums,
            *plan,
        )

    def unflatten(self, rows: np.ndarray, known: Known) -> list[Any]:
        """Give each row the structure of f's result, or of its gradient."""
        leaves, treedef = jax.tree.flatten(known.out)
        ends = list(itertools.accumulate(math.prod(leaf.shape) for leaf in leaves))
        parts = [
            (slice(begin, end), leaf.shape)
            for begin, end, leaf in zip([0, *ends], ends, leaves, strict=False)
        ]
        return [
            jax.tree.unflatten(treedef, [row[part].reshape(shape) for part, shape in parts])
            for row in rows
        ]


def _settled(leaf: Any) -> Any:
    """Return an array of the caller's default precision, which a thread may not share.

    A Python number stays of weak type.
    """
    if isinstance(leaf, jax.Array):
        return leaf
    weak = isinstance(leaf, (bool, int, float, complex)) and not isinstance(leaf, np.generic)
    dtype = jnp.result_type(leaf)
    # in a thread that has the usual precision numpy's 64 bits would become 32; an array of JAX's
    # keeps them
    if not weak and dtype.itemsize < 8:
        return np.asarray(leaf, dtype)
    with jax.ensure_compile_time_eval():
        return jnp.asarray(leaf) if weak else jnp.asarray(leaf, dtype)
