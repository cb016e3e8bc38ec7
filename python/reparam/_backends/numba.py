# SPDX-License-Identifier: MIT
"""The definitions compiled by Numba as generalized ufuncs: one per pass and element type, at its first call."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._op import SCALAR_FORMS, Pass
from .._signature import Operand
from . import _numba_lanes
from ._pieces import Place, by_summed_dims, in_order, part, pieces
from .reference import BLOCK

Array = NDArray[Any]
Shape = tuple[int, ...]

_LANES = {"cholesky_ex": (_numba_lanes.cholesky_ex, range(13, 33))}  # by pass: its loop over lanes, and where it wins
_WORK = 2**25  # steps of one call of a kernel: some 50 ms, after which Ctrl-C is heard
_PACKAGE = __name__.partition(".")[0]

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # no child starts with a kernel half compiled
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@cache
def available() -> bool:
    """Whether Numba is installed. It is imported by the first call of an op."""
    return find_spec("numba") is not None


# ---- compilation


def _reachable(function: Any) -> list[Any]:
    """A definition and the package's helpers that it calls."""
    found, waiting = [], [function]
    while waiting:
        f = waiting.pop()
        if f not in found:
            found.append(f)
            form = SCALAR_FORMS.get(f, f)
            called = [form.__globals__.get(name) for name in form.__code__.co_names]
            waiting += [g for g in called if isinstance(g, FunctionType) and g.__module__.partition(".")[0] == _PACKAGE]
    return found


_taught: set[Any] = set()


def _teach(functions: list[Any]) -> None:
    """Let compiled code call these plain functions, which stay what they are."""
    overload = import_module("numba.extending").overload
    for f in functions:
        if f not in _taught:
            form = _named(SCALAR_FORMS.get(f, f), f.__qualname__)
            overload(f, strict=False)(lambda *_, form=form: form)
            _taught.add(f)


def _named(function: Any, name: str) -> Any:
    """The function under a name of its own: Numba tells symbols and files of its cache apart by it."""
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    made.__qualname__ = name
    return made


def _digest(functions: list[Any]) -> str:
    """Of the files behind a kernel, of which Numba itself looks at one."""
    files = sorted({SCALAR_FORMS.get(f, f).__code__.co_filename for f in functions})
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]


def _core_dims(operand: Operand) -> tuple[str, ...]:
    """Event dims as a gufunc's signature names them."""
    if operand.kind in {"tril", "sym"}:
        return operand.symbols * 2
    return (f"{operand.symbols[0]}_vec",) if operand.kind == "vec" else operand.symbols


def _item(operand: Operand, real: np.dtype[Any]) -> np.dtype[Any]:
    return real if operand.item == "real" else np.dtype(operand.item)


_TOKEN = Operand("token", "scalar", (), "int8")


def _with_token(definition: Any, count: int) -> Any:
    """A function of one more argument, an output to which nothing is written, that calls the definition."""
    _teach([definition])
    names = ", ".join(f"x{k}" for k in range(count))
    scope: dict[str, Any] = {"__name__": __name__, "definition": definition}
    exec(compile(f"def kernel({names}, _): definition({names})", __file__, "exec"), scope)
    return _named(scope["kernel"], definition.__qualname__)


def _gufunc(p: Pass, real: np.dtype[Any], cache: bool) -> Callable[..., Any]:
    """The definition of a pass as a gufunc of its inputs, attributes and outputs."""
    numba: Any = import_module("numba")
    functions = _reachable(p.body)
    _teach(functions[1:])
    kernel = _named(p.body, f"{p.name}.{real}.{_digest(functions) if cache else ''}")
    inputs = [replace(o, kind="vector", symbols=("n",)) for o in p.inputs] if p.in_place else [*p.inputs]
    inputs += [Operand(name, "scalar", (), "float64") for name in p.op.attributes]
    outputs = [*p.outputs]
    written = {k for k, o in enumerate(inputs) if o.in_place}
    shown = {dim for o in inputs for dim in _core_dims(o)}
    if not outputs or any(dim not in shown for o in outputs for dim in _core_dims(o)):  # no gufunc as it stands
        written |= set(range(len(inputs), len(inputs) + len(outputs)))
        inputs, outputs = inputs + outputs, [_TOKEN]
        kernel = _with_token(kernel, len(inputs))
    kinds = []
    for k, operand in enumerate(inputs + outputs):
        rank = max(operand.event_rank, int(k in written or k >= len(inputs)))
        item = numba.from_dtype(_item(operand, real))
        kinds.append(numba.types.Array(item, rank, "A") if rank else item)
    layout = "->".join(",".join(f"({','.join(_core_dims(o))})" for o in side) for side in (inputs, outputs))
    compile_ = numba.guvectorize([numba.types.void(*kinds)], layout, cache=cache, writable_args=tuple(written))
    made: Callable[..., Any] = compile_(kernel)
    return made


