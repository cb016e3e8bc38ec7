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
        object.__setattr__(self, "key", _check.as_key(self.key))
        object.__setattr__(self, "index", _check.as_index("Draw: index", self.index))


def _as_array(p: Pass, operand: Operand, value: Any) -> Any:
    """The operand as a NumPy array, a Draw, or a Python number that waits for a dtype."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Draw):
        if operand.name == "noise" and operand.kind == "rows" and not p.vjp:
            return value
        raise TypeError(f"{p.name}: {operand.name} must be an array, got a Draw")
    if isinstance(value, (bool, np.bool_)):
        raise _check.dtype_error(p, operand, "bool")
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    raise _check.not_an_array(p, operand, value)


def _convert(p: Pass, args: tuple[Any, ...], dtype: Any) -> tuple[list[Any], np.dtype[Any]]:
    """All operands as native arrays of one floating type (index operands of their own)."""
    values = [_as_array(p, o, v) for o, v in zip(p.inputs, args, strict=True)]
    found: tuple[str, np.dtype[Any]] | None = None
    for k, (operand, value) in enumerate(zip(p.inputs, values, strict=True)):
        if not isinstance(value, np.ndarray):
            continue
        if operand.item != "real":
            if value.dtype != operand.item:
                raise _check.dtype_error(p, operand, value.dtype)
            continue
        if value.dtype.kind == "f" and not value.dtype.isnative:
            values[k] = value = value.astype(value.dtype.newbyteorder("="))
        if value.dtype not in _check.FLOATS:
            raise _check.dtype_error(p, operand, value.dtype)
        if found is None:
            found = (operand.name, value.dtype)
        elif found[1] != value.dtype:
            raise _check.mixed_dtypes(p, found, (operand.name, value.dtype))
    real = found[1] if found else np.dtype(dtype or np.float64)
    for k, value in enumerate(values):
        if isinstance(value, (int, float)):
            values[k] = np.asarray(value, real)
    return values, real


def _attributes(p: Pass, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Attributes for a definition, and as numbers for a kernel."""
    op = p.op
    values = {**op.defaults, **given}
    coded = []
    for name, value in values.items():
        if name in op.choices:
            _check.as_choice(f"{p.name}: {name}", value, op.choices[name])
            coded.append(float(op.choices[name].index(value)))
        elif isinstance(op.defaults[name], bool):
            coded.append(float(_check.as_bool(f"{p.name}: {name}", value)))
        elif value is None:
            raise TypeError(f"{p.name} needs the keyword {name}")
        else:
            low, high = op.limits.get(name, (-math.inf, math.inf))
            coded.append(_check.as_float(f"{p.name}: {name}", value, low, high))
    return values, tuple(coded)


def _split(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move operands given by name to their places, and attributes out of the keywords."""
    names = [o.name for o in p.inputs[len(args) :]]
    if names and all(n in keywords for n in names):
        args = (*args, *(keywords.pop(n) for n in names))
    return args, {n: keywords.pop(n) for n in p.op.attributes if n in keywords}


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
_NO_ATTRIBUTES: tuple[dict[str, Any], tuple[float, ...]] = ({}, ())


def _key(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The table's key, or None where an operand is no plain array."""
    parts: list[Any] = [p]
    for x in args:
        if type(x) is not np.ndarray:
            return None
        parts.append(x.shape)
        parts.append(x.dtype)
    if keywords:
        parts.extend(keywords.items())
    return tuple(parts)


def run(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """Run one pass of an op; the entry of every call.

    Inside the package ``sums=`` gives arrays to fill, which are summed over the batch dims that they lack; None stands for one
    that is not wanted.
    """
    sums = keywords.pop("sums", None)
    given: dict[str, Any] = {}
    if keywords:
        args, given = _split(p, args, keywords)
    attributes = _attributes(p, given) if p.op.attributes else _NO_ATTRIBUTES
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
    if sums is not None:
        _run_on_backend(p, plan, attributes, inputs, list(sums))
        return None
    if out is None:
        results = [np.empty(shape, dtype) for shape, dtype in plan.results]
        _run_on_backend(p, plan, attributes, inputs, results)
        return _returned(p, results)
    results, copies = _targets(p, plan, inputs, out)
    _run_on_backend(p, plan, attributes, inputs, results)
    for target, result in copies:
        target[...] = result
    return out


def _returned(p: Pass, results: list[Array]) -> Any:
    if p.op.result is not None and not p.vjp:
        return p.op.result(*results)
    if len(results) == 1:
        return results[0] if results[0].ndim else results[0][()]
    return tuple(x if x.ndim else x[()] for x in results) or None


def _plan(p: Pass, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[list[Any], Plan]:
    """Check and convert the operands, and work out the shapes."""
    if len(args) != len(p.inputs):
        raise _check.argument_error(p, len(args))
    keywords = dict(given)
    extents = {s: _check.as_int(f"{p.name}: {s}", keywords.pop(s)) for s in p.symbols if s in keywords}
    dtype = keywords.pop("dtype", None)
    if keywords:
        raise _check.unknown_keyword(p, next(iter(keywords)))
    inputs, real = _convert(p, args, dtype)
    extents = _check.resolve_extents(p, [None if isinstance(x, Draw) else x.shape for x in inputs], extents)
    batches = [
        x.index.shape if isinstance(x, Draw) else x.shape[: x.ndim - o.event_rank]
        for x, o in zip(inputs, p.inputs, strict=True)
    ]
    batch_shape = _check.broadcast_batches(p, batches, [o.name for o in p.inputs])
    for operand, batch, array in zip(p.inputs, batches, inputs, strict=True):
        if operand.in_place:
            _check.check_in_place(p, operand, array, batch == batch_shape, batch_shape)
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
    given = out if isinstance(out, tuple) else (out,)
    if len(given) != len(p.outputs):
        raise TypeError(f"{p.name}: out must hold {len(p.outputs)} arrays, got {len(given)}")
    results, copies = [], []
    for operand, target, (shape, dtype) in zip(p.outputs, given, plan.results, strict=True):
        array = _check.check_out(p, operand.name, target, shape, dtype)
        if any(isinstance(x, np.ndarray) and np.may_share_memory(x, array) for x in inputs):
            results.append(np.empty(shape, dtype))
            copies.append((array, results[-1]))
        else:
            results.append(array)
    return results, copies


def _run_on_backend(
    p: Pass, plan: Plan, attributes: tuple[dict[str, Any], tuple[float, ...]], inputs: list[Any], results: list[Any]
) -> None:
    name, isa = chosen_backend()
    counts[f"{name}:{isa}" if isa else name] += 1
    if name == "native":
        coded = [(x.key, x.index) if type(x) is Draw else x for x in inputs]
        native.run(p, isa, plan, attributes[1], [*coded, *results], get_num_threads())
        return
    made = [_draw_noise(x, plan.extents, plan.real) if isinstance(x, Draw) else x for x in inputs]
    reference.run(p, plan.real, (plan.batch_shape, plan.extents), made, results, attributes[0])


def _draw_noise(draw: Draw, extents: dict[str, int], real: np.dtype[Any]) -> Array:
    """The noise of a Draw as an array ``index.shape + (s, d)``."""
    normal: Op = _noise_op[0]
    n = extents["s"] * extents["d"]
    key = {"key_low": draw.key & 0xFFFFFFFF, "key_high": draw.key >> 32}
    noise: Array = normal(draw.index, np.zeros((), np.uint64), n=n, dtype=real, **key)
    return noise.reshape(*draw.index.shape, extents["s"], extents["d"])


_noise_op: list[Op] = []
set_dispatcher(run)
