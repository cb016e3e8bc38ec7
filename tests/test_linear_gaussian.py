# SPDX-License-Identifier: MIT
"""The linear-Gaussian model and probabilistic PCA against dense Gaussians, 50 digits and golden likelihoods."""

import copy
import itertools
import pickle

import mpmath
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA

import reparam as rp
from support import same_bits

DATA_DIM, LATENT_DIM, ROWS = 4, 2, 6
IRIS, DIGITS, _wine = load_iris().data, load_digits().data, load_wine().data
WINE = (_wine - _wine.mean(0)) / _wine.std(0)
#: Data, latents, maximum of the log likelihood.
GOLDEN = {"iris": (IRIS, 2, -404.962780), "wine": (WINE, 2, -2875.636260), "digits": (DIGITS, 10, -287508.734969)}
PATTERNS = [*itertools.product((0, 1), repeat=DATA_DIM)]


@pytest.fixture
def model(rng):
    weight, bias = rng.standard_normal((DATA_DIM, LATENT_DIM)), rng.standard_normal(DATA_DIM)
    return rp.LinearGaussianModel(weight, bias, 0.6)


@pytest.fixture
def x(rng):
    return rng.standard_normal((ROWS, DATA_DIM)) * np.arange(1, DATA_DIM + 1) + 3


def joint(model):
    """Mean and covariance of (x, z), dense."""
    w, k = model.weight, model.weight.shape[1]
    covariance = np.block([[w @ w.T + model.noise_scale**2 * np.eye(len(w)), w], [w.T, np.eye(k)]])
    return np.concatenate([model.bias, np.zeros(k)]), covariance


def conditional(model, row, seen):
    """Of z given the seen entries of one row, and their log density: by the rules for a joint Gaussian."""
    mean, covariance = joint(model)
    a, b = np.flatnonzero(seen), np.arange(DATA_DIM, len(mean))
    gain = np.linalg.solve(covariance[np.ix_(a, a)], covariance[np.ix_(a, b)]).T
    residual = row[a] - mean[a]
    log_evidence = stats.multivariate_normal(mean[a], covariance[np.ix_(a, a)]).logpdf(row[a]) if len(a) else 0.0
    return gain @ residual, covariance[np.ix_(b, b)] - gain @ covariance[np.ix_(a, b)], log_evidence


