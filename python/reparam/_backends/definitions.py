# SPDX-License-Identifier: MIT
"""The backends that run the definitions themselves: noise is an array, lower factors are dense."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._op import OPS, Pass
from .._operands import Draw
from .._signature import Operand
from . import numba, reference

Array = NDArray[Any]
Results = list[Array | None]
_BACKENDS = {"numba": numba, "reference": reference}


def run(name: str, p: Pass, plan: Any, attributes: tuple[float, ...], inputs: list[Any], results: Results) -> None:
    """Run one pass on its inputs and outputs; the plan holds the shapes.

    None is an output that is not wanted: a definition works it out all the same, and it is dropped.
    """
    arrays = [_noise(x, o, plan) if isinstance(x, Draw) else x for x, o in zip(inputs, p.inputs, strict=True)]
    dense = results
    if p.unpacked is not p:
        arrays = [_unpack(x) if o.kind == "tril" else x for o, x in zip(p.unpacked.inputs, arrays, strict=True)]
        dense = [x if x is None or o.kind != "tril" else _unpack(x)
                 for o, x in zip(p.unpacked.outputs, results, strict=True)]  # fmt: skip
    for part, taken, made in _parts(p.unpacked, arrays, dense):
        if not made or any(x is not None for x in made):  # no outputs: an update in place
            _BACKENDS[name].run(part, plan.real, (plan.batch_shape, plan.extents), taken, made, attributes)
    for packed, full in zip(results, dense, strict=True):
        if packed is not None and full is not None and packed is not full:
            packed[...] = full[(..., *np.tril_indices(full.shape[-1]))]


def _parts(p: Pass, inputs: list[Array], results: Results) -> list[tuple[Pass, list[Array], Results]]:
    """A value_and_vjp is the definition of the forward, then that of the vjp."""
    op = p.op
    if p.kind != "value_and_vjp" or op.vjp_pass is None:
        return [(p, inputs, results)]
    outputs, cotangents = results[: p.values], results[p.values :]
    return [(op.forward_pass, inputs[: p.primals], outputs), (op.vjp_pass, inputs, cotangents)]


def _unpack(packed: Array) -> Array:
    """Lower factors of their triangles, row after row."""
    d = (math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2
    dense = np.zeros((*packed.shape[:-1], d, d), packed.dtype)
    dense[(..., *np.tril_indices(d))] = packed
    return dense


def _noise(draw: Draw, operand: Operand, plan: Any) -> Array:
    """The noise of a Draw as an array of shape ``index.shape`` and the event's."""
    event = operand.event_shape(plan.extents)
    key = {"key_low": draw.key & 0xFFFFFFFF, "key_high": draw.key >> 32}
    noise: Array = OPS["normal"](draw.index, np.zeros((), np.uint64), n=math.prod(event), dtype=plan.real, **key)
    return noise.reshape(draw.index.shape + event)
