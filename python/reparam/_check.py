# SPDX-License-Identifier: MIT
"""Every error that a user of the ops sees, worded from the signature and the argument names."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._op import Operand, Pass

__all__ = ["CheckpointError", "NotPositiveDefiniteError"]

Array = NDArray[Any]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class NotPositiveDefiniteError(np.linalg.LinAlgError):
    """Some matrices have no Cholesky factor.

    Attributes
    ----------
    info : ndarray of int32, shape batch_shape
        0, or the 1-based first leading minor that is not positive.
    indices : ndarray of int64, shape (k, batch rank)
        Batch indices of the failed matrices.
    """

    def __init__(self, info: Array) -> None:
        self.info = np.asarray(info)
        self.indices = np.argwhere(self.info)
        shown = [f"{_index_text(i)} (leading minor {self.info[tuple(i)]})" for i in self.indices[:8]]
        more = f" and {len(self.indices) - 8} more" if len(self.indices) > 8 else ""
        count = f"{len(self.indices)} of {self.info.size} matrices are" if self.info.ndim else "the matrix is"
        where = f": {', '.join(shown)}{more}" if self.info.ndim else f" (leading minor {int(self.info)})"
        super().__init__(f"{count} not positive definite{where}")


def _index_text(index: Array) -> str:
    return f"[{', '.join(str(k) for k in index)}]"


class CheckpointError(ValueError):
    """A checkpoint is corrupt, foreign, or does not fit what it is loaded for."""


def shape_text(shape: Sequence[int]) -> str:
    """A shape as NumPy prints it."""
    return str(tuple(int(n) for n in shape))


def argument_error(p: Pass, count: int) -> TypeError:
    """Wrong number of arrays."""
    names = ", ".join(o.name for o in p.inputs)
    return TypeError(f"{p.name} takes {len(p.inputs)} arrays ({names}), got {count}")


def unknown_keyword(p: Pass, name: str) -> TypeError:
    """A keyword that the op does not have."""
    known = ", ".join(["out", *p.op.attributes]) if p.op.attributes else "out"
    return TypeError(f"{p.name} got an unexpected keyword {name!r}; it takes {known}")


def dtype_error(p: Pass, operand: Operand, dtype: object) -> TypeError:
    """An element type that ops refuse."""
    wanted = "float32 or float64" if operand.item == "real" else operand.item
    return TypeError(f"{p.name}: {operand.name} must be {wanted}, got {dtype}; convert it with .astype")


def mixed_dtypes(p: Pass, first: tuple[str, object], second: tuple[str, object]) -> TypeError:
    """Two arguments of different element types."""
    return TypeError(
        f"{p.name}: {first[0]} is {first[1]} and {second[0]} is {second[1]}; all arrays must have one dtype"
    )


def not_an_array(p: Pass, operand: Operand, value: object) -> TypeError:
    """Something that is no array."""
    return TypeError(f"{p.name}: {operand.name} must be an array, got {type(value).__name__}")


def resolve_extents(p: Pass, shapes: Sequence[tuple[int, ...] | None], given: dict[str, int]) -> dict[str, int]:
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
        for symbol, size in found.items():
            if extents.setdefault(symbol, size) != size:
                raise _event_error(p, operand, shape, extents, source)
            source.setdefault(symbol, operand.name)
    return extents


def _event_sizes(operand: Operand, events: tuple[int, ...]) -> dict[str, int] | None:
    if operand.kind in {"tril", "sym"}:
        return {operand.symbols[0]: events[0]} if events[0] == events[1] else None
    if operand.kind == "vec":
        d = (math.isqrt(8 * events[0] + 1) - 1) // 2
        return {operand.symbols[0]: d} if d * (d + 1) // 2 == events[0] else None
    return dict(zip(operand.symbols, events, strict=True))


def _event_error(
    p: Pass, operand: Operand, shape: tuple[int, ...], extents: dict[str, int], source: dict[str, str]
) -> ValueError:
    events = operand.event_text()
    known = [f"{s} = {extents[s]} (from {source[s]})" for s in operand.symbols if s in source]
    because = f" with {' and '.join(known)}" if known else ""
    return ValueError(
        f"{p.name}: {operand.name} must have shape (..., {events}){because}, got {shape_text(shape)}"
    )


def broadcast_batches(p: Pass, shapes: Sequence[tuple[int, ...] | None], names: Sequence[str]) -> tuple[int, ...]:
    """The batch shape of a call, by NumPy's rule."""
    present = [s for s in shapes if s is not None]
    if all(s == present[0] for s in present[1:]):
        return present[0] if present else ()
    try:
        return np.broadcast_shapes(*present)
    except ValueError:
        listed = ", ".join(f"{n} {shape_text(s)}" for n, s in zip(names, shapes, strict=True) if s is not None)
        raise ValueError(f"{p.name}: batch shapes do not broadcast: {listed}") from None


