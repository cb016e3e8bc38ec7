# SPDX-License-Identifier: MIT
"""Errors as the promises of accuracy count them, and LAPACK's test matrices.

``u`` is the unit roundoff of the result's type. Norms are 1-norms, as in LAPACK's tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .problems import UNIT

__all__ = [
    "EVENTS", "ZERO_ROW", "cholesky_residual", "different", "factors", "lapack_matrices", "product_residual",
    "relative_error", "spd", "value_error", "wide",
]  # fmt: skip

Array = NDArray[Any]
EVENTS = 37  # two vectors of 16 and a tail


def wide(array: Any) -> Array:
    """The same numbers in more digits than the arithmetic under test has."""
    given = np.asarray(array)
    return np.asarray(given, np.float64 if given.dtype == np.float32 else np.longdouble)


# ---- test matrices


def spd(rng: np.random.Generator, batch: int, d: int, condition: float, norm: float = 1.0) -> Array:
    """Symmetric matrices with eigenvalues in geometric progression, as LAPACK's generator makes them."""
    eigenvalues = condition ** -np.linspace(0, 1, d) if d > 1 else np.ones(1)
    basis = np.linalg.qr(rng.standard_normal((batch, d, d)))[0]
    a = (basis * eigenvalues) @ basis.swapaxes(-1, -2)
    return np.asarray((a + a.swapaxes(-1, -2)) / 2 * norm)


def factors(rng: np.random.Generator, d: int, dtype: str, condition: float = 1e3, batch: int = EVENTS) -> Array:
    """Lower factors of this condition."""
    return np.linalg.cholesky(spd(rng, batch, d, condition**2)).astype(dtype)


def lapack_matrices(kind: int, rng: np.random.Generator, d: int, dtype: str) -> Array:
    """Matrices of one of the nine types of LAPACK's dlatb4; types 3 to 5 have a row and column of zeros."""
    info = np.finfo(dtype)
    small = 0.25 * float(info.tiny) / float(info.eps)
    if kind == 1:
        return np.asarray(rng.uniform(0.5, 4.0, (EVENTS, d))[..., None] * np.eye(d)).astype(dtype)
    condition = {6: float(np.sqrt(0.1 / info.eps)), 7: float(0.1 / info.eps)}.get(kind, 2.0)
    a = spd(rng, EVENTS, d, condition, {8: small, 9: 1 / small}.get(kind, 1.0)).astype(dtype)
    if kind in ZERO_ROW:
        k = ZERO_ROW[kind](d)
        a[:, k, :] = a[:, :, k] = 0
    return a


#: By type: the row and column of zeros, whose minor is the first that is not positive.
ZERO_ROW: dict[int, Callable[[int], int]] = {3: lambda d: 0, 4: lambda d: d - 1, 5: lambda d: d // 2}


# ---- errors by event


def norm1(a: Array) -> Array:
    """Largest column sum of a matrix, by event."""
    return np.asarray(np.abs(a).sum(axis=-2).max(axis=-1))


def cholesky_residual(a: Array, scale_tril: Array) -> Array:
    """``norm(L L^T - A) / (d norm(A) u)``; of A the lower triangle counts."""
    d, unit = a.shape[-1], UNIT[str(scale_tril.dtype)]
    factor, exact = wide(scale_tril), np.tril(wide(a))
    exact = exact + np.tril(exact, -1).swapaxes(-1, -2)
    return np.asarray(norm1(factor @ factor.swapaxes(-1, -2) - exact) / (d * norm1(exact) * unit))


def product_residual(b: Array, matrix: Array, x: Array, loc: Any = 0.0) -> Array:
    """``norm(b - loc - M x) / ((norm(loc) + norm(M) norm(x)) d u)`` for vectors b, x and loc of one type."""
    d, unit = x.shape[-1], UNIT[str(np.asarray(b).dtype)]
    m, v, shift = wide(matrix), wide(x), np.abs(wide(loc))
    residual = np.abs(wide(b) - wide(loc) - np.einsum("bij,bj->bi", m, v)).sum(axis=-1)
    size = shift.sum(axis=-1) + norm1(m) * np.abs(v).sum(axis=-1)
    return np.asarray(residual / (size * unit * d))


def relative_error(actual: Array, expected: Array, events: int = 1) -> Array:
    """Largest error relative to the largest entry, by event; ``events=0`` takes the array as one."""
    axes = tuple(range(events, np.ndim(expected)))
    error, size = np.abs(actual - expected).max(axis=axes), np.abs(expected).max(axis=axes)
    return np.asarray(error / size)


def value_error(actual: Array, exact: Any, size: int) -> Array:
    """``abs(error) / (size u max(1, abs(exact)))``; the exact answers may be numbers of mpmath."""
    expected = np.asarray(exact)
    given = actual.astype(np.float64).astype(object) if expected.dtype == object else wide(actual)
    scale = np.maximum(1.0, np.abs(expected.astype(np.float64))) * (size * UNIT[str(actual.dtype)])
    return np.asarray(np.abs(given - expected).astype(np.float64) / scale)


def different(actual: Any, expected: Any) -> int:
    """Number of entries whose bits differ; a NaN is like any other."""
    one, two = np.asarray(actual), np.asarray(expected)
    if one.shape != two.shape or one.dtype != two.dtype:
        return max(one.size, two.size, 1)
    if one.dtype.kind != "f":
        return int(np.count_nonzero(one != two))
    bits = f"u{one.itemsize}"
    same = np.ascontiguousarray(one).view(bits) == np.ascontiguousarray(two).view(bits)
    return int(np.count_nonzero(~(same.reshape(one.shape) | (np.isnan(one) & np.isnan(two)))))
