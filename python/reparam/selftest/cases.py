# SPDX-License-Identifier: MIT
"""Problems of the accuracy report with their exact answers, by what is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import reparam as rp

from .._op import Op
from . import exact, measures
from .elbo_gradient import elbo_gradient
from .measures import EVENTS
from .problems import (
    SCALES,
    UNIT,
    Attributes,
    as_tuple,
    complex_outputs,
    exact_cotangents,
    extents_of,
    forward,
    sample_cotangents,
    sample_inputs,
    variants,
    vjp,
)

Array = NDArray[Any]
Sizes = tuple[int, ...]
COMPLEX = {"float32": np.complex128, "float64": np.clongdouble}
CONDITIONS = (1e1, 1e3)  # of lower factors; 0 stands for those that the op's own samples have
LARGEST = 33  # where each entry is moved, or the reference would take minutes
SCALAR_EVENTS = 200


class Case(NamedTuple):
    """One problem: in words, and a function that gives the errors of the backend in force.

    It says nothing of a backend that would be held against itself.
    """

    where: str
    errors: Callable[[], Any]
    itself: tuple[str, ...] = ()


class Problem(NamedTuple):
    """Inputs of an op for a batch of events."""

    where: str
    d: int
    attributes: Attributes
    inputs: list[Array]


class Lanes(NamedTuple):
    """The events of a problem as they are run: those of exact answers, each in several lanes, among all others."""

    exact: Problem
    numbers: Array  # of the event in each lane; the first have exact answers

    def of(self, arrays: Sequence[Array]) -> list[Array]:
        """Arrays of all events, in lanes."""
        return [x[self.numbers] for x in arrays]

    def beside(self, found: Sequence[Array], wanted: Sequence[Any]) -> Iterator[tuple[Array, Any]]:
        """What was found in the lanes of exact answers, and these answers."""
        known = self.numbers < len(self.exact.inputs[0])
        return ((y[known], e[self.numbers[known]]) for y, e in zip(found, wanted, strict=True))


def lanes(op: Op, p: Problem) -> Lanes:
    """Few events of a large size: their exact answers take long."""
    if not op.forward_pass.symbols:
        return Lanes(p, np.arange(len(p.inputs[0])))
    count = max(1, 16 // p.d)
    numbers, places = np.arange(EVENTS), np.linspace(0, EVENTS - 1, max(9, count)).astype(int)
    numbers[numbers < count] = EVENTS - 1  # an event without an exact answer
    numbers[places] = np.arange(len(places)) % count
    return Lanes(p._replace(inputs=[x[:count] for x in p.inputs]), numbers)


def problems(
    op: Op, sizes: Sizes, dtype: str, largest: int = 64, conditions: tuple[float, ...] = CONDITIONS
) -> Iterator[Problem]:
    """For each size up to the largest, condition of the lower factors, and variant of the attributes."""
    scalar = not op.forward_pass.symbols
    factored = [k for k, o in enumerate(op.inputs) if o.kind == "tril" and "floor" not in op.attributes]
    for d in (1,) if scalar else (d for d in sizes if d <= largest):
        for condition in conditions if factored else (0.0,):
            for k, attributes in enumerate(variants(op)):
                rng, batch = np.random.default_rng([d, int(condition), k]), SCALAR_EVENTS if scalar else EVENTS
                inputs = sample_inputs(op, rng, (batch,), d, dtype, single=False)
                for at in factored if condition else ():
                    sizes_of_events = rng.uniform(0.5, 2, (batch, 1, 1)).astype(dtype)
                    inputs[at] = measures.factors(rng, d, dtype, condition, batch) * sizes_of_events
                said = [f"d = {d}"] * (not scalar) + [f"condition {condition:g}"] * (condition > 0)
                where = ", ".join([*said, *(f"{name} = {value}" for name, value in attributes.items())])
                yield Problem(where, d, attributes, inputs)


# ---- values and densities


def _factors(op: Op, inputs: list[Array], attributes: Attributes) -> Array:
    """The lower factors that an op multiplies noise by, or of whose Gaussian it gives the density: its last input."""
    operand, x, shown = op.inputs[-1], measures.wide(inputs[-1]), {"row_scaled": False, **attributes}
    if operand.kind == "tril":
        return np.tril(x)
    if operand.kind == "vec":
        return complex_outputs(rp.tril_from_vector, [x], inputs[0].shape[-1], shown, x.dtype)[0]
    if operand.name == "vector":
        x = complex_outputs(rp.tril_from_vector, [x.reshape(-1, 1)], 1, shown, x.dtype)[0].reshape(x.shape)
    diagonal = _as_vectors(x)
    return np.asarray(diagonal[..., None] * np.eye(diagonal.shape[-1]))


def _as_vectors(x: Array) -> Array:
    """Scalar events as vectors of one number."""
    return x if x.ndim > 1 else x[:, None]


def of_transform(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Residuals of value = loc + L noise."""
    for p in problems(op, sizes, dtype):
        yield Case(p.where, partial(_transform_errors, op, p, _factors(op, p.inputs, p.attributes)))


