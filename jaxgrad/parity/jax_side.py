"""The JAX function, run on a golden's numbers, with the same things written down as on torch's
side.

Gradients are taken in torch's own parameters: a weight map is part of what is differentiated, so
that a kernel that is stored transposed in the port is compared in torch's layout.
"""

import difflib
import fnmatch
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.noise.random_rounding import movement_in_numpy
from jaxgrad.jaxprs.capture import Program
from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.jaxprs.user_calls import RefusedError, named, naming
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.judging import unit_of
from jaxgrad.parity.noise import Tape
from jaxgrad.parity.structure import leaves, real_parts
from jaxgrad.runtime.options import check_options

_SAME = 1e-6
"""Arrays no further apart than this part of their largest entry are the same but for rounding."""
_UNIT = float(np.finfo(np.float64).eps)

Arrays = dict[str, Any]
Given = dict[str, Arrays]
"""All that the function runs on: parameter, input (real), fixed (other state), whole (other
inputs), noise.
"""


class JaxSide:
    """A JAX function, and the golden it is compared with."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        weights: Callable[[dict[str, Any]], Any] | None = None,
        taps: Mapping[str, str] | None = None,
        ignore: Sequence[str] = (),
        buffers: bool = False,
        loss: Callable[[Any], Any] | None = None,
    ) -> None:
        """Keep what is to be run."""
        self.called, self.weights, self.loss = named("jax_function", function), weights, loss
        self.taps, self.ignore, self.buffers = dict(taps or {}), tuple(ignore), buffers
        self.shapes: Any = None
        self.blocks: Any = None

    def adopt(self, golden: Golden) -> None:
        """Take a golden; what was compiled for one of the same shapes serves again."""
        self.golden = golden
        self.trainable = [k for k in golden.manifest["parameters"] if k in golden.state]
        arrays = {
            k: v for k, v in golden.arrays.items() if not k.startswith("move/")
        }  # moves stand in float32 or float64
        shapes = golden.manifest["modules"], {k: (v.shape, v.dtype.str) for k, v in arrays.items()}
        if shapes != self.shapes:
            self.programs: dict[str, Program] = {}
            self._compiled: dict[str, Any] = {}
            self.partners: dict[str, str] | None = None
            self._taps: dict[str, tuple[int, ...]] | None = None
            self.shapes = shapes
            self.blocks = None
            self.permutations: dict[str, tuple[int, ...]] = {}

    def given(self, dtype: str, state: Mapping[str, Any], inputs: Mapping[str, Any]) -> Given:
        """Return all numbers that the function runs on, in a precision; what is differentiated
        stands apart.
        """
        golden = self.golden

        def cast(group: Mapping[str, Any]) -> Arrays:
            arrays = {k: np.asarray(v) for k, v in group.items()}
            return {
                k: v.astype(jnp.dtype(dtype)) if v.dtype.kind == "f" else v
                for k, v in arrays.items()
            }

        real = {k for k, v in inputs.items() if np.asarray(v).dtype.kind == "f"}
        state, inputs = cast(state), cast(inputs)
        return {
            "parameter": {k: state[k] for k in self.trainable},
            "input": {k: inputs[k] for k in inputs if k in real},
            "fixed": {
                k: v
                for k, v in state.items()
                if k not in self.trainable and k not in golden.manifest["aliases"]
            },
            "whole": {k: v for k, v in inputs.items() if k not in real},
            "noise": cast(golden.noise),
        }

    def model(self, given: Given) -> tuple[Arrays, Arrays, Arrays, Arrays]:
        """Return labelled outputs, updated buffers, the loss, and its gradient in each output."""
        golden = self.golden
        params = {k: jnp.asarray(v) for k, v in {**given["fixed"], **given["parameter"]}.items()}
        params |= {alias: params[name] for alias, name in golden.manifest["aliases"].items()}
        inputs = {
            k: jnp.asarray(given["input"].get(k, given["whole"].get(k))) for k in golden.inputs
        }
        tape = Tape(given["noise"])
        updated: Any = {}
        with tape.replay():
            output = self._call(params, inputs)
            if self.buffers:
                output, updated = self._split(output)
            loss, outlets = self._with_loss(output)
        tape.demand_all_used()
        return real_parts(leaves(output, "output")), updated, loss, outlets

    def _with_loss(self, output: Any) -> tuple[Arrays, Arrays]:
        if self.loss is None:
            return {}, {}
        flat, tree = jax.tree.flatten(output)
        real = [i for i, v in enumerate(flat) if jnp.issubdtype(jnp.result_type(v), jnp.floating)]

        def loss(values: Sequence[Any]) -> Any:
            moving = dict(zip(real, values, strict=True))
            value = jnp.asarray(
                self.loss(jax.tree.unflatten(tree, [moving.get(i, v) for i, v in enumerate(flat)]))
            )  # type: ignore[misc]  # there is one
            if value.size != 1:
                raise ValueError(
                    f"`loss` must give one number, and gives shape {list(value.shape)}; reduce it "
                    f"with .mean() or .sum()"
                )
            return value.reshape(())

        value, slopes = jax.value_and_grad(loss)([jnp.asarray(flat[i]) for i in real])
        slope = dict(zip(real, slopes, strict=True))
        return {"loss": value}, leaves(
            jax.tree.unflatten(tree, [slope.get(i) for i in range(len(flat))]), "output"
        )

    def _call(self, params: Arrays, given: Arrays) -> Any:
        with naming("weights"):
            tree = params if self.weights is None else self.weights(dict(params))
        if tree is None:
            raise ValueError("`weights` returns None; make it return the port's parameters")
        try:
            return self.called(tree, **given)
        except RefusedError as error:
            cause = error.__cause__
            name = cause.args[0] if isinstance(cause, KeyError) and cause.args else None
            if self.weights is not None or not isinstance(name, str) or name in params:
                raise
            near = difflib.get_close_matches(name, params, n=1, cutoff=0.3)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"`jax_function` takes the parameter {name!r}, which torch's state_dict has not; "
                f"{hint}"
                f"it has {', '.join(params) or 'none'}"
            ) from cause

    def _split(self, output: Any) -> tuple[Any, dict[str, Any]]:
        if not (isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], Mapping)):
            raise ValueError(
                "with `buffers=True` the JAX function must return (output, {torch's buffer name: "
                "array})"
            )
        unknown = [k for k in output[1] if k not in self.golden.state]
        if unknown:
            raise ValueError(
                f"`buffers`: torch has no buffer {unknown[0]!r}; it has "
                f"{', '.join(self.golden.state)}"
            )
        return output[0], dict(output[1])

    def program(self, dtype: str) -> Program:
        """Return the traced function in a precision, with partners found for its taps."""
        if dtype not in self.programs:
            given = self.given(dtype, self.golden.state, self.golden.inputs)
            program = Program(self.model, given, scopes=bool(self.taps))
            self._demand_outputs(program, given)
            if self.partners is None:
                self.partners = self._match(program, given)
            self.programs[dtype] = program
        return self.programs[dtype]

    def _demand_outputs(self, program: Program, given: Given) -> None:
        shapes = jax.eval_shape(lambda: program(Program.flat(given), lambda _, v: v))[0]
        theirs = self.golden.group("double/value")
        if shapes.keys() != theirs.keys():
            raise ValueError(
                f"`jax_function` returns {', '.join(shapes) or 'nothing'}, and torch "
                f"{', '.join(theirs) or 'nothing'}; "
                "return the same structure of tuples and dictionaries"
            )
        for label, shape in shapes.items():
            if shape.shape != theirs[label].shape:
                raise ValueError(
                    f"`jax_function`: {label} has shape {list(shape.shape)}, and torch's "
                    f"{list(theirs[label].shape)}, "
                    "on the recorded inputs "
                    + ", ".join(f"{k} {list(v.shape)}" for k, v in self.golden.inputs.items())
                )

    def _match(self, program: Program, given: Given) -> dict[str, str]:
        """Find for each of our taps torch's; refuse what has no partner and is not ignored."""
        seen: list[str] = []
        jax.eval_shape(
            lambda: program(Program.flat(given), lambda name, v: (seen.append(name), v)[1])
        )
        theirs = self.golden.manifest["order"]
        partners = {}
        for name, partner in self.taps.items():
            if name not in seen:
                raise ValueError(f"`taps`: {_hint(name, seen, 'the JAX function has no tap')}")
            if _label(partner, theirs) is None:
                raise ValueError(f"`taps`: {_hint(partner, theirs, 'torch has no module output')}")
            partners[name] = _label(partner, theirs)
        for name in seen:
            if (
                name in partners
                or name.partition("#")[0] not in program.explicit
                or self._ignored(name)
            ):
                continue
            label = _label(name, theirs)
            if label is None:
                raise ValueError(
                    f"{_hint(name, theirs, 'torch has no module output')}; give `taps={{{name!r}: "
                    f"torch name}}`, or leave it out by "
                    f"`ignore=[{name!r}]`"
                )
            partners[name] = label
        covered = {str(k).partition("[")[0] for k in partners.values()}
        alone = [
            k
            for k in self._with_parameters()
            if k.partition("[")[0] not in covered and not self._ignored(k)
        ]
        if partners and alone:
            raise ValueError(
                f"torch's {', '.join(map(repr, alone[:6]))}{' and others' * (len(alone) > 6)} "
                f"have parameters and no partner "
                "among the JAX function's taps; name them by "
                "jax.ad_checkpoint.checkpoint_name(value, name), or leave them out by "
                f"`ignore=[{alone[0]!r}]` (patterns such as '*' too)"
            )
        return {k: v for k, v in partners.items() if v is not None}

    def _with_parameters(self) -> list[str]:
        modules = self.golden.manifest["modules"]
        return [
            k
            for k in self.golden.manifest["order"]
            if modules.get(k.partition("[")[0].partition("#")[0], {}).get("parameters")
        ]

    def _ignored(self, name: str) -> bool:
        return any(
            fnmatch.fnmatchcase(name, pattern)
            or fnmatch.fnmatchcase(name.partition("[")[0], pattern)
            for pattern in self.ignore
        )

    def __call__(
        self, dtype: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Run forward and backward and return the results by kind and name, in torch's names."""
        return self._named(
            jax.tree.map(_widened, self._runner(dtype)(*self._arguments(dtype, state, inputs)))
        )

    @property
    def unit(self) -> float:
        """Distance from 1 to the next number in the run in float64: float32's where torch casts to
        float32, and our function too.
        """
        cast = self.golden.manifest.get("widened") and "f32[" in str(self.program("float64").closed)
        return unit_of("float32" if cast else "float64")

    def shaken(
        self, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, dict[str, np.ndarray]] | None:
        """Return how far random rounding in float64 moves each of these results; None where that
        would take long, or is not known.
        """
        moves = movement_in_numpy(
            TracedOnce(self._backward(self.program("float64"))),
            _UNIT,
            *self._arguments("float64", state, inputs),
        )
        return None if moves is None else self._named(moves)

    def _runner(self, dtype: str) -> Any:
        program = self.program(dtype)
        if dtype not in self._compiled:
            self._compiled[dtype] = jax.jit(
                self._backward(program), compiler_options=check_options()
            )
        return self._compiled[dtype]

    def _arguments(
        self, dtype: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[Given, Arrays, Arrays, Arrays]:
        program, given = self.program(dtype), self.given(dtype, state, inputs)
        if self._taps is None:
            shapes = jax.eval_shape(lambda: self._seen(program, given, {}, self.golden.seed)[1][2])
            real = {k: s.shape for k, s in shapes.items() if jnp.issubdtype(s.dtype, jnp.floating)}
            self._taps = {k: shape for k, shape in real.items() if k not in program.plan.opaque}
        zeros = {k: np.zeros(shape, jnp.dtype(dtype)) for k, shape in self._taps.items()}
        seed, direction = (
            {k: v.astype(jnp.dtype(dtype)) for k, v in self.golden.group(part).items()}
            for part in ("seed", "direction")
        )
        return given, zeros, seed, direction

    def _named(self, found: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
        if not self.permutations:
            self.permutations = {k: self._permutation(k, v) for k, v in found["activation"].items()}
        for kind in ("activation", "cotangent"):
            found[kind] = {
                self.partners[k]: np.transpose(v, self.permutations[k])
                for k, v in found[kind].items()
            }  # type: ignore[index]  # both are set together
        return found

    def _seen(
        self, program: Program, given: Given, zeros: Arrays, seeds: Arrays
    ) -> tuple[Any, tuple[Any, Any, Any, Any, Any]]:
        seen: Arrays = {}
        partners = self.partners or {}

        def visit(name: str, value: Any) -> Any:
            if name not in partners:
                return value
            seen[name] = value
            return value + zeros[name] if name in zeros else value

        values, updated, loss, outlets = program(Program.flat(given), visit)
        total = sum(
            (
                jnp.vdot(jnp.asarray(seeds[k]).astype(v.dtype), v)
                for k, v in values.items()
                if k in seeds
            ),
            jnp.zeros(()),
        )
        return total, (values, updated, seen, loss, outlets)

    def _backward(self, program: Program) -> Callable[..., Any]:
        def run(given: Given, zeros: Arrays, seeds: Arrays, directions: Arrays) -> dict[str, Any]:
            def total(theta: Arrays, moving: Arrays, zeros: Arrays) -> Any:
                return self._seen(
                    program, {**given, "parameter": theta, "input": moving}, zeros, seeds
                )

            at = given["parameter"], given["input"]
            differentiate = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
            (by_parameter, by_input, by_tap), (values, updated, seen, loss, outlets) = (
                differentiate(*at, zeros)
            )
            found = {
                "value": values,
                "loss": loss,
                "outlet": outlets,
                "parameter": by_parameter,
                "input": by_input,
                "activation": seen,
                "cotangent": by_tap,
                "buffer": updated,
            }
            if directions:
                along = tuple(
                    {k: directions[f"{kind}/{k}"] for k in given[kind]}
                    for kind in ("parameter", "input")
                )
                slope = jax.grad(lambda t, m: total(t, m, {})[0], argnums=(0, 1))
                found["curvature_parameter"], found["curvature_input"] = jax.jvp(slope, at, along)[
                    1
                ]
            return found

        return run

    def _permutation(self, name: str, raw: np.ndarray) -> tuple[int, ...]:
        """Return the order of axes that brings one of our taps into torch's: `jax.vmap` may have
        moved its batch axis.
        """
        partner = (self.partners or {})[name]
        theirs = self.golden.activations[partner]
        same = tuple(range(raw.ndim))
        if raw.ndim != theirs.ndim or sorted(raw.shape) != sorted(theirs.shape):
            raise ValueError(
                f"the tap {name!r} has shape {list(raw.shape)}, and torch's {partner!r} "
                f"{list(theirs.shape)}; name the value "
                "that corresponds, or leave it out by `ignore`"
            )
        if raw.ndim < 2:
            return same
        moved = [(k, *(i for i in same if i != k)) for k in range(1, raw.ndim)]
        fitting = [
            p for p in dict.fromkeys((same, *moved)) if np.transpose(raw, p).shape == theirs.shape
        ]
        fitting = fitting or [
            p for p in itertools.permutations(same) if np.transpose(raw, p).shape == theirs.shape
        ]

        def gap(order: tuple[int, ...]) -> float:
            with np.errstate(invalid="ignore"):
                return float(
                    np.nan_to_num(np.abs(np.transpose(raw, order) - theirs), nan=0.0).max(
                        initial=0.0
                    )
                )

        best = min(fitting, key=gap)  # of wrong values any order may lie nearest
        right = gap(best) <= _SAME * float(np.abs(np.nan_to_num(theirs)).max(initial=0.0))
        return same if same in fitting and not right else best


def _widened(array: Any) -> np.ndarray:
    """Return an array as numpy's; numpy knows bfloat16 by no kind of its own, and its numbers are
    all exact in float32.
    """
    half = jnp.issubdtype(array.dtype, jnp.floating) and jnp.dtype(array.dtype).itemsize < 4
    return np.asarray(array).astype(np.float32) if half else np.asarray(array)


def _label(name: str, theirs: Sequence[str]) -> str | None:
    return next((label for label in (name, f"{name}[0]") if label in theirs), None)


def _hint(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listed = ", ".join(list(known)[:12]) + (", …" if len(known) > 12 else "")
    return (
        f"{what} {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}there are "
        f"{listed or 'none'}"
    )
