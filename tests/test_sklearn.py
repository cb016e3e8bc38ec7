# SPDX-License-Identifier: MIT
"""The estimator of reparam.sklearn: scikit-learn's checks, its answers, its words, and the company it keeps."""

import copy
import functools
import importlib
import os
import pickle
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import sklearn
from joblib import parallel_config
from scipy import sparse
from sklearn import datasets, mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import reparam as rp
from reparam.sklearn import GaussianMixture
from support import same_bits

TYPES = ["full", "tied", "diag", "spherical"]
STARTS = ["kmeans", "k-means++", "random", "random_from_data"]
FITTED = ["weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"]
BOTH = (mixture.GaussianMixture, GaussianMixture)
IRIS = datasets.load_iris().data

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


CHECKS = list(parametrize_with_checks([GaussianMixture(covariance_type=kind) for kind in TYPES]).args[1])


def name_of(check):
    return check.func.__name__ if isinstance(check, functools.partial) else ""


#: The others run where SCIPY_ARRAY_API was set before SciPy was imported.
HERE = [(model, check) for model, check in CHECKS if "array_api" not in name_of(check)]


@pytest.mark.parametrize(("estimator", "check"), HERE, ids=name_of)
def test_scikit_learn_has_no_complaint(estimator, check):
    check(estimator)


def test_nor_under_dispatch_of_arrays():
    program = """
        from sklearn.utils.estimator_checks import parametrize_with_checks
        from reparam.sklearn import GaussianMixture
        for model, check in parametrize_with_checks([GaussianMixture()]).args[1]:
            if "array_api" in check.func.__name__:
                check(model)
    """
    environment = os.environ | {"SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


# ---- the answers of scikit-learn


def of_both(x, **arguments):
    return [Mixture(**arguments).fit(x) for Mixture in BOTH]


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
@pytest.mark.parametrize(("covariance_type", "init_params"), [
    (kind, start) for kind in TYPES for start in STARTS
    if kind != "tied" or start in {"kmeans", "random"}  # the others start elsewhere: the next test but one
])  # fmt: skip
def test_a_random_state_gives_the_same_fit(name, covariance_type, init_params):
    x = getattr(datasets, f"load_{name}")().data
    theirs, ours = of_both(
        x, n_components=3, covariance_type=covariance_type, init_params=init_params, reg_covar=1e-3, random_state=0
    )
    for attribute in FITTED:
        expected = getattr(theirs, attribute)
        np.testing.assert_allclose(getattr(ours, attribute), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert (ours.n_iter_, ours.converged_, ours.n_features_in_) == (theirs.n_iter_, theirs.converged_, x.shape[1])
    first = 0 if init_params in {"kmeans", "random"} else 1  # the weights of one row each sum to one in ours alone
    np.testing.assert_allclose(ours.lower_bound_, theirs.lower_bound_, rtol=1e-9)
    if hasattr(theirs, "lower_bounds_"):  # scikit-learn 1.6 has none
        np.testing.assert_allclose(ours.lower_bounds_[first:], theirs.lower_bounds_[first:], rtol=1e-9)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-7)
    for method in ("score_samples", "score", "aic", "bic"):
        np.testing.assert_allclose(getattr(ours, method)(x), getattr(theirs, method)(x), rtol=1e-8)


def test_several_starts_and_given_ones_are_the_same():
    x = datasets.load_wine().data
    given = {"means_init": x[[0, 70, 150]], "weights_init": [0.2, 0.3, 0.5]}
    for arguments in ({"n_init": 4, "init_params": "random_from_data"}, given, {"n_init": 2}):
        state = [np.random.RandomState(3) for _ in BOTH]
        theirs, ours = (M(3, random_state=s, **arguments).fit(x) for M, s in zip(BOTH, state, strict=True))
        np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-7)
        assert state[0].randint(2**31) == state[1].randint(2**31)  # both have drawn as much


def test_a_tied_start_at_rows_is_not_made_of_the_rows_of_no_component():
    """scikit-learn takes all squares and the means of three rows: its first covariance is that of no rows."""
    theirs, ours = of_both(
        datasets.load_wine().data, n_components=3, covariance_type="tied", init_params="k-means++", random_state=0
    )
    assert theirs.n_iter_ < 5
    assert ours.lower_bound_ > theirs.lower_bound_ + 0.5


@pytest.mark.parametrize("covariance_type", TYPES)
def test_draws_are_scikit_learns(covariance_type):
    theirs, ours = of_both(IRIS, n_components=3, covariance_type=covariance_type, random_state=4)
    (x, labels), (expected, of) = ours.sample(50), theirs.sample(50)
    np.testing.assert_array_equal(labels, of)
    np.testing.assert_allclose(x, expected, atol=1e-8)


