# SPDX-License-Identifier: MIT
"""Rows of standard normals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import rivals
from .row import DTYPES, NO_LIMIT, Contestant, Row, items, ratio

COUNT = 1_000_000
TRUSTED = 4096  # normals from which the spread of the moments is read, at least


def ours(like: np.ndarray) -> Callable[[], Any]:
    keys = itertools.count()
    return lambda: rp.random.normal(like.shape, key=next(keys), like=like)


def numpy_normal(like: np.ndarray) -> Callable[[], Any]:
    rng, out = np.random.default_rng(1), np.empty_like(like)
    return lambda: rng.standard_normal(out=out, dtype=out.dtype)


def torch_normal(like: np.ndarray) -> Callable[[], Any]:
    (out,) = rivals.tensors([like.copy()])
    return lambda: out.normal_()


def jax_normal(like: np.ndarray) -> Callable[[], Any]:
    import jax

    shape, dtype, seeds = like.shape, like.dtype, itertools.count()
    compiled = jax.jit(lambda seed: jax.random.normal(jax.random.key(seed), shape, dtype))
    return lambda: jax.block_until_ready(compiled(next(seeds)))


def moments(result: Any) -> tuple[np.ndarray, ...]:
    """The first four powers of each number, and its product with its neighbour."""
    x = np.asarray(result).astype(np.float64)
    return (np.stack([x, x**2, x**3, x**4, x * np.roll(x, 1)], axis=-1),)


def expected_moments(like: np.ndarray) -> Any:
    """Their expectations, and moments of trusted normals."""
    x = np.random.default_rng(2).standard_normal(max(len(like), TRUSTED))[: max(1, TRUSTED // len(like)) * len(like)]
    samples = [moments(part) for part in x.reshape(-1, len(like))]
    return (np.tile([0.0, 1.0, 0.0, 3.0, 0.0], (len(like), 1)),), samples


def normals(dtype: str, limit: int) -> Row:
    batch = min(COUNT, limit)
    builds = {"reparam": ours, "numpy": numpy_normal, "torch": torch_normal, "jax": jax_normal}
    return Row(
        op="normals",
        size=f"B={COUNT}",
        dtype=dtype,
        regime="-",
        batch=batch,
        make=lambda rng: (np.zeros(batch, dtype),),
        contestants=tuple(
            Contestant(name, "ours" if name == "reparam" else "library", build, moments)
            for name, build in builds.items()
        ),
        bytes=batch * items(dtype),
        targets=ratio({"float32": 5, "float64": 4}[dtype]),
        check="random",
        reference=expected_moments,
        quick=True,
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` numbers each."""
    return [normals(dtype, limit) for dtype in DTYPES]
