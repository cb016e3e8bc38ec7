# SPDX-License-Identifier: MIT
"""What the tests share: axes, sample problems for any op of the table, directions, tolerances."""

import contextlib
from functools import cache, partial

import numpy as np
import pytest

import reparam as rp
from reparam import _core, _dispatch
from reparam._backends import native
from reparam.selftest.measures import relative_error  # noqa: F401
from reparam.selftest.problems import (  # noqa: F401
    ATTRIBUTES,
    SCALES,
    STEP,
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
from reparam.selftest.tolerances import (  # noqa: F401
    condition,
    condition_of_problem,
    event_error,
    largest_entry,
    limit,
)

DTYPES = ("float32", "float64")
LANE_BYTES = {"reference": 0, "scalar": 0, "avx2": 32, "wide": 64, "avx512": 64, "neon": 16}

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
    around = {w - 1, w, w + 1} if w > 1 else set()
    return sorted({0, 1, *around, largest})


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
    return inputs, cotangents, expected, condition_of_problem(op, inputs, attributes, expected)


# ---- the same numbers, laid out otherwise

# By name: the order of the axes in memory, the step along the first axis and along the others, where the memory begins.
# A step along the first axis of -1 in Fortran order is a batch stride of one element backwards.
VIEWS = {
    "C": ("C", 1, 1, 0),
    "Fortran": ("F", 1, 1, 0),
    "offset": ("C", 1, 1, 3),
    "strided": ("C", 2, 2, 2),
    "strided, Fortran": ("F", 3, 2, 1),
    "reversed": ("C", -1, -1, 0),
    "reversed, Fortran": ("F", -1, -1, 0),
    "first axis reversed": ("C", -1, 1, 0),
    "first axis reversed, Fortran": ("F", -1, 1, 0),
    "last axes reversed": ("C", 1, -1, 0),
    "strided backwards": ("C", -2, -3, 1),
}


def seen_through(name, x):
    """The numbers of x as a view of other memory, by the table."""
    order, first, others, offset = VIEWS[name]
    steps = [first, *[others] * (x.ndim - 1)][: x.ndim]
    shape = [n * abs(step) for n, step in zip(x.shape, steps, strict=True)]
    memory = np.full(offset + int(np.prod(shape)), 99, x.dtype)
    view = memory[offset:].reshape(shape, order=order)[tuple(slice(None, None, step) for step in steps)]
    view[...] = x
    return view


def unaligned(x):
    """From an odd address."""
    view = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


def field_of_records(x):
    """By strides that are no multiple of the element."""
    records = np.zeros(x.shape, [("pad", "u1"), ("x", x.dtype)])
    records["x"] = x
    return records["x"]


def read_only(x):
    """A copy that cannot be written to."""
    copy = x.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    **{name: partial(seen_through, name) for name in VIEWS},
    "first axis last": lambda x: np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0),
    "unaligned": unaligned,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "field of records": field_of_records,
    "read-only": read_only,
}


# ---- equal bits


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


# ---- kernels that are not the real ones


def run_by(monkeypatch, run):
    """All calls of kernels go this way."""
    monkeypatch.setattr(native, "run", run)
    monkeypatch.setattr(_dispatch, "_run_directly", lambda *_: None)
