# SPDX-License-Identifier: MIT
"""Where the evidence goes: ELBO, approximation gap and amortization gap, exact with two latents."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import data, folder, picture, table

ROWS, ELLIPSES = 100, 12


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train two VAEs on digits, diagonal and full; split log p(x) of held-out ones, and of a refined q."""
    out = folder(argv, __doc__)
    x, digit = data("digits")
    settings: dict[str, Any] = {"hidden": (64,), "likelihood": "binomial", "total_count": 16, "epochs": 60, "lr": 3e-3}
    models = {kind: rp.VAE(2, **settings, covariance_type=kind).fit(x[:1500]) for kind in ("diag", "full")}
    gaps = {kind: model.gaps(x[1500 : 1500 + ROWS], refine=100) for kind, model in models.items()}
    numbers: dict[str, float] = {}
    for kind, each in gaps.items():
        weighted = models[kind].log_likelihood(x[1500 : 1500 + ROWS], num_samples=2000, key=1)
        parts = each.elbo + each.approximation_gap + each.amortization_gap
        table(f"{kind}, {ROWS} held-out digits, nats per image", {
            "log evidence, cubature": (float(each.log_evidence.mean()), None),
            "    2000 weighted draws": (float(weighted.mean()), float(each.log_evidence.mean())),
            "ELBO": (float(each.elbo.mean()), None),
            "approximation gap": (float(each.approximation_gap.mean()), None),
            "amortization gap": (float(each.amortization_gap.mean()), None),
            "their sum": (float(parts.mean()), float(each.log_evidence.mean())),
        })  # fmt: skip
        numbers |= {
            f"approximation_{kind}": float(each.approximation_gap.mean()),
            f"amortization_{kind}": float(each.amortization_gap.mean()),
            f"error_{kind}": float(np.abs(parts - each.log_evidence).max()),
            f"weighted_{kind}": float((each.log_evidence - weighted).mean()),
            f"exact_{kind}": float(each.exact.mean()),
        }

    def draw_map(ax: Any) -> None:
        model = models["full"]
        rp.plot.latent_map(model.transform(x[:1500]), digit[:1500], ax=ax)
        q = model.posterior(x[1500 : 1500 + ELLIPSES])
        rp.plot.posterior_ellipses(q.loc, q.scale_tril, ax=ax, linewidth=1.4)

    def draw_gaps(ax: Any) -> None:
        rp.plot.gap_bars({"diagonal q": gaps["diag"], "full q": gaps["full"]}, ax=ax)

    picture(out, "amortization_gap", {"Latent map, 90 % of twelve q": draw_map, "What the ELBO lacks": draw_gaps})
    return numbers


if __name__ == "__main__":
    main()
