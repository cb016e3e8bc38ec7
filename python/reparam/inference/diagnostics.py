# SPDX-License-Identifier: MIT
"""How far an approximate posterior can be trusted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_cupy, move, to_numpy
from .._check import as_float_array

__all__ = ["psis_khat"]

Array = NDArray[Any]
FEWEST = 5  # of a tail that is fitted
PRIOR_B, PRIOR_K, PRIOR_K_MEAN = 3, 10, 0.5  # Zhang and Stephens' prior of b; of k, in draws (arXiv 1507.02646, app. C)


def psis_khat(log_weights: Any) -> Any:
    """Shape k of the generalized Pareto distribution of the largest importance weights: the k-hat of PSIS.

    Below 0.5 the weights have a finite variance; up to ``min(1 - 1/log10(S), 0.7)`` importance sampling from q is
    reliable with these S draws; above 0.7 q misses much of the posterior.

    Parameters
    ----------
    log_weights : array, shape (S, ...)
        ``log p(x, z_s) - log q(z_s)``, up to a constant; the first axis is that of the draws.

    Returns
    -------
    array, shape (...)
        By problem. ``inf`` where fewer than five draws stand above the cutoff (S <= 20, or nearly all weight on few
        draws), ``-inf`` where all log weights are equal to half the digits (q is the posterior), NaN where a log weight
        is NaN or ``+inf``, or all are ``-inf``.

    Raises
    ------
    TypeError, ValueError
        If ``log_weights`` is not an array of float32 or float64 with at least one draw.

    Notes
    -----
    As in ArviZ: the tail is the ``ceil(min(S/5, 3 sqrt(S)))`` largest weights, as excesses over the next one, fitted by
    the estimator of Zhang and Stephens (Technometrics 51, 2009), shrunk to 0.5 with the weight of ten draws (Vehtari,
    Simpson, Gelman, Yao and Gabry, arXiv 1507.02646). ArviZ has ``inf`` for equal weights too.
    """
    given = as_float_array("psis_khat: log_weights", log_weights)
    if given.ndim < 1 or len(given) < 1:
        raise ValueError(f"psis_khat: log_weights must have shape (S, ...) with S >= 1, got {given.shape}")
    khat = _psis_khat(to_numpy(given))  # a fit of a few numbers a problem, by loops of the host
    return move(khat, given) if is_cupy(given) else khat


def _psis_khat(given: Array) -> Any:
    draws, shape = len(given), given.shape[1:]
    values = given.astype(np.float64).reshape(draws, math.prod(shape)).T
    most = values.max(axis=1)
    bad = ~np.isfinite(most)  # a NaN is the maximum
    alike = np.sqrt(np.finfo(given.dtype).eps) * np.maximum(1, np.abs(most))
    with np.errstate(invalid="ignore"):
        equal = most - values.min(axis=1) <= alike
        values = np.where(bad[:, None], 0, values - most[:, None])
    largest = min(math.ceil(min(draws / 5, 3 * math.sqrt(draws))), draws - 1)
    ordered = np.sort(values, axis=1)[:, draws - largest - 1 :]
    cutoff = np.maximum(ordered[:, :1], math.log(np.finfo(np.float64).tiny))
    excesses = np.exp(np.maximum(ordered[:, 1:], cutoff)) - np.exp(cutoff)
    enough = (excesses > 0).sum(axis=1) >= FEWEST
    khat = np.full(len(values), np.inf)
    if enough.any():
        khat[enough] = _pareto_shape(excesses[enough])
    khat[equal & (largest >= FEWEST)] = -np.inf
    khat[bad] = np.nan
    return khat.astype(given.dtype).reshape(shape)[()]


def _pareto_shape(excesses: Array) -> Array:
    """Fit each row, which is in ascending order; what is 0 does not belong to it, and adds log1p(0) = 0 to its sums."""
    count = (excesses > 0).sum(axis=1)
    rows, width = np.arange(len(count)), excesses.shape[1]
    quartile = excesses[rows, width - count + (count / 4 + 0.5).astype(int) - 1]
    candidates = (30 + np.sqrt(count).astype(int))[:, None]
    j = np.arange(1, candidates.max() + 1)
    b = (1 - np.sqrt(candidates / (j - 0.5))) / (PRIOR_B * quartile[:, None]) + 1 / excesses[:, -1:]
    b = np.where(j <= candidates, b, b[:, :1])
    k = np.empty_like(b)
    for column in range(len(j)):  # a loop over the candidates, so that memory stays that of the draws
        k[:, column] = np.log1p(-b[:, column, None] * excesses).sum(axis=1) / count
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = count[:, None] * (np.log(-b / k) - k - 1)
    profile = np.where((j <= candidates) & ~np.isnan(profile), profile, -np.inf)
    weights = np.exp(profile - profile.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    weights = np.where(weights >= 10 * np.finfo(np.float64).eps, weights, 0)
    best = (b * weights).sum(axis=1) / weights.sum(axis=1)
    shape: Array = np.log1p(-best[:, None] * excesses).sum(axis=1)
    shrunk: Array = (shape + PRIOR_K * PRIOR_K_MEAN) / (count + PRIOR_K)
    return shrunk
