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
from typing import Any, NamedTuple

import numpy as np

from . import rivals
from .expectations import NOISE_SCALE, PRIOR_SCALE
from .formulas import HALF_LOG_2PI, add_to_diagonal, diagonal_of, namespace


class Target(NamedTuple):
    """A log density at z ``(B, S, d)`` and its gradient; nobody computes the one where only the other is wanted.

    Both are functions of ``(z, shared, *data)``, ``shared(z, *data)`` being what they have in common.
    """

    shared: Callable[..., Any]
    log_prob: Callable[..., Any]
    gradient: Callable[..., Any]


# ---- N(0, I), as a density that only the user knows


def _no_data(z: Any) -> Any:
    return None


def _standard_log_prob(z: Any, _: Any) -> Any:
    return -0.5 * (z * z).sum(-1) - z.shape[-1] * HALF_LOG_2PI


def _standard_gradient(z: Any, _: Any) -> Any:
    return -z


external = Target(_no_data, _standard_log_prob, _standard_gradient)

# ---- z ~ N(0, I), x | z ~ N(W z + b, sigma^2 I)


def _residual(z: Any, x: Any, weight: Any, bias: Any) -> Any:
    r = z @ weight.T
    r -= (x - bias)[:, None, :]
    return r


def _linear_log_prob(z: Any, r: Any, x: Any, weight: Any, bias: Any) -> Any:
    constant = (z.shape[-1] + x.shape[-1]) * HALF_LOG_2PI + x.shape[-1] * math.log(NOISE_SCALE)
    return -0.5 * (z * z).sum(-1) - 0.5 / NOISE_SCALE**2 * (r * r).sum(-1) - constant


def _linear_gradient(z: Any, r: Any, x: Any, weight: Any, bias: Any) -> Any:
    g = r @ weight
    g *= -(NOISE_SCALE**-2)
    g -= z
    return g


linear_gaussian = Target(_residual, _linear_log_prob, _linear_gradient)

# ---- logistic regression of each event's own data under a normal prior


def _predictor(z: Any, features: Any, y: Any) -> Any:
    """``eta``, and the exponential that softplus and sigmoid share where the library has neither."""
    xp, eta = namespace(z), z @ features.swapaxes(-1, -2)
    return eta, None if xp.__name__ == "torch" else xp.exp(-xp.abs(eta))


def _logistic_log_prob(z: Any, shared: Any, features: Any, y: Any) -> Any:
    xp, (eta, e) = namespace(z), shared
    softplus = xp.nn.functional.softplus(eta) if e is None else xp.maximum(eta, 0) + xp.log1p(e)
    constant = z.shape[-1] * (HALF_LOG_2PI + math.log(PRIOR_SCALE))
    return (y[:, None, :] * eta - softplus).sum(-1) - 0.5 / PRIOR_SCALE**2 * (z * z).sum(-1) - constant


def _logistic_gradient(z: Any, shared: Any, features: Any, y: Any) -> Any:
    xp, (eta, e) = namespace(z), shared
    r = xp.sigmoid(eta) if e is None else xp.where(eta > 0, 1, e) / (1 + e)
    r -= y[:, None, :]
    if xp.__name__ == "torch":
        return xp.baddbmm(z, r, features, beta=-(PRIOR_SCALE**-2), alpha=-1)
    g = r @ features
    g += z * PRIOR_SCALE**-2
    return -g


logistic = Target(_predictor, _logistic_log_prob, _logistic_gradient)

# ---- by hand


def _moved(noise: Any, loc: Any, scale: Any) -> Any:
    if scale.ndim != 3:
        return loc[:, None, :] + noise * scale[:, None, :]
    return loc[:, None, :] + noise @ scale.swapaxes(-1, -2)


def _value(target: Target, z: Any, shared: Any, scale: Any, data: Any) -> Any:
    xp = namespace(z)
    diagonal = diagonal_of(scale) if scale.ndim == 3 else scale
    return target.log_prob(z, shared, *data).mean(-1) + xp.log(diagonal).sum(-1) + z.shape[-1] * (HALF_LOG_2PI + 0.5)


def value_by_hand(target: Target, noise: Any, loc: Any, scale: Any, *data: Any) -> Any:
    """The ELBO alone."""
    z = _moved(noise, loc, scale)
    return _value(target, z, target.shared(z, *data), scale, data)


