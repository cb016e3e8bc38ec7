# SPDX-License-Identifier: MIT
"""KL divergences of two Gaussians: exact near and far, never negative, zero for equal arguments."""

import mpmath
import numpy as np
import pytest

import reparam as rp
from support import UNIT, condition, directional_derivative, random_direction, sample_inputs

pytestmark = pytest.mark.usefixtures("backend")
FAMILIES = {"normal_kl": rp.normal_kl, "normal_diag_kl": rp.normal_diag_kl, "normal_tril_kl": rp.normal_tril_kl}
LARGEST = {"float32": 1e15, "float64": 1e150}  # a scale whose square is a number
op_axis = pytest.mark.parametrize("op", FAMILIES.values(), ids=FAMILIES)


def graded(rng, batch, d, size):
    """Lower factors whose rows reach from 1/size to size."""
    rows = size ** np.linspace(-1, 1, d) if d > 1 else np.ones(1)
    below = np.tril(rng.standard_normal((batch, d, d)), -1) / d
    return (below + rng.uniform(0.5, 1.5, (batch, 1, d)) * np.eye(d)) * rows[:, None]


@pytest.mark.parametrize("d", [1, 3, 8, 17])
@op_axis
def test_equal_arguments_have_no_divergence_and_no_slope(op, d, rng, dtype):
    """Exactly, whatever their size and condition."""
    for size in (1.0, 1e4, LARGEST[dtype]):
        scale_tril = graded(rng, 20, d, size).astype(dtype)
        scale = scale_tril if op is rp.normal_tril_kl else np.diagonal(scale_tril, axis1=-2, axis2=-1)
        loc = (size * rng.standard_normal((20, d))).astype(dtype)
        kl, cotangents = op.value_and_vjp(loc, scale, loc, scale, np.ones(loc.shape[: kl_rank(op)], dtype))
        assert not kl.any()
        assert not any(ct.any() for ct in cotangents)


def kl_rank(op):
    return 2 if op is rp.normal_kl else 1


@op_axis
def test_it_is_never_negative_however_close_the_arguments(op, rng, dtype):
    """The other scale is a few roundings away in some entries, or less than a hundredth."""
    inputs = sample_inputs(op, rng, (4000,), 4, dtype)
    loc, scale = inputs[:2]
    unit = UNIT[dtype]
    size = 10.0 ** rng.uniform(np.log10(unit), -2, scale.shape)
    nearby = (scale * (1 + size * rng.integers(-1, 2, scale.shape))).astype(dtype)
    kl = op(loc, scale, loc, nearby)
    assert (kl >= 0).all()
    differs = (nearby != scale).reshape(4000, -1).any(axis=1)
    np.testing.assert_array_equal(kl > 0, differs)


def exact_kl(loc, lower, other_loc, other):
    """(|A|_F^2 + |y|^2 - d)/2 + log det M - log det L by forward substitution, in the digits of the context."""
    d = len(loc)
    a = mpmath.matrix(d, d + 1)  # M^-1 [L, other_loc - loc]
    for i in range(d):
        for j in [*range(i + 1), d]:
            right = mpmath.mpf(lower[i][j]) if j < d else mpmath.mpf(other_loc[i]) - mpmath.mpf(loc[i])
            first = j if j < d else 0
            a[i, j] = (right - mpmath.fsum(mpmath.mpf(other[i][k]) * a[k, j] for k in range(first, i))) / other[i][i]
    squares = mpmath.fsum(a[i, j] ** 2 for i in range(d) for j in range(d + 1))
    return (squares - d) / 2 - mpmath.fsum(mpmath.log(a[i, i]) for i in range(d))


RATIOS = [*(1 + sign * 10.0**-k for k in range(1, 16) for sign in (-1, 1)), 0.7, 0.71, 0.842, 0.844, 1.186, 1.188, 1.41,
          1.42, 2.0, 10.0, 1e3, 1e5, 1e15, 0.5, 0.1, 1e-3, 1e-5, 1e-15]  # fmt: skip


