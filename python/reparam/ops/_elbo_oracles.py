# SPDX-License-Identifier: MIT
"""Sample problems and independent answers for the ELBO ops, in float64, all at once: tests hold them against these."""

from __future__ import annotations

from typing import Any

import numpy as np

from .normal_tril import HALF_LOG_2PI


def _scale(rng: Any, batch_shape: tuple[int, ...], d: int, *, tril: bool) -> Any:
    scale = 0.5 + rng.random((*batch_shape, d))
    if not tril:
        return scale
    return np.tril(rng.standard_normal((*batch_shape, d, d)), -1) * 0.3 / np.sqrt(d) + scale[..., None] * np.eye(d)


def samples_combine(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int], *, tril: bool) -> tuple[Any, ...]:
    """Inputs of elbo_*_combine."""
    s, d = extents["s"], extents["d"]
    draws = rng.standard_normal((2, *batch_shape, s, d))
    return draws[0], rng.standard_normal((*batch_shape, s)), draws[1], _scale(rng, batch_shape, d, tril=tril)


def _samples_q(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int], *, tril: bool) -> tuple[Any, ...]:
    noise, _, _, scale = samples_combine(rng, batch_shape, extents, tril=tril)
    return noise, rng.standard_normal((*batch_shape, extents["d"])), scale


def samples_linear_gaussian(rng: Any, batch_shape: Any, extents: Any, *, tril: bool) -> tuple[Any, ...]:
    """Inputs of elbo_*_linear_gaussian."""
    d, n = extents["d"], extents["n"]
    weight = rng.standard_normal((n, d)) / np.sqrt(d)
    data = rng.standard_normal((*batch_shape, n)), weight, rng.standard_normal(n), 0.5 + rng.random(batch_shape)
    return (*_samples_q(rng, batch_shape, extents, tril=tril), *data)


def samples_gaussian(rng: Any, batch_shape: Any, extents: Any, *, tril: bool) -> tuple[Any, ...]:
    """Inputs of elbo_*_gaussian."""
    d = extents["d"]
    target = rng.standard_normal((*batch_shape, d)), _scale(rng, batch_shape, d, tril=True)
    return (*_samples_q(rng, batch_shape, extents, tril=tril), *target)


def samples_glm(rng: Any, batch_shape: Any, extents: Any, *, tril: bool) -> tuple[Any, ...]:
    """Inputs of elbo_*_glm; counts of 0 and 1 are data of each family."""
    d, n = extents["d"], extents["n"]
    features = rng.standard_normal((*batch_shape, n, d)) / np.sqrt(d)
    y = rng.integers(0, 2, (*batch_shape, n)).astype(float)
    rest = features, y, 0.5 + rng.random(batch_shape), rng.standard_normal(batch_shape)
    return (*_samples_q(rng, batch_shape, extents, tril=tril), *rest)


def _is_tril(scale: Any, noise: Any) -> bool:
    return bool(scale.ndim == noise.ndim and scale.shape[-1] == scale.shape[-2])


def combine_oracle(
    noise: Any, log_prob: Any, grad: Any, scale: Any, *, estimator: str = "pathwise", weighted: bool = False
) -> tuple[Any, ...]:
    """Log weights, value, standard error and gradients of one of the four estimators."""
    s, d = noise.shape[-2:]
    tril = _is_tril(scale, noise)
    matrix = np.tril(scale) if tril else scale[..., None] * np.eye(d)
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    det = np.log(diagonal).sum(-1)
    log_w = log_prob + det[..., None] + 0.5 * (noise**2).sum(-1) + d * HALF_LOG_2PI
    importance, path_only = estimator in {"iwae", "dreg"}, estimator in {"stl", "dreg"}
    top = log_w.max(-1)
    w = np.exp(log_w - top[..., None])
    bound = top + np.log(w.mean(-1))
    w = w / w.sum(-1, keepdims=True) if importance else np.full_like(log_w, 1 / s)
    value = {"pathwise": log_prob.mean(-1) + det + d * (0.5 + HALF_LOG_2PI), "stl": log_w.mean(-1)}.get(
        estimator, bound
    )
    sampled = log_prob if estimator == "pathwise" else log_w
    error = np.sqrt(s / (s - 1) * ((w - 1 / s) ** 2).sum(-1)) if importance else sampled.std(-1, ddof=1) / np.sqrt(s)
    term = grad if weighted else w[..., None] * grad
    if path_only:
        term = term + w[..., None] * np.linalg.solve(np.swapaxes(matrix, -1, -2), noise.swapaxes(-1, -2)).swapaxes(
            -1, -2
        )
    term = w[..., None] * term if estimator == "dreg" else term
    ct = np.tril(np.swapaxes(term, -1, -2) @ noise)
    ct = ct if path_only else ct + np.eye(d) / diagonal[..., None]
    return log_w, value, error, term.sum(-2), ct if tril else np.diagonal(ct, axis1=-2, axis2=-1)


