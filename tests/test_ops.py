# SPDX-License-Identifier: MIT
"""Every op of the table on every backend: forward against its oracle, vjp against the complex step."""

import numpy as np
import pytest

import reparam as rp
import support
from support import OPS, OPS_WITH_VJP

SIZES = [1, 2, 3, 4, 7, 8, 16, 33, 64]
WITHOUT_ORACLE = {"adam_step", "bits", "normal"}  # test_accuracy.py and test_random.py


def largest(d):
    """Events of the largest batch: enough that threads share them."""
    return 1000 if d <= 16 else 200


def sizes(op):
    if not op.forward_pass.symbols:
        return [1]
    return SIZES[:-1] if op.name.startswith("elbo") else SIZES


def cases(ops):
    """(op, variant, d): every attribute at d = 3 and 16, in turn at the other sizes.

    The ELBO ops are made of bodies that d = 64 has seen in their own ops.
    """
    for op in (op for op in ops if op.name not in WITHOUT_ORACLE):
        variants = support.variants(op)
        for k, d in enumerate(sizes(op)):
            everything = d in (3, 16) or not op.forward_pass.symbols
            for variant in range(len(variants)) if everything else [k % len(variants)]:
                yield pytest.param(
                    op, variant, d, id="-".join([op.name, *map(str, variants[variant].values()), str(d)])
                )


def test_ops_have_an_oracle_or_a_test_of_their_own():
    assert {op.name for op in OPS if op.oracle is None} <= WITHOUT_ORACLE


@pytest.mark.parametrize(("op", "variant", "d"), list(cases(OPS)))
def test_forward(op, variant, d, backend, dtype):
    attributes = support.variants(op)[variant]
    inputs, _, expected, condition = support.oracle_problem(op.name, d, largest(d), variant)
    for batch in support.batch_sizes(backend, dtype, largest(d)):
        given = [
            x[:batch].astype(dtype) if o.item == "real" else x[:batch] for o, x in zip(op.inputs, inputs, strict=True)
        ]
        results = support.forward(op, given, **attributes)
        assert_outputs(op, d, dtype, results, [exact[:batch] for exact in expected], condition[:batch])


def assert_outputs(op, d, dtype, results, expected, condition):
    for operand, actual, exact in zip(op.outputs, results, expected, strict=False):
        assert actual.shape == exact.shape, operand.name
        assert actual.dtype == (dtype if operand.item == "real" else operand.item), operand.name
        error = support.event_error(actual, exact)
        assert (error <= support.limit(op, d, dtype, condition)).all(), operand.name


@pytest.mark.parametrize(("op", "variant", "d"), list(cases(OPS_WITH_VJP)))
def test_vjp(op, variant, d, backend, dtype):
    attributes = support.variants(op)[variant]
    inputs, cotangents, _, _ = support.oracle_problem(op.name, d, largest(d), variant)
    for batch in support.batch_sizes(backend, dtype, largest(d)):
        given = [x[:batch].astype(dtype) for x in inputs]
        results = support.vjp(op, given, [ct[:batch].astype(dtype) for ct in cotangents], **attributes)
        for x, ct in zip(given, results, strict=True):
            assert ct.shape == x.shape
        assert_cotangents(op, d, variant, dtype, results)


def assert_cotangents(op, d, variant, dtype, results):
    """<J^T ct, v> = <ct, J v>, event by event, in three random directions and for small d in all."""
    batch = len(results[0])
    _, cotangents, _, condition = support.oracle_problem(op.name, d, largest(d), variant)
    condition = condition * support.largest_entry(cotangents)
    for operand, ct in zip(op.inputs, results, strict=True):
        assert ct.dtype == dtype
        assert_in_its_space(operand, ct)
    for directions, slope in slopes(op.name, d, variant):
        parts = [ct.astype(float) * v[:batch] for ct, v in zip(results, directions, strict=True)]
        along, size = sum(map(event_sum, parts)), sum(event_sum(np.abs(part)) for part in parts)
        error = np.abs(along - slope[:batch]) / np.maximum(1, size)
        assert (error <= support.limit(op, d, dtype, condition[:batch])).all()


def assert_in_its_space(operand, ct):
    if operand.kind == "tril":
        assert not np.triu(ct, 1).any(), f"ct_{operand.name} is not lower triangular"
    if operand.kind == "sym":
        np.testing.assert_array_equal(ct, ct.swapaxes(-1, -2))


_slopes = {}


def slopes(name, d, variant):
    """Pairs (v, <ct, J v>) of the largest batch, made once for all backends and types."""
    if (name, d, variant) not in _slopes:
        op = rp.OPS[name]
        inputs, cotangents, _, _ = support.oracle_problem(name, d, largest(d), variant)
        rng = np.random.default_rng(d)
        directions = [support.random_direction(op, rng, inputs) for _ in range(3)]
        if d <= 4:
            extents = support.extents_of(op, d)
            directions += [support.unit_direction(op, inputs, k, at)
                           for k, o in enumerate(op.inputs) for at in support.entries(o, extents)]  # fmt: skip
        stacked = [np.concatenate(moves) for moves in zip(*directions, strict=True)]
        repeated = [[np.concatenate([x] * len(directions)) for x in arrays] for arrays in (inputs, cotangents)]
        slope = slope_along(op, *repeated, stacked, d, variant)
        _slopes[name, d, variant] = list(zip(directions, slope.reshape(len(directions), -1), strict=True))
    return _slopes[name, d, variant]


def slope_along(op, inputs, cotangents, directions, d, variant):
    derivative = support.directional_derivative(op, inputs, directions, d, support.variants(op)[variant])
    real = [o for o in op.outputs if o.item == "real"]
    total = 0
    for operand, ct, dy in zip(real, cotangents, derivative, strict=True):
        read = np.tril(ct) if operand.kind == "tril" else ct
        total = total + event_sum(read * dy)
    return total


def event_sum(x):
    return x.sum(axis=tuple(range(1, x.ndim)))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_signature_and_doc_are_there(op):
    assert op.__doc__
    assert "->" in op.signature
    for operand in (*op.inputs, *op.outputs):
        assert operand.kind != "tril" or "(d,d)" in op.signature
