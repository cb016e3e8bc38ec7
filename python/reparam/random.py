# SPDX-License-Identifier: MIT
"""Counter-based random numbers: element ``i`` depends on ``(key, stream, i)`` alone, with the same bits everywhere.

Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller. There is no hidden state: the same key gives the same numbers on
every backend, instruction set and thread count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from ._arrays import device_of, is_cupy, move, namespace_of
from ._check import as_array, as_dtype, as_index, as_int, as_key, as_shape
from ._dispatch import Draw

__all__ = ["Draw", "as_key", "bits", "draw_index", "event_normal", "fold_in", "normal"]

Array = NDArray[Any]
Key = Any  # see as_key
_LAST_STREAM = 2**64 - 1
_CHUNK = 256  # elements of one event of the kernel; any multiple of 4 gives the same numbers


def _halves(key: int) -> dict[str, int]:
    return {"key_low": key & 0xFFFFFFFF, "key_high": key >> 32}


def _fill(op: Any, n: int, key: int, place: tuple[int, int], dtype: Any, xp: Any = np) -> Array:
    """Elements ``offset .. offset + n - 1`` of one stream, as an array of the module ``xp``."""
    stream, offset = place
    start = offset - offset % 4
    lead = offset - start
    chunks = -(-(n + lead) // _CHUNK)
    length = _CHUNK if chunks > 1 else n + lead
    offsets = np.uint64(start) + xp.arange(chunks, dtype=np.uint64) * np.uint64(_CHUNK)
    made = op(xp.full((), np.uint64(stream), np.uint64), offsets, n=length, dtype=dtype, **_halves(key))
    flat: Array = made.reshape(-1)[lead : lead + n]
    return flat if flat.base is None or len(flat) == flat.base.size else flat.copy()


def _place(owner: str, stream: Any, offset: Any) -> tuple[int, int]:
    return as_int(f"{owner}: stream", stream, 0, _LAST_STREAM), as_int(f"{owner}: offset", offset, 0, 2**63)


def bits(n: int, *, key: Key, stream: int = 0, offset: int = 0) -> NDArray[np.uint32]:
    """Raw 32-bit words.

    Parameters
    ----------
    n : int
        How many.
    key : key
        See :func:`as_key`.
    stream, offset : int
        The stream, in ``[0, 2**64 - 1)``, and its first word.

    Returns
    -------
    ndarray of uint32, shape (n,)
    """
    return _fill(ops.bits, as_int("bits: n", n), as_key(key, "bits: key"), _place("bits", stream, offset), None)


def normal(shape: Any, *, key: Key, stream: int = 0, offset: int = 0, dtype: Any = None, like: Any = None) -> Array:
    """Standard normals.

    Parameters
    ----------
    shape : int or tuple of int
    key : key
        See :func:`as_key`.
    stream, offset : int
        The stream, and the element it starts at.
    dtype : {"float32", "float64"}, optional
        Default float64.
    like : array, optional
        Takes its library, device and dtype.

    Returns
    -------
    array
        Element ``i`` in C order depends on ``(key, stream, offset + i)`` and the dtype alone.
    """
    sizes = as_shape("normal: shape", shape)
    model = None if like is None else as_array("normal: like", like)
    if model is not None and dtype is None:
        real = as_dtype("normal: the dtype of like", model.dtype.newbyteorder("="))
    else:
        real = as_dtype("normal: dtype", np.float64 if dtype is None else dtype)
    place, number = _place("normal", stream, offset), as_key(key, "normal: key")
    with device_of(model):
        return _fill(ops.normal, math.prod(sizes), number, place, real, namespace_of(model)).reshape(sizes)


def fold_in(key: Key, data: int) -> int:
    """Make a new key from a key and an int, as in JAX.

    Parameters
    ----------
    key : key
    data : int
        In ``[0, 2**64 - 1)``.

    Returns
    -------
    int
        Words 0 and 1 of block ``data`` of the reserved stream ``2**64 - 1``.
    """
    data = as_int("fold_in: data", data, 0, _LAST_STREAM)
    counters = (data & 0xFFFFFFFF, data >> 32, 0xFFFFFFFF, 0xFFFFFFFF)
    return _fold(counters, as_key(key, "fold_in: key"))


def _fold(counter: tuple[int, int, int, int], key: int) -> int:
    """One Philox block in Python integers: a key is made in 5 us, without an array."""
    c0, c1, c2, c3 = counter
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c1 << 32 | c0


def draw_index(index: Any, batch_shape: tuple[int, ...], name: str = "index", like: Any = None) -> NDArray[np.uint64]:
    """The stream of each event of a batch: ``index``, or 0, 1, 2, ... in C order; errors call it ``name``.

    The default one is made where the array ``like`` is.

    Raises
    ------
    TypeError, ValueError
        If ``index`` is not of an integer type, is negative, or does not have the batch shape.
    """
    if index is None:
        if not is_cupy(like):
            return np.arange(math.prod(batch_shape), dtype=np.uint64).reshape(batch_shape)
        with device_of(like):
            numbers: NDArray[np.uint64] = namespace_of(like).arange(math.prod(batch_shape), dtype=np.uint64)
            return numbers.reshape(batch_shape)
    array = as_index(name, index)
    if array.shape != batch_shape:
        raise ValueError(f"{name} must have the batch shape {batch_shape}, got {array.shape}")
    return array


def draw_once(key: int, index: NDArray[np.uint64]) -> Draw:
    """Noise for one call of the package: an index of a GPU is not copied, for which a kernel would be launched."""
    return Draw._trusted(key, index) if is_cupy(index) else Draw(key, index)


def event_normal(
    num_samples: int, index: NDArray[np.uint64], d: int, *, key: int, dtype: Any, like: Any = None
) -> Array:
    """Noise addressed by event, shape ``(num_samples, *index.shape, d)``: event b takes stream ``index[b]``.

    Its element ``s * d + j`` is sample s, coordinate j. It is made where the array ``like`` is.
    """
    first = namespace_of(like).zeros((), np.uint64)
    made = ops.normal(move(index, like), first, n=num_samples * d, dtype=dtype, **_halves(key))
    return np.moveaxis(np.reshape(made, (*index.shape, num_samples, d)), -2, 0)
