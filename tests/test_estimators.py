# SPDX-License-Identifier: MIT
"""The four estimators for the three families and every target: exact gradients, zero where they must be, unbiased."""

from types import SimpleNamespace

import numpy as np
import pytest

import reparam as rp
from support import UNIT, relative_error, same_bits

BATCH, D, N, DRAWS, KEY = (2, 3), 3, 6, 70, 77
ESTIMATORS = ["pathwise", "stl", "iwae", "dreg"]
FAMILIES = ["diag", "full", "packed"]
TARGETS = ["gaussian", "linear_gaussian", "logistic", "poisson", "normal"]
TRIANGLE = np.tril_indices(D)

backend_axis = pytest.mark.usefixtures("backend")


# ---- problems


def scale_tril_of(rng, batch=BATCH, d=D):
    return np.tril(0.4 * rng.standard_normal((*batch, d, d)), -1) + rng.uniform(0.3, 1.2, (*batch, 1, d)) * np.eye(d)


def make_q(family, rng, batch=BATCH):
    loc = 0.5 * rng.standard_normal((*batch, D))
    if family == "diag":
        return rp.MultivariateNormalDiag(loc, rng.uniform(0.3, 1.2, (*batch, D)))
    scale_tril = scale_tril_of(rng, batch)
    if family == "packed":
        return rp.MultivariateNormal(loc, scale_tril=scale_tril[(..., *TRIANGLE)], packed=True)
    return rp.MultivariateNormal(loc, scale_tril=scale_tril)


def make_target(name, rng):
    """A target, and the same density written over any array of z, complex ones too."""
    if name == "gaussian":
        loc, scale_tril = rng.standard_normal((*BATCH, D)), scale_tril_of(rng)
        precision = np.linalg.inv(scale_tril @ scale_tril.swapaxes(-1, -2))
        det = np.log(np.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)

        def density(z):
            r = z - loc
            return -0.5 * np.einsum("...i,...ij,...j", r, precision, r) - det - D / 2 * np.log(2 * np.pi)

        return rp.targets.Gaussian(loc, scale_tril), density
    if name == "linear_gaussian":
        x, weight, bias = rng.standard_normal((*BATCH, N)), rng.standard_normal((N, D)), rng.standard_normal(N)

        def density(z):
            r = (x - z @ weight.T - bias) / 0.7
            return -0.5 * ((z * z).sum(-1) + (r * r).sum(-1) + (N + D) * np.log(2 * np.pi)) - N * np.log(0.7)

        return rp.targets.LinearGaussian(x, weight, bias, 0.7), density
    features, prior_scale = rng.standard_normal((*BATCH, N, D)), rng.uniform(0.5, 2, BATCH)
    y = {
        "logistic": lambda: rng.integers(0, 2, (*BATCH, N)),
        "poisson": lambda: rng.integers(0, 5, (*BATCH, N)),
        "normal": lambda: rng.standard_normal((*BATCH, N)),
    }[name]()
    keywords = {"noise_scale": 0.6} if name == "normal" else {}
    factorial = np.array([1, 1, 2, 6, 24])

    def density(z):
        eta = np.einsum("...nd,s...d->s...n", features, z)
        prior = -0.5 * ((z / prior_scale[..., None]) ** 2).sum(-1) - D * np.log(prior_scale * np.sqrt(2 * np.pi))
        terms = {
            "logistic": lambda: y * eta - np.log(1 + np.exp(eta)),
            "poisson": lambda: y * eta - np.exp(eta) - np.log(factorial[y.astype(int)]),
            "normal": lambda: -0.5 * ((y - eta) / 0.6) ** 2 - np.log(0.6 * np.sqrt(2 * np.pi)),
        }[name]()
        return prior + terms.sum(-1)

    return rp.targets.GLM(features, y, family=name, prior_scale=prior_scale, **keywords), density


def as_callable(density):
    """Value and gradient, by the complex step."""

    def log_joint(z):
        grad = np.stack([density(z + 1e-30j * np.eye(D)[i]).imag / 1e-30 for i in range(D)], axis=-1)
        return density(z), grad

    return log_joint


@pytest.fixture(params=TARGETS)
def problem(request, rng):
    target, density = make_target(request.param, rng)
    return SimpleNamespace(target=target, density=density, log_joint=as_callable(density))


