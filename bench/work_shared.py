# SPDX-License-Identifier: MIT
"""Rows of many values with one factor, or with each of a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import components, rivals
from .row import DTYPES, NO_LIMIT, Contestant, Row, factors, items, recycled
from .work_density import by_hand, torch_distribution, with_ones

COMPONENTS = 16
VALUES = 20_000


def shared_inputs(batch: int, d: int, dtype: str) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """Many values, one loc and factor."""

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        value = rng.standard_normal((batch, d), dtype=dtype)
        return value, rng.standard_normal(d, dtype=dtype), factors(rng, 1, d, dtype)[0]

    return make


def scipy_density(value: np.ndarray, loc: np.ndarray, factor: np.ndarray) -> Callable[[], Any]:
    """As users write it; in float64, whatever comes."""
    import scipy.stats

    frozen = scipy.stats.multivariate_normal(loc, factor.astype(np.float64) @ factor.T)
    return lambda: frozen.logpdf(value)


def sklearn_density(value: np.ndarray, loc: np.ndarray, factor: np.ndarray) -> Callable[[], Any]:
    """The E-step of a mixture of one, as scikit-learn computes it."""
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(1)
    mixture.weights_, mixture.means_ = np.ones(1, value.dtype), loc[None]
    mixture.precisions_cholesky_ = np.linalg.inv(factor).T[None]
    mixture.covariances_ = (factor @ factor.T)[None]
    return lambda: mixture.score_samples(value)


LIBRARIES = (Contestant("scipy", "library", scipy_density), Contestant("sklearn", "library", sklearn_density))


def shared(op: str, d: int, batch: int, dtype: str, limit: int) -> Row:
    """A row with one factor for all values."""
    nominal, batch = batch, min(batch, limit)
    numbers, flops, ours, formula = {
        "log_prob": (d + 1, d * d, recycled(rp.normal_tril_log_prob), "log_prob"),
        "log_prob+vjp": (2 * d + 1, 3 * d * d, with_ones(rp.normal_tril_log_prob), "log_prob_and_gradient"),
        "transform": (2 * d, d * d, recycled(rp.normal_tril_transform), "transform"),
        "transform_and_log_prob": (
            2 * d + 1, d * d, recycled(rp.normal_tril_transform_and_log_prob), "transform_and_log_prob",
        ),
    }[op]  # fmt: skip
    return Row(
        op=f"{op}-shared",
        size=f"d={d} B={nominal}",
        dtype=dtype,
        regime="-",
        batch=batch,
        make=shared_inputs(batch, d, dtype),
        contestants=(
            Contestant("reparam", "ours", ours),
            *by_hand(f"shared_{formula}"),
            *(LIBRARIES if op == "log_prob" else ()),
        ),
        flops=batch * flops,
        bytes=batch * numbers * items(dtype),
        roof="fma" if d >= 32 else "read" if op == "log_prob" else "copy",
        moves="read" if op == "log_prob" else "copy",
        condition=100.0,  # of sums over the batch
        quick=dtype == "float32" and d == 16 and nominal == 100_000,
    )


def component_inputs(batch: int, d: int, dtype: str) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """Values ``(n, 1, d)``, locs ``(K, d)`` and factors ``(K, d, d)``."""

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        value = rng.standard_normal((batch, 1, d), dtype=dtype)
        return value, rng.standard_normal((COMPONENTS, d), dtype=dtype), factors(rng, COMPONENTS, d, dtype)

    return make


def mixture(d: int, dtype: str, limit: int) -> Row:
    """The log density of each value under each component, as a mixture needs it."""
    batch = min(VALUES, limit)
    return Row(
        op="log_prob-components",
        size=f"d={d} K={COMPONENTS} B={VALUES}",
        dtype=dtype,
        regime="-",
        batch=batch,
        make=component_inputs(batch, d, dtype),
        contestants=(
            Contestant("reparam", "ours", recycled(rp.normal_tril_log_prob)),
            Contestant("torch", "library", rivals.torch_calls(torch_distribution)),
            Contestant("torch", "by hand", components.in_torch(components.one_by_one)),
            Contestant("torch", "at once", components.in_torch(components.at_once)),
            Contestant("jax", "by hand", rivals.jax_calls(components.compiled)),
            Contestant("numpy", "by hand", components.in_numpy(components.one_by_one)),
            Contestant("numpy", "at once", components.in_numpy(components.at_once)),
        ),
        flops=batch * COMPONENTS * d * d,
        bytes=batch * (d + COMPONENTS) * items(dtype),
        roof="fma",
        reference=components.reference,
        quick=dtype == "float32" and d == 16,
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` events each."""
    made = []
    for dtype in DTYPES:
        for op in ("transform", "transform_and_log_prob"):
            made.append(shared(op, 16, 100_000, dtype, limit))
        for op in ("log_prob", "log_prob+vjp"):
            made += [shared(op, d, batch, dtype, limit) for d, batch in ((8, 1_000_000), (16, 100_000), (64, 100_000))]
        made += [mixture(d, dtype, limit) for d in (8, 16)]
    return made
