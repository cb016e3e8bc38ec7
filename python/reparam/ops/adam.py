# SPDX-License-Identifier: MIT
"""One step of Adam, fused and in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op

_HYPER = dict.fromkeys(("step_size", "beta1", "beta2", "eps", "weight_decay", "bias1", "bias2"))


def _samples(rng: Any, batch_shape: tuple[int, ...], extents: dict[str, int]) -> tuple[Any, ...]:
    return (*rng.standard_normal((3, *batch_shape)), rng.random(batch_shape))


@op("()!,(),()!,()!->", attributes=_HYPER, samples=_samples)
def adam_step(param, grad, m, v, step_size, beta1, beta2, eps, weight_decay, bias1, bias2):  # type: ignore[no-untyped-def]
    """Adam with decoupled weight decay (arXiv 1412.6980, 1711.05101), in place.

    Parameters
    ----------
    param, grad, m, v : array
        Of one shape; ``param``, ``m`` and ``v`` are updated.
    step_size, beta1, beta2, eps, weight_decay : float
        The learning rate and the usual constants.
    bias1, bias2 : float
        The bias corrections ``1 - beta^t``; :class:`reparam.optim.Adam` forms them in float64.
    """
    m[...] = m + (1 - beta1) * (grad - m)
    v[...] = beta2 * v + (1 - beta2) * (grad * grad)
    update = (m / bias1) / (np.sqrt(v / bias2) + eps)
    param[...] = param - step_size * (weight_decay * param + update)
