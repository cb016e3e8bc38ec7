# SPDX-License-Identifier: MIT
"""Likelihoods of models: densities against SciPy, pullbacks against the complex step, draws against their law."""

import math

import numpy as np
import pytest

from reparam.models.likelihoods import make_likelihood
from support import UNIT, relative_error, same_bits

S, B, N, TRIALS, SIGMA = 3, 4, 5, 16, 0.7
ARGUMENTS = {
    "bernoulli": ("bernoulli", None, None),
    "binomial": ("binomial", TRIALS, None),
    "gaussian": ("gaussian", None, SIGMA),
    "gaussian, scale learned": ("gaussian", None, None),
}

backend_axis = pytest.mark.usefixtures("backend")


@pytest.fixture(params=ARGUMENTS)
def name(request):
    return request.param


@pytest.fixture
def likelihood(name):
    return make_likelihood(*ARGUMENTS[name])


@pytest.fixture(params=[False, True], ids=["all", "masked"])
def masked(request):
    return request.param


def trials_of(name):
    return TRIALS if name == "binomial" else 1


def sample_data(name, rng, shape=(B, N)):
    if name in {"bernoulli", "binomial"}:
        return rng.binomial(trials_of(name), 0.4, shape).astype(float)
    return rng.standard_normal(shape).astype(np.float32).astype(float)


def sample_problem(name, masked, rng, dtype="float64"):
    """Data, mask, output, theta and weights; exact in float32. One row is not observed at all, one in full."""
    mask = (rng.random((B, N)) < 0.5).astype(float)
    mask[0], mask[1] = 0, 1
    output = (2 * rng.standard_normal((S, B, N))).astype(np.float32)
    weights = rng.standard_normal((S, B)).astype(np.float32)
    x, theta = sample_data(name, rng), np.log([1.25]) if name.endswith("learned") else np.zeros(0)
    made = x, mask if masked else None, output, theta.astype(np.float32), weights
    return [None if array is None else array.astype(dtype) for array in made]


def terms(name, x, output, theta):
    """Log p(x | output) entry by entry, over real or complex numbers, up to what depends on x alone."""
    if name in {"bernoulli", "binomial"}:
        return x * output - trials_of(name) * np.log(1 + np.exp(output))
    log_sigma = theta[0] if len(theta) else math.log(SIGMA)
    return -0.5 * ((x - output) / np.exp(log_sigma)) ** 2 - log_sigma


def scipy_terms(name, x, output, theta):
    from scipy import special, stats

    if name in {"bernoulli", "binomial"}:
        return stats.binom.logpmf(x, trials_of(name), special.expit(output))
    return stats.norm.logpdf(x, output, np.exp(theta[0]) if len(theta) else SIGMA)


@backend_axis
def test_log_prob_is_scipys_over_the_observed_entries(name, likelihood, masked, rng):
    x, mask, output, theta, _ = sample_problem(name, masked, rng)
    log_prob, _ = likelihood.log_prob(output, likelihood.prepare(x, mask), theta)
    expected = (scipy_terms(name, x, output, theta) * (1 if mask is None else mask)).sum(-1)
    assert log_prob.shape == (S, B)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-11, atol=1e-12)
    if masked:
        np.testing.assert_array_equal(log_prob[:, 0], 0)
        assert (log_prob[:, 1] < 0).all()


@backend_axis
def test_pullback_against_the_complex_step(name, likelihood, masked, rng):
    x, mask, output, theta, weights = sample_problem(name, masked, rng)
    _, pullback = likelihood.log_prob(output, likelihood.prepare(x, mask), theta)
    ct_output, ct_theta = pullback(weights)
    seen = weights[..., None] * (1 if mask is None else mask)
    exact = seen * terms(name, x, output + 1e-30j, theta).imag / 1e-30  # the terms are independent
    assert ct_output.shape == output.shape
    assert relative_error(ct_output, exact, events=0) < 1e-9
    if masked:
        assert (ct_output[:, mask == 0] == 0).all()
    assert ct_theta.shape == theta.shape == (likelihood.theta_size,)
    if len(theta):
        exact = (seen * terms(name, x, output, theta + 1e-30j).imag / 1e-30).sum()
        np.testing.assert_allclose(ct_theta, [exact], rtol=1e-9)


