# SPDX-License-Identifier: MIT
"""The arguments of a call as what backends take: arrays of one element type, noise to be drawn, numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _check
from ._arrays import cupy_is_there, device_of, is_cupy, kept_on_gpu, namespace_of
from ._op import Pass
from ._signature import Operand

__all__ = [
    "Draw",
    "code_attributes",
    "convert",
    "device_of_call",
    "index_like",
    "namespace_of_call",
    "split_keywords",
    "wanted_outputs",
]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Draw:
    """Noise that is made where it is used and never stored.

    Parameters
    ----------
    key : key
        See :func:`reparam.random.as_key`.
    index : int array
        Event b takes stream ``index[b]``; its element ``s * d + j`` is draw s, coordinate j. It is copied, so that the
        forward and the reverse pass draw the same. An array of CuPy stays on its GPU, and its values are not checked;
        one of NumPy goes to a GPU once, when it is first used there.

    Raises
    ------
    TypeError, ValueError
        For what is no key, or an index that is not of integers >= 0.
    """

    key: int
    index: NDArray[np.uint64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _check.as_key(self.key, "Draw: key"))
        with device_of(self.index):  # CuPy copies to the current one
            index = _check.as_index("Draw: index", self.index).copy(order="C")
        object.__setattr__(self, "index", _as_constant(index))

    def __getitem__(self, at: Any) -> Draw:
        """The same noise for other events, or in another shape: what NumPy makes of ``index[at]``."""
        return Draw._trusted(self.key, self.index[at])

    @classmethod
    def _trusted(cls, key: int, index: Any) -> Draw:
        """Make one of what has been checked and is not to change, without a copy."""
        made = object.__new__(cls)
        vars(made).update(key=key, index=_as_constant(index))
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies hold: no copies of the index on GPUs."""
        return {"key": self.key, "index": self.index}


def index_like(draw: Draw, array: Any) -> Any:
    """The index where an array lies: of NumPy itself, on a GPU a copy that stays for further calls."""
    if not is_cupy(array) or is_cupy(draw.index):
        return draw.index
    return kept_on_gpu(vars(draw).setdefault("_uploaded", {}), "index", draw.index, array)


def _as_constant(index: Any) -> Any:
    """The index as an array that is not to change."""
    if not is_cupy(index):
        index = np.asarray(index)
        index.setflags(write=False)
    return index


def _as_operand(p: Pass, operand: Operand, value: Any, may_be_none: bool) -> Any:
    """The operand as a NumPy array, a Draw, a Python number that waits for a dtype, or None for a zero cotangent."""
    if value is None and may_be_none:
        return None
    name = f"{p.name}: {operand.name}"
    if isinstance(value, Draw):
        if operand.drawable:
            return value
        raise TypeError(f"{name} must be {_wanted(operand, may_be_none)}, got a Draw")
    if operand.item == "real" and _check.is_weak(value):
        return value
    if operand.item == "real":
        return _check.as_float_array(name, value, _wanted(operand, may_be_none))
    array = _check.as_array(name, value)
    if array.dtype != operand.item:
        raise _check.dtype_error(name, operand.item, array.dtype)
    return array


def _wanted(operand: Operand, may_be_none: bool) -> str:
    """What may stand in its place, as errors say it."""
    others = {"a number": operand.takes_number, "a Draw": operand.drawable, "None": may_be_none}
    *most, last = ["an array", *(name for name, taken in others.items() if taken)]
    return f"{', '.join(most)} or {last}" if most else last


def convert(p: Pass, args: Sequence[Any], dtype: Any) -> tuple[list[Any], np.dtype[Any]]:
    """All operands as native arrays of one floating type (index operands of their own), in one memory."""
    values = [_as_operand(p, o, v, k >= p.primals) for k, (o, v) in enumerate(zip(p.inputs, args, strict=True))]
    floats = [
        (o.name, v.dtype)
        for o, v in zip(p.inputs, values, strict=True)
        if v is not None and o.item == "real" and not isinstance(v, Draw) and not _check.is_weak(v)
    ]
    for other in floats[1:]:
        _check.same_dtype(p.name, floats[0], other)
    real = floats[0][1] if floats else np.dtype(dtype or np.float64)
    device = None
    if cupy_is_there():  # numbers of NumPy are anywhere
        device = device_of_call(
            p, [None if isinstance(v, np.generic) else x for v, x in zip(args, values, strict=True)]
        )
    for k, (operand, value) in enumerate(zip(p.inputs, values, strict=True)):
        if _check.is_weak(value):
            values[k] = _check.as_weak_scalar(f"{p.name}: {operand.name}", value, real)
        if device is not None and isinstance(values[k], np.ndarray):
            values[k] = _filled_on(device, values[k], values)
    return values, real