@pytest.fixture(params=FAMILIES)
def q(request, rng):
    return make_q(request.param, rng)


def dense(q, entries=None):
    """The scale, or entries laid out like it, as lower factors."""
    entries = q._scale if entries is None else entries
    if isinstance(q, rp.MultivariateNormalDiag):
        return entries[..., None] * np.eye(D)
    if entries.shape[-1] == D and entries.ndim == q.loc.ndim + 1:
        return np.tril(entries)
    out = np.zeros((*entries.shape[:-1], D, D), entries.dtype)
    out[(..., *TRIANGLE)] = entries
    return out


def scale_gradient(q, grad):
    return grad.scale_diag if isinstance(q, rp.MultivariateNormalDiag) else grad.scale_tril


def noise_of(q, draws=DRAWS):
    standard = rp.MultivariateNormalDiag(np.zeros_like(q.loc), np.ones_like(q.loc))
    return standard.rsample((draws,), key=KEY)


# ---- values and gradients


def bound(problem, estimator, noise, loc, scale_tril, frozen=None):
    """The estimate over real or complex fields; the density of q is that of the `frozen` fields, if there are any."""
    z = loc + np.einsum("...ij,s...j->s...i", scale_tril, noise)
    diagonal = np.diagonal(scale_tril, axis1=-2, axis2=-1)
    log_p = problem.density(z)
    if estimator == "pathwise":
        return log_p.mean(0) + np.log(diagonal).sum(-1) + D / 2 * (1 + np.log(2 * np.pi))
    if frozen is None:
        log_q = -np.log(diagonal).sum(-1) - 0.5 * (noise**2).sum(-1) - D / 2 * np.log(2 * np.pi)
    else:
        y = np.linalg.solve(frozen[1], (z - frozen[0])[..., None])[..., 0]
        log_q = -np.log(np.diagonal(frozen[1], axis1=-2, axis2=-1)).sum(-1) - 0.5 * (y * y).sum(-1)
        log_q = log_q - D / 2 * np.log(2 * np.pi)
    log_w = log_p - log_q
    if estimator == "stl":
        return log_w.mean(0)
    if estimator == "dreg":  # sum of the squared weights, which are constants, times log w
        weights = np.exp(log_w.real - log_w.real.max(0))
        return ((weights / weights.sum(0)) ** 2 * log_w).sum(0)
    top = log_w.real.max(0)
    return top + np.log(np.exp(log_w - top).mean(0))


def exact_gradient(problem, estimator, q):
    """By the complex step in each entry of loc and scale; of stl and dreg with the score of q left out."""
    noise, loc, scale = noise_of(q), q.loc, dense(q)
    frozen = (loc, scale) if estimator in {"stl", "dreg"} else None
    ct_loc, ct_scale = np.zeros_like(loc), np.zeros_like(scale)
    for i in range(D):
        moved = loc + 1e-30j * np.eye(D)[i]
        ct_loc[..., i] = bound(problem, estimator, noise, moved, scale, frozen).imag / 1e-30
        for j in range(i + 1):
            moved = scale.astype(complex)
            moved[..., i, j] += 1e-30j
            ct_scale[..., i, j] = bound(problem, estimator, noise, loc, moved, frozen).imag / 1e-30
    return ct_loc, ct_scale


@backend_axis
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_value_and_gradient_against_the_complex_step(problem, q, estimator):
    estimate = rp.elbo(q, problem.target, key=KEY, num_samples=DRAWS, estimator=estimator)
    plain = "iwae" if estimator == "dreg" else estimator
    np.testing.assert_allclose(estimate.value, bound(problem, plain, noise_of(q), q.loc, dense(q)), rtol=1e-11)
    ct_loc, ct_scale = exact_gradient(problem, estimator, q)
    found = dense(q, scale_gradient(q, estimate.grad))
    wanted = ct_scale * np.eye(D) if isinstance(q, rp.MultivariateNormalDiag) else ct_scale
    assert estimate.grad.loc.shape == q.loc.shape
    assert relative_error(estimate.grad.loc, ct_loc, events=len(BATCH)).max() < 1e-9
    assert relative_error(found, wanted, events=len(BATCH)).max() < 1e-9


