# SPDX-License-Identifier: MIT
"""What random answers estimate, in float64 NumPy and by formulas that no contestant shares.

The expectations of a density's gradient g and Hessian H under q give those of the ELBO's (Bonnet, Price; Opper and
Archambeau, 2009): ``d loc = E g``, ``d L = tril(E H L) + diag(1/L_ii)``. They are in closed form for quadratic
densities, and integrals over one normal for each row of a regression, by Gauss and Hermite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .formulas import HALF_LOG_2PI

Array = np.ndarray[Any, Any]
NOISE_SCALE, PRIOR_SCALE = 0.5, 2.0
NODES = 40  # the error of the integrals is below 1e-6 where the predictor's scale is below 3
DRAWS = 24  # of a decoder's expectation


# ---- targets: expectations of log density, gradient and Hessian under N(loc, lower lower^T)


def external(loc: Array, lower: Array) -> tuple[Array, Array, Array]:
    """N(0, I)."""
    d = loc.shape[-1]
    log_prob = -0.5 * ((loc**2).sum(-1) + (lower**2).sum((-2, -1))) - d * HALF_LOG_2PI
    return log_prob, -loc, -np.eye(d)


def linear_gaussian(loc: Array, lower: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
    """``z ~ N(0, I)``, ``x | z ~ N(W z + b, sigma^2 I)``."""
    n, d = weight.shape
    r = x - bias - loc @ weight.T
    precision = np.eye(d) + weight.T @ weight / NOISE_SCALE**2
    moved = np.einsum("bij,bij->b", precision @ lower, lower)  # the trace of precision and covariance
    squares = (loc**2).sum(-1) + (r**2).sum(-1) / NOISE_SCALE**2 + moved
    constant = (n + d) * HALF_LOG_2PI + n * math.log(NOISE_SCALE)
    return -0.5 * squares - constant, r @ weight / NOISE_SCALE**2 - loc, -precision


def logistic(loc: Array, lower: Array, features: Array, y: Array) -> tuple[Array, Array, Array]:
    """Logistic regression of each event's own data under a normal prior."""
    d = loc.shape[-1]
    mean = np.einsum("bni,bi->bn", features, loc)
    scale = np.sqrt(((features @ lower) ** 2).sum(-1))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    softplus, sigmoid, slope = np.zeros((3, *mean.shape))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        eta = mean + scale * node
        p = 0.5 * (1 + np.tanh(0.5 * eta))
        softplus += weight * np.logaddexp(0, eta)
        sigmoid += weight * p
        slope += weight * p * (1 - p)
    prior = -0.5 / PRIOR_SCALE**2 * ((loc**2).sum(-1) + (lower**2).sum((-2, -1)))
    log_prob = (y * mean - softplus).sum(-1) + prior - d * (HALF_LOG_2PI + math.log(PRIOR_SCALE))
    gradient = np.einsum("bn,bni->bi", y - sigmoid, features) - loc / PRIOR_SCALE**2
    hessian = -(features * slope[..., None]).swapaxes(-1, -2) @ features - np.eye(d) / PRIOR_SCALE**2
    return log_prob, gradient, hessian


def elbo(target: Callable[..., Any], loc: Array, scale: Array, *data: Array) -> tuple[Array, Array, Array]:
    """The ELBO of each event, and its gradient in loc and scale, dense or diagonal."""
    loc, scale, *data = (x.astype(np.float64) for x in (loc, scale, *data))  # type: ignore[assignment]
    d = loc.shape[-1]
    i = np.arange(d)
    lower = scale if scale.ndim == 3 else scale[..., None] * np.eye(d)
    log_prob, gradient, hessian = target(loc, lower, *data)
    diagonal = lower[:, i, i]
    ct_scale = np.tril(hessian @ lower)
    ct_scale[:, i, i] += 1 / diagonal
    value = log_prob + np.log(diagonal).sum(-1) + d * (HALF_LOG_2PI + 0.5)
    return value, gradient, ct_scale if scale.ndim == 3 else ct_scale[:, i, i]


# ---- a VAE's rows


def vae(x: Array, count: int, loc: Array, scale: Array, *decoder: Array) -> tuple[tuple[Array], list[tuple[Array]]]:
    """The ELBO of each row but for its constant, by many draws, and what single draws give.

    The decoder is ``(weight, bias, weight, bias)``, weights as ``(in, out)``, with tanh between.
    """
    x, loc, scale, w1, b1, w2, b2 = (given.astype(np.float64) for given in (x, loc, scale, *decoder))
    dense = scale.ndim == 3
    diagonal = np.diagonal(scale, axis1=-2, axis2=-1) if dense else scale
    entropy = np.log(diagonal).sum(-1) + 0.5 * loc.shape[-1]
    rng, samples = np.random.default_rng(2), []
    for _ in range(DRAWS):
        noise = rng.standard_normal(loc.shape)
        z = loc + (np.einsum("bij,bj->bi", scale, noise) if dense else scale * noise)
        logits = np.tanh(z @ w1 + b1) @ w2 + b2
        log_likelihood = (x * logits - count * np.logaddexp(0, logits)).sum(-1)
        samples.append((log_likelihood - 0.5 * (z**2).sum(-1) + entropy,))
    return (np.mean(samples, axis=0)[0],), samples
