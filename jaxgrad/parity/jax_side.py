"""The JAX function, run on a golden's numbers, with the same results as torch's side.

Gradients are taken in torch's own parameters: a weight map is part of what is differentiated, so
that a kernel that is stored transposed in the port is compared in torch's layout.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.noise.random_rounding import movement_in_numpy
from jaxgrad.jaxprs.taps import Program
from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.jaxprs.user_calls import RefusedError, named, naming
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.judging import unit_of
from jaxgrad.parity.noise import RecordedDraws
from jaxgrad.parity.partners import axis_order, partners_of_taps
from jaxgrad.parity.structure import leaves, loss_with_gradients, real_parts
from jaxgrad.runtime.options import check_options

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
        """Return all numbers the function runs on, in a precision; differentiated ones apart."""
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
        recorded_draws = RecordedDraws(given["noise"])
        updated: Any = {}
        with recorded_draws.replay():
            output = self._call(params, inputs)
            if self.buffers:
                output, updated = self._split(output)
            loss, output_gradients = loss_with_gradients(self.loss, output)
        recorded_draws.demand_all_used()
        return real_parts(leaves(output, "output")), updated, loss, output_gradients

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
                seen = self._seen_names(program, given)
                self.partners = partners_of_taps(
                    seen, program.explicit, self.golden, self.taps, self.ignore
                )
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

    @staticmethod
    def _seen_names(program: Program, given: Given) -> list[str]:
        seen: list[str] = []
        jax.eval_shape(
            lambda: program(Program.flat(given), lambda name, v: (seen.append(name), v)[1])
        )
        return seen

    def __call__(
        self, dtype: str, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Run forward and backward and return the results by kind and name, in torch's names."""
        return self._named(
            jax.tree.map(_widened, self._runner(dtype)(*self._arguments(dtype, state, inputs)))
        )

    @property
    def unit(self) -> float:
        """Unit roundoff of the run in float64: float32's where both sides cast to float32."""
        cast = self.golden.manifest.get("widened") and "f32[" in str(self.program("float64").closed)
        return unit_of("float32" if cast else "float64")

    def moved_by_rounding(
        self, state: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> dict[str, dict[str, np.ndarray]] | None:
        """Return how far random rounding in float64 moves the results; None where not known."""
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
        partners = self.partners or {}
        if not self.permutations:
            self.permutations = {
                k: axis_order(k, v, partners[k], self.golden.activations[partners[k]])
                for k, v in found["activation"].items()
            }
        for kind in ("activation", "cotangent"):
            found[kind] = {
                partners[k]: np.transpose(v, self.permutations[k]) for k, v in found[kind].items()
            }
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

        values, updated, loss, output_gradients = program(Program.flat(given), visit)
        total = sum(
            (
                jnp.vdot(jnp.asarray(seeds[k]).astype(v.dtype), v)
                for k, v in values.items()
                if k in seeds
            ),
            jnp.zeros(()),
        )
        return total, (values, updated, seen, loss, output_gradients)

    def _backward(self, program: Program) -> Callable[..., Any]:
        def run(given: Given, zeros: Arrays, seeds: Arrays, directions: Arrays) -> dict[str, Any]:
            def total(theta: Arrays, moving: Arrays, zeros: Arrays) -> Any:
                return self._seen(
                    program, {**given, "parameter": theta, "input": moving}, zeros, seeds
                )

            at = given["parameter"], given["input"]
            differentiate = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
            (by_parameter, by_input, by_tap), (values, updated, seen, loss, output_gradients) = (
                differentiate(*at, zeros)
            )
            found = {
                "value": values,
                "loss": loss,
                "outlet": output_gradients,
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


def _widened(array: Any) -> np.ndarray:
    """Return an array as numpy's; bfloat16 becomes float32, in which all its numbers are exact."""
    half = jnp.issubdtype(array.dtype, jnp.floating) and jnp.dtype(array.dtype).itemsize < 4
    return np.asarray(array).astype(np.float32) if half else np.asarray(array)
