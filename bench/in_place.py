# SPDX-License-Identifier: MIT
"""Densities and transforms as an expert writes them in NumPy and torch: in place, with outputs that are kept.

A large output that is new in every call costs page faults, often more than the work. The two libraries name what is
needed here alike, so a formula ``(xp, *operands)`` stands once and gives the function of one round. Gradients are in
closed form: no autograd, no solve where the noise is known. Own factors are ``(B, d, d)``, a shared one ``(d, d)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import rivals
from .formulas import HALF_LOG_2PI, diagonal_of

Round = Callable[[], Any]
Formula = Callable[..., Round]


def in_numpy(formula: Formula) -> rivals.Build:
    """The formula on NumPy arrays."""
    return lambda *inputs: formula(np, *inputs)


def in_torch(formula: Formula) -> rivals.Build:
    """The formula on tensors over the same memory."""

    def build(*inputs: np.ndarray) -> Round:
        import torch

        return formula(torch, *rivals.tensors(inputs))

    return build


def _vector(xp: Any, like: Any) -> Any:
    """Room for one number of each row."""
    return xp.empty_like(like[..., 0])


def sum_of_squares(xp: Any, y: Any, out: Any) -> None:
    """Over the last dim."""
    if xp is np:  # whose sum over a short last dim is slow
        np.einsum("...i,...i->...", y, y, out=out)
    else:
        xp.linalg.vecdot(y, y, out=out)


def _finish_density(xp: Any, squares: Any, log_det: Any, d: int) -> Any:
    """``-squares / 2 - log_det - d log(2 pi) / 2`` where the squares stand."""
    squares *= -0.5
    squares -= log_det
    squares -= d * HALF_LOG_2PI
    return squares


def log_det(xp: Any, factor: Any) -> Any:
    """Of lower factors."""
    return xp.log(diagonal_of(factor)).sum(-1)


# ---- own factors; NumPy has no triangular solve


def tril_solve(torch: Any, b: Any, _: Any, factor: Any) -> Round:
    """``L^-1 b``."""
    y = torch.empty_like(b)[..., None]

    def run() -> Any:
        torch.linalg.solve_triangular(factor, b[..., None], upper=False, out=y)
        return y[..., 0]

    return run


def log_prob(torch: Any, value: Any, loc: Any, factor: Any) -> Round:
    """One triangular solve."""
    difference, density = torch.empty_like(value), _vector(torch, value)
    solve = tril_solve(torch, difference, None, factor)

    def run() -> Any:
        torch.subtract(value, loc, out=difference)
        sum_of_squares(torch, solve(), density)
        return _finish_density(torch, density, log_det(torch, factor), value.shape[-1])

    return run


def log_prob_and_gradient(torch: Any, value: Any, loc: Any, factor: Any) -> Round:
    """Two triangular solves and an outer product."""
    difference, density, ct_value = torch.empty_like(value), _vector(torch, value), torch.empty_like(value)
    z, ct_factor = torch.empty_like(value)[..., None], torch.empty_like(factor)
    solve = tril_solve(torch, difference, None, factor)

    def run() -> Any:
        torch.subtract(value, loc, out=difference)
        y = solve()
        torch.linalg.solve_triangular(factor.mT, y[..., None], upper=True, out=z)
        sum_of_squares(torch, y, density)
        torch.multiply(z, y[..., None, :], out=ct_factor)
        ct_factor.tril_()
        diagonal = diagonal_of(ct_factor)
        diagonal -= diagonal_of(factor).reciprocal()
        torch.negative(z[..., 0], out=ct_value)
        _finish_density(torch, density, log_det(torch, factor), value.shape[-1])
        return density, ct_value, z[..., 0], ct_factor

    return run


def transform(xp: Any, noise: Any, loc: Any, factor: Any) -> Round:
    """``loc + L noise``."""
    z = xp.empty_like(noise)

    def run() -> Any:
        xp.matmul(factor, noise[..., None], out=z[..., None])
        return xp.add(z, loc, out=z)

    return run


def _with_noise_log_prob(transform: Formula) -> Formula:
    """A transform and the log density of its result, which needs no solve."""

    def formula(xp: Any, noise: Any, loc: Any, factor: Any) -> Round:
        move, density = transform(xp, noise, loc, factor), _vector(xp, noise)

        def run() -> Any:
            sum_of_squares(xp, noise, density)
            return move(), _finish_density(xp, density, log_det(xp, factor), noise.shape[-1])

        return run

    return formula


transform_and_log_prob = _with_noise_log_prob(transform)


# ---- one shared factor and many values


def shared_log_prob(xp: Any, value: Any, loc: Any, factor: Any) -> Round:
    """One product with the inverse factor, as scikit-learn's mixtures do it."""
    y, density = xp.empty_like(value), _vector(xp, value)

    def run() -> Any:
        inverse = xp.linalg.inv(factor)
        xp.matmul(value, inverse.T, out=y)
        xp.subtract(y, inverse @ loc, out=y)
        sum_of_squares(xp, y, density)
        return _finish_density(xp, density, log_det(xp, factor), value.shape[-1])

    return run


