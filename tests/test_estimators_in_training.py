# SPDX-License-Identifier: MIT
"""The four estimators through a whole VAE: exact gradients, zero at the posterior, orderings, what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import special, stats
from sklearn.datasets import load_digits

import reparam as rp
from test_vae import at_random, log_likelihood_of, make, net, noise_of, rows_of, step_gradient

IMPORTANCE = ["iwae", "dreg"]
ROWS, DRAWS = 10, 3


# ---- gradients, against the complex step


def pieces(params, model, x, noise, frozen):
    """Log p(x | z), log p(z), and log q(z) with its parameters free and frozen, all of shape (S, B)."""
    d, full = model.latent_dim, model.covariance_type == "full"
    tril = np.tril_indices(d) if full else (np.arange(d), np.arange(d))
    sizes = (x.shape[1], *model.hidden, d + len(tril[0]))

    def gaussian(flat):
        encoded, rest = net(flat, sizes, x / (model.total_count or 1), np.tanh)
        scale_tril = np.zeros((len(x), d, d), encoded.dtype)
        scale_tril[:, tril[0], tril[1]] = encoded[:, d:]
        scale_tril[:, range(d), range(d)] = np.exp(scale_tril[:, range(d), range(d)])
        return encoded[:, :d], scale_tril, rest

    def log_q(z, loc, scale_tril):
        y = np.linalg.solve(scale_tril, (z - loc)[..., None])[..., 0]
        det = np.log(np.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)
        return -0.5 * (y * y).sum(-1) - det - d / 2 * np.log(2 * np.pi)

    loc, scale_tril, rest = gaussian(params)
    z = loc + (scale_tril @ noise[..., None])[..., 0]
    output, theta = net(rest, (d, *reversed(model.hidden), x.shape[1]), z, np.tanh)
    log_prior = -0.5 * (z * z).sum(-1) - d / 2 * np.log(2 * np.pi)
    log_likelihood = log_likelihood_of(model, x, output, theta, np)
    return log_likelihood, log_prior, log_q(z, loc, scale_tril), log_q(z, *gaussian(frozen)[:2])


def log_mean_exp(log_weights):
    most = log_weights.real.max(0)
    return most + np.log(np.exp(log_weights - most).mean(0))


def surrogate(params, model, x, noise, frozen, weights):
    """What the estimator differentiates: the bound, or for path derivatives one with the score of q left out."""
    log_likelihood, log_prior, log_q, log_frozen_q = pieces(params, model, x, noise, frozen)
    if model.estimator == "iwae":
        return log_mean_exp(log_likelihood + log_prior - log_q).mean()
    if model.estimator == "stl":
        return (log_likelihood + model.kl_weight * (log_prior - log_frozen_q)).mean()
    return (weights**2 * (log_likelihood + log_prior - log_frozen_q)).sum(0).mean()


def complex_step(function, params):
    gradient = np.empty(params.shape)
    for k in range(len(gradient)):
        moved = params.astype(complex)
        moved[k] += 1e-30j
        gradient[k] = function(moved).imag / 1e-30
    return gradient


def exact_gradient(model, x, noise):
    frozen = model._params.copy()
    log_likelihood, log_prior, log_q, _ = pieces(frozen, model, x, noise, frozen)
    weights = special.softmax(log_likelihood + log_prior - log_q, axis=0)
    assert weights.max() > 0.5  # one over n would not tell w from w^2
    gradient = complex_step(lambda p: surrogate(p, model, x, noise, frozen, weights), frozen)
    if model.estimator == "dreg":  # doubly reparameterized is q's half; the model's own keeps the first power
        bound = complex_step(
            lambda p: log_mean_exp(np.subtract(sum(pieces(p, model, x, noise, frozen)[:2]), log_q)).mean(), frozen
        )
        gradient[model._encoder.params.size :] = bound[model._encoder.params.size :]
    return gradient


@pytest.mark.parametrize("estimator", ["stl", "iwae", "dreg"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("likelihood", ["gaussian", "binomial"])
def test_the_gradient_of_a_step_against_the_complex_step(estimator, covariance_type, likelihood, rng):
    x = rows_of(likelihood, rng, ROWS)
    settings = {"covariance_type": covariance_type, "estimator": estimator, "num_samples": DRAWS, "lr": 0.0}
    for kl_weight in (1.0, 0.5) if estimator == "stl" else (1.0,):
        model = at_random(make(likelihood, batch_size=ROWS, kl_weight=kl_weight, **settings), x, rng)
        actual = step_gradient(model, x)
        exact = exact_gradient(model, x, noise_of(model, range(ROWS), step=1))
        assert (exact != 0).all()
        assert np.abs(actual - exact).max() <= 1e-9 * np.abs(exact).max()


def test_a_fit_tells_the_bound_that_it_maximizes(rng):
    """At lr = 0, with the noise of step 0: the mean log weight of "stl", the log of the mean weight of the others."""
    x = rows_of("gaussian", rng, ROWS)
    for estimator in ("stl", *IMPORTANCE):
        arguments = {"estimator": estimator, "num_samples": DRAWS, "lr": 0.0, "batch_size": ROWS, "epochs": 1}
        model = make(**arguments).fit(x)
        noise = noise_of(model, range(ROWS), step=0)
        log_likelihood, log_prior, log_q, _ = pieces(model._params, model, x, noise, model._params)
        log_weights = log_likelihood + log_prior - log_q
        value = (log_mean_exp(log_weights) if estimator in IMPORTANCE else log_weights).mean()
        assert model.history_["elbo"] == pytest.approx(value, rel=1e-12)


# ---- at the posterior


def at_the_posterior(x, rng, covariance_type, **arguments):
    """A linear VAE whose encoder gives the exact posterior; that is diagonal where the loadings are orthogonal."""
    d, n = 2, x.shape[1]
    model = make(hidden=(), noise_scale=0.7, lr=0.0, batch_size=len(x), covariance_type=covariance_type, **arguments)
    model.partial_fit(x)
    weight, bias = rng.standard_normal((d, n)), rng.standard_normal(n)
    if covariance_type == "diag":
        weight = np.linalg.svd(weight, full_matrices=False)[2] * [[2.0], [0.5]]
    covariance = np.linalg.inv(np.eye(d) + weight @ weight.T / 0.7**2)
    scale_tril = np.linalg.cholesky(covariance)
    to_loc = weight.T @ covariance / 0.7**2
    vector = np.log(np.diag(scale_tril)) if covariance_type == "diag" else rp.vector_from_tril(scale_tril)
    encoder, decoder = model._encoder.views, model._decoder.views
    encoder["weight0"][...] = np.hstack([to_loc, np.zeros((n, len(vector)))])
    encoder["bias0"][...] = np.concatenate([-bias @ to_loc, vector])
    decoder["weight0"][...], decoder["bias0"][...] = weight, bias
    evidence = stats.multivariate_normal(bias, weight.T @ weight + 0.49 * np.eye(n)).logpdf(x)
    return SimpleNamespace(model=model, evidence=evidence)


@pytest.mark.parametrize("num_samples", [1, 5])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_path_derivatives_are_zero_at_the_posterior_and_every_bound_is_the_evidence(covariance_type, num_samples, rng):
    x = rows_of("gaussian", rng, ROWS)
    largest = {}
    for estimator in ("pathwise", "stl", "iwae", "dreg"):
        made = at_the_posterior(
            x, np.random.default_rng(3), covariance_type, estimator=estimator, num_samples=num_samples
        )
        step_gradient(made.model, x)
        largest[estimator] = np.abs(made.model._encoder_grads).max()
        assert np.abs(made.model._decoder_grads).max() > 1e-3  # theta's own gradient is not zero for each draw
    assert largest["stl"] < 1e-13 * largest["pathwise"]
    assert largest["dreg"] < 1e-13 * largest["iwae"]
    q, joint = made.model.posterior(x), made.model.log_joint(x)
    for estimator in ("stl", "iwae", "dreg"):
        value = rp.elbo(q, joint, key=1, num_samples=num_samples, estimator=estimator, grad=False).value
        np.testing.assert_allclose(value, made.evidence, rtol=1e-12)


# ---- what they are for


def test_more_draws_and_a_better_gradient_give_a_better_bound_on_held_out_digits():
    """Mean over two keys of each model's own bound; the margins are half of those measured (15.1, 7.1, 1.2, 0.7)."""
    x = load_digits().data
    common = {"hidden": (32,), "likelihood": "binomial", "total_count": 16, "epochs": 20, "lr": 3e-3, "batch_size": 100}

    def bound(estimator, draws):
        models = [rp.VAE(8, **common, estimator=estimator, num_samples=draws, key=k).fit(x[:1500]) for k in (0, 1)]
        return np.mean([model.log_likelihood(x[1500:], num_samples=draws, key=1) for model in models])

    vae = bound("pathwise", 1)
    iwae, dreg = ({draws: bound(estimator, draws) for draws in (5, 50)} for estimator in IMPORTANCE)
    assert iwae[5] > vae + 7
    assert iwae[50] > iwae[5] + 3
    assert dreg[5] > iwae[5] + 0.6
    assert dreg[50] > iwae[50] + 0.35