def _lane_loop(p: Pass, real: np.dtype[Any], cache: bool) -> Callable[..., Any]:
    """The loop over lanes of a pass, called as its gufunc is; outputs are contiguous."""
    numba: Any = import_module("numba")
    operands = [*p.inputs, *p.outputs]
    kinds = [
        numba.types.Array(numba.from_dtype(_item(o, real)), 1 + o.event_rank, "C", readonly=k < len(p.inputs))
        for k, o in enumerate(operands)
    ]
    jit = numba.njit([numba.types.void(*kinds)], cache=cache, nogil=True, error_model="numpy")
    functions = _reachable(_LANES[p.name][0])
    _teach(functions[1:])
    loop = jit(_named(functions[0], f"{p.name}.{real}"))

    def kernel(*arrays: Array) -> None:
        batch_shape = arrays[-1].shape[: arrays[-1].ndim - operands[-1].event_rank]
        flat = []
        for operand, x in zip(operands, arrays, strict=True):
            events = x.shape[x.ndim - operand.event_rank :]
            whole = x if x.shape == batch_shape + events else np.broadcast_to(x, batch_shape + events)
            flat.append(np.require(whole, requirements=("C", "A")).reshape(math.prod(batch_shape), *events))
        loop(*flat)

    return kernel


_kernels: dict[Any, Callable[..., Any]] = {}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes from the cache of this installation.

    Numba writes a kernel and its wrapper into two files. Of two processes at the same kernel, one file of each may
    stay, and the wrapper then calls a symbol that is nowhere: the process that loads them crashes (seen with two test
    runs).
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # no such locks here
            fcntl = import_module("fcntl")
            fcntl.flock(stack.enter_context(open(__file__, "rb")), fcntl.LOCK_EX)
        yield


def _kernel(p: Pass, real: np.dtype[Any], make: Callable[..., Callable[..., Any]]) -> Callable[..., Any]:
    """A compiled pass, from the cache on disk where there is one."""
    key = p, real, make
    if key not in _kernels:
        with _lock, _alone():
            if key not in _kernels:
                try:
                    _kernels[key] = make(p, real, cache=True)
                except Exception:  # no place for the cache, a full disk, a damaged file
                    _kernels[key] = make(p, real, cache=False)
    return _kernels[key]


# ---- calls


def _most_events(operands: list[Operand], extents: dict[str, int]) -> int:
    """Events of one call: no op takes more steps than its elements times its largest extent."""
    elements = sum(math.prod(o.event_shape(extents)) for o in operands)
    return max(1, _WORK // (elements * max(extents.values(), default=1) + 1))


def _as_vectors(p: Pass, batch_shape: Shape, inputs: list[Array]) -> tuple[Shape, list[Array]]:
    """The numbers that an op updates, and those beside them, as vectors: what they share is worked out once."""
    flat = all(x.flags.c_contiguous for o, x in zip(p.inputs, inputs, strict=True) if o.in_place)
    shape = (math.prod(batch_shape),) if flat else batch_shape
    return shape, [
        x.reshape(shape) if o.in_place else np.broadcast_to(x, batch_shape).reshape(shape)
        for o, x in zip(p.inputs, inputs, strict=True)
    ]


def run(
    p: Pass,
    real: np.dtype[Any],
    shape: tuple[Shape, dict[str, int]],
    inputs: list[Array],
    outputs: list[Array | None],
    attributes: tuple[float, ...],
) -> None:
    """Run one pass as the reference backend does."""
    batch_shape, extents = shape
    if p.in_place:
        batch_shape, inputs = _as_vectors(p, batch_shape, inputs)
    loop = _LANES.get(p.name)
    lanes = loop is not None and extents["d"] in loop[1]
    kernel = _kernel(p, real, _lane_loop if lanes else _gufunc)
    most, rank = _most_events([*p.inputs, *p.outputs], extents), len(batch_shape)
    made = [(o.event_shape(extents), _item(o, real), o.kind == "tril" and not lanes) for o in p.outputs]
    with np.errstate(all="ignore"):
        for summed, targets in by_summed_dims(p, outputs, batch_shape).items():
            order = (*(k for k in range(rank) if k not in summed), *summed)
            batch = tuple(batch_shape[k] for k in order)
            given = [in_order(x, o, order) for o, x in zip(p.inputs, inputs, strict=True)]
            places = [
                Place(o, None if x is None else in_order(x, o, order), (batch, len(summed)), kind)
                for o, x, kind in zip(p.outputs, targets, made, strict=True)
            ]
            fewer = -(-most // (4 * BLOCK)) * BLOCK  # whole blocks of terms, which lie in memory
            for piece in pieces(batch, fewer if summed else most):
                parts = [part(x, o, piece, rank) for o, x in zip(p.inputs, given, strict=True)]
                written = [place.array(piece) for place in places]
                kernel(*parts, *attributes, *written)
                for place, array in zip(places, written, strict=True):
                    place.take(piece, array)
