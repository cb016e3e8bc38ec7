# SPDX-License-Identifier: MIT
"""Log densities of many values ``(n, 1, d)`` under each of K Gaussians, as an expert writes them: ``(n, K)``.

Whitening is a matrix product with the inverse factors, component by component or with all of them at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .formulas import HALF_LOG_2PI, diagonal_of
from .in_place import Round, in_numpy, in_torch, log_det, sum_of_squares

__all__ = ["at_once", "compiled", "in_numpy", "in_torch", "one_by_one", "reference"]
CHECKED = 100  # values that the reference answers


def one_by_one(xp: Any, value: Any, loc: Any, factor: Any) -> Round:
    """A product for each component, which stays in the caches; densities by components first, as they are made."""
    x, d = value[:, 0], loc.shape[-1]
    y, densities = xp.empty_like(x), xp.empty((len(loc), len(x)), dtype=x.dtype)

    def run() -> Any:
        inverses = xp.linalg.inv(factor)
        constants = log_det(xp, factor) + d * HALF_LOG_2PI
        for k in range(len(loc)):
            xp.matmul(x, inverses[k].T, out=y)
            xp.subtract(y, inverses[k] @ loc[k], out=y)
            sum_of_squares(xp, y, densities[k])
        xp.multiply(densities, -0.5, out=densities)
        return xp.subtract(densities, constants[:, None], out=densities).T

    return run


def at_once(xp: Any, value: Any, loc: Any, factor: Any) -> Round:
    """One product for all components."""
    x, (k, d) = value[:, 0], loc.shape
    y, densities = xp.empty((len(x), k * d), dtype=x.dtype), xp.empty((len(x), k), dtype=x.dtype)

    def run() -> Any:
        inverses = xp.linalg.inv(factor)
        xp.matmul(x, inverses.reshape(k * d, d).T, out=y)
        xp.subtract(y, (inverses @ loc[..., None]).reshape(-1), out=y)
        sum_of_squares(xp, y.reshape(-1, k, d), densities)
        xp.multiply(densities, -0.5, out=densities)
        return xp.subtract(densities, log_det(xp, factor) + d * HALF_LOG_2PI, out=densities)

    return run


def compiled(value: Any, loc: Any, factor: Any) -> Any:
    """One product for all components, for a compiler."""
    import jax.numpy as jnp

    k, d = loc.shape
    inverses = jnp.linalg.inv(factor)
    y = value[:, 0] @ inverses.reshape(k * d, d).T - (inverses @ loc[..., None]).reshape(-1)
    squares = (y * y).reshape(-1, k, d).sum(-1)
    return -0.5 * squares - jnp.log(diagonal_of(factor)).sum(-1) - d * HALF_LOG_2PI


def reference(value: np.ndarray, loc: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the first values, in float64, by the general solve."""
    value, loc, factor = (x.astype(np.float64) for x in (value[:CHECKED], loc, factor))
    y = np.linalg.solve(factor, (value - loc)[..., None])[..., 0]
    log_dets = np.log(np.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)
    return (-0.5 * (y**2).sum(-1) - log_dets - value.shape[-1] * HALF_LOG_2PI,)