@backend_axis
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_callable_pullback_and_fused_target_agree(problem, q, estimator):
    seen = []

    def with_pullback(z):
        log_prob, grad = problem.log_joint(z)

        def pullback(weights):
            seen.append(weights)
            return weights[..., None] * grad

        return log_prob, pullback

    settings = {"key": KEY, "num_samples": DRAWS, "estimator": estimator}
    fused = rp.elbo(q, problem.target, **settings)
    for log_joint in (problem.log_joint, with_pullback):
        other = rp.elbo(q, log_joint, **settings)
        for name in ("value", "standard_error", "log_weights", "weights"):
            np.testing.assert_allclose(getattr(other, name), getattr(fused, name), rtol=1e-9, atol=1e-13)
        assert relative_error(other.grad.loc, fused.grad.loc, events=len(BATCH)).max() < 1e-9
        one, two = scale_gradient(q, other.grad), scale_gradient(q, fused.grad)
        assert relative_error(one, two, events=len(BATCH)).max() < 1e-9
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0], fused.weights, rtol=1e-9, atol=1e-13)


@backend_axis
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_and_standard_error_are_those_of_the_draws(problem, q, estimator):
    estimate = rp.elbo(q, problem.target, key=KEY, num_samples=DRAWS, estimator=estimator)
    z = q.rsample((DRAWS,), key=KEY)
    log_p, log_q = problem.density(z), q.log_prob(z)
    log_w = log_p - log_q
    np.testing.assert_allclose(estimate.log_weights, log_w, rtol=1e-10, atol=1e-11)
    softmax = np.exp(log_w - log_w.max(0)) / np.exp(log_w - log_w.max(0)).sum(0)
    weights = softmax if estimator in {"iwae", "dreg"} else np.full_like(log_w, 1 / DRAWS)
    np.testing.assert_allclose(estimate.weights, weights, rtol=1e-9)
    error = {
        "pathwise": log_p.std(0, ddof=1) / np.sqrt(DRAWS),
        "stl": log_w.std(0, ddof=1) / np.sqrt(DRAWS),
    }.get(estimator, np.sqrt(DRAWS / (DRAWS - 1) * ((softmax - 1 / DRAWS) ** 2).sum(0)))
    np.testing.assert_allclose(estimate.standard_error, error, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_standard_error_is_the_spread_of_the_value(estimator, rng):
    target, _ = make_target("linear_gaussian", rng)
    wide = rp.MultivariateNormal(0.1 * rng.standard_normal((*BATCH, D)), scale_tril=0.7 * np.eye(D))
    estimates = [rp.elbo(wide, target, key=k, num_samples=200, estimator=estimator, grad=False) for k in range(300)]
    spread = np.std([e.value for e in estimates], axis=0, ddof=1)
    said = np.sqrt(np.mean([e.standard_error**2 for e in estimates], axis=0))
    ratio = spread / said
    assert np.median(ratio) == pytest.approx(1, abs=0.25)


# ---- at the posterior


def posterior_of(target):
    """Of the linear-Gaussian target, and its log evidence."""
    precision = np.eye(D) + target.weight.T @ target.weight / target.noise_scale**2
    covariance = np.linalg.inv(precision)
    loc = (target.x - target.bias) @ target.weight @ covariance / target.noise_scale**2
    marginal = target.weight @ target.weight.T + target.noise_scale**2 * np.eye(N)
    r = target.x - target.bias
    quadratic = np.einsum("...i,ij,...j", r, np.linalg.inv(marginal), r)
    return loc, np.linalg.cholesky(covariance), -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * marginal)[1])


@backend_axis
@pytest.mark.parametrize("draws", [1, 2, DRAWS])
@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_gradient_is_zero_at_the_posterior_for_every_draw(estimator, draws, rng):
    target, density = make_target("linear_gaussian", rng)
    loc, scale_tril, log_evidence = posterior_of(target)
    q = rp.MultivariateNormal(loc, scale_tril=np.broadcast_to(scale_tril, (*BATCH, D, D)))
    estimate = rp.elbo(q, target, key=KEY, num_samples=draws, estimator=estimator)
    np.testing.assert_allclose(estimate.value, log_evidence, rtol=0, atol=1e-10)
    size = np.abs(as_callable(density)(q.rsample((draws,), key=KEY))[1]).max()
    limit = 10 * np.linalg.cond(scale_tril) ** 2 * 2.0**-53 * size
    assert np.abs(estimate.grad.loc).max() <= limit
    assert np.abs(estimate.grad.scale_tril).max() <= 4 * limit  # times a normal
    noisy = rp.elbo(q, target, key=KEY, num_samples=draws, estimator="pathwise")
    assert np.abs(noisy.grad.loc).max() > 1e6 * limit