def gradient_by_hand(noise: Any, g: Any, scale: Any) -> Any:
    """Of the ELBO in loc and scale, from the target's gradient at the draws."""
    xp = namespace(g)
    if scale.ndim != 3:
        return g.mean(1), (g * noise).mean(1) + 1 / scale
    ct_scale = xp.tril(g.swapaxes(-1, -2) @ noise) / noise.shape[1]
    return g.mean(1), add_to_diagonal(ct_scale, 1 / diagonal_of(scale))


def by_hand(target: Target) -> Callable[..., Any]:
    """Formula of ``(noise, loc, scale, *data)``."""

    def formula(noise: Any, loc: Any, scale: Any, *data: Any) -> Any:
        z = _moved(noise, loc, scale)
        shared = target.shared(z, *data)
        g = target.gradient(z, shared, *data)
        return _value(target, z, shared, scale, data), *gradient_by_hand(noise, g, scale)

    return formula


def numpy_by_hand(target: Target, draws: int) -> rivals.Build:
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


class TorchDraws:
    """Noise, draws and gradients of torch by hand, in tensors that it keeps."""

    def __init__(self, target: Target, draws: int, loc: Any, scale: Any, data: Any) -> None:
        self._target, self._data, self._dense = target, data, scale.ndim == 3
        self._noise = loc.new_empty(len(loc), draws, loc.shape[-1])
        self._z = loc.new_empty(self._noise.shape)
        self.ct_loc, self.ct_scale = loc.new_empty(loc.shape), scale.new_empty(scale.shape)
        self._shared: Any = None

    def draw(self, loc: Any, scale: Any) -> None:
        """New noise, and the gradient of the ELBO."""
        import torch

        noise, z, ct = self._noise.normal_(), self._z, self.ct_scale
        if self._dense:
            torch.baddbmm(loc[:, None, :], noise, scale.mT, out=z)
        else:
            torch.addcmul(loc[:, None, :], noise, scale[:, None, :], out=z)
        self._shared = self._target.shared(z, *self._data)
        g = self._target.gradient(z, self._shared, *self._data)
        torch.mean(g, 1, out=self.ct_loc)
        if self._dense:
            torch.bmm(g.mT, noise, out=ct)
            ct.tril_().div_(noise.shape[1])
            diagonal_of(ct).add_(diagonal_of(scale).reciprocal())
        else:
            torch.mean(g.mul_(noise), 1, out=ct)
            ct.add_(scale.reciprocal())

    def value(self, scale: Any) -> Any:
        """The ELBO of the last draws."""
        return _value(self._target, self._z, self._shared, scale, self._data)


def torch_by_hand(target: Target, draws: int) -> rivals.Build:
    """In place, with kept outputs."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import torch

        loc, scale, *data = rivals.tensors(inputs)
        kept = TorchDraws(target, draws, loc, scale, data)

        def run() -> Any:
            with torch.no_grad():
                kept.draw(loc, scale)
                return kept.value(scale), kept.ct_loc, kept.ct_scale

        return run

    return build


def torch_library(target: Target, draws: int) -> rivals.Build:
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
            z = q.rsample((draws,)).transpose(0, 1)
            value = target.log_prob(z, target.shared(z, *data), *data).mean(-1) + q.entropy()
            value.sum().backward()
            return value.detach(), [leaf.grad for leaf in leaves]

        return run

    return build


def _jax(draws: int, formula: Callable[..., Any]) -> rivals.Build:
    """``formula(noise, loc, scale, *data)`` under one jit with the drawing of the noise, a new key every call."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import jax

        operands = rivals.jax_arrays(inputs)
        shape, dtype = (len(inputs[0]), draws, inputs[0].shape[-1]), inputs[0].dtype
        keys = itertools.count()

        def both(seed: Any, *operands: Any) -> Any:
            return formula(jax.random.normal(jax.random.key(seed), shape, dtype), *operands)

        compiled = jax.jit(both)
        return lambda: jax.block_until_ready(compiled(next(keys), *operands))

    return build


def jax_by_hand(target: Target, draws: int) -> rivals.Build:
    """The closed forms under jit."""
    return _jax(draws, by_hand(target))


def jax_library(target: Target, draws: int) -> rivals.Build:
    """Gradients by JAX, under jit."""

    def formula(noise: Any, loc: Any, scale: Any, *data: Any) -> Any:
        import jax

        def total(loc: Any, scale: Any) -> Any:
            value = value_by_hand(target, noise, loc, scale, *data)
            return value.sum(), value

        (_, value), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(loc, scale)
        return value, gradients

    return _jax(draws, formula)
