# SPDX-License-Identifier: MIT
"""The fused Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from ._arrays import copy_of, device_of, is_array, is_cupy, is_writeable, move, type_name
from ._check import FLOATS, as_float, as_int

__all__ = ["Adam"]

Array = NDArray[Any]


def _as_list(name: str, arrays: Any) -> list[Any]:
    """One array or several, as a list."""
    if is_array(arrays):
        return [arrays]
    if not np.iterable(arrays):
        raise TypeError(f"Adam: {name} must be an array or a list of arrays, got {type(arrays).__name__}")
    return list(arrays)


def _check_like(name: str, arrays: list[Any], params: list[Array]) -> None:
    """Hold arrays against the parameters they belong to."""
    if len(arrays) != len(params):
        raise ValueError(f"Adam: {name} must hold {len(params)} arrays, got {len(arrays)}")
    for k, (array, param) in enumerate(zip(arrays, params, strict=True)):
        came = getattr(array, "dtype", type(array).__name__)
        if is_array(array) and is_cupy(array) != is_cupy(param) and not name.endswith("state"):  # which may come anew
            raise TypeError(f"Adam: {name}[{k}] is a {type_name(array)}, and params[{k}] a {type_name(param)}")
        if not is_array(array) or array.dtype != param.dtype:
            raise TypeError(f"Adam: {name}[{k}] must be a {param.dtype} array as params[{k}] is, got {came}")
        if array.shape != param.shape:
            raise ValueError(f"Adam: {name}[{k}] must have shape {param.shape} as params[{k}] has, got {array.shape}")


def _zeros_like(param: Array) -> Array:
    with device_of(param):
        return np.zeros_like(param)


def _check_writeable(params: list[Array]) -> None:
    for k, array in enumerate(params):
        if not is_writeable(array):
            raise ValueError(f"Adam: params[{k}] is read-only, but it is updated in place")


class Adam:
    """Adam with decoupled weight decay, one fused pass per array, in place.

    Parameters
    ----------
    params : array or list of arrays
        float32 or float64, writeable, of NumPy or CuPy; updated by :meth:`step`.
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
        self.params = _as_list("params", params)
        for k, array in enumerate(self.params):
            if not is_array(array) or array.dtype not in FLOATS:
                came = getattr(array, "dtype", type(array).__name__)
                raise TypeError(f"Adam: params[{k}] must be a float32 or float64 array, got {came}")
        _check_writeable(self.params)
        self.lr = lr if callable(lr) else as_float("Adam: lr", lr, 0)
        if np.size(betas) != 2:
            raise ValueError(f"Adam: betas must be two numbers, got {betas!r}")
        self.betas = (as_float("Adam: betas", betas[0], 0), as_float("Adam: betas", betas[1], 0))
        if max(self.betas) >= 1:
            raise ValueError(f"Adam: betas must be in [0, 1), got {betas!r}")
        self.eps = as_float("Adam: eps", eps, 0)
        self.weight_decay = as_float("Adam: weight_decay", weight_decay, 0)
        self.t = 0
        self.m, self.v = ([_zeros_like(p) for p in self.params] for _ in range(2))

    def __repr__(self) -> str:
        """What it updates, the hyperparameters, and the steps taken."""
        rate = getattr(self.lr, "__name__", "a function") if callable(self.lr) else self.lr
        count = f"{len(self.params)} array{'s' if len(self.params) != 1 else ''} of {sum(p.size for p in self.params)}"
        return (
            f"Adam({count} entries, lr={rate}, betas={self.betas}, eps={self.eps}, weight_decay={self.weight_decay}, "
            f"t={self.t})"
        )

    def step(self, grads: Array | Sequence[Array]) -> None:
        """Take one descent step.

        Parameters
        ----------
        grads : array or list of arrays
            Of the shapes and dtypes of ``params``.
        """
        given = _as_list("grads", grads)
        _check_like("grads", given, self.params)
        _check_writeable(self.params)
        rate = as_float("Adam: lr(step)", self.lr(self.t + 1), 0) if callable(self.lr) else self.lr
        self.t += 1
        beta1, beta2 = self.betas
        hyper = {
            "step": self.t,
            "lr": rate,
            "beta1": beta1,
            "beta2": beta2,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
        }
        for param, grad, m, v in zip(self.params, given, self.m, self.v, strict=True):
            ops.adam_step(param, grad, m, v, **hyper)

    def state_dict(self) -> dict[str, Any]:
        """The step number and copies of the moments."""
        return {"t": self.t, "m": [*map(copy_of, self.m)], "v": [*map(copy_of, self.v)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; a state that does not fit changes nothing."""
        if not isinstance(state, dict) or set(state) != {"t", "m", "v"}:
            came = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"Adam: a state is a dict with the entries t, m, v, got {came}")
        t = as_int("Adam: t of the state", state["t"])
        loaded = {name: _as_list(f"{name} of the state", state[name]) for name in ("m", "v")}
        for name, arrays in loaded.items():
            _check_like(f"{name} of the state", arrays, self.params)
        for name, arrays in loaded.items():
            for target, array in zip(getattr(self, name), arrays, strict=True):
                with device_of(target):
                    target[...] = move(array, target)
        self.t = t