@backend_axis
def test_at_a_gaussian_target_itself_every_weight_is_one_over_n(rng):
    target, _ = make_target("gaussian", rng)
    q = rp.MultivariateNormal(target.loc, scale_tril=target.scale_tril)
    for estimator in ESTIMATORS:
        estimate = rp.elbo(q, target, key=KEY, num_samples=9, estimator=estimator)
        np.testing.assert_allclose(estimate.log_weights, np.zeros((9, *BATCH)), atol=1e-12)
        np.testing.assert_allclose(estimate.weights, np.full((9, *BATCH), 1 / 9), rtol=1e-12)


# ---- unbiased


def gradients(target, q, estimator, draws, repeats):
    """Gradients in loc and in the lower triangle, [repeats, B, entries], from draws that share nothing."""
    found = []
    for k in range(repeats):
        grad = rp.elbo(q, target, key=rp.random.fold_in(KEY, k), num_samples=draws, estimator=estimator).grad
        found.append(np.concatenate([grad.loc, grad.scale_tril[(..., *TRIANGLE)]], axis=-1))
    return np.array(found)


def t_statistic(samples):
    return samples.mean(0) / (samples.std(0, ddof=1) / np.sqrt(len(samples)))


@pytest.mark.parametrize("estimator", ["pathwise", "stl"])
def test_gradient_of_the_elbo_is_unbiased(estimator, rng):
    """E of both: of KL to the posterior, exact."""
    target, _ = make_target("linear_gaussian", rng)
    loc, scale_tril, _ = posterior_of(target)
    q = make_q("full", rng)
    precision = np.linalg.inv(scale_tril @ scale_tril.T)
    ct_loc = -(q.loc - loc) @ precision
    ct_scale = np.tril(-precision @ q.scale_tril)
    ct_scale = ct_scale + np.eye(D) / np.diagonal(q.scale_tril, axis1=-2, axis2=-1)[..., None]
    exact = np.concatenate([ct_loc, ct_scale[(..., *TRIANGLE)]], axis=-1)
    samples = gradients(target, q, estimator, draws=4, repeats=600)
    assert np.abs(t_statistic(samples - exact)).max() < 4.5
    assert np.abs(t_statistic(samples - 1.5 * exact)).max() > 4.5  # so it could have failed


def test_both_gradients_of_the_importance_weighted_bound_have_one_mean(rng):
    target, _ = make_target("linear_gaussian", rng)
    loc, scale_tril, _ = posterior_of(target)
    q = rp.MultivariateNormal(loc + 0.2, scale_tril=np.broadcast_to(1.3 * scale_tril, (*BATCH, D, D)))
    iwae = gradients(target, q, "iwae", draws=5, repeats=1500)
    dreg = gradients(target, q, "dreg", draws=5, repeats=1500)
    stl = gradients(target, q, "stl", draws=5, repeats=1500)
    assert np.abs(t_statistic(iwae - dreg)).max() < 4.5
    assert np.abs(t_statistic(iwae - stl)).max() > 4.5  # another bound: so it could have failed
    assert (dreg.var(0) < iwae.var(0)).mean() > 0.9  # what it is for


def test_the_importance_weighted_bound_grows_with_the_draws_towards_the_evidence(rng):
    target, _ = make_target("linear_gaussian", rng)
    *_, log_evidence = posterior_of(target)
    q = make_q("diag", rng)
    values = []
    for draws in (1, 10, 100, 3000):
        runs = [rp.elbo(q, target, key=k, num_samples=draws, estimator="iwae", grad=False).value for k in range(30)]
        values.append(np.mean(runs, axis=0))
    gaps = log_evidence - np.array(values)
    assert (np.diff(gaps.mean((1, 2))) < 0).all()
    assert np.abs(gaps[-1]).max() < 0.2 * np.abs(gaps[0]).min()


