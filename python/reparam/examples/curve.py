# SPDX-License-Identifier: MIT
"""The infinite mixture: a VAE with one latent on data along a curve, against mixtures of 1 to 20 Gaussians."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import folder, picture, table

SIZES = (*range(1, 11), 12, 15, 20)
NOISE, STEPS = 0.1, 6400


def on_the_curve(z: Any) -> Any:
    """The true decoder: z to (z, sin 1.5 z)."""
    return np.stack([z, np.sin(1.5 * z)], -1)


def draw(n: int, key: int) -> Any:
    """Rows of the true p*(x)."""
    z = rp.random.normal((n,), key=key)
    return on_the_curve(z) + NOISE * rp.random.normal((n, 2), key=key, stream=1)


def log_density(decoder: Any, noise_scale: float, x: Any) -> Any:
    """Log of the integral of N(x; decoder(z), noise_scale^2 I) N(z; 0, 1) over z: a sum over 2001 Gaussians."""
    z = np.linspace(-8, 8, 2001)
    centres = np.asarray(decoder(z), np.float64)
    squares = np.square(x[:, None] - centres).sum(-1) / noise_scale**2 + z**2
    logs = -0.5 * squares - 1.5 * np.log(2 * np.pi) - 2 * np.log(noise_scale)
    top = logs.max(1, keepdims=True)
    return top[:, 0] + np.log(np.exp(logs - top).sum(1) * (z[1] - z[0]))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fit all to 2000 rows; score 500 others by their exact densities."""
    out = folder(argv, __doc__)
    x, held_out = draw(2000, 1), draw(500, 2)
    vae = rp.VAE(1, hidden=(64, 64), epochs=400, lr=lambda step: 5e-3 * 10 ** (-2 * step / STEPS)).fit(x)
    mixtures = {k: rp.GaussianMixture(k, n_init=3, max_iter=500, random_state=0).fit(x) for k in SIZES}

    def of_vae(rows: Any) -> Any:
        return log_density(lambda z: vae.decode(z[:, None]), vae.noise_scale_, rows)

    true = log_density(on_the_curve, NOISE, held_out)
    scores = {k: float(model.score(held_out)) for k, model in mixtures.items()}
    best = max(scores, key=lambda k: scores[k])
    gaps = vae.gaps(held_out[:100], refine=50)
    table("mean log density of 500 held-out rows", {
        **{f"mixture of {k:2d}": (score, None) for k, score in scores.items()},
        "VAE with one latent": (float(of_vae(held_out).mean()), None),
        "true density": (float(true.mean()), None),
        "VAE on 100 rows, by VAE.gaps": (float(gaps.log_evidence.mean()), float(of_vae(held_out[:100]).mean())),
    })  # fmt: skip
    print(f"best mixture: {best} components; KL(p* || VAE) is about {true.mean() - of_vae(held_out).mean():.3f} nats")

    def draw_scores(ax: Any) -> None:
        colors, short = rp.plot.COLORS, [true.mean() - score for score in scores.values()]
        ax.plot(SIZES, short, color=colors["diag"], marker="o", markersize=4, label="mixture")
        ax.axhline(true.mean() - of_vae(held_out).mean(), color=colors["full"], linewidth=1.6, label="VAE, one latent")
        ax.set(xlabel="components", ylabel="nats per row below the true density", yscale="log", xticks=range(0, 21, 5))
        ax.legend(loc="upper right")

    def draw_density(ax: Any) -> None:
        across, up = np.meshgrid(np.linspace(-3.2, 3.2, 160), np.linspace(-1.7, 1.7, 100))
        density = np.exp(of_vae(np.stack([across.ravel(), up.ravel()], -1))).reshape(across.shape)
        ax.contourf(across, up, density, levels=density.max() * np.geomspace(0.005, 1, 8), cmap="Blues")
        ax.plot(*held_out[:250].T, ".", color=rp.plot.COLORS["ink"], markersize=2.5)
        ax.set(xlabel="x[0]", ylabel="x[1]")

    picture(out, "curve", {"How many Gaussians?": draw_scores, "The VAE's exact density": draw_density})
    return {
        "vae": float(of_vae(held_out).mean()), "best_mixture": scores[best], "true": float(true.mean()),
        "one_gaussian": scores[1],
        "quadrature_error": float(np.abs(gaps.log_evidence - of_vae(held_out[:100])).max()),
    }  # fmt: skip


if __name__ == "__main__":
    main()
