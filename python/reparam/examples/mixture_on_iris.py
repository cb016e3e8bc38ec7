# SPDX-License-Identifier: MIT
"""A Gaussian mixture on iris: EM iteration by iteration, hard and soft clustering, and EM as variational inference."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import data, folder, picture, table

#: Mean log likelihood of a row before iterations 1, 2, 5 and the last.
EXACT = {
    "full": (-1.2194723240, -1.2148115893, -1.2039059521, -1.2012365142),
    "diag": (-2.0624183860, -2.0478068254, -2.0466491606, -2.0457364037),
}


def fitted(x: Any, species: Any, covariance_type: str) -> rp.GaussianMixture:
    """EM from the means and covariances of the species, without regularization."""
    classes = [x[species == k] for k in range(3)]
    covariances = np.stack([np.cov(rows.T, bias=True) for rows in classes])
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    return rp.GaussianMixture(
        3, covariance_type=covariance_type, tol=1e-12, reg_covar=0, max_iter=2000, weights_init=np.full(3, 1 / 3),
        means_init=np.stack([rows.mean(0) for rows in classes]),
        precisions_init=np.linalg.inv(covariances) if covariance_type == "full" else 1 / variances,
    ).fit(x)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fit both kinds of covariance, ask for the posteriors of z, and show that they are the best q."""
    out = folder(argv, __doc__)
    x, species = data("iris")
    numbers: dict[str, float] = {}
    models = {kind: fitted(x, species, kind) for kind in EXACT}
    for kind, model in models.items():
        found = model.lower_bounds_[[0, 1, 4, -1]]
        names = ("iteration 1", "iteration 2", "iteration 5", f"converged ({model.n_iter_})")
        table(f"mean log likelihood, {kind}", dict(zip(names, zip(found, EXACT[kind], strict=True), strict=True)))
        numbers[f"error_{kind}"] = float(np.abs(found - EXACT[kind]).max())

    model = models["full"]
    soft, hard = model.predict_proba(x), model.predict(x)
    evidence, bound = model.score_samples(x), model.elbo(x, soft)
    bound_of_hard = model.elbo(x, np.eye(3)[hard])
    rows = {
        "ELBO at the posterior": (float(bound.mean()), float(evidence.mean())),
        "ELBO at hard clusters": (float(bound_of_hard.mean()), None),
        "rows in the cluster of their species": (float((hard == species).mean()), None),
    }
    table("EM is VI: q(z | x) over the three components", rows)
    numbers["gap_at_the_posterior"] = float(np.abs(bound - evidence).max())
    numbers["gap_of_hard_clusters"] = float((evidence - bound_of_hard).mean())
    numbers["agreement"] = float((hard == species).mean())

    def draw_clusters(ax: Any) -> None:
        rp.plot.mixture_components(model, x, dims=(2, 3), ax=ax)
        ax.set(xlabel="petal length, cm", ylabel="petal width, cm")

    def draw_bound(ax: Any) -> None:
        bounds = model.lower_bounds_
        ax.plot(np.arange(1, len(bounds) + 1), bounds, color=rp.plot.COLORS["full"], marker=".", linewidth=1.2)
        ax.axhline(EXACT["full"][-1], color=rp.plot.COLORS["ink"], linewidth=1.1, linestyle=(0, (4, 3)))
        ax.set(xlabel="iteration", ylabel="log likelihood, nats per row")

    picture(out, "mixture_on_iris", {"Three components": draw_clusters, "EM never goes down": draw_bound})
    return numbers


if __name__ == "__main__":
    main()
