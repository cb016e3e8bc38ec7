# SPDX-License-Identifier: MIT
"""Integrals over one or two latents, row by row, without chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_integral", "normal_nodes"]

Array = NDArray[Any]
LogDensity = Callable[[Array, Array], Array]  # rows (C,) and values (S, C, d) to (S, C)
ORDER = 5  # points of a cell along an axis
DEEPEST = 40  # halvings of a cell
MOST_CELLS = 2048  # of one row at once
NEGLIGIBLE = -60.0  # log of the share of a cell that is left as it is
WORST = 0.01  # share of a row's integral that a cell may be wrong by
DENSITIES_AT_ONCE = 32_768


def _product(points: Array, weights: Array, d: int) -> tuple[Array, Array]:
    """Nodes (S, d) and log weights (S,) of d axes with the same rule."""
    grids = np.meshgrid(*[points] * d, indexing="ij")
    logs = np.meshgrid(*[np.log(weights)] * d, indexing="ij")
    return np.stack([g.ravel() for g in grids], -1), np.sum([w.ravel() for w in logs], 0)


def normal_nodes(d: int, order: int = 32) -> tuple[Array, Array]:
    """Gauss-Hermite: nodes (S, d) and weights (S,) of an expectation under N(0, I).

    Golub and Welsch, Math. Comp. 23 (1969).
    """
    points, weights = np.polynomial.hermite_e.hermegauss(order)
    nodes, logs = _product(points, weights / weights.sum(), d)
    return nodes, np.exp(logs)


def _log_sum(logs: Array, axis: int) -> Array:
    most = logs.max(axis, keepdims=True)
    shift = np.where(np.isfinite(most), most, 0)
    result: Array = (shift + np.log(np.exp(logs - shift).sum(axis, keepdims=True))).squeeze(axis)
    return result


class _Cells:
    """Boxes of some rows: the log of each one's integral by Gauss-Legendre, and of its largest density times volume."""

    def __init__(self, log_density: LogDensity, rows: Array, center: Array, half: Array) -> None:
        self.log_density, self.rows, self.center, self.half = log_density, rows, center, half
        nodes, log_weights = _product(*np.polynomial.legendre.leggauss(ORDER), center.shape[1])
        volume = np.log(half).sum(-1)
        self.value, self.largest = np.empty(len(rows)), np.empty(len(rows))
        for k in range(0, len(rows), size := max(1, DENSITIES_AT_ONCE // len(nodes))):
            part = slice(k, k + size)
            value = center[part] + half[part] * nodes[:, None]
            log_prob = log_density(rows[part], value).astype(np.float64)
            self.value[part] = _log_sum(log_prob + log_weights[:, None], 0) + volume[part]
            self.largest[part] = log_prob.max(0) + volume[part] + center.shape[1] * np.log(2)

    def take(self, chosen: Array) -> _Cells:
        part = object.__new__(_Cells)
        part.log_density = self.log_density
        for name in ("rows", "center", "half", "value", "largest"):
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def split(self) -> _Cells:
        """2^d children of each, one after the other."""
        d = self.center.shape[1]
        signs = np.stack([g.ravel() for g in np.meshgrid(*[[-0.5, 0.5]] * d, indexing="ij")], -1)
        center = (self.center[:, None] + signs * self.half[:, None]).reshape(-1, d)
        half = np.repeat(self.half / 2, len(signs), 0)
        return _Cells(self.log_density, np.repeat(self.rows, len(signs)), center, half)


@np.errstate(divide="ignore", invalid="ignore", over="ignore")  # NaN and zero densities are data
def log_integral(log_density: LogDensity, edges: Array, precision: float) -> tuple[Array, Array]:
    """Log of the integral of exp(log_density) for each row, by adaptive cubature over a box.

    Cells start between the ``edges`` and are halved along each axis until their integral by Gauss-Legendre is that of
    their halves, to the precision of the row's whole: several modes are found, but for one far narrower than a cell
    where no other draws attention to it. A cell whose share is below e^-60 is left as it is.

    Parameters
    ----------
    log_density : callable
        ``log_density(rows (C,), value (S, C, d)) -> (S, C)``, ``rows`` the numbers of the rows.
    edges : array, shape (n, d, m)
        Along each axis, increasing.
    precision : float
        Relative, of the integral or of its logarithm, whichever is larger; but 1% of the integral at most.

    Returns
    -------
    value : ndarray, shape (n,), float64
    converged : ndarray of bool, shape (n,)
        False for a density that is NaN, zero everywhere or too rough.
    """
    n, d, m = edges.shape
    corners = np.stack([g.ravel() for g in np.meshgrid(*[np.arange(m - 1)] * d, indexing="ij")], -1)
    axes = np.arange(d)
    low, high = edges[:, axes, corners], edges[:, axes, corners + 1]  # (n, cells, d)
    rows = np.repeat(np.arange(n), len(corners))
    cells = _Cells(log_density, rows, ((low + high) / 2).reshape(-1, d), ((high - low) / 2).reshape(-1, d))
    done, converged = np.full(n, -np.inf), np.ones(n, bool)
    for _ in range(DEEPEST):
        whole = done.copy()
        np.logaddexp.at(whole, cells.rows, cells.value)
        negligible = cells.largest < whole[cells.rows] + NEGLIGIBLE
        crowded = np.bincount(cells.rows[~negligible], minlength=n) > MOST_CELLS
        converged &= ~crowded
        final = negligible | crowded[cells.rows]
        np.logaddexp.at(done, cells.rows[final], cells.value[final])
        cells = cells.take(~final)
        if not len(cells.rows):
            break
        halves = cells.split()
        joined = _log_sum(halves.value.reshape(len(cells.rows), -1), 1)
        total = whole[cells.rows]
        error = np.abs(np.exp(joined - total) - np.exp(cells.value - total))
        same = error <= np.minimum(precision * np.maximum(1, np.abs(total)), WORST)
        np.logaddexp.at(done, cells.rows[same], joined[same])
        cells = halves.take(np.repeat(~same, 2**d))
    converged[cells.rows] = False
    np.logaddexp.at(done, cells.rows, cells.value)
    return done, converged & np.isfinite(done)
