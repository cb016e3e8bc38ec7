# SPDX-License-Identifier: MIT
"""Activations of small nets and likelihoods of counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._op import op, scalar_form, select
from .tril import sigmoid, softplus

ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "silu", "softplus")
IDENTITY, TANH, RELU, GELU, SILU, SOFTPLUS = range(6)
_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x):
    """Error function, with the imaginary part of a complex step to first order."""
    y = _erf(x.real)
    if np.iscomplexobj(x):
        return y + 1j * x.imag * np.exp(-x.real * x.real) * (2 / math.sqrt(math.pi))
    return y.astype(x.dtype)


@scalar_form(erf)
def _(x):
    return math.erf(x)


def _normal_cdf(h):
    return 0.5 * (1 + erf(h * math.sqrt(0.5)))


def _normal_density(h):
    return np.exp(-0.5 * h * h) * (1 / math.sqrt(2 * math.pi))


def _activate(h, activation):
    if activation == TANH:
        return np.tanh(h)
    if activation == RELU:
        return select(h.real < 0, 0.0, h)
    if activation == GELU:
        return h * _normal_cdf(h)
    if activation == SILU:
        return h * sigmoid(h)
    return softplus(h) if activation == SOFTPLUS else h


def _activation_oracle(x: Any, bias: Any, *, activation: str = "identity") -> Any:
    from scipy import special  # noqa: PLC0415  (an oracle, for tests only)

    h = x + bias
    return {
        "identity": lambda: h,
        "tanh": lambda: np.tanh(h),
        "relu": lambda: np.maximum(h, 0),
        "gelu": lambda: h * special.ndtr(h),
        "silu": lambda: h * special.expit(h),
        "softplus": lambda: np.logaddexp(0, h),
    }[activation]()


@op("(),()->()", attributes={"activation": ACTIVATIONS}, oracle=_activation_oracle)
def bias_activation(x, bias, activation, y):
    """Add a bias and apply an activation: ``f(x + bias)``.

    Parameters
    ----------
    x, bias : array
        Broadcast against each other.
    activation : {"identity", "tanh", "relu", "gelu", "silu", "softplus"}
        gelu is the exact one, h Phi(h).

    Returns
    -------
    array
    """
    y[0] = _activate(x + bias, activation)


@bias_activation.defvjp
def _(x, bias, ct_y, activation, ct_x, ct_bias):
    h = x + bias
    slope = 1.0  # and not h * 0 + 1, which is NaN at an infinite h
    if activation == TANH:
        small = np.exp(-2 * select(h.real > 0, h, -h))
        slope = 4 * small / ((1 + small) * (1 + small))
    elif activation == RELU:
        slope = select(h.real > 0, 1.0, 0.0)
    elif activation == GELU:
        slope = _normal_cdf(h) + h * _normal_density(h)
    elif activation == SILU:
        slope = sigmoid(h) * (1 + h * (1 - sigmoid(h)))
    elif activation == SOFTPLUS:
        slope = sigmoid(h)
    ct_x[0] = ct_y * slope
    ct_bias[0] = ct_x[0]


def _binomial_samples(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int]) -> tuple[Any, ...]:
    total_count = rng.integers(1, 17, (*batch_shape, extents["n"]))
    return (
        rng.binomial(total_count, 0.4).astype(float),
        3 * rng.standard_normal(total_count.shape),
        total_count.astype(float),
    )


def _binomial_oracle(successes: Any, logits: Any, total_count: Any) -> Any:
    return (successes * logits - total_count * np.logaddexp(0, logits)).sum(-1)


@op("(n),(n),(n)->()", oracle=_binomial_oracle, samples=_binomial_samples)
def binomial_log_likelihood(successes, logits, total_count, log_likelihood):
    """Log likelihood of binomial counts, without the binomial coefficients.

    Parameters
    ----------
    successes, logits, total_count : array, shape (..., n)
        An entry with ``total_count = successes = 0`` is left out; ``total_count = 1`` is the Bernoulli.

    Returns
    -------
    array, shape (...)
        ``sum_j k_j l_j - N_j softplus(l_j)``, formed without cancellation where l is large.
    """
    total = logits.dtype.type(0)
    for j in range(logits.shape[0]):
        hit, miss = successes[j], total_count[j] - successes[j]
        size = select(logits[j].real > 0, logits[j], -logits[j])
        total = total - (total_count[j] * np.log1p(np.exp(-size)) + size * select(logits[j].real > 0, miss, hit))
    log_likelihood[0] = total


@binomial_log_likelihood.defvjp
def _(successes, logits, total_count, ct_log_likelihood, ct_successes, ct_logits, ct_total_count):
    for j in range(logits.shape[0]):
        ct_successes[j] = ct_log_likelihood * logits[j]
        miss = total_count[j] - successes[j]
        ct_logits[j] = ct_log_likelihood * (successes[j] * sigmoid(-logits[j]) - miss * sigmoid(logits[j]))
        ct_total_count[j] = -ct_log_likelihood * softplus(logits[j])