@pytest.mark.parametrize("family", ["normal_kl", "normal_diag_kl"])
def test_scales_that_are_close_or_far_lose_nothing(family, rng, dtype):
    """Relative to the divergence itself, not to the terms that cancel in it."""
    other = rng.uniform(0.5, 2, len(RATIOS)).astype(dtype)
    scale = (other * np.array(RATIOS)).astype(dtype)
    loc = np.zeros_like(scale)
    kl = rp.normal_kl(loc, scale, loc, other) if family == "normal_kl" else rp.normal_diag_kl(
        loc[:, None], scale[:, None], loc[:, None], other[:, None])  # fmt: skip
    with mpmath.workdps(60):
        for s, t, actual in zip(scale.tolist(), other.tolist(), kl.tolist(), strict=True):
            exact = exact_kl([0], [[s]], [0], [[t]])
            assert abs(mpmath.mpf(actual) - exact) <= 16 * UNIT[dtype] * exact


STANDARD = {
    "normal_kl_standard": rp.normal_kl_standard,
    "normal_diag_kl_standard": rp.normal_diag_kl_standard,
    "normal_tril_kl_standard": rp.normal_tril_kl_standard,
}
standard_axis = pytest.mark.parametrize("op", STANDARD.values(), ids=STANDARD)


def of_one_coordinate(op, *arrays):
    """Scalars as the op's own events."""
    return [x.reshape(-1, *(1 for _ in range(o.event_rank))) for o, x in zip(op.inputs, arrays, strict=True)]


@pytest.mark.parametrize("shift", [0.0, 1e-3, 1.0])
@standard_axis
def test_nothing_is_lost_near_the_standard_normal(op, shift, rng, dtype):
    """Relative to the divergence and to its slope, not to the terms that cancel in them."""
    scale = np.array(RATIOS).astype(dtype)
    loc = (shift * (scale - 1) * rng.standard_normal(scale.shape)).astype(dtype)
    kl, (ct_loc, ct_scale) = op.value_and_vjp(*of_one_coordinate(op, loc, scale), np.ones_like(scale))
    np.testing.assert_array_equal(ct_loc.ravel(), loc)
    with mpmath.workdps(60):
        for mean, s, actual, slope in zip(*(x.ravel().tolist() for x in (loc, scale, kl, ct_scale)), strict=True):
            exact = exact_kl([mean], [[s]], [0], [[1]])
            assert abs(mpmath.mpf(actual) - exact) <= 16 * UNIT[dtype] * exact
            exact = mpmath.mpf(s) - 1 / mpmath.mpf(s)
            assert abs(mpmath.mpf(slope) - exact) <= 8 * UNIT[dtype] * abs(exact)


@standard_axis
def test_the_slope_of_a_large_scale_is_a_number(op, dtype):
    scale = np.array([LARGEST[dtype] ** 2], dtype)
    _, (_, ct_scale) = op.value_and_vjp(*of_one_coordinate(op, np.zeros_like(scale), scale), np.ones_like(scale))
    np.testing.assert_allclose(ct_scale.ravel(), scale, rtol=8 * UNIT[dtype])


@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("d", [2, 5, 12])
def test_a_factor_near_the_identity_loses_nothing(d, distance, rng, dtype):
    for _ in range(5):
        lower = (np.eye(d) + distance * np.tril(rng.uniform(-0.5, 0.5, (d, d)))).astype(dtype)
        loc = (distance * rng.standard_normal(d)).astype(dtype)
        kl = rp.normal_tril_kl_standard(loc, lower)
        with mpmath.workdps(60):
            exact = exact_kl(loc.tolist(), lower.tolist(), [0] * d, np.eye(d).tolist())
            assert abs(mpmath.mpf(float(kl)) - exact) <= (16 + d * d) * UNIT[dtype] * exact


def factor_of_condition(rng, d, number):
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return np.linalg.cholesky((basis * number ** -np.linspace(0, 2, d)) @ basis.T)


