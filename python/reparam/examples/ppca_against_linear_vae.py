# SPDX-License-Identifier: MIT
"""A linear VAE against probabilistic PCA: training reaches the maximum likelihood that is known in closed form."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import data, folder, picture, standardized, table

STEPS = 1500
#: Maximum of the log likelihood with two latents.
EXACT = {"iris": -404.962780, "wine": -2875.636260}


def linear_vae(x: Any) -> Any:
    """A VAE without hidden layers; the learning rate falls to 1e-4 of its first value, which quiets the noise."""
    settings: dict[str, Any] = {"hidden": (), "batch_size": len(x), "epochs": STEPS}
    settings |= {"num_samples": 8, "dtype": "float64"}
    return rp.VAE(2, **settings, lr=lambda step: 0.05 * 10 ** (-4 * step / STEPS)).fit(x)


def as_linear_gaussian(model: Any) -> rp.LinearGaussianModel:
    """The decoder's x = weight z + bias + noise, whose evidence is exact."""
    bias = model.decode(np.zeros(model.latent_dim))
    return rp.LinearGaussianModel((model.decode(np.eye(model.latent_dim)) - bias).T, bias, model.noise_scale_)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fit both to iris (centred) and to wine (standardized), and compare likelihoods and latents."""
    out = folder(argv, __doc__)
    iris, species = data("iris")
    rows = {"iris": iris - iris.mean(0), "wine": standardized(data("wine")[0])}
    numbers: dict[str, float] = {}
    vae = {}
    for name, x in rows.items():
        pca, vae[name] = rp.ProbabilisticPCA(2).fit(x), linear_vae(x)
        theta = as_linear_gaussian(vae[name])
        likelihood, q = theta.log_evidence(x).sum(), vae[name].posterior(x)
        bound = rp.elbo(q, theta.log_joint(x), key=1, num_samples=1000, estimator="stl", grad=False).value.sum()
        found = {
            "probabilistic PCA, closed form": (float(pca.log_evidence(x).sum()), EXACT[name]),
            "linear VAE, exact likelihood": (float(likelihood), EXACT[name]),
            "linear VAE, its ELBO": (float(bound), EXACT[name]),
            "noise variance of the VAE": (vae[name].noise_scale_ ** 2, pca.noise_scale_**2),
        }
        table(f"{name}, sums over {len(x)} rows in nats", found)
        numbers[f"short_per_row_{name}"] = float(pca.log_evidence(x).sum() - likelihood) / len(x)
        numbers[f"pca_error_{name}"] = float(abs(pca.log_evidence(x).sum() - EXACT[name]))

    def draw_training(ax: Any) -> None:
        level = EXACT["iris"] / len(iris)
        rp.plot.elbo_trace(vae["iris"].history_["elbo"], log_evidence=level, label="linear VAE", ax=ax)
        ax.lines[-1].set_label("maximum of the likelihood")
        ax.set(xlabel="step", ylabel="ELBO, nats per row")
        ax.legend(loc="lower right")

    def draw_latents(ax: Any) -> None:
        names = np.array(["setosa", "versicolor", "virginica"])
        rp.plot.latent_map(vae["iris"].transform(rows["iris"]), names[species], ax=ax)
        ax.set(aspect="auto", xlim=(-3, 4.5))  # room for the names

    picture(out, "ppca_against_linear_vae", {"Training on iris": draw_training, "Its latents": draw_latents})
    return numbers


if __name__ == "__main__":
    main()
