# SPDX-License-Identifier: MIT
"""A log density written in PyTorch, for the functions of this package that take one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from .._arrays import is_cupy, namespace_of

__all__ = ["log_joint"]


def log_joint(fn: Callable[[Any], Any], *, parameters: Iterable[Any] = ()) -> Callable[[Any], Any]:
    """The callable that :func:`reparam.elbo`, ``fit_vi`` and ``map_estimate`` take, of a log density in PyTorch.

    Parameters
    ----------
    fn : callable
        Takes z, a tensor of shape ``(S, *B, d)``, and returns log p(x, z), of shape ``(S, *B)``, on any device. z has
        the dtype of the call: where ``fn`` holds float32 parameters, ask for ``dtype="float32"``.
    parameters : iterable of Tensor
        Leaves of the model, such as ``module.parameters()``: each gradient of the bound adds to their ``.grad``, in the
        same backward pass, the gradient of ``value.sum()``. It leads uphill: give an optimizer ``maximize=True``, or
        turn its sign. By default no ``.grad`` is touched.

    Returns
    -------
    callable
        ``value -> (log_prob, pullback)`` on arrays of NumPy or CuPy, with one backward pass by ``pullback(weights)``.

    Raises
    ------
    TypeError, ValueError
        By the callable, if ``fn`` does not return a tensor of shape ``(S, *B)`` that depends on z by
        differentiable operations; TypeError also if it fails of a dtype, as where its parameters have not that of z.
    """
    if not callable(fn):
        raise TypeError(f"log_joint: fn must be callable, got {type(fn).__name__}")
    if not isinstance(parameters, Iterable) or isinstance(parameters, torch.Tensor):
        wanted = "an iterable of tensors, such as module.parameters()"
        raise TypeError(f"log_joint: parameters must be {wanted}, got {type(parameters).__name__}")
    leaves = list(parameters)
    for k, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.Tensor) or not leaf.is_leaf:
            raise TypeError(f"log_joint: parameters[{k}] must be a leaf tensor, got {_kind(leaf)}")

    def density(value: Any) -> tuple[Any, Any]:
        z = _as_tensor(value).requires_grad_()
        with torch.enable_grad():
            log_prob = _call(fn, z)
        _check(log_prob, z)

        def pullback(weights: Any) -> Any:
            inputs = [z, *(leaf for leaf in leaves if leaf.requires_grad)]
            torch.autograd.backward(log_prob, _as_tensor(weights).to(log_prob.device), inputs=inputs)
            if z.grad is None:
                raise ValueError(_NO_GRAPH)
            return _as_array(z.grad, value)

        return _as_array(log_prob.detach().to(z.device), value), pullback

    return density


_NO_GRAPH = "log_joint: what fn returns must depend on z by differentiable operations; it has no gradient in z"


def _call(fn: Callable[[Any], Any], z: Any) -> Any:
    try:
        return fn(z)
    except (RuntimeError, TypeError) as error:
        if "dtype" not in str(error):
            raise
        other = "float32" if z.dtype is torch.float64 else "float64"
        raise TypeError(
            f'log_joint: fn failed on z, which is {z.dtype}; if its model is torch.{other}, ask for dtype="{other}" '
            f"({error})"
        ) from error


def _check(log_prob: Any, z: Any) -> None:
    if not isinstance(log_prob, torch.Tensor):
        raise TypeError(f"log_joint: fn must return a tensor, got {type(log_prob).__name__}")
    if log_prob.shape != z.shape[:-1]:
        wanted = f"the shape of z without its last dim, {tuple(z.shape[:-1])}"
        raise ValueError(f"log_joint: fn must return {wanted}, got {tuple(log_prob.shape)}")
    if log_prob.dtype != z.dtype:
        raise TypeError(f"log_joint: fn must return {z.dtype} as z is, got {log_prob.dtype}")
    if not log_prob.requires_grad:
        raise ValueError(_NO_GRAPH)


def _kind(value: Any) -> str:
    return "a tensor that was computed" if isinstance(value, torch.Tensor) else type(value).__name__


def _as_tensor(array: Any) -> Any:
    """The same memory where torch takes it: not of an array that is read-only or runs backwards."""
    if is_cupy(array):
        return torch.from_dlpack(array)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _as_array(tensor: Any, like: Any) -> Any:
    return namespace_of(like).from_dlpack(tensor) if is_cupy(like) else tensor.numpy()
