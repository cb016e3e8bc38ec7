# SPDX-License-Identifier: MIT
"""Gaussians with a diagonal scale: N(loc, diag(scale_diag^2))."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op
from .normal_tril import HALF_LOG_2PI, log_det, scale_slope, scale_term, square_norm
from .tril import poison


def transform_diag(noise, loc, scale_diag, value):
    """Reparameterize: value <- loc + scale_diag * noise, NaN unless the scales are > 0."""
    bad = poison(scale_diag)
    for i in range(noise.shape[0]):
        value[i] = loc[i] + scale_diag[i] * noise[i] + bad


def _log_prob_oracle(value: Any, loc: Any, scale_diag: Any) -> Any:
    y = (value - loc) / scale_diag
    return (-0.5 * y**2 - np.log(scale_diag) - HALF_LOG_2PI).sum(-1)


def _both_oracle(noise: Any, loc: Any, scale_diag: Any) -> Any:
    value = loc + scale_diag * noise
    return value, _log_prob_oracle(value, loc, scale_diag)


def _kl_oracle(loc: Any, scale_diag: Any) -> Any:
    return (0.5 * (scale_diag**2 + loc**2 - 1) - np.log(scale_diag)).sum(-1)


@op("(d)~,(d),(d)->(d)", oracle=lambda noise, loc, scale_diag: loc + scale_diag * noise)
def normal_diag_transform(noise, loc, scale_diag, value):
    """Reparameterize: ``loc + scale_diag * noise``.

    Parameters
    ----------
    noise, loc, scale_diag : array, shape (..., d)
        NaN in an event where a scale is not positive.

    Returns
    -------
    array, shape (..., d)
    """
    transform_diag(noise, loc, scale_diag, value)


@normal_diag_transform.defvjp
def _(noise, loc, scale_diag, ct_value, ct_noise, ct_loc, ct_scale_diag):
    bad = poison(scale_diag)
    for i in range(noise.shape[0]):
        ct = ct_value[i] + bad
        ct_noise[i] = ct * scale_diag[i]
        ct_loc[i] = ct
        ct_scale_diag[i] = ct * noise[i]


@op("(d)~,(d),(d)->(d),()", oracle=_both_oracle)
def normal_diag_transform_and_log_prob(noise, loc, scale_diag, value, log_prob):
    """Reparameterize, and the log density of the result.

    Parameters
    ----------
    noise, loc, scale_diag : array, shape (..., d)

    Returns
    -------
    value : array, shape (..., d)
    log_prob : array, shape (...)
        ``-sum log scale_i - |noise|^2/2 - (d/2) log 2 pi``; NaN where a scale is not positive.
    """
    transform_diag(noise, loc, scale_diag, value)
    log_prob[0] = -log_det(scale_diag) - 0.5 * square_norm(noise) - noise.shape[0] * HALF_LOG_2PI


@normal_diag_transform_and_log_prob.defvjp
def _(noise, loc, scale_diag, ct_value, ct_log_prob, ct_noise, ct_loc, ct_scale_diag):
    bad = poison(scale_diag)
    for i in range(noise.shape[0]):
        ct = ct_value[i] + bad
        ct_noise[i] = ct * scale_diag[i] - ct_log_prob * noise[i]
        ct_loc[i] = ct
        ct_scale_diag[i] = ct * noise[i] - ct_log_prob / scale_diag[i]


@op("(d),(d),(d)->()", oracle=_log_prob_oracle)
def normal_diag_log_prob(value, loc, scale_diag, log_prob):
    """Log density of ``N(loc, diag(scale_diag^2))`` at ``value``.

    Parameters
    ----------
    value, loc, scale_diag : array, shape (..., d)

    Returns
    -------
    array, shape (...)
        ``-|y|^2/2 - sum log scale_i - (d/2) log 2 pi``, ``y = (value - loc)/scale``; NaN where a scale is not positive.
    """
    squares = value.dtype.type(0)
    for i in range(value.shape[0]):
        y = (value[i] - loc[i]) / scale_diag[i]
        squares = squares + y * y
    log_prob[0] = -log_det(scale_diag) - 0.5 * squares - value.shape[0] * HALF_LOG_2PI


@normal_diag_log_prob.defvjp
def _(value, loc, scale_diag, ct_log_prob, ct_value, ct_loc, ct_scale_diag):
    ct = ct_log_prob + poison(scale_diag)
    for i in range(value.shape[0]):
        y = (value[i] - loc[i]) / scale_diag[i]
        slope = ct / scale_diag[i]
        ct_loc[i] = slope * y
        ct_value[i] = -ct_loc[i]
        ct_scale_diag[i] = slope * (y * y - 1)


@op("(d)->()", oracle=lambda scale_diag: (np.log(scale_diag) + 0.5 + HALF_LOG_2PI).sum(-1))
def normal_diag_entropy(scale_diag, entropy):
    """Entropy of ``N(loc, diag(scale_diag^2))``.

    Parameters
    ----------
    scale_diag : array, shape (..., d)

    Returns
    -------
    array, shape (...)
        ``sum log scale_i + (d/2)(1 + log 2 pi)``; NaN where a scale is not positive.
    """
    entropy[0] = log_det(scale_diag) + scale_diag.shape[0] * (0.5 + HALF_LOG_2PI)


@normal_diag_entropy.defvjp
def _(scale_diag, ct_entropy, ct_scale_diag):
    ct = ct_entropy + poison(scale_diag)
    for i in range(scale_diag.shape[0]):
        ct_scale_diag[i] = ct / scale_diag[i]


@op("(d),(d)->()", oracle=_kl_oracle)
def normal_diag_kl_standard(loc, scale_diag, kl):
    """KL divergence of ``N(loc, diag(scale_diag^2))`` to ``N(0, I)``.

    Parameters
    ----------
    loc, scale_diag : array, shape (..., d)

    Returns
    -------
    array, shape (...)
        ``sum_i (scale_i^2 - 1)/2 - log scale_i + loc_i^2/2``: never negative, 0 for ``N(0, I)``; NaN where a scale is
        not positive.
    """
    total = poison(scale_diag)
    for i in range(loc.shape[0]):
        total = total + (scale_term(scale_diag[i], 1) + 0.5 * loc[i] * loc[i])
    kl[0] = total


@normal_diag_kl_standard.defvjp
def _(loc, scale_diag, ct_kl, ct_loc, ct_scale_diag):
    ct = ct_kl + poison(scale_diag)
    for i in range(loc.shape[0]):
        ct_loc[i] = ct * loc[i]
        ct_scale_diag[i] = ct * scale_slope(scale_diag[i])
