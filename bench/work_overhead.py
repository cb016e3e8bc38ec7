# SPDX-License-Identifier: MIT
"""Rows of one call on a tiny batch, where the call costs more than the work: the target is absolute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import in_place, rivals
from .row import NO_LIMIT, Contestant, Row, Target, covariances, factors, recycled
from .work_cholesky import torch_cholesky

CALL_SECONDS = 3e-6


def cholesky_call(batch: int, d: int) -> Row:
    return Row(
        op="call-cholesky",
        size=f"d={d} B={batch}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=lambda rng: (covariances(rng, batch, d, "float32"),),
        contestants=(
            Contestant("reparam", "ours", recycled(rp.cholesky), scales=False),
            Contestant("numpy", "library", rivals.numpy_calls(np.linalg.cholesky), scales=False),
            Contestant("torch", "library", torch_cholesky, scales=False),
        ),
        targets=(Target("seconds", CALL_SECONDS),),
        quick=batch == 1 and d == 4,
    )


def log_prob_call(batch: int, d: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        value, loc = rng.standard_normal((2, batch, d), dtype="float32")
        return value, loc, factors(rng, batch, d, "float32")

    return Row(
        op="call-log_prob",
        size=f"d={d} B={batch}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=make,
        contestants=(
            Contestant("reparam", "ours", recycled(rp.normal_tril_log_prob), scales=False),
            Contestant("torch", "by hand", in_place.in_torch(in_place.log_prob), scales=False),
        ),
        targets=(Target("seconds", CALL_SECONDS),),
        quick=batch == 1 and d == 4,
    )


def addition_call(batch: int, d: int) -> Row:
    """Ours beside the least that NumPy's own machinery costs: ``a + b`` on arrays of as many numbers."""

    def build_ours(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> Callable[[], Any]:
        out = rp.normal_diag_transform(a, b, scale)
        return lambda: rp.normal_diag_transform(a, b, scale, out=out)

    def build_numpy(a: np.ndarray, b: np.ndarray, _: np.ndarray) -> Callable[[], Any]:
        out = a + b
        return lambda: np.add(a, b, out=out)

    return Row(
        op="call-addition",
        size=f"d={d} B={batch}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=lambda rng: (*rng.standard_normal((2, batch, d), dtype="float32"), np.ones((batch, d), "float32")),
        contestants=(
            Contestant("reparam", "ours", build_ours, scales=False),
            Contestant("numpy", "a + b", build_numpy, scales=False),
        ),
        counts=False,
        targets=(Target("seconds", CALL_SECONDS),),
        quick=batch == 1 and d == 4,
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module; they are small as they stand, whatever the limit."""
    return [
        kind(batch, d) for kind in (cholesky_call, log_prob_call, addition_call) for batch in (1, 32) for d in (4, 8)
    ]
