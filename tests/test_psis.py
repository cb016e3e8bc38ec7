# SPDX-License-Identifier: MIT
"""The k-hat of PSIS against the published formulas, one number at a time, and against Pareto samples of known shape."""

import math

import numpy as np
import pytest

from reparam.inference import psis_khat


def khat_by_the_letter(log_weights):
    """arXiv 1507.02646, section 3 and appendix C; Zhang and Stephens (2009), section 3, with their k of other sign."""
    draws = sorted(log_weights)
    size = math.ceil(min(len(draws) / 5, 3 * math.sqrt(len(draws))))
    cutoff = max(draws[-size - 1] - draws[-1], math.log(np.finfo(float).tiny))
    x = [math.exp(w - draws[-1]) - math.exp(cutoff) for w in draws if w - draws[-1] > cutoff]
    n = len(x)
    if n < 5:
        return math.inf
    m = 30 + math.isqrt(n)
    quartile = x[math.floor(n / 4 + 0.5) - 1]
    theta = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * quartile) for j in range(1, m + 1)]
    k = [sum(math.log1p(-t * value) for value in x) / n for t in theta]
    profile = [n * (math.log(-t / s) - s - 1) for t, s in zip(theta, k, strict=True)]
    weight = [1 / sum(math.exp(min(other - own, 700)) for other in profile) for own in profile]
    best = sum(t * w for t, w in zip(theta, weight, strict=True)) / sum(weight)
    return (n * sum(math.log1p(-best * value) for value in x) / n + 10 * 0.5) / (n + 10)


def pareto(k, draws, rng):
    """Log of generalized Pareto samples, by the inverse of their distribution."""
    u = rng.random(draws)
    return np.log(-np.log(u) if k == 0 else (u**-k - 1) / k)


@pytest.mark.parametrize("draws", [25, 26, 99, 225, 1000, 4001])
def test_khat_is_that_of_the_formulas(draws, rng):
    log_weights = rng.standard_normal((draws, 4, 3)) * np.array([0.1, 1, 5]) + rng.normal(size=(4, 3)) * 300
    made = psis_khat(log_weights)
    expected = [khat_by_the_letter(column) for column in log_weights.reshape(draws, -1).T]
    np.testing.assert_allclose(made.ravel(), expected, rtol=1e-10, atol=1e-10)


def test_huge_ties_and_zero_weights_are_no_trouble(rng):
    rounded = np.round(rng.standard_normal((1000, 3)), 1)
    wide = rng.standard_normal((1000, 3)) * 1e5
    zero = np.where(rng.random((1000, 3)) < 0.5, -np.inf, rng.standard_normal((1000, 3)))
    with np.errstate(all="raise"):
        made = psis_khat(np.concatenate([rounded, wide, zero], axis=1))
    expected = [khat_by_the_letter(column) for column in np.concatenate([rounded, zero], axis=1).T]
    np.testing.assert_allclose(made[[0, 1, 2, 6, 7, 8]], expected, rtol=1e-10)
    assert (made[3:6] == np.inf).all()


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.3, 0.7, 1.2])
def test_pareto_samples_show_their_shape(k, rng):
    draws, repeats = 10_000, 200
    made = psis_khat(pareto(k, (draws, repeats), rng))
    tail = 3 * math.sqrt(draws)
    expected = (tail * k + 10 * 0.5) / (tail + 10)  # it is shrunk
    assert abs(made.mean() - expected) < 0.03
    assert made.std() < 1.5 * (1 + abs(k)) / math.sqrt(tail)


def test_a_problem_is_its_own_whatever_stands_beside_it(rng):
    log_weights = rng.standard_normal((1000, 50)) * rng.uniform(0, 8, 50)
    together = psis_khat(log_weights)
    assert together.tolist() == [psis_khat(column) for column in log_weights.T]
    shifted = psis_khat(log_weights + 2.0**20)
    np.testing.assert_allclose(shifted, together, rtol=1e-5)
    np.testing.assert_allclose(psis_khat(log_weights[rng.permutation(1000)]), together, rtol=1e-12)


def test_what_has_no_tail_says_so(dtype):
    normal = np.linspace(0, 1, 100, dtype=dtype)
    assert psis_khat(normal[:20]) == np.inf
    assert psis_khat(normal[:1]) == np.inf
    assert psis_khat(normal * 0 + 3) == -np.inf
    assert psis_khat(3 + normal * np.finfo(dtype).eps) == -np.inf
    assert psis_khat(np.where(normal > 0.97, normal, -np.inf)) == np.inf
    for bad in (np.nan, np.inf):
        assert np.isnan(psis_khat(np.where(normal > 0.97, dtype_of(bad, dtype), normal)))
    assert np.isnan(psis_khat(normal - np.inf))
    assert psis_khat(normal).dtype == dtype
    assert psis_khat(np.zeros((100, 0, 2), dtype)).shape == (0, 2)


def dtype_of(value, dtype):
    return np.asarray(value, dtype)
