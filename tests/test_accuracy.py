# SPDX-License-Identifier: MIT
"""The promised limits of accuracy: LAPACK's matrix types, residuals, and 50 digits where a formula is at stake."""

import math

import mpmath
import numpy as np
import pytest

import reparam as rp
from support import UNIT, complex_step_jacobian

pytestmark = pytest.mark.usefixtures("backend")
SIZES = [1, 2, 3, 4, 8, 16, 33, 64]
EVENTS = 12


def wide(array):
    """The same numbers in more digits than the arithmetic under test has."""
    return array.astype(np.float64 if array.dtype == np.float32 else np.longdouble)


def norm1(a):
    return np.abs(a).sum(axis=-2).max(axis=-1)


def orthogonal(rng, batch, d):
    return np.linalg.qr(rng.standard_normal((batch, d, d)))[0]


def spd(rng, batch, d, condition, norm=1.0):
    """Symmetric matrices with eigenvalues in geometric progression, as LAPACK's generator makes them."""
    eigenvalues = condition ** -np.linspace(0, 1, d) if d > 1 else np.ones(1)
    basis = orthogonal(rng, batch, d)
    a = (basis * eigenvalues) @ basis.swapaxes(-1, -2)
    return (a + a.swapaxes(-1, -2)) / 2 * norm


def lapack_matrices(kind, rng, d, dtype):
    """Types 1, 2 and 6 to 9 of dlatb4; types 3 to 5 are singular and stand in test_failures.py."""
    info = np.finfo(dtype)
    small = 0.25 * float(info.tiny) / float(info.eps)
    match kind:
        case 1:
            diagonal = rng.uniform(0.5, 4.0, (EVENTS, d))
            return (diagonal[..., None] * np.eye(d)).astype(dtype)
        case 2:
            return spd(rng, EVENTS, d, 2.0).astype(dtype)
        case 6:
            return spd(rng, EVENTS, d, np.sqrt(0.1 / info.eps)).astype(dtype)
        case 7:
            return spd(rng, EVENTS, d, 0.1 / info.eps).astype(dtype)
        case 8:
            return spd(rng, EVENTS, d, 2.0, small).astype(dtype)
        case 9:
            return spd(rng, EVENTS, d, 2.0, 1 / small).astype(dtype)


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("kind", [1, 2, 6, 7, 8, 9])
def test_cholesky_is_backward_stable(kind, d, rng, dtype):
    a = lapack_matrices(kind, rng, d, dtype)
    result = rp.cholesky_ex(a)
    assert not result.info.any()
    factor, exact = wide(result.scale_tril), wide(a)
    exact = np.tril(exact) + np.tril(exact, -1).swapaxes(-1, -2)
    residual = factor @ factor.swapaxes(-1, -2) - exact
    ratio = norm1(residual) / (d * norm1(exact) * UNIT[dtype])
    assert ratio.max() <= 3


def factors(rng, d, dtype, condition=1e3):
    return np.linalg.cholesky(spd(rng, EVENTS, d, condition**2)).astype(dtype)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("d", SIZES)
def test_triangular_solve_is_backward_stable(d, transpose, rng, dtype):
    scale_tril, b = factors(rng, d, dtype), rng.standard_normal((EVENTS, d)).astype(dtype)
    x = wide(rp.tril_solve(scale_tril, b, transpose=transpose))
    matrix = wide(scale_tril).swapaxes(-1, -2) if transpose else wide(scale_tril)
    residual = np.abs(wide(b) - np.einsum("bij,bj->bi", matrix, x)).sum(axis=-1)
    ratio = residual / (norm1(matrix) * np.abs(x).sum(axis=-1) * UNIT[dtype] * d)
    assert ratio.max() <= 3


@pytest.mark.parametrize("d", SIZES)
def test_scale_tril_times_noise_is_backward_stable(d, rng, dtype):
    scale_tril, noise = factors(rng, d, dtype), rng.standard_normal((EVENTS, d)).astype(dtype)
    value = wide(rp.normal_tril_transform(noise, np.zeros_like(noise), scale_tril))
    matrix, e = wide(scale_tril), wide(noise)
    residual = np.abs(value - np.einsum("bij,bj->bi", matrix, e)).sum(axis=-1)
    ratio = residual / (norm1(matrix) * np.abs(e).sum(axis=-1) * UNIT[dtype] * d)
    assert ratio.max() <= 3


