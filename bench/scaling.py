# SPDX-License-Identifier: MIT
"""Time of ours against the batch, against d and against threads: where a cliff would show."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import reparam as rp

from . import machine
from .row import CACHED_BYTES, DTYPES, NO_LIMIT, factors, items

BATCHES = (
    1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 250, 255, 256, 257, 500, 511, 512, 513,
    1000, 1023, 1024, 1025, 2000, 4095, 4096, 4097, 8192, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
)  # fmt: skip
DIMS = (*range(1, 34), 36, 40, 44, 47, 48, 49, 56, 63, 64, 65, 72, 80, 96, 112, 127, 128)
ROUNDS = 7
LEAST_SECONDS = 0.0005
OBSERVED, DRAWS = 8, 4  # of the ELBO of a linear Gaussian model
SIZE_OF_BATCH_SWEEP, SIZES_OF_THREAD_SWEEP = 8, (4, 16, 64)
COPIES = 6  # of the factors, while a problem is made and run

Sweep = dict[str, list[float]]


def measure(*, quick: bool = False, limit: int = NO_LIMIT) -> dict[str, dict[str, Sweep]]:
    """``{"batch" | "d" | "threads": {curve: {"x": [...], "seconds": [...]}}}``; of ``d``, seconds of one event."""
    step = 3 if quick else 1
    batches, dims = _fitting([b for b in BATCHES[::step] if b <= limit]), DIMS[::step]
    found: dict[str, dict[str, Sweep]] = {"batch": {}, "d": {}, "threads": {}}
    for dtype in DTYPES:
        for name, make in WORK.items():
            seconds = [_least(make(batch, SIZE_OF_BATCH_SWEEP, dtype)) for batch in batches]
            found["batch"][f"{name} {dtype} d={SIZE_OF_BATCH_SWEEP}"] = _sweep(batches, seconds)
            sizes = [_cached(d, dtype, limit) for d in dims]
            seconds = [_least(make(batch, d, dtype)) / batch for batch, d in zip(sizes, dims, strict=True)]
            found["d"][f"{name} {dtype}"] = _sweep(dims, seconds)
    counts = range(1, machine.all_threads() + 1)
    for d in SIZES_OF_THREAD_SWEEP:
        for name, make in WORK.items():
            run = make(_cached(d, "float32", limit), d, "float32")
            found["threads"][f"{name} float32 d={d}"] = _sweep(counts, [_with_threads(n, run) for n in counts])
    rp.set_num_threads(None)
    return found


def _sweep(xs: Sequence[int], seconds: list[float]) -> Sweep:
    return {"x": [float(x) for x in xs], "seconds": seconds}


def _fitting(batches: list[int]) -> list[int]:
    """Those that half of the available memory holds."""
    most = machine.available_bytes() / 2 / (COPIES * items("float64") * SIZE_OF_BATCH_SWEEP**2)
    fitting = [batch for batch in batches if batch <= most]
    if fitting != batches:
        print(
            f"time against the batch: {batches[-1]} events and others skipped, they need more than half of the memory"
        )
    return fitting


def _cholesky(batch: int, d: int, dtype: str) -> Callable[[], Any]:
    factor = factors(np.random.default_rng(0), batch, d, dtype)
    a = factor @ factor.swapaxes(-1, -2)
    out = np.empty_like(a)
    return lambda: rp.cholesky(a, out=out)


def _log_prob(batch: int, d: int, dtype: str) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    value, loc = rng.standard_normal((2, batch, d), dtype=dtype)
    factor = factors(rng, batch, d, dtype)
    operands = (value, loc, factor, np.ones(batch, dtype))
    log_prob, cotangents = rp.normal_tril_log_prob.value_and_vjp(*operands)
    out = (log_prob, *cotangents)
    return lambda: rp.normal_tril_log_prob.value_and_vjp(*operands, out=out)


def _elbo(batch: int, d: int, dtype: str) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    loc, x = rng.standard_normal((batch, d), dtype=dtype), rng.standard_normal((batch, OBSERVED), dtype=dtype)
    weight, bias = rng.standard_normal((OBSERVED, d), dtype=dtype), np.zeros(OBSERVED, dtype)
    q = rp.MultivariateNormal(loc, scale_tril=factors(rng, batch, d, dtype))
    target = rp.targets.LinearGaussian(x, weight, bias, noise_scale=0.5)
    return lambda: rp.elbo(q, target, key=1, num_samples=DRAWS)


WORK = {"cholesky": _cholesky, "log_prob+vjp": _log_prob, "elbo": _elbo}


def _cached(d: int, dtype: str, limit: int) -> int:
    return min(max(CACHED_BYTES // (2 * d * d * items(dtype)), 8), 100_000, limit)


def _with_threads(n: int, run: Callable[[], Any]) -> float:
    rp.set_num_threads(n)
    return _least(run)


def _least(run: Callable[[], Any]) -> float:
    """Least seconds of a few rounds, short ones repeated; the second call is the first that is warm."""
    run()
    begin = time.perf_counter()
    run()
    repeats = max(1, min(1000, round(LEAST_SECONDS / max(time.perf_counter() - begin, 1e-9))))
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        best = min(best, (time.perf_counter() - begin) / repeats)
    return best
