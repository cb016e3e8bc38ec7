# SPDX-License-Identifier: MIT
"""The fused Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from ._check import FLOATS, as_float

__all__ = ["Adam"]

Array = NDArray[Any]


class Adam:
    """Adam with decoupled weight decay, one fused pass per array, in place.

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, writeable; updated by :meth:`step`.
    lr : float or callable
        Learning rate, or a function of the step number (from 1).
    betas : pair of float
        Decay of the moments, in [0, 1).
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        Decoupled, as in torch.optim.AdamW: ``param -= lr * weight_decay * param``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.

    Notes
    -----
    Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101. The bias corrections
    ``-expm1(t log beta)`` are formed in float64.
    """

    def __init__(
        self,
        params: Array | Sequence[Array],
        lr: float | Callable[[int], float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.params = [params] if isinstance(params, np.ndarray) else list(params)
        for k, array in enumerate(self.params):
            if not isinstance(array, np.ndarray) or array.dtype not in FLOATS:
                came = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"Adam: params[{k}] must be a float32 or float64 array, got {came}")
            if not array.flags.writeable:
                raise ValueError(f"Adam: params[{k}] is read-only, but it is updated in place")
        self.lr = lr if callable(lr) else as_float("Adam: lr", lr, 0)
        if len(betas) != 2:
            raise ValueError(f"Adam: betas must be two numbers, got {betas!r}")
        self.betas = (as_float("Adam: betas", betas[0], 0), as_float("Adam: betas", betas[1], 0))
        if max(self.betas) >= 1:
            raise ValueError(f"Adam: betas must be in [0, 1), got {betas!r}")
        self.eps = as_float("Adam: eps", eps, 0)
        self.weight_decay = as_float("Adam: weight_decay", weight_decay, 0)
        self.t = 0
        self.m = [np.zeros_like(p) for p in self.params]
        self.v = [np.zeros_like(p) for p in self.params]

    def step(self, grads: Array | Sequence[Array]) -> None:
        """Take one descent step.

        Parameters
        ----------
        grads : array or list of arrays
            Of the shapes and dtypes of ``params``.
        """
        given = [grads] if isinstance(grads, np.ndarray) else list(grads)
        if len(given) != len(self.params):
            raise ValueError(f"Adam: grads must hold {len(self.params)} arrays, got {len(given)}")
        for k, (grad, param) in enumerate(zip(given, self.params, strict=True)):
            if grad.shape != param.shape or grad.dtype != param.dtype:
                raise ValueError(
                    f"Adam: grads[{k}] must be {param.dtype} of shape {param.shape}, got {grad.dtype} of {grad.shape}"
                )
        rate = as_float("Adam: lr(step)", self.lr(self.t + 1), 0) if callable(self.lr) else self.lr
        self.t += 1
        beta1, beta2 = self.betas
        hyper = {"step": self.t, "lr": rate, "beta1": beta1, "beta2": beta2, "eps": self.eps, "weight_decay": self.weight_decay}
        for param, grad, m, v in zip(self.params, given, self.m, self.v, strict=True):
            ops.adam_step(param, grad, m, v, **hyper)

    def state_dict(self) -> dict[str, Any]:
        """The step number and copies of the moments."""
        return {"t": self.t, "m": [m.copy() for m in self.m], "v": [v.copy() for v in self.v]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        if set(state) != {"t", "m", "v"}:
            raise ValueError(f"Adam: a state has the entries t, m, v, got {sorted(state)}")
        for name in ("m", "v"):
            own, loaded = getattr(self, name), [np.asarray(a) for a in state[name]]
            if [a.shape for a in loaded] != [a.shape for a in own] or any(
                a.dtype != b.dtype for a, b in zip(loaded, own, strict=True)
            ):
                raise ValueError(f"Adam: {name} of the state does not have the shapes and dtypes of the parameters")
        for name in ("m", "v"):
            for target, loaded in zip(getattr(self, name), state[name], strict=True):
                target[...] = loaded
        self.t = int(state["t"])

