# SPDX-License-Identifier: MIT
"""Arrays, keys and single values of a user, or an error that names the argument, what came and what was expected."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import adopt, is_cupy

Array = NDArray[Any]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
MOST_ELEMENTS = 2**48  # of one array; a bound of the address space, in elements
_WRITTEN = {2**63: "2**63", 2**64 - 1: "2**64 - 1", 2**64: "2**64"}


def came(value: object) -> str:
    """What came, in one short line."""
    try:
        text = repr(value)
    except Exception:  # an int of more than 4300 digits, or a class that cannot say what it is
        text = "\n"
    return text if len(text) <= 60 and "\n" not in text else type(value).__name__


def as_array(name: str, value: Any, wanted: str = "an array") -> Array:
    """Read anything that has ``__array__`` or DLPack as a plain NumPy array, what lies on a GPU as one of CuPy."""
    if type(value) is np.ndarray:
        return value
    if is_cupy(value):
        array: Array = value  # of CuPy
        return array
    _refuse_mask(name, value)
    try:
        array = adopt(value)
    except ImportError as error:
        raise TypeError(
            f"{name} lies on a GPU, for which reparam needs CuPy: pip install cupy-cuda13x, or move it to the host"
        ) from error
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} lies on a GPU and cannot be read by CuPy: {error}") from error
    if array is not None:
        return array
    if not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")
    try:
        return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error


def _refuse_mask(name: str, value: object) -> None:
    """NumPy would drop the mask and use what lies behind it."""
    if isinstance(value, np.ndarray) and hasattr(value, "filled"):  # numpy.ma, not imported for this question
        raise TypeError(f"{name} must be an array without a mask; fill the masked entries with .filled")


def as_float_array(name: str, value: Any, wanted: str = "an array") -> Array:
    """A native float32 or float64 array."""
    array = as_array(name, value, wanted)
    if array.dtype.kind == "f" and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype not in FLOATS:
        raise dtype_error(name, "float32 or float64", array.dtype)
    return array


def is_weak(value: object) -> bool:
    """Whether it is a Python int or float, which has no dtype of its own."""
    return isinstance(value, (int, float)) and not isinstance(value, (bool, np.generic))


def as_weak_scalar(name: str, value: float, dtype: np.dtype[Any]) -> Array:
    """A Python number takes the dtype of the arrays."""
    with np.errstate(over="ignore"):
        array = np.asarray(value if isinstance(value, float) else min(max(value, -(2**1023)), 2**1023), dtype)
    if np.isinf(array) and not (isinstance(value, float) and math.isinf(value)):
        raise ValueError(f"{name} must be within the range of {dtype}, got {came(value)}")
    return array


def as_index(name: str, index: object) -> NDArray[np.uint64]:
    """Numbers of noise streams, one for each event: integers >= 0. Of an array of CuPy the type alone is checked."""
    _refuse_mask(name, index)
    if is_cupy(index):
        of_gpu: Any = index
        if of_gpu.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integers, got {of_gpu.dtype}")
        same_size = of_gpu.dtype.itemsize == 8  # whose bits are those of the numbers: no kernel
        numbers: NDArray[np.uint64] = of_gpu.view(np.uint64) if same_size else of_gpu.astype(np.uint64)
        return numbers
    array = np.asarray(index, None if hasattr(index, "dtype") else object)  # NumPy makes floats of [0, 2**63]
    kinds = {type(k) for k in array.flat} if array.dtype == object else {array.dtype.type}
    if not all(issubclass(kind, (int, np.integer)) for kind in kinds) or kinds & {bool, np.timedelta64}:
        raise TypeError(f"{name} must hold integers, got {array.dtype if hasattr(index, 'dtype') else came(index)}")
    if array.size and array.dtype.kind != "u" and array.min() < 0:
        raise ValueError(f"{name} must be >= 0, got {came(int(array.min()))}")
    if array.size and array.max() >= 2**64 - 1:
        most = came(int(array.max()))
        raise ValueError(f"{name} must be < 2**64 - 1, the stream that fold_in uses, got {most}")
    return array.astype(np.uint64, copy=False)


def dtype_error(name: str, wanted: str, dtype: np.dtype[Any]) -> TypeError:
    """An element type that is refused."""
    return TypeError(
        f"{name} must be {wanted}, got {dtype}{'; convert it with .astype' if dtype.kind in 'biuf' else ''}"
    )


def same_dtype(owner: str, first: tuple[str, object], second: tuple[str, object]) -> None:
    """Refuse two arguments, given as (name, dtype), of different element types."""
    if first[1] != second[1]:
        raise TypeError(f"{owner}: {first[0]} is {first[1]} and {second[0]} is {second[1]}; they must have one dtype")


def as_int(name: str, value: object, low: int = 0, high: int | None = None) -> int:
    """An integer in ``[low, high)``, where ``high`` is 2**63 if it is not given; bool is not one."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is not None and low <= number < (2**63 if high is None else high):
        return number
    limits = f">= {low}" if high is None else f"in [{low}, {_WRITTEN.get(high, high)})"
    if number is None:
        raise TypeError(f"{name} must be an integer {limits}, got {came(value)}")
    limits = "< 2**63" if high is None and number >= low else limits
    raise ValueError(f"{name} must be {limits}, got {came(number)}")


