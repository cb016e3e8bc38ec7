# SPDX-License-Identifier: MIT
"""The compiled kernels: arrays go to C++ as they are, broadcasting is done there by strides."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .._op import Pass

try:
    from .. import _core
except ImportError:  # a source tree, or a build without a compiler
    _core = None  # type: ignore[assignment]

Array = NDArray[Any]


def available() -> tuple[str, ...]:
    """Instruction sets that are compiled in and usable on this CPU."""
    return () if _core is None else _core.isas()


def compiler() -> str | None:
    """What the kernels were compiled with; None where there are none."""
    return None if _core is None else _core.compiler


def default_isa() -> str:
    """The best one that is chosen without being named."""
    return _core.default_isa()


def direct(p: Pass, isa: str) -> Any:
    """What runs the common calls of a pass in one step, or returns None."""
    return _core.Direct(p.op.name, p.kind, isa)


def _fit(array: Array) -> Array:
    """An array that C++ can walk: aligned, strides of whole elements."""
    flags = array.flags
    if flags.aligned and (flags.c_contiguous or not any(s % array.itemsize for s in array.strides)):
        return array
    return array.copy()


def run(
    p: Pass,
    isa: str,
    plan: Any,
    attributes: tuple[float, ...],
    inputs: list[Any],
    results: list[Array | None],
    num_threads: int,
) -> None:
    """Run one pass on its inputs and outputs; the plan holds the shapes."""
    call = (p.op.name, p.reverse, isa, plan.dtype, plan.batch_shape, plan.sizes)
    rest = (attributes, num_threads, p.unpacked is not p)
    operands = [*inputs, *p.left_out, *results]
    try:
        _core.run(*call, operands, *rest)
        return
    except _core.LayoutError:  # an array that C++ cannot walk: a copy goes in its place
        pass
    fitted = [x if x is None or isinstance(x, tuple) else _fit(x) for x in operands]
    _core.run(*call, fitted, *rest)
    written = [*(o.in_place for o in p.inputs), *(x is not None for x in operands[len(inputs) :])]
    for target, result, writes in zip(operands, fitted, written, strict=True):
        if writes and target is not result:
            target[...] = result
