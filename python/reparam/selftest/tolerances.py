# SPDX-License-Identifier: MIT
"""The one table of tolerances, for the tests and the checks on a GPU: ``c(d) * unit roundoff * condition``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._op import Op
from .problems import UNIT, extents_of

Array = np.ndarray[Any, Any]


def limit(op: Op, d: int, dtype: str, condition_of_event: Any) -> Any:
    """``c(d) u condition``, c(d) = 8 (1 + sum of extents)."""
    return 8 * (1 + sum(extents_of(op, d).values())) * UNIT[dtype] * condition_of_event


def largest_entry(arrays: Sequence[Array]) -> Array:
    """By event: the largest absolute number, at least 1."""
    number = np.ones(len(arrays[0]))
    for array in arrays:
        number = np.maximum(number, np.abs(array).reshape(len(array), -1).max(axis=1, initial=0))
    return number


def condition(op: Op, inputs: Sequence[Array]) -> Array:
    """By event: condition of its matrices times the size of its numbers."""
    number = largest_entry([x for o, x in zip(op.inputs, inputs, strict=True) if o.item == "real"])
    for operand, array in zip(op.inputs, inputs, strict=True):
        if operand.kind in {"tril", "sym"} and array.shape[-1]:
            matrix = np.tril(array) if operand.kind == "tril" else array
            number = (
                number * np.linalg.norm(matrix, axis=(-2, -1)) * np.linalg.norm(np.linalg.inv(matrix), axis=(-2, -1))
            )
    return number


def condition_of_problem(op: Op, inputs: Sequence[Array], attributes: dict[str, Any], expected: Sequence[Array]) -> Any:
    """By event and estimator: exp(log w) has the relative error that log w, the first output, has absolutely."""
    number = condition(op, inputs)
    if attributes.get("estimator") in {"iwae", "dreg"}:
        number = number * largest_entry(expected[:1])
    return number


def event_error(actual: Array, expected: Array) -> Array:
    """By event: largest error, relative to the largest entry (or to 1, where all are small)."""
    axes = tuple(range(1, expected.ndim))
    error, size = np.abs(actual.astype(np.float64) - expected), np.abs(expected)
    if expected.size and axes:
        error, size = error.max(axis=axes), size.max(axis=axes)
    return error / np.maximum(1, size) if expected.size else np.zeros(len(expected))
