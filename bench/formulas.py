# SPDX-License-Identifier: MIT
"""Densities and transforms as an expert writes them by hand for a compiler: JAX fuses them and places their outputs.

Gradients are in closed form: no autograd, no solve where the noise is known. Own factors are ``(B, d, d)``, a shared
one ``(d, d)``. What NumPy and torch do by hand stands in in_place.py.
"""

from __future__ import annotations

import math
from typing import Any

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def namespace(x: Any) -> Any:
    """The module whose functions take this array."""
    kind = type(x).__module__.partition(".")[0]
    if kind == "torch":
        import torch

        return torch
    if kind == "numpy":
        import numpy

        return numpy
    import jax.numpy

    return jax.numpy


def diagonal_of(matrix: Any) -> Any:
    """The diagonals of a batch of matrices; torch and NumPy give views."""
    xp = namespace(matrix)
    return matrix.diagonal(dim1=-2, dim2=-1) if xp.__name__ == "torch" else xp.diagonal(matrix, axis1=-2, axis2=-1)


def add_to_diagonal(matrix: Any, entries: Any) -> Any:
    """Of NumPy in place, of JAX as a new array."""
    i, xp = range(matrix.shape[-1]), namespace(matrix)
    if xp.__name__ == "numpy":
        matrix[..., i, i] += entries
        return matrix
    return matrix + entries[..., None] * xp.eye(len(i), dtype=entries.dtype)


def solve_lower(factor: Any, b: Any, transposed: bool = False) -> Any:
    """``L^-1 b`` of matrices ``b``, or ``L^-T b``."""
    import jax.scipy.linalg

    return jax.scipy.linalg.solve_triangular(factor, b, lower=True, trans=int(transposed))


# ---- own factors


def tril_solve(b: Any, _: Any, factor: Any) -> Any:
    """``L^-1 b`` of vectors; what stands between is loc, which the other formulas have."""
    return solve_lower(factor, b[..., None])[..., 0]


def log_prob(value: Any, loc: Any, factor: Any) -> Any:
    """One triangular solve."""
    xp = namespace(value)
    y = tril_solve(value - loc, None, factor)
    return -0.5 * (y * y).sum(-1) - xp.log(diagonal_of(factor)).sum(-1) - value.shape[-1] * HALF_LOG_2PI


def log_prob_and_gradient(value: Any, loc: Any, factor: Any) -> Any:
    """Two triangular solves and an outer product."""
    xp = namespace(value)
    y = solve_lower(factor, (value - loc)[..., None])
    z = solve_lower(factor, y, transposed=True)
    diagonal = diagonal_of(factor)
    density = -0.5 * (y * y).sum((-2, -1)) - xp.log(diagonal).sum(-1) - value.shape[-1] * HALF_LOG_2PI
    ct_factor = add_to_diagonal(xp.tril(z * y.mT), -1 / diagonal)
    return density, -z[..., 0], z[..., 0], ct_factor


def unrolled_log_prob_and_gradient(value: Any, loc: Any, factor: Any) -> Any:
    """The same, entry by entry, over the batch in the last dim."""
    import jax.numpy as jnp

    d = value.shape[0]
    inverse = [1 / factor[i, i] for i in range(d)]
    y: list[Any] = []
    for i in range(d):
        y.append((value[i] - loc[i] - sum(factor[i, j] * y[j] for j in range(i))) * inverse[i])
    z: list[Any] = [None] * d
    for i in reversed(range(d)):
        z[i] = (y[i] - sum(factor[j, i] * z[j] for j in range(i + 1, d))) * inverse[i]
    density = -0.5 * sum(x * x for x in y) - sum(jnp.log(factor[i, i]) for i in range(d)) - d * HALF_LOG_2PI
    zero = jnp.zeros_like(y[0])
    rows = [
        [z[i] * y[j] if j < i else z[i] * y[i] - inverse[i] if j == i else zero for j in range(d)] for i in range(d)
    ]
    stacked = jnp.stack(z)
    return density, -stacked, stacked, jnp.stack([jnp.stack(row) for row in rows])


def unrolled_log_prob(value: Any, loc: Any, factor: Any) -> Any:
    """The forward half alone; the compiler drops the rest."""
    return unrolled_log_prob_and_gradient(value, loc, factor)[0]


def transform(noise: Any, loc: Any, factor: Any) -> Any:
    """``loc + L noise``."""
    return loc + (factor @ noise[..., None])[..., 0]


def noise_log_prob(noise: Any, diagonal: Any) -> Any:
    """Log density of ``loc + L noise``, which needs no solve."""
    xp = namespace(noise)
    return -0.5 * (noise * noise).sum(-1) - xp.log(diagonal).sum(-1) - noise.shape[-1] * HALF_LOG_2PI


def transform_and_log_prob(noise: Any, loc: Any, factor: Any) -> Any:
    """Both."""
    return transform(noise, loc, factor), noise_log_prob(noise, diagonal_of(factor))


# ---- one shared factor and many values


def shared_log_prob(value: Any, loc: Any, factor: Any) -> Any:
    """One product with the inverse factor, as scikit-learn's mixtures do it."""
    xp = namespace(value)
    y = (value - loc) @ xp.linalg.inv(factor).mT
    return -0.5 * (y * y).sum(-1) - xp.log(diagonal_of(factor)).sum(-1) - value.shape[-1] * HALF_LOG_2PI


def shared_log_prob_and_gradient(value: Any, loc: Any, factor: Any) -> Any:
    """Three products: y, z, and the sum of z y^T."""
    xp = namespace(value)
    inverse = xp.linalg.inv(factor)
    y = (value - loc) @ inverse.mT
    z = y @ inverse
    diagonal = diagonal_of(factor)
    density = -0.5 * (y * y).sum(-1) - xp.log(diagonal).sum(-1) - value.shape[-1] * HALF_LOG_2PI
    ct_factor = add_to_diagonal(xp.tril(z.mT @ y), -len(value) / diagonal)
    return density, -z, z.sum(0), ct_factor


def shared_transform(noise: Any, loc: Any, factor: Any) -> Any:
    """One product."""
    return loc + noise @ factor.mT


def shared_transform_and_log_prob(noise: Any, loc: Any, factor: Any) -> Any:
    """Both."""
    return shared_transform(noise, loc, factor), noise_log_prob(noise, diagonal_of(factor))


# ---- diagonal and scalar scales


def diag_log_prob_and_gradient(value: Any, loc: Any, scale: Any) -> Any:
    """Log density of a diagonal Gaussian with its gradients; scalar events have no event dim to sum over."""
    density, *gradients = scalar_log_prob_and_gradient(value, loc, scale)
    return density.sum(-1), *gradients


def scalar_log_prob_and_gradient(value: Any, loc: Any, scale: Any) -> Any:
    """Of one coordinate."""
    xp = namespace(value)
    inverse = 1 / scale
    y = (value - loc) * inverse
    z = y * inverse
    return -0.5 * y * y - xp.log(scale) - HALF_LOG_2PI, -z, z, y * z - inverse


def diag_transform_and_log_prob(noise: Any, loc: Any, scale: Any) -> Any:
    """``loc + scale noise`` and its log density."""
    return loc + scale * noise, noise_log_prob(noise, scale)


def scalar_transform_and_log_prob(noise: Any, loc: Any, scale: Any) -> Any:
    """Of one coordinate."""
    xp = namespace(noise)
    return loc + scale * noise, -0.5 * noise * noise - xp.log(scale) - HALF_LOG_2PI
