# SPDX-License-Identifier: MIT
"""Gaussian mixtures: EM against golden bounds and scikit-learn, its ascent on hard data, draws, the bound, files."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import mixture
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_limits

import reparam as rp
from reparam.models import mixture_em
from reparam.models.mixture_start import kmeans, seeds
from support import same_bits

TYPES = ["full", "tied", "diag", "spherical"]
STARTS = ["kmeans", "k-means++", "random", "random_from_data"]
FITTED = ["weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"]
IRIS, _species = load_iris(return_X_y=True)
CLASSES = [np.flatnonzero(_species == k) for k in range(3)]
CLASS_MEANS = np.stack([IRIS[of].mean(0) for of in CLASSES])
CLASS_COVARIANCES = np.stack([np.cov(IRIS[of].T, bias=True) for of in CLASSES])
THIRDS = np.full(3, 1 / 3)
#: E-step bounds of iteration 1, 2, 5 and the last, from the classes of iris, without regularization.
GOLDEN = {
    "full": (-1.2194723240, -1.2148115893, -1.2039059521, -1.2012365142),
    "diag": (-2.0624183860, -2.0478068254, -2.0466491606, -2.0457364037),
}

pytestmark = pytest.mark.filterwarnings("ignore:GaussianMixture did not converge:RuntimeWarning")


@pytest.fixture(params=TYPES)
def covariance_type(request):
    return request.param


def precisions(covariance_type, k, d, size=3.0):
    """Positive definite ones of the shape of the type, no two alike."""
    matrices = [size * (np.eye(d) + 0.3 * np.ones((d, d)) * (1 + i) / k) for i in range(k)]
    return {
        "full": np.stack(matrices), "tied": matrices[0], "diag": np.stack([np.diag(m) for m in matrices]),
        "spherical": np.array([m[0, 0] for m in matrices]),
    }[covariance_type]  # fmt: skip


def blobs(rng, n=400, d=3, k=3, gap=4.0):
    """Rows of k Gaussians, each of its own shape."""
    shapes = np.eye(d) + 0.4 * rng.standard_normal((k, d, d))
    which = rng.integers(k, size=n)
    rows = np.einsum("nij,nj->ni", shapes[which], rng.standard_normal((n, d)))
    return rows + gap * rng.standard_normal((k, d))[which]


def fitted(rng, covariance_type, **arguments):
    x = blobs(rng)
    return rp.GaussianMixture(3, covariance_type=covariance_type, random_state=0, **arguments).fit(x), x


# ---- EM against exact answers


@pytest.mark.parametrize("covariance_type", GOLDEN)
def test_the_bounds_on_iris_are_the_golden_ones_iteration_by_iteration(covariance_type):
    inverse = np.linalg.inv(CLASS_COVARIANCES)
    variances = np.diagonal(CLASS_COVARIANCES, axis1=1, axis2=2)
    model = rp.GaussianMixture(
        3, covariance_type=covariance_type, tol=0, reg_covar=0, max_iter=2000, weights_init=THIRDS,
        means_init=CLASS_MEANS, precisions_init=inverse if covariance_type == "full" else 1 / variances,
    ).fit(IRIS)  # fmt: skip
    bounds = model.lower_bounds_
    np.testing.assert_allclose(bounds[[0, 1, 4, -1]], GOLDEN[covariance_type], rtol=0, atol=1e-9)
    assert model.lower_bound_ == bounds[-1]
    assert model.n_iter_ == len(bounds)
    assert model.score(IRIS) == pytest.approx(bounds[-1], abs=1e-12)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("given", ["all", "means", "nothing but a start at labels"])
def test_ten_iterations_agree_with_scikit_learn(covariance_type, given, monkeypatch):
    arguments = {"covariance_type": covariance_type, "tol": 0, "max_iter": 10, "reg_covar": 1e-4}
    if given != "nothing but a start at labels":
        arguments["means_init"] = CLASS_MEANS + 0.2
    if given == "all":
        arguments |= {"weights_init": [0.2, 0.3, 0.5], "precisions_init": precisions(covariance_type, 3, 4)}
    ours, theirs = rp.GaussianMixture(3, **arguments), mixture.GaussianMixture(3, **arguments)
    labels = np.arange(len(IRIS)) * 3 // len(IRIS)
    shares = (np.arange(3)[:, None] == labels).astype(float)
    monkeypatch.setattr("reparam.models.mixture_fit.start", lambda *_: lambda at, _: (shares[:, at], 0.0))
    monkeypatch.setattr(theirs, "_initialize_parameters", lambda x, *_, **__: theirs._initialize(
        x, None if given == "all" else shares.T.copy()))  # fmt: skip
    ours.fit(IRIS)
    with pytest.warns(Warning, match="did not converge"):
        theirs.fit(IRIS)
    for name in [*FITTED, "lower_bounds_", "lower_bound_"]:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-8, err_msg=name)
    for name in ("score_samples", "predict_proba", "predict", "score", "aic", "bic"):
        mine, expected = getattr(ours, name)(IRIS), getattr(theirs, name)(IRIS)
        np.testing.assert_allclose(mine, expected, rtol=1e-8, atol=1e-8, err_msg=name)
    assert (ours.n_iter_, ours.converged_, ours.n_features_in_) == (10, False, 4)


@pytest.mark.parametrize(("n", "d", "k"), [(4501, 17, 5), (1203, 40, 3), (2100, 1, 2)])
def test_rows_of_many_blocks_agree_with_scikit_learn(n, d, k, covariance_type, rng):
    x, start = blobs(rng, n, d, k), rng.standard_normal((k, d))
    arguments = {
        "covariance_type": covariance_type, "tol": 0, "max_iter": 3, "weights_init": np.full(k, 1 / k),
        "means_init": start, "precisions_init": precisions(covariance_type, k, d, 0.2),
    }  # fmt: skip
    ours, theirs = rp.GaussianMixture(k, **arguments).fit(x), mixture.GaussianMixture(k, **arguments)
    with pytest.warns(Warning, match="did not converge"):
        theirs.fit(x)
    for name in [*FITTED, "lower_bounds_"]:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-8)


def test_one_component_is_the_maximum_likelihood_gaussian(covariance_type, rng):
    x = blobs(rng, k=1)
    model = rp.GaussianMixture(covariance_type=covariance_type, reg_covar=0).fit(x)
    covariance = np.cov(x.T, bias=True)
    if covariance_type == "diag":
        covariance = np.diag(np.diag(covariance))
    if covariance_type == "spherical":
        covariance = np.eye(3) * np.trace(covariance) / 3
    expected = stats.multivariate_normal(x.mean(0), covariance).logpdf(x)
    np.testing.assert_allclose(model.score_samples(x), expected, rtol=1e-12)
    assert model.converged_


@pytest.mark.parametrize("width", [1e-1, 1e-3, 1e-6, 1e-9])
def test_components_narrower_than_the_gaps_between_them_are_exact(covariance_type, width, rng):
    """Expanded squares would cancel: for the narrow ones here the answer is that of each cluster by itself."""
    shapes = width * rng.standard_normal((2, 200, 3))
    centres = np.array([[-3.0, 1, 2], [5, -2, 0.5]])
    x = (centres[:, None] + shapes).reshape(-1, 3)
    model = rp.GaussianMixture(
        2, covariance_type=covariance_type, reg_covar=0, means_init=centres, init_params="kmeans", random_state=0
    ).fit(x)
    alone = [
        rp.GaussianMixture(covariance_type=covariance_type, reg_covar=0).fit(part) for part in x.reshape(2, 200, 3)
    ]
    np.testing.assert_allclose(model.means_, [m.means_[0] for m in alone], rtol=1e-13)
    found = np.broadcast_to(model.covariances_, (2, 3, 3)) if covariance_type == "tied" else model.covariances_
    expected = [m.covariances_ if covariance_type == "tied" else m.covariances_[0] for m in alone]
    if covariance_type == "tied":
        expected = np.broadcast_to(np.mean(expected, 0), (2, 3, 3))
    np.testing.assert_allclose(found / width**2, np.array(expected) / width**2, atol=1e-6 if width > 1e-8 else 1e-3)


# ---- the log likelihood never decreases

UNITS = [(0.0, 1.0), (1e8, 1.0), (1e8, 1e-2), (-1e6, 1e-4), (0.0, 1e-30), (0.0, 1e100), (3e4, 1e3)]


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1), d=st.integers(1, 4), k=st.integers(1, 4), unit=st.sampled_from(UNITS),
    covariance_type=st.sampled_from(TYPES), init=st.sampled_from(["kmeans", "random"]),
)  # fmt: skip
def test_the_log_likelihood_never_decreases(seed, d, k, unit, covariance_type, init):
    (offset, scale), rng = unit, np.random.default_rng(seed)
    x = offset + scale * blobs(rng, n=300, d=d, k=3, gap=rng.choice([0.3, 3, 30]))
    model = rp.GaussianMixture(
        k, covariance_type=covariance_type, reg_covar=0, tol=0, max_iter=25, init_params=init, random_state=seed
    ).fit(x)
    bounds = np.array([*model.lower_bounds_, model.score(x)])
    rounding = 1e-12 * np.abs(bounds).max() + d * 1e-15 * abs(offset) / scale
    assert (np.diff(bounds) >= -rounding).all(), np.diff(bounds).min()


@pytest.mark.parametrize(("offset", "scale"), UNITS)
def test_results_follow_offset_and_scale(offset, scale, covariance_type, rng):
    x = blobs(rng)
    arguments = {"covariance_type": covariance_type, "reg_covar": 0, "random_state": 0, "max_iter": 20, "tol": 0}
    plain, moved = (rp.GaussianMixture(3, **arguments).fit(rows) for rows in (x, offset + scale * x))
    rounding = 1e-9 + 1e-14 * abs(offset) / scale
    np.testing.assert_allclose((moved.means_ - offset) / scale, plain.means_, atol=10 * rounding)
    np.testing.assert_allclose(moved.covariances_ / scale / scale, plain.covariances_, atol=10 * rounding)
    assert moved.score(offset + scale * x) + 3 * np.log(scale) == pytest.approx(plain.score(x), abs=10 * rounding)


def test_float32_rows_are_summed_in_float64(covariance_type, rng):
    """scikit-learn's expanded forms in float32 lose such data from an offset of 1e3 on."""
    x = (1e4 + blobs(rng, n=2000)).astype(np.float32)
    arguments = {"covariance_type": covariance_type, "random_state": 0, "tol": 0, "max_iter": 20}
    single, double = (rp.GaussianMixture(3, **arguments).fit(rows) for rows in (x, x.astype(np.float64)))
    for name in FITTED:
        assert getattr(single, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(single, name), getattr(double, name).astype(np.float32))
    assert single.lower_bound_ == double.lower_bound_
    assert {single.predict_proba(x).dtype, single.score_samples(x).dtype, single.sample(3)[0].dtype} == {x.dtype}
    assert single.score(x) == pytest.approx(double.score(x.astype(np.float64)), abs=1e-5)