@pytest.mark.parametrize("d", [2, 4, 8])
def test_cholesky_vjp_error_is_a_multiple_of_the_condition(d, rng):
    """Against the complex step in extended precision, entry by entry."""
    conditions = 10.0 ** np.repeat(np.arange(1, 11), 4)
    a = np.concatenate([spd(rng, 1, d, c) for c in conditions])
    ct = np.tril(rng.standard_normal(a.shape))
    ct_a = rp.cholesky_ex.vjp(rp.cholesky(a), ct)
    jacobian = complex_step_jacobian(rp.OPS["cholesky_ex"], [a], dtype=np.clongdouble)  # [(i, j), event, d, d]
    exact = np.zeros_like(a, dtype=np.longdouble)
    for (i, j), slope in jacobian.items():
        # entry (i, j) of the symmetric matrix stands twice where i != j, and its cotangent is shared between the two
        exact[:, i, j] = exact[:, j, i] = (ct * slope).sum(axis=(-2, -1)) / (1 if i == j else 2)
    error = np.abs(ct_a - exact).max(axis=(-2, -1)) / np.abs(exact).max(axis=(-2, -1))
    assert (error / (conditions * UNIT["float64"])).max() <= 10
    assert error[conditions <= 1e5].max() <= 1e-9


def exact_log_prob(value, loc, unit_tril, scale):
    """log N(value | loc, L L^T) in 50 digits for L = diag(scale) unit_tril."""
    with mpmath.workdps(50):
        d = len(value)
        y = []
        for i in range(d):
            r = (mpmath.mpf(value[i]) - mpmath.mpf(loc[i])) / mpmath.mpf(scale[i])
            y.append(r - mpmath.fsum(unit_tril[i, j] * y[j] for j in range(i)))
        log_det = mpmath.fsum(mpmath.log(mpmath.mpf(s)) for s in scale)
        return -mpmath.fsum(r * r for r in y) / 2 - log_det - d * mpmath.log(2 * mpmath.pi) / 2


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
    exact = exact_log_prob(value, loc, unit, scale)
    if family == "diag":
        actual = rp.normal_diag_log_prob(value, loc, scale)
    else:
        actual = rp.normal_tril_log_prob(value, loc, scale[:, None] * unit)
    size = max(
        1, abs(float(exact)), np.abs(np.log(scale)).sum()
    )  # tiny and huge scales cancel in the sum of logarithms
    limit = 8 * max(1, np.linalg.cond(unit) / 1e3) * d * UNIT["float64"] * size
    assert abs(float(mpmath.mpf(float(actual)) - exact)) <= limit


def ulps(actual, exact, at, dtype):
    spacing = np.spacing(np.abs(at).astype(dtype))
    return float(
        max(
            abs((mpmath.mpf(float(a)) - e) / mpmath.mpf(float(s)))
            for a, e, s in zip(actual, exact, spacing, strict=True)
        )
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_against_fifty_digits_at_every_step(weight_decay, rng, dtype):
    """Each of 1000 steps (100 without decay) from the state that the last one has left, and one far out at 2^24 + 1."""
    lr, beta1, beta2, eps = 1e-3, 0.9, 0.999, 1e-8
    n = 6
    param = rng.standard_normal(n).astype(dtype)
    optimizer = rp.optim.Adam(param, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    worst = {"m": 0.0, "v": 0.0, "param": 0.0}
    size = 10.0 ** np.array([-6, -3, -1, 0, 2, 4])
    for step in [*range(1, 1001 if weight_decay else 101), 2**24 + 1]:
        state = optimizer.state_dict()
        if step > 1000:
            optimizer.load_state_dict({**state, "t": step - 1})
        before, m, v = param.copy(), state["m"][0], state["v"][0]
        grad = (size * rng.standard_normal(n)).astype(dtype)
        optimizer.step(grad)
        after = optimizer.state_dict()
        with mpmath.workdps(50):
            b1, b2 = mpmath.mpf(beta1), mpmath.mpf(beta2)
            exact_m = [b1 * float(mi) + (1 - b1) * float(g) for mi, g in zip(m, grad, strict=True)]
            exact_v = [b2 * float(vi) + (1 - b2) * mpmath.mpf(float(g)) ** 2 for vi, g in zip(v, grad, strict=True)]
            bias1, bias2 = 1 - b1**step, 1 - b2**step
            exact_param = [
                p
                - mpmath.mpf(lr)
                * (mpmath.mpf(weight_decay) * p + (mi / bias1) / (mpmath.sqrt(vi / bias2) + mpmath.mpf(eps)))
                for p, mi, vi in zip([mpmath.mpf(float(x)) for x in before], exact_m, exact_v, strict=True)
            ]
            worst["m"] = max(worst["m"], ulps(after["m"][0], exact_m, np.abs(m) + np.abs(grad), dtype))
            worst["v"] = max(worst["v"], ulps(after["v"][0], exact_v, after["v"][0], dtype))
            worst["param"] = max(worst["param"], ulps(param, exact_param, np.abs(before) + lr, dtype))
    assert max(worst.values()) <= 4, worst


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
