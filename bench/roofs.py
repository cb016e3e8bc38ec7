# SPDX-License-Identifier: MIT
"""The machine's limits, measured in the same run with one thread and with all: FMA rate, and bandwidth three ways."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .._backends import native
from . import libraries, machine
from .row import DTYPES

ROUNDS = 20
FMA_ROUNDS = 2_000_000
GEMM = 1024

Roofs = dict[str, dict[str, float]]


def measure() -> Roofs:
    """``{"fma float32": {"1": FLOP/s, "all": ...}, "copy": {"1": bytes/s, ...}, "update": ..., "read": ...}``.

    A copy reads one array and writes another, an update reads and writes the same.
    """
    found: Roofs = {f"fma {dtype}": {} for dtype in DTYPES}
    found |= {"copy": {}, "update": {}, "read": {}}
    source = np.ones(4 * machine.cache_bytes() // 8)
    target = np.zeros_like(source)
    for label, n in {"1": 1, "all": machine.all_threads()}.items():
        libraries.set_threads(1)
        for dtype in DTYPES:
            found[f"fma {dtype}"][label] = _fma(dtype, n)
        slices = [slice(k * source.size // n, (k + 1) * source.size // n) for k in range(n)]
        seconds = _best(lambda k: np.copyto(target[slices[k]], source[slices[k]]), n)  # noqa: B023
        found["copy"][label] = 2 * source.nbytes / seconds
        seconds = _best(lambda k: np.negative(source[slices[k]], out=source[slices[k]]), n)  # noqa: B023
        found["update"][label] = 2 * source.nbytes / seconds
        seconds = _best(lambda k: np.dot(source[slices[k]], source[slices[k]]), n)  # noqa: B023
        found["read"][label] = source.nbytes / seconds
    libraries.restore_threads()
    for rates in found.values():  # a neighbour on one of the CPUs is no limit of the machine
        rates["all"] = max(rates.values())
    return found


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
