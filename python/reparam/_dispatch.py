# SPDX-License-Identifier: MIT
"""From arrays to a backend: checks, broadcasts, allocates the results, picks who runs."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check
from ._arrays import cupy_is_there, is_array, is_cupy, may_share_memory, namespace_of
from ._backends import cuda, definitions, native
from ._op import Pass, set_dispatcher
from ._operands import (
    Draw,
    code_attributes,
    convert,
    device_of_call,
    namespace_of_call,
    refuse_unknown,
    split_keywords,
    wanted_outputs,
)
from ._settings import chosen_backend, get_num_threads, named_backend
from ._signature import Operand

__all__ = ["Draw", "counts", "run"]

Array = NDArray[Any]
Shape = tuple[int, ...]
Results = list[Array | None]  # None: not wanted
counts: Counter[str] = Counter()  # calls by backend and ISA, such as "native:avx2", or "native:cuda"


class Plan(NamedTuple):
    """What a call with these shapes and dtypes comes to; made once, kept in a table."""

    batch_shape: tuple[int, ...]
    extents: dict[str, int]
    real: np.dtype[Any]
    results: tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]
    sizes: tuple[int, ...]
    dtype: str


_directs: dict[Any, Any] = {}
_plans: dict[Any, Plan] = {}
_coded: dict[Any, tuple[float, ...]] = {}
_MOST_KEPT = 4096  # entries of each table


def _keep(table: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(table) >= _MOST_KEPT:
        table.clear()
    table[key] = value
    return value


def _key(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The table's key, or None where an operand is no plain array."""
    parts: list[Any] = [p]
    for x in args:
        kind = type(x)
        if kind is np.ndarray:
            parts.append(x.shape)
            parts.append(x.dtype)
        elif x is None:
            parts.append(None)
        elif kind is Draw:
            parts.append((Draw, x.index.shape))
        elif is_cupy(x):
            parts.append(("cupy", x.shape, x.dtype))
        else:
            return None
    parts.extend(_key_of_keywords(keywords))
    return tuple(parts)


def _key_of_keywords(keywords: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, type(value), value) for name, value in keywords.items())  # 1, 1.0 and True are equal keys


