# SPDX-License-Identifier: MIT
"""Sample problems for any op of the table, and its definition on complex numbers: for the report and the tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._op import Op
from .._operands import code_attributes
from .._signature import Operand

__all__ = [
    "ATTRIBUTES", "SCALES", "STEP", "UNIT", "as_tuple", "complex_outputs", "directional_derivative", "entries",
    "exact_cotangents", "extents_of", "factor", "forward", "from_entries", "jacobian", "keyword_extents", "residuals",
    "sample_cotangents", "sample_inputs", "units", "variants", "vjp",
]  # fmt: skip

Array = NDArray[Any]
Shape = tuple[int, ...]
Attributes = dict[str, Any]

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
ATTRIBUTES: Attributes = {  # values for keywords that have no default
    "step": 3, "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1,
    "key_low": 2**31 + 5, "key_high": 77,
}  # fmt: skip
SCALES = {
    "scale", "scale_diag", "scale_tril", "other_scale", "other_scale_diag", "other_scale_tril",
    "noise_scale", "prior_scale", "target_scale_tril",
}  # fmt: skip
STEP = 1e-30  # its square is no number beside 1: the complex step has no error of its own
_ELEMENTS = 2**20  # complex numbers of one call of a definition


# ---- problems


def variants(op: Op) -> list[Attributes]:
    """Every combination of an op's attributes that may take another path."""
    values: dict[str, tuple[Any, ...]] = {}
    for name, default in op.defaults.items():
        if name in op.choices:
            values[name] = op.choices[name]
        elif default is None:
            values[name] = (ATTRIBUTES[name],)
        elif isinstance(default, bool):
            values[name] = (False, True)
        else:
            values[name] = (default, 0.25)
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def extents_of(op: Op, d: int) -> dict[str, int]:
    """A size for each symbol of an op."""
    symbols = op.forward_pass.symbols
    sizes = {"d": d, "s": 5, "n": 7 if "d" in symbols else d}
    return {symbol: sizes[symbol] for symbol in symbols}


def keyword_extents(op: Op, extents: dict[str, int]) -> dict[str, int]:
    """Extents that no input shows, which a call takes by keyword."""
    shown = {symbol for o in op.inputs for symbol in o.symbols}
    return {symbol: n for symbol, n in extents.items() if symbol not in shown}


def factor(rng: np.random.Generator, batch_shape: Shape, d: int) -> Array:
    """Lower factors of moderate condition, zeros above."""
    below = np.tril(rng.standard_normal((*batch_shape, d, d)), -1) / np.sqrt(d)
    return np.asarray(below + rng.uniform(0.5, 1.5, (*batch_shape, 1, d)) * np.eye(d))


def _sample_operand(operand: Operand, rng: np.random.Generator, batch_shape: Shape, extents: dict[str, int]) -> Array:
    shape = (*batch_shape, *operand.event_shape(extents))
    if operand.item == "uint64":
        return rng.integers(0, 2**40, shape, dtype=np.uint64) * np.uint64(4)
    if operand.kind in {"tril", "sym"}:
        lower = factor(rng, batch_shape, shape[-1])
        return lower if operand.kind == "tril" else np.asarray(lower @ lower.swapaxes(-1, -2))
    return rng.uniform(0.5, 1.5, shape) if operand.name in SCALES else rng.standard_normal(shape)


def sample_inputs(
    op: Op, rng: np.random.Generator, batch_shape: Shape, d: int, dtype: str = "float64", *, single: bool = True
) -> list[Array]:
    """Inputs of full batch shape, whose numbers are exact in float32 unless ``single=False``."""
    extents = extents_of(op, d)
    made = op.samples(rng, batch_shape, extents) if op.samples else [
        _sample_operand(o, rng, batch_shape, extents) for o in op.inputs
    ]  # fmt: skip
    arrays = []
    for operand, array in zip(op.inputs, made, strict=True):
        full = np.broadcast_to(array, (*batch_shape, *operand.event_shape(extents)))
        rounded = full.astype(np.float32) if single else full
        arrays.append(full.copy() if operand.item != "real" else rounded.astype(dtype))
    return arrays


def sample_cotangents(
    op: Op, rng: np.random.Generator, batch_shape: Shape, d: int, dtype: str = "float64"
) -> list[Array]:
    """Cotangents of the outputs that have one; nonsense above the diagonal, which nobody may read."""
    extents = extents_of(op, d)
    shapes = [(*batch_shape, *o.event_shape(extents)) for o in op.real(op.outputs)]
    return [rng.standard_normal(shape).astype(np.float32).astype(dtype) for shape in shapes]


# ---- calls