def check_out(p: Pass, name: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An ``out=`` array of the right shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{p.name}: out for {name} must be an array, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"{p.name}: out for {name} must be {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"{p.name}: out for {name} must have shape {shape_text(shape)}, got {shape_text(out.shape)}")
    if not out.flags.writeable:
        raise ValueError(f"{p.name}: out for {name} is read-only")
    return out


def check_in_place(p: Pass, operand: Operand, array: Array, fits: bool, batch_shape: tuple[int, ...]) -> None:
    """An operand that is updated in place: writeable, of the full batch shape."""
    if not fits:
        raise ValueError(
            f"{p.name}: {operand.name} is updated in place and must have the full shape {shape_text(batch_shape)}, "
            f"got {shape_text(array.shape)}"
        )
    if not array.flags.writeable:
        raise ValueError(f"{p.name}: {operand.name} is updated in place, but it is read-only")


def as_int(name: str, value: object, low: int = 0, high: int | None = None) -> int:
    """An integer in ``[low, high)``; bool is not one."""
    limits = f">= {low}" if high is None else f"in [{low}, {high})"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer {limits}, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer {limits}, got {value!r}") from None
    if number < low or (high is not None and number >= high):
        raise ValueError(f"{name} must be {limits}, got {number}")
    return number


def as_float(name: str, value: object, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """A finite float in ``[low, high)``, or in ``(low, high)`` with ``above``."""
    limit = "" if low == -math.inf else f" {'>' if above else '>='} {low:g}"
    limit = limit if high == math.inf else f" in {'(' if above else '['}{low:g}, {high:g})"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number{limit}, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or not low <= number < high or (above and number == low):
        raise ValueError(f"{name} must be a finite number{limit}, got {value!r}")
    return number


def as_bool(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def as_key(key: Any) -> int:
    """Normalize a key to an int in ``[0, 2**64)``.

    Parameters
    ----------
    key : int, JAX key, numpy.random.Generator or numpy.random.SeedSequence
        A JAX key of words (h, l) is ``h * 2**32 + l``; a Generator is moved on by one draw.

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
        return as_int("key", key, 0, 2**64)
    words = _jax_words(key)
    if words is None:
        raise TypeError(
            "key must be an int in [0, 2**64), a JAX key, a numpy.random.Generator or a SeedSequence, "
            f"got {type(key).__name__}"
        )
    return int(words[0]) << 32 | int(words[1])


def _jax_words(key: Any) -> Array | None:
    """The two words of a JAX key, typed or raw."""
    if str(getattr(key, "dtype", "")).startswith("key<"):
        import jax

        key = jax.random.key_data(key)
    words = np.asarray(key) if hasattr(key, "__array__") else None
    return words if words is not None and words.dtype == np.uint32 and words.shape == (2,) else None


def as_index(name: str, index: object) -> NDArray[np.uint64]:
    """Numbers of noise streams, one for each event: integers >= 0."""
    array = np.asarray(index)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {array.dtype}")
    if array.size and array.min() < 0:
        raise ValueError(f"{name} must be >= 0, got {array.min()}")
    if array.size and array.max() == 2**64 - 1:
        raise ValueError(f"{name} must be < 2**64 - 1, the stream that fold_in uses, got {array.max()}")
    return np.asarray(array, np.uint64)
