# SPDX-License-Identifier: MIT
"""The kernels for GPUs, in a module of their own, which loads without a driver: CuPy's arrays go there as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import _check
from .._op import Pass
from .._operands import Draw, index_like
from .._signature import Operand

_why_not = "it found no nvcc"
try:
    from .. import _cuda
except ImportError as error:
    _cuda = None  # type: ignore[assignment]
    if not isinstance(error, ModuleNotFoundError) and "cannot import name" not in str(error):
        _why_not = f"they do not load: {error}"


Strides = list[int]
Entry = tuple[int, Strides, Strides] | tuple[int, Strides, Strides, int]


def describe() -> dict[str, str]:
    """What ``reparam info`` says of GPUs: what was compiled, the driver, the devices or why there are none."""
    if _cuda is None:
        return {"kernels": f"none in this build: {_why_not}"}
    driver = _cuda.versions()[0]
    about = {"kernels": f"for {_cuda.targets} by {_cuda.compiler}"}
    about["driver"] = f"for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none"
    try:
        names = [device["name"] for device in _cuda.devices()]
    except RuntimeError as error:
        return {**about, "devices": str(error)}
    return {**about, "devices": ", ".join(names)}


@contextmanager
def on(device: Any, name: str) -> Iterator[None]:
    """Make the GPU of a call's arrays the current one; errors of the GPU say what to do."""
    if _cuda is None:
        raise TypeError(
            f"{name}: this build of reparam has no kernels for CuPy arrays, {_why_not}: install reparam "
            "where nvcc is, or move the arrays by cupy.asnumpy"
        )
    try:
        with device:
            yield
    except (MemoryError, RuntimeError) as error:
        explained = _check.explain(name, error, device, _cuda)
        try:
            if explained is error:
                raise
            raise explained from error
        finally:
            del explained  # which holds this frame, and so the arrays of the call: their memory is wanted back now


def run(xp: Any, p: Pass, plan: Any, attributes: tuple[float, ...], inputs: list[Any], results: list[Any]) -> None:
    """Run one pass on its inputs and outputs, on CuPy's current stream; the plan holds the shapes. Nothing waits.

    ``xp`` is CuPy.
    """
    some_array = next(x for x in (*inputs, *results) if x is not None and not isinstance(x, Draw))
    stream = xp.cuda.get_current_stream()
    drawn = [index_like(x, some_array) if isinstance(x, Draw) else None for x in inputs]
    rank = len(plan.batch_shape)
    entries: list[Entry | None] = []
    for x, index, operand in zip(inputs, drawn, p.inputs, strict=True):
        if index is None:
            entries.append(_entry(p, operand, x, rank))
        else:
            address, batch, _ = _entry(p, Operand(operand.name, "scalar", ()), index, rank)
            entries.append((address, batch, [], x.key))
    outputs = [
        _entry(p, o, x, rank) if x is not None and x.size else None for o, x in zip(p.outputs, results, strict=True)
    ]
    entries += [*p.left_out, *outputs]
    sizes, numbers = (list(plan.batch_shape), list(plan.sizes)), list(attributes)
    call = (p.op.name, p.reverse, plan.dtype, *sizes, entries, numbers, p.unpacked is not p)
    size = _cuda.scratch(*call)
    # It may be freed before it is used: the pool gives it again to this stream alone, whose next calls run afterwards.
    scratch = xp.cuda.alloc(size)
    _cuda.run(*call, scratch.ptr, stream.ptr)


def _entry(p: Pass, operand: Operand, array: Any, rank: int) -> tuple[int, list[int], list[int]]:
    """Address, batch strides and event strides in elements; 0 where a dim is broadcast or summed."""
    _check.require_aligned(p.name, operand.name, array)
    item = array.dtype.itemsize
    strides = [s // item if n > 1 else 0 for n, s in zip(array.shape, array.strides, strict=True)]
    batch = array.ndim - operand.event_rank
    return array.data.ptr, [0] * (rank - batch) + strides[:batch], strides[batch:]
