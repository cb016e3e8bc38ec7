# SPDX-License-Identifier: MIT
"""Unconstrained vectors: back from lower factors, and the heads of encoders, which reparameterize from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._op import op, real_positive, select
from .normal_tril import HALF_LOG_2PI, square_norm
from .tril import EXP, poison, scale_of, sigmoid

_FLOOR: dict[str, Any] = {"limits": {"floor": (0.0, math.inf)}}
_DIAGONAL: dict[str, Any] = {"diagonal": ("exp", "softplus"), "floor": 0.0}
_TRIANGLE: dict[str, Any] = {**_DIAGONAL, "row_scaled": False}


def slope_of(v, diagonal):
    """The derivative of the scale."""
    return np.exp(v) if diagonal == EXP else sigmoid(v)


def log_scale_of(v, scale, diagonal, floor):
    """The logarithm of the scale: of a plain exponential the entry itself."""
    return v if diagonal == EXP and floor == 0 else np.log(scale)


def log_slope_of(v, scale, diagonal, floor):
    """The derivative of the logarithm of the scale."""
    return 1.0 if diagonal == EXP and floor == 0 else slope_of(v, diagonal) / scale


def _scales(v: Any, diagonal: str, floor: float) -> Any:
    return (np.exp(v) if diagonal == "exp" else np.logaddexp(0, v)) + floor


def _entries_oracle(scale_tril: Any, *, diagonal: str = "exp", floor: float = 0.0, row_scaled: bool = False) -> Any:
    d = scale_tril.shape[-1]
    i, (rows, columns) = np.arange(d), np.tril_indices(d)
    scale = scale_tril[..., i, i]
    out = scale_tril / scale[..., None] if row_scaled else scale_tril.copy()
    out[..., i, i] = np.log(scale - floor) if diagonal == "exp" else np.log(np.expm1(scale - floor))
    return out[..., rows, columns]


def _diag_oracle(noise: Any, loc: Any, vector: Any, *, diagonal: str = "exp", floor: float = 0.0) -> Any:
    scale = _scales(vector, diagonal, floor)
    return loc + scale * noise, (-np.log(scale) - 0.5 * noise**2 - HALF_LOG_2PI).sum(-1)


def _tril_oracle(noise: Any, loc: Any, vector: Any, *, row_scaled: bool = False, **scales: Any) -> Any:
    d = noise.shape[-1]
    rows, columns = np.tril_indices(d)
    lower = np.zeros((*vector.shape[:-1], d, d))
    lower[..., rows, columns] = vector
    _, log_prob = _diag_oracle(noise, loc, lower[..., np.arange(d), np.arange(d)], **scales)
    scale = _scales(lower[..., np.arange(d), np.arange(d)], **{"diagonal": "exp", "floor": 0.0, **scales})
    lower = lower * scale[..., None] if row_scaled else lower
    lower[..., np.arange(d), np.arange(d)] = scale
    return loc + (lower @ noise[..., None])[..., 0], log_prob


@op("tril(d)->vec(d)", packable=True, attributes=_TRIANGLE, oracle=_entries_oracle, **_FLOOR)
def vector_from_tril(scale_tril, diagonal, floor, row_scaled, vector):
    """Unconstrained vectors of lower factors: the inverse of :func:`tril_from_vector`.

    Parameters
    ----------
    scale_tril : array, shape (..., d, d)
        Lower factor; NaN in an event whose diagonal is not above ``floor``.
    diagonal, floor, row_scaled
        As in :func:`tril_from_vector`.

    Returns
    -------
    array, shape (..., d (d + 1) / 2)
        Entries in the order of ``np.tril_indices(d)``.
    """
    bad = scale_tril.dtype.type(0)
    for i in range(scale_tril.shape[0]):
        bad = select(real_positive(scale_tril[i, i] - floor), bad, np.nan)
    at = 0
    for i in range(scale_tril.shape[0]):
        y = scale_tril[i, i] - floor
        for j in range(i):
            vector[at + j] = (scale_tril[i, j] / scale_tril[i, i] if row_scaled else scale_tril[i, j]) + bad
        vector[at + i] = (np.log(y) if diagonal == EXP else y + np.log(-np.expm1(-y))) + bad
        at += i + 1


@vector_from_tril.defvjp
def _(scale_tril, ct_vector, diagonal, floor, row_scaled, ct_scale_tril):
    bad = scale_tril.dtype.type(0)
    for i in range(scale_tril.shape[0]):
        bad = select(real_positive(scale_tril[i, i] - floor), bad, np.nan)
    at = 0
    for i in range(scale_tril.shape[0]):
        y = scale_tril[i, i] - floor
        ct_scale = ct_vector[at + i] / (y if diagonal == EXP else -np.expm1(-y))
        for j in range(i):
            ct_scale_tril[i, j] = ct_vector[at + j] + bad
            if row_scaled:
                ct_scale_tril[i, j] = ct_vector[at + j] / scale_tril[i, i] + bad
                ct_scale = ct_scale - ct_scale_tril[i, j] * scale_tril[i, j] / scale_tril[i, i]
        ct_scale_tril[i, i] = ct_scale + bad
        at += i + 1


@op("(d)~,(d),(d)->(d),()", attributes=_DIAGONAL, oracle=_diag_oracle, **_FLOOR)
def normal_diag_vector_transform_and_log_prob(noise, loc, vector, diagonal, floor, value, log_prob):
    """Reparameterize from an unconstrained vector of scales, and the log density of the result.

    Parameters
    ----------
    noise, loc, vector : array, shape (..., d)
        The scales are ``f(vector) + floor``.
    diagonal : {"exp", "softplus"}
        The map f.
    floor : float
        Added to the scales.

    Returns
    -------
    value : array, shape (..., d)
    log_prob : array, shape (...)
        As :func:`normal_diag_transform_and_log_prob`; NaN in an event where a scale is not positive.
    """
    d = noise.shape[0]
    scale = np.empty_like(vector)
    for i in range(d):
        scale[i] = scale_of(vector[i], diagonal, floor)
    bad = poison(scale)
    total = bad
    for i in range(d):
        value[i] = loc[i] + scale[i] * noise[i] + bad
        total = total + log_scale_of(vector[i], scale[i], diagonal, floor)
    log_prob[0] = -total - 0.5 * square_norm(noise) - d * HALF_LOG_2PI


@normal_diag_vector_transform_and_log_prob.defvjp
def _(noise, loc, vector, ct_value, ct_log_prob, diagonal, floor, ct_noise, ct_loc, ct_vector):
    d = noise.shape[0]
    scale = np.empty_like(vector)
    for i in range(d):
        scale[i] = scale_of(vector[i], diagonal, floor)
    bad = poison(scale)
    for i in range(d):
        ct = ct_value[i] + bad
        along = ct_log_prob * log_slope_of(vector[i], scale[i], diagonal, floor)
        ct_noise[i] = ct * scale[i] - ct_log_prob * noise[i]
        ct_loc[i] = ct
        ct_vector[i] = ct * noise[i] * slope_of(vector[i], diagonal) - along


def _row_scales(vector, diagonal, floor, scale):
    at = 0
    for i in range(scale.shape[0]):
        scale[i] = scale_of(vector[at + i], diagonal, floor)
        at += i + 1


@op("(d)~,(d),vec(d)->(d),()", attributes=_TRIANGLE, oracle=_tril_oracle, **_FLOOR)
def normal_vector_transform_and_log_prob(noise, loc, vector, diagonal, floor, row_scaled, value, log_prob):
    """Reparameterize from an unconstrained vector, and the log density of the result: the head of an encoder.

    Parameters
    ----------
    noise, loc : array, shape (..., d)
    vector : array, shape (..., d (d + 1) / 2)
        The scale_tril is that of :func:`tril_from_vector`; it is never stored.
    diagonal, floor, row_scaled
        As in :func:`tril_from_vector`.

    Returns
    -------
    value : array, shape (..., d)
    log_prob : array, shape (...)
        As :func:`normal_tril_transform_and_log_prob`; NaN in an event where a scale is not positive.
    """
    d = noise.shape[0]
    scale = np.empty_like(loc)
    _row_scales(vector, diagonal, floor, scale)
    bad = poison(scale)
    log_det = bad
    at = 0
    for i in range(d):
        total = noise.dtype.type(0)
        for j in range(i):
            total = total + vector[at + j] * noise[j]
        total = total * scale[i] if row_scaled else total
        value[i] = loc[i] + total + scale[i] * noise[i] + bad
        log_det = log_det + log_scale_of(vector[at + i], scale[i], diagonal, floor)
        at += i + 1
    log_prob[0] = -log_det - 0.5 * square_norm(noise) - d * HALF_LOG_2PI


@normal_vector_transform_and_log_prob.defvjp
def _(noise, loc, vector, ct_value, ct_log_prob, diagonal, floor, row_scaled, ct_noise, ct_loc, ct_vector):
    d = noise.shape[0]
    scale = np.empty_like(loc)
    _row_scales(vector, diagonal, floor, scale)
    bad = poison(scale)
    at = 0
    for i in range(d):
        v = vector[at + i]
        ct_loc[i] = ct_value[i] + bad
        ct_noise[i] = ct_loc[i] * scale[i] - ct_log_prob * noise[i]
        factor = scale[i] if row_scaled else 1.0
        ct_scale = ct_loc[i] * noise[i]
        for j in range(i):
            ct_noise[j] = ct_noise[j] + ct_loc[i] * factor * vector[at + j]
            ct_vector[at + j] = ct_loc[i] * factor * noise[j]
            if row_scaled:
                ct_scale = ct_scale + ct_loc[i] * vector[at + j] * noise[j]
        along = ct_log_prob * log_slope_of(v, scale[i], diagonal, floor)
        ct_vector[at + i] = ct_scale * slope_of(v, diagonal) - along
        at += i + 1
