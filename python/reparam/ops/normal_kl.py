# SPDX-License-Identifier: MIT
"""KL divergences between two Gaussians with diagonal scales, and with lower Cholesky factors."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op
from .normal_tril import scale_term, square_norm
from .tril import diagonal_of, poison, solve_lower, solve_lower_transposed


def _diag_oracle(loc: Any, scale_diag: Any, other_loc: Any, other_scale_diag: Any) -> Any:
    ratio = (scale_diag / other_scale_diag) ** 2
    return 0.5 * (ratio + ((loc - other_loc) / other_scale_diag) ** 2 - 1 - np.log(ratio)).sum(-1)


def _tril_oracle(loc: Any, scale_tril: Any, other_loc: Any, other_scale_tril: Any) -> Any:
    lower, other = np.tril(scale_tril), np.tril(other_scale_tril)
    ratio, y = np.linalg.solve(other, lower), np.linalg.solve(other, (other_loc - loc)[..., None])
    squares = (ratio**2).sum((-1, -2)) + (y**2).sum((-1, -2)) - loc.shape[-1]
    return 0.5 * squares + np.linalg.slogdet(other)[1] - np.linalg.slogdet(lower)[1]


@op("(d),(d),(d),(d)->()", oracle=_diag_oracle)
def normal_diag_kl(loc, scale_diag, other_loc, other_scale_diag, kl):
    """KL divergence of ``N(loc, diag(scale_diag^2))`` to ``N(other_loc, diag(other_scale_diag^2))``.

    Parameters
    ----------
    loc, scale_diag, other_loc, other_scale_diag : array, shape (..., d)

    Returns
    -------
    array, shape (...)
        ``sum_i (r_i^2 - 1)/2 - log r_i + y_i^2/2``, ``r = scale/other_scale``, ``y = (other_loc - loc)/other_scale``:
        never negative, 0 where the arguments are equal; NaN where a scale is not positive.
    """
    total = poison(scale_diag) + poison(other_scale_diag)
    for i in range(loc.shape[0]):
        y = (other_loc[i] - loc[i]) / other_scale_diag[i]
        total = total + (scale_term(scale_diag[i], other_scale_diag[i]) + 0.5 * y * y)
    kl[0] = total


@normal_diag_kl.defvjp
def _(loc, scale_diag, other_loc, other_scale_diag, ct_kl, ct_loc, ct_scale_diag, ct_other_loc, ct_other_scale_diag):
    ct = ct_kl + poison(scale_diag) + poison(other_scale_diag)
    for i in range(loc.shape[0]):
        slope = ct / other_scale_diag[i]
        y = (other_loc[i] - loc[i]) / other_scale_diag[i]
        e = (scale_diag[i] - other_scale_diag[i]) / other_scale_diag[i]
        ct_loc[i] = -slope * y
        ct_scale_diag[i] = ct * e * (2 + e) / scale_diag[i]
        ct_other_loc[i] = slope * y
        ct_other_scale_diag[i] = -slope * (e * (2 + e) + y * y)


def _whiten(loc, scale_tril, other_loc, other_scale_tril, e, y):
    """E <- M^-1 (L - M), y <- M^-1 (other_loc - loc); NaN in y unless both diagonals are > 0."""
    bad = poison(diagonal_of(scale_tril)) + poison(diagonal_of(other_scale_tril))
    for i in range(loc.shape[0]):
        y[i] = other_loc[i] - loc[i] + bad
        for j in range(i + 1):
            total = scale_tril[i, j] - other_scale_tril[i, j]
            for k in range(j, i):
                total = total - other_scale_tril[i, k] * e[k, j]
            e[i, j] = total / other_scale_tril[i, i]
    solve_lower(other_scale_tril, y)


@op("(d),tril(d),(d),tril(d)->()", oracle=_tril_oracle)
def normal_tril_kl(loc, scale_tril, other_loc, other_scale_tril, kl):
    """KL divergence of ``N(loc, L L^T)``, L = scale_tril, to ``N(other_loc, M M^T)``, M = other_scale_tril.

    Parameters
    ----------
    loc, other_loc : array, shape (..., d)
    scale_tril, other_scale_tril : array, shape (..., d, d)

    Returns
    -------
    array, shape (...)
        ``(|M^-1 L|_F^2 + |y|^2 - d)/2 + log det M - log det L``, ``y = M^-1 (other_loc - loc)``: never negative, 0
        where the arguments are equal; NaN where a diagonal is not positive.
    """
    e, y = np.empty_like(scale_tril), np.empty_like(loc)
    _whiten(loc, scale_tril, other_loc, other_scale_tril, e, y)
    total = 0.5 * square_norm(y)
    for i in range(loc.shape[0]):
        for j in range(i):
            total = total + 0.5 * e[i, j] * e[i, j]
        total = total + scale_term(scale_tril[i, i], other_scale_tril[i, i])
    kl[0] = total


@normal_tril_kl.defvjp
def _(loc, scale_tril, other_loc, other_scale_tril, ct_kl, ct_loc, ct_scale_tril, ct_other_loc, ct_other_scale_tril):
    d = loc.shape[0]
    ct = ct_kl + (poison(diagonal_of(scale_tril)) + poison(diagonal_of(other_scale_tril)))
    e, y = np.empty_like(scale_tril), np.empty_like(loc)
    _whiten(loc, scale_tril, other_loc, other_scale_tril, e, y)
    for i in range(d):
        ct_other_loc[i] = ct * y[i]
    solve_lower_transposed(other_scale_tril, ct_other_loc)
    g = ct_scale_tril  # ct tril(M^-T E), where the cotangent will lie
    for i in range(d - 1, -1, -1):
        ct_loc[i] = -ct_other_loc[i]
        for j in range(i + 1):
            total = ct * e[i, j]
            for k in range(i + 1, d):
                total = total - other_scale_tril[k, i] * g[k, j]
            g[i, j] = total / other_scale_tril[i, i]
    for i in range(d):
        for j in range(i + 1):
            total = g[i, j] + ct_other_loc[i] * y[j]
            for k in range(j + 1):
                total = total + g[i, k] * e[j, k]
            ct_other_scale_tril[i, j] = -total
        ct_other_scale_tril[i, i] = ct_other_scale_tril[i, i] - ct * e[i, i] / other_scale_tril[i, i]
    for i in range(d):
        ct_scale_tril[i, i] = g[i, i] + ct * e[i, i] / scale_tril[i, i]
