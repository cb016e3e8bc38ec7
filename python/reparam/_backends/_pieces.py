# SPDX-License-Identifier: MIT
"""A batch piece by piece: no sum needs its terms in memory all at once, and Ctrl-C is heard between pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._op import Pass
from .._signature import Operand
from .reference import FixedOrderSum, summed_dims

__all__ = ["Place", "by_summed_dims", "in_order", "part", "pieces"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Piece = tuple[slice, ...]


def pieces(batch_shape: Shape, most: int) -> Iterator[Piece]:
    """Parts of a batch of at most so many events, in order, as slices of its leading dims."""
    events = math.prod(batch_shape)
    if events <= most:
        if events:
            yield ()
        return
    inner = events // batch_shape[0]
    step = max(1, most // inner)
    for first in range(0, batch_shape[0], step):
        for rest in pieces(batch_shape[1:], most) if inner > most else ((),):
            yield (slice(first, min(first + step, batch_shape[0])), *rest)


def part(x: Array, operand: Operand, piece: Piece, batch_rank: int) -> Array:
    """What an operand holds for a piece of the batch; its own dims of 1 are broadcast."""
    if not piece:
        return x
    own = piece[batch_rank - (x.ndim - operand.event_rank) :]
    index = tuple(s if n != 1 else slice(None) for s, n in zip(own, x.shape, strict=False))
    found: Array = x[index]
    return found


def in_order(x: Array, operand: Operand, order: Shape) -> Array:
    """An operand whose batch dims are taken in this order."""
    if order == tuple(range(len(order))):
        return x
    rank = len(order) + operand.event_rank
    return x.reshape((1,) * (rank - x.ndim) + x.shape).transpose(*order, *range(len(order), rank))


def by_summed_dims(p: Pass, outputs: list[Array | None], batch_shape: Shape) -> dict[Shape, list[Array | None]]:
    """The outputs of each run over the batch: those summed over the same dims, whose terms then come in order.

    Those that are not summed go along with the first run.
    """
    runs: dict[Shape, list[Array | None]] = {}
    dims = [
        () if x is None else summed_dims(x.shape, batch_shape, o.event_rank)
        for o, x in zip(p.outputs, outputs, strict=True)
    ]
    for summed in dict.fromkeys(filter(None, dims)) or [()]:
        with_these = {summed} if runs else {summed, ()}
        runs[summed] = [x if found in with_these else None for found, x in zip(dims, outputs, strict=True)]
    return runs


class Place:
    """Where a kernel writes an output: into the target, or beside it, where it is summed or lies apart.

    The batch is its shape, with the summed dims last as in the target, and their number; the kind is the shape of an
    event, its element type, and whether the kernel leaves entries to be zero.
    """

    def __init__(
        self,
        operand: Operand,
        target: Array | None,
        batch: tuple[Shape, int],
        kind: tuple[Shape, np.dtype[Any], bool],
    ) -> None:
        batch_shape, summed = batch
        self._operand, self._target, self._batch_shape = operand, target, batch_shape
        self._kept = len(batch_shape) - summed
        self._event_shape, self._dtype, self._zeroed = kind
        self._is_sum = target is not None and bool(summed_dims(target.shape, batch_shape, operand.event_rank))
        self._beside: Array | None = None
        self._sum: FixedOrderSum | None = None
        if target is not None and 0 in batch_shape:
            target[...] = 0

    def _part(self, piece: Piece) -> Array | None:
        return None if self._target is None else part(self._target, self._operand, piece, len(self._batch_shape))

    def array(self, piece: Piece) -> Array:
        """An array for the kernel to fill."""
        found = None if self._is_sum else self._part(piece)
        if found is not None and found.flags.c_contiguous and found.flags.aligned:
            if self._zeroed:
                found.fill(0)
            return found
        shape = (*(s.stop - s.start for s in piece), *self._batch_shape[len(piece) :], *self._event_shape)
        if self._beside is None or self._beside.shape != shape:
            self._beside = np.zeros(shape, self._dtype) if self._zeroed else np.empty(shape, self._dtype)
        return self._beside

    def take(self, piece: Piece, filled: Array) -> None:
        """What the kernel has written, if it is not yet where it belongs."""
        target = self._part(piece)
        if target is None or filled is not self._beside:
            return
        if not self._is_sum:
            target[...] = filled
            return
        rank = len(self._batch_shape)
        order = (*range(self._kept, rank), *range(self._kept), *range(rank, filled.ndim))
        shape = filled.shape[: self._kept] + filled.shape[rank:]
        if self._sum is None:
            self._sum = FixedOrderSum(shape, filled.dtype)
        self._sum.add(filled.transpose(order).reshape(math.prod(filled.shape[self._kept : rank]), *shape))
        if all(s.stop == n for s, n in zip(piece[self._kept :], self._batch_shape[self._kept :], strict=False)):
            target[...] = self._sum.total().reshape(target.shape)
            self._sum = None
