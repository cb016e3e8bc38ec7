# SPDX-License-Identifier: MIT
"""Importance-weighted bounds: more draws give a tighter bound to train on, and a quieter gradient a better one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import data, folder, picture, table

TRAINED = {
    "VAE": ("pathwise", 1),
    "IWAE, 5 draws": ("iwae", 5),
    "IWAE, 50 draws": ("iwae", 50),
    "DReG, 5 draws": ("dreg", 5),
    "DReG, 50 draws": ("dreg", 50),
}
DRAWS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train five VAEs on digits; bound the likelihood of 297 held-out ones by growing numbers of draws."""
    out = folder(argv, __doc__)
    x = data("digits")[0]
    settings: dict[str, Any] = {"hidden": (32,), "likelihood": "binomial", "total_count": 16, "epochs": 20, "lr": 3e-3}
    models = {
        name: rp.VAE(8, **settings, batch_size=100, estimator=estimator, num_samples=draws).fit(x[:1500])
        for name, (estimator, draws) in TRAINED.items()
    }
    own = {name: float(models[name].log_likelihood(x[1500:], num_samples=draws, key=1).mean())
           for name, (_, draws) in TRAINED.items()}  # fmt: skip
    curves = {
        name: [float(model.log_likelihood(x[1500:], num_samples=draws, key=2).mean()) for draws in DRAWS]
        for name, model in models.items() if name in ("VAE", "IWAE, 50 draws", "DReG, 50 draws")
    }  # fmt: skip
    table("held-out digits, each model's own bound, nats per image", {k: (v, None) for k, v in own.items()})
    table("the bound of the VAE, by draws", {str(s): (v, None) for s, v in zip(DRAWS, curves["VAE"], strict=True)})

    # Where everything is known: q is the posterior of a linear-Gaussian model but half as wide.
    model = rp.ProbabilisticPCA(2).fit(data("iris")[0])
    rows = data("iris")[0][:50]
    exact, evidence = model.posterior(rows), float(model.log_evidence(rows).mean())
    narrow = rp.MultivariateNormal(exact.loc, scale_tril=0.5 * exact.scale_tril)

    def bound(q: Any, draws: int) -> float:
        many: dict[str, Any] = {"num_samples": draws, "estimator": "iwae", "grad": False}
        joint, keys = model.log_joint(rows), range(20 + 2000 // draws)
        return float(np.mean([rp.elbo(q, joint, key=key, **many).value for key in keys]))

    known = {f"q too narrow, {draws} draw{'s' * (draws > 1)}": bound(narrow, draws) for draws in (1, 5, 50, 500)}
    short = float(rp.kl_divergence(narrow, exact).mean())
    at_posterior = bound(exact, 5)
    table("fifty flowers, where the evidence is exact", {
        **{name: (value, evidence - short if k == 0 else None) for k, (name, value) in enumerate(known.items())},
        "q the posterior, 5 draws": (at_posterior, evidence),
    })  # fmt: skip

    def draw_curves(ax: Any) -> None:
        colors = (rp.plot.COLORS["train"], "#2f7d5b", "#8a5a9e")
        for (name, values), color in zip(curves.items(), colors, strict=True):
            ax.plot(DRAWS, values, color=color, marker="o", markersize=4, label=name)
        ax.set(xscale="log", xlabel="draws of the bound", ylabel="held-out bound, nats per image")
        ax.legend(loc="center right")

    picture(out, "iwae_against_vae", {"Models trained on three bounds": draw_curves})
    return {**own, "known_1": known["q too narrow, 1 draw"], "known_500": known["q too narrow, 500 draws"],
            "at_posterior": at_posterior, "evidence": evidence, "short": short,
            "growth": float(np.min(np.diff(curves["VAE"])))}  # fmt: skip


if __name__ == "__main__":
    main()