# ---- what is refused


@pytest.mark.parametrize("estimator", IMPORTANCE)
def test_a_bound_without_a_kl_term_has_none_to_weigh(estimator, rng):
    message = rf"kl_weight must be 1 with estimator='{estimator}', whose .* no KL term to weigh, got 0\.5"
    with pytest.raises(ValueError, match=f"VAE: {message}"):
        rp.VAE(2, estimator=estimator, kl_weight=0.5)
    optimizer = rp.optim.Adam(np.zeros(2))
    arguments = {"num_rows": 2, "key": 0, "batch_size": 2, "epochs": range(1), "estimator": estimator, "kl_weight": 0.5}
    with pytest.raises(ValueError, match=f"maximize_elbo: {message}"):
        rp.maximize_elbo(lambda rows: None, lambda rows: None, optimizer, np.zeros(2), **arguments)
    make(estimator=estimator, kl_weight=1).fit(rows_of("gaussian", rng))


@pytest.mark.parametrize("spoiled", ["log_prob", "gradient"])
@pytest.mark.parametrize("estimator", ["pathwise", "stl", *IMPORTANCE])
def test_rows_without_a_finite_bound_or_gradient_are_named_and_move_nothing(estimator, spoiled, rng):
    """Row 3 is NaN, row 7 has no density anywhere; or both have a gradient that is NaN, at the third step."""
    head, params = rp.nn.GaussianHead(2, "full"), 0.1 * rng.standard_normal((8, 5))
    grads, seen = np.zeros(params.size), []

    def encode(rows):
        q, pullback = head.encode(params[rows])

        def scatter(grad):
            grads[...] = 0
            grads.reshape(params.shape)[rows] = pullback(grad)

        return q, scatter

    def log_joint(rows):
        seen.append(rows)

        def density(z):
            log_prob, gradient = -0.5 * (z * z).sum(-1), -z
            if len(seen) == 3 and spoiled == "log_prob":
                log_prob[:, rows == 3], log_prob[:, rows == 7] = np.nan, -np.inf
            if len(seen) == 3 and spoiled == "gradient":
                gradient[:, (rows == 3) | (rows == 7)] = np.nan
            return log_prob, gradient

        return density

    before = []
    settings = {"num_rows": 8, "key": 3, "batch_size": 8, "epochs": range(5), "num_samples": 3, "estimator": estimator}
    settings["on_step"] = lambda step, *_: before.append(params.copy()) or False
    adam = rp.optim.Adam(params.reshape(-1), lr=0.1)
    message = r"training diverged at step 3 \(epoch 2\): .* not finite in rows 3, 7 of the data; lower lr"
    with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
        rp.maximize_elbo(encode, log_joint, adam, grads, **settings)
    assert len(before) == 2
    np.testing.assert_array_equal(params, before[-1])


def test_a_row_that_a_vae_cannot_reach_is_named(rng):
    """Its square overflows float32, and with it the row's log density."""
    x = rows_of("gaussian", rng).astype(np.float32)
    x[6] = 1e25
    model = make(dtype="float32", batch_size=ROWS, noise_scale=1.0)
    with pytest.raises(ValueError, match=r"training diverged at step 1 \(epoch 0\): .* in row 6 of the data"):
        model.fit(x)
    with pytest.raises(ValueError, match=r"VAE: x must be finite in float32, got nan at \[4, 2\]"):
        model.fit(np.where(np.arange(50).reshape(10, 5) == 22, np.nan, x))
