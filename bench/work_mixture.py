# SPDX-License-Identifier: MIT
"""Rows of expectation-maximization: five iterations of a Gaussian mixture from a given start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from .row import NO_LIMIT, Contestant, Row, ratio

ITERATIONS = 5
#: (rows, features, components, target against scikit-learn)
SIZES = [(100_000, 8, 8, None), (100_000, 16, 16, 6.0), (20_000, 64, 16, None)]
FITTED = ("weights_", "means_", "covariances_", "lower_bounds_")
Problem = tuple[np.ndarray, np.ndarray]


def fit(mixture: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A whole fit: the checks of the data and, of ours, the whitening are in it."""

    def build(x: np.ndarray, means: np.ndarray) -> Callable[[], Any]:
        k, d = means.shape
        model = mixture()(
            k, tol=0, max_iter=ITERATIONS, reg_covar=1e-3, weights_init=np.full(k, 1 / k), means_init=means,
            precisions_init=np.tile(np.eye(d), (k, 1, 1)),
        )  # fmt: skip

        def run() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that five iterations are not enough
                return model.fit(x)

        return run

    return build


def sklearn_mixture() -> Any:
    from sklearn.mixture import GaussianMixture

    return GaussianMixture


def parameters(model: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(getattr(model, name)) for name in FITTED)


def mixture(size: tuple[int, int, int, float | None], limit: int) -> Row:
    nominal, d, k, target = size
    n = min(nominal, max(limit, 2 * d * k))  # fewer rows would leave a component without a mean to agree on

    def make(rng: np.random.Generator) -> Problem:
        means = 3 * rng.standard_normal((k, d))
        x = means[np.arange(n) % k] + rng.standard_normal((n, d))
        return x, means + 0.3 * rng.standard_normal((k, d))

    features = (d + 1) * (d + 2) // 2
    return Row(
        op="gmm-em",
        size=f"n={nominal} d={d} K={k}",
        dtype="float64",
        regime="-",
        batch=n,
        make=make,
        contestants=(
            Contestant("reparam", "ours", fit(lambda: rp.GaussianMixture), parameters, blas=True),
            Contestant("sklearn", "library", fit(sklearn_mixture), parameters),
        ),
        flops=ITERATIONS * n * features * (4 * k + 1),
        bytes=ITERATIONS * n * d * 8,
        roof="fma",
        targets=ratio(target) if target else (),
        condition=1e4,
        quick=d == 8,
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` rows of data each, but enough for every component."""
    return [mixture(size, limit) for size in SIZES]
