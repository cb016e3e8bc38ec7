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


def sum_to_shape(full: Array, target_shape: tuple[int, ...], event_rank: int) -> Array:
    """Sum over broadcast batch dims in the one fixed order.

    Blocks of 64 consecutive terms; in a block term t goes to partial sum t mod 8, these are joined as a balanced tree;
    blocks are added in order in float64.
    """
    batch_rank = full.ndim - event_rank
    own = (1,) * (full.ndim - len(target_shape)) + target_shape
    reduced = [k for k in range(batch_rank) if own[k] == 1 and full.shape[k] != 1]
    if not reduced:
        return full.reshape(target_shape)
    kept = [k for k in range(full.ndim) if k not in reduced]
    terms = np.transpose(full, (*reduced, *kept)).reshape(-1, *(full.shape[k] for k in kept))
    blocks = -(-len(terms) // BLOCK)
    padded = np.zeros((blocks * BLOCK, *terms.shape[1:]), full.dtype)
    padded[: len(terms)] = terms
    grid = padded.reshape(blocks, BLOCK // PARTIAL, PARTIAL, *terms.shape[1:])
    s = grid[:, 0]
    for row in range(1, BLOCK // PARTIAL):
        s = s + grid[:, row]
    joined = ((s[:, 0] + s[:, 4]) + (s[:, 2] + s[:, 6])) + ((s[:, 1] + s[:, 5]) + (s[:, 3] + s[:, 7]))
    total = np.zeros(terms.shape[1:], np.result_type(full.dtype, np.float64))
    for block in joined:
        total = total + block
    return total.astype(full.dtype).reshape(target_shape)


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
