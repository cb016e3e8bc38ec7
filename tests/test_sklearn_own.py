# SPDX-License-Identifier: MIT
"""scikit-learn's own tests of its mixture, loaded from the installed package, with our class in place of theirs."""

import importlib.util

import numpy as np
import pytest
from sklearn import mixture

from reparam.sklearn import GaussianMixture

_HELPER = "of functions in scikit-learn's module, which ours does not call"
LEFT_OUT = {
    "test_suffstat_sk_full": _HELPER,
    "test_suffstat_sk_tied": _HELPER,
    "test_suffstat_sk_diag": _HELPER,
    "test_gaussian_suffstat_sk_spherical": _HELPER,
    "test_compute_log_det_cholesky": _HELPER,
    "test_gaussian_mixture_log_probabilities": _HELPER,
    "test_gaussian_mixture_precisions_init": "of the private _initialize, which ours does not call",
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": "counts calls of such a function",
    "test_gaussian_mixture_setting_best_params": "wants variances of 4e-16, of one row: see test_sklearn.py",
    "test_gaussian_mixture_array_api_compliance": "ours makes arrays of other libraries NumPy's",
    "test_gaussian_mixture_raises_where_array_api_not_implemented": "so it has no start that is not implemented",
}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def loaded(name):
    """The test module anew: its ``from sklearn.mixture import GaussianMixture`` finds ours."""
    spec = importlib.util.find_spec(f"sklearn.mixture.tests.{name}")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "GaussianMixture", GaussianMixture)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(params=[np.float32, np.float64])
def global_dtype(request):
    return request.param


@pytest.fixture(params=[0, 1, 42])
def global_random_seed(request):
    return request.param


THEIRS = {
    name: function
    for module in map(loaded, ("test_gaussian_mixture", "test_mixture"))
    for name, function in vars(module).items()
    if name.startswith("test_")
}
globals().update({name: function for name, function in THEIRS.items() if name not in LEFT_OUT})


def test_most_of_theirs_are_here_and_ask_our_class():
    taken = [function for name, function in THEIRS.items() if name not in LEFT_OUT]
    assert len(taken) >= 30
    assert {function.__globals__["GaussianMixture"] for function in taken} == {GaussianMixture}
