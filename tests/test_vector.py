# SPDX-License-Identifier: MIT
"""Unconstrained vectors and lower factors: there and back, and the heads of encoders that start from a vector."""

import mpmath
import numpy as np
import pytest

import reparam as rp
from support import UNIT, as_tuple, same_bits, sample_cotangents, sample_inputs, variants

D = 5
BATCH = 37
HEADS = [rp.normal_vector_transform_and_log_prob, rp.normal_diag_vector_transform_and_log_prob]
diagonals = pytest.mark.parametrize("diagonal", ["exp", "softplus"])
heads = pytest.mark.parametrize("head", HEADS, ids=lambda op: op.name)


@pytest.mark.parametrize("attributes", variants(rp.vector_from_tril), ids=str)
def test_a_factor_comes_back_from_its_vector(attributes, rng, backend, dtype):
    (scale_tril,) = sample_inputs(rp.vector_from_tril, rng, (BATCH,), D, dtype)
    vector = rp.vector_from_tril(scale_tril, **attributes)
    back = rp.tril_from_vector(vector, **attributes)
    np.testing.assert_allclose(back, scale_tril, rtol=16 * UNIT[dtype])
    again = rp.vector_from_tril(back, **attributes)
    np.testing.assert_allclose(again, vector, rtol=64 * UNIT[dtype], atol=64 * UNIT[dtype])


def test_packed_factors_have_the_same_vector(rng, backend, dtype):
    (scale_tril,) = sample_inputs(rp.vector_from_tril, rng, (BATCH,), D, dtype)
    rows, columns = np.tril_indices(D)
    packed = np.ascontiguousarray(scale_tril[:, rows, columns])
    ct = rng.standard_normal(packed.shape).astype(dtype)
    for attributes in variants(rp.vector_from_tril):
        same_bits(rp.vector_from_tril(packed, packed=True, **attributes), rp.vector_from_tril(scale_tril, **attributes))
        whole = rp.vector_from_tril.vjp(scale_tril, ct, **attributes)
        same_bits(rp.vector_from_tril.vjp(packed, ct, packed=True, **attributes), whole[:, rows, columns])


@diagonals
def test_entries_of_tiny_and_huge_scales_against_fifty_digits(diagonal, backend, dtype):
    """The inverse softplus neither overflows nor cancels: absolute error near its zero, log 2, relative elsewhere."""
    largest = 37 if dtype == "float32" else 300
    slope_error = 5 if backend == "reference" else 2  # NumPy's float32 expm1 is 3.4 units off where it takes AVX-512
    scale = np.concatenate([10.0 ** np.arange(-largest, largest, 3), 10.0 ** np.linspace(-3, 3, 200)]).astype(dtype)
    vector = rp.vector_from_tril(scale[:, None, None], diagonal=diagonal)[:, 0]
    slope = rp.vector_from_tril.vjp(scale[:, None, None], np.ones((len(scale), 1), dtype), diagonal=diagonal)[:, 0, 0]
    for s, v, ct in zip(scale.tolist(), vector.tolist(), slope.tolist(), strict=True):
        with mpmath.workdps(50):
            y = mpmath.mpf(s)
            exact = mpmath.log(y) if diagonal == "exp" or s > 1e6 else mpmath.log(mpmath.expm1(y))
            exact = y if diagonal == "softplus" and s > 1e6 else exact
            exact_slope = 1 / y if diagonal == "exp" else -1 / mpmath.expm1(-y)
            assert abs(v - exact) <= 2 * UNIT[dtype] * (1 + abs(exact))
            assert abs(ct - exact_slope) <= slope_error * UNIT[dtype] * exact_slope


