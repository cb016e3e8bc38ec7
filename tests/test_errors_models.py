# SPDX-License-Identifier: MIT
"""Bad input to the mixture and the linear-Gaussian models: each is refused by a message that names the argument."""

import numpy as np
import pytest

import reparam as rp
from hostile import ROWS, gaussian_mixture, good_call, linear_gaussian, refused

NAN_IN_ROW_2 = np.where(np.arange(4)[:, None] == 2, np.nan, ROWS)
INFINITE = ROWS.astype("f4")
INFINITE[3, 1] = -np.inf
BAD_ROWS = [
    (None, TypeError, "x must hold real numbers, got object"),
    (ROWS * 1j, TypeError, "x must hold real numbers, got complex128"),
    (np.array([["a", "b"]]), TypeError, "x must hold real numbers, got <U1"),
    ([[1.0], [1.0, 2.0]], ValueError, None),
    (ROWS[0], ValueError, "x must have shape (n, {data_dim}), got (3,)"),
    (ROWS[None], ValueError, "x must have shape (n, {data_dim}), got (1, 4, 3)"),
    (np.float64(1), ValueError, "x must have shape (n, {data_dim}), got ()"),
    (ROWS[:0], ValueError, "x is empty: it has shape (0, 3)"),
    (NAN_IN_ROW_2, ValueError, "x must be finite in float64, got nan at [2, 0]"),
    (INFINITE, ValueError, "x must be finite in float32, got -inf at [3, 1]"),
]  # fmt: skip
TAKE_ROWS = ["fit", "fit_predict", "score", "score_samples", "predict", "predict_proba", "aic", "bic", "elbo"]
OF_ROWS = [
    (f"GaussianMixture.{name}", {"x": x}, error,
     message and f"GaussianMixture: {message.format(data_dim='data_dim' if 'fit' in name else 3)}")
    for name in TAKE_ROWS for x, error, message in BAD_ROWS
]  # fmt: skip
OF_ROWS += [
    (f"{model}.{name}", {"x": x}, error, message and f"{model}: {message.format(data_dim=3)}")
    for model in ("LinearGaussianModel", "ProbabilisticPCA")
    for name in ("posterior", "log_evidence", "map_estimate", "log_joint")
    for x, error, message in BAD_ROWS if x is not INFINITE
] + [
    ("ProbabilisticPCA.fit", {"x": x}, error, message and f"ProbabilisticPCA: {message.format(data_dim='data_dim')}")
    for x, error, message in BAD_ROWS
]  # fmt: skip
MASK = np.ones((4, 3))
OF_LINEAR = [
    ("posterior", {"x": ROWS[:, :2]}, ValueError, "x must have shape (n, 3), got (4, 2)"),
    ("posterior", {"observed": MASK[:3]}, ValueError, "observed must have the shape of x, (4, 3), got (3, 3)"),
    ("log_evidence", {"observed": MASK * 0.5}, ValueError,
     "observed must be 1 where an entry was seen and 0 elsewhere, got 0.5 at [0, 0]"),
    ("log_evidence", {"x": NAN_IN_ROW_2, "observed": MASK}, ValueError,
     "x must be finite in float64, got nan at [2, 0]"),
    ("map_estimate", {"observed": "all"}, ValueError, "observed must have the shape of x, (4, 3), got ()"),
    ("log_joint", {"observed": MASK.astype(str)}, TypeError, "observed must hold 0 and 1, got <U32"),
    ("decode", {"z": np.zeros(3)}, ValueError, "z must have shape (..., 2), got (3,)"),
    ("decode", {"z": np.zeros(2) * 1j}, TypeError, "z must hold real numbers, got complex128"),
    ("generate", {"z": [np.nan, 0]}, ValueError, "z must be finite in float64, got nan at [0]"),
    ("sample", {"n": -1}, ValueError, "n must be >= 0, got -1"),
    ("save", {"path": 5}, TypeError, "path must be a path, got 5"),
    ("load", {"path": None}, TypeError, "path must be a path, got None"),
]  # fmt: skip
SHARES = np.full((4, 2), 0.5)
REFUSED = [
    *[row for row in OF_ROWS if row[-1]],
    *[(f"GaussianMixture.{name}", {"x": ROWS[:, :2]}, ValueError,
       "GaussianMixture: x must have shape (n, 3), got (4, 2)")
      for name in TAKE_ROWS if "fit" not in name],
    ("GaussianMixture", {"means_init": "middle"}, TypeError,
     "GaussianMixture: means_init must hold real numbers, got <U6"),
    ("GaussianMixture", {"random_state": -1}, ValueError,
     "GaussianMixture: random_state must be in [0, 2**64), got -1"),
    ("GaussianMixture.fit", {"x": ROWS[:1]}, ValueError,
     "GaussianMixture: x must have at least n_components = 2 rows, got 1"),
    ("GaussianMixture.elbo", {"resp": SHARES[:3]}, ValueError,
     "GaussianMixture: resp must have shape (n, n_components) = (4, 2), got (3, 2)"),
    ("GaussianMixture.elbo", {"resp": SHARES + np.array([1.0, -1])}, ValueError,
     "GaussianMixture: resp must be >= 0, got -0.5 at [0, 1]"),
    ("GaussianMixture.elbo", {"resp": SHARES * [[1.0], [1], [1], [3]]}, ValueError,
     "GaussianMixture: resp must have rows that sum to 1, got 3.0 in row 3"),
    ("GaussianMixture.elbo", {"resp": SHARES * np.nan}, ValueError,
     "GaussianMixture: resp must be finite in float64, got nan at [0, 0]"),
    ("GaussianMixture.sample", {"n_samples": 0}, ValueError, "GaussianMixture: n_samples must be >= 1, got 0"),
    ("GaussianMixture.sample", {"component": 2}, ValueError, "GaussianMixture: component must be in [0, 2), got 2"),
    ("GaussianMixture.save", {"path": 5}, TypeError, "GaussianMixture: path must be a path, got 5"),
    ("GaussianMixture.load", {"path": None}, TypeError, "GaussianMixture: path must be a path, got None"),
    *[(f"{model}.{name}", changed, error, f"{model}: {message}")
      for model in ("LinearGaussianModel", "ProbabilisticPCA") for name, changed, error, message in OF_LINEAR],
    ("LinearGaussianModel", {"weight": np.ones(3)}, ValueError,
     "LinearGaussianModel: weight must have shape (data_dim, latent_dim), got (3,)"),
    ("LinearGaussianModel", {"weight": np.ones((3, 0))}, ValueError,
     "LinearGaussianModel: weight must have shape (data_dim, latent_dim), got (3, 0)"),
    ("LinearGaussianModel", {"weight": np.full((3, 2), np.nan)}, ValueError,
     "LinearGaussianModel: weight must be finite in float64, got nan at [0, 0]"),
    ("LinearGaussianModel", {"bias": np.zeros(2)}, ValueError,
     "LinearGaussianModel: bias must have shape (data_dim,) with data_dim = 3 (from weight), got (2,)"),
    ("LinearGaussianModel", {"noise_scale": 0}, ValueError,
     "LinearGaussianModel: noise_scale must be a finite number > 0, got 0"),
    ("ProbabilisticPCA", {"latent_dim": 0}, ValueError, "ProbabilisticPCA: latent_dim must be >= 1, got 0"),
    ("ProbabilisticPCA.fit", {"x": ROWS[:, :2]}, ValueError,
     "ProbabilisticPCA: x must have more than latent_dim = 2 features, got 2"),
    ("ProbabilisticPCA.fit", {"x": ROWS}, ValueError,
     "ProbabilisticPCA: x must vary in more than latent_dim = 2 directions, so that there is noise; its 4 rows do not"),
    ("ProbabilisticPCA.fit", {"x": ROWS[:1]}, ValueError,
     "ProbabilisticPCA: x must vary in more than latent_dim = 2 directions, so that there is noise; its 1 rows do not"),
]  # fmt: skip
EYES = np.stack([np.eye(3)] * 2)
BAD_STARTS = [  # arguments that meet the data in fit
    ({"weights_init": [1.0]}, "weights_init must have shape (2,), got (1,)"),
    ({"weights_init": [0.5, 0.6]}, "weights_init must be >= 0 and sum to 1, got the least 0.5 and the sum 1.1"),
    ({"weights_init": [-0.5, 1.5]}, "weights_init must be >= 0 and sum to 1, got the least -0.5 and the sum 1.0"),
    ({"weights_init": [np.nan, 1]}, "weights_init must be finite, got nan at [0]"),
    ({"means_init": ROWS}, "means_init must have shape (2, 3), got (4, 3)"),
    ({"means_init": ROWS[:2] * np.inf}, "means_init must be finite, got -inf at [0, 0]"),
    ({"precisions_init": np.eye(3)}, "precisions_init must have shape (2, 3, 3), got (3, 3)"),
    ({"precisions_init": np.ones(2)}, "precisions_init must have shape (2, 3, 3), got (2,)"),
    ({"precisions_init": EYES - 2 * np.eye(3)},
     "precisions_init must be positive definite, got one that is not at [0]"),
    ({"precisions_init": EYES + np.triu(np.ones((3, 3)), 1)},
     "precisions_init must be symmetric, got a matrix that is not"),
    ({"precisions_init": -np.eye(3), "covariance_type": "tied"},
     "precisions_init must be positive definite, got one that is not"),
    ({"precisions_init": [[1, 1, 1], [1, 0, 1]], "covariance_type": "diag"},
     "precisions_init must be positive definite, got one that is not at [1, 1]"),
    ({"precisions_init": [1.0, -1], "covariance_type": "spherical"},
     "precisions_init must be positive definite, got one that is not at [1]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changed", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(name, changed, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, good = good_call(name)
    refused(error, message, call, **{**good, **changed})


@pytest.mark.parametrize(("arguments", "message"), BAD_STARTS)
def test_a_start_that_does_not_fit_is_refused(arguments, message):
    refused(ValueError, f"GaussianMixture: {message}", rp.GaussianMixture(2, **arguments).fit, ROWS)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(("x", "n_components"), [
    (np.ones((9, 2)), 1), (np.ones((9, 2)), 2), (np.array([[0.0, 0], [1, 1], [5, 2]]), 3),
], ids=["equal rows", "equal rows, two components", "a component for each row"])  # fmt: skip
def test_a_covariance_without_an_inverse_is_refused(x, n_components, covariance_type):
    model = rp.GaussianMixture(n_components, covariance_type=covariance_type, reg_covar=0, random_state=0)
    with pytest.raises(ValueError, match=r"GaussianMixture: the covariance of component \d has no inverse"):
        model.fit(x)
    assert not hasattr(model, "means_")


def test_linearly_dependent_features_are_refused_where_the_covariances_need_them(rng):
    x = rng.standard_normal((50, 2))
    x = np.c_[x, x[:, 0] - x[:, 1]]
    with pytest.raises(ValueError, match="has no inverse"):
        rp.GaussianMixture(reg_covar=0).fit(x)
    assert rp.GaussianMixture(covariance_type="diag", reg_covar=0).fit(x).converged_


@pytest.mark.parametrize(("x", "dtype"), [(1e200, "f8"), (1e-170, "f8"), (1e30, "f4")])
def test_a_scale_whose_squares_leave_the_type_is_refused(x, dtype, rng):
    rows = (x * rng.standard_normal((50, 2))).astype(dtype)
    with pytest.raises(ValueError, match=r"GaussianMixture: x must be of a scale whose squares .*_ is not finite"):
        rp.GaussianMixture(reg_covar=0).fit(rows)


@pytest.mark.parametrize("model", [rp.GaussianMixture(2), rp.ProbabilisticPCA(2)], ids=lambda m: type(m).__name__)
def test_numbers_whose_sums_overflow_are_refused(model):
    x = 1.5e308 * np.sign(ROWS + 0.01)
    refused(ValueError, f"{type(model).__name__}: x must be of a scale whose sums float64 holds, got larger numbers",
            model.fit, x)  # fmt: skip


def test_a_refused_fit_leaves_the_model_as_it_was():
    model = rp.GaussianMixture(2, random_state=0).fit(ROWS)
    before = model.means_.copy()
    model.reg_covar = 0
    for x in (NAN_IN_ROW_2, np.ones((9, 3)), ROWS[:1]):
        with pytest.raises(ValueError, match="GaussianMixture: "):
            model.fit(x)
        np.testing.assert_array_equal(model.means_, before)


def test_arguments_that_are_set_later_are_checked_by_fit():
    model = rp.GaussianMixture(2)
    model.max_iter = -1
    refused(ValueError, "GaussianMixture: max_iter must be >= 0, got -1", model.fit, ROWS)


def test_a_warm_start_of_another_shape_is_refused():
    model = rp.GaussianMixture(2, warm_start=True, random_state=0).fit(ROWS)
    for changed, x in (({"n_components": 1}, ROWS), ({}, ROWS[:, :2]), ({"covariance_type": "diag"}, ROWS)):
        before = {name: getattr(model, name) for name in changed}
        vars(model).update(changed)
        with pytest.raises(ValueError, match="GaussianMixture: warm_start must go on with"):
            model.fit(x)
        vars(model).update(before)


@pytest.mark.parametrize("call", [
    lambda m: m.posterior(ROWS), lambda m: m.log_evidence(ROWS), lambda m: m.log_joint(ROWS),
    lambda m: m.decode(np.zeros(2)), lambda m: m.sample(2, key=0), lambda m: m.save("model.npz"),
])  # fmt: skip
def test_a_pca_that_is_not_fitted_says_so(call):
    with pytest.raises(ValueError, match="this ProbabilisticPCA is not fitted yet; call fit or load first"):
        call(rp.ProbabilisticPCA(2))


@pytest.mark.parametrize(("z", "error", "message"), [
    (np.zeros((1, 5, 2)), ValueError, "must have shape (S, 4, latent_dim), got (1, 5, 2) (latent_dim is 2)"),
    (np.zeros((4, 3)), ValueError, "must have shape (S, 4, latent_dim), got (4, 3) (latent_dim is 2)"),
    (np.zeros((1, 4, 2), "f4"), TypeError, "must be float64 as the model is, got float32; say dtype='float64'"),
    ([[0.0, 0.0]], TypeError, "must be an array, got list"),
])  # fmt: skip
def test_a_log_joint_refuses_what_is_not_its_z(z, error, message):
    refused(error, f"LinearGaussianModel: log_joint: value {message}", linear_gaussian().log_joint(ROWS), z)


@pytest.mark.parametrize("name", ["predict", "score", "sample", "elbo", "save"])
def test_a_model_that_is_not_fitted_says_so(name):
    argument = {"sample": 2, "save": "model.npz"}.get(name, ROWS)
    with pytest.raises(ValueError, match="this GaussianMixture is not fitted yet; call fit or load first"):
        getattr(rp.GaussianMixture(), name)(argument)


def test_a_row_far_from_everything_has_a_finite_density():
    model = gaussian_mixture()
    far = np.full((1, 3), 1e6)
    assert np.isfinite(model.score_samples(far)).all()
    assert model.predict_proba(far).sum() == pytest.approx(1)
