# SPDX-License-Identifier: MIT
"""From arrays to a backend: checks, broadcasts, allocates the results, picks who runs."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _check
from ._backends import native, reference
from ._op import Op, Operand, Pass, set_dispatcher

__all__ = ["Draw", "backend", "backends", "counts", "get_num_threads", "run", "set_num_threads"]

Array = NDArray[Any]
counts: Counter[str] = Counter()  # calls by backend and ISA, such as "native:avx2"


@dataclass(frozen=True)
class Draw:
    """Noise that is made where it is used and never stored: event b takes stream ``index[b]`` of ``key``."""

    key: int
    index: NDArray[np.uint64]


def backends() -> tuple[str, ...]:
    """Names that :func:`backend` takes: ``native``, ``native:<isa>`` for each usable ISA, ``reference``."""
    isas = native.available()
    return (*(("native",) if isas else ()), *(f"native:{isa}" for isa in isas), "reference")


def _parse(name: str, origin: str) -> tuple[str, str]:
    """``native[:isa]`` or ``reference`` as (backend, isa)."""
    if not isinstance(name, str) or name not in backends():
        raise ValueError(f"{origin} must be one of {', '.join(backends())}, got {name!r}")
    if name == "native":
        isa = os.environ.get("REPARAM_ISA") or native.default_isa()
        if isa not in native.available():
            raise ValueError(f"REPARAM_ISA must be one of {', '.join(native.available())}, got {isa!r}")
        return "native", isa
    return (name.split(":") + [""])[0], (name.split(":") + [""])[1]


_chosen: ContextVar[tuple[str, str] | None] = ContextVar("reparam_backend", default=None)
_default: list[tuple[str, str]] = []


def _default_backend() -> tuple[str, str]:
    if not _default:
        wanted = os.environ.get("REPARAM_BACKEND")
        if wanted:
            _default.append(_parse(wanted, "REPARAM_BACKEND"))
        elif native.available():
            _default.append(_parse("native", "backend"))
        else:
            warnings.warn(
                "reparam has no compiled kernels here and runs its NumPy definitions, 10 to 1000 times slower; "
                "install with a C++ compiler (pip install .)",
                RuntimeWarning,
                stacklevel=5,
            )
            _default.append(("reference", ""))
    return _default[0]


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the ops of this context on one backend.

    Parameters
    ----------
    name : str
        One of :func:`backends`.

    Raises
    ------
    ValueError
        For an unknown name, or an ISA that this CPU lacks.
    """
    token = _chosen.set(_parse(name, "backend"))
    try:
        yield
    finally:
        _chosen.reset(token)


def current_backend() -> str:
    """The backend that the next call takes, such as ``native:avx2``."""
    name, isa = _chosen.get() or _default_backend()
    return f"{name}:{isa}" if isa else name


