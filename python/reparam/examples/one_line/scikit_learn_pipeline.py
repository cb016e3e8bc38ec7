# SPDX-License-Identifier: MIT
"""A pipeline of scikit-learn under a grid search; one import is changed, and the scores stay what they were."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn import mixture
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import reparam.sklearn

from .._show import data
from ._show import before_and_after

FEATURES, SIZES, KINDS = 16, (5, 10, 20), ("full", "diag")
BEFORE = "from sklearn.mixture import GaussianMixture"
AFTER = "from reparam.sklearn import GaussianMixture"


def search(GaussianMixture: Any) -> tuple[Any, float]:  # the class that the changed line imports
    """The finished search, and its seconds."""
    model = GaussianMixture(init_params="random_from_data", reg_covar=0.1, max_iter=500, random_state=0)
    grid = {"gaussianmixture__n_components": SIZES, "gaussianmixture__covariance_type": KINDS}
    found = GridSearchCV(make_pipeline(PCA(FEATURES, random_state=0), model), grid, cv=3)
    x = data("digits")[0]
    begin = time.perf_counter()
    found.fit(x)
    return found, time.perf_counter() - begin


def main() -> dict[str, float]:
    """Search with scikit-learn's class and with ours, from one random state."""
    before, seconds_before = search(mixture.GaussianMixture)
    after, seconds_after = search(reparam.sklearn.GaussianMixture)
    fits = 3 * len(SIZES) * len(KINDS) + 1
    before_and_after(f"PCA to {FEATURES}, a Gaussian mixture, digits, a search of {fits} fits", BEFORE, AFTER, {
        "best score [nats a row]": (before.best_score_, after.best_score_),
        "best n_components": tuple(found.best_params_["gaussianmixture__n_components"] for found in (before, after)),
        "seconds": (seconds_before, seconds_after),
    })  # fmt: skip
    scores = [found.cv_results_["mean_test_score"] for found in (before, after)]
    return {
        "difference": float(np.abs(scores[1] / scores[0] - 1).max()),
        "same_best": float(before.best_params_ == after.best_params_),
        "gain": seconds_before / seconds_after,
    }


if __name__ == "__main__":
    main()