# ---- families and fields


@backend_axis
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_normal_is_the_diagonal_family_with_one_coordinate(estimator, rng, dtype):
    loc, scale = rng.standard_normal(BATCH).astype(dtype), rng.uniform(0.5, 1.5, BATCH).astype(dtype)
    scalar, vector = rp.Normal(loc, scale), rp.MultivariateNormalDiag(loc[..., None], scale[..., None])
    one = rp.elbo(scalar, lambda z: (-(z**4), -4 * z**3), key=KEY, num_samples=9, estimator=estimator)
    two = rp.elbo(vector, lambda z: (-(z[..., 0] ** 4), -4 * z**3), key=KEY, num_samples=9, estimator=estimator)
    for name in ("value", "standard_error", "log_weights", "weights"):
        same_bits(getattr(one, name), getattr(two, name))
    same_bits(one.grad.loc, two.grad.loc[..., 0])
    same_bits(one.grad.scale, two.grad.scale_diag[..., 0])
    one, two = scalar.rsample((9,), key=KEY), vector.rsample((9,), key=KEY)[..., 0]
    np.testing.assert_allclose(
        one, two, rtol=0, atol=8 * UNIT[dtype]
    )  # two ops, which round the same noise alike or not


def test_normal_takes_a_target_of_one_coordinate(rng):
    target = rp.targets.Gaussian(np.array([0.5]), np.array([[2.0]]))
    estimate = rp.elbo(rp.Normal(np.array([0.5, 1.0]), 2.0), target, key=KEY, num_samples=5)
    np.testing.assert_allclose(estimate.log_weights[:, 0], np.zeros(5), atol=1e-12)
    assert estimate.grad.scale.shape == ()


@backend_axis
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_packed_factors_give_the_bits_of_dense_ones(problem, estimator, rng):
    full = make_q("full", rng)
    packed = rp.MultivariateNormal(full.loc, scale_tril=full.scale_tril[(..., *TRIANGLE)], packed=True)
    one, two = (rp.elbo(q, problem.target, key=KEY, num_samples=9, estimator=estimator) for q in (full, packed))
    same_bits(one.value, two.value)
    same_bits(one.log_weights, two.log_weights)
    same_bits(one.grad.loc, two.grad.loc)
    same_bits(one.grad.scale_tril[(..., *TRIANGLE)], two.grad.scale_tril)


@backend_axis
@pytest.mark.parametrize("name", ["covariance_matrix", "precision_matrix"])
def test_gradient_in_the_matrix_that_q_was_made_from(name, rng):
    """Along random symmetric directions, against central differences of the value, to what those can show."""
    target, _ = make_target("linear_gaussian", rng)
    factor = scale_tril_of(rng)
    matrix, loc = factor @ factor.swapaxes(-1, -2), rng.standard_normal((*BATCH, D))

    def value(m):
        return rp.elbo(rp.MultivariateNormal(loc, **{name: m}), target, key=KEY, num_samples=20).value

    grad = rp.elbo(rp.MultivariateNormal(loc, **{name: matrix}), target, key=KEY, num_samples=20).grad
    found = getattr(grad, name)
    np.testing.assert_array_equal(found, found.swapaxes(-1, -2))
    for _ in range(4):
        v = rng.standard_normal((*BATCH, D, D))
        v = v + v.swapaxes(-1, -2)
        step = 1e-6
        slope = (value(matrix + step * v) - value(matrix - step * v)) / (2 * step)
        np.testing.assert_allclose((found * v).sum((-1, -2)), slope, rtol=2e-6, atol=2e-6)


# ---- hostile densities


@backend_axis
@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_a_draw_of_zero_density_has_weight_zero(estimator, rng):
    q = make_q("diag", rng)

    def log_joint(z):
        log_prob = np.where(np.arange(6)[:, None, None] == 2, -np.inf, -0.5 * (z * z).sum(-1))
        return log_prob, np.where(np.arange(6)[:, None, None, None] == 2, 0.0, -z)

    estimate = rp.elbo(q, log_joint, key=KEY, num_samples=6, estimator=estimator)
    assert (estimate.weights[2] == 0).all()
    assert np.isfinite(estimate.value).all()
    assert np.isfinite(estimate.grad.loc).all()