def _usable_cpus() -> int:
    """The CPUs that this process may use, by affinity and cgroup quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cpus = min(cpus, max(1, math.ceil(int(quota) / int(period))))
    return cpus


_threads: list[int] = []


def get_num_threads() -> int:
    """Threads that a large call may use."""
    if not _threads:
        wanted = os.environ.get("REPARAM_NUM_THREADS")
        if wanted is None:
            _threads.append(_usable_cpus())
        elif wanted.isdecimal() and int(wanted) > 0:
            _threads.append(int(wanted))
        else:
            raise ValueError(f"REPARAM_NUM_THREADS must be a positive integer, got {wanted!r}")
    return _threads[0]


def set_num_threads(n: int | None) -> None:
    """Let large calls use ``n`` threads; None goes back to the default. Results do not depend on it."""
    _threads[:] = [] if n is None else [_check.as_int("n", n, 1, 1025)]


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


def run(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """Run one pass of an op; the entry of every call."""
    if len(args) < len(p.inputs) and keywords:
        names = [o.name for o in p.inputs[len(args) :]]
        if all(n in keywords for n in names):
            args = (*args, *(keywords.pop(n) for n in names))
    if len(args) != len(p.inputs):
        raise _check.argument_error(p, len(args))
    keywords = dict(keywords)
    sums = keywords.pop("sums", None)
    values, coded, extents, dtype = _attributes(p, keywords)
    inputs, real = _convert(p, args, dtype)
    shapes = [None if isinstance(x, Draw) else x.shape for x in inputs]
    extents = _check.resolve_extents(p, shapes, extents)
    batches = [
        x.index.shape if isinstance(x, Draw) else x.shape[: x.ndim - o.event_rank]
        for x, o in zip(inputs, p.inputs, strict=True)
    ]
    batch_shape = _check.broadcast_batches(p, batches, [o.name for o in p.inputs])
    for operand, batch in zip(p.inputs, batches, strict=True):
        if operand.in_place and batch != batch_shape:
            raise ValueError(f"{p.name}: {operand.name} is updated in place and must have the full shape "
                             f"{_check.shape_text(batch_shape)}, got {_check.shape_text(batch)}")
    if sums is not None:  # for callers inside the package: arrays to fill, summed over the batch dims they lack; None: unwanted
        _run_on_backend(p, real, (batch_shape, extents), (inputs, list(sums)), (values, coded))
        return None
    results, copies = _allocate(p, inputs, (batch_shape, batches, extents), real, out)
    _run_on_backend(p, real, (batch_shape, extents), (inputs, results), (values, coded))
    for target, result in copies:
        target[...] = result
    if out is not None:
        return out
    if p.op.result is not None and not p.vjp:
        return p.op.result(*results)
    if not results:
        return None
    finished = tuple(x if x.ndim else x[()] for x in results)
    return finished[0] if len(finished) == 1 else finished


def _allocate(
    p: Pass, inputs: list[Any], shape: tuple[tuple[int, ...], list[tuple[int, ...]], dict[str, int]],
    real: np.dtype[Any], out: Any,
) -> tuple[list[Array], list[tuple[Array, Array]]]:
    """Result arrays, and the copies to make where ``out`` overlaps an input."""
    batch_shape, batches, extents = shape
    given = (None,) * len(p.outputs) if out is None else out if isinstance(out, tuple) else (out,)
    if len(given) != len(p.outputs):
        raise TypeError(f"{p.name}: out must hold {len(p.outputs)} arrays, got {len(given)}")
    own = p.vjp and p.op.vjp_from == "inputs"
    real_inputs = [k for k, o in enumerate(p.op.inputs) if o.item == "real"]
    results, copies = [], []
    for k, (operand, target) in enumerate(zip(p.outputs, given, strict=True)):
        batch = batches[real_inputs[k]] if own else batch_shape
        dtype = real if operand.item == "real" else np.dtype(operand.item)
        full = batch + operand.event_shape(extents)
        if target is None:
            results.append(np.empty(full, dtype))
            continue
        array = _check.check_out(p, operand.name, target, full, dtype)
        if any(isinstance(x, np.ndarray) and np.may_share_memory(x, array) for x in inputs):
            results.append(np.empty(full, dtype))
            copies.append((array, results[-1]))
        else:
            results.append(array)
    return results, copies


def _run_on_backend(
    p: Pass, real: np.dtype[Any], shape: tuple[tuple[int, ...], dict[str, int]],
    operands: tuple[list[Any], list[Array]], attributes: tuple[dict[str, Any], tuple[float, ...]],
) -> None:
    name, isa = _chosen.get() or _default_backend()
    counts[f"{name}:{isa}" if isa else name] += 1
    inputs, results = operands
    if name == "native":
        coded = [(x.key, x.index) if isinstance(x, Draw) else x for x in inputs]
        native.run(p, isa, real, shape, (coded, list(results)), attributes[1], get_num_threads())
        return
    made = [_draw_noise(x, shape[1], real) if isinstance(x, Draw) else x for x in inputs]
    reference.run(p, real, shape, made, list(results), attributes[0])


def _draw_noise(draw: Draw, extents: dict[str, int], real: np.dtype[Any]) -> Array:
    """The noise of a Draw as an array ``index.shape + (s, d)``."""
    normal: Op = _noise_op[0]
    n = extents["s"] * extents["d"]
    key = {"key_low": draw.key & 0xFFFFFFFF, "key_high": draw.key >> 32}
    noise: Array = normal(draw.index, np.zeros((), np.uint64), n=n, dtype=real, **key)
    return noise.reshape(*draw.index.shape, extents["s"], extents["d"])


_noise_op: list[Op] = []
set_dispatcher(run)
