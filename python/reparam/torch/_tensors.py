# SPDX-License-Identifier: MIT
"""Tensors of the CPU as NumPy's views of the same memory, and back; what the ops cannot take is refused in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from .. import _check
from .._op import Pass
from .._operands import Draw
from .._signature import Operand

__all__ = ["as_array", "as_tensors", "is_dual", "refuse_operands"]

FLOATS = (torch.float32, torch.float64)


def as_array(x: Any) -> Any:
    """A view of a tensor's memory; anything else is left to the checks of the front end."""
    return x.numpy(force=True) if isinstance(x, torch.Tensor) else x


def as_tensors(results: Any) -> tuple[Any, ...]:
    """Results of the front end, one or a tuple, as tensors of the same memory; numbers of NumPy have no dims."""
    if not isinstance(results, tuple):
        results = (results,)
    from_numpy = torch.from_numpy
    return tuple(
        [
            None if x is None else from_numpy(x) if type(x) is np.ndarray else torch.asarray(np.asarray(x))
            for x in results
        ]
    )


def is_dual(x: Any) -> bool:
    """Whether it carries a tangent of forward-mode differentiation."""
    return isinstance(x, torch.Tensor) and forward_ad.unpack_dual(x).tangent is not None


def refuse_operands(p: Pass, args: Sequence[Any]) -> None:
    """Refuse what is no dense tensor of one floating type on one device; a number and a Draw where the op takes them.

    Raises
    ------
    TypeError
        Naming the argument, what came and what was expected.
    """
    tensors = []
    for k, (operand, x) in enumerate(zip(p.inputs, args, strict=False)):
        if isinstance(x, torch.Tensor):
            _refuse_tensor(p, operand, x)
            tensors.append((operand.name, x))
        elif not (
            (x is None and k >= p.primals)
            or (operand.takes_number and _check.is_weak(x))
            or (operand.drawable and isinstance(x, Draw))
        ):
            raise TypeError(f"{p.name}: {operand.name} must be {_wanted(operand)}, got {type(x).__name__}")
    reals = [(name, x) for name, x in tensors if x.dtype in FLOATS]
    for name, x in reals[1:]:
        _check.same_dtype(p.name, (reals[0][0], reals[0][1].dtype), (name, x.dtype))
    for name, x in tensors[1:]:
        if x.device != tensors[0][1].device:
            first, other = tensors[0][1].device, x.device
            raise TypeError(
                f"{p.name}: {tensors[0][0]} is on {first} and {name} on {other}; they must be on one device"
            )


def _wanted(operand: Operand) -> str:
    others = {"a number": operand.takes_number, "a Draw": operand.drawable}
    *most, last = ["a tensor", *(name for name, taken in others.items() if taken)]
    return f"{', '.join(most)} or {last}" if most else last


def _refuse_tensor(p: Pass, operand: Operand, x: Any) -> None:
    name = f"{p.name}: {operand.name}"
    if x.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got the layout {x.layout}; convert it with .to_dense()")
    if x.device.type not in {"cpu", "cuda"}:
        raise TypeError(f"{name} must be on cpu or cuda, got {x.device}")
    if operand.item == "real" and x.dtype not in FLOATS:
        convert = "; convert it with .to" if not x.dtype.is_complex else ""
        raise TypeError(f"{name} must be torch.float32 or torch.float64, got {x.dtype}{convert}")
