# SPDX-License-Identifier: MIT
"""What the tests share: axes, sample problems for any op of the table, directions, tolerances."""

import contextlib
from functools import cache

import numpy as np
import pytest

import reparam as rp
from reparam import _core, _dispatch
from reparam.selftest.measures import relative_error  # noqa: F401
from reparam.selftest.problems import (  # noqa: F401
    ATTRIBUTES,
    SCALES,
    UNIT,
    as_tuple,
    complex_outputs,
    directional_derivative,
    entries,
    extents_of,
    factor,
    forward,
    keyword_extents,
    residuals,
    sample_cotangents,
    sample_inputs,
    variants,
    vjp,
)

DTYPES = ("float32", "float64")
LANE_BYTES = {"scalar": 0, "avx2": 32, "wide": 64, "avx512": 64, "neon": 16}

OPS = list(rp.OPS.values())
OPS_WITH_VJP = [op for op in OPS if op.vjp is not None]
OPS_WITH_TRIANGLE = [op for op in OPS if any(o.kind in {"tril", "sym"} for o in op.inputs)]
OPS_WITH_SCALE = [(op, o.name) for op in OPS for o in op.inputs if o.name in SCALES]


# ---- axes

LACKING = {
    "avx512": "needs a CPU with AVX-512",
    "wide": "needs native:wide, compiled with SKBUILD_CMAKE_DEFINE=REPARAM_WIDE=ON",
}


def backend_axis():
    """Every backend; native by each ISA, and what a test machine may lack as a skip that says so."""
    names = ["reference", *(f"native:{isa}" for isa in _core.isas())]
    installed = "numba" in rp.backends()
    names.append("numba" if installed else pytest.param("numba", marks=pytest.mark.skip(reason="needs numba")))
    if "avx2" in _core.isas():
        for isa, reason in LACKING.items():
            if isa not in _core.isas():
                names.append(pytest.param(f"native:{isa}", marks=pytest.mark.skip(reason=reason)))
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


def some_variants(op):
    """At most four of them: the first, the last, and two between."""
    found = variants(op)
    return found if len(found) <= 4 else [found[k * (len(found) - 1) // 3] for k in range(4)]


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


# ---- directions


def unit_direction(op, inputs, k, at):
    """The direction that moves one entry of input k alone (and its mirror image in a symmetric matrix)."""
    directions = [np.zeros_like(x) for x in inputs]
    directions[k][(..., *at)] = 1
    if op.inputs[k].kind == "sym":
        directions[k][(..., *at[::-1])] = 1
    return directions


def random_direction(op, rng, inputs):
    """A direction in the space that each input lives in: lower triangular, symmetric, or any."""
    directions = []
    for operand, x in zip(op.inputs, inputs, strict=True):
        v = rng.standard_normal(x.shape)
        if operand.kind in {"tril", "sym"}:
            v = np.tril(v)
        directions.append(v + v.swapaxes(-1, -2) if operand.kind == "sym" else v)
    return directions
