# SPDX-License-Identifier: MIT
"""One pass of an op on tensors with memory: the front end of NumPy on their memory, or the kernels of a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import _dispatch
from .._check import NotPositiveDefiniteError, is_weak
from .._op import Pass
from .._operands import Draw as DrawOfArrays
from ..ops import cholesky
from . import _gpu
from ._draw import Draw, as_draw
from ._tensors import refuse_operands

__all__ = ["run"]

_FRONT: dict[Any, Any] = {cholesky.forward_pass: cholesky, cholesky.vjp_pass: cholesky.vjp}  # calls of another op


def run(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """The results as a tuple of tensors, with None for one that is not wanted."""
    arrays: list[Any] = []
    found, tensor = False, torch.Tensor
    for x in args:
        if isinstance(x, tensor):
            if x.is_cuda:
                return _gpu.run(p, args, keywords)
            if not x.is_cpu:  # of which numpy() would make a copy
                refuse_operands(p, args)
            found = True
            arrays.append(x.numpy(force=True))  # a view: of tensors that require a gradient, too
        else:
            arrays.append(_not_a_tensor(p, len(arrays), x))
    if not found:  # numbers alone: the dtype that torch gives them
        real = np.float64 if torch.get_default_dtype() is torch.float64 else np.float32
        arrays = [np.asarray(x, real) if is_weak(x) else x for x in arrays]
    made = _cholesky(p, arrays, keywords) if p in _FRONT else _dispatch.run(p, tuple(arrays), None, {**keywords})
    if type(made) is np.ndarray:
        return (torch.from_numpy(made),)
    return tuple([_as_tensor(x) for x in made]) if isinstance(made, tuple) else (_as_tensor(made),)


def _cholesky(p: Pass, arrays: list[Any], keywords: dict[str, Any]) -> Any:
    try:
        return _FRONT[p](*arrays, **keywords)
    except NotPositiveDefiniteError as error:
        raise torch.linalg.LinAlgError(str(error)) from error


def _not_a_tensor(p: Pass, k: int, x: Any) -> Any:
    """What else may stand in an operand's place: a number, a Draw, None for a cotangent."""
    if isinstance(x, (Draw, DrawOfArrays)):
        return as_draw(f"{p.name}: {p.inputs[k].name}" if k < len(p.inputs) else p.name, x)
    if not (is_weak(x) or x is None):
        refuse_operands(p, [None] * k + [x])
    return x


def _as_tensor(x: Any) -> Any:
    """A tensor of the array's memory; the front end gives numbers for arrays of no dims."""
    if type(x) is np.ndarray:
        return torch.from_numpy(x)
    return None if x is None else torch.from_numpy(np.asarray(x))
