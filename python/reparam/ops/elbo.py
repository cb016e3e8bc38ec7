# SPDX-License-Identifier: MIT
"""The Monte Carlo ELBO and its gradient, estimator "pathwise" (closed-form entropy), as in csrc/ops/elbo.hpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op, select
from .normal_diag import normal_diag_transform
from .normal_tril import HALF_LOG_2PI, log_det, normal_tril_transform, square_norm
from .tril import diagonal_of, positive_or_nan


def _mean(terms, n):
    """Sum over draws, over n: in order in blocks of 64, blocks joined with their rounding errors kept (two-sum)."""
    total = error = np.zeros_like(terms[0])
    for first in range(0, len(terms), 64):
        block = terms[first]
        for term in terms[first + 1 : first + 64]:
            block = block + term
        joined = total + block
        part = joined - total
        error = error + ((total - (joined - part)) + (block - part))
        total = joined
    return select(np.isnan(error), total, total + error) / n  # an infinite sum has no error


def _accumulate(noise, log_prob, grad, diagonal, outputs):
    """Value, standard error, weights and gradients from ``log p(x, z_s)`` and its gradients ``[s, d]``."""
    log_weights, value, standard_error, ct_loc, ct_scale = outputs
    draws, d = noise.shape[:2]
    det = log_det(diagonal)
    bad = det - det
    for s in range(draws):
        log_weights[s] = log_prob[s] + (det + 0.5 * square_norm(noise[s]) + d * HALF_LOG_2PI)
    mean = _mean(log_prob, draws)
    value[0] = mean + det + d * (0.5 + HALF_LOG_2PI)
    variance = _mean((log_prob - mean) * (log_prob - mean), draws * (draws - 1)) if draws > 1 else np.nan
    standard_error[0] = np.sqrt(variance) + bad
    for i in range(d):
        ct_loc[i] = bad + _mean(grad[:, i], draws)
        for j in range(i + 1) if ct_scale.ndim > ct_loc.ndim else (i,):
            entry = bad + _mean(grad[:, i] * noise[:, j], draws)
            entry = entry + 1 / diagonal[i] if i == j else entry
            ct_scale[(i, j) if ct_scale.ndim > ct_loc.ndim else i] = entry


def _linear_gaussian(z, x, weight, bias, noise_scale):
    """Log p(x, z) and its gradient in z at one draw."""
    sigma = positive_or_nan(noise_scale)
    total = -0.5 * square_norm(z) - (x.shape[0] + z.shape[0]) * HALF_LOG_2PI - x.shape[0] * np.log(sigma)
    grad = -z
    for k in range(x.shape[0]):
        r = x[k] - bias[k]
        for i in range(z.shape[0]):
            r = r - weight[k, i] * z[i]
        r = r / sigma
        total = total - 0.5 * r * r
        for i in range(z.shape[0]):
            grad[i] = grad[i] + weight[k, i] * r / sigma
    return total, grad


def _run_linear_gaussian(transform, noise, loc, scale, diagonal, target, outputs):
    log_prob = np.empty_like(noise[:, 0]) if noise.shape[1] else np.empty_like(outputs[0])
    grad = np.empty_like(noise)
    z = np.empty_like(noise[0])
    for s in range(noise.shape[0]):
        transform.forward_pass.body(noise[s], loc, scale, z)
        log_prob[s], grad[s] = _linear_gaussian(z, *target)
    _accumulate(noise, log_prob, grad, diagonal, outputs)


def _samples_combine(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int], *, tril: bool) -> tuple[Any, ...]:
    s, d = extents["s"], extents["d"]
    scale = 0.5 + rng.random((*batch_shape, d))
    if tril:
        scale = np.tril(rng.standard_normal((*batch_shape, d, d)), -1) * 0.3 + scale[..., None] * np.eye(d)
    draws = rng.standard_normal((2, *batch_shape, s, d))
    return draws[0], rng.standard_normal((*batch_shape, s)), draws[1], scale


def _samples_target(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int], *, tril: bool) -> tuple[Any, ...]:
    noise, _, _, scale = _samples_combine(rng, batch_shape, extents, tril=tril)
    d, n = extents["d"], extents["n"]
    loc, x = rng.standard_normal((*batch_shape, d)), rng.standard_normal((*batch_shape, n))
    weight, bias = rng.standard_normal((n, d)), rng.standard_normal(n)
    return noise, loc, scale, x, weight, bias, 0.5 + rng.random(batch_shape)


def _combine_oracle(noise: Any, log_prob: Any, grad: Any, scale: Any) -> tuple[Any, ...]:
    s, d = noise.shape[-2:]
    tril = scale.ndim == noise.ndim and scale.shape[-1] == scale.shape[-2]
    diagonal = np.diagonal(scale, axis1=-2, axis2=-1) if tril else scale
    det = np.log(diagonal).sum(-1)
    log_q = -det[..., None] - 0.5 * (noise**2).sum(-1) - d * HALF_LOG_2PI
    value = log_prob.mean(-1) + det + d * (0.5 + HALF_LOG_2PI)
    error = log_prob.std(-1, ddof=1) / np.sqrt(s) if s > 1 else np.full(value.shape, np.nan)
    if tril:
        ct_scale = np.tril(np.swapaxes(grad, -1, -2) @ noise / s) + np.eye(d) / diagonal[..., None]
    else:
        ct_scale = (grad * noise).mean(-2) + 1 / diagonal
    return log_prob - log_q, value, error, grad.mean(-2), ct_scale


def _linear_oracle(
    noise: Any, loc: Any, scale: Any, x: Any, weight: Any, bias: Any, noise_scale: Any
) -> tuple[Any, ...]:
    tril = scale.ndim > loc.ndim
    z = loc[..., None, :] + (noise @ np.swapaxes(np.tril(scale), -1, -2) if tril else noise * scale[..., None, :])
    sigma = noise_scale[..., None]
    r = (x[..., None, :] - z @ np.swapaxes(weight, -1, -2) - bias[..., None, :]) / sigma[..., None]
    sizes = x.shape[-1] * (HALF_LOG_2PI + np.log(sigma)) + z.shape[-1] * HALF_LOG_2PI
    log_prob = -0.5 * (z**2).sum(-1) - 0.5 * (r**2).sum(-1) - sizes
    return _combine_oracle(noise, log_prob, (r / sigma[..., None]) @ weight - z, scale)


@op(
    "(s,d)~,(s),(s,d),tril(d)->(s),(),(),(d),tril(d)",
    packable=True,
    oracle=_combine_oracle,
    samples=lambda *a: _samples_combine(*a, tril=True),
)
def elbo_tril_combine(noise, log_prob, grad, scale_tril, log_weights, value, standard_error, ct_loc, ct_scale_tril):
    """ELBO and gradient of ``N(loc, L L^T)`` from draws of a density that was computed outside.

    Parameters
    ----------
    noise, grad : array, shape (..., s, d)
        Standard normals, and the gradients of ``log p(x, z)`` at ``z_s = loc + L noise_s``; noise may be a Draw.
    log_prob : array, shape (..., s)
        ``log p(x, z_s)``.
    scale_tril : array, shape (..., d, d)

    Returns
    -------
    log_weights : array, shape (..., s)
        ``log p(x, z_s) - log q(z_s)``.
    value, standard_error : array, shape (...)
        ``mean_s log p(x, z_s) + sum log L_ii + (d/2)(1 + log 2 pi)``, and ``sd(log p(x, z_s), ddof 1)/sqrt(s)``,
        which is NaN for s = 1.
    ct_loc : array, shape (..., d)
        ``mean_s grad_s``.
    ct_scale_tril : array, shape (..., d, d)
        ``tril(mean_s grad_s noise_s^T) + diag(1/L_ii)`` (Kingma and Welling, arXiv 1312.6114).
    """
    outputs = (log_weights, value, standard_error, ct_loc, ct_scale_tril)
    _accumulate(noise, log_prob, grad, diagonal_of(scale_tril), outputs)


@op(
    "(s,d)~,(s),(s,d),(d)->(s),(),(),(d),(d)",
    oracle=_combine_oracle,
    samples=lambda *a: _samples_combine(*a, tril=False),
)
def elbo_diag_combine(noise, log_prob, grad, scale_diag, log_weights, value, standard_error, ct_loc, ct_scale_diag):
    """ELBO and gradient of ``N(loc, diag(scale_diag^2))``, as :func:`elbo_tril_combine`.

    ``scale_diag`` and ``ct_scale_diag`` have shape (..., d): ``mean_s grad_s * noise_s + 1/scale_diag``.
    """
    _accumulate(noise, log_prob, grad, scale_diag, (log_weights, value, standard_error, ct_loc, ct_scale_diag))


@op(
    "(s,d)~,(d),tril(d),(n),(n,d),(n),()->(s),(),(),(d),tril(d)",
    packable=True,
    oracle=_linear_oracle,
    samples=lambda *a: _samples_target(*a, tril=True),
)
def elbo_tril_linear_gaussian(
    noise, loc, scale_tril, x, weight, bias, noise_scale, log_weights, value, standard_error, ct_loc, ct_scale_tril
):
    """ELBO and gradient of ``N(loc, L L^T)`` for ``z ~ N(0, I)``, ``x | z ~ N(weight z + bias, noise_scale^2 I)``.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
        Of a Draw, the noise is made in the kernel and never stored; then ``s=`` says how many draws.
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
    x, bias : array, shape (..., n)
    weight : array, shape (..., n, d)
    noise_scale : array, shape (...)

    Returns
    -------
    tuple
        As :func:`elbo_tril_combine`: log_weights, value, standard_error, ct_loc, ct_scale_tril.
    """
    outputs = (log_weights, value, standard_error, ct_loc, ct_scale_tril)
    target = (x, weight, bias, noise_scale)
    _run_linear_gaussian(normal_tril_transform, noise, loc, scale_tril, diagonal_of(scale_tril), target, outputs)


@op(
    "(s,d)~,(d),(d),(n),(n,d),(n),()->(s),(),(),(d),(d)",
    oracle=_linear_oracle,
    samples=lambda *a: _samples_target(*a, tril=False),
)
def elbo_diag_linear_gaussian(
    noise, loc, scale_diag, x, weight, bias, noise_scale, log_weights, value, standard_error, ct_loc, ct_scale_diag
):
    """ELBO and gradient of ``N(loc, diag(scale_diag^2))`` for the target of :func:`elbo_tril_linear_gaussian`.

    ``scale_diag`` and ``ct_scale_diag`` have shape (..., d).
    """
    outputs = (log_weights, value, standard_error, ct_loc, ct_scale_diag)
    target = (x, weight, bias, noise_scale)
    _run_linear_gaussian(normal_diag_transform, noise, loc, scale_diag, scale_diag, target, outputs)
