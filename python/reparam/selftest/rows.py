# SPDX-License-Identifier: MIT
"""The rows of the accuracy report: the measures with their limits, and what is measured of each pass of an op."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import reparam as rp

from .._op import Op
from . import cases, own_cases
from .cases import Case

__all__ = ["MEASURES", "SIZES", "Measure", "Row", "rows"]

SIZES = (1, 2, 3, 4, 8, 16, 33, 64)


class Measure(NamedTuple):
    """How errors are counted: the limits in float32 and float64 (None: not measured), and the formula in words."""

    float32: float | None
    float64: float | None
    text: str


MEASURES = {
    "residual": Measure(
        3,
        3,
        "|L L^T - A|/(d |A| u) on LAPACK's matrices; |b - L x|/(d |L| |x| u) of solves, and of value = loc + L noise",
    ),
    "info": Measure(0, 0, "matrices of LAPACK's nine types whose info is wrong, or that fail without NaN"),
    "log p": Measure(8, 8, "abs error/(d u max(1, |log p|)) where cond(L) = 10, against 50 digits"),
    "value": Measure(
        8,
        8,
        "abs error/(d u max(1, |value|)) of other outputs, d all sizes together: of KL and of the binomial against\n"
        "50 digits, else against LAPACK and NumPy in float64",
    ),
    "ct/cond": Measure(10, 10, "relative error/(cond(A) u), against the complex step"),
    "ct": Measure(None, 1e-9, "relative error where cond(A) <= 1e5, against the complex step"),
    "gradient": Measure(
        100, 1e-9, "relative error, in float32 over d cond(L) u, where cond(L) = 10 and 1e3, against the complex step"
    ),
    "ulp": Measure(
        4, 4, "units in the last place, against 50 digits: of noise, and of m, v and param at each of Adam's 1000 steps"
    ),
    "bits": Measure(
        0,
        0,
        "entries that differ: value_and_vjp from the passes apart, unless it is these two; noise from known answers,\n"
        "and from its definition, unless that is what runs",
    ),
}


class Row(NamedTuple):
    """One measure of one pass; ``cases`` makes the problems for an element type, with their exact answers."""

    name: str
    measure: str
    cases: Callable[[str], Iterator[Case]]


def rows(sizes: tuple[int, ...] = SIZES) -> Iterator[Row]:
    """All rows, op by op; an op without measures of its own has those of what it gives."""
    for op in rp.OPS.values():
        for kind, measure, make in [*_forward(op), *_reverse(op)]:
            yield Row(op.name + kind, measure, partial(make, op, sizes))


Make = Callable[[Op, tuple[int, ...], str], Iterator[Case]]
Made = Iterator[tuple[str, str, Make]]  # the kind of pass, the measure, and what makes its problems
_OWN: dict[str, dict[str, Make]] = {
    "cholesky_ex": {"residual": own_cases.of_cholesky, "info": own_cases.of_info},
    "tril_solve": {"residual": own_cases.of_solve},
    "adam_step": {"ulp": own_cases.of_adam},
    "bits": {"bits": own_cases.of_words},
    "normal": {"bits": own_cases.of_noise, "ulp": own_cases.of_noise_in_ulps},
}


def _forward(op: Op) -> Made:
    names = [o.name for o in op.outputs]
    if op.name in _OWN:
        yield from (("", measure, make) for measure, make in _OWN[op.name].items())
    elif "log_weights" in names:
        yield "", "value", cases.of_values
        yield "", "gradient", cases.of_elbo
    elif op.name.startswith("normal_") and set(names) <= {"value", "log_prob"}:
        yield from (("", "residual", cases.of_transform) for name in names if name == "value")
        yield from (("", "log p", cases.of_log_prob) for name in names if name == "log_prob")
    else:
        yield "", "value", cases.of_values


def _reverse(op: Op) -> Made:
    if op.vjp is None:
        return
    if op.name == "cholesky_ex":
        yield ".vjp", "ct/cond", own_cases.of_cholesky_vjp
        yield ".vjp", "ct", own_cases.of_cholesky_vjp_at_moderate_condition
    else:
        yield ".vjp", "gradient", cases.of_vjp
    yield ".value_and_vjp", "bits", cases.of_value_and_vjp