def _transform_errors(op: Op, p: Problem, factors: Array) -> Array:
    noise, loc = map(_as_vectors, p.inputs[:2])
    return measures.product_residual(_as_vectors(forward(op, p.inputs, **p.attributes)[0]), factors, noise, loc)


def of_log_prob(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Log densities at standard normal points, and at draws of a well-conditioned Gaussian."""
    for p in problems(op, sizes, dtype, conditions=CONDITIONS[:1]):
        factors = _factors(op, p.inputs, p.attributes)
        yield Case(p.where, partial(_log_prob_errors, op, p, _exact_log_probs(op, p, factors)))
        if op.inputs[0].name == "value":
            noise, loc = map(_as_vectors, p.inputs[:2])
            drawn = loc + np.einsum("bij,bj->bi", factors, noise)
            value = drawn.reshape(p.inputs[0].shape).astype(dtype)
            q = p._replace(where=f"{p.where}, at draws", inputs=[value, *p.inputs[1:]])
            yield Case(q.where, partial(_log_prob_errors, op, q, _exact_log_probs(op, q, factors)))


def _exact_log_probs(op: Op, p: Problem, factors: Array) -> Array:
    if op.inputs[0].name == "value":
        events = zip(*map(_as_vectors, p.inputs[:2]), factors.astype(np.float64), strict=True)
        return np.array([exact.log_prob(*event) for event in events], object)
    scale = np.diagonal(factors, axis1=-2, axis2=-1).tolist()
    if op.inputs[-1].name == "vector":
        d, vector = p.d, p.inputs[-1]
        diagonal = [i * (i + 3) // 2 for i in range(d)] if op.inputs[-1].kind == "vec" else list(range(d))
        scale = [exact.scales(v, p.attributes["diagonal"], p.attributes["floor"]) for v in vector[:, diagonal]]
    events = zip(_as_vectors(p.inputs[0]).tolist(), scale, strict=True)
    return np.array([exact.log_density(*event) for event in events], object)


def _log_prob_errors(op: Op, p: Problem, exact_log_probs: Array) -> Array:
    return measures.value_error(forward(op, p.inputs, **p.attributes)[-1], exact_log_probs, p.d)


def of_values(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Outputs that no other row has, in 50 digits or against the op's oracle; of the ELBO's all but the gradients."""
    elbo = op.outputs[0].name == "log_weights"
    oracle, in_digits = op.oracle, _IN_DIGITS.get(op.name)
    settings: Any = {"largest": LARGEST, "conditions": (0.0,)} if elbo else {"largest": LARGEST} if in_digits else {}
    for p in problems(op, sizes, dtype, **settings):
        at = lanes(op, p) if in_digits else Lanes(p, np.arange(len(p.inputs[0])))
        if in_digits:
            expected: Any = [np.array([in_digits(*x) for x in zip(*at.exact.inputs, strict=True)], object)]
        elif oracle:
            expected = as_tuple(oracle(*(x.astype(np.float64) for x in p.inputs), **p.attributes))
        yield Case(p.where, partial(_value_errors, op, p, at, expected[:3] if elbo else expected))


def _kl(loc: Array, scale: Array, other_loc: Array, other: Array) -> Any:
    lower, below = (x if x.ndim > 1 else np.diag(np.atleast_1d(x)) for x in (scale, other))
    return exact.kl(np.atleast_1d(loc), lower, np.atleast_1d(other_loc), below)


#: Where the oracle itself would lose digits to cancellation.
_IN_DIGITS: dict[str, Callable[..., Any]] = {
    "binomial_log_likelihood": exact.binomial_log_likelihood,
    "normal_kl": _kl,
    "normal_diag_kl": _kl,
    "normal_tril_kl": _kl,
}


def _value_errors(op: Op, p: Problem, at: Lanes, expected: Any) -> Array:
    size = sum(extents_of(op, p.d).values()) or 1
    found = forward(op, at.of(p.inputs), **p.attributes)[: len(expected)]
    return np.concatenate([measures.value_error(y, e, size).ravel() for y, e in at.beside(found, expected)])


# ---- gradients


def of_vjp(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Cotangents of all inputs."""
    for p in problems(op, sizes, dtype, LARGEST):
        at, cotangents = lanes(op, p), _cotangents(op, p, dtype)
        few = [x[: len(at.exact.inputs[0])] for x in cotangents]
        wanted = exact_cotangents(op, at.exact.inputs, few, p.d, p.attributes, COMPLEX[dtype])
        yield Case(p.where, partial(_vjp_errors, op, p, at, cotangents, wanted))


def _cotangents(op: Op, p: Problem, dtype: str) -> list[Array]:
    return sample_cotangents(op, np.random.default_rng(p.d), (len(p.inputs[0]),), p.d, dtype)


def _vjp_errors(op: Op, p: Problem, at: Lanes, cotangents: list[Array], wanted: list[Array]) -> list[float]:
    found = vjp(op, at.of(p.inputs), at.of(cotangents), **p.attributes)
    return _gradient_errors(op, at, found, wanted)


def _gradient_errors(op: Op, at: Lanes, found: Sequence[Array], wanted: Sequence[Array]) -> list[float]:
    """The relative error of each array; in float32 over d cond(L) u."""
    scale = 1.0
    if found[0].dtype == np.float32:
        scale = max(1, at.exact.d) * _condition(op, at.exact.inputs) * UNIT["float32"]
    return [float(measures.relative_error(ct, e, events=0)) / scale for ct, e in at.beside(found, wanted)]


def _condition(op: Op, inputs: list[Array]) -> float:
    """The largest condition of the scales among the inputs."""
    found = [1.0]
    for operand, x in zip(op.inputs, inputs, strict=True):
        if operand.kind == "tril":
            found.append(float(np.linalg.cond(np.tril(x.astype(np.float64))).max()))
        elif operand.name in SCALES and operand.event_rank:
            found.append(float((x.max(axis=1) / x.min(axis=1)).max()))
    return max(found)


def of_elbo(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """The gradient of each estimator in loc and scale."""
    for p in problems(op, sizes, dtype, LARGEST):
        at = lanes(op, p)
        wanted = elbo_gradient(op, at.exact.inputs, p.attributes, np.finfo(COMPLEX[dtype]).dtype)
        yield Case(p.where, partial(_elbo_errors, op, p, at, wanted))


def _elbo_errors(op: Op, p: Problem, at: Lanes, wanted: tuple[Array, ...]) -> list[float]:
    return _gradient_errors(op, at, forward(op, at.of(p.inputs), **p.attributes)[-2:], wanted)


def of_value_and_vjp(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Bits of the pass that gives both, against the two apart."""
    for p in problems(op, sizes, dtype, LARGEST, CONDITIONS[:1]):
        errors = partial(_value_and_vjp_errors, op, p, _cotangents(op, p, dtype))
        yield Case(p.where, errors, ("numba", "reference"))  # which run the two definitions


def _value_and_vjp_errors(op: Op, p: Problem, cotangents: list[Array]) -> int:
    outputs, cts = op.value_and_vjp(*p.inputs, *cotangents, **p.attributes)
    apart = [*forward(op, p.inputs, **p.attributes), *vjp(op, p.inputs, cotangents, **p.attributes)]
    return sum(measures.different(x, y) for x, y in zip([*as_tuple(outputs), *as_tuple(cts)], apart, strict=True))