def test_it_is_one_of_theirs_and_one_of_ours():
    model = GaussianMixture(2)
    assert isinstance(model, mixture.GaussianMixture)
    assert isinstance(model, rp.GaussianMixture)
    assert model.get_params() == mixture.GaussianMixture(2).get_params()
    assert repr(model) == "GaussianMixture(n_components=2)"
    model.fit(IRIS)
    np.testing.assert_allclose(model.elbo(IRIS), model.score_samples(IRIS), atol=1e-12)


# ---- its words

BAD = {
    "n_components": [0, 1.5, "2", None], "covariance_type": ["fall", None], "tol": [-1, "x"], "reg_covar": [-1e-3],
    "max_iter": [-1, 2.0], "n_init": [0], "init_params": ["k-means"], "random_state": [-1, np.random.default_rng(0)],
    "warm_start": ["yes"], "verbose": [-1], "verbose_interval": [0], "means_init": [3, np.zeros((3, 4))],
    "weights_init": [[0.5, 0.6], [2.0, -1], np.full((2, 2), 0.5)],
    "precisions_init": [np.zeros((2, 4, 4)), np.arange(32.0).reshape(2, 4, 4), np.ones((2, 4)), "unit"],
}  # fmt: skip


def error_of(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011  compared below
        call()
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_arguments_are_refused_by_fit_in_the_same_words(name, value):
    theirs, ours = (M(**{"n_components": 2} | {name: value}) for M in BOTH)
    for method in ("fit", "fit_predict"):
        assert error_of(lambda m=method: getattr(ours, m)(IRIS)) == error_of(lambda m=method: getattr(theirs, m)(IRIS))


@pytest.mark.parametrize("x", [
    np.zeros(3), np.zeros((1, 2)), np.zeros((0, 2)), np.zeros((3, 0)), np.array([[1.0, np.nan], [0, 0]]), IRIS + 1j,
    [["a", "b"], ["c", "d"]], sparse.eye_array(4).tocsr(), IRIS[:3], [[1, 2], [3]], None,
], ids=lambda x: type(x).__name__)  # fmt: skip
def test_bad_data_are_refused_in_the_same_words(x):
    theirs, ours = (M(4) for M in BOTH)
    assert error_of(lambda: ours.fit(x)) == error_of(lambda: theirs.fit(x))
    theirs.fit(IRIS), ours.fit(IRIS)
    if not (isinstance(x, np.ndarray) and x.shape == (3, 4)):
        for method in ("predict", "predict_proba", "score_samples", "score"):
            there = error_of(lambda m=method: getattr(theirs, m)(x))
            assert error_of(lambda m=method: getattr(ours, m)(x)) == there


def test_other_errors_are_in_the_same_words():
    theirs, ours = (M(2) for M in BOTH)
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic"):
        there = error_of(lambda m=method: getattr(theirs, m)(IRIS))
        assert error_of(lambda m=method: getattr(ours, m)(IRIS)) == there
    assert error_of(lambda: ours.sample()) == error_of(lambda: theirs.sample())
    theirs.fit(IRIS), ours.fit(IRIS)
    assert error_of(lambda: ours.predict(IRIS[:, :2])) == error_of(lambda: theirs.predict(IRIS[:, :2]))
    assert error_of(lambda: ours.sample(0)) == error_of(lambda: theirs.sample(0))
    assert error_of(lambda: ours.set_params(k=2)) == error_of(lambda: theirs.set_params(k=2))
    equal = np.ones((10, 2))
    for kind in TYPES:
        model = GaussianMixture(2, covariance_type=kind, reg_covar=0, init_params="random")
        with pytest.raises(ValueError, match=r"^Fitting the mixture model failed because some components have"):
            model.fit(equal)


def test_a_variance_of_rounding_is_no_variance():
    """scikit-learn goes on with one of 1e-16, for a component that has one row and no regularization."""
    arguments = {"covariance_type": "spherical", "reg_covar": 0, "max_iter": 1, "means_init": [IRIS[0], IRIS[99]]}
    arguments |= {"weights_init": [0.01, 0.99], "precisions_init": [1e9, 1.0]}
    rows = np.concatenate([IRIS[:1], IRIS[50:]])
    assert mixture.GaussianMixture(2, **arguments).fit(rows).covariances_[0] < 1e-13
    with pytest.raises(ValueError, match="some components have ill-defined empirical covariance"):
        GaussianMixture(2, **arguments).fit(rows)
    assert GaussianMixture(2, **arguments | {"reg_covar": 1e-6}).fit(rows).covariances_[0] == pytest.approx(1e-6)


@pytest.mark.filterwarnings("default")
def test_a_fit_that_has_not_converged_warns_in_the_same_words_at_the_line_that_fits():
    heard = []
    for model in (M(3, max_iter=2, tol=0, random_state=0) for M in BOTH):
        for method in (model.fit, model.fit_predict):
            with pytest.warns(ConvergenceWarning) as caught:
                method(IRIS)
            heard += caught
    assert len({str(w.message) for w in heard}) == 1
    assert {w.filename for w in heard[2:]} == {__file__}


def test_it_prints_the_same(capsys):
    said = []
    for model in (M(3, tol=1e-4, random_state=0, verbose_interval=3) for M in BOTH):
        for verbose in (1, True, 2):
            model.set_params(verbose=verbose).fit(IRIS)
        said.append(re.sub(r"lapse \d\.\d{5}s", "lapse", capsys.readouterr().out))
    assert said[0] == said[1]
    assert said[0].count("Iteration 3") == 3


# ---- the company it keeps


def test_a_failed_fit_leaves_what_was_fitted():
    model = GaussianMixture(2, random_state=0).fit(IRIS)
    before = {name: value.copy() for name, value in vars(model).items() if name in FITTED}
    with pytest.raises(ValueError, match="ill-defined"):
        model.set_params(reg_covar=0).fit(np.ones((10, 4)))
    for name, value in before.items():
        same_bits(getattr(model, name), value)


def test_a_warm_start_goes_on():
    whole, parts = (GaussianMixture(3, tol=0, random_state=0, max_iter=n) for n in (6, 3))
    whole.fit(IRIS)
    parts.set_params(warm_start=True).fit(IRIS).fit(IRIS)
    np.testing.assert_allclose(parts.lower_bounds_, whole.lower_bounds_[3:], rtol=1e-11)


def test_copies_pickles_and_files(tmp_path):
    model = GaussianMixture(3, random_state=0, covariance_type="tied").fit(IRIS)
    model.save(tmp_path / "model")
    made = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    made += [kind.load(tmp_path / "model") for kind in (GaussianMixture, rp.GaussianMixture)]
    for other in made:
        for name in FITTED:
            same_bits(getattr(other, name), getattr(model, name))
        same_bits(other.predict_proba(IRIS), model.predict_proba(IRIS))
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "means_")


