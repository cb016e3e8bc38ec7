# SPDX-License-Identifier: MIT
"""Gaussians with a lower Cholesky factor: N(loc, L L^T), L = scale_tril."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._op import op, select
from .tril import diagonal_of, poison, positive_or_nan, solve_lower, solve_lower_transposed

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
TERMS = 11  # of the series of scale_term: the next one is under 2^-53 of the first for z < 0.029


def square_norm(x):
    """Sum of squares over the event."""
    total = x.dtype.type(0)
    for i in range(x.shape[0]):
        total = total + x[i] * x[i]
    return total


def log_det(diagonal):
    """Sum of logarithms; NaN unless all are > 0."""
    total = diagonal.dtype.type(0)
    for i in range(diagonal.shape[0]):
        total = total + np.log(positive_or_nan(diagonal[i]))
    return total


def scale_term(scale, other):
    """``(r^2 - 1)/2 - log r >= 0``, ``r = scale/other``, to a few roundings of itself.

    Near 1 the two cancel. There, with ``e = r - 1`` (exact where scale and other are close), ``s = e/(2 + e)``,
    ``z = s^2``: ``e - log(1 + e) = e^2/2 - s (e^2/2 + 2 z/3 + 2 z^2/5 + 2 z^3/7 + ...)``.
    """
    e = (scale - other) / other
    s = e / (2 + e)
    z = s * s
    series = z * (2 / (2 * TERMS + 1))
    for k in range(TERMS - 1, 0, -1):
        series = z * (2 / (2 * k + 1) + series)
    half = 0.5 * e * e
    return select(z.real < 0.029, half + (half - s * (half + series)), e + half - np.log(scale / other))


def scale_slope(scale):
    """``scale - 1/scale``, the slope of :func:`scale_term` at other = 1, to a few roundings of itself."""
    e = scale - 1
    return e / scale * (2 + e)


def transform_tril(noise, loc, scale_tril, value):
    """Reparameterize: value <- loc + scale_tril @ noise, NaN unless the diagonal is > 0."""
    bad = poison(diagonal_of(scale_tril))
    for i in range(noise.shape[0]):
        total = loc[i] + bad
        for j in range(i + 1):
            total = total + scale_tril[i, j] * noise[j]
        value[i] = total


def _diagonal(x: Any) -> Any:
    return np.diagonal(x, axis1=-2, axis2=-1)


def _log_prob_oracle(value: Any, loc: Any, scale_tril: Any) -> Any:
    y = np.linalg.solve(np.tril(scale_tril), (value - loc)[..., None])[..., 0]
    d = y.shape[-1]
    return -0.5 * (y**2).sum(-1) - np.log(_diagonal(scale_tril)).sum(-1) - d * HALF_LOG_2PI


def _transform_oracle(noise: Any, loc: Any, scale_tril: Any) -> Any:
    return loc + (np.tril(scale_tril) @ noise[..., None])[..., 0]


def _both_oracle(noise: Any, loc: Any, scale_tril: Any) -> Any:
    value = _transform_oracle(noise, loc, scale_tril)
    return value, _log_prob_oracle(value, loc, scale_tril)


def _entropy_oracle(scale_tril: Any) -> Any:
    return np.log(_diagonal(scale_tril)).sum(-1) + scale_tril.shape[-1] * (0.5 + HALF_LOG_2PI)


def _kl_oracle(loc: Any, scale_tril: Any) -> Any:
    squares = (np.tril(scale_tril) ** 2).sum((-1, -2)) + (loc**2).sum(-1)
    return 0.5 * (squares - loc.shape[-1]) - np.log(_diagonal(scale_tril)).sum(-1)


@op("(d)~,(d),tril(d)->(d)", packable=True, oracle=_transform_oracle)
def normal_tril_transform(noise, loc, scale_tril, value):
    """Reparameterize: ``loc + scale_tril @ noise``.

    Parameters
    ----------
    noise, loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
        Lower factor; NaN in an event whose diagonal is not positive.

    Returns
    -------
    array, shape (..., d)
    """
    transform_tril(noise, loc, scale_tril, value)


def _transform_vjp(noise, scale_tril, ct_value, ct_noise, ct_loc, ct_scale_tril):
    d = noise.shape[0]
    bad = poison(diagonal_of(scale_tril))
    for j in range(d):
        ct_loc[j] = ct_value[j] + bad
        total = ct_loc[j] * scale_tril[j, j]
        for i in range(j + 1, d):
            total = total + scale_tril[i, j] * ct_value[i]
        ct_noise[j] = total
        for i in range(j, d):
            ct_scale_tril[i, j] = (ct_value[i] + bad) * noise[j]


@normal_tril_transform.defvjp
def _(noise, loc, scale_tril, ct_value, ct_noise, ct_loc, ct_scale_tril):
    _transform_vjp(noise, scale_tril, ct_value, ct_noise, ct_loc, ct_scale_tril)


@op("(d)~,(d),tril(d)->(d),()", packable=True, oracle=_both_oracle)
def normal_tril_transform_and_log_prob(noise, loc, scale_tril, value, log_prob):
    """Reparameterize, and the log density of the result, without a triangular solve.

    Parameters
    ----------
    noise, loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)

    Returns
    -------
    value : array, shape (..., d)
    log_prob : array, shape (...)
        ``-sum log L_ii - |noise|^2/2 - (d/2) log 2 pi``.
    """
    transform_tril(noise, loc, scale_tril, value)
    det = log_det(diagonal_of(scale_tril))
    log_prob[0] = -det - 0.5 * square_norm(noise) - noise.shape[0] * HALF_LOG_2PI


@normal_tril_transform_and_log_prob.defvjp
def _(noise, loc, scale_tril, ct_value, ct_log_prob, ct_noise, ct_loc, ct_scale_tril):
    _transform_vjp(noise, scale_tril, ct_value, ct_noise, ct_loc, ct_scale_tril)
    for i in range(noise.shape[0]):
        ct_noise[i] = ct_noise[i] - ct_log_prob * noise[i]
        ct_scale_tril[i, i] = ct_scale_tril[i, i] - ct_log_prob / scale_tril[i, i]


@op("(d),(d),tril(d)->()", packable=True, oracle=_log_prob_oracle)
def normal_tril_log_prob(value, loc, scale_tril, log_prob):
    """Log density of ``N(loc, scale_tril @ scale_tril.T)`` at ``value``.

    Parameters
    ----------
    value, loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
        Lower factor; NaN in an event whose diagonal is not positive.

    Returns
    -------
    array, shape (...)
        ``-|y|^2/2 - sum log L_ii - (d/2) log 2 pi`` with ``y = L^-1 (value - loc)``.
    """
    y = np.empty_like(value)
    for i in range(value.shape[0]):
        y[i] = value[i] - loc[i]
    solve_lower(scale_tril, y)
    log_prob[0] = -log_det(diagonal_of(scale_tril)) - 0.5 * square_norm(y) - value.shape[0] * HALF_LOG_2PI


@normal_tril_log_prob.defvjp
def _(value, loc, scale_tril, ct_log_prob, ct_value, ct_loc, ct_scale_tril):
    d = value.shape[0]
    bad = poison(diagonal_of(scale_tril))
    y, z = ct_value, ct_loc  # L^-1 (value - loc) and L^-T of it, where the results will lie
    for i in range(d):
        y[i] = value[i] - loc[i] + bad
    solve_lower(scale_tril, y)
    for i in range(d):
        z[i] = y[i]
    solve_lower_transposed(scale_tril, z)
    for i in range(d):
        ct_loc[i] = ct_log_prob * z[i]
        for j in range(i + 1):
            ct_scale_tril[i, j] = ct_loc[i] * y[j]
        ct_scale_tril[i, i] = ct_scale_tril[i, i] - ct_log_prob / scale_tril[i, i]
    for i in range(d):
        ct_value[i] = -ct_loc[i]


@op("tril(d)->()", packable=True, oracle=_entropy_oracle)
def normal_tril_entropy(scale_tril, entropy):
    """Entropy of ``N(loc, scale_tril @ scale_tril.T)``.

    Parameters
    ----------
    scale_tril : array, shape (..., d, d)

    Returns
    -------
    array, shape (...)
        ``sum log L_ii + (d/2)(1 + log 2 pi)``.
    """
    entropy[0] = log_det(diagonal_of(scale_tril)) + scale_tril.shape[0] * (0.5 + HALF_LOG_2PI)


@normal_tril_entropy.defvjp
def _(scale_tril, ct_entropy, ct_scale_tril):
    bad = poison(diagonal_of(scale_tril))
    for i in range(scale_tril.shape[0]):
        for j in range(i):
            ct_scale_tril[i, j] = bad
        ct_scale_tril[i, i] = (ct_entropy + bad) / scale_tril[i, i]


@op("(d),tril(d)->()", packable=True, oracle=_kl_oracle)
def normal_tril_kl_standard(loc, scale_tril, kl):
    """KL divergence of ``N(loc, scale_tril @ scale_tril.T)`` to ``N(0, I)``.

    Parameters
    ----------
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)

    Returns
    -------
    array, shape (...)
        ``(|L|_F^2 + |loc|^2 - d)/2 - sum log L_ii``: never negative, 0 for ``N(0, I)``; NaN where a diagonal is not
        positive.
    """
    squares, terms = square_norm(loc), poison(diagonal_of(scale_tril))
    for i in range(loc.shape[0]):
        for j in range(i):
            squares = squares + scale_tril[i, j] * scale_tril[i, j]
        terms = terms + scale_term(scale_tril[i, i], 1)
    kl[0] = 0.5 * squares + terms


@normal_tril_kl_standard.defvjp
def _(loc, scale_tril, ct_kl, ct_loc, ct_scale_tril):
    ct = ct_kl + poison(diagonal_of(scale_tril))
    for i in range(loc.shape[0]):
        ct_loc[i] = ct * loc[i]
        for j in range(i):
            ct_scale_tril[i, j] = ct * scale_tril[i, j]
        ct_scale_tril[i, i] = ct * scale_slope(scale_tril[i, i])