def as_names(name: str, value: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Some of the known names, in a tuple or a list, without doubles."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a tuple of names out of {', '.join(known)}, got {came(value)}")
    for item in value:
        if not isinstance(item, str) or item not in known:
            raise ValueError(f"{name} must name inputs out of {', '.join(known)}, got {came(item)}")
    if len(set(value)) != len(value):
        raise ValueError(f"{name} names an input twice: {came(value)}")
    return tuple(value)


def as_shape(name: str, value: Any) -> tuple[int, ...]:
    """A shape: an integer, or some."""
    try:
        given = (value,) if isinstance(value, (int, np.integer)) else tuple(value)
        sizes = tuple(as_int(name, n) for n in given)
    except TypeError:
        raise TypeError(f"{name} must be an integer or a tuple of integers, got {came(value)}") from None
    if math.prod(sizes) > MOST_ELEMENTS:
        raise MemoryError(f"{name} {sizes} is more than any memory holds")
    return sizes


def as_float(name: str, value: object, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """A finite float in ``[low, high)``, or in ``(low, high)`` with ``above``."""
    limit = "" if low == -math.inf else f" {'>' if above else '>='} {low:g}"
    limit = limit if high == math.inf else f" in {'(' if above else '['}{low:g}, {high:g})"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number{limit}, got {came(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not low <= number < high or (above and number == low):
        raise ValueError(f"{name} must be a finite number{limit}, got {came(value)}")
    return number


def as_bool(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {came(value)}")
    return bool(value)


def as_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {came(value)}")
    return value


def as_dtype(name: str, value: Any) -> np.dtype[Any]:
    """float32 or float64."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):  # the last for "f4,("
        raise TypeError(f"{name} must be float32 or float64, got {came(value)}") from None
    if dtype not in FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {dtype}")
    return dtype


def as_key(key: Any, name: str = "key") -> int:
    """Normalize a key to an int in ``[0, 2**64)``.

    Parameters
    ----------
    key : int, JAX key, numpy.random.Generator or numpy.random.SeedSequence
        A JAX key of words (h, l) is ``h * 2**32 + l``; a Generator is moved on by one draw.
    name : str
        What errors call it.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or out of range.
    """
    if isinstance(key, np.random.Generator):
        return int(key.integers(2**64, dtype=np.uint64))
    if isinstance(key, np.random.SeedSequence):
        return int(key.generate_state(1, np.uint64)[0])
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return as_int(name, key, 0, 2**64)
    words = _jax_words(key)
    if words is None:
        raise TypeError(
            f"{name} must be an int in [0, 2**64), a JAX key, a numpy.random.Generator or a SeedSequence, "
            f"got {type(key).__name__}"
        )
    return int(words[0]) << 32 | int(words[1])


def _jax_words(key: Any) -> Array | None:
    """The two words of a JAX key, typed or raw."""
    if str(getattr(key, "dtype", "")).startswith("key<"):
        import jax  # noqa: PLC0415  not needed before

        key = jax.random.key_data(key)
    words = np.asarray(key) if hasattr(key, "__array__") and not is_cupy(key) else None
    return words if words is not None and words.dtype == np.uint32 and words.shape == (2,) else None


def check_finite(name: str, array: Array) -> None:
    """Refuse NaN and infinities, and say where the first one is; not on a GPU, for which one would have to wait."""
    if is_cupy(array):
        return
    finite = np.isfinite(array)
    if not finite.all():
        at = tuple(int(k) for k in np.argwhere(~finite)[0])
        raise ValueError(f"{name} must be finite, got {array[at]} at {list(at)}")
