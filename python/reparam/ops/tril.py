# SPDX-License-Identifier: MIT
"""Triangular solves, and lower factors from unconstrained vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .._op import op, real_positive, select


def positive_or_nan(scale):
    """The failure contract: the scale where it is > 0, NaN elsewhere."""
    return select(real_positive(scale), scale, np.nan)


def poison(diagonal):
    """0 where every scale is > 0, NaN elsewhere; added to an output it poisons that event alone."""
    total = diagonal.dtype.type(0)
    for i in range(diagonal.shape[0]):
        total = select(real_positive(diagonal[i]), total, np.nan)
    return total


def diagonal_of(scale_tril):
    """The d diagonal entries, as a view."""
    strides = scale_tril.strides
    return as_strided(scale_tril, scale_tril.shape[1:], (strides[0] + strides[1],) + strides[2:])  # noqa: RUF005


def solve_lower(scale_tril, x):
    """Solve in place: x <- L^-1 x."""
    d = scale_tril.shape[0]
    for i in range(d):
        total = x[i]
        for k in range(i):
            total = total - scale_tril[i, k] * x[k]
        x[i] = total / scale_tril[i, i]


def solve_lower_transposed(scale_tril, x):
    """Solve in place: x <- L^-T x."""
    d = scale_tril.shape[0]
    for i in range(d - 1, -1, -1):
        total = x[i]
        for k in range(i + 1, d):
            total = total - scale_tril[k, i] * x[k]
        x[i] = total / scale_tril[i, i]


def _solve_oracle(scale_tril: Any, b: Any, *, transpose: bool = False) -> Any:
    lower = np.tril(scale_tril)
    return np.linalg.solve(np.swapaxes(lower, -1, -2) if transpose else lower, b[..., None])[..., 0]


@op("tril(d),(d)->(d)", attributes={"transpose": False}, oracle=_solve_oracle)
def tril_solve(scale_tril, b, transpose, x):
    """Solve ``L x = b``, or ``L^T x = b``.

    Parameters
    ----------
    scale_tril : array, shape (..., d, d)
        Lower factor; only its lower triangle is read.
    b : array, shape (..., d)
        Right-hand sides.
    transpose : bool
        Solve with the transpose.

    Returns
    -------
    array, shape (..., d)
        NaN in an event whose diagonal is not positive.
    """
    bad = poison(diagonal_of(scale_tril))
    for i in range(b.shape[0]):
        x[i] = b[i] + bad
    if transpose:
        solve_lower_transposed(scale_tril, x)
    else:
        solve_lower(scale_tril, x)


@tril_solve.defvjp
def _(scale_tril, b, ct_x, transpose, ct_scale_tril, ct_b):
    d = b.shape[0]
    bad = poison(diagonal_of(scale_tril))
    x = np.empty_like(b)
    for i in range(d):
        x[i] = b[i] + bad
        ct_b[i] = ct_x[i] + bad
    if transpose:
        solve_lower_transposed(scale_tril, x)
        solve_lower(scale_tril, ct_b)
    else:
        solve_lower(scale_tril, x)
        solve_lower_transposed(scale_tril, ct_b)
    for i in range(d):
        for j in range(i + 1):
            ct_scale_tril[i, j] = -(x[i] * ct_b[j] if transpose else ct_b[i] * x[j])


def softplus(x):
    """log(1 + exp(x)) without overflow."""
    return select(x.real > 0, x, 0.0) + np.log1p(np.exp(-select(x.real > 0, x, -x)))


def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-select(x.real > 0, x, -x))
    return select(x.real > 0, 1 / (1 + small), small / (1 + small))


EXP, SOFTPLUS = 0, 1  # how a diagonal entry becomes a scale


def scale_of(v, diagonal, floor):
    """The scale of an unconstrained entry."""
    return (np.exp(v) if diagonal == EXP else softplus(v)) + floor


def _vector_oracle(vector: Any, *, diagonal: str = "exp", floor: float = 0.0, row_scaled: bool = False) -> Any:
    d = (int(np.sqrt(8 * vector.shape[-1] + 1)) - 1) // 2
    out = np.zeros((*vector.shape[:-1], d, d))
    rows, columns = np.tril_indices(d)
    out[..., rows, columns] = vector
    i = np.arange(d)
    scale = (np.exp if diagonal == "exp" else lambda v: np.logaddexp(0, v))(out[..., i, i]) + floor
    out = out * scale[..., None] if row_scaled else out
    out[..., i, i] = scale
    return out


_FROM_VECTOR = {"diagonal": ("exp", "softplus"), "floor": 0.0, "row_scaled": False}


@op("vec(d)->tril(d)", packable=True, attributes=_FROM_VECTOR, limits={"floor": (0.0, math.inf)}, oracle=_vector_oracle)
def tril_from_vector(vector, diagonal, floor, row_scaled, scale_tril):
    """Lower factors with positive diagonal from unconstrained vectors.

    Parameters
    ----------
    vector : array, shape (..., d (d + 1) / 2)
        Entries in the order of ``np.tril_indices(d)``.
    diagonal : {"exp", "softplus"}
        The map of the diagonal entries to scales.
    floor : float
        Added to the diagonal.
    row_scaled : bool
        Whether row i is multiplied by its scale: diag(scale) times a unit lower factor.

    Returns
    -------
    array, shape (..., d, d)
    """
    at = 0
    for i in range(scale_tril.shape[0]):
        scale = scale_of(vector[at + i], diagonal, floor)
        for j in range(i):
            scale_tril[i, j] = vector[at + j] * scale if row_scaled else vector[at + j]
        scale_tril[i, i] = scale
        at += i + 1


@tril_from_vector.defvjp
def _(vector, ct_scale_tril, diagonal, floor, row_scaled, ct_vector):
    at = 0
    for i in range(ct_scale_tril.shape[0]):
        v = vector[at + i]
        ct_scale = ct_scale_tril[i, i]
        for j in range(i):
            ct_vector[at + j] = ct_scale_tril[i, j]
            if row_scaled:
                ct_vector[at + j] = ct_scale_tril[i, j] * scale_of(v, diagonal, floor)
                ct_scale = ct_scale + ct_scale_tril[i, j] * vector[at + j]
        ct_vector[at + i] = ct_scale * (np.exp(v) if diagonal == EXP else sigmoid(v))
        at += i + 1