def test_results_depend_neither_on_the_blocks_nor_on_the_threads_of_blas(covariance_type, rng, monkeypatch):
    x = blobs(rng, n=5001)
    arguments = {"covariance_type": covariance_type, "random_state": 0, "tol": 0, "max_iter": 5}
    first = rp.GaussianMixture(3, **arguments).fit(x)
    with threadpool_limits(2):
        again = rp.GaussianMixture(3, **arguments).fit(x)
    monkeypatch.setattr(mixture_em, "MOST_ROWS", 617)
    other = rp.GaussianMixture(3, **arguments).fit(x)
    for name in FITTED:
        np.testing.assert_allclose(getattr(again, name), getattr(first, name), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(getattr(other, name), getattr(first, name), rtol=1e-9, atol=1e-12)


# ---- starts


@pytest.mark.parametrize("init_params", STARTS)
def test_every_start_finds_clusters_that_are_far_apart(init_params, covariance_type, rng):
    centres = np.array([[0.0, 0], [40, 0], [0, 40]])
    x = np.concatenate([c + rng.standard_normal((100, 2)) for c in centres])
    model = rp.GaussianMixture(
        3,
        covariance_type=covariance_type,
        init_params=init_params,
        random_state=4,
        n_init=10,
        max_iter=2000,
        tol=1e-9,
    ).fit(x)
    order = np.argsort(model.means_ @ [1.0, 2.0])
    np.testing.assert_allclose(model.means_[order], centres, atol=0.5)
    np.testing.assert_allclose(model.weights_, THIRDS, atol=1e-6)
    assert (np.diff(model.predict(x).reshape(3, 100), axis=1) == 0).all()


@pytest.mark.parametrize("init_params", STARTS)
def test_the_same_random_state_gives_the_same_bits(init_params, covariance_type, rng):
    x = blobs(rng)
    arguments = {"covariance_type": covariance_type, "init_params": init_params, "max_iter": 3, "n_init": 2}
    first, again = (rp.GaussianMixture(3, random_state=7, **arguments).fit(x) for _ in range(2))
    other = rp.GaussianMixture(3, random_state=8, **arguments).fit(x)
    for name in FITTED:
        same_bits(getattr(first, name), getattr(again, name))
    assert (first.means_ != other.means_).any()


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState], ids=["Generator", "RandomState"])
def test_a_generator_is_moved_on(make, rng):
    x, state = blobs(rng), make(3)
    arguments = {"init_params": "random", "max_iter": 1}
    first, second = (rp.GaussianMixture(3, random_state=state, **arguments).fit(x).means_ for _ in range(2))
    same_bits(first, rp.GaussianMixture(3, random_state=make(3), **arguments).fit(x).means_)
    assert (first != second).any()