def as_tuple(result: Any) -> tuple[Any, ...]:
    """What an op has returned, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def forward(op: Op, inputs: list[Array], **attributes: Any) -> tuple[Any, ...]:
    """The outputs, and in place of none the operands that were updated."""
    missing = {name: ATTRIBUTES[name] for name, value in op.defaults.items() if value is None}
    updated = [x.copy() if o.in_place else x for o, x in zip(op.inputs, inputs, strict=True)]
    result = op(*updated, **{**missing, **attributes})
    return as_tuple(result) if op.outputs else tuple(x for o, x in zip(op.inputs, updated, strict=True) if o.in_place)


def residuals(op: Op, inputs: list[Array], **attributes: Any) -> list[Array]:
    """What a vjp takes in front of the cotangents."""
    return [forward(op, inputs, **attributes)[0]] if op.vjp_from == "outputs" else inputs


def vjp(op: Op, inputs: list[Array], cotangents: list[Array], **attributes: Any) -> tuple[Any, ...]:
    """Cotangents of the inputs."""
    return as_tuple(op.vjp(*residuals(op, inputs, **attributes), *cotangents, **attributes))


# ---- the definitions on complex numbers


def complex_outputs(
    op: Op, inputs: list[Array], d: int, attributes: Attributes, dtype: Any = np.complex128
) -> list[Array]:
    """An op's own definition run on complex inputs of shape ``(B, *event)``; outputs the same way round."""
    extents = extents_of(op, d)
    packed = [np.moveaxis(x, 0, -1) if o.item != "real" else np.moveaxis(x, 0, -1).astype(dtype)
              for o, x in zip(op.inputs, inputs, strict=True)]  # fmt: skip
    batch = len(inputs[0])
    made = [np.zeros((*(o.event_shape(extents) or (1,)), batch), dtype) for o in op.outputs]
    coded = code_attributes(op.forward_pass, attributes)
    with np.errstate(all="ignore"):
        op.forward_pass.body(*[np.array(x) for x in packed], *coded, *made)
    shaped = [
        np.moveaxis(x, -1, 0).reshape(batch, *o.event_shape(extents)) for o, x in zip(op.outputs, made, strict=True)
    ]
    return [x for o, x in zip(op.outputs, shaped, strict=True) if o.item == "real"]


def directional_derivative(
    op: Op, inputs: list[Array], directions: list[Any], d: int, attributes: Attributes, dtype: Any = np.complex128
) -> list[Array]:
    """J v by the complex step, which has no cancellation: exact to rounding for any direction."""
    moved = [
        x + STEP * 1j * v if o.item == "real" else x for o, x, v in zip(op.inputs, inputs, directions, strict=True)
    ]
    return [x.imag / STEP for x in complex_outputs(op, moved, d, attributes, dtype)]


def entries(operand: Operand, extents: dict[str, int]) -> Iterator[Shape]:
    """Independent entries of one operand: the lower triangle where there is one."""
    for at in np.ndindex(*operand.event_shape(extents)):
        if operand.kind not in {"tril", "sym"} or at[1] <= at[0]:
            yield at


def jacobian(
    op: Op, inputs: list[Array], k: int, d: int, attributes: Attributes, dtype: Any = np.complex128
) -> list[Array]:
    """Derivatives of the outputs in each entry of input k, ``(B, entries, *event)``: of many entries in one call."""
    real = np.finfo(dtype).dtype
    inputs = [x.astype(real) if o.item == "real" else x for o, x in zip(op.inputs, inputs, strict=True)]
    batch, moves = len(inputs[k]), units(op.inputs[k], extents_of(op, d))
    at_once = max(1, _ELEMENTS // sum(x.size for x in inputs))
    parts = []
    for first in range(0, len(moves), at_once):
        some = moves[first : first + at_once]
        repeated = [np.repeat(x, len(some), axis=0) for x in inputs]
        directions: list[Any] = [0.0] * len(inputs)
        directions[k] = np.tile(some, (batch, *[1] * (some.ndim - 1)))
        slopes = directional_derivative(op, repeated, directions, d, attributes, dtype)
        parts.append([dy.reshape(batch, len(some), *dy.shape[1:]) for dy in slopes])
    return [np.concatenate(part, axis=1) for part in zip(*parts, strict=True)]


def units(operand: Operand, extents: dict[str, int]) -> Array:
    """The direction that moves one entry alone, for each entry."""
    shape = operand.event_shape(extents)
    places = list(entries(operand, extents))
    made = np.zeros((len(places), *shape))
    for k, at in enumerate(places):
        made[(k, *at)] = 1
    return made


def from_entries(operand: Operand, extents: dict[str, int], numbers: Array) -> Array:
    """An array of one number per entry, ``(B, entries)``, in the shape of the operand."""
    return np.tensordot(numbers, units(operand, extents).astype(numbers.dtype), axes=1)


def exact_cotangents(
    op: Op, inputs: list[Array], cotangents: list[Array], d: int, attributes: Attributes, dtype: Any = np.complex128
) -> list[Array]:
    """Cotangents of the inputs by the complex step in each of their entries."""
    read = [np.tril(ct) if o.kind == "tril" else ct for o, ct in zip(op.real(op.outputs), cotangents, strict=True)]
    found = []
    for k, operand in enumerate(op.inputs):
        slopes = jacobian(op, inputs, k, d, attributes, dtype)
        along = [(ct[:, None] * dy).reshape(*dy.shape[:2], -1).sum(axis=2) for ct, dy in zip(read, slopes, strict=True)]
        exact = from_entries(operand, extents_of(op, d), np.sum(along, axis=0))
        found.append((exact + exact.swapaxes(-1, -2)) / 2 if operand.kind == "sym" else exact)
    return found
