# SPDX-License-Identifier: MIT
"""Errors of a call of an op, worded from its signature and the names of its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_array, is_cupy, is_writeable, may_share_memory, type_name
from .._op import Pass
from .._signature import Operand
from .values import MOST_ELEMENTS

Array = NDArray[Any]
Shape = tuple[int, ...]
MOST_BATCH_DIMS = 16


def check_keywords(p: Pass, unknown: Sequence[str]) -> None:
    """Refuse keywords that a pass does not have."""
    if unknown:
        extra = {"packed": p.op.packable, "wrt": p.reverse, "out": bool(p.outputs)}
        own = [name for name, taken in extra.items() if taken]
        known = ", ".join([*(o.name for o in p.inputs), *p.free_symbols, *p.op.attributes, *own])
        raise TypeError(f"{p.name} got an unexpected keyword {unknown[0]!r}; it takes {known}")


def check_operands(p: Pass, count: int, missing: Sequence[str] = ()) -> None:
    """Refuse a wrong number of arrays."""
    if missing or count != len(p.inputs):
        plural = "" if len(p.inputs) == 1 else "s"
        verb = "is" if len(missing) == 1 else "are"
        got = f"; {' and '.join(missing)} {verb} missing" if missing else f", got {count}"
        raise TypeError(f"{p.name} takes {len(p.inputs)} array{plural} ({', '.join(o.name for o in p.inputs)}){got}")


def resolve_extents(p: Pass, shapes: Sequence[Shape | None], given: dict[str, int]) -> dict[str, int]:
    """Size of each symbol, from the event dims of the inputs."""
    extents = dict(given)
    source = dict.fromkeys(given, "the keyword")
    for operand, shape in zip(p.inputs, shapes, strict=True):
        if shape is None:
            continue
        events = shape[len(shape) - operand.event_rank :] if len(shape) >= operand.event_rank else None
        found = None if events is None else _event_sizes(operand, events)
        if found is None:
            raise _event_error(p, operand, shape, extents, source)
        if any(extents.get(symbol, size) != size for symbol, size in found.items()):
            raise _event_error(p, operand, shape, extents, source)
        extents |= found
        source |= dict.fromkeys(found.keys() - source, operand.name)
    missing = [s for s in p.symbols if s not in extents]
    if missing:
        raise TypeError(f"{p.name} needs the keyword {' and '.join(missing)}")
    return extents


def _event_sizes(operand: Operand, events: Shape) -> dict[str, int] | None:
    if operand.kind in {"tril", "sym"}:
        return {operand.symbols[0]: events[0]} if events[0] == events[1] else None
    if operand.kind == "vec":
        d = (math.isqrt(8 * events[0] + 1) - 1) // 2
        return {operand.symbols[0]: d} if d * (d + 1) // 2 == events[0] else None
    return dict(zip(operand.symbols, events, strict=True))


def _event_error(
    p: Pass, operand: Operand, shape: Shape, extents: dict[str, int], source: dict[str, str]
) -> ValueError:
    known = [f"{s} = {extents[s]} (from {source[s]})" for s in operand.symbols if s in source]
    because = f" with {' and '.join(known)}" if known else ""
    return ValueError(f"{p.name}: {operand.name} must have shape (..., {operand.event_text()}){because}, got {shape}")


def broadcast_batches(owner: str, names: Sequence[str], shapes: Sequence[Shape]) -> Shape:
    """The batch shape of a call, by NumPy's rule."""
    for name, shape in zip(names, shapes, strict=True):  # before NumPy is asked, which has a limit of its own
        if len(shape) > MOST_BATCH_DIMS:
            raise ValueError(f"{owner}: {name} may have at most {MOST_BATCH_DIMS} batch dims, got {len(shape)}")
    sizes = [{*at} - {1} for at in zip_longest(*(s[::-1] for s in shapes), fillvalue=1)]
    fit = all(len(at) < 2 for at in sizes)
    batch_shape = tuple(min(at, default=1) for at in reversed(sizes))
    if fit and math.prod(batch_shape) <= MOST_ELEMENTS:
        return batch_shape
    listed = ", ".join(f"{n} {s}" for n, s in zip(names, shapes, strict=True))
    if not fit:
        raise ValueError(f"{owner}: batch shapes do not broadcast: {listed}")
    raise MemoryError(f"{owner}: a batch of {batch_shape} is more than any memory holds ({listed})")


