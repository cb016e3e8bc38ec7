# SPDX-License-Identifier: MIT
"""The promised limits of accuracy: LAPACK's matrix types, residuals, and 50 digits where a formula is at stake."""

import math

import mpmath
import numpy as np
import pytest

import reparam as rp
from reparam.selftest.exact import adam_errors, log_prob
from reparam.selftest.measures import (
    EVENTS,
    ZERO_ROW,
    cholesky_residual,
    factors,
    lapack_matrices,
    product_residual,
    relative_error,
    spd,
)
from reparam.selftest.problems import exact_cotangents
from support import UNIT

pytestmark = pytest.mark.usefixtures("backend")
SIZES = [1, 2, 3, 4, 8, 16, 33, 64]


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("kind", [1, 2, 6, 7, 8, 9])
def test_cholesky_is_backward_stable(kind, d, rng, dtype):
    a = lapack_matrices(kind, rng, d, dtype)
    result = rp.cholesky_ex(a)
    assert not result.info.any()
    assert cholesky_residual(a, result.scale_tril).max() <= 3


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("kind", ZERO_ROW)
def test_a_row_and_column_of_zeros_is_found(kind, d, rng, dtype):
    result = rp.cholesky_ex(lapack_matrices(kind, rng, d, dtype))
    assert (result.info == ZERO_ROW[kind](d) + 1).all()


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("d", SIZES)
def test_triangular_solve_is_backward_stable(d, transpose, rng, dtype):
    scale_tril, b = factors(rng, d, dtype), rng.standard_normal((EVENTS, d)).astype(dtype)
    x = rp.tril_solve(scale_tril, b, transpose=transpose)
    matrix = scale_tril.swapaxes(-1, -2) if transpose else scale_tril
    assert product_residual(b, matrix, x).max() <= 3


@pytest.mark.parametrize("d", SIZES)
def test_scale_tril_times_noise_is_backward_stable(d, rng, dtype):
    scale_tril, noise = factors(rng, d, dtype), rng.standard_normal((EVENTS, d)).astype(dtype)
    value = rp.normal_tril_transform(noise, np.zeros_like(noise), scale_tril)
    assert product_residual(value, scale_tril, noise).max() <= 3


@pytest.mark.parametrize("d", [2, 4, 8])
def test_cholesky_vjp_error_is_a_multiple_of_the_condition(d, rng):
    """Against the complex step in extended precision, entry by entry."""
    conditions = 10.0 ** np.repeat(np.arange(1, 11), 4)
    a = np.concatenate([spd(rng, 1, d, c) for c in conditions])
    ct = np.tril(rng.standard_normal(a.shape))
    (wanted,) = exact_cotangents(rp.OPS["cholesky_ex"], [a], [ct], d, {}, np.clongdouble)
    error = relative_error(rp.cholesky_ex.vjp(rp.cholesky(a), ct), wanted)
    assert (error / (conditions * UNIT["float64"])).max() <= 10
    assert error[conditions <= 1e5].max() <= 1e-9


SCALES = {"tiny": (-150, -150), "huge": (150, 150), "one": (0, 0), "all": (-150, 150)}


@pytest.mark.parametrize("family", ["diag", "tril"])
@pytest.mark.parametrize("d", [1, 3, 16, 64])
@pytest.mark.parametrize("scales", SCALES)
def test_log_density_against_fifty_digits(family, scales, d, rng):
    """diag(L) from 1e-150 to 1e150. L = diag(scale) U, so that cond(U) alone decides how much can be lost."""
    low, high = SCALES[scales]
    scale = 2.0 ** np.round(np.log2(10.0) * np.linspace(low, high, d))  # powers of two: L is exact
    scale = scale * rng.uniform(1, 2, d) if family == "diag" else scale
    unit = np.eye(d) + (np.tril(rng.standard_normal((d, d)), -1) / d if family == "tril" else 0)
    loc = scale * rng.standard_normal(d)
    value = scale * rng.standard_normal(d)
    lower = scale[:, None] * unit
    wanted = log_prob(value, loc, lower)
    if family == "diag":
        actual = rp.normal_diag_log_prob(value, loc, scale)
    else:
        actual = rp.normal_tril_log_prob(value, loc, lower)
    size = max(
        1, abs(float(wanted)), np.abs(np.log(scale)).sum()
    )  # tiny and huge scales cancel in the sum of logarithms
    limit = 8 * max(1, np.linalg.cond(unit) / 1e3) * d * UNIT["float64"] * size
    assert abs(float(actual) - wanted) <= limit


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_against_fifty_digits_at_every_step(weight_decay, rng, dtype):
    """Each of 1000 steps (100 without decay) from the state that the last one has left, and one far out at 2^24 + 1."""
    worst = adam_errors(dtype, rng, weight_decay, 1000 if weight_decay else 100)
    assert all(error <= 4 for error in worst.values()), worst


@pytest.mark.parametrize("logit", [-40.0, -20.0, -5.0, 0.0, 5.0, 20.0, 40.0])
@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 16), (16, 16), (5, 16)])
def test_binomial_log_likelihood_is_exact_where_it_is_nearly_certain(hits, trials, logit, dtype):
    """At k = N, k l - N softplus(l) and k - N sigmoid(l) lose every digit to cancellation."""
    arguments = [np.array([x], dtype) for x in (hits, logit, trials)]
    value = float(rp.binomial_log_likelihood(*arguments))
    slope = float(rp.binomial_log_likelihood.vjp(*arguments, np.ones((), dtype))[1][0])
    with mpmath.workdps(60):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
        exact = hits * mpmath.log(p) + (trials - hits) * mpmath.log(1 - p), hits * (1 - p) - (trials - hits) * p
        size = hits * (1 - p) + (trials - hits) * p
    limit = 16 * UNIT[dtype]
    assert abs(value - exact[0]) <= limit * abs(exact[0])
    assert abs(slope - exact[1]) <= limit * size  # the two terms of the slope may cancel in truth


def test_sums_over_draws_do_not_lose_digits_as_draws_grow(backend, dtype):
    draws, tenth, one = 20_000 if backend == "reference" else 200_000, np.dtype(dtype).type(0.1), np.ones((), dtype)
    noise, log_prob, grad = np.ones((draws, 1), dtype), np.full(draws, tenth), np.full((draws, 1), tenth)
    _, value, _, ct_loc, ct_scale = rp.elbo_diag_combine(noise, log_prob, grad, one[None])
    exact = float(tenth)
    entropy = 0.5 * (1 + math.log(2 * math.pi))
    assert abs(float(value) - (exact + entropy)) <= 4 * UNIT[dtype] * (exact + entropy)
    assert abs(float(ct_loc[0]) - exact) <= 64 * UNIT[dtype] * exact
    assert abs(float(ct_scale[0]) - (exact + 1)) <= 64 * UNIT[dtype] * (exact + 1)