def shared_log_prob_and_gradient(xp: Any, value: Any, loc: Any, factor: Any) -> Round:
    """Three products: y, z, and the sum of z y^T."""
    y, z, density, d = xp.empty_like(value), xp.empty_like(value), _vector(xp, value), value.shape[-1]

    def run() -> Any:
        inverse = xp.linalg.inv(factor)
        xp.matmul(value, inverse.T, out=y)
        xp.subtract(y, inverse @ loc, out=y)
        xp.matmul(y, inverse, out=z)
        sum_of_squares(xp, y, density)
        ct_loc = z.sum(0)
        ct_factor = xp.tril(z.T @ y) - len(value) * xp.diag(1 / diagonal_of(factor))
        _finish_density(xp, density, log_det(xp, factor), d)
        return density, xp.negative(z, out=z), ct_loc, ct_factor

    return run


def shared_transform(xp: Any, noise: Any, loc: Any, factor: Any) -> Round:
    """One product."""
    z = xp.empty_like(noise)

    def run() -> Any:
        if xp is not np:
            return xp.addmm(loc, noise, factor.T, out=z)
        np.matmul(noise, factor.T, out=z)
        return np.add(z, loc, out=z)

    return run


shared_transform_and_log_prob = _with_noise_log_prob(shared_transform)


# ---- diagonal and scalar scales


def scalar_log_prob_and_gradient(xp: Any, value: Any, loc: Any, scale: Any) -> Round:
    """Of one coordinate."""
    inverse, y, z, density, ct_value, ct_scale = (xp.empty_like(value) for _ in range(6))

    def run() -> Any:
        xp.reciprocal(scale, out=inverse)
        xp.subtract(value, loc, out=y)
        xp.multiply(y, inverse, out=y)
        xp.multiply(y, inverse, out=z)
        xp.negative(z, out=ct_value)
        xp.multiply(y, z, out=ct_scale)
        xp.subtract(ct_scale, inverse, out=ct_scale)
        xp.square(y, out=density)
        return _finish_density(xp, density, xp.log(scale, out=y), 1), ct_value, z, ct_scale

    return run


def diag_log_prob_and_gradient(xp: Any, value: Any, loc: Any, scale: Any) -> Round:
    """Log density of a diagonal Gaussian with its gradients."""
    each, density = scalar_log_prob_and_gradient(xp, value, loc, scale), _vector(xp, value)
    ones = xp.ones_like(value[0])

    def run() -> Any:
        densities, *gradients = each()
        return xp.matmul(densities, ones, out=density), *gradients  # the fastest sum over a short last dim

    return run


def scalar_transform_and_log_prob(xp: Any, noise: Any, loc: Any, scale: Any) -> Round:
    """``loc + scale noise`` and its log density, of one coordinate."""
    z, density, logs = (xp.empty_like(noise) for _ in range(3))

    def run() -> Any:
        xp.multiply(scale, noise, out=z)
        xp.add(z, loc, out=z)
        xp.square(noise, out=density)
        return z, _finish_density(xp, density, xp.log(scale, out=logs), 1)

    return run


def diag_transform_and_log_prob(xp: Any, noise: Any, loc: Any, scale: Any) -> Round:
    """``loc + scale noise`` and its log density."""
    z, logs, density = xp.empty_like(noise), xp.empty_like(noise), _vector(xp, noise)
    ones = xp.ones_like(noise[0])

    def run() -> Any:
        xp.multiply(scale, noise, out=z)
        xp.add(z, loc, out=z)
        sum_of_squares(xp, noise, density)
        return z, _finish_density(xp, density, xp.log(scale, out=logs) @ ones, noise.shape[-1])

    return run
