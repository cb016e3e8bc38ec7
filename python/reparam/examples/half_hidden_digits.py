# SPDX-License-Identifier: MIT
"""Half-hidden digits: inference with missing data by the same model, and what a full covariance is worth there."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import data, folder, picture, table

SHOWN, IMAGES, HELD_OUT = 6, 100, 297


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train on 1500 digits, hide the lower halves of others, infer z from the upper ones, and complete them."""
    out = folder(argv, __doc__)
    x = data("digits")[0]
    settings: dict[str, Any] = {"hidden": (64,), "likelihood": "binomial", "total_count": 16, "epochs": 60, "lr": 2e-3}
    model = rp.VAE(8, **settings, activation="silu", key=0).fit(x[:-HELD_OUT])
    half = x[-HELD_OUT:][:IMAGES]
    observed = np.broadcast_to(np.arange(64) < 32, half.shape)
    joint = model.log_joint(half, observed)
    bound, posterior = {}, {}
    for kind in ("diag", "full"):
        posterior[kind] = q = model.posterior(half, observed=observed, refine=200, covariance_type=kind)
        bound[kind] = rp.elbo(q, joint, key=1, num_samples=1000, estimator="stl", grad=False).value
    # The same draws, weighted: a bound that is tight where q covers the posterior.
    evidence = rp.elbo(posterior["full"], joint, key=2, num_samples=5000, estimator="iwae", grad=False)
    completed = model.decode(posterior["full"].rsample((4,), key=3))
    guess = np.broadcast_to(x[:-HELD_OUT].mean(0), half.shape)
    mean = model.decode(posterior["full"].rsample((200,), key=4)).mean(0)
    hidden = ~observed
    error = {name: float(np.sqrt(np.square(made - half)[hidden].mean())) for name, made in
             (("completion", mean), ("the mean digit", guess))}  # fmt: skip
    gain = np.asarray(bound["full"] - bound["diag"], np.float64)
    table(f"upper halves of {IMAGES} held-out digits, nats per image", {
        "ELBO, diagonal q": (float(bound["diag"].mean()), None),
        "ELBO, full q": (float(bound["full"].mean()), None),
        "log p(upper half), 5000 weighted draws": (float(evidence.value.mean()), None),
        "full less diagonal": (float(gain.mean()), None),
        "    standard error over images": (float(gain.std(ddof=1) / np.sqrt(IMAGES)), None),
    })  # fmt: skip
    table("error of the hidden pixels (0..16), root mean square", {k: (v, None) for k, v in error.items()})

    def draw_completions(ax: Any) -> None:
        rp.plot.reconstructions(
            half[:SHOWN], completed[:, :SHOWN], image_shape=(8, 8), observed=observed[:SHOWN], vmax=16, ax=ax
        )

    def draw_gain(ax: Any) -> None:
        ax.hist(gain, bins=20, color=rp.plot.COLORS["full"])
        ax.axvline(gain.mean(), color=rp.plot.COLORS["ink"], linewidth=1.1, linestyle=(0, (4, 3)))
        ax.set(xlabel="ELBO of the full q less that of the diagonal one, nats", ylabel="images")

    picture(out, "half_hidden_digits", {"Lower halves completed": draw_completions, "Gain, by image": draw_gain})
    return {
        "diag": float(bound["diag"].mean()), "full": float(bound["full"].mean()), "gain": float(gain.mean()),
        "evidence": float(evidence.value.mean()),
        "error": error["completion"], "error_of_mean": error["the mean digit"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