def test_without_iterations_the_start_is_what_is_fitted(covariance_type, rng):
    given = {"weights_init": [0.2, 0.3, 0.5], "means_init": CLASS_MEANS}
    matrices = precisions(covariance_type, 3, 4)
    model = rp.GaussianMixture(3, covariance_type=covariance_type, max_iter=0, precisions_init=matrices, **given)
    model.fit(IRIS)
    np.testing.assert_allclose(model.weights_, given["weights_init"])
    np.testing.assert_allclose(model.means_, CLASS_MEANS, rtol=1e-13)
    np.testing.assert_allclose(model.precisions_, matrices, rtol=1e-11)
    inverse = 1 / matrices if covariance_type in {"diag", "spherical"} else np.linalg.inv(matrices)
    np.testing.assert_allclose(model.covariances_, inverse, rtol=1e-10, atol=1e-12)
    assert (model.n_iter_, model.lower_bound_, len(model.lower_bounds_)) == (0, -np.inf, 0)
    seeded = rp.GaussianMixture(3, covariance_type=covariance_type, max_iter=0, init_params="k-means++").fit(IRIS)
    assert all((np.abs(IRIS - mean).max(1) < 1e-12).any() for mean in seeded.means_)


def test_the_best_of_several_starts_is_kept(rng):
    x = blobs(rng, k=6, gap=2.0)
    arguments = {"init_params": "random_from_data", "max_iter": 30}
    state = np.random.default_rng(0)
    alone = [rp.GaussianMixture(6, random_state=state, **arguments).fit(x).lower_bound_ for _ in range(1)]
    best = rp.GaussianMixture(6, random_state=np.random.default_rng(0), n_init=8, **arguments).fit(x)
    assert best.lower_bound_ >= max(alone)
    assert best.lower_bound_ == best.lower_bounds_[-1]