@pytest.mark.parametrize("number", [1e1, 1e3, 1e5])
@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("d", [2, 5, 12])
def test_the_error_is_a_multiple_of_the_condition(d, distance, number, rng, dtype):
    """Of the other factor, relative to the divergence, also where the two factors are close."""
    for _ in range(5):
        other = factor_of_condition(rng, d, number).astype(dtype)
        lower = (other * (1 + distance * np.tril(rng.uniform(-0.5, 0.5, (d, d))))).astype(dtype)
        loc = rng.standard_normal(d).astype(dtype)
        other_loc = (loc + distance * np.diag(other) * rng.standard_normal(d)).astype(dtype)
        kl = rp.normal_tril_kl(loc, lower, other_loc, other)
        with mpmath.workdps(60):
            exact = exact_kl(*(x.astype(float).tolist() for x in (loc, lower, other_loc, other)))
            error = float(abs(mpmath.mpf(float(kl)) - exact) / exact)
        assert error <= (16 + d) * UNIT[dtype] * np.linalg.cond(other.astype(float))


@pytest.mark.parametrize("distance", [1.0, 1e-4, 1e-8])
@op_axis
def test_slopes_are_exact_where_the_arguments_are_close(op, distance, rng):
    """Against the complex step in extended precision, relative to the slopes themselves."""
    d, batch = 5, 50
    loc, scale, _, _ = sample_inputs(op, rng, (batch,), d)
    shift, stretch, _, _ = sample_inputs(op, rng, (batch,), d)
    inputs = [loc, scale, loc + distance * shift, scale * (1 + distance * (stretch - 1) / 2)]
    ones = np.ones(batch)
    results = op.vjp(*inputs, ones)
    directions = random_direction(op, rng, inputs)
    (slope,) = directional_derivative(op, inputs, directions, d, {}, dtype=np.clongdouble)
    parts = [(ct.astype(np.longdouble) * v).reshape(batch, -1) for ct, v in zip(results, directions, strict=True)]
    along, size = (sum(f(part).sum(axis=1) for part in parts) for f in (np.asarray, np.abs))
    limit = 8 * (1 + d) * UNIT["float64"] * condition(op, inputs) * size
    assert (np.abs(along - slope) <= limit).all()


def test_the_families_agree(rng, dtype):
    """A scalar is a vector of one coordinate, a diagonal scale a diagonal factor."""
    loc, other_loc = rng.standard_normal((2, 30, 3)).astype(dtype)
    scale, other = rng.uniform(0.5, 1.5, (2, 30, 3)).astype(dtype)
    whole = rp.normal_diag_kl(loc, scale, other_loc, other)
    np.testing.assert_allclose(rp.normal_kl(loc, scale, other_loc, other).sum(-1), whole, rtol=16 * UNIT[dtype])
    eye = np.eye(3, dtype=dtype)
    full = rp.normal_tril_kl(loc, scale[..., None] * eye, other_loc, other[..., None] * eye)
    np.testing.assert_allclose(full, whole, rtol=32 * UNIT[dtype])


def test_to_the_standard_normal(rng, dtype):
    inputs = sample_inputs(rp.normal_tril_kl_standard, rng, (30,), 4, dtype)
    zero, eye = np.zeros(4, dtype), np.eye(4, dtype=dtype)
    np.testing.assert_allclose(
        rp.normal_tril_kl(*inputs, zero, eye), rp.normal_tril_kl_standard(*inputs), rtol=64 * UNIT[dtype]
    )


def test_cotangents_that_nobody_wants_change_no_other(rng, dtype):
    inputs = sample_inputs(rp.normal_tril_kl, rng, (21,), 5, dtype)
    ct = rng.standard_normal(21).astype(dtype)
    whole = rp.normal_tril_kl.vjp(*inputs, ct)
    names = [o.name for o in rp.normal_tril_kl.inputs]
    for k, name in enumerate(names):
        parts = rp.normal_tril_kl.vjp(*inputs, ct, wrt=(name,))
        np.testing.assert_array_equal(parts[k], whole[k])
        assert [x is None for x in parts] == [other != name for other in names]
