# SPDX-License-Identifier: MIT
"""The definitions, with the whole batch as lanes on a trailing axis: slow, and what the others are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._op import Pass
from .._signature import Operand

Array = NDArray[Any]
BLOCK, PARTIAL = 64, 8


def to_lanes(array: Array, operand: Operand, batch_shape: tuple[int, ...]) -> Array:
    """``batch_shape + event_shape`` to ``event_shape + (B,)``."""
    events = array.shape[array.ndim - operand.event_rank :]
    full = np.broadcast_to(array, batch_shape + events)
    return np.moveaxis(
        full.reshape(-1, *events) if full.size else np.empty((_size(batch_shape), *events), array.dtype), 0, -1
    )


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def summed_dims(shape: tuple[int, ...], batch_shape: tuple[int, ...], event_rank: int) -> tuple[int, ...]:
    """Batch dims that an output of this shape is summed over."""
    own = (1,) * (len(batch_shape) + event_rank - len(shape)) + shape
    return tuple(k for k, n in enumerate(batch_shape) if own[k] == 1 and n != 1)


class FixedOrderSum:
    """A sum over the first dim of terms that come a few at a time, in the one fixed order.

    Blocks of 64 consecutive terms; in a block term t goes to partial sum t mod 8, these are joined as a balanced tree;
    blocks are added in order in float64.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self._total = np.zeros(shape, np.result_type(dtype, np.float64))
        self._rest = np.empty((0, *shape), dtype)  # terms of a block that has begun

    def add(self, terms: Array) -> None:
        """Take the next terms."""
        if len(self._rest):
            terms = np.concatenate([self._rest, terms])
        blocks = len(terms) // BLOCK
        if blocks:
            grid = terms[: blocks * BLOCK].reshape(blocks, BLOCK // PARTIAL, PARTIAL, *terms.shape[1:])
            partial = grid[:, 0]
            for row in range(1, BLOCK // PARTIAL):
                partial = partial + grid[:, row]
            self._join(partial)
        self._rest = terms[blocks * BLOCK :].copy()

    def _join(self, s: Array) -> None:
        """Add blocks of eight partial sums."""
        joined = ((s[:, 0] + s[:, 4]) + (s[:, 2] + s[:, 6])) + ((s[:, 1] + s[:, 5]) + (s[:, 3] + s[:, 7]))
        self._total = np.cumsum(np.concatenate([self._total[None], joined]), axis=0)[-1]

    def total(self) -> Array:
        """The sum of all terms, of which there come no more."""
        partial = np.zeros((1, PARTIAL, *self._rest.shape[1:]), self._rest.dtype)
        for first in range(0, len(self._rest), PARTIAL):
            row = self._rest[first : first + PARTIAL]
            partial[0, : len(row)] += row
        self._join(partial)
        return self._total.astype(self._rest.dtype)


def sum_to_shape(full: Array, target_shape: tuple[int, ...], event_rank: int) -> Array:
    """Sum over broadcast batch dims in the one fixed order."""
    summed = summed_dims(target_shape, full.shape[: full.ndim - event_rank], event_rank)
    if not summed:
        return full.reshape(target_shape)
    kept = [k for k in range(full.ndim) if k not in summed]
    shape = tuple(full.shape[k] for k in kept)
    made = FixedOrderSum(shape, full.dtype)
    made.add(np.transpose(full, (*summed, *kept)).reshape(_size(tuple(full.shape[k] for k in summed)), *shape))
    return made.total().reshape(target_shape)


def run(
    p: Pass,
    real: np.dtype[Any],
    shape: tuple[tuple[int, ...], dict[str, int]],
    inputs: list[Array],
    outputs: list[Array | None],
    attributes: tuple[float, ...],
) -> None:
    """Run one pass on arrays of shape ``batch + event`` and fill ``outputs``; None is one that is not wanted."""
    batch_shape, extents = shape
    lanes = _size(batch_shape)
    packed = []
    for operand, array in zip(p.inputs, inputs, strict=True):
        lane = to_lanes(array, operand, batch_shape)
        packed.append(np.array(lane) if operand.in_place else np.ascontiguousarray(lane))
    results = []
    for operand in p.outputs:
        dtype = real if operand.item == "real" else np.dtype(operand.item)
        results.append(np.zeros((*(operand.event_shape(extents) or (1,)), lanes), dtype))
    with np.errstate(all="ignore"):
        p.body(*packed, *attributes, *results)
        for operand, target, result in zip(p.outputs, outputs, results, strict=True):
            if target is None:
                continue
            events = target.shape[target.ndim - operand.event_rank :]
            full = np.moveaxis(result, -1, 0).reshape(batch_shape + events)
            target[...] = sum_to_shape(full, target.shape, operand.event_rank)
    for operand, array, lane in zip(p.inputs, inputs, packed, strict=True):
        if operand.in_place:
            array[...] = lane.reshape(batch_shape)