# ---- inference is exact


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("seen", PATTERNS, ids=lambda pattern: "".join(map(str, pattern)))
def test_posterior_and_evidence_are_those_of_the_dense_gaussian_whatever_was_seen(model, x, seen):
    observed = np.tile(seen, (ROWS, 1))
    hidden = np.where(observed == 1, x, np.nan)
    q, evidence = model.posterior(hidden, observed=observed), model.log_evidence(hidden, observed=observed)
    assert (q.batch_shape, q.event_shape) == ((ROWS,), (LATENT_DIM,))
    for k, row in enumerate(x):
        loc, covariance, log_evidence = conditional(model, row, seen)
        np.testing.assert_allclose(q.mean[k], loc, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(q.covariance_matrix[k], covariance, rtol=1e-11, atol=1e-13)
        assert evidence[k] == pytest.approx(log_evidence, rel=1e-12, abs=1e-13)
    same_bits(model.map_estimate(hidden, observed=observed), q.loc)


def test_every_row_may_have_a_pattern_of_its_own(model, rng):
    x, observed = rng.standard_normal((len(PATTERNS), DATA_DIM)), np.array(PATTERNS, bool)
    q, evidence = model.posterior(x, observed=observed), model.log_evidence(x, observed=observed)
    for k, (row, seen) in enumerate(zip(x, PATTERNS, strict=True)):
        loc, covariance, log_evidence = conditional(model, row, seen)
        np.testing.assert_allclose(q.mean[k], loc, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(q.covariance_matrix[k], covariance, rtol=1e-11, atol=1e-13)
        assert evidence[k] == pytest.approx(log_evidence, rel=1e-12, abs=1e-13)


def test_without_a_mask_all_was_seen(model, x):
    everything = np.ones_like(x)
    np.testing.assert_allclose(model.log_evidence(x), model.log_evidence(x, observed=everything), rtol=1e-13)
    plain, masked = model.posterior(x), model.posterior(x, observed=everything)
    np.testing.assert_allclose(plain.loc, masked.loc, rtol=1e-12)
    np.testing.assert_allclose(plain.scale_tril, masked.scale_tril, rtol=1e-12)


@pytest.mark.parametrize("noise_scale", [1e-6, 1e-3, 1.0, 1e6])
def test_evidence_and_posterior_have_the_digits_of_the_data_at_any_noise(noise_scale, rng):
    """Against 50 digits; the expanded form of the evidence would lose 1/noise_scale^2 of them."""
    weight, bias = rng.standard_normal((3, 2)), rng.standard_normal(3)
    model, z = rp.LinearGaussianModel(weight, bias, noise_scale), rng.standard_normal(2)
    row = weight @ z + bias + noise_scale * rng.standard_normal(3)
    with mpmath.workdps(50):
        w, r = mpmath.matrix(weight.tolist()), mpmath.matrix(row.tolist()) - mpmath.matrix(bias.tolist())
        covariance = w * w.T + mpmath.mpf(noise_scale) ** 2 * mpmath.eye(3)
        square = (r.T * mpmath.inverse(covariance) * r)[0]
        expected = float(-(square + mpmath.log(mpmath.det(covariance)) + 3 * mpmath.log(2 * mpmath.pi)) / 2)
        precision = mpmath.eye(2) + w.T * w / mpmath.mpf(noise_scale) ** 2
        loc = mpmath.inverse(precision) * w.T * r / mpmath.mpf(noise_scale) ** 2
        loc = np.array([float(entry) for entry in loc])
    assert model.log_evidence(row[None])[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(model.posterior(row[None]).loc[0], loc, rtol=1e-11)


def test_log_joint_is_the_dense_density_and_its_gradient(model, x, rng):
    z = rng.standard_normal((3, ROWS, LATENT_DIM))
    log_prob, gradient = model.log_joint(x)(z)
    mean, covariance = joint(model)
    rows = np.concatenate([np.broadcast_to(x, (3, ROWS, DATA_DIM)), z], axis=-1)
    np.testing.assert_allclose(log_prob, stats.multivariate_normal(mean, covariance).logpdf(rows), rtol=1e-11)
    for i in range(LATENT_DIM):
        step = np.zeros(LATENT_DIM)
        step[i] = 1e-6
        slope = (model.log_joint(x)(z + step)[0] - model.log_joint(x)(z - step)[0]) / 2e-6
        np.testing.assert_allclose(gradient[..., i], slope, rtol=1e-6, atol=1e-6)
    target = rp.targets.LinearGaussian(x, model.weight, model.bias, model.noise_scale)
    q = rp.MultivariateNormal(np.zeros((ROWS, LATENT_DIM)), scale_tril=np.eye(LATENT_DIM))
    ours, fused = (rp.elbo(q, log_joint, key=3, num_samples=4) for log_joint in (model.log_joint(x), target))
    np.testing.assert_allclose(ours.value, fused.value, rtol=1e-12)
    np.testing.assert_allclose(ours.grad.loc, fused.grad.loc, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hidden", [False, True], ids=["all seen", "some hidden"])
def test_at_the_posterior_every_bound_is_the_evidence_and_the_quiet_gradients_are_zero(model, x, hidden, rng):
    observed = rng.integers(0, 2, x.shape) if hidden else None
    q, evidence = model.posterior(x, observed=observed), model.log_evidence(x, observed=observed)
    log_joint = model.log_joint(x, observed)
    for estimator in ("stl", "iwae", "dreg"):
        estimate = rp.elbo(q, log_joint, key=5, num_samples=16, estimator=estimator)
        np.testing.assert_allclose(estimate.value, evidence, rtol=0, atol=1e-10)
        np.testing.assert_allclose(estimate.log_weights, np.broadcast_to(evidence, (16, ROWS)), rtol=0, atol=1e-10)
        if estimator != "iwae":
            np.testing.assert_allclose(estimate.grad.loc, 0, atol=1e-12)
            np.testing.assert_allclose(estimate.grad.scale_tril, 0, atol=1e-12)
    wider = rp.MultivariateNormal(q.loc, scale_tril=1.5 * q.scale_tril)
    assert (rp.elbo(wider, log_joint, key=5, num_samples=2000, estimator="stl").value < evidence).all()


def test_the_best_mean_field_posterior_falls_short_by_its_divergence(model, x):
    """Its variances are 1/Lambda_ii, and log p(x) - ELBO is KL(q || posterior), in closed form."""
    exact = model.posterior(x)
    precision = exact.precision_matrix
    scale = 1 / np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    q = rp.MultivariateNormalDiag(exact.loc.copy(), scale)
    estimate = rp.elbo(q, model.log_joint(x), key=1, num_samples=4000, estimator="stl")
    gap = model.log_evidence(x) - estimate.value
    assert (np.abs(gap - rp.kl_divergence(q, exact)) < 5 * estimate.standard_error + 1e-12).all()
    determinants = np.log(scale).sum(1) * 2 + np.linalg.slogdet(precision)[1]
    np.testing.assert_allclose(rp.kl_divergence(q, exact), -determinants / 2, rtol=1e-9)


# ---- generation


def test_decode_is_the_mean_and_generate_adds_the_noise(model, rng):
    z = rng.standard_normal((5, 3, LATENT_DIM))
    np.testing.assert_allclose(model.decode(z), z @ model.weight.T + model.bias, rtol=1e-14)
    noise = rp.random.normal((5, 3, DATA_DIM), key=9)
    same_bits(model.generate(z, key=9), model.decode(z) + model.noise_scale * noise)
    np.testing.assert_allclose(model.decode(z[0, 0]), model.decode(z)[0, 0], rtol=1e-14)


def test_samples_have_the_moments_of_the_evidence(model):
    x = model.sample(400_000, key=4)
    mean, covariance = (part[:DATA_DIM] for part in joint(model))
    covariance = covariance[:, :DATA_DIM]
    size = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((x.mean(0) - mean) / size, 0, atol=5 / np.sqrt(len(x)))
    np.testing.assert_allclose(np.cov(x.T) / size / size[:, None], covariance / size / size[:, None], atol=0.01)
    same_bits(model.sample(7, key=4), model.sample(7, key=4))
    z = rp.random.normal((7, LATENT_DIM), key=4)
    same_bits(model.sample(7, key=4), model.generate(z, key=rp.random.fold_in(4, 0)))


def test_no_rows_are_no_rows(model):
    assert model.sample(0, key=1).shape == (0, DATA_DIM)


def test_a_model_in_float32_has_results_in_float32(model, x):
    single = rp.LinearGaussianModel(model.weight.astype("f4"), model.bias, model.noise_scale)
    results = [
        single.posterior(x).loc, single.posterior(x).scale_tril, single.log_evidence(x), single.map_estimate(x),
        single.decode(np.zeros(LATENT_DIM)), single.generate(np.zeros(LATENT_DIM), key=0), single.sample(2, key=0),
        *single.log_joint(x)(np.zeros((1, ROWS, LATENT_DIM), "f4")),
    ]  # fmt: skip
    assert {result.dtype for result in results} == {np.dtype("f4")}
    np.testing.assert_allclose(single.log_evidence(x), model.log_evidence(x), rtol=1e-5)


@pytest.mark.parametrize("dtype", [int, bool, "f2", ">f8", np.longdouble])
def test_other_real_data_is_converted(model, dtype):
    x = np.arange(ROWS * DATA_DIM).reshape(ROWS, DATA_DIM) % 2
    same_bits(model.log_evidence(x.astype(dtype)), model.log_evidence(x.astype(float)))
    assert rp.LinearGaussianModel([[1], [2]], [0, 1], 1).weight.dtype == np.float64


# ---- probabilistic PCA


@pytest.mark.parametrize("name", GOLDEN)
def test_the_likelihood_is_the_golden_one(name):
    x, latent_dim, expected = GOLDEN[name]
    model = rp.ProbabilisticPCA(latent_dim).fit(x)
    assert model.log_evidence(x).sum() == pytest.approx(expected, abs=1e-6)
    if name == "iris":
        assert model.noise_scale_**2 == pytest.approx(0.05068215, abs=1e-8)
    theirs = PCA(latent_dim, svd_solver="full").fit(x)
    unbiased = theirs.noise_variance_ * (1 - 1 / len(x))
    assert model.noise_scale_**2 == pytest.approx(unbiased, rel=1e-9)


@pytest.mark.parametrize("name", ["iris", "wine"])
def test_no_other_parameters_are_more_likely(name, rng):
    x, latent_dim, _ = GOLDEN[name]
    model = rp.ProbabilisticPCA(latent_dim).fit(x)
    best = model.log_evidence(x).sum()
    for _ in range(20):
        scale = 10 ** rng.uniform(-3, -1)
        weight = model.weight_ + scale * rng.standard_normal(model.weight_.shape)
        other = rp.LinearGaussianModel(weight, model.bias_ + scale * rng.standard_normal(len(model.bias_)),
                                       model.noise_scale_ * np.exp(scale * rng.standard_normal()))  # fmt: skip
        assert other.log_evidence(x).sum() < best
    turn, _ = np.linalg.qr(rng.standard_normal((latent_dim, latent_dim)))
    rotated = rp.LinearGaussianModel(model.weight_ @ turn, model.bias_, model.noise_scale_)
    assert rotated.log_evidence(x).sum() == pytest.approx(best, abs=1e-9)


def test_loadings_are_orthogonal_and_of_one_sign():
    model = rp.ProbabilisticPCA(3).fit(WINE)
    gram = model.weight_.T @ model.weight_
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-12)
    assert (np.diff(np.diag(gram)) < 0).all()
    assert (model.weight_[np.abs(model.weight_).argmax(0), range(3)] > 0).all()


def test_the_best_mean_field_bound_of_rotated_loadings_is_the_golden_one():
    """A diagonal posterior loses .6808 nats a row on iris whose loadings are turned by 30 degrees."""
    fitted, angle = rp.ProbabilisticPCA(2).fit(IRIS), np.pi / 6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    model = rp.LinearGaussianModel(fitted.weight_ @ turn, fitted.bias_, fitted.noise_scale_)
    exact = model.posterior(IRIS)
    scale = 1 / np.sqrt(np.diagonal(exact.precision_matrix, axis1=1, axis2=2))
    q = rp.MultivariateNormalDiag(exact.loc, scale)
    bound = model.log_evidence(IRIS) - rp.kl_divergence(q, exact)
    assert bound.sum() == pytest.approx(-507.088309, abs=1e-6)


@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (-1e6, 1e-4), (0.0, 1e-200), (0.0, 1e200)])
def test_parameters_follow_offset_and_scale(offset, scale):
    plain, moved = rp.ProbabilisticPCA(2).fit(IRIS), rp.ProbabilisticPCA(2).fit(offset + scale * IRIS)
    rounding = 1e-9 + 1e-14 * abs(offset) / scale
    np.testing.assert_allclose(moved.weight_ / scale, plain.weight_, rtol=rounding, atol=rounding)
    assert moved.noise_scale_ / scale == pytest.approx(plain.noise_scale_, rel=100 * rounding)
    np.testing.assert_allclose((moved.bias_ - offset) / scale, plain.bias_, rtol=10 * rounding)


def test_it_is_a_linear_gaussian_model_at_its_parameters(tmp_path):
    model = rp.ProbabilisticPCA(2).fit(IRIS)
    same = rp.LinearGaussianModel(model.weight_, model.bias_, model.noise_scale_)
    assert isinstance(model, rp.LinearGaussianModel)
    observed = np.arange(IRIS.size).reshape(IRIS.shape) % 3 > 0
    for call in (
        lambda m: m.log_evidence(IRIS, observed=observed), lambda m: m.posterior(IRIS).scale_tril,
        lambda m: m.sample(3, key=1), lambda m: m.log_joint(IRIS)(np.zeros((1, 150, 2)))[1],
    ):  # fmt: skip
        same_bits(call(model), call(same))
    single = rp.ProbabilisticPCA(2).fit(IRIS.astype("f4"))
    assert {single.weight_.dtype, single.bias_.dtype, single.log_evidence(IRIS).dtype} == {np.dtype("f4")}
    np.testing.assert_allclose(single.weight_, model.weight_, atol=1e-5)


def test_fewer_rows_than_features():
    x = np.random.default_rng(0).standard_normal((5, 30))
    model = rp.ProbabilisticPCA(2).fit(x)
    covariance = model.weight_ @ model.weight_.T + model.noise_scale_**2 * np.eye(30)
    expected = stats.multivariate_normal(model.bias_, covariance).logpdf(x)
    np.testing.assert_allclose(model.log_evidence(x), expected, rtol=1e-10)


# ---- files, copies, text


def test_saved_models_come_back_whole(model, x, tmp_path):
    pca = rp.ProbabilisticPCA(2).fit(IRIS)
    for made, rows in ((model, x), (pca, IRIS)):
        made.save(tmp_path / "model.npz")
        loaded = type(made).load(tmp_path / "model.npz")
        for twin in (loaded, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert type(twin) is type(made)
            same_bits(twin.log_evidence(rows), made.log_evidence(rows))
    with pytest.raises(rp.CheckpointError, match="holds a ProbabilisticPCA, not a LinearGaussianModel"):
        rp.LinearGaussianModel.load(tmp_path / "model.npz")
    model.bias = model.bias[:2]
    model.save(tmp_path / "model.npz")
    with pytest.raises(rp.CheckpointError, match="does not describe a LinearGaussianModel"):
        rp.LinearGaussianModel.load(tmp_path / "model.npz")


def test_their_text(model):
    assert repr(model) == "LinearGaussianModel(data_dim=4, latent_dim=2, noise_scale=0.6, dtype=float64)"
    assert repr(rp.ProbabilisticPCA(3)) == "ProbabilisticPCA(3, not fitted)"
    assert repr(rp.ProbabilisticPCA(2).fit(IRIS)) == "ProbabilisticPCA(2, fitted)"
