# SPDX-License-Identifier: MIT
"""Gaussians of scalar events: N(loc, scale^2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op, real_positive, select
from .normal_tril import HALF_LOG_2PI, scale_slope, scale_term
from .tril import positive_or_nan


def _where_positive(scale, x):
    return select(real_positive(scale), x, np.nan)


def _log_prob_oracle(value: Any, loc: Any, scale: Any) -> Any:
    return -0.5 * ((value - loc) / scale) ** 2 - np.log(scale) - HALF_LOG_2PI


def _both_oracle(noise: Any, loc: Any, scale: Any) -> Any:
    value = loc + scale * noise
    return value, _log_prob_oracle(value, loc, scale)


def _kl_oracle(loc: Any, scale: Any, other_loc: Any, other_scale: Any) -> Any:
    variance = other_scale**2
    return np.log(other_scale / scale) + (scale**2 + (loc - other_loc) ** 2) / (2 * variance) - 0.5


@op("()~,(),()->()", oracle=lambda noise, loc, scale: loc + scale * noise)
def normal_transform(noise, loc, scale, value):
    """Reparameterize: ``loc + scale * noise``.

    Parameters
    ----------
    noise, loc, scale : array
        Broadcast against each other; NaN where a scale is not positive.

    Returns
    -------
    array
    """
    value[0] = loc + positive_or_nan(scale) * noise


@normal_transform.defvjp
def _(noise, loc, scale, ct_value, ct_noise, ct_loc, ct_scale):
    ct = _where_positive(scale, ct_value)
    ct_noise[0] = ct * scale
    ct_loc[0] = ct
    ct_scale[0] = ct * noise


@op("()~,(),()->(),()", oracle=_both_oracle)
def normal_transform_and_log_prob(noise, loc, scale, value, log_prob):
    """Reparameterize, and the log density of the result.

    Parameters
    ----------
    noise, loc, scale : array
        Broadcast against each other.

    Returns
    -------
    value, log_prob : array
        ``loc + scale * noise`` and ``-log scale - noise^2/2 - (log 2 pi)/2``; NaN where a scale is not positive.
    """
    value[0] = loc + positive_or_nan(scale) * noise
    log_prob[0] = -np.log(positive_or_nan(scale)) - 0.5 * noise * noise - HALF_LOG_2PI


@normal_transform_and_log_prob.defvjp
def _(noise, loc, scale, ct_value, ct_log_prob, ct_noise, ct_loc, ct_scale):
    ct = _where_positive(scale, ct_value)
    ct_noise[0] = ct * scale - ct_log_prob * noise
    ct_loc[0] = ct
    ct_scale[0] = ct * noise - ct_log_prob / scale


@op("(),(),()->()", oracle=_log_prob_oracle)
def normal_log_prob(value, loc, scale, log_prob):
    """Log density of ``N(loc, scale^2)`` at ``value``.

    Parameters
    ----------
    value, loc, scale : array
        Broadcast against each other.

    Returns
    -------
    array
        ``-y^2/2 - log scale - (log 2 pi)/2``, ``y = (value - loc)/scale``; NaN where a scale is not positive.
    """
    y = (value - loc) / scale
    log_prob[0] = -np.log(positive_or_nan(scale)) - 0.5 * y * y - HALF_LOG_2PI


@normal_log_prob.defvjp
def _(value, loc, scale, ct_log_prob, ct_value, ct_loc, ct_scale):
    y = (value - loc) / scale
    slope = _where_positive(scale, ct_log_prob) / scale
    ct_loc[0] = slope * y
    ct_value[0] = -slope * y
    ct_scale[0] = slope * (y * y - 1)


@op("()->()", oracle=lambda scale: np.log(scale) + 0.5 + HALF_LOG_2PI)
def normal_entropy(scale, entropy):
    """Entropy of ``N(loc, scale^2)``.

    Parameters
    ----------
    scale : array

    Returns
    -------
    array
        ``log scale + (1 + log 2 pi)/2``; NaN where a scale is not positive.
    """
    entropy[0] = np.log(positive_or_nan(scale)) + (0.5 + HALF_LOG_2PI)


@normal_entropy.defvjp
def _(scale, ct_entropy, ct_scale):
    ct_scale[0] = ct_entropy / positive_or_nan(scale)


@op("(),()->()", oracle=lambda loc, scale: 0.5 * (scale**2 + loc**2 - 1) - np.log(scale))
def normal_kl_standard(loc, scale, kl):
    """KL divergence of ``N(loc, scale^2)`` to ``N(0, 1)``.

    Parameters
    ----------
    loc, scale : array
        Broadcast against each other.

    Returns
    -------
    array
        ``(scale^2 - 1)/2 - log scale + loc^2/2``: never negative, 0 for ``N(0, 1)``; NaN where a scale is not positive.
    """
    kl[0] = scale_term(positive_or_nan(scale), 1) + 0.5 * loc * loc


@normal_kl_standard.defvjp
def _(loc, scale, ct_kl, ct_loc, ct_scale):
    ct = _where_positive(scale, ct_kl)
    ct_loc[0] = ct * loc
    ct_scale[0] = ct * scale_slope(scale)


@op("(),(),(),()->()", oracle=_kl_oracle)
def normal_kl(loc, scale, other_loc, other_scale, kl):
    """KL divergence of ``N(loc, scale^2)`` to ``N(other_loc, other_scale^2)``.

    Parameters
    ----------
    loc, scale, other_loc, other_scale : array
        Broadcast against each other.

    Returns
    -------
    array
        ``(r^2 - 1)/2 - log r + y^2/2``, ``r = scale/other_scale``, ``y = (other_loc - loc)/other_scale``: never
        negative, 0 where the arguments are equal; NaN where a scale is not positive.
    """
    y = (other_loc - loc) / other_scale
    kl[0] = scale_term(positive_or_nan(scale), positive_or_nan(other_scale)) + 0.5 * y * y


@normal_kl.defvjp
def _(loc, scale, other_loc, other_scale, ct_kl, ct_loc, ct_scale, ct_other_loc, ct_other_scale):
    ct = _where_positive(scale, _where_positive(other_scale, ct_kl))
    y = (other_loc - loc) / other_scale
    e = (scale - other_scale) / other_scale
    c = e * (2 + e)
    ct_loc[0] = -ct * y / other_scale
    ct_scale[0] = ct * c / scale
    ct_other_loc[0] = ct * y / other_scale
    ct_other_scale[0] = -ct * (c + y * y) / other_scale
