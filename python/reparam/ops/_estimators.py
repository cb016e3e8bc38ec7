# SPDX-License-Identifier: MIT
"""The estimators of the ELBO and its gradient, for one event: formulas and sources stand in csrc/ops/elbo_sums.hpp."""

from __future__ import annotations

import numpy as np

from .._op import select
from .normal_tril import HALF_LOG_2PI, log_det, square_norm
from .tril import diagonal_of, solve_lower_transposed

ESTIMATORS = ("pathwise", "stl", "iwae", "dreg")
PATHWISE, STL, IWAE, DREG = range(4)
BLOCK = 64


def is_importance(estimator):
    """Whether draws are weighted by softmax(log w)."""
    return estimator in (IWAE, DREG)


def is_path_only(estimator):
    """Whether the gradient goes through z alone and leaves out the score of q."""
    return estimator in (STL, DREG)


def sum_draws(terms, factors):
    """Sum of terms[s] factors[s]: in order in blocks of 64, blocks joined with their rounding errors (two-sum)."""
    zero = terms.dtype.type(0)
    total, error = zero, zero
    draws = terms.shape[0]
    for first in range(0, draws, BLOCK):
        block = zero
        for s in range(first, min(first + BLOCK, draws)):
            block = block + terms[s] * factors[s]
        joined = total + block
        part = joined - total
        error = error + ((total - (joined - part)) + (block - part))
        total = joined
    return select(np.isnan(error), total, total + error)  # an infinite sum has no error


def fill_weights(log_weights, estimator, weights):
    """Fill softmax(log_weights), or 1/n where draws count alike; the importance-weighted bound is returned."""
    draws = log_weights.shape[0]
    most = log_weights.dtype.type(-np.inf)
    for s in range(draws):
        weights[s] = 1 / draws
        most = select(log_weights[s] > most, log_weights[s], most)
    if not is_importance(estimator):
        return most
    shift = select(np.isfinite(most), most, log_weights.dtype.type(0))
    ones = np.ones_like(log_weights)
    for s in range(draws):
        weights[s] = np.exp(log_weights[s] - shift)
    total = sum_draws(weights, ones)
    for s in range(draws):
        weights[s] = weights[s] / total
    return shift + np.log(total) - np.log(log_weights.dtype.type(draws))


def fill_values(noise, log_prob, diagonal, estimator, weights, log_weights, value, standard_error):
    """Log weights, weights, the bound and its standard error."""
    draws, d = noise.shape[0], noise.shape[1]
    det = log_det(diagonal)
    ones = np.ones_like(log_prob)
    for s in range(draws):
        log_weights[s] = log_prob[s] + (det + 0.5 * square_norm(noise[s]) + d * HALF_LOG_2PI)
    bound = fill_weights(log_weights, estimator, weights)
    deviation = np.empty_like(log_prob)
    if is_importance(estimator):
        value[0] = bound
        for s in range(draws):
            deviation[s] = weights[s] - 1 / draws
        scale = draws / (draws - 1) if draws > 1 else np.nan
    else:
        sampled = log_prob if estimator == PATHWISE else log_weights
        mean = sum_draws(sampled, ones) / draws
        value[0] = mean + det + d * (0.5 + HALF_LOG_2PI) if estimator == PATHWISE else mean
        for s in range(draws):
            deviation[s] = sampled[s] - mean
        scale = 1 / (draws * (draws - 1)) if draws > 1 else np.nan
    standard_error[0] = np.sqrt(sum_draws(deviation, deviation) * scale) + (det - det)


def fill_terms(grad, estimator, weighted, weights, term):
    """Fill what draw s adds to d loc: w g, w h or w^2 h; on entry ``term`` holds S^-T noise where that is h - g."""
    for s in range(grad.shape[0]):
        for i in range(grad.shape[1]):
            t = weights[s] * grad[s, i] if is_importance(estimator) and not weighted else grad[s, i]
            if is_path_only(estimator):
                t = t + (weights[s] * term[s, i] if is_importance(estimator) or weighted else term[s, i])
            term[s, i] = weights[s] * t if estimator == DREG else t


def divisor(draws, estimator, weighted):
    """What a sum of terms is divided by."""
    return 1 if is_importance(estimator) or weighted else draws


def estimate_tril(
    noise, log_prob, grad, scale_tril, estimator, weighted, log_weights, value, standard_error, ct_loc, ct_scale_tril
):
    """Fill the outputs for q = N(loc, L L^T)."""
    draws, d = noise.shape[0], noise.shape[1]
    diagonal, weights, term = diagonal_of(scale_tril), np.empty_like(log_prob), np.empty_like(noise)
    fill_values(noise, log_prob, diagonal, estimator, weights, log_weights, value, standard_error)
    for s in range(draws):
        for i in range(d):
            term[s, i] = noise[s, i]
        if is_path_only(estimator):
            solve_lower_transposed(scale_tril, term[s])
    fill_terms(grad, estimator, weighted, weights, term)
    det, over, ones = log_det(diagonal), divisor(draws, estimator, weighted), np.ones_like(log_prob)
    bad = det - det
    for i in range(d):
        ct_loc[i] = bad + sum_draws(term[:, i], ones) / over
        for j in range(i + 1):
            ct_scale_tril[i, j] = bad + sum_draws(term[:, i], noise[:, j]) / over
        if not is_path_only(estimator):
            ct_scale_tril[i, i] = ct_scale_tril[i, i] + 1 / scale_tril[i, i]


def estimate_diag(
    noise, log_prob, grad, scale_diag, estimator, weighted, log_weights, value, standard_error, ct_loc, ct_scale_diag
):
    """Fill the outputs for q = N(loc, diag(scale^2))."""
    draws, d = noise.shape[0], noise.shape[1]
    weights, term = np.empty_like(log_prob), np.empty_like(noise)
    fill_values(noise, log_prob, scale_diag, estimator, weights, log_weights, value, standard_error)
    for s in range(draws):
        for i in range(d):
            term[s, i] = noise[s, i] / scale_diag[i]
    fill_terms(grad, estimator, weighted, weights, term)
    det, over, ones = log_det(scale_diag), divisor(draws, estimator, weighted), np.ones_like(log_prob)
    bad = det - det
    for i in range(d):
        ct_loc[i] = bad + sum_draws(term[:, i], ones) / over
        ct_scale_diag[i] = bad + sum_draws(term[:, i], noise[:, i]) / over
        if not is_path_only(estimator):
            ct_scale_diag[i] = ct_scale_diag[i] + 1 / scale_diag[i]
