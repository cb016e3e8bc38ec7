# SPDX-License-Identifier: MIT
"""Noise that is made in the kernels from a key of JAX."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _check, ops
from ._ffi import Drawn, run

__all__ = ["Draw", "normal", "words_of"]

_CHUNK = 256  # elements of one event of the kernel; any multiple of 4 gives the same numbers


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Draw:
    """Noise that is made where it is used and never stored: the bits of :class:`reparam.random.Draw`.

    It is a pytree, and its key and index may be traced.

    Parameters
    ----------
    key : JAX key or int
        Typed or raw, of two words (h, l), ``threefry2x32``: the key ``h * 2**32 + l``. Under ``vmap`` with a key for
        each element, the kernel runs once for each of them. An int is no argument of ``jit``: there, give
        ``jax.random.key(7)``, which is key 7.
    index : int array
        Event b takes stream ``index[b]``, which is >= 0 (of a traced one that is less, ``2**64`` more); its batch dims
        are the shape.
    """

    key: Any
    index: Any


def words_of(draw: Draw, owner: str) -> tuple[Any, Any]:
    """The streams and the key as words of 32 bits."""
    return _stream_words(f"{owner}: index", draw.index), key_words(f"{owner}: key", draw.key)


def key_words(name: str, key: Any) -> Any:
    """The two words of a key, the high one first."""
    if isinstance(key, (int, np.integer)):
        number = _check.as_key(key, name)
        return jnp.asarray(np.array([number >> 32, number & 0xFFFFFFFF], np.uint32))
    if jnp.issubdtype(getattr(key, "dtype", np.float32), jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    if getattr(key, "dtype", None) != np.uint32 or key.shape != (2,):
        came = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else type(key).__name__
        traced = "; where an int is traced, give jax.random.key(it)" if getattr(key, "shape", None) == () else ""
        raise TypeError(f"{name} must be one JAX key of two words (threefry2x32), got {came}{traced}")
    return jnp.asarray(key)


def _stream_words(name: str, index: Any) -> Any:
    """Numbers of streams as pairs of words, the low one first."""
    if not isinstance(index, jax.core.Tracer):
        numbers = _check.as_index(name, np.asarray(index) if isinstance(index, jax.Array) else index)
        return jnp.asarray(np.stack([numbers & 0xFFFFFFFF, numbers >> np.uint64(32)], -1).astype(np.uint32))
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {index.dtype}")
    if index.dtype.itemsize < 8:
        high = jnp.where(index < 0, np.uint32(0xFFFFFFFF), np.uint32(0))  # as of the same number in int64
        return jnp.stack([index.astype(np.uint32), high], -1)
    return jnp.stack([index.astype(np.uint32), (index >> 32).astype(np.uint32)], -1)


def normal(shape: int | tuple[int, ...], *, key: Any, dtype: Any = None) -> jax.Array:
    """Standard normals, the bits of ``reparam.random.normal(shape, key=key)``.

    Parameters
    ----------
    shape : int or tuple of int
    key : JAX key or int
        As for :class:`Draw`; it may be traced.
    dtype : {"float32", "float64"}, optional
        Default JAX's: float32, or float64 with x64.

    Returns
    -------
    array
        Element ``i`` in C order depends on ``(key, i)`` and the dtype alone.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """
    sizes = _check.as_shape("normal: shape", shape)
    real = jnp.result_type(float) if dtype is None else jax.dtypes.canonicalize_dtype(_check.as_dtype("dtype", dtype))
    n = math.prod(sizes)
    chunks = -(-n // _CHUNK)
    length = _CHUNK if chunks > 1 else n
    chunk = jnp.arange(chunks, dtype=np.uint32)
    offsets = jnp.stack([chunk << 8, chunk >> 24], -1)
    words = key_words("normal: key", key)
    operands = [Drawn(jnp.zeros(2, np.uint32), words), Drawn(offsets, words)]
    (made,) = run(ops.noise.normal.forward_pass, (0.0, 0.0), {"n": length}, operands, real)
    return made.reshape(-1)[:n].reshape(sizes)
