# SPDX-License-Identifier: MIT
"""The machine's limits, measured in the same run with one thread and with all: FMA rate, and bandwidth three ways.

Each bandwidth from memory and, "cached", of the working set that rows of regime R have.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .._backends import native
from . import libraries, machine
from .row import CACHED_BYTES, DTYPES

ROUNDS = 20
FMA_ROUNDS = 2_000_000
GEMM = 1024
CACHED_REPEATS = 8  # of work so short that starting the threads would count

Roofs = dict[str, dict[str, float]]


def measure() -> Roofs:
    """``{"fma float32": {"1": FLOP/s, "all": ...}, "copy": {"1": bytes/s, ...}, "copy cached": ..., "update": ...}``.

    A copy reads one array and writes another, an update reads and writes the same, a read only reads.
    """
    found: Roofs = {f"fma {dtype}": {} for dtype in DTYPES}
    for label, n in {"1": 1, "all": machine.all_threads()}.items():
        libraries.set_threads(1)
        for dtype in DTYPES:
            found[f"fma {dtype}"][label] = _fma(dtype, n)
        for name, rate in _bandwidths(8 * machine.cache_bytes(), 1, n).items():
            found.setdefault(name, {})[label] = rate
        for name, rate in _bandwidths(CACHED_BYTES, CACHED_REPEATS, n).items():
            found.setdefault(f"{name} cached", {})[label] = rate
    libraries.restore_threads()
    for rates in found.values():  # a neighbour on one of the CPUs is no limit of the machine
        rates["all"] = max(rates.values())
    return found


def _bandwidths(size: int, repeats: int, n: int) -> dict[str, float]:
    """Bytes a second that n threads move in a working set of this many bytes, each thread its own part."""
    whole = np.ones(size // 8 // (2 * n) * (2 * n))
    parts = [whole[k * whole.size // n : (k + 1) * whole.size // n] for k in range(n)]
    halves = [(part[: part.size // 2], part[part.size // 2 :]) for part in parts]

    def copy(k: int) -> None:
        for _ in range(repeats):
            np.copyto(halves[k][1], halves[k][0])

    def update(k: int) -> None:
        for _ in range(repeats):
            np.negative(parts[k], out=parts[k])

    def read(k: int) -> None:
        for _ in range(repeats):
            np.dot(parts[k], parts[k])

    moved = repeats * whole.nbytes
    return {"copy": moved / _best(copy, n), "update": 2 * moved / _best(update, n), "read": moved / _best(read, n)}


def _fma(dtype: str, n: int) -> float:
    """Of a loop of independent multiply-adds in registers; of a matrix product where the kernels are not native."""
    loop: Any = getattr(native._core, "fma_loop", None)
    if loop is not None and machine.isa():
        flops = [0.0] * n

        def work(k: int) -> None:
            flops[k] = loop(machine.isa(), dtype, FMA_ROUNDS)

        seconds = _best(work, n)
        return sum(flops) / seconds
    libraries.set_threads(n)
    a = np.ones((GEMM, GEMM), dtype)
    out = np.empty_like(a)
    return 2 * GEMM**3 / _best(lambda k: np.matmul(a, a, out=out), 1)


def _best(work: Callable[[int], Any], n: int) -> float:
    """Least seconds for ``work(0) ... work(n - 1)`` on as many threads at once, started together."""
    return min(_once(work, n) for _ in range(ROUNDS))


def _once(work: Callable[[int], Any], n: int) -> float:
    start = threading.Barrier(n + 1)

    def body(k: int) -> None:
        start.wait()
        work(k)

    others = [threading.Thread(target=body, args=(k,)) for k in range(n)]
    for thread in others:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    for thread in others:
        thread.join()
    return time.perf_counter() - begin
