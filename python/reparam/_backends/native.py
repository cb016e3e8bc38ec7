# SPDX-License-Identifier: MIT
"""The compiled kernels: arrays go to C++ as they are, broadcasting is done there by strides."""

from __future__ import annotations

from typing import Any

import numpy as np
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


def default_isa() -> str:
    """The best one that is chosen without being named."""
    return _core.default_isa()


def _fit(array: Array) -> Array:
    """An array that C++ can walk: aligned, strides of whole elements."""
    flags = array.flags
    if flags.aligned and (flags.c_contiguous or not any(s % array.itemsize for s in array.strides)):
        return array
    return np.ascontiguousarray(array)


def run(
    p: Pass,
    isa: str,
    dtype: np.dtype[Any],
    shape: tuple[tuple[int, ...], dict[str, int]],
    operands: tuple[list[Any], list[Array | None]],
    attributes: tuple[float, ...],
    num_threads: int,
) -> None:
    """Run one pass; ``shape`` is (batch shape, extents), ``operands`` is (inputs, outputs)."""
    batch_shape, extents = shape
    inputs = [x if isinstance(x, tuple) else _fit(x) for x in operands[0]]
    outputs = [x if x is None else _fit(x) for x in operands[1]]
    sizes = tuple(extents[s] for s in p.symbols)
    _core.run(p.op.name, p.vjp, isa, dtype.name, batch_shape, sizes, [*inputs, *outputs], attributes, num_threads)
    changed = zip((*operands[1], *(x for x, o in zip(operands[0], p.inputs, strict=True) if o.in_place)),
                  (*outputs, *(x for x, o in zip(inputs, p.inputs, strict=True) if o.in_place)), strict=True)
    for target, result in changed:
        if target is not result:
            target[...] = result
