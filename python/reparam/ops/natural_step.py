# SPDX-License-Identifier: MIT
"""Steps along the natural gradient of a Gaussian, fused: what :func:`reparam.inference.refine` takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._op import op, select
from .tril import diagonal_of, poison

_STEP = {"step_size": 1.0}
_LIMITS = {"step_size": (0.0, math.inf)}
LONGEST_MOVE = 1.0  # of loc, in units of the scale
LONGEST_CHANGE = 0.5  # of the scale, relative


def _clip_factor(x, limit):
    """What shortens x to the norm ``limit`` where it is longer, 1 elsewhere; NaN where the norm is not finite."""
    real = x.dtype.type
    most = real(0)
    for k in range(x.shape[0]):
        most = select(abs(x[k]) > most, abs(x[k]), most)
    most = select(most > 0, most, real(1))
    total = real(0)
    for k in range(x.shape[0]):
        total = total + (x[k] / most) * (x[k] / most)
    norm = most * np.sqrt(total)
    return select(norm > limit, real(limit) / norm, real(1)) + (norm - norm)


def _clipped(x: Any, limit: float, axes: tuple[int, ...]) -> Any:
    norm = np.sqrt((x**2).sum(axes, keepdims=True))
    return x * (limit / np.maximum(norm, limit))


def _tril_oracle(loc: Any, scale_tril: Any, grad_loc: Any, grad_scale_tril: Any, *, step_size: float = 1.0) -> Any:
    scale = np.tril(scale_tril)
    transposed, i = np.swapaxes(scale, -1, -2), np.arange(loc.shape[-1])
    u = _clipped(step_size * (transposed @ grad_loc[..., None]), LONGEST_MOVE, (-1, -2))
    product = np.tril(transposed @ np.tril(grad_scale_tril))
    product[..., i, i] *= 0.5
    change = _clipped(step_size * product, LONGEST_CHANGE, (-1, -2))
    moved = scale + scale @ change
    moved[..., i, i] = scale[..., i, i] * np.exp(change[..., i, i])
    return loc + (scale @ u)[..., 0], moved


@op("(d),tril(d),(d),tril(d)->(d),tril(d)", attributes=_STEP, limits=_LIMITS, oracle=_tril_oracle)
def normal_tril_natural_step(loc, scale_tril, grad_loc, grad_scale_tril, step_size, new_loc, new_scale_tril):
    """One ascent step along the natural gradient of ``N(loc, L L^T)``, in coordinates of its Cholesky factor.

    Parameters
    ----------
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
        Lower factor L with positive diagonal.
    grad_loc, grad_scale_tril : array, shape (..., d) and (..., d, d)
        The gradient of what is maximized, in loc and in L (below and on the diagonal).
    step_size : float

    Returns
    -------
    new_loc, new_scale_tril : array, shape (..., d) and (..., d, d)
        NaN in an event whose diagonal is not positive or whose gradient is not finite.

    Notes
    -----
    ``u = step_size L^T g`` clipped to norm 1, ``A = step_size Phi(tril(L^T G))`` clipped to norm 0.5, Phi halving the
    diagonal; ``loc + L u``, ``L + L A`` off the diagonal, ``L_ii exp(A_ii)`` on it, so that it stays positive. To first
    order this is the inverse Fisher information times the gradient (L. Tan, arXiv 2109.00375, for its form in L).
    """
    d = loc.shape[0]
    real = loc.dtype.type
    a = real(step_size)
    bad = poison(diagonal_of(scale_tril))
    u = np.empty_like(loc)
    change = np.empty_like(scale_tril)
    for i in range(d):
        total = scale_tril[i, i] * grad_loc[i]
        for k in range(i + 1, d):
            total = total + scale_tril[k, i] * grad_loc[k]
        u[i] = a * total
        for j in range(i + 1):
            total = scale_tril[i, i] * grad_scale_tril[i, j]
            for k in range(i + 1, d):
                total = total + scale_tril[k, i] * grad_scale_tril[k, j]
            change[i, j] = (real(0.5) * a if j == i else a) * total
        for j in range(i + 1, d):
            change[i, j] = real(0)
    shorter = _clip_factor(u, LONGEST_MOVE)
    smaller = _clip_factor(change.reshape((d * d,) + change.shape[2:]), LONGEST_CHANGE)  # noqa: RUF005
    bad = bad + (shorter - shorter) + (smaller - smaller)
    shorter = shorter + bad
    smaller = smaller + bad
    for i in range(d):
        u[i] = shorter * u[i]
        for j in range(i + 1):
            change[i, j] = smaller * change[i, j]
    for i in range(d):
        moved = scale_tril[i, i] * u[i]
        for j in range(i):
            moved = moved + scale_tril[i, j] * u[j]
            total = scale_tril[i, i] * change[i, j]
            for k in range(j, i):
                total = total + scale_tril[i, k] * change[k, j]
            new_scale_tril[i, j] = scale_tril[i, j] + total
        new_loc[i] = loc[i] + moved
        new_scale_tril[i, i] = scale_tril[i, i] * np.exp(change[i, i])


def _diag_oracle(loc: Any, scale_diag: Any, grad_loc: Any, grad_scale_diag: Any, *, step_size: float = 1.0) -> Any:
    u = _clipped(step_size * (scale_diag * grad_loc), LONGEST_MOVE, (-1,))
    change = _clipped(0.5 * step_size * (scale_diag * grad_scale_diag), LONGEST_CHANGE, (-1,))
    return loc + scale_diag * u, scale_diag * np.exp(change)


def _diag_samples(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int]) -> tuple[Any, ...]:
    shape = (*batch_shape, extents["d"])
    loc, grad_loc, grad_scale_diag = rng.standard_normal((3, *shape))
    return loc, rng.uniform(0.5, 2, shape), grad_loc, grad_scale_diag


@op("(d),(d),(d),(d)->(d),(d)", attributes=_STEP, limits=_LIMITS, oracle=_diag_oracle, samples=_diag_samples)
def normal_diag_natural_step(loc, scale_diag, grad_loc, grad_scale_diag, step_size, new_loc, new_scale_diag):
    """One ascent step along the natural gradient of ``N(loc, diag(scale_diag)^2)``.

    Parameters
    ----------
    loc, scale_diag : array, shape (..., d)
        Scales positive.
    grad_loc, grad_scale_diag : array, shape (..., d)
        The gradient of what is maximized, in loc and in scale_diag.
    step_size : float

    Returns
    -------
    new_loc, new_scale_diag : array, shape (..., d)
        NaN in an event with a scale that is not positive or a gradient that is not finite.

    Notes
    -----
    The diagonal of :func:`normal_tril_natural_step`: ``u = step_size scale g`` clipped to norm 1 and
    ``A = step_size scale G / 2`` clipped to norm 0.5; ``loc + scale u`` and ``scale exp(A)``.
    """
    d = loc.shape[0]
    real = loc.dtype.type
    a = real(step_size)
    bad = poison(scale_diag)
    u = np.empty_like(loc)
    change = np.empty_like(loc)
    for i in range(d):
        u[i] = a * (scale_diag[i] * grad_loc[i])
        change[i] = a * (real(0.5) * (scale_diag[i] * grad_scale_diag[i]))
    shorter = _clip_factor(u, LONGEST_MOVE)
    smaller = _clip_factor(change, LONGEST_CHANGE)
    bad = bad + (shorter - shorter) + (smaller - smaller)
    shorter = shorter + bad
    smaller = smaller + bad
    for i in range(d):
        new_loc[i] = loc[i] + scale_diag[i] * (shorter * u[i])
        new_scale_diag[i] = scale_diag[i] * np.exp(smaller * change[i])