@backend_axis
def test_no_density_anywhere_is_a_bound_of_minus_infinity(rng):
    q = make_q("diag", rng)
    estimate = rp.elbo(q, lambda z: (np.full(z.shape[:-1], -np.inf), 0 * z), key=KEY, num_samples=4, estimator="iwae")
    assert (estimate.value == -np.inf).all()
    assert np.isnan(estimate.weights).all()
    assert np.isnan(estimate.grad.loc).all()


@backend_axis
def test_huge_log_weights_do_not_overflow(rng, dtype):
    q = rp.MultivariateNormalDiag(np.zeros(D, dtype), np.ones(D, dtype))
    near, far = (
        rp.elbo(q, lambda z, c=c: (c - 0.5 * (z * z).sum(-1), -z), key=KEY, num_samples=8, estimator="iwae")
        for c in (0, -2000)
    )
    np.testing.assert_allclose(far.value, near.value - 2000, rtol=1e-5)
    np.testing.assert_allclose(far.weights, near.weights, rtol=1e-2 if dtype == "float32" else 1e-9)


# ---- bad input


def glm(**changed):
    settings = {"features": np.ones((4, 2)), "y": np.ones(4), "family": "logistic", "prior_scale": 1.0, **changed}
    features, y = settings.pop("features"), settings.pop("y")
    return rp.targets.GLM(features, y, **settings)


BAD = {
    "features of one dim": (ValueError, lambda: glm(features=np.ones(4)), "features must have shape (..., n, d)"),
    "integer features": (TypeError, lambda: glm(features=np.ones((4, 2), int)), "features must be float32 or float64"),
    "y too short": (ValueError, lambda: glm(y=np.ones(3)), "y must have shape (..., n) with n = 4 (from features)"),
    "y of another dtype": (TypeError, lambda: glm(y=np.ones(4, "float32")), "features is float64 and y is float32"),
    "y not 0 or 1": (ValueError, lambda: glm(y=np.array([0, 1, 2, 1])), "y must be 0 or 1 for the logistic family"),
    "half a count": (ValueError, lambda: glm(y=np.full(4, 0.5), family="poisson"), "whole numbers >= 0"),
    "negative count": (ValueError, lambda: glm(y=np.full(4, -1.0), family="poisson"), "got -1.0 at [0]"),
    "y not finite": (ValueError, lambda: glm(y=np.full(4, np.nan)), "y must be finite, got nan at [0]"),
    "unknown family": (ValueError, lambda: glm(family="gamma"), "family must be one of"),
    "prior_scale of zero": (ValueError, lambda: glm(prior_scale=0.0), "prior_scale must be finite and > 0"),
    "noise_scale elsewhere": (ValueError, lambda: glm(noise_scale=2.0), "noise_scale belongs to the normal family"),
    "scale_tril of another size": (
        ValueError,
        lambda: rp.targets.Gaussian(np.zeros(2), np.eye(3)),
        "scale_tril must have shape (..., d, d) with d = 2 (from loc), got (3, 3)",
    ),
    "scale_tril with a zero": (
        ValueError,
        lambda: rp.targets.Gaussian(np.zeros(2), np.diag([1.0, 0.0])),
        "the diagonal of scale_tril must be finite and > 0, got 0.0",
    ),
    "loc of no dim": (
        ValueError,
        lambda: rp.targets.Gaussian(np.array(0.0), np.eye(1)),
        "loc must have shape (..., d)",
    ),
    "batches": (
        ValueError,
        lambda: rp.targets.Gaussian(np.zeros((2, 3)), np.broadcast_to(np.eye(3), (4, 3, 3))),
        "batch shapes do not broadcast",
    ),
    "target of another size": (
        ValueError,
        lambda: rp.elbo(rp.Normal(0.0, 1.0), glm(), key=0),
        "the target's latent_dim is 2, but q has event shape ()",
    ),
    "no such estimator": (
        ValueError,
        lambda: rp.elbo(rp.Normal(0.0, 1.0), lambda z: (z, z), key=0, estimator="score"),
        "estimator must be one of",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    error, call, text = BAD[case]
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
