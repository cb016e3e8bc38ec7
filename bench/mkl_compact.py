# SPDX-License-Identifier: MIT
"""The compact Cholesky of MKL, from its wheel by ctypes: pack, factor and unpack, as batch-first arrays need it.

The compact functions run on the thread that calls them, so slices of the batch are handed to as many as are wanted.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from . import machine

ROW_MAJOR, LOWER, SEQUENTIAL = 101, 122, 1
LETTERS = {"float32": "s", "float64": "d"}


@functools.cache
def library() -> Any:
    """MKL itself, without threads of its own."""
    for file in importlib.metadata.files("mkl") or ():
        if file.name.startswith("libmkl_rt.so"):
            found = ctypes.CDLL(str(file.locate()))
            found.MKL_Set_Threading_Layer(SEQUENTIAL)
            return found
    raise RuntimeError("the package mkl has no libmkl_rt.so")


class _Slice:
    """Some of the matrices, and room for them in the compact layout."""

    def __init__(self, mkl: Any, a: np.ndarray, out: np.ndarray) -> None:
        d, letter = a.shape[-1], LETTERS[a.dtype.name]
        layout = mkl.mkl_get_format_compact()
        room = getattr(mkl, f"mkl_{letter}get_size_compact")(d, d, layout, len(a))
        self._packed = np.zeros(room // a.itemsize + 16, a.dtype)
        self._sources, self._targets = (_pointers(x) for x in (a, out))
        self._info = ctypes.c_int()
        call, packed = functools.partial(getattr, mkl), ctypes.c_void_p(self._packed.ctypes.data)
        layout_and_count = (layout, len(a))
        size = (ROW_MAJOR, d, d)
        self._steps = [
            (call(f"mkl_{letter}gepack_compact"), (*size, _address(self._sources), d, packed, d, *layout_and_count)),
            (
                call(f"mkl_{letter}potrf_compact"),
                (ROW_MAJOR, LOWER, d, packed, d, ctypes.byref(self._info), *layout_and_count),
            ),
            (call(f"mkl_{letter}geunpack_compact"), (*size, _address(self._targets), d, packed, d, *layout_and_count)),
        ]

    def run(self) -> None:
        for function, arguments in self._steps:
            function(*arguments)


def _pointers(matrices: np.ndarray) -> np.ndarray:
    return matrices.ctypes.data + np.arange(len(matrices), dtype=np.int64) * matrices.strides[0]


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def cholesky(a: np.ndarray) -> Callable[[], np.ndarray]:
    """Factors of a batch, into a kept output whose upper triangles hold what came."""
    mkl, out = library(), np.empty_like(a)
    pool = ThreadPoolExecutor(machine.all_threads())

    @functools.cache
    def parts(n: int) -> list[_Slice]:
        cuts = [slice(len(a) * k // n, len(a) * (k + 1) // n) for k in range(n)]
        return [_Slice(mkl, a[cut], out[cut]) for cut in cuts if cut.start < cut.stop]

    def run() -> np.ndarray:
        list(pool.map(_Slice.run, parts(machine.all_threads())))
        return out

    return run


def lower(result: np.ndarray) -> tuple[np.ndarray, ...]:
    """The answer."""
    return (np.tril(result),)