def run(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """Run one pass of an op; the entry of every call.

    Inside the package ``sums=`` gives arrays to fill, which are summed over the batch dims that they lack; None stands
    for one that is not wanted.
    """
    sums = keywords.pop("sums", None)
    wrt = keywords.pop("wrt", None) if p.reverse else None
    if sums is None and wrt is None and keywords.keys() <= p.op.defaults.keys():
        direct = _run_directly(p, args, out, keywords)
        if direct is not None:
            return _returned(p, direct) if out is None else _filled(p, out)
    if p.packed and _check.as_bool(f"{p.name}: packed", keywords.pop("packed", False)):
        p = p.packed
    given: dict[str, Any] = {}
    if keywords:
        args, given = split_keywords(p, args, keywords)
    attributes = _attributes(p, given) if p.op.attributes else ()
    inputs, plan = _planned(p, args, keywords)
    device = device_of_call(p, inputs) if cupy_is_there() else None
    if device is None:
        return _run_planned(p, args, inputs, plan, attributes, None, (sums, wrt, out))
    _check.refuse_backend(p.name, named_backend())
    with cuda.on(device, p.name):
        return _run_planned(p, args, inputs, plan, attributes, device, (sums, wrt, out))


def _run_planned(
    p: Pass,
    args: tuple[Any, ...],
    inputs: list[Any],
    plan: Plan,
    attributes: tuple[float, ...],
    device: Any,
    asked: tuple[Any, Any, Any],
) -> Any:
    """Allocate the results where the inputs are, and run; ``device`` is their GPU, which is the current one, or None.

    What was asked for are ``sums``, ``wrt`` and ``out``.
    """
    sums, wrt, out = asked
    if p.in_place:
        _check.check_in_place(p, args, plan.batch_shape)
        inputs = _apart(p, inputs)
    if sums is not None:
        _run_on_backend(p, plan, attributes, inputs, list(sums), device)
        return None
    wanted = wanted_outputs(p, args, wrt) if p.reverse else None
    results: Results
    if out is None:
        empty = np.empty if device is None else namespace_of_call(inputs).empty
        results = [
            empty(shape, dtype) if wanted is None or wanted[k] else None
            for k, (shape, dtype) in enumerate(plan.results)
        ]
        _run_on_backend(p, plan, attributes, inputs, results, device)
        if p.in_place:
            _write_back(p, args, inputs)
        return _returned(p, results)
    results, copies = _targets(inputs, _check.check_out(p, out, plan.results, wanted, device))
    _run_on_backend(p, plan, attributes, inputs, results, device)
    for target, result in copies:
        target[...] = result
    return _filled(p, out)


def _attributes(p: Pass, given: dict[str, Any]) -> tuple[float, ...]:
    """The attributes as numbers; looked up where they were given before, which those of an update are not."""
    if p.in_place:
        return code_attributes(p, given)
    try:
        key = (p.op, _key_of_keywords(given))
        return _coded.get(key) or _keep(_coded, key, code_attributes(p, given))
    except TypeError:  # a value without a hash, or one that is refused
        return code_attributes(p, given)


def _run_directly(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """The results of a common call, which C++ takes as it is; None where it does not."""
    name, isa = chosen_backend()
    if name != "native":
        return None
    direct = _directs.get((p, isa)) or _keep(_directs, (p, isa), native.direct(p, isa))
    attributes = _attributes(p, keywords) if p.op.attributes else ()
    results = direct(args, out if out is None or isinstance(out, tuple) else (out,), attributes, get_num_threads())
    if results is not None:
        counts[f"native:{isa}"] += 1
    return results


def _planned(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[list[Any], Plan]:
    """The converted operands and the plan, which is looked up where such a call was made before."""
    try:
        key = _key(p, args, keywords)
        plan = _plans.get(key) if key is not None else None
    except TypeError:  # a keyword that has no hash; it is refused below
        key = plan = None
    if plan is not None:
        return list(args), plan
    inputs, plan = _plan(p, args, keywords)
    if key is not None and all(x is y for x, y in zip(inputs, args, strict=False)):
        _keep(_plans, key, plan)
    return inputs, plan


def _plan(p: Pass, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[list[Any], Plan]:
    """Check and convert the operands, and work out the shapes."""
    refuse_unknown(p, given)
    _check.check_operands(p, len(args))
    extents = {s: _check.as_int(f"{p.name}: {s}", given[s]) for s in p.free_symbols if s in given}
    dtype = _check.as_dtype(f"{p.name}: dtype", given["dtype"]) if given.get("dtype") is not None else None
    inputs, real = convert(p, args, dtype)
    shapes = [None if x is None or isinstance(x, Draw) else x.shape for x in inputs]
    extents = _check.resolve_extents(p, shapes, extents)
    batches = [_batch(o, x) for x, o in zip(inputs, p.inputs, strict=True)]
    batch_shape = _check.broadcast_batches(p.name, [o.name for o in p.inputs], batches)
    results = []
    for operand, batch in zip(p.outputs, batches_of_results(p, batches, batch_shape), strict=True):
        dtype = real if operand.item == "real" else np.dtype(operand.item)
        results.append((batch + operand.event_shape(extents), dtype))
    return inputs, Plan(batch_shape, extents, real, tuple(results), tuple(extents[s] for s in p.symbols), str(real))


def batches_of_results(p: Pass, batches: list[Shape], batch_shape: Shape) -> list[Shape]:
    """The batch dims of each result: those of the call, or of a cotangent those of its own input."""
    if not p.reverse or p.op.vjp_from != "inputs":
        return [batch_shape] * len(p.outputs)
    own = [batch for o, batch in zip(p.op.inputs, batches, strict=False) if o.item == "real"]
    return [batch_shape] * p.values + own


def _batch(operand: Operand, x: Any) -> Shape:
    if x is None:
        return ()
    shape: Shape = x.index.shape if isinstance(x, Draw) else x.shape[: x.ndim - operand.event_rank]
    return shape


def _apart(p: Pass, inputs: list[Any]) -> list[Any]:
    """Copies of operands that are read and share memory with one that is updated: as if there were no overlap."""
    written = [x for o, x in zip(p.inputs, inputs, strict=True) if o.in_place]
    return [
        x if o.in_place or not any(may_share_memory(x, w) for w in written) else x.copy()
        for o, x in zip(p.inputs, inputs, strict=True)
    ]


def _write_back(p: Pass, args: tuple[Any, ...], inputs: list[Any]) -> None:
    """What was updated in a converted copy goes to the array that was given."""
    for operand, given, used in zip(p.inputs, args, inputs, strict=True):
        if operand.in_place and given is not used:
            given[...] = used


def _targets(inputs: list[Any], out: tuple[Array | None, ...]) -> tuple[Results, list[tuple[Array, Array]]]:
    """The arrays of ``out=``, and the copies to make where one overlaps an input."""
    results: Results = []
    copies = []
    for array in out:
        if array is not None and any(is_array(x) and may_share_memory(x, array) for x in inputs):
            apart = namespace_of(array).empty(array.shape, array.dtype)
            results.append(apart)
            copies.append((array, apart))
        else:
            results.append(array)
    return results, copies


def _returned(p: Pass, results: Results) -> Any:
    """Results as users get them: one alone, or a tuple; outputs and cotangents of a value_and_vjp apart."""
    if len(results) == 1 and p.op.result is None:
        (x,) = results
        return x if x is None or x.ndim else x[()]
    found = tuple([x if x is None or x.ndim else x[()] for x in results])
    if not p.reverse and p.op.result is not None:
        return p.op.result(*found)
    if p.kind != "value_and_vjp":
        return _alone_or_tuple(found)
    return _alone_or_tuple(found[: p.values]), _alone_or_tuple(found[p.values :])


def _filled(p: Pass, out: Any) -> Any:
    """The arrays of ``out=`` themselves, in the form of results."""
    if p.kind == "value_and_vjp":
        return _alone_or_tuple(out[: p.values]), _alone_or_tuple(out[p.values :])
    return out if p.reverse or p.op.result is None else p.op.result(*out)


def _alone_or_tuple(found: tuple[Any, ...]) -> Any:
    return found[0] if len(found) == 1 else found or None


def _run_on_backend(
    p: Pass, plan: Plan, attributes: tuple[float, ...], inputs: list[Any], results: Results, device: Any
) -> None:
    xp = np if device is None else namespace_of_call(inputs)
    for k in range(p.primals, len(inputs)):
        if inputs[k] is None:  # a cotangent of zero
            inputs[k] = xp.broadcast_to(xp.zeros((), plan.real), p.inputs[k].event_shape(plan.extents))
    if device is not None:
        counts["native:cuda"] += 1
        cuda.run(xp, p, plan, attributes, inputs, results)
        return
    name, isa = chosen_backend()
    counts[f"{name}:{isa}" if isa else name] += 1
    if name == "native":
        coded = [(x.key, x.index) if type(x) is Draw else x for x in inputs]
        native.run(p, isa, plan, attributes, coded, results, get_num_threads())
    else:
        definitions.run(name, p, plan, attributes, inputs, results)


set_dispatcher(run)
