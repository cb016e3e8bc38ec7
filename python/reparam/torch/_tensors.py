# SPDX-License-Identifier: MIT
"""Which tensors the ops take; the others are refused in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from .. import _check
from .._op import Pass
from .._operands import Draw as DrawOfArrays
from .._signature import Operand
from ._draw import Draw

__all__ = ["HALVES", "is_dual", "is_foreign", "refuse_fields", "refuse_operands", "widened"]

FLOATS = {torch.float32, torch.float64}
HALVES = {torch.float16, torch.bfloat16}


def is_dual(x: Any) -> bool:
    """Whether it carries a tangent of forward-mode differentiation; compiled, the question itself would lose it."""
    if torch.compiler.is_compiling():
        return True
    return isinstance(x, torch.Tensor) and forward_ad.unpack_dual(x).tangent is not None


def is_foreign(x: Any) -> bool:
    """Whether it is a tensor that answers for itself, or has no memory: the operators of torch.library find a way."""
    own = getattr(type(x), "__torch_dispatch__", None)
    plain = own is None or own is torch.Tensor.__torch_dispatch__ or own is torch._C._disabled_torch_dispatch_impl
    return isinstance(x, torch.Tensor) and (x.is_meta or not plain)


def widened(args: Sequence[Any]) -> tuple[Any, ...] | None:
    """Under autocast, half-precision operands in float32, as torch.linalg takes them; None if there are none."""
    return tuple(x.float() if _is_wider(x) else x for x in args) if any(_is_wider(x) for x in args) else None


def _is_wider(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype in HALVES and torch.is_autocast_enabled(x.device.type)


def refuse_fields(owner: str, fields: dict[str, Any]) -> None:
    """Refuse arguments of a distribution that are not tensors of one floating type on one device, as the ops would.

    Raises
    ------
    TypeError
        Naming the arguments, what came and what was expected.
    """
    found = []
    for name, x in fields.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{owner}: {name} must be a tensor, got {type(x).__name__}")
        dtype = torch.float32 if _is_wider(x) else x.dtype
        if dtype not in FLOATS:
            raise TypeError(f"{owner}: {name} must be torch.float32 or torch.float64, got {dtype}")
        found.append((name, dtype, x.device))
    for name, dtype, device in found[1:]:
        _check.same_dtype(owner, found[0][:2], (name, dtype))
        _same_device(owner, found[0][::2], (name, device))


def _same_device(owner: str, first: tuple[str, Any], other: tuple[str, Any]) -> None:
    """Both are pairs of a name and a device."""
    if other[1] != first[1]:
        raise TypeError(
            f"{owner}: {first[0]} is on {first[1]} and {other[0]} on {other[1]}; they must be on one device"
        )


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
            _refuse_tensor(f"{p.name}: {operand.name}", operand, x)
            tensors.append((operand, x))
        elif isinstance(x, Draw):
            if not operand.drawable:
                raise TypeError(f"{p.name}: {operand.name} must be {_wanted(operand)}, got a Draw")
        elif not (
            (x is None and k >= p.primals)
            or (operand.takes_number and _check.is_weak(x))
            or (operand.drawable and isinstance(x, DrawOfArrays))
        ):
            raise TypeError(f"{p.name}: {operand.name} must be {_wanted(operand)}, got {type(x).__name__}")
    reals = [(o.name, x.dtype) for o, x in tensors if o.item == "real"]
    for other in reals[1:]:
        _check.same_dtype(p.name, reals[0], other)
    for operand, x in tensors[1:]:
        _same_device(p.name, (tensors[0][0].name, tensors[0][1].device), (operand.name, x.device))


def _wanted(operand: Operand) -> str:
    """What may stand in its place, as errors say it."""
    others = {"a number": operand.takes_number, "a Draw": operand.drawable}
    *most, last = ["a tensor", *(name for name, taken in others.items() if taken)]
    return f"{', '.join(most)} or {last}" if most else last


def _refuse_tensor(name: str, operand: Operand, x: Any) -> None:
    if x.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got one of {x.layout}; convert it with .to_dense()")
    if x.device.type not in {"cpu", "cuda", "meta"}:
        raise TypeError(f"{name} must be on cpu or cuda, got {x.device}")
    if operand.item == "real" and x.dtype not in FLOATS:
        convert = "" if x.dtype.is_complex else "; convert it with .to"
        raise TypeError(f"{name} must be torch.float32 or torch.float64, got {x.dtype}{convert}")
