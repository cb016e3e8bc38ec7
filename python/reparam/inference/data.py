# SPDX-License-Identifier: MIT
"""Rows of data as models take them: checked, in the model's dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import device_of, namespace_of
from .._check import as_array, as_int

__all__ = ["as_dtype", "as_finite", "as_latent", "as_mask", "as_real", "as_rows", "as_widths", "chunks", "own_dtype"]

Array = NDArray[Any]


def as_dtype(name: str, dtype: Any) -> str:
    """The name of an element type that models have; None is none."""
    try:
        real = "none" if dtype is None else str(np.dtype(dtype))
    except (TypeError, ValueError, SyntaxError):  # the last for "f4,("
        real = "none"
    if real not in {"float32", "float64"}:  # another byte order has another name
        raise TypeError(f"{name} must be float32 or float64, got {dtype!r}")
    return real


def _as_array(name: str, x: Any) -> Array:
    """Whatever NumPy takes for an array, but no mask: NumPy would drop it and use the values behind it."""
    if isinstance(x, np.ndarray) and hasattr(x, "filled"):  # numpy.ma, not imported for this question
        raise TypeError(
            f"{name} must be an array without a mask; fill the masked entries with .filled, and tell posterior and "
            "log_joint by observed= which entries were seen"
        )
    try:
        shown = ("__array__", "__dlpack__", "__cuda_array_interface__")
        return as_array(name, x) if any(hasattr(x, how) for how in shown) else np.asarray(x)
    except ValueError as error:  # nested sequences of several lengths
        raise ValueError(f"{name} is not an array: {error}") from None


def as_real(name: str, x: Any, kinds: str = "fiub") -> Array:
    """An array of real numbers, of any type."""
    array = _as_array(name, x)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array


def own_dtype(array: Array) -> str:
    """float32 of arrays that are, else float64: the dtype of models that follow their data."""
    return "float32" if array.dtype.kind == "f" and array.dtype.itemsize == 4 else "float64"


def as_finite(name: str, array: Array, dtype: Any) -> Array:
    """Finite numbers as a contiguous array of ``dtype``."""
    with np.errstate(over="ignore"), device_of(array):  # a number too large for float32 is refused as an infinity
        converted: Array = namespace_of(array).ascontiguousarray(array, dtype)
        finite = np.isfinite(converted)
        if not finite.all():
            at = tuple(int(k) for k in np.argwhere(~finite)[0])
            raise ValueError(f"{name} must be finite in {np.dtype(dtype)}, got {array[at]} at {list(at)}")
    return converted


def as_rows(name: str, x: Any, dtype: Any, data_dim: int | None = None) -> Array:
    """Finite real numbers of shape (n, data_dim), n > 0, as a contiguous array of ``dtype``; ``x`` is not modified.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """
    array = as_real(name, x)
    if array.ndim != 2 or (data_dim is not None and array.shape[1] != data_dim):
        raise ValueError(f"{name} must have shape (n, {data_dim or 'data_dim'}), got {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} is empty: it has shape {array.shape}")
    return as_finite(name, array, dtype)


def as_latent(name: str, z: Any, dtype: Any, latent_dim: int) -> Array:
    """Finite real numbers of shape (..., latent_dim), as a contiguous array of ``dtype``; ``z`` is not modified."""
    array = as_real(name, z, "fiu")
    if array.ndim < 1 or array.shape[-1] != latent_dim:
        raise ValueError(f"{name} must have shape (..., {latent_dim}), got {array.shape}")
    return as_finite(name, array, dtype)


def as_mask(name: str, observed: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """A mask of 0 and 1 (or False and True) of the data's shape, as an array of ``dtype``."""
    mask = _as_array(name, observed)
    if mask.shape != shape:
        raise ValueError(f"{name} must have the shape of x, {shape}, got {mask.shape}")
    if mask.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold 0 and 1, got {mask.dtype}")
    with device_of(mask):
        wrong = (mask != 0) & (mask != 1)
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise ValueError(f"{name} must be 1 where an entry was seen and 0 elsewhere, got {mask[at]} at {list(at)}")
        return mask.astype(dtype)


def chunks(n: int, size: int) -> Any:
    """Slices of n rows with the rows' numbers."""
    return ((slice(k, k + size), np.arange(k, min(k + size, n))) for k in range(0, n, size))


def as_widths(name: str, hidden: Any) -> tuple[int, ...]:
    """Widths of a net's hidden layers, or none."""
    if not np.iterable(hidden):
        raise TypeError(f"{name} must be a sequence of integers >= 1, got {hidden!r}")
    return tuple(as_int(name, n, 1) for n in hidden)
