# SPDX-License-Identifier: MIT
"""Where the evidence goes: linear models in closed form, others by brute force, and what stands when that fails."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special, stats
from sklearn.datasets import load_digits

import reparam as rp
from reparam.models import evidence, quadrature
from reparam.models.quadrature import log_integral, normal_nodes
from support import same_bits

NOISE = 0.7


# ---- quadrature


def two_modes(center, scale):
    """A mixture of N(center, scale^2 I) with weight 3/4 and N(-center, scale^2 I) with 1/4, times e^5."""

    def log_density(rows, value):
        logs = [stats.norm(sign * center[rows], scale).logpdf(value).sum(-1) for sign in (1, -1)]
        return np.logaddexp(logs[0] + np.log(0.75), logs[1] + np.log(0.25)) + 5

    return log_density


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.3, 0.05])
def test_the_cubature_finds_all_modes_in_the_box(d, scale, rng):
    center = rng.uniform(-2, 2, (7, d))
    edges = np.broadcast_to(np.linspace(-9, 9, 19), (7, d, 19))
    value, converged = log_integral(two_modes(center, scale), edges, 1e-9)
    np.testing.assert_allclose(value, 5, rtol=1e-8)
    assert converged.all()


def test_a_row_does_not_depend_on_the_others(rng):
    center, edges = rng.uniform(-2, 2, (5, 2)), np.broadcast_to(np.linspace(-9, 9, 19), (5, 2, 19))
    whole, _ = log_integral(two_modes(center, 0.3), edges, 1e-9)
    for k in range(5):
        alone, _ = log_integral(two_modes(center[k : k + 1], 0.3), edges[:1], 1e-9)
        np.testing.assert_allclose(alone[0], whole[k], rtol=1e-14)


def test_a_density_that_is_nan_or_zero_or_too_rough_has_not_converged_and_spoils_no_other_row(rng):
    center, edges = rng.uniform(-2, 2, (4, 2)), np.broadcast_to(np.linspace(-9, 9, 19), (4, 2, 19))
    smooth = two_modes(center, 1.0)

    def log_density(rows, value):
        made = smooth(rows, value)
        made[:, rows == 1], made[:, rows == 2] = np.nan, -np.inf
        rough = 20 * np.sin(1e6 * value.sum(-1))
        return np.where(rows == 3, rough, made)

    value, converged = log_integral(log_density, edges, 1e-9)
    assert converged.tolist() == [True, False, False, False]
    assert value[0] == pytest.approx(5, rel=1e-8)
    assert np.isnan(value[1])
    assert value[2] == -np.inf


@pytest.mark.parametrize("d", [1, 2])
def test_expectations_under_a_standard_normal(d):
    nodes, weights = normal_nodes(d)
    assert weights.sum() == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(weights @ nodes, 0, atol=1e-14)
    np.testing.assert_allclose(np.einsum("s,si,sj->ij", weights, nodes, nodes), np.eye(d), atol=1e-13)
    np.testing.assert_allclose(weights @ nodes**8, 105, rtol=1e-12)
    assert weights @ np.exp(nodes.sum(-1)) == pytest.approx(np.exp(d / 2), rel=1e-12)


# ---- linear models, in closed form


def linear(d, covariance_type, dtype, rng):
    """A linear VAE with an encoder at random: its rows, exact evidence and posterior, and KL(q || posterior)."""
    n, x = 5, 2 * rng.standard_normal((6, 5)).astype(dtype)
    settings = {"hidden": (), "noise_scale": NOISE, "batch_size": 2, "dtype": dtype, "covariance_type": covariance_type}
    model = rp.VAE(d, **settings, epochs=1, key=3).fit(x)
    weight, bias = rng.standard_normal((d, n)), rng.standard_normal(n)
    weight += weight[0]  # correlates the latents
    model._decoder.views["weight0"][...], model._decoder.views["bias0"][...] = weight, bias
    model._encoder.params[...] = 0.2 * rng.standard_normal(len(model._encoder.params))
    precision = np.eye(d) + weight @ weight.T / NOISE**2
    covariance = np.linalg.inv(precision)
    loc = (x - bias) @ weight.T @ covariance / NOISE**2
    posterior = rp.MultivariateNormal(loc, covariance_matrix=np.broadcast_to(covariance, (6, d, d)))
    q = model.posterior(x)
    scale_tril = q.scale_tril if covariance_type == "full" else q.scale_diag[..., None] * np.eye(d)
    lacks = rp.kl_divergence(rp.MultivariateNormal(q.loc.astype(float), scale_tril=scale_tril.astype(float)), posterior)
    mean_field = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])  # best diagonal q
    evidence = stats.multivariate_normal(bias, weight.T @ weight + NOISE**2 * np.eye(n)).logpdf(x)
    best = 0.0 if covariance_type == "full" else mean_field
    return SimpleNamespace(model=model, x=x, evidence=evidence, best=best, lacks=lacks)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("d", [1, 2])
def test_every_part_of_a_linear_model_is_exact(d, covariance_type, dtype, rng):
    """A full q loses nothing but by the encoder; a diagonal one half of sum log P_ii - log det P, P the precision."""
    made = linear(d, covariance_type, dtype, rng)
    gaps = made.model.gaps(made.x)
    assert gaps.exact.all()
    rounding = {"float32": 1e-5, "float64": 1e-10}[dtype] * np.abs(made.evidence).max()
    refined = rounding if covariance_type == "full" or d == 1 else 1e-3  # its gradient has noise at the optimum
    np.testing.assert_allclose(gaps.log_evidence, made.evidence, rtol=0, atol=rounding)
    np.testing.assert_allclose(gaps.elbo, made.evidence - made.lacks, rtol=0, atol=10 * rounding)
    np.testing.assert_allclose(gaps.approximation_gap, made.best, rtol=0, atol=refined)
    np.testing.assert_allclose(gaps.amortization_gap, made.lacks - made.best, rtol=0, atol=refined + 10 * rounding)
    assert made.best > 0.15 or covariance_type == "full" or d == 1
    assert made.lacks.min() > 1


@pytest.mark.parametrize(("covariance_type", "error"), [("full", 1e-9), ("diag", 0.01)])
def test_with_more_latents_the_bound_is_tight_where_q_can_be_the_posterior(covariance_type, error, rng):
    """The weights from the refined full q are all the evidence, without noise; an encoder at random has much of it."""
    made = linear(3, covariance_type, "float64", rng)
    gaps = made.model.gaps(made.x, num_samples=20_000)
    assert not gaps.exact.any()
    np.testing.assert_allclose(gaps.log_evidence, made.evidence, rtol=0, atol=1e-9)
    np.testing.assert_allclose(gaps.elbo, made.evidence - made.lacks, rtol=0.05)
    np.testing.assert_allclose(gaps.approximation_gap, made.best, rtol=0, atol=error + 0.02 * made.best)


# ---- nonlinear models, by brute force


def trained(d, likelihood, **arguments):
    x = load_digits().data
    x, settings = {
        "binomial": (x, {"likelihood": "binomial", "total_count": 16}),
        "bernoulli": ((x > 7).astype(float), {"likelihood": "bernoulli"}),
        "gaussian": (x / 16, {"likelihood": "gaussian"}),
    }[likelihood]
    common = {"hidden": (16,), "epochs": 10, "lr": 1e-2, "batch_size": 100}
    return rp.VAE(d, **{**common, **settings, **arguments}).fit(x[:1500]), x[1500:1508]


@pytest.mark.parametrize("likelihood", ["binomial", "bernoulli", "gaussian"])
@pytest.mark.parametrize("d", [1, 2])
def test_the_integral_against_a_fine_grid(d, likelihood):
    """By the trapezoidal rule, which has 60 or 6 points to the narrowest posterior's standard deviation."""
    model, x = trained(d, likelihood, dtype="float64", covariance_type="diag")
    gaps = model.gaps(x, refine=50)
    assert gaps.exact.all()
    deviation = model.posterior(x, refine=50).stddev.min()
    axis = np.arange(-8, 8, {1: deviation / 60, 2: deviation / 6}[d])
    step = axis[1] - axis[0]
    value = axis[:, None] if d == 1 else np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    for k in range(len(x))[:: 1 if d == 1 else 4]:
        log_joint = model.log_joint(x[k : k + 1])
        parts = np.array_split(value, max(1, len(value) // 20_000))
        logs = [special.logsumexp(log_joint(part[:, None])[0]) for part in parts]
        brute = special.logsumexp(logs) + d * np.log(step)
        assert gaps.log_evidence[k] == pytest.approx(brute, abs=1e-6)


def test_no_gap_is_negative_however_few_the_draws():
    """Where the evidence is a bound, the ELBO of the refined q is another."""
    model, x = trained(3, "binomial", covariance_type="full")
    for draws in (1, 5):
        gaps = model.gaps(x, refine=50, num_samples=draws)
        assert not gaps.exact.any()
        assert (gaps.approximation_gap >= 0).all()
        assert (gaps.amortization_gap >= 0).all()


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("d", [2, 5])
def test_the_parts_add_up_and_agree_with_draws(d, covariance_type):
    model, x = trained(d, "binomial", covariance_type=covariance_type)
    gaps = model.gaps(x, refine=100)
    parts = gaps.elbo + gaps.approximation_gap + gaps.amortization_gap
    np.testing.assert_allclose(parts, gaps.log_evidence, rtol=1e-14)
    assert (gaps.exact == (d <= 2)).all()
    assert (gaps.approximation_gap > 0).all()
    assert (gaps.amortization_gap >= 0).all()
    assert {f.dtype.name for f in (gaps.log_evidence, gaps.elbo, gaps.amortization_gap)} == {"float64"}
    q, log_joint = model.posterior(x), model.log_joint(x)
    estimate = rp.elbo(q, log_joint, key=1, num_samples=4000, estimator="stl", grad=False)
    assert (np.abs(gaps.elbo - estimate.value) < 5 * estimate.standard_error * (1 if d <= 2 else 2.5)).all()
    refined = model.posterior(x, refine=100, covariance_type="full")
    weighted = rp.elbo(refined, log_joint, key=1, num_samples=4000, estimator="iwae", grad=False)
    error = 5 * weighted.standard_error * (1 if d <= 2 else 2.5) + 1e-3
    assert (np.abs(gaps.log_evidence - weighted.value) < error).all()


def test_rows_on_which_the_cubature_fails_have_the_bound_and_say_so(monkeypatch):
    model, x = trained(2, "binomial")
    exact = model.gaps(x, refine=50)
    monkeypatch.setattr(quadrature, "MOST_CELLS", 20)
    gaps = model.gaps(x, refine=50)
    assert exact.exact.all()
    assert not gaps.exact.any()
    same_bits(gaps.elbo, exact.elbo)
    assert np.abs(gaps.log_evidence - exact.log_evidence).max() < 0.1


@pytest.mark.parametrize("d", [2, 3])
def test_the_same_call_gives_the_same_bits_and_a_row_counts_by_its_number(d, monkeypatch):
    model, x = trained(d, "binomial", dtype="float64")
    settings = {"refine": 20, "num_samples": 50}
    whole, again, part = (model.gaps(rows, **settings) for rows in (x, x, x[:3]))
    monkeypatch.setattr(evidence, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(evidence, "DRAWS_AT_ONCE", 20)
    split = model.gaps(x, **settings)
    for name in vars(whole):
        same_bits(getattr(again, name), getattr(whole, name))
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[:3], atol=1e-8)
        np.testing.assert_allclose(getattr(split, name), getattr(whole, name), atol=1e-8)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_row_that_no_decoder_reaches_is_nan_and_its_neighbours_keep_their_bits(d, rng):
    x = rng.standard_normal((6, 4)).astype(np.float32)
    model = rp.VAE(d, hidden=(3,), batch_size=2, epochs=1, noise_scale=0.5).fit(x)
    far = x.copy()
    far[2], far[4] = 1e19, 1e12
    settings = {"refine": 20, "num_samples": 10}
    whole, gaps = model.gaps(x, **settings), model.gaps(far, **settings)
    near = [0, 1, 3, 5]
    for name in vars(whole):
        same_bits(getattr(gaps, name)[near], getattr(whole, name)[near])
    assert gaps.log_evidence[2] == gaps.elbo[2] == -np.inf
    assert np.isnan([gaps.approximation_gap[2], gaps.amortization_gap[2]]).all()
    assert not gaps.exact[[2, 4]].any()


def test_what_is_refused():
    model, x = trained(1, "gaussian", epochs=1)
    spoiled = x.copy()
    spoiled[5, 3] = np.nan
    cases = [
        (lambda: model.gaps(spoiled), ValueError, r"VAE: x must be finite in float32, got nan at \[5, 3\]"),
        (lambda: model.gaps(x[:, :3]), ValueError, r"VAE: x must have shape \(n, 64\), got \(8, 3\)"),
        (lambda: model.gaps(x, refine=-1), ValueError, "VAE: refine must be >= 0, got -1"),
        (lambda: model.gaps(x, num_samples=0), ValueError, "VAE: num_samples must be >= 1, got 0"),
        (lambda: rp.VAE(1).gaps(x), ValueError, "not fitted"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