def _draws(noise: Any, loc: Any, scale: Any) -> Any:
    spread = noise @ np.swapaxes(np.tril(scale), -1, -2) if _is_tril(scale, noise) else noise * scale[..., None, :]
    return loc[..., None, :] + spread


def linear_gaussian_oracle(
    noise: Any, loc: Any, scale: Any, x: Any, weight: Any, bias: Any, noise_scale: Any, *, estimator: str = "pathwise"
) -> tuple[Any, ...]:
    """Answers of elbo_*_linear_gaussian."""
    z, sigma = _draws(noise, loc, scale), noise_scale[..., None]
    r = (x[..., None, :] - z @ np.swapaxes(weight, -1, -2) - bias[..., None, :]) / sigma[..., None]
    sizes = x.shape[-1] * (HALF_LOG_2PI + np.log(sigma)) + z.shape[-1] * HALF_LOG_2PI
    log_prob = -0.5 * (z**2).sum(-1) - 0.5 * (r**2).sum(-1) - sizes
    return combine_oracle(noise, log_prob, (r / sigma[..., None]) @ weight - z, scale, estimator=estimator)


def gaussian_oracle(
    noise: Any, loc: Any, scale: Any, target_loc: Any, target_scale: Any, *, estimator: str = "pathwise"
) -> tuple[Any, ...]:
    """Answers of elbo_*_gaussian."""
    z, lower = _draws(noise, loc, scale), np.tril(target_scale)
    covariance = lower @ np.swapaxes(lower, -1, -2)
    difference = z - target_loc[..., None, :]
    grad = -np.linalg.solve(covariance, difference.swapaxes(-1, -2)).swapaxes(-1, -2)
    det = np.linalg.slogdet(covariance)[1][..., None] / 2
    log_prob = 0.5 * (grad * difference).sum(-1) - det - z.shape[-1] * HALF_LOG_2PI
    return combine_oracle(noise, log_prob, grad, scale, estimator=estimator)


def glm_oracle(
    noise: Any, loc: Any, scale: Any, features: Any, y: Any, prior_scale: Any, log_normalizer: Any,
    *, estimator: str = "pathwise", family: str = "logistic",
) -> tuple[Any, ...]:  # fmt: skip
    """Answers of elbo_*_glm."""
    z, sigma = _draws(noise, loc, scale), prior_scale[..., None]
    eta, count = z @ np.swapaxes(features, -1, -2), y[..., None, :]
    log_likelihood, slope = {
        "logistic": lambda: (count * eta - np.logaddexp(0, eta), count - 1 / (1 + np.exp(-eta))),
        "poisson": lambda: (count * eta - np.exp(eta), count - np.exp(eta)),
        "normal": lambda: (-0.5 * (count - eta) ** 2, count - eta),
    }[family]()
    prior = -0.5 * (z**2).sum(-1) / sigma**2 - z.shape[-1] * (np.log(sigma) + HALF_LOG_2PI)
    log_prob = log_likelihood.sum(-1) + prior + log_normalizer[..., None]
    grad = slope @ features - z / sigma[..., None] ** 2
    return combine_oracle(noise, log_prob, grad, scale, estimator=estimator)