@pytest.mark.parametrize("jobs", [None, 2])
def test_a_search_over_a_pipeline_finds_the_same(jobs):
    grid = {"gaussianmixture__n_components": [1, 2, 3], "gaussianmixture__covariance_type": TYPES}
    found = []
    with parallel_config("loky", n_jobs=jobs or 1):
        for M in BOTH:
            search = GridSearchCV(make_pipeline(StandardScaler(), M(reg_covar=1e-3, random_state=0)), grid, cv=3)
            found.append(search.fit(IRIS))
    theirs, ours = found
    assert ours.best_params_ == theirs.best_params_
    np.testing.assert_allclose(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-8)
    assert ours.score(IRIS) == pytest.approx(theirs.score(IRIS), rel=1e-8)


def test_routing_of_metadata_is_theirs():
    theirs, ours = (M(2, random_state=0) for M in BOTH)
    with sklearn.config_context(enable_metadata_routing=True):
        assert repr(ours.get_metadata_routing()) == repr(theirs.get_metadata_routing())
        pipes = [make_pipeline(StandardScaler(), model).fit(IRIS) for model in (theirs, ours)]
        weights = np.ones(len(IRIS))
        there, here = (error_of(lambda p=p: p.fit(IRIS, sample_weight=weights)) for p in pipes)
    assert here == there


def test_names_of_features():
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    frame = pandas.DataFrame(IRIS, columns=[*"abcd"])
    model = GaussianMixture(2, random_state=0).fit(frame)
    assert [*model.feature_names_in_] == [*"abcd"]
    with warnings.catch_warnings(action="error"):
        same_bits(model.fit_predict(frame), model.predict(frame))
        same_bits(model.predict_proba(frame), GaussianMixture(2, random_state=0).fit(IRIS).predict_proba(IRIS))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.score_samples(IRIS)
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        model.predict(frame.rename(columns={"a": "e"}))
    pipe = make_pipeline(StandardScaler(), GaussianMixture(2)).set_output(transform="pandas").fit(frame)
    assert [*pipe[-1].feature_names_in_] == [*"abcd"]


# ---- the module


@pytest.mark.parametrize(("found", "said"), [
    ("None", r'reparam\.sklearn needs scikit-learn 1\.6 or newer: pip install "reparam\[sklearn\]"'),
    ("types.SimpleNamespace(__version__='1.5.2')", r"needs scikit-learn 1\.6 or newer, found 1\.5\.2: pip install -U"),
])  # fmt: skip
def test_without_scikit_learn_or_with_an_old_one_there_is_one_line(found, said):
    program = (
        "import sys, types, reparam as rp\n"
        "assert not {'sklearn', 'scipy', 'joblib'} & set(sys.modules)\n"
        f"sys.modules['sklearn'] = {found}\n"
        "rp.sklearn"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.match(f"ImportError: .*{said}", done.stderr.splitlines()[-1]), done.stderr


def test_the_example_has_the_same_scores(capsys):
    numbers = importlib.import_module("reparam.examples.one_line.scikit_learn_pipeline").main()
    assert numbers["difference"] < 1e-9
    assert numbers["same_best"] == 1
    printed = capsys.readouterr().out
    assert printed.count("before") == printed.count("after") == 2
    assert "from reparam.sklearn import GaussianMixture" in printed
