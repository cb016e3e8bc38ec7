# SPDX-License-Identifier: MIT
"""What the tests share: axes, sample problems for any op of the table, definitions on complex numbers, tolerances."""

import contextlib
import itertools
from functools import cache

import numpy as np
import pytest

import reparam as rp
from reparam import _core, _dispatch
from reparam._operands import code_attributes

DTYPES = ("float32", "float64")
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
LANE_BYTES = {"scalar": 0, "avx2": 32, "wide": 64, "avx512": 64, "neon": 16}
ATTRIBUTES = {  # values for keywords that have no default
    "step": 3, "lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1,
    "key_low": 2**31 + 5, "key_high": 77,
}  # fmt: skip
SCALES = {
    "scale", "scale_diag", "scale_tril", "other_scale", "other_scale_diag", "other_scale_tril",
    "noise_scale", "prior_scale", "target_scale_tril",
}  # fmt: skip

OPS = list(rp.OPS.values())
OPS_WITH_VJP = [op for op in OPS if op.vjp is not None]
OPS_WITH_TRIANGLE = [op for op in OPS if any(o.kind in {"tril", "sym"} for o in op.inputs)]
OPS_WITH_SCALE = [(op, o.name) for op in OPS for o in op.inputs if o.name in SCALES]


# ---- axes


def backend_axis():
    """Every backend; native by each ISA, and what a test machine may lack as a skip that says so."""
    names = ["reference", *(f"native:{isa}" for isa in _core.isas())]
    installed = "numba" in rp.backends()
    names.append("numba" if installed else pytest.param("numba", marks=pytest.mark.skip(reason="needs numba")))
    if "native:avx512" not in names and "avx2" in LANE_BYTES and "wide" in _core.isas():
        names.append(pytest.param("native:avx512", marks=pytest.mark.skip(reason="needs a CPU with AVX-512")))
    return names


def short_backend_axis():
    """For what stands on the ops: their definitions, and the kernels that users get."""
    return ["reference", f"native:{_core.default_isa()}"]