def test_a_warm_start_goes_on(covariance_type, rng):
    x = blobs(rng, gap=1.5)
    arguments = {"covariance_type": covariance_type, "random_state": 0, "tol": 0}
    whole = rp.GaussianMixture(3, max_iter=8, **arguments).fit(x)
    parts = rp.GaussianMixture(3, max_iter=5, warm_start=True, **arguments).fit(x)
    parts.max_iter = 3
    parts.fit(x)
    assert parts.n_iter_ == 3
    np.testing.assert_allclose(parts.lower_bounds_, whole.lower_bounds_[5:], rtol=1e-11)
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-9)


def test_k_means_ends_where_every_row_is_at_its_nearest_centre(rng):
    x = blobs(rng, n=3000, d=2, k=5)
    labels = kmeans(x, seeds(x, 5, rng))
    centres = np.stack([x[labels == k].mean(0) for k in range(5)])
    nearest = ((x[:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest != labels).mean() < 0.01
    assert len(np.unique(labels)) == 5


# ---- what a fitted mixture is asked


def test_densities_are_those_of_scipy(covariance_type, rng):
    model, x = fitted(rng, covariance_type)
    full = {
        "full": lambda c: c, "tied": lambda c: [c] * 3, "diag": lambda c: [np.diag(v) for v in c],
        "spherical": lambda c: [v * np.eye(3) for v in c],
    }[covariance_type](model.covariances_)  # fmt: skip
    densities = [stats.multivariate_normal(m, c).pdf(x) for m, c in zip(model.means_, full, strict=True)]
    parts = model.weights_[:, None] * densities
    np.testing.assert_allclose(model.score_samples(x), np.log(np.sum(parts, 0)), rtol=1e-10)
    np.testing.assert_allclose(model.predict_proba(x), (parts / np.sum(parts, 0)).T, rtol=1e-9, atol=1e-12)
    same_bits(model.predict(x), model.predict_proba(x).argmax(1))
    factors = model.precisions_cholesky_
    if covariance_type in {"full", "tied"}:
        np.testing.assert_array_equal(np.tril(factors, -1), 0)
        np.testing.assert_allclose(model.precisions_ @ model.covariances_, np.broadcast_to(np.eye(3), factors.shape),
                                   atol=1e-10)  # fmt: skip
        np.testing.assert_array_equal(model.covariances_, model.covariances_.swapaxes(-1, -2))


def test_fit_predict_is_fit_then_predict(covariance_type, rng):
    x = blobs(rng)
    model = rp.GaussianMixture(3, covariance_type=covariance_type, random_state=0)
    same_bits(model.fit_predict(x), model.predict(x))


def test_the_bound_is_tight_at_the_posterior_and_lower_elsewhere(covariance_type, rng):
    """EM is variational inference with a discrete z: log p(x) - elbo is the KL divergence to the posterior."""
    model, x = fitted(rng, covariance_type)
    posterior, evidence = model.predict_proba(x), model.score_samples(x)
    np.testing.assert_allclose(model.elbo(x, posterior), evidence, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.elbo(x), evidence, rtol=0, atol=1e-12)
    other = rng.dirichlet(np.ones(3), len(x))
    divergence = np.sum(other * (np.log(other) - np.log(np.maximum(posterior, 1e-300))), 1)
    safe = posterior.min(1) > 1e-290
    np.testing.assert_allclose((evidence - model.elbo(x, other))[safe], divergence[safe], rtol=1e-9)
    assert (model.elbo(x, other) < evidence).all()
    hard = np.eye(3)[model.predict(x)]
    assert (model.elbo(x, hard) <= evidence + 1e-12).all()


def test_either_step_of_em_raises_the_bound(covariance_type, rng):
    """The M-step with the posterior fixed, the E-step with the parameters fixed: coordinate ascent on one bound."""
    x = blobs(rng)
    model = rp.GaussianMixture(
        3, covariance_type=covariance_type, reg_covar=0, tol=0, max_iter=1, warm_start=True, init_params="random",
        random_state=0,
    ).fit(x)  # fmt: skip
    for _ in range(10):
        posterior, before = model.predict_proba(x), model.score(x)
        model.fit(x)
        after_m_step = model.elbo(x, posterior).mean()
        assert before <= after_m_step + 1e-12
        assert after_m_step <= model.score(x) + 1e-12
        assert model.lower_bound_ == pytest.approx(before, abs=1e-12)


def test_draws_have_the_moments_of_the_mixture(covariance_type, rng):
    model, _ = fitted(rng, covariance_type)
    x, labels = model.sample(200_000)
    assert (np.diff(labels) >= 0).all()
    np.testing.assert_allclose(np.bincount(labels) / len(labels), model.weights_, atol=0.005)
    for k in range(3):
        alone, of = model.sample(60_000, component=k)
        assert (of == k).all()
        covariance = {
            "full": lambda c, k=k: c[k], "tied": lambda c: c, "diag": lambda c, k=k: np.diag(c[k]),
            "spherical": lambda c, k=k: c[k] * np.eye(3),
        }[covariance_type](model.covariances_)  # fmt: skip
        for rows in (alone, x[labels == k]):
            size = np.sqrt(np.trace(covariance))
            np.testing.assert_allclose(rows.mean(0), model.means_[k], atol=6 * size / np.sqrt(len(rows)))
            np.testing.assert_allclose(np.cov(rows.T), covariance, atol=12 * size**2 / np.sqrt(len(rows)))
    same_bits(model.sample(5), model.sample(5))


# ---- data at the edge


@pytest.mark.parametrize("init_params", STARTS)
def test_equal_rows_and_constant_features_have_the_regularized_answer(init_params, covariance_type):
    matrices = covariance_type in {"full", "tied"}
    equal = np.full((20, 2), 7.0)
    model = rp.GaussianMixture(3, covariance_type=covariance_type, init_params=init_params, random_state=0).fit(equal)
    np.testing.assert_allclose(model.means_, np.full((3, 2), 7.0), rtol=1e-12)
    spread = 1e-6 * np.eye(2) if matrices else np.array(1e-6)
    np.testing.assert_allclose(model.covariances_, np.broadcast_to(spread, model.covariances_.shape), rtol=1e-9)
    assert model.score(equal) == pytest.approx(-np.log(2 * np.pi * 1e-6), abs=1e-6)
    constant = np.c_[np.arange(30) % 7, np.full(30, 3)]
    model = rp.GaussianMixture(2, covariance_type=covariance_type, init_params=init_params, random_state=0)
    model.fit(constant)
    np.testing.assert_allclose(model.means_[:, 1], 3, rtol=1e-12)
    assert np.isfinite(model.score_samples(constant)).all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_as_many_components_as_rows(n, covariance_type, rng):
    x = rng.standard_normal((n, 2))
    model = rp.GaussianMixture(n, covariance_type=covariance_type, random_state=0).fit(x)
    assert np.isfinite(model.score_samples(x)).all()
    assert sorted(model.predict(x)) == [*range(n)]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float16, ">f8", np.longdouble])
