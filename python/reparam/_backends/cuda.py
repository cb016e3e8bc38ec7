# SPDX-License-Identifier: MIT
"""The kernels for GPUs, in a module of their own, which loads without a driver: arrays go there as they are."""

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
Place = tuple[int, int, tuple[int, ...], tuple[int, ...]]  # address, bytes of an element, shape, strides in bytes
Entry = tuple[int, Strides, Strides] | tuple[int, Strides, Strides, int]


def compiled() -> Any:
    """The compiled module; None in a build without it, or where it does not load."""
    return _cuda


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
def on(device: Any, name: str, arrays: str = "CuPy arrays", by: str = "cupy.asnumpy") -> Iterator[None]:
    """Make the GPU of a call's arrays the current one; errors say what to do, such as to move ``arrays`` ``by``."""
    if _cuda is None:
        raise TypeError(
            f"{name}: this build of reparam has no kernels for {arrays}, {_why_not}: install reparam "
            f"where nvcc is, or move the arrays by {by}"
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


class _OfCuPy:
    """How CuPy's arrays lie on the current GPU."""

    def __init__(self, xp: Any) -> None:
        self._cuda = xp.cuda

    def place(self, x: Any) -> Place:
        """Address, bytes of an element, shape, strides in bytes."""
        return x.data.ptr, x.dtype.itemsize, x.shape, x.strides

    def alloc(self, size: int) -> tuple[Any, int]:
        """Memory that is freed with the first, and its address."""
        # It may be freed before it is used: the pool gives it again to this stream alone, whose next calls run after.
        memory = self._cuda.alloc(size)
        return memory, memory.ptr

    def stream(self) -> int:
        """The current one."""
        pointer: int = self._cuda.get_current_stream().ptr
        return pointer


def run(xp: Any, p: Pass, plan: Any, attributes: tuple[float, ...], inputs: list[Any], results: list[Any]) -> None:
    """Run one pass on CuPy's arrays, on CuPy's current stream; ``xp`` is CuPy, the plan holds the shapes."""
    some_array = next(x for x in (*inputs, *results) if x is not None and not isinstance(x, Draw))
    given = [(x.key, index_like(x, some_array)) if isinstance(x, Draw) else x for x in inputs]
    launch(_OfCuPy(xp), p, plan, attributes, given, results)


def launch(
    library: Any, p: Pass, plan: Any, attributes: tuple[float, ...], inputs: list[Any], results: list[Any]
) -> None:
    """Run one pass on arrays of any library that says where they lie; a Draw is a key and an index. Nothing waits."""
    rank = len(plan.batch_shape)
    entries: list[Entry | None] = []
    for x, operand in zip(inputs, p.inputs, strict=True):
        if isinstance(x, tuple):
            address, batch, _ = _entry(p, Operand(operand.name, "scalar", ()), library.place(x[1]), rank)
            entries.append((address, batch, [], x[0]))
        else:
            entries.append(_entry(p, operand, library.place(x), rank))
    entries += p.left_out
    for x, operand in zip(results, p.outputs, strict=True):
        place = None if x is None else library.place(x)
        entries.append(None if place is None or 0 in place[2] else _entry(p, operand, place, rank))
    sizes, numbers = (list(plan.batch_shape), list(plan.sizes)), list(attributes)
    call = (p.op.name, p.reverse, plan.dtype, *sizes, entries, numbers, p.unpacked is not p)
    scratch, address = library.alloc(_cuda.scratch(*call))
    _cuda.run(*call, address, library.stream())
    del scratch


def _entry(p: Pass, operand: Operand, place: Place, rank: int) -> tuple[int, list[int], list[int]]:
    """Address, batch strides and event strides in elements; 0 where a dim is broadcast or summed."""
    address, item, shape, steps = place
    if 0 not in shape:
        _check.require_aligned(p.name, operand.name, address, item, steps)
    strides = [s // item if n > 1 else 0 for n, s in zip(shape, steps, strict=True)]
    batch = len(shape) - operand.event_rank
    return address, [0] * (rank - batch) + strides[:batch], strides[batch:]
