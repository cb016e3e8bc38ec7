# SPDX-License-Identifier: MIT
"""Loops over 64 events at a time for Numba, where they outrun the compiled definition."""

from __future__ import annotations

from typing import Any

import numpy as np

LANES = 64


def cholesky_ex(a: Any, scale_tril: Any, info: Any) -> None:
    """Lower Cholesky factors of ``a[B, d, d]``: the operations of the definition in their order, so its bits."""
    work = np.zeros((*a.shape[1:], LANES), a.dtype)
    for first in range(0, a.shape[0], LANES):
        events = min(LANES, a.shape[0] - first)
        failed = info[first : first + events]
        _pack(a[first : first + events], work)
        _factor(work, failed)
        _unpack(work, failed, scale_tril[first : first + events])


def _pack(a: Any, work: Any) -> None:
    for lane in range(a.shape[0]):
        event = a[lane]
        for i in range(a.shape[1]):
            for j in range(i + 1):
                work[i, j, lane] = event[i, j]


def _factor(work: Any, failed: Any) -> None:
    """In place, column by column; ``failed`` is info."""
    failed[:] = 0
    for j in range(work.shape[0]):
        pivot = work[j, j]
        for i in range(j, work.shape[0]):
            total = work[i, j]
            for k in range(j):
                left, right = work[i, k], work[j, k]
                for lane in range(LANES):
                    total[lane] -= left[lane] * right[lane]
            if i == j:
                for lane in range(failed.shape[0]):
                    if failed[lane] == 0 and not 0 < pivot[lane] < np.inf:
                        failed[lane] = j + 1
                for lane in range(LANES):
                    pivot[lane] = np.sqrt(pivot[lane])
            else:
                for lane in range(LANES):
                    total[lane] /= pivot[lane]


def _unpack(work: Any, failed: Any, scale_tril: Any) -> None:
    for lane in range(failed.shape[0]):
        event = scale_tril[lane]
        for i in range(event.shape[0]):
            for j in range(i + 1):
                event[i, j] = work[i, j, lane] if failed[lane] == 0 else np.nan
            for j in range(i + 1, event.shape[0]):
                event[i, j] = 0