def test_other_real_data_is_converted(dtype, covariance_type):
    x = (IRIS > 2).astype(dtype) if dtype is bool else IRIS.round().astype(dtype)
    arguments = {"covariance_type": covariance_type, "random_state": 0, "reg_covar": 1e-2}
    same = rp.GaussianMixture(2, **arguments).fit(np.asarray(x, np.float64))
    model = rp.GaussianMixture(2, **arguments).fit(x)
    same_bits(model.means_, same.means_)
    same_bits(model.predict_proba(x.tolist()), same.predict_proba(x))


def test_data_are_not_modified_and_any_layout_will_do(covariance_type, rng):
    x = blobs(rng)
    before = x.copy()
    arguments = {"covariance_type": covariance_type, "random_state": 0}
    model = rp.GaussianMixture(3, **arguments).fit(x)
    model.predict_proba(x)
    same_bits(x, before)
    wide = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    same_bits(rp.GaussianMixture(3, **arguments).fit(wide).means_, model.means_)


def test_what_has_not_converged_says_so(rng):
    with pytest.warns(RuntimeWarning, match="did not converge in max_iter = 1 iterations"):
        rp.GaussianMixture(3, max_iter=1).fit(blobs(rng))


def test_verbose_prints_starts_and_iterations(rng, capsys):
    model = rp.GaussianMixture(3, verbose=2, max_iter=10, tol=0, random_state=0, n_init=2).fit(blobs(rng))
    lines = capsys.readouterr().out.splitlines()
    assert [re.split(r"\s+time lapse", line)[0] for line in lines] == [
        "Initialization 0", "  Iteration 10", "Initialization did not converge.",
        "Initialization 1", "  Iteration 10", "Initialization did not converge.",
    ]  # fmt: skip
    assert not model.converged_


