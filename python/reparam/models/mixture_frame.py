# SPDX-License-Identifier: MIT
"""The coordinates in which EM works: rows centred and whitened, so that moments do not cancel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import move, namespace_of, to_numpy

__all__ = ["Frame", "covariances_of", "precision_factors"]

Array = NDArray[Any]
ROWS_AT_ONCE = 4096
#: Added to the diagonal of the correlations: rows that are linearly dependent have a frame too.
RIDGE = 1e-10
#: Of a coordinate of y, relative to the largest: what stands below it is no variance of the data.
ROUNDING = 8 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Frame:
    """``x = loc + T y`` for columns x and y, where y has mean 0 and the covariance I.

    T is a lower factor (d, d), or a diagonal (d,) for components whose axes are those of x. The covariance is that of
    all rows plus ``reg_covar`` on its diagonal; where it has no inverse, y has a variance below 1 in some directions.
    ``peak`` is the largest ``|x - loc|`` of each feature. All three are NumPy's; x and y may be CuPy's.
    """

    loc: Array
    scale: Array
    peak: Array

    @classmethod
    def of(cls, x: Array, reg_covar: float, *, whiten: bool) -> Frame:
        """The frame of rows (n, d)."""
        with np.errstate(over="ignore", invalid="ignore"):
            center = x.mean(0, dtype=np.float64)
            highest = np.zeros_like(center)
            for at in _blocks(len(x)):
                np.maximum(highest, np.abs(x[at] - center).max(0), out=highest)
        loc, peak = to_numpy(center), to_numpy(highest)
        if not np.isfinite(peak).all():
            raise ValueError("GaussianMixture: x must be of a scale whose sums float64 holds, got larger numbers")
        unit = np.where(peak > 0, peak, 1)  # so that no square overflows
        products, of_unit = namespace_of(x).zeros((len(loc), len(loc))), move(unit, x)
        for at in _blocks(len(x)):
            centred = (x[at] - center) / of_unit
            products += centred.T @ centred
        second = to_numpy(products)
        second /= len(x)
        spread = np.hypot(unit * np.sqrt(np.diagonal(second)), np.sqrt(reg_covar))
        spread[spread == 0] = 1
        if not whiten:
            return cls(loc, spread, peak)
        share = unit / spread
        correlation = second * share * share[:, None]
        correlation[np.diag_indices(len(loc))] = 1 + RIDGE
        return cls(loc, spread[:, None] * ops.cholesky(correlation), peak)

    @property
    def whitens(self) -> bool:
        """Whether T is a matrix."""
        return self.scale.ndim == 2

    def enter(self, x: Array) -> Array:
        """Rows (n, d) as columns y (d, n), in float64."""
        y: Array = namespace_of(x).empty(x.shape[::-1])
        inverse = ops.tril_solve(self.scale, np.eye(len(self.loc))) if self.whitens else self.scale  # T^-T
        loc, matrix = move(self.loc, x), move(inverse, x)
        for at in _blocks(len(x)):
            centred = x[at] - loc
            y[:, at] = (centred @ matrix if self.whitens else centred / matrix).T
        return y

    def enter_means(self, means: Array) -> Array:
        """Means (K, d) in y."""
        centred = means - self.loc
        return np.asarray(ops.tril_solve(self.scale, centred) if self.whitens else centred / self.scale)

    def leave_means(self, means: Array) -> Array:
        """Means (K, d) of y in x."""
        return np.asarray(self.loc + (means @ self.scale.T if self.whitens else means * self.scale))

    def enter_factors(self, factors: Array) -> Array:
        """Factors U of precisions ``U U^T`` of x, in y: ``T^T U``, which is upper triangular as U is."""
        result: Array = self.scale.T @ factors if self.whitens else self.scale * factors
        return result

    def leave_factors(self, factors: Array) -> Array:
        """Factors of precisions of y in x: ``T^-T U``."""
        if not self.whitens:
            return factors / self.scale
        columns = ops.tril_solve(self.scale, np.ascontiguousarray(factors.swapaxes(-1, -2)), transpose=True)
        return np.triu(columns.swapaxes(-1, -2))

    def rounding(self, factors: Array) -> Array:
        """Squared Mahalanobis distance that the rounding of x may make, by component."""
        error = ROUNDING * self.peak
        made = self.leave_factors(factors) * (error if factors.ndim == 2 else error[:, None])
        return np.asarray(np.square(made).sum(tuple(range(1, factors.ndim))))

    def leave_covariances(self, covariances: Array) -> Array:
        """Covariances of y in x: ``T C T^T``, symmetric to the bit."""
        if not self.whitens:
            return np.asarray(covariances * self.scale * self.scale)
        made = self.scale @ covariances @ self.scale.T
        return np.asarray((made + made.swapaxes(-1, -2)) / 2)

    def ridge(self, reg_covar: float) -> Array:
        """``reg_covar`` on the diagonal of covariances of x, as covariances of y have it."""
        if not self.whitens:
            return np.asarray((np.sqrt(reg_covar) / self.scale) ** 2)
        inverse = np.sqrt(reg_covar) * ops.tril_solve(self.scale, np.eye(len(self.loc)))
        return np.asarray(inverse.T @ inverse)


def covariances_of(factors: Array) -> Array:
    """Covariances of precisions ``U U^T``."""
    if factors.ndim == 2:
        return 1 / factors**2
    lower = np.ascontiguousarray(factors.swapaxes(-1, -2))
    inverse = ops.tril_solve(lower[:, None], np.eye(factors.shape[-1]))  # U^-1
    return np.asarray(inverse.swapaxes(-1, -2) @ inverse)


def precision_factors(covariances: Array) -> Array:
    """Upper triangular U with ``U U^T`` the inverse of each covariance, NaN where it has none."""
    if covariances.ndim == 2:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(covariances > 0, 1 / np.sqrt(covariances), np.nan)
    scale_tril, _ = ops.cholesky_ex(covariances)
    return np.asarray(ops.tril_solve(scale_tril[:, None], np.eye(covariances.shape[-1])))


def _blocks(n: int) -> Any:
    return (slice(k, k + ROWS_AT_ONCE) for k in range(0, n, ROWS_AT_ONCE))
