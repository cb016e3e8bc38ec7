# SPDX-License-Identifier: MIT
"""Shapes and dtypes of an op's results, of tensors without memory too, whose sizes may be symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .. import _check
from .._dispatch import batches_of_results
from .._op import Pass
from ._draw import Draw
from ._tensors import refuse_operands

__all__ = ["Plan", "plan", "planned"]

Shape = tuple[int, ...]
ITEMS = {"int32": torch.int32, "uint32": torch.uint32, "uint64": torch.uint64}


class Plan(NamedTuple):
    """What a call comes to; the results are pairs of shape and dtype."""

    batch_shape: Shape
    sizes: Shape  # of the symbols of the pass
    dtype: str
    results: tuple[tuple[Shape, Any], ...]


def plan(p: Pass, args: Sequence[Any], extents: dict[str, int]) -> Plan:
    """Check the operands and work out the results.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """
    refuse_operands(p, args)
    real = next((x.dtype for o, x in zip(p.inputs, args, strict=True) if o.item == "real" and _is_tensor(x)), None)
    real = real or torch.get_default_dtype()
    shapes = [tuple(x.shape) if _is_tensor(x) else None for x in args]
    extents = _check.resolve_extents(p, shapes, extents)
    batches = [_batch(o.event_rank, x) for o, x in zip(p.inputs, args, strict=True)]
    batch_shape = _broadcast(p, batches)
    results = [
        (tuple(batch) + o.event_shape(extents), real if o.item == "real" else ITEMS[o.item])
        for o, batch in zip(p.outputs, batches_of_results(p, batches, batch_shape), strict=True)
    ]
    dtype = "float64" if real is torch.float64 else "float32"
    return Plan(batch_shape, tuple(extents[s] for s in p.symbols), dtype, tuple(results))


_plans: dict[Any, Plan] = {}
_MOST_KEPT = 4096


def planned(p: Pass, args: Sequence[Any], extents: dict[str, int]) -> Plan:
    """The plan of a call on tensors with memory, which is looked up where such a call was made before."""
    forms = [(x.shape, x.dtype, x.device, x.layout) if isinstance(x, torch.Tensor)
             else x.index.shape if isinstance(x, Draw) else type(x) for x in args]  # fmt: skip
    key = (p, torch.get_default_dtype(), *forms, *extents.items())
    found = _plans.get(key)
    if found is None:
        if len(_plans) >= _MOST_KEPT:
            _plans.clear()
        found = _plans[key] = plan(p, args, extents)
    return found


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _batch(event_rank: int, x: Any) -> Shape:
    if isinstance(x, Draw):
        return tuple(x.index.shape)
    return tuple(x.shape[: x.ndim - event_rank]) if _is_tensor(x) else ()


def _broadcast(p: Pass, batches: list[Shape]) -> Shape:
    names = [o.name for o in p.inputs]
    if all(type(n) is int for batch in batches for n in batch):
        return _check.broadcast_batches(p.name, names, batches)
    try:  # sizes that are symbols have no hash
        return tuple(torch.broadcast_shapes(*batches))
    except RuntimeError as error:
        listed = ", ".join(f"{n} {s}" for n, s in zip(names, batches, strict=True))
        raise ValueError(f"{p.name}: batch shapes do not broadcast: {listed}") from error