# ---- files, copies, text


def test_a_saved_model_comes_back_whole(covariance_type, rng, tmp_path):
    given = {"means_init": rng.standard_normal((3, 3))}
    model, x = fitted(rng, covariance_type, tol=1e-2, **given)
    model.save(tmp_path / "model.npz")
    loaded = rp.GaussianMixture.load(tmp_path / "model.npz")
    for name in [*FITTED, "lower_bounds_", "means_init"]:
        same_bits(getattr(loaded, name), getattr(model, name))
    for name in ("tol", "random_state", "covariance_type", "converged_", "n_iter_", "lower_bound_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(model, name), name
    same_bits(loaded.predict_proba(x), model.predict_proba(x))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same_bits(twin.predict_proba(x), model.predict_proba(x))


def test_numbers_of_numpy_and_a_start_without_iterations_are_stored_too(rng, tmp_path):
    model = rp.GaussianMixture(np.int64(2), tol=np.float32(0.5), max_iter=np.int32(0), warm_start=np.bool_(False),
                               random_state=np.uint64(3)).fit(blobs(rng))  # fmt: skip
    model.save(tmp_path / "model.npz")
    loaded = rp.GaussianMixture.load(tmp_path / "model.npz")
    same = (loaded.n_components, loaded.tol, loaded.random_state, loaded.lower_bound_, loaded.n_iter_)
    assert same == (2, 0.5, 3, -np.inf, 0)
    model.random_state = np.random.default_rng(0)
    model.save(tmp_path / "model.npz")
    assert rp.GaussianMixture.load(tmp_path / "model.npz").random_state is None


def test_parameters_may_be_set_by_hand(covariance_type, rng):
    model, x = fitted(rng, covariance_type)
    made = rp.GaussianMixture(3, covariance_type=covariance_type)
    for name in ("weights_", "means_", "precisions_cholesky_"):
        setattr(made, name, getattr(model, name))
    same_bits(made.score_samples(x), model.score_samples(x))


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_row_whose_squares_overflow_has_the_density_zero(rng):
    model, x = fitted(rng, "diag")
    score = model.score_samples(np.vstack([x[:1], np.full((1, x.shape[1]), 1e160)]))
    assert score[1] == -np.inf
    assert score[0] == model.score_samples(x[:1])[0]


def test_what_is_no_file_of_a_mixture_is_refused(rng, tmp_path):
    path = tmp_path / "model.npz"
    rp.VAE(1, hidden=(), epochs=1, batch_size=10).fit(blobs(rng)).save(path)
    with pytest.raises(rp.CheckpointError, match="holds a VAE, not a GaussianMixture"):
        rp.GaussianMixture.load(path)
    model, _ = fitted(rng, "full")
    model.means_ = model.means_[:, :2]
    model.save(path)
    with pytest.raises(rp.CheckpointError, match="does not describe a GaussianMixture"):
        rp.GaussianMixture.load(path)
    model.means_ = np.full((3, 3), np.nan)
    with pytest.raises(rp.CheckpointError, match="not finite"):
        model.save(path)


def test_its_text_tells_what_is_not_the_default(rng):
    model = rp.GaussianMixture(2, covariance_type="diag", means_init=np.zeros((2, 3)))
    assert repr(model) == "GaussianMixture(n_components=2, covariance_type='diag', means_init=..., not fitted)"
    model = rp.GaussianMixture().fit(blobs(rng))
    assert repr(model) == "GaussianMixture(n_components=1, fitted)"
