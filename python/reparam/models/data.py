# SPDX-License-Identifier: MIT
"""Rows of data as models take them: checked, in the model's dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_mask", "as_rows"]

Array = NDArray[Any]


def as_rows(name: str, x: Any, dtype: Any, data_dim: int | None = None) -> Array:
    """Finite real numbers of shape (n, data_dim), n > 0, as a contiguous array of ``dtype``; ``x`` is not modified.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    if array.ndim != 2 or (data_dim is not None and array.shape[1] != data_dim):
        raise ValueError(f"{name} must have shape (n, {data_dim or 'data_dim'}), got {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: it has shape {array.shape}")
    with np.errstate(over="ignore"):  # a number too large for float32 is refused as an infinity below
        array = np.ascontiguousarray(array, dtype)
    finite = np.isfinite(array)
    if not finite.all():
        at = tuple(int(k) for k in np.argwhere(~finite)[0])
        raise ValueError(f"{name} must be finite in {np.dtype(dtype)}, got {np.asarray(x)[at]} at {list(at)}")
    return array


def as_mask(name: str, observed: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """A mask of 0 and 1 (or False and True) of the data's shape, as an array of ``dtype``."""
    mask = np.asarray(observed)
    if mask.shape != shape:
        raise ValueError(f"{name} must have the shape of x, {shape}, got {mask.shape}")
    if mask.dtype.kind not in "fiub" or not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{name} must be 0 or 1 everywhere: 1 where an entry was seen")
    return mask.astype(dtype)
