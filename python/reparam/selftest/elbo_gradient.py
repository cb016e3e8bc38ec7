# SPDX-License-Identifier: MIT
"""Exact gradients of the four estimators of the ELBO, from the log densities alone, by the complex step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._op import Op
from .problems import STEP, Attributes

__all__ = ["elbo_gradient"]

Array = NDArray[Any]
LogDensity = Callable[[Array], Array]  # of z, (B, s, d), real or complex


def elbo_gradient(op: Op, inputs: list[Array], attributes: Attributes, real: Any) -> tuple[Array, Array]:
    """Gradients in loc and scale of an ``elbo_*`` op, in the arithmetic of ``real``.

    Sums of the slopes of ``f_s = log p(z_s) - log q(z_s)`` at ``z_s = loc + L noise_s``: ``pathwise`` and ``stl`` take
    the mean, ``iwae`` weighs them by ``w = softmax(f)``, ``dreg`` by w^2. Those of ``stl`` and ``dreg`` hold q fixed
    as z_s moves.
    """
    given = {o.name: x.astype(real) for o, x in zip(op.inputs, inputs, strict=True)}
    noise, diag = given["noise"], "scale_diag" in given
    lower = given["scale_diag"][..., None] * np.eye(noise.shape[-1]) if diag else np.tril(given["scale_tril"])
    loc = given.get("loc", np.zeros_like(noise[:, 0]))
    z = loc[:, None] + np.einsum("bij,bsj->bsi", lower, noise)
    estimator = attributes["estimator"]
    log_joint = _log_joint(op, given, attributes, z)
    weights = _softmax(log_joint(z) - _log_normal(z, loc, lower))
    if estimator in {"pathwise", "stl"}:
        weights = np.full_like(weights, 1) / weights.shape[1]
    if attributes.get("weighted"):
        log_joint = _outside(given["log_prob"], given["grad"] / weights[..., None], z)
    slopes = _slopes(log_joint, z)
    if estimator in {"stl", "dreg"}:
        slopes = slopes - _slopes(lambda x: _log_normal(x, loc, lower), z)
    slopes = slopes * (weights**2 if estimator == "dreg" else weights)[..., None]
    ct_scale = np.tril(np.einsum("bsi,bsj->bij", slopes, noise))
    if estimator in {"pathwise", "iwae"}:  # -log q(z_s) grows with log L_ii
        ct_scale = ct_scale + np.eye(noise.shape[-1]) / np.diagonal(lower, axis1=-2, axis2=-1)[..., None]
    return slopes.sum(axis=1), np.diagonal(ct_scale, axis1=-2, axis2=-1) if diag else ct_scale


def _softmax(x: Array) -> Array:
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _slopes(log_density: LogDensity, z: Array) -> Array:
    """The gradient in each z_s."""
    step = 1j * STEP * np.eye(z.shape[-1])
    return np.stack([log_density(z + direction).imag / STEP for direction in step], axis=-1)


# ---- densities


def _log_joint(op: Op, given: dict[str, Array], attributes: Attributes, z: Array) -> LogDensity:
    """``log p(x, z)`` of the op's target."""
    target = op.name.partition("_")[2].partition("_")[2]
    if target == "combine":
        return _outside(given["log_prob"], given["grad"], z)
    if target == "gaussian":
        return lambda x: _log_normal(x, given["target_loc"], np.tril(given["target_scale_tril"]))
    if target == "linear_gaussian":
        return lambda x: _linear_gaussian(x, *(given[n] for n in ("x", "weight", "bias", "noise_scale")))
    rest = (given[n] for n in ("features", "y", "prior_scale", "log_normalizer"))
    features, y, prior_scale, log_normalizer = rest
    prior = np.zeros_like(z[:, 0]), prior_scale[:, None, None] * np.eye(z.shape[-1])
    return lambda x: (
        _log_normal(x, *prior) + _log_likelihood(x, features, y, attributes["family"]) + log_normalizer[:, None]
    )


def _outside(log_prob: Array, grad: Array, z: Array) -> LogDensity:
    """A density that came as its values and slopes at z."""
    return lambda x: log_prob + (grad * (x - z)).sum(axis=-1)


def _log_normal(z: Array, loc: Array, lower: Array) -> Array:
    """``log N(z | loc, L L^T)``, by forward substitution."""
    y = z - loc[:, None]
    for i in range(y.shape[-1]):
        y[..., i] = (y[..., i] - np.einsum("bj,bsj->bs", lower[:, i, :i], y[..., :i])) / lower[:, None, i, i]
    log_det = np.log(np.diagonal(lower, axis1=-2, axis2=-1)).sum(axis=-1)
    half_log_2pi = np.log(2 * y.real.dtype.type(math.pi)) / 2
    return np.asarray(-0.5 * (y * y).sum(axis=-1) - log_det[:, None] - y.shape[-1] * half_log_2pi)


def _linear_gaussian(z: Array, x: Array, weight: Array, bias: Array, noise_scale: Array) -> Array:
    mean = np.einsum("bni,bsi->bsn", weight, z) + bias[:, None]
    n, d = weight.shape[1:]
    data = _log_normal(x[:, None] - mean, np.zeros_like(x), noise_scale[:, None, None] * np.eye(n))
    return data + _log_normal(z, np.zeros_like(z[:, 0].real), np.broadcast_to(np.eye(d), (len(z), d, d)))


def _log_likelihood(z: Array, features: Array, y: Array, family: str) -> Array:
    """``log p(y | eta)`` without what depends on y alone."""
    eta, count = np.einsum("bni,bsi->bsn", features, z), y[:, None]
    terms = {
        "logistic": lambda: count * eta - np.log(1 + np.exp(eta)),
        "poisson": lambda: count * eta - np.exp(eta),
        "normal": lambda: -0.5 * (count - eta) ** 2,
    }
    return np.asarray(terms[family]().sum(axis=-1))