@backend_axis
def test_float32_errs_by_its_own_rounding(name, likelihood, masked, rng):
    x, mask, output, theta, weights = sample_problem(name, masked, rng, "float32")
    log_prob, pullback = likelihood.log_prob(output, likelihood.prepare(x, mask), theta)
    double = [None if a is None else a.astype(float) for a in (output, x, mask, theta, weights)]
    exact, exact_pullback = likelihood.log_prob(double[0], likelihood.prepare(double[1], double[2]), double[3])
    assert log_prob.dtype == np.float32
    size = np.abs(terms(name, double[1], double[0], double[3])).sum(-1) + np.abs(exact)
    assert (np.abs(log_prob - exact) <= 8 * (1 + N) * UNIT["float32"] * size).all()
    assert (log_prob != exact).any()
    ct_output, ct_theta = pullback(weights)
    exact_output, exact_theta = exact_pullback(double[4])
    assert ct_output.dtype == np.float32
    assert relative_error(ct_output, exact_output, events=0) < 8 * (1 + N) * UNIT["float32"]
    np.testing.assert_allclose(ct_theta, exact_theta, rtol=8 * (1 + N) * UNIT["float32"])


def test_nothing_that_was_given_is_modified(name, likelihood, masked, rng):
    x, mask, output, theta, weights = given = sample_problem(name, masked, rng)
    kept = [None if a is None else a.copy() for a in given]
    data = likelihood.prepare(x, mask)
    _, pullback = likelihood.log_prob(output, data, theta)
    first = [a.copy() for a in pullback(weights)]
    same_bits(pullback(weights), first)
    likelihood.scale_input(data.x), likelihood.mean(output)
    likelihood.draw(output, theta, np.random.default_rng(0))
    same_bits([a for a in given if a is not None], [a for a in kept if a is not None])


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([3, 0, 3]), np.array([], int)], ids=["slice", "index", "none"])
def test_rows_of_prepared_data_are_the_data_of_these_rows(name, likelihood, masked, rows, rng):
    x, mask, output, theta, weights = sample_problem(name, masked, rng)
    part = likelihood.prepare(x, mask).rows(rows)
    alone = likelihood.prepare(x[rows], None if mask is None else mask[rows])
    one, pull_one = likelihood.log_prob(output[:, rows], part, theta)
    two, pull_two = likelihood.log_prob(output[:, rows], alone, theta)
    same_bits(one, two)
    same_bits(pull_one(weights[:, rows]), pull_two(weights[:, rows]))
    whole = likelihood.log_prob(output, likelihood.prepare(x, mask), theta)[0]
    np.testing.assert_allclose(one, whole[:, rows], rtol=1e-14)


@backend_axis
def test_what_an_unobserved_entry_holds_has_no_effect(name, likelihood, rng):
    x, mask, output, theta, weights = sample_problem(name, True, rng)
    other = np.where(mask == 1, x, 1 - x if name == "bernoulli" else x + 1)
    assert (other != x).any()
    one, pull_one = likelihood.log_prob(output, likelihood.prepare(x, mask), theta)
    two, pull_two = likelihood.log_prob(output, likelihood.prepare(other, mask), theta)
    same_bits(one, two)
    same_bits(pull_one(weights), pull_two(weights))


def test_the_encoder_sees_fractions_of_counts_and_real_data_as_they_are(name, likelihood, dtype, rng):
    x = sample_data(name, rng).astype(dtype)
    scaled = likelihood.scale_input(x)
    assert scaled.dtype == dtype
    np.testing.assert_allclose(scaled, x / trials_of(name), rtol=2 * UNIT[dtype])


# ---- means and draws


def test_mean_is_that_of_the_density(name, likelihood, dtype, rng):
    from scipy import special

    output = (3 * rng.standard_normal((S, B, N))).astype(dtype)
    mean = likelihood.mean(output)
    assert mean.dtype == dtype
    counts = name in {"bernoulli", "binomial"}
    expected = trials_of(name) * special.expit(output.astype(float)) if counts else output
    np.testing.assert_allclose(mean, expected, rtol=20 * UNIT[dtype])


