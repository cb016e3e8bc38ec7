# SPDX-License-Identifier: MIT
"""What the checks on a GPU hold it against: sample problems, with the answers of the CPU in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import reparam as rp

from .._op import Op
from ..selftest import problems, tolerances
from .gpu_device import Report

NOISE = ("bits", "normal")  # numbers that must be equal to the bit
OPS = [op for op in rp.OPS.values() if op.name not in NOISE]
Arrays = list[Any]


class Problem(NamedTuple):
    """Inputs, cotangents and the answers of the CPU in float64, of both passes, with their conditions by event."""

    op: Op
    d: int
    attributes: dict[str, Any]
    inputs: list[np.ndarray]
    cotangents: list[np.ndarray]
    expected: dict[str, tuple[np.ndarray, ...]]
    condition: dict[str, np.ndarray]


def problem(op: Op, d: int, events: int, variant: int) -> Problem:
    """One of an op's sample problems; the variants of its attributes come in turn."""
    variants = problems.variants(op)
    attributes = variants[variant % len(variants)]
    rng = np.random.default_rng([d, variant])
    inputs = problems.sample_inputs(op, rng, (events,), d)
    cotangents = problems.sample_cotangents(op, rng, (events,), d)
    expected = {"forward": problems.forward(op, inputs, **attributes)}
    condition = {"forward": tolerances.condition_of_problem(op, inputs, attributes, expected["forward"])}
    if op.vjp is not None:
        expected["vjp"] = problems.vjp(op, inputs, cotangents, **attributes)
        condition["vjp"] = condition["forward"] * tolerances.largest_entry(cotangents)
    return Problem(op, d, attributes, inputs, cotangents, expected, condition)


def run(p: Problem, way: str, inputs: Arrays, cotangents: Arrays) -> tuple[Any, ...]:
    """One pass; the vjp of a Cholesky factor takes the factor that was made from the inputs."""
    if way == "forward":
        return problems.forward(p.op, inputs, **p.attributes)
    return problems.vjp(p.op, inputs, cotangents, **p.attributes)


def differences(p: Problem, way: str, dtype: str, found: tuple[np.ndarray, ...]) -> Iterator[str]:
    """What is wrong with the results of a pass, in words."""
    for k, (actual, exact) in enumerate(zip(found, p.expected[way], strict=True)):
        if actual.shape != exact.shape:
            yield f"result {k} has shape {actual.shape}, expected {exact.shape}"
            continue
        if exact.dtype.kind != "f":
            wrong = np.argwhere(actual != exact)
            if len(wrong):
                yield f"result {k} at {wrong[0].tolist()} is {actual[tuple(wrong[0])]}, not {exact[tuple(wrong[0])]}"
            continue
        error = tolerances.event_error(actual, exact)
        allowed = tolerances.limit(p.op, p.d, dtype, p.condition[way])
        bad = np.flatnonzero(~(error <= allowed))
        if len(bad):
            b = bad[0]
            yield f"result {k} of {len(bad)} events, first {b}: error {error[b]:.2g}, allowed {allowed[b]:.2g}"


def guarded(report: Report, name: str, check: Callable[[], Iterator[str]]) -> None:
    """Report what a check finds, or the error that ends it."""
    try:
        for text in check():
            report.fail(f"{name}: {text}")
    except Exception as error:
        report.fail(f"{name}: {type(error).__name__}: {error}")


def ways(op: Op) -> tuple[str, ...]:
    """The passes of an op."""
    return ("forward",) if op.vjp is None else ("forward", "vjp")


def sizes_of(op: Op, sizes: Sequence[int]) -> list[int]:
    """The sizes, of which an op of scalars has but one."""
    return list(sizes) if op.forward_pass.symbols else list(sizes)[:1]
