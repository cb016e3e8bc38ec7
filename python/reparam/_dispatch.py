# SPDX-License-Identifier: MIT
"""From arrays to a backend: checks, broadcasts, allocates the results, picks who runs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check
from ._backends import native, reference
from ._op import Op, Operand, Pass, set_dispatcher
from ._settings import chosen_backend, get_num_threads

__all__ = ["Draw", "counts", "run"]

Array = NDArray[Any]
counts: Counter[str] = Counter()  # calls by backend and ISA, such as "native:avx2"


@dataclass(frozen=True, eq=False)
class Draw:
    """Noise that is made where it is used and never stored.

    Parameters
    ----------
    key : key
        See :func:`reparam.random.as_key`.
    index : int array
        Event b takes stream ``index[b]``; its element ``s * d + j`` is draw s, coordinate j.

    Raises
    ------
    TypeError, ValueError
        For what is no key, or an index that is not of integers >= 0.
    """

    key: int
    index: NDArray[np.uint64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _check.as_key(self.key, "Draw: key"))
        object.__setattr__(self, "index", _check.as_index("Draw: index", self.index))


def _as_operand(p: Pass, operand: Operand, value: Any) -> Any:
    """The operand as a NumPy array, a Draw, or a Python number that waits for a dtype."""
    name = f"{p.name}: {operand.name}"
    if isinstance(value, Draw):
        if operand.drawable and not p.vjp:
            return value
        raise TypeError(f"{name} must be an array, got a Draw")
    if operand.item == "real" and _check.is_weak(value):
        return value
    if operand.item == "real":
        return _check.as_float_array(name, value, "an array" + (" or a number" if operand.takes_number else ""))
    array = _check.as_array(name, value)
    if array.dtype != operand.item:
        raise _check.dtype_error(name, operand.item, array.dtype)
    return array


def _convert(p: Pass, args: tuple[Any, ...], dtype: Any) -> tuple[list[Any], np.dtype[Any]]:
    """All operands as native arrays of one floating type (index operands of their own)."""
    values = [_as_operand(p, o, v) for o, v in zip(p.inputs, args, strict=True)]
    floats = [
        (o.name, v.dtype)
        for o, v in zip(p.inputs, values, strict=True)
        if isinstance(v, np.ndarray) and o.item == "real"
    ]
    for other in floats[1:]:
        _check.same_dtype(p.name, floats[0], other)
    real = floats[0][1] if floats else np.dtype(dtype or np.float64)
    for k, (operand, value) in enumerate(zip(p.inputs, values, strict=True)):
        if _check.is_weak(value):
            values[k] = _check.as_weak_scalar(f"{p.name}: {operand.name}", value, real)
    return values, real


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


def _split(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move operands given by name to their places, and attributes out of the keywords."""
    names = [o.name for o in p.inputs]
    for name in names[: len(args)]:
        if name in keywords:
            raise TypeError(f"{p.name} got two values for {name}")
    given = {n: keywords.pop(n) for n in p.op.attributes if n in keywords}
    named = {n: keywords.pop(n) for n in names[len(args) :] if n in keywords}
    if named:
        _refuse_unknown(p, keywords)
        _check.check_operands(p, len(p.inputs), [n for n in names[len(args) :] if n not in named])
    return (*args, *(named[n] for n in names[len(args) :] if n in named)), given


def _refuse_unknown(p: Pass, keywords: dict[str, Any]) -> None:
    known = {*p.free_symbols, "dtype"} if not any(o.item == "real" for o in p.inputs) else {*p.free_symbols}
    _check.check_keywords(p, [name for name in keywords if name not in known])


class Plan(NamedTuple):
    """What a call with these shapes and dtypes comes to; made once, kept in a table."""

    batch_shape: tuple[int, ...]
    extents: dict[str, int]
    real: np.dtype[Any]
    results: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    sizes: tuple[int, ...]
    dtype: str


_plans: dict[Any, Plan] = {}
_MOST_PLANS = 4096


