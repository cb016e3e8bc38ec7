# SPDX-License-Identifier: MIT
"""One step of Adam, fused and in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._op import op, scalar_form

_HYPER = dict.fromkeys(("step", "lr", "beta1", "beta2", "eps", "weight_decay"))
_LIMITS = {
    "step": (1.0, math.inf),
    "lr": (0.0, math.inf),
    "beta1": (0.0, 1.0),
    "beta2": (0.0, 1.0),
    "eps": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
}


def _samples(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int]) -> tuple[Any, ...]:
    return (*rng.standard_normal((3, *batch_shape)), rng.random(batch_shape))


def _bias(beta, t):
    """Form 1 - beta^t in float64 without cancellation."""
    return float(-np.expm1(t * np.log(np.float64(beta))))


def _each(x):
    """Places of the numbers that share one step: all lanes at once."""
    return (slice(None),)


@scalar_form(_each)
def _(x):
    return range(x.shape[0])


@op("()!,(),()!,()!->", attributes=_HYPER, limits=_LIMITS, samples=_samples)
def adam_step(param, grad, m, v, step, lr, beta1, beta2, eps, weight_decay):
    """Adam with decoupled weight decay (arXiv 1412.6980, 1711.05101), in place.

    Parameters
    ----------
    param, grad, m, v : array
        Of one shape; ``param``, ``m`` and ``v`` are updated.
    step : int
        Number of this step, from 1: the bias corrections are ``1 - beta**step``, formed in float64.
    lr, beta1, beta2, eps, weight_decay : float
        The learning rate and the usual constants.

    Notes
    -----
    ``param -= lr * (weight_decay * param + (m / (1 - beta1**step)) / (sqrt(v / (1 - beta2**step)) + eps))``.
    """
    real = param.dtype.type
    rate, root = real(lr / _bias(beta1, step)), real(1 / math.sqrt(_bias(beta2, step)))
    for i in _each(param):
        m[i] = m[i] + real(1 - beta1) * (grad[i] - m[i])
        v[i] = real(beta2) * v[i] + real(1 - beta2) * (grad[i] * grad[i])
        scale = np.sqrt(v[i]) * root + real(eps)
        param[i] = param[i] * real(1 - lr * weight_decay) - rate * (m[i] / scale)
