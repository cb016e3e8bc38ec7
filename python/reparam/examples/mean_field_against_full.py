# SPDX-License-Identifier: MIT
"""Mean field against full covariance on a known, correlated posterior: iris, loadings turned by 30 degrees."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import data, folder, picture, table

#: The best ELBO of either family, summed over the rows; that of the full one is the log evidence.
EXACT = {"full": -404.962780, "diag": -507.088309}
STEPS = 3000


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """One q for each row by fit_vi, then one linear encoder for all of them by fit_amortized."""
    out = folder(argv, __doc__)
    x = data("iris")[0]
    fitted, angle = rp.ProbabilisticPCA(2).fit(x), np.pi / 6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    model = rp.LinearGaussianModel(fitted.weight_ @ turn, fitted.bias_, fitted.noise_scale_)
    exact, joint = model.posterior(x), model.log_joint(x)
    numbers: dict[str, float] = {}
    rows: dict[str, tuple[float, float | None]] = {"log evidence": (float(model.log_evidence(x).sum()), EXACT["full"])}
    classical = {}
    for kind, best in EXACT.items():
        fit = rp.fit_vi(joint, 2, batch_shape=len(x), covariance_type=kind, num_samples=64, tol=0.002, key=1)
        classical[kind] = fit.q
        settings: dict[str, Any] = {"hidden": (), "covariance_type": kind, "estimator": "stl", "dtype": "float64"}
        steps: dict[str, Any] = {"batch_size": len(x), "epochs": STEPS, "lr": lambda t: 0.1 * 10 ** (-3 * t / STEPS)}
        amortized = rp.fit_amortized(model.log_joint, x, 2, **settings, **steps).posterior(x)
        for name, q in (("classical", fit.q), ("amortized", amortized)):
            bound = float((model.log_evidence(x) - rp.kl_divergence(q, exact)).sum())
            rows[f"ELBO, {kind}, {name}"] = (bound, best)
            numbers[f"{name}_{kind}"] = bound
    precision = np.linalg.inv(exact.covariance_matrix)[0]
    numbers["variance"] = float(classical["diag"].variance[0, 0])
    numbers["exact_variance"] = float(1 / precision[0, 0])
    rows["mean field, variance of z[0]"] = (numbers["variance"], numbers["exact_variance"])
    rows["    that of the posterior itself"] = (float(exact.variance[0, 0]), None)
    table(f"{len(x)} posteriors at once, nats in all", rows)
    print(f"mean field falls short by {(EXACT['full'] - EXACT['diag']) / len(x):.4f} nats a row")

    def draw(ax: Any) -> None:
        shown, colors = slice(0, 150, 15), rp.plot.COLORS
        ellipses = rp.plot.posterior_ellipses
        ellipses(exact.loc[shown], exact.scale_tril[shown], color=colors["train"], label="exact", ax=ax, linewidth=4)
        q = classical["full"]
        ellipses(q.loc[shown], q.scale_tril[shown], color=colors["full"], label="full covariance", ax=ax)
        q = classical["diag"]
        ellipses(q.loc[shown], q.scale_diag[shown], color=colors["diag"], label="mean field", ax=ax)
        ax.set(xlabel="z[0]", ylabel="z[1]", aspect="equal")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    picture(out, "mean_field_against_full", {"Posteriors of ten flowers, 90 % each": draw})
    return numbers


if __name__ == "__main__":
    main()