def _key(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The table's key, or None where an operand is no plain array."""
    parts: list[Any] = [p]
    for x in args:
        if type(x) is not np.ndarray:
            return None
        parts.append(x.shape)
        parts.append(x.dtype)
    for name, value in keywords.items():
        parts.extend((name, type(value), value))  # the type too: 1, 1.0 and True are equal keys
    return tuple(parts)


def run(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """Run one pass of an op; the entry of every call.

    Inside the package ``sums=`` gives arrays to fill, which are summed over the batch dims that they lack; None stands
    for one that is not wanted.
    """
    sums = keywords.pop("sums", None)
    given: dict[str, Any] = {}
    if keywords:
        args, given = _split(p, args, keywords)
    attributes = code_attributes(p, given) if p.op.attributes else ()
    try:
        key = _key(p, args, keywords)
        plan = _plans.get(key) if key is not None else None
    except TypeError:  # a keyword that has no hash; it is refused below
        key = plan = None
    if plan is None:
        inputs, plan = _plan(p, args, keywords)
        if key is not None and all(x is y for x, y in zip(inputs, args, strict=False)):
            if len(_plans) >= _MOST_PLANS:
                _plans.clear()
            _plans[key] = plan
    else:
        inputs = list(args)
    if p.in_place:
        _check.check_in_place(p, args, plan.batch_shape)
        inputs = _apart(p, inputs)
    if sums is not None:
        _run_on_backend(p, plan, attributes, inputs, list(sums))
        return None
    if out is None:
        results = [np.empty(shape, dtype) for shape, dtype in plan.results]
        _run_on_backend(p, plan, attributes, inputs, results)
        if p.in_place:
            _write_back(p, args, inputs)
        return _returned(p, results)
    results, copies = _targets(p, plan, inputs, out)
    _run_on_backend(p, plan, attributes, inputs, results)
    for target, result in copies:
        target[...] = result
    return out


def _apart(p: Pass, inputs: list[Any]) -> list[Any]:
    """Copies of operands that are read and share memory with one that is updated: as if there were no overlap."""
    written = [x for o, x in zip(p.inputs, inputs, strict=True) if o.in_place]
    return [
        x if o.in_place or not any(np.may_share_memory(x, w) for w in written) else x.copy()
        for o, x in zip(p.inputs, inputs, strict=True)
    ]


def _write_back(p: Pass, args: tuple[Any, ...], inputs: list[Any]) -> None:
    """What was updated in a converted copy goes to the array that was given."""
    for operand, given, used in zip(p.inputs, args, inputs, strict=True):
        if operand.in_place and given is not used:
            given[...] = used


def _returned(p: Pass, results: list[Array]) -> Any:
    if p.op.result is not None and not p.vjp:
        return p.op.result(*results)
    if len(results) == 1:
        return results[0] if results[0].ndim else results[0][()]
    return tuple(x if x.ndim else x[()] for x in results) or None


def _plan(p: Pass, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[list[Any], Plan]:
    """Check and convert the operands, and work out the shapes."""
    _refuse_unknown(p, given)
    _check.check_operands(p, len(args))
    extents = {s: _check.as_int(f"{p.name}: {s}", given[s]) for s in p.free_symbols if s in given}
    dtype = _check.as_dtype(f"{p.name}: dtype", given["dtype"]) if given.get("dtype") is not None else None
    inputs, real = _convert(p, args, dtype)
    extents = _check.resolve_extents(p, [None if isinstance(x, Draw) else x.shape for x in inputs], extents)
    batches = [
        x.index.shape if isinstance(x, Draw) else x.shape[: x.ndim - o.event_rank]
        for x, o in zip(inputs, p.inputs, strict=True)
    ]
    batch_shape = _check.broadcast_batches(p.name, [o.name for o in p.inputs], batches)
    own = p.vjp and p.op.vjp_from == "inputs"
    real_inputs = [k for k, o in enumerate(p.op.inputs) if o.item == "real"]
    results = tuple(
        (
            (batches[real_inputs[k]] if own else batch_shape) + operand.event_shape(extents),
            real if operand.item == "real" else np.dtype(operand.item),
        )
        for k, operand in enumerate(p.outputs)
    )
    sizes = tuple(extents[s] for s in p.symbols)
    return inputs, Plan(batch_shape, extents, real, results, sizes, str(real))


def _targets(p: Pass, plan: Plan, inputs: list[Any], out: Any) -> tuple[list[Array], list[tuple[Array, Array]]]:
    """The arrays of ``out=``, and the copies to make where one overlaps an input."""
    results, copies = [], []
    for array in _check.check_out(p, out, plan.results):
        if any(isinstance(x, np.ndarray) and np.may_share_memory(x, array) for x in inputs):
            results.append(np.empty(array.shape, array.dtype))
            copies.append((array, results[-1]))
        else:
            results.append(array)
    return results, copies


def _run_on_backend(
    p: Pass, plan: Plan, attributes: tuple[float, ...], inputs: list[Any], results: list[Any]
) -> None:
    name, isa = chosen_backend()
    counts[f"{name}:{isa}" if isa else name] += 1
    if name == "native":
        coded = [(x.key, x.index) if type(x) is Draw else x for x in inputs]
        native.run(p, isa, plan, attributes, [*coded, *results], get_num_threads())
        return
    made = [_draw_noise(x, plan.extents, plan.real) if isinstance(x, Draw) else x for x in inputs]
    reference.run(p, plan.real, (plan.batch_shape, plan.extents), made, results, attributes)


def _draw_noise(draw: Draw, extents: dict[str, int], real: np.dtype[Any]) -> Array:
    """The noise of a Draw as an array ``index.shape + (s, d)``."""
    normal: Op = _noise_op[0]
    n = extents["s"] * extents["d"]
    key = {"key_low": draw.key & 0xFFFFFFFF, "key_high": draw.key >> 32}
    noise: Array = normal(draw.index, np.zeros((), np.uint64), n=n, dtype=real, **key)
    return noise.reshape(*draw.index.shape, extents["s"], extents["d"])


_noise_op: list[Op] = []
set_dispatcher(run)