def check_in_place(p: Pass, args: Sequence[Any], batch_shape: Shape) -> None:
    """Operands that are updated in place: arrays of NumPy or CuPy, writeable, of the full batch shape."""
    for operand, array in zip(p.inputs, args, strict=True):
        name = f"{p.name}: {operand.name} is updated in place"
        if operand.in_place and not is_array(array):
            raise TypeError(f"{name} and must be a NumPy array, got {type(array).__name__}")
        if operand.in_place and array.shape != batch_shape:
            raise ValueError(f"{name} and must have the full shape {batch_shape}, got {array.shape}")
        if operand.in_place and not is_writeable(array):
            raise ValueError(f"{name}, but it is read-only")
        if operand.in_place and _overlaps_itself(array):
            raise ValueError(f"{name}, but entries of it share memory (a stride of 0)")
    written = [(o.name, a) for o, a in zip(p.inputs, args, strict=True) if o.in_place]
    _refuse_shared(p, written, "are updated in place, but share memory")


def _refuse_shared(p: Pass, written: Sequence[tuple[str, Array]], what: str) -> None:
    """Refuse two arrays that are written and have an entry in common; columns of one buffer have none."""
    for k, (name, array) in enumerate(written):
        for other, another in written[:k]:
            if may_share_memory(array, another, max_work=1000):
                raise ValueError(f"{p.name}: {other} and {name} {what}")


def _overlaps_itself(array: Array) -> bool:
    return array.size > 0 and any(n > 1 and stride == 0 for n, stride in zip(array.shape, array.strides, strict=True))


def check_out(
    p: Pass, out: Any, results: Sequence[tuple[Shape, np.dtype[Any]]], wanted: Sequence[bool] | None, device: Any = None
) -> tuple[Array | None, ...]:
    """``out=`` as a tuple of arrays of the right shapes and dtypes; None where a result is not wanted.

    ``device`` is the GPU of the operands, None of NumPy arrays.
    """
    given = out if isinstance(out, tuple) else (out,)
    if len(given) != len(p.outputs):
        names, count = ", ".join(o.name for o in p.outputs), len(p.outputs)
        expected = (
            f"a tuple of {count} arrays ({names})" if count > 1 else f"one array ({names})" if count else "left out"
        )
        got = f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
        raise TypeError(f"{p.name}: out must be {expected}, got {got}")
    for k, (operand, array, (shape, dtype)) in enumerate(zip(p.outputs, given, results, strict=True)):
        name = f"{p.name}: out for {operand.name}"
        if wanted is not None and not wanted[k]:
            if array is not None:
                raise TypeError(f"{name} must be None, since its cotangent is not wanted, got {type(array).__name__}")
            continue
        if device is not None:
            if not is_cupy(array) or array.device != device:
                place = f" on GPU {array.device.id}" if is_cupy(array) else ""
                came = f"{type_name(array)}{place}"
                raise TypeError(f"{name} must be a CuPy array on GPU {device.id}, where the operands are, got {came}")
        elif not isinstance(array, np.ndarray) or hasattr(array, "filled"):  # under a mask nobody would see it
            raise TypeError(f"{name} must be a NumPy array, got {type_name(array)}")
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {dtype}, got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
        if not is_writeable(array):
            raise ValueError(f"{name} is read-only")
        if _overlaps_itself(array):
            raise ValueError(f"{name} has entries that share memory (a stride of 0)")
    written = [(f"out for {o.name}", a) for o, a in zip(p.outputs, given, strict=True) if a is not None]
    _refuse_shared(p, written, "share memory")
    return given