def namespace_of_call(values: Sequence[Any]) -> Any:
    """The module of the operands' arrays, the index of a Draw being one."""
    return namespace_of(*values, *(v.index for v in values if isinstance(v, Draw)))


def device_of_call(p: Pass, values: Sequence[Any]) -> Any:
    """The GPU that holds the operands, None of NumPy arrays; numbers and a Draw of NumPy's index are anywhere."""
    if not cupy_is_there() or namespace_of_call(values) is np:
        return None
    placed = [(o.name, v) for o, v in zip(p.inputs, values, strict=True) if isinstance(v, np.ndarray) or is_cupy(v)]
    drawn = [(o.name, v.index) for o, v in zip(p.inputs, values, strict=True) if isinstance(v, Draw)]
    return _check.one_device(p.name, placed + [(f"the index of {n}", x) for n, x in drawn if is_cupy(x) or not placed])


def _filled_on(device: Any, number: Array, values: Sequence[Any]) -> Any:
    """A number where the arrays are, by a kernel: an upload could not be captured in a graph."""
    with device:
        return namespace_of_call(values).full((), number[()], number.dtype)


def code_attributes(p: Pass, given: dict[str, Any]) -> tuple[float, ...]:
    """Attributes as numbers: of a choice its place, of a bool 0 or 1."""
    op = p.op
    missing = [name for name, default in op.defaults.items() if default is None and name not in given]
    if missing:
        raise TypeError(f"{p.name} needs the keyword{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    values = {**op.defaults, **given}
    coded = []
    for name, value in values.items():
        if name in op.choices:
            _check.as_choice(f"{p.name}: {name}", value, op.choices[name])
            coded.append(float(op.choices[name].index(value)))
        elif isinstance(op.defaults[name], bool):
            coded.append(float(_check.as_bool(f"{p.name}: {name}", value)))
        else:
            low, high = op.limits.get(name, (-math.inf, math.inf))
            plain = type(value) is float and -math.inf < value and low <= value < high  # the check costs 1 us
            coded.append(value if plain else _check.as_float(f"{p.name}: {name}", value, low, high))
    return tuple(coded)


def split_keywords(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move operands given by name to their places, and attributes out of the keywords."""
    names = [o.name for o in p.inputs]
    for name in names[: len(args)]:
        if name in keywords:
            raise TypeError(f"{p.name} got two values for {name}")
    given = {n: keywords.pop(n) for n in p.op.attributes if n in keywords}
    named = {n: keywords.pop(n) for n in names[len(args) :] if n in keywords}
    if named:
        refuse_unknown(p, keywords)
        missing = [n for n in names[len(args) :] if n not in named]
        _check.check_operands(p, len(args) + len(named), missing)
        args = (*args, *(named[n] for n in names[len(args) :]))
    return args, given


def refuse_unknown(p: Pass, keywords: dict[str, Any]) -> None:
    """Keywords that are neither operands, attributes, sizes nor, for an op without real inputs, a dtype."""
    known = {*p.free_symbols, "dtype"} if not any(o.item == "real" for o in p.inputs) else {*p.free_symbols}
    _check.check_keywords(p, [name for name in keywords if name not in known])


def wanted_outputs(p: Pass, args: Sequence[Any], wrt: Any) -> tuple[bool, ...] | None:
    """Which outputs of a reverse pass are wanted; None is all of them. A Draw has no cotangent."""
    drawn = [o.name for o, x in zip(p.inputs, args, strict=False) if isinstance(x, Draw)]
    if wrt is None and not drawn:
        return None
    names = [o.name.removeprefix("ct_") for o in p.outputs[p.values :]]
    chosen = [n for n in names if n not in drawn] if wrt is None else _check.as_names(f"{p.name}: wrt", wrt, names)
    for name in drawn:
        if name in chosen:
            raise TypeError(f"{p.name}: wrt names {name}, but a Draw has no cotangent")
    return (*(True for _ in range(p.values)), *(n in chosen for n in names))
