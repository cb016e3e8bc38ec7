# SPDX-License-Identifier: MIT
"""From arrays to a backend: checks, broadcasts, allocates the results, picks who runs."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Draw:
    """Noise that is made where it is used and never stored: event b takes stream ``index[b]`` of ``key``."""

    key: int
    index: NDArray[np.uint64]


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


def _attributes(p: Pass, given: dict[str, Any]) -> tuple[dict[str, Any], tuple[float, ...], dict[str, int], Any]:
    """Attributes for a definition and coded for a kernel, extents given by keyword, and a dtype."""
    op = p.op
    if not given and not op.attributes:
        return {}, (), {}, None
    extents = {s: _check.as_int(f"{p.name}: {s}", given.pop(s)) for s in p.symbols if s in given}
    dtype = given.pop("dtype", None)
    values = dict(op.defaults)
    for name, value in given.items():
        if name not in values:
            raise _check.unknown_keyword(p, name)
        if name in op.choices and value not in op.choices[name]:
            raise _check.choice_error(p.name, name, value, op.choices[name])
        values[name] = value
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise TypeError(f"{p.name} needs the keyword {missing[0]}")
    coded = tuple(float(op.choices[n].index(v)) if n in op.choices else float(v) for n, v in values.items())
    return values, coded, extents, dtype


class Plan(NamedTuple):
    """What a call with these shapes, dtypes and keywords comes to; made once, kept in a table."""

    batch_shape: tuple[int, ...]
    extents: dict[str, int]
    real: np.dtype[Any]
    results: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    attributes: dict[str, Any]
    coded: tuple[float, ...]
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
    if keywords:
        parts.extend(keywords.items())
    return tuple(parts)


def run(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """Run one pass of an op; the entry of every call.

    Inside the package ``sums=`` gives arrays to fill, which are summed over the batch dims that they lack; None stands for one
    that is not wanted.
    """
    sums = keywords.pop("sums", None)
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
        _run_on_backend(p, plan, inputs, list(sums))
        return None
    if out is None:
        results = [np.empty(shape, dtype) for shape, dtype in plan.results]
        _run_on_backend(p, plan, inputs, results)
        return _returned(p, results)
    results, copies = _targets(p, plan, inputs, out)
    _run_on_backend(p, plan, inputs, results)
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
    keywords = dict(given)
    if len(args) < len(p.inputs):
        names = [o.name for o in p.inputs[len(args) :]]
        if all(n in keywords for n in names):
            args = (*args, *(keywords.pop(n) for n in names))
    if len(args) != len(p.inputs):
        raise _check.argument_error(p, len(args))
    values, coded, extents, dtype = _attributes(p, keywords)
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
    return inputs, Plan(batch_shape, extents, real, results, values, coded, sizes, str(real))


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


def _run_on_backend(p: Pass, plan: Plan, inputs: list[Any], results: list[Any]) -> None:
    name, isa = chosen_backend()
    counts[f"{name}:{isa}" if isa else name] += 1
    if name == "native":
        coded = [(x.key, x.index) if type(x) is Draw else x for x in inputs]
        native.run(p, isa, plan, (coded, results), get_num_threads())
        return
    made = [_draw_noise(x, plan.extents, plan.real) if isinstance(x, Draw) else x for x in inputs]
    reference.run(p, plan.real, (plan.batch_shape, plan.extents), made, results, plan.attributes)


def _draw_noise(draw: Draw, extents: dict[str, int], real: np.dtype[Any]) -> Array:
    """The noise of a Draw as an array ``index.shape + (s, d)``."""
    normal: Op = _noise_op[0]
    n = extents["s"] * extents["d"]
    key = {"key_low": draw.key & 0xFFFFFFFF, "key_high": draw.key >> 32}
    noise: Array = normal(draw.index, np.zeros((), np.uint64), n=n, dtype=real, **key)
    return noise.reshape(*draw.index.shape, extents["s"], extents["d"])


_noise_op: list[Op] = []
set_dispatcher(run)