@diagonals
@pytest.mark.parametrize("below", [0.0, 1e-3, 0.25, np.nan])
def test_a_diagonal_that_is_not_above_the_floor_is_nan_in_its_event_alone(diagonal, below, rng, backend, dtype):
    (scale_tril,) = sample_inputs(rp.vector_from_tril, rng, (BATCH,), D, dtype)
    ct = rng.standard_normal((BATCH, D * (D + 1) // 2)).astype(dtype)
    attributes = {"diagonal": diagonal, "floor": 0.25, "row_scaled": True}
    clean = rp.vector_from_tril(scale_tril, **attributes), rp.vector_from_tril.vjp(scale_tril, ct, **attributes)
    scale_tril[4, 2, 2] = scale_tril[BATCH - 1, 0, 0] = 0.25 - below
    vector, ct_scale_tril = (
        rp.vector_from_tril(scale_tril, **attributes), rp.vector_from_tril.vjp(scale_tril, ct, **attributes)
    )  # fmt: skip
    bad = np.isin(np.arange(BATCH), [4, BATCH - 1])
    same_bits((vector[~bad], ct_scale_tril[~bad]), (clean[0][~bad], clean[1][~bad]))
    assert np.isnan(vector[bad]).all()
    assert np.isnan(ct_scale_tril[bad][:, np.tril(np.ones((D, D), bool))]).all()


# ---- the heads


def by_hand(head, noise, loc, vector, attributes):
    """The ops that a head stands for: the factor, then the transform."""
    if head is HEADS[0]:
        scale_tril = rp.tril_from_vector(vector, **attributes)
        return rp.normal_tril_transform_and_log_prob(noise, loc, scale_tril)
    scale = rp.tril_from_vector(vector[..., None], **attributes)[..., 0, 0]
    return rp.normal_diag_transform_and_log_prob(noise, loc, scale)


@heads
def test_a_head_is_the_ops_that_it_stands_for(head, rng, backend, dtype):
    """The value to the bit in the kernels; the log density to rounding, because log exp(v) is v itself there."""
    inputs = sample_inputs(head, rng, (BATCH,), D, dtype)
    for attributes in variants(head):
        value, log_prob = head(*inputs, **attributes)
        expected, density = by_hand(head, *inputs, attributes)
        if backend.startswith("native"):
            same_bits(value, expected)
        np.testing.assert_allclose(value, expected, rtol=64 * UNIT[dtype], atol=64 * UNIT[dtype])
        np.testing.assert_allclose(log_prob, density, rtol=32 * UNIT[dtype], atol=32 * UNIT[dtype])


@heads
def test_one_pass_gives_what_two_give(head, rng, backend, dtype):
    inputs, cts = sample_inputs(head, rng, (BATCH,), D, dtype), sample_cotangents(head, rng, (BATCH,), D, dtype)
    names = [o.name for o in head.inputs]
    for attributes in variants(head):
        outputs, cotangents = head.value_and_vjp(*inputs, *cts, **attributes)
        same_bits(outputs, head(*inputs, **attributes))
        same_bits(cotangents, head.vjp(*inputs, *cts, **attributes))
        for k, name in enumerate(names):
            same_bits(head.vjp(*inputs, *cts, wrt=(name,), **attributes)[k], cotangents[k])


@pytest.mark.parametrize("op", [*HEADS, rp.normal_transform, rp.normal_transform_and_log_prob], ids=lambda op: op.name)
def test_noise_may_be_a_draw(op, rng, backend, dtype):
    """Event b has the noise of its stream, in the reverse pass too."""
    inputs, cts = sample_inputs(op, rng, (BATCH,), D, dtype), sample_cotangents(op, rng, (BATCH,), D, dtype)
    index = rng.permutation(BATCH).astype(np.uint64)
    d = D if op.inputs[0].symbols else 1
    made = rp.random.event_normal(1, index, d, key=7, dtype=dtype)[0]
    made = made if op.inputs[0].symbols else made[..., 0]
    draw = rp.random.Draw(7, index)
    same_bits(op(draw, *inputs[1:]), op(made, *inputs[1:]))
    drawn, given = op.vjp(draw, *inputs[1:], *cts), op.vjp(made, *inputs[1:], *cts)
    assert drawn[0] is None
    same_bits(drawn[1:], given[1:])


@heads
def test_a_scale_that_overflows_is_data(head, rng, backend, dtype):
    """The value is infinite; the log density is the exact one, since log exp(v) is v; neighbours keep their bits."""
    noise, loc, vector = sample_inputs(head, rng, (BATCH,), D, dtype)
    clean = head(noise, loc, vector)
    spoiled = vector.copy()
    spoiled[3, 0] = 1000
    value, log_prob = head(noise, loc, spoiled)
    others = np.arange(BATCH) != 3
    same_bits((value[others], log_prob[others]), (clean[0][others], clean[1][others]))
    assert np.isinf(value[3, 0])
    np.testing.assert_allclose(log_prob[3], clean[1][3] + vector[3, 0] - 1000, rtol=8 * UNIT[dtype])


@heads
@pytest.mark.parametrize("v", [-1000.0, np.nan])
def test_a_scale_that_vanishes_is_nan_in_its_event_alone(head, v, rng, backend, dtype):
    """An exponential that underflows to 0 is no scale."""
    inputs, cts = sample_inputs(head, rng, (BATCH,), D, dtype), sample_cotangents(head, rng, (BATCH,), D, dtype)
    clean = *head(*inputs), *head.vjp(*inputs, *cts)
    inputs[2][3, 0] = v
    spoiled = *head(*inputs), *head.vjp(*inputs, *cts)
    others = np.arange(BATCH) != 3
    for before, after in zip(clean, as_tuple(spoiled), strict=True):
        same_bits(after[others], before[others])
        assert np.isnan(after[3]).all()


@heads
def test_a_scale_near_the_smallest_number_keeps_its_slope(head, rng, backend, dtype):
    """d log_prob / d v is -1 for a plain exponential, also where 1/scale overflows."""
    noise, loc, vector = sample_inputs(head, rng, (BATCH,), D, dtype)
    vector[:, 0] = -100 if dtype == "float32" else -740
    ct_noise, _, ct_vector = head.vjp(noise, loc, vector, None, np.ones(BATCH, dtype))
    np.testing.assert_array_equal(ct_noise, -noise)
    np.testing.assert_array_equal(ct_vector[:, 0], -np.ones(BATCH, dtype))
