# SPDX-License-Identifier: MIT
"""The Monte Carlo ELBO and its gradient in NumPy, torch and JAX, as users write it and by hand.

``z = loc + L noise``, noise ``(B, S, d)``; the entropy in closed form. Every call draws its own noise. By hand there
is no autograd and no solve: ``d loc = mean g``, ``d L = tril(mean g noise^T) + diag(1/L_ii)``, g the target's gradient
at z. A diagonal scale is a ``(B, d)`` array in place of L.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import rivals
from .formulas import HALF_LOG_2PI, namespace

PRIOR_SCALE, NOISE_SCALE = 2.0, 0.5


# ---- targets: log density and gradient at z (B, S, d)


def external(z: Any) -> Any:
    """N(0, I), as a density that only the user knows."""
    return -0.5 * (z * z).sum(-1) - z.shape[-1] * HALF_LOG_2PI, -z


def linear_gaussian(z: Any, x: Any, weight: Any, bias: Any) -> Any:
    """``z ~ N(0, I)``, ``x | z ~ N(W z + b, sigma^2 I)``."""
    r = (x - bias)[:, None, :] - z @ weight.T
    constant = (z.shape[-1] + x.shape[-1]) * HALF_LOG_2PI + x.shape[-1] * math.log(NOISE_SCALE)
    log_prob = -0.5 * (z * z).sum(-1) - 0.5 / NOISE_SCALE**2 * (r * r).sum(-1) - constant
    return log_prob, (r @ weight) * NOISE_SCALE**-2 - z


def logistic(z: Any, features: Any, y: Any) -> Any:
    """Logistic regression of each event's own data under a normal prior."""
    eta = z @ features.swapaxes(-1, -2)
    softplus, sigmoid = _softplus_and_sigmoid(eta)
    constant = z.shape[-1] * (HALF_LOG_2PI + math.log(PRIOR_SCALE))
    log_likelihood = (y[:, None, :] * eta - softplus).sum(-1)
    log_prior = -0.5 / PRIOR_SCALE**2 * (z * z).sum(-1) - constant
    return log_likelihood + log_prior, (y[:, None, :] - sigmoid) @ features - z * PRIOR_SCALE**-2


def _softplus_and_sigmoid(eta: Any) -> tuple[Any, Any]:
    xp = namespace(eta)
    if xp.__name__ == "torch":
        return xp.nn.functional.softplus(eta), xp.sigmoid(eta)
    e = xp.exp(-xp.abs(eta))
    return xp.maximum(eta, 0) + xp.log1p(e), xp.where(eta > 0, 1, e) / (1 + e)


# ---- by hand


def by_hand(target: Callable[..., Any]) -> Callable[..., Any]:
    """Formula of ``(noise, loc, scale, *data)``."""

    def formula(noise: Any, loc: Any, scale: Any, *data: Any) -> Any:
        xp = namespace(loc)
        dense = scale.ndim == 3
        moved = noise @ scale.swapaxes(-1, -2) if dense else noise * scale[:, None, :]
        log_prob, g = target(loc[:, None, :] + moved, *data)
        diagonal = scale if not dense else _diagonal(xp, scale)
        value = log_prob.mean(-1) + xp.log(diagonal).sum(-1) + loc.shape[-1] * (HALF_LOG_2PI + 0.5)
        if dense:
            eye = xp.eye(loc.shape[-1], dtype=loc.dtype)
            ct_scale = xp.tril(g.swapaxes(-1, -2) @ noise) / noise.shape[1] + (1 / diagonal)[..., None] * eye
        else:
            ct_scale = (g * noise).mean(1) + 1 / diagonal
        return value, g.mean(1), ct_scale

    return formula


def _diagonal(xp: Any, scale: Any) -> Any:
    return scale.diagonal(dim1=-2, dim2=-1) if xp.__name__ == "torch" else xp.diagonal(scale, axis1=-2, axis2=-1)


def numpy_by_hand(target: Callable[..., Any], draws: int) -> rivals.Build:
    """Into one kept array of noise."""
    formula = by_hand(target)

    def build(loc: np.ndarray, scale: np.ndarray, *data: np.ndarray) -> Callable[[], Any]:
        rng = np.random.default_rng(1)
        noise = np.empty((len(loc), draws, loc.shape[-1]), loc.dtype)

        def run() -> Any:
            rng.standard_normal(out=noise, dtype=noise.dtype)
            return formula(noise, loc, scale, *data)

        return run

    return build


def torch_by_hand(target: Callable[..., Any], draws: int) -> rivals.Build:
    """Into one kept tensor of noise."""
    formula = by_hand(target)

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import torch

        loc, scale, *data = rivals.tensors(inputs)
        noise = loc.new_empty(len(loc), draws, loc.shape[-1])

        def run() -> Any:
            with torch.no_grad():
                return formula(noise.normal_(), loc, scale, *data)

        return run

    return build


def torch_library(target: Callable[..., Any], draws: int) -> rivals.Build:
    """torch.distributions and autograd."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import torch

        loc, scale, *data = rivals.tensors(inputs)
        leaves = [loc.requires_grad_(), scale.requires_grad_()]

        def run() -> Any:
            for leaf in leaves:
                leaf.grad = None
            if scale.ndim == 3:
                q: Any = torch.distributions.MultivariateNormal(loc, scale_tril=scale, validate_args=False)
            else:
                normal = torch.distributions.Normal(loc, scale, validate_args=False)
                q = torch.distributions.Independent(normal, 1, validate_args=False)
            value = target(q.rsample((draws,)).transpose(0, 1), *data)[0].mean(-1) + q.entropy()
            value.sum().backward()
            return value.detach(), [leaf.grad for leaf in leaves]

        return run

    return build


def _jax(draws: int, formula: Callable[..., Any]) -> rivals.Build:
    """``formula(noise, loc, scale, *data)`` under one jit with the drawing of the noise, a new key every call."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import jax

        operands = [jax.device_put(x) for x in inputs]
        shape, dtype = (len(inputs[0]), draws, inputs[0].shape[-1]), inputs[0].dtype
        keys = itertools.count()

        def both(seed: Any, *operands: Any) -> Any:
            return formula(jax.random.normal(jax.random.key(seed), shape, dtype), *operands)

        compiled = jax.jit(both)
        return lambda: jax.block_until_ready(compiled(next(keys), *operands))

    return build


def jax_by_hand(target: Callable[..., Any], draws: int) -> rivals.Build:
    """The closed forms under jit."""
    return _jax(draws, by_hand(target))


def jax_library(target: Callable[..., Any], draws: int) -> rivals.Build:
    """Gradients by JAX, under jit."""

    def formula(noise: Any, loc: Any, scale: Any, *data: Any) -> Any:
        import jax

        def total(loc: Any, scale: Any) -> Any:
            value = by_hand(target)(noise, loc, scale, *data)[0]
            return value.sum(), value

        (_, value), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(loc, scale)
        return value, gradients

    return _jax(draws, formula)
