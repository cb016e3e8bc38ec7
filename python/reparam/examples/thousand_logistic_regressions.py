# SPDX-License-Identifier: MIT
"""A thousand logistic regressions at once: each with its own data and its own posterior, one batch of kernels."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import folder, picture, table

PROBLEMS, ROWS, DIM, DRAWS = 1000, 50, 8, 1000
CHI_SQUARE_90 = 13.361566  # 90 % of a chi-square law with 8 degrees of freedom lie below


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Draw coefficients from the prior and labels given them, infer, and ask how often q holds the coefficients."""
    out = folder(argv, __doc__)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((PROBLEMS, ROWS, DIM))
    true = rng.standard_normal((PROBLEMS, DIM))
    chance = 1 / (1 + np.exp(-np.einsum("bnd,bd->bn", features, true)))
    y = (rng.random((PROBLEMS, ROWS)) < chance).astype(float)
    target = rp.targets.GLM(features, y, family="logistic", prior_scale=1.0)
    begin = time.perf_counter()
    fit = rp.fit_vi(target, DIM, batch_shape=PROBLEMS, key=0)
    seconds = time.perf_counter() - begin
    white = rp.tril_solve(fit.q.scale_tril, true - fit.q.loc)  # N(0, I) if q is the posterior
    inside = float((np.square(white).sum(1) < CHI_SQUARE_90).mean())
    # The same draws as elbo's, weighted by it, stand for the posterior itself: the weight below a truth is uniform.
    weighted = rp.elbo(fit.q, target, key=3, num_samples=DRAWS, estimator="iwae", grad=False)
    below = fit.q.rsample((DRAWS,), key=3) < true
    level = np.einsum("sb,sbd->bd", weighted.weights, below)
    central = float((np.abs(level - 0.5) < 0.45).mean())
    table(f"{PROBLEMS} regressions of {ROWS} rows, {DIM} coefficients", {
        "coefficients in the central 90 % of weighted draws": (central, 0.9),
        "mean weight below a coefficient": (float(level.mean()), 0.5),
        "    its standard deviation": (float(level.std()), 12**-0.5),
        "problems in the 90 % ellipsoid of q itself": (inside, None),
        "ELBO, mean": (float(fit.elbo.mean()), None),
        "log evidence by weighted draws, mean": (float(weighted.value.mean()), None),
        "k-hat, median": (float(np.median(fit.khat)), None),
        "k-hat, largest": (float(fit.khat.max()), None),
        "converged": (float(fit.converged.mean()), 1.0),
        "steps, mean": (float(fit.n_steps.mean()), None),
    })  # fmt: skip
    print(f"{seconds:.2f} s, {1e6 * seconds / PROBLEMS:.0f} microseconds a regression")

    def draw_coefficients(ax: Any) -> None:
        loc = fit.q.loc
        ax.plot(true.ravel()[::4], loc.ravel()[::4], ".", markersize=2.5, color=rp.plot.COLORS["full"])
        ax.plot([-3.5, 3.5], [-3.5, 3.5], color=rp.plot.COLORS["ink"], linewidth=1.1, linestyle=(0, (4, 3)))
        ax.set(xlabel="true coefficient", ylabel="posterior mean")

    def draw_distances(ax: Any) -> None:
        distance = np.sort(np.square(white).sum(1))
        ax.plot(distance, np.arange(1, PROBLEMS + 1) / PROBLEMS, color=rp.plot.COLORS["full"], label="found")
        draws = np.sort(np.square(rng.standard_normal((100_000, DIM))).sum(1))
        style = {"color": rp.plot.COLORS["ink"], "linewidth": 1.1, "linestyle": (0, (4, 3))}
        ax.plot(draws[::100], np.arange(0, 1, 0.001), label="if q is the posterior", **style)
        ax.set(xlabel="squared distance of the truth from q", ylabel="share of problems below", xlim=(0, 30))
        ax.legend(loc="lower right")

    panels = {"Coefficients, shrunk by the prior": draw_coefficients, "Calibration": draw_distances}
    picture(out, "thousand_logistic_regressions", panels)
    return {
        "inside": inside, "central": central, "mean_level": float(level.mean()), "elbo": float(fit.elbo.mean()),
        "evidence": float(weighted.value.mean()), "khat": float(np.median(fit.khat)), "seconds": seconds,
        "converged": float(fit.converged.mean()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