@pytest.mark.parametrize("name", ["bernoulli", "binomial"], indirect=True)
def test_extreme_log_odds_give_all_or_nothing_without_a_warning(name, likelihood, dtype, rng):
    output = np.array([-1e30, -1e4, 1e4, 1e30], dtype)
    expected = np.array([0, 0, 1, 1], dtype) * trials_of(name)
    same_bits(likelihood.mean(output), expected)
    same_bits(likelihood.draw(output, np.zeros(0), np.random.default_rng(0)), expected)


@pytest.mark.parametrize("name", ["bernoulli", "binomial"], indirect=True)
def test_draws_of_counts_follow_the_binomial(name, likelihood, dtype):
    from scipy import special, stats

    n, logits = 20_000, np.array([-2.5, -0.4, 1.3])
    drawn = likelihood.draw(np.broadcast_to(logits, (n, 3)).astype(dtype), np.zeros(0), np.random.default_rng(5))
    assert drawn.dtype == dtype
    assert drawn.shape == (n, 3)
    k = np.arange(trials_of(name) + 1)
    for column, logit in zip(drawn.T, logits, strict=True):
        expected = n * stats.binom.pmf(k, trials_of(name), special.expit(logit))
        observed = np.bincount(column.astype(int), minlength=len(k))
        np.testing.assert_array_equal(column, column.astype(int))
        common = expected >= 5  # rarer counts in one cell
        cells = [np.append(a[common], a[~common].sum()) for a in (observed, expected)]
        keep = cells[1] > 0
        assert stats.chisquare(cells[0][keep], cells[1][keep]).pvalue > 1e-4
    assert abs(np.corrcoef(drawn.T)[0, 1]) * np.sqrt(n) < 4.5


def test_draws_of_real_data_follow_the_normal(dtype):
    from scipy import stats

    n, loc = 20_000, np.array([-2.5, 0.0, 1.3])
    for arguments, theta, sigma in (
        (("gaussian", None, SIGMA), [], SIGMA),
        (("gaussian", None, None), [0.5], np.exp(0.5)),
    ):
        output = np.broadcast_to(loc, (n, 3)).astype(dtype)
        drawn = make_likelihood(*arguments).draw(output, np.array(theta, dtype), np.random.default_rng(5))
        assert drawn.dtype == dtype
        standard = (drawn - loc) / sigma
        for column in standard.T:
            assert stats.kstest(column, "norm").pvalue > 1e-4
        assert abs(np.corrcoef(standard.T)[0, 1]) * np.sqrt(n) < 4.5


def test_draws_follow_from_the_generator_alone(name, likelihood, rng):
    output, theta = sample_problem(name, False, rng)[2:4]
    first, again, other = (likelihood.draw(output, theta, np.random.default_rng(seed)) for seed in (1, 1, 2))
    same_bits(first, again)
    assert (first != other).any()


# ---- large counts


@pytest.mark.parametrize("total_count", [1, 2, 3, 16, 100])
def test_log_coefficients_are_those_of_pascals_triangle(total_count):
    expected = [math.log(math.comb(total_count, k)) for k in range(total_count + 1)]
    coefficient = make_likelihood("binomial", total_count, None).log_coefficient
    np.testing.assert_allclose(coefficient, expected, rtol=1e-13, atol=1e-13 * total_count)


def test_log_coefficients_of_many_trials_sum_to_a_power_of_two():
    from scipy import special

    total_count = 2**20 - 1
    coefficient = make_likelihood("binomial", total_count, None).log_coefficient
    np.testing.assert_allclose(special.logsumexp(coefficient), total_count * math.log(2), rtol=1e-13)
    assert coefficient[0] == coefficient[-1] == 0
    np.testing.assert_allclose(coefficient[1], math.log(total_count), rtol=1e-9)
    np.testing.assert_array_equal(coefficient, coefficient[::-1])


