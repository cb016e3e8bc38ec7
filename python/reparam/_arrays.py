# SPDX-License-Identifier: MIT
"""NumPy's and CuPy's arrays side by side: whose an array is, where it lies, how it gets to where another one is.

CuPy is never imported for a question: an array of it can only come from a program that has.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "adopt",
    "copy_of",
    "cupy_is_there",
    "device_of",
    "diagonal_of_triangle",
    "in_one_place",
    "is_array",
    "is_cupy",
    "is_writeable",
    "kept_on_gpu",
    "may_share_memory",
    "move",
    "namespace_of",
    "on_its_device",
    "row_dot",
    "to_numpy",
    "triangle",
    "type_name",
    "with_dims",
]

Array = NDArray[Any]
P = ParamSpec("P")
T = TypeVar("T")
CUDA_OF_DLPACK = (2, 13)  # memory of a GPU, managed memory


def cupy_is_there() -> bool:
    """Whether there can be arrays of CuPy: a question that costs a call of NumPy's arrays next to nothing."""
    return "cupy" in sys.modules


def is_cupy(x: object) -> bool:
    """Whether it is an array of CuPy."""
    if type(x) is np.ndarray:
        return False
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, getattr(cupy, "ndarray", ()))  # without the name while it is imported


def is_array(x: object) -> bool:
    """Whether it is an array of NumPy or of CuPy."""
    return isinstance(x, np.ndarray) or is_cupy(x)


def namespace_of(*arrays: object) -> Any:
    """The module whose functions make arrays like these: CuPy if one of them is of CuPy, else NumPy."""
    if "cupy" not in sys.modules:
        return np
    return sys.modules["cupy"] if any(map(is_cupy, arrays)) else np


def type_name(x: object) -> str:
    """What errors call an argument that should be an array: both libraries have the name ndarray."""
    return "cupy.ndarray" if is_cupy(x) else type(x).__name__


_NO_DEVICE = contextlib.nullcontext()


def device_of(*arrays: Any) -> Any:
    """The GPU of the first array of CuPy, to be entered by ``with``; a context that does nothing without one."""
    if "cupy" in sys.modules:
        for x in arrays:
            if is_cupy(x):
                return x.device
    return _NO_DEVICE


def on_its_device(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function on the GPU of its first argument that has one: an array of CuPy, or an object with such a ``loc``.

    CuPy's own functions run on the current device, which need not be that of their arrays.
    """

    @functools.wraps(function)
    def run(*args: P.args, **keywords: P.kwargs) -> T:
        if "cupy" not in sys.modules:
            return function(*args, **keywords)
        with device_of(*(getattr(x, "loc", x) for x in (*args, *keywords.values()))):
            return function(*args, **keywords)

    return run


def in_one_place(a: Any, b: Any) -> bool:
    """Whether both are NumPy's, or on one GPU."""
    return a.device == b.device if is_cupy(a) and is_cupy(b) else is_cupy(a) == is_cupy(b)


def to_numpy(x: Any) -> Array:
    """The array in NumPy's memory; of CuPy a copy, for which the host waits."""
    return x.get() if is_cupy(x) else np.asarray(x)


def with_dims(x: Any) -> Array:
    """The array itself; an array of no dims where NumPy has made a number of one, which CuPy does not."""
    result: Array = x if is_cupy(x) else np.asarray(x)
    return result


def copy_of(x: Any) -> Any:
    """A copy where the array is; CuPy's own goes to the current device."""
    with device_of(x):
        return x.copy()


def move(x: Any, like: Any) -> Any:
    """The array in the library and on the device of another one."""
    if not is_cupy(like):
        return to_numpy(x)
    xp = namespace_of(like)
    with like.device:
        if isinstance(x, np.ndarray):
            _refuse_capture(xp.cuda.get_current_stream())
        return xp.asarray(x)


def _refuse_capture(stream: Any) -> None:
    """An upload would become part of the graph, and CuPy would wait for ever to have its buffer back."""
    if stream.is_capturing():
        raise RuntimeError(
            "what lies in NumPy's memory cannot be uploaded while a graph is captured: make the call once before the "
            "capture, or give CuPy arrays (an index of a Draw, too)"
        )


def kept_on_gpu(table: dict[Any, Any], name: Any, array: Array, like: Any) -> Any:
    """The array where another one is, uploaded once and kept in the table under its name.

    Each stream has its own, since another one would have to wait for the upload.
    """
    xp = namespace_of(like)
    with like.device:
        stream = xp.cuda.get_current_stream()
        place = (name, xp, like.device.id, stream.ptr)
        found = table.get(place)
        if found is None:
            _refuse_capture(stream)
            found = table[place] = xp.asarray(array)
        return found


_diagonals: dict[Any, Any] = {}
_triangles: dict[Any, Any] = {}


def diagonal_of_triangle(d: int, like: Any) -> Array:
    """Where the diagonal of a packed lower triangle stands, as an index of arrays like this one."""
    i = np.arange(d)
    places: Array = i * (i + 3) // 2
    return kept_on_gpu(_diagonals, d, places, like) if is_cupy(like) else places


def triangle(d: int, like: Any) -> tuple[Array, Array]:
    """Rows and columns of the entries of a lower triangle, as indices of arrays like this one."""
    places = np.tril_indices(d)  # CuPy's own waits for the GPU
    if not is_cupy(like):
        return places
    rows, columns = (kept_on_gpu(_triangles, (d, k), places[k], like) for k in range(2))
    return rows, columns


def adopt(value: Any) -> Any:
    """An array of CuPy for memory of a GPU that another library shows, without a copy; None for anything else.

    DLPack goes first: it keeps the device, and our stream waits for the other library's. The interface names a stream
    for which the host waits, or none.
    """
    by_dlpack = _asked(lambda: value.__dlpack_device__()[0]) in CUDA_OF_DLPACK
    if not by_dlpack and _asked(lambda: value.__cuda_array_interface__) is None:
        return None
    import cupy  # noqa: PLC0415  only for who has a GPU

    return cupy.from_dlpack(value) if by_dlpack else cupy.asarray(value)


def _asked(question: Callable[[], Any]) -> Any:
    """The answer, or None: libraries refuse in ways of their own, also arrays of the host."""
    try:
        return question()
    except Exception:
        return None


def is_writeable(x: Any) -> bool:
    """Whether it may be written to; an array of CuPy always may."""
    return is_cupy(x) or bool(x.flags.writeable)


class _Header:
    """The shape, strides and address of an array of a GPU, for NumPy to reckon with; it must not read there."""

    def __init__(self, x: Any) -> None:
        self.__array_interface__ = {
            "version": 3, "shape": x.shape, "typestr": x.dtype.str, "strides": x.strides, "data": (x.data.ptr, False),
        }  # fmt: skip


def may_share_memory(a: Any, b: Any, max_work: int | None = None) -> bool:
    """As NumPy's, for arrays of either library: CuPy's own knows bounds alone, or asks the GPU and waits."""
    if not (a.size and b.size):
        return False
    first, second = (np.asarray(_Header(x)) if is_cupy(x) else x for x in (a, b))
    return bool(np.may_share_memory(first, second, max_work=max_work))  # type: ignore[arg-type]  # it takes any number


def row_dot(a: Any, b: Any) -> Any:
    """Sums of ``a * b`` over the last axis: NumPy's einsum makes no product in memory, CuPy's makes copies as well."""
    return (a * b).sum(-1) if is_cupy(a) else np.einsum("...i,...i->...", a, b)
