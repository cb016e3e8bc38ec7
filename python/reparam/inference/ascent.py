# SPDX-License-Identifier: MIT
"""The optimizers of :func:`reparam.fit_vi`: each problem of a batch moves by its own gradient alone."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..distributions import MultivariateNormal, MultivariateNormalDiag
from .refine import natural_step

__all__ = ["Adam", "Ascent", "Natural"]

Array = NDArray[Any]
State = tuple[Array, ...]


class Ascent(Protocol):
    """What the loop asks of an optimizer; a state is arrays whose first dims are those of the batch."""

    def start(self, q: Any) -> State:
        """The state at a given q."""

    def q(self, state: State) -> Any:
        """The distribution at this state."""

    def step(self, state: State, grad: Any, t: int, pace: Array) -> State:
        """A new state, uphill, by the rate times each problem's pace; t steps were done before.

        NaN in a problem whose gradient is not finite.
        """


class Natural:
    """Steps along the natural gradient, with the clips of :func:`reparam.normal_tril_natural_step`."""

    def __init__(self, lr: float, full: bool) -> None:
        self.lr, self.full = lr, full
        self.family = MultivariateNormal if full else MultivariateNormalDiag

    def start(self, q: Any) -> State:
        """See :class:`Ascent`."""
        return q.loc, q._scale

    def q(self, state: State) -> Any:
        """See :class:`Ascent`."""
        return self.family.trusted(*state)

    def step(self, state: State, grad: Any, t: int, pace: Array) -> State:
        """See :class:`Ascent`."""
        scale = grad.scale_tril if self.full else grad.scale_diag
        loc, scale = _times(pace, grad.loc), _times(pace, scale)
        slower = SimpleNamespace(loc=loc, scale_tril=scale, scale_diag=scale)
        return self.start(natural_step(self.q(state), slower, self.lr))


class Adam:
    """Adam (Kingma and Ba, arXiv 1412.6980) on loc and an unconstrained vector of the scale.

    A full factor is diag(scale) times unit lower. Measured against a raw factor, lr 0.05 and 16 draws: steps to
    convergence 695 for 1430 (diabetes regression), 1747 for 2202 (eight schools), 158 for 243 (correlated logistic
    regressions); after 300 steps the raw one is 1.3 nats lower on eight schools.
    """

    def __init__(self, lr: float, full: bool) -> None:
        self.lr, self.full = lr, full

    def start(self, q: Any) -> State:
        """See :class:`Ascent`."""
        vector = ops.vector_from_tril(q._scale, row_scaled=True) if self.full else np.log(q._scale)
        param = np.concatenate([q.loc, vector], axis=-1)
        return param, np.zeros_like(param), np.zeros_like(param)

    def q(self, state: State) -> Any:
        """See :class:`Ascent`."""
        loc, vector = self._parts(state[0])
        if self.full:
            return MultivariateNormal.trusted(loc, ops.tril_from_vector(vector, row_scaled=True))
        return MultivariateNormalDiag.trusted(loc, np.exp(vector))

    def step(self, state: State, grad: Any, t: int, pace: Array) -> State:
        """See :class:`Ascent`."""
        param, m, v = (array.copy() for array in state)
        _, vector = self._parts(param)
        if self.full:
            ct_vector = ops.tril_from_vector.vjp(vector, grad.scale_tril, row_scaled=True)
        else:
            ct_vector = grad.scale_diag * np.exp(vector)
        descent = -np.concatenate([grad.loc, ct_vector], axis=-1)
        ops.adam_step(param, descent, m, v, step=t + 1, lr=self.lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0)
        return state[0] + _times(pace, param - state[0]), m, v

    def _parts(self, param: Array) -> tuple[Array, Array]:
        """Loc and the vector: d + d (d + 1) / 2 entries, or 2 d."""
        count = param.shape[-1]
        d = (math.isqrt(8 * count + 9) - 3) // 2 if self.full else count // 2
        return param[..., :d], param[..., d:]


def _times(pace: Array, array: Array) -> Array:
    """By problem."""
    result: Array = array * pace.reshape(pace.shape + (1,) * (array.ndim - pace.ndim))
    return result
