# SPDX-License-Identifier: MIT
"""Noise that is named by a key and made where it is used."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from .._check import as_key
from .._operands import Draw as DrawOfArrays

__all__ = ["Draw", "as_constant", "as_draw", "as_pair"]


class Draw(NamedTuple):
    """Noise that is made where it is used, again in the backward pass, and never stored.

    A pytree of tensors, so that it goes through ``torch.compile``; eagerly :class:`reparam.random.Draw` does as well.

    Parameters
    ----------
    key : int or int64 tensor
        A number in ``[0, 2**64)``, or one number in a tensor: compiled code then serves all keys.
    index : int64 tensor
        Event b takes stream ``index[b]`` of the key.
    """

    key: Any
    index: Any


def as_draw(name: str, draw: Any) -> Any:
    """The front end's own, with a copy of the index; this module's, with the key as an int, if that is on a GPU."""
    if isinstance(draw, DrawOfArrays):
        return draw
    key, index = draw
    if isinstance(key, torch.Tensor):
        _require_integers(f"{name}: the key of the Draw", key)
        key = int(key) % 2**64
    _require_integers(f"{name}: the index of the Draw", index)
    if index.is_cuda:
        return Draw(key, index)
    numbers = index.numpy(force=True)
    if index.dtype is torch.int64 and (not numbers.size or numbers.min() >= 0):  # as nearly always: half the time
        return DrawOfArrays._trusted(as_key(key, "Draw: key"), numbers.astype(np.uint64, order="C"))
    return DrawOfArrays(key, numbers)


def as_constant(name: str, draw: Any) -> Any:
    """One whose index does not change: what is drawn backward must be what was drawn forward."""
    made = as_draw(name, draw)
    return Draw(made.key, made.index.clone()) if isinstance(made, Draw) else made


def as_pair(name: str, draw: Any) -> tuple[Any, Any]:
    """Key and index as tensors, of which the key has its 64 bits in an int64."""
    if isinstance(draw, DrawOfArrays):
        raise TypeError(f"{name} must be a reparam.torch.Draw in compiled code, got a reparam.random.Draw")
    key, index = draw
    if not isinstance(key, torch.Tensor):
        key = torch.full((), key - 2**64 if key >= 2**63 else key, dtype=torch.int64)
    return key, index


def _require_integers(name: str, x: Any) -> None:
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be an int64 tensor, got {type(x).__name__}")
    if x.dtype not in {torch.int64, torch.int32, torch.uint64}:
        raise TypeError(f"{name} must be torch.int64, got {x.dtype}")