def lanes(backend, dtype):
    """Events that a kernel of this backend takes at once."""
    bytes_ = LANE_BYTES.get(backend.removeprefix("native:"), 32)
    return max(1, bytes_ // np.dtype(dtype).itemsize)


def batch_sizes(backend, dtype, largest=1000):
    w = lanes(backend, dtype)
    return sorted({0, 1, w - 1, w, w + 1, largest})


@contextlib.contextmanager
def only_ran_on(backend):
    """The counter of the dispatch must show calls on this backend and on no other."""
    before = _dispatch.counts.copy()
    yield
    ran = {name for name, n in _dispatch.counts.items() if n > before[name]}
    assert ran <= {backend}, f"ran on {ran}"


# ---- sample problems


def variants(op):
    """Every combination of an op's attributes that may take another path."""
    values = {}
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


def some_variants(op):
    """At most four of them: the first, the last, and two between."""
    found = variants(op)
    return found if len(found) <= 4 else [found[k * (len(found) - 1) // 3] for k in range(4)]


def extents_of(op, d):
    symbols = op.forward_pass.symbols
    sizes = {"d": d, "s": 5, "n": 7 if "d" in symbols else d}
    return {symbol: sizes[symbol] for symbol in symbols}


def keyword_extents(op, extents):
    """Extents that no input shows, which a call takes by keyword."""
    shown = {symbol for o in op.inputs for symbol in o.symbols}
    return {symbol: n for symbol, n in extents.items() if symbol not in shown}


def factor(rng, batch_shape, d):
    """Lower factors of moderate condition, zeros above."""
    below = np.tril(rng.standard_normal((*batch_shape, d, d)), -1) / np.sqrt(d)
    return below + rng.uniform(0.5, 1.5, (*batch_shape, 1, d)) * np.eye(d)


def sample_operand(operand, rng, batch_shape, extents):
    shape = (*batch_shape, *operand.event_shape(extents))
    if operand.item == "uint64":
        return rng.integers(0, 2**40, shape, dtype=np.uint64) * np.uint64(4)
    match operand.kind:
        case "tril":
            return factor(rng, batch_shape, shape[-1])
        case "sym":
            lower = factor(rng, batch_shape, shape[-1])
            return lower @ lower.swapaxes(-1, -2)
        case _ if operand.name in SCALES:
            return rng.uniform(0.5, 1.5, shape)
        case _:
            return rng.standard_normal(shape)


def sample_inputs(op, rng, batch_shape, d, dtype="float64"):
    """Inputs of full batch shape whose numbers are exact in float32, so that one oracle serves both types."""
    extents = extents_of(op, d)
    made = op.samples(rng, batch_shape, extents) if op.samples else [
        sample_operand(o, rng, batch_shape, extents) for o in op.inputs
    ]  # fmt: skip
    arrays = []
    for operand, array in zip(op.inputs, made, strict=True):
        full = np.broadcast_to(array, (*batch_shape, *operand.event_shape(extents)))
        arrays.append(full.copy() if operand.item != "real" else full.astype(np.float32).astype(dtype))
    return arrays


def sample_cotangents(op, rng, batch_shape, d, dtype="float64"):
    """Cotangents of the outputs that have one; nonsense above the diagonal, which nobody may read."""
    extents = extents_of(op, d)
    shapes = [(*batch_shape, *o.event_shape(extents)) for o in op.outputs if o.item == "real"]
    return [rng.standard_normal(shape).astype(np.float32).astype(dtype) for shape in shapes]


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def forward(op, inputs, **attributes):
    """The outputs, and in place of none the operands that were updated."""
    missing = {name: ATTRIBUTES[name] for name, value in op.defaults.items() if value is None}
    updated = [x.copy() if o.in_place else x for o, x in zip(op.inputs, inputs, strict=True)]
    result = op(*updated, **{**missing, **attributes})
    return as_tuple(result) if op.outputs else tuple(x for o, x in zip(op.inputs, updated, strict=True) if o.in_place)


def residuals(op, inputs, **attributes):
    """What a vjp takes in front of the cotangents."""
    return [forward(op, inputs, **attributes)[0]] if op.vjp_from == "outputs" else inputs


def vjp(op, inputs, cotangents, **attributes):
    return as_tuple(op.vjp(*residuals(op, inputs, **attributes), *cotangents, **attributes))


@cache
def oracle_problem(name, d, batch, variant=0):
    """Inputs, cotangents and the oracle's outputs in float64 for the largest batch, made once."""
    op = rp.OPS[name]
    rng = np.random.default_rng([d, variant])
    inputs, cotangents = sample_inputs(op, rng, (batch,), d), sample_cotangents(op, rng, (batch,), d)
    attributes = variants(op)[variant]
    expected = as_tuple(op.oracle(*inputs, **attributes))
    number = condition(op, inputs)
    if attributes.get("estimator") in {"iwae", "dreg"}:  # exp(log w) has the relative error that log w has absolutely
        number = number * largest_entry(expected[:1])
    return inputs, cotangents, expected, number


def largest_entry(arrays):
    """By event: the largest absolute number, at least 1."""
    number = np.ones(len(arrays[0]))
    for array in arrays:
        number = np.maximum(number, np.abs(array).reshape(len(array), -1).max(axis=1, initial=0))
    return number


def condition(op, inputs):
    """By event: condition of its matrices times the size of its numbers."""
    number = largest_entry([x for o, x in zip(op.inputs, inputs, strict=True) if o.item == "real"])
    for operand, array in zip(op.inputs, inputs, strict=True):
        if operand.kind in {"tril", "sym"} and array.shape[-1]:
            matrix = np.tril(array) if operand.kind == "tril" else array
            number = (
                number * np.linalg.norm(matrix, axis=(-2, -1)) * np.linalg.norm(np.linalg.inv(matrix), axis=(-2, -1))
            )
    return number


# ---- tolerances


def limit(op, d, dtype, condition_of_event):
    """The one table: c(d) u condition, c(d) = 8 (1 + sum of extents)."""
    return 8 * (1 + sum(extents_of(op, d).values())) * UNIT[dtype] * condition_of_event


def event_error(actual, expected):
    """By event: largest error, relative to the largest entry (or to 1, where all are small)."""
    axes = tuple(range(1, expected.ndim))
    error, size = np.abs(actual.astype(np.float64) - expected), np.abs(expected)
    if expected.size and axes:
        error, size = error.max(axis=axes), size.max(axis=axes)
    return error / np.maximum(1, size) if expected.size else np.zeros(len(expected))


def relative_error(actual, expected, events=1):
    """By event: largest error relative to the largest entry."""
    axes = tuple(range(events, np.ndim(expected)))
    return np.abs(actual - expected).max(axis=axes) / np.abs(expected).max(axis=axes)


def same_bits(actual, expected):
    """Equal to the bit; a NaN equals any NaN."""
    if isinstance(expected, (tuple, list)):
        for a, e in zip(actual, expected, strict=True):
            same_bits(a, e)
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if expected.dtype.kind == "f":
        integer = f"u{expected.itemsize}"
        equal = np.ascontiguousarray(actual).view(integer) == np.ascontiguousarray(expected).view(integer)
        equal = equal.reshape(expected.shape) | (np.isnan(actual) & np.isnan(expected))
    else:
        equal = actual == expected
    assert equal.all(), f"{(~equal).sum()} of {equal.size} entries differ, the first at {np.argwhere(~equal)[0]}"


# ---- the definitions on complex numbers


def complex_outputs(op, inputs, d, attributes, dtype=np.complex128):
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


def directional_derivative(op, inputs, directions, d, attributes, dtype=np.complex128):
    """J v by the complex step, which has no cancellation: exact to rounding for any direction."""
    step = 1e-30
    moved = [
        x + step * 1j * v if o.item == "real" else x for o, x, v in zip(op.inputs, inputs, directions, strict=True)
    ]
    return [x.imag / step for x in complex_outputs(op, moved, d, attributes, dtype)]


def entries(operand, extents):
    """Independent entries of one operand: the lower triangle where there is one."""
    for at in np.ndindex(*operand.event_shape(extents)):
        if operand.kind not in {"tril", "sym"} or at[1] <= at[0]:
            yield at


def unit_direction(op, inputs, k, at):
    """The direction that moves one entry of input k alone (and its mirror image in a symmetric matrix)."""
    directions = [np.zeros_like(x) for x in inputs]
    directions[k][(..., *at)] = 1
    if op.inputs[k].kind == "sym":
        directions[k][(..., *at[::-1])] = 1
    return directions


def complex_step_jacobian(op, inputs, dtype=np.complex128):
    """Of an op of one input: entry -> derivative of the first output."""
    d = inputs[0].shape[-1]
    return {
        at: directional_derivative(op, inputs, unit_direction(op, inputs, 0, at), d, {}, dtype)[0]
        for at in entries(op.inputs[0], extents_of(op, d))
    }


def random_direction(op, rng, inputs):
    """A direction in the space that each input lives in: lower triangular, symmetric, or any."""
    directions = []
    for operand, x in zip(op.inputs, inputs, strict=True):
        v = rng.standard_normal(x.shape)
        if operand.kind in {"tril", "sym"}:
            v = np.tril(v)
        directions.append(v + v.swapaxes(-1, -2) if operand.kind == "sym" else v)
    return directions