@pytest.mark.parametrize("total_count", [1000, 2**20 - 1])
@backend_axis
def test_many_trials_in_float32_stay_finite_and_err_by_the_rounding_of_their_terms(total_count, rng):
    from scipy import special, stats

    likelihood = make_likelihood("binomial", total_count, None)
    logits = np.tile([-12.0, -4.0, 0.0, 3.0, 15.0], (B, 1))
    x = rng.binomial(total_count, special.expit(logits)).astype(np.float32)
    log_prob, pullback = likelihood.log_prob(logits.astype(np.float32)[None], likelihood.prepare(x, None), np.zeros(0))
    exact = stats.binom.logpmf(x.astype(float), total_count, special.expit(logits)).sum(-1)
    size = (np.abs(x * logits) + total_count * np.logaddexp(0, logits) + likelihood.log_coefficient[x.astype(int)]).sum(
        -1
    )
    assert (np.abs(log_prob - exact) <= 16 * UNIT["float32"] * size).all()
    ct_output, _ = pullback(np.ones((1, B), np.float32))
    expected = x.astype(float) - total_count * special.expit(logits)
    np.testing.assert_allclose(ct_output[0], expected, rtol=0, atol=16 * UNIT["float32"] * total_count)


# ---- refusals


@pytest.mark.parametrize("bad", [-1, 0.5, 17, np.nan, np.inf, -np.inf])
def test_data_that_are_no_counts_are_refused_by_place_and_value(bad, dtype):
    x = np.zeros((2, 3), dtype)
    x[1, 2] = bad
    with pytest.raises(
        ValueError, match=rf"data must be a whole number in 0..16 \(total_count\) everywhere, got {bad}.* at \[1, 2\]"
    ):
        make_likelihood("binomial", 16, None).check("data", x)
    with pytest.raises(ValueError, match=rf"data must be 0 or 1 everywhere, got {bad}.* at \[1, 2\]"):
        make_likelihood("bernoulli", None, None).check("data", x)


def test_every_count_in_range_is_accepted(dtype):
    make_likelihood("binomial", 16, None).check("data", np.arange(17, dtype=dtype)[None])
    make_likelihood("bernoulli", None, None).check("data", np.array([[0, 1]], dtype))
    make_likelihood("gaussian", None, None).check("data", np.array([[-3.5, 1e30]], dtype))
    with pytest.raises(ValueError, match=r"data must be 0 or 1 everywhere, got 2.* at \[0, 2\]"):
        make_likelihood("bernoulli", None, None).check("data", np.array([[0, 1, 2]], dtype))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("binomial", None, None), ValueError, r"likelihood='binomial' needs total_count"),
        (("binomial", 0, None), ValueError, r"total_count must be in \[1, 1048576\), got 0"),
        (("binomial", 2**20, None), ValueError, r"total_count must be in \[1, 1048576\), got 1048576"),
        (("binomial", 3.0, None), TypeError, r"total_count must be an integer in \[1, 1048576\), got 3.0"),
        (("binomial", True, None), TypeError, r"total_count must be an integer in \[1, 1048576\), got True"),
        (
            ("bernoulli", 3, None),
            ValueError,
            r"total_count goes with likelihood='binomial', got total_count=3 with 'bernoulli'",
        ),
        (
            ("gaussian", 3, None),
            ValueError,
            r"total_count goes with likelihood='binomial', got total_count=3 with 'gaussian'",
        ),
        (
            ("bernoulli", None, 1.0),
            ValueError,
            r"noise_scale goes with likelihood='gaussian', got noise_scale=1.0 with 'bern",
        ),
        (
            ("binomial", 3, 1.0),
            ValueError,
            r"noise_scale goes with likelihood='gaussian', got noise_scale=1.0 with 'binomial'",
        ),
        (("gaussian", None, 0.0), ValueError, r"noise_scale must be a finite number > 0, got 0.0"),
        (("gaussian", None, -1), ValueError, r"noise_scale must be a finite number > 0, got -1"),
        (("gaussian", None, np.nan), ValueError, r"noise_scale must be a finite number > 0, got nan"),
        (("gaussian", None, "1"), TypeError, r"noise_scale must be a number > 0, got '1'"),
        (
            ("poisson", None, None),
            ValueError,
            r"likelihood must be one of 'gaussian', 'bernoulli', 'binomial', got 'poisson'",
        ),
    ],
)
def test_bad_arguments_are_named_with_what_came_and_what_was_expected(arguments, error, message):
    with pytest.raises(error, match=message):
        make_likelihood(*arguments)
