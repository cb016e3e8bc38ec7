# SPDX-License-Identifier: MIT
"""The demo's figure: training, hidden halves completed, the latent map, generated digits."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import plot
from .digits import COUNT, SIDE, Digits, lower_half_hidden

__all__ = ["figure"]

Array = NDArray[Any]
COMPLETIONS, ROWS = 6, 6


def figure(  # noqa: PLR0913
    path: Path, model: Any, digits: Digits, posteriors: dict[str, Any], log_likelihood: float, key: int
) -> None:
    """Draw the four panels into `path`, by way of a temporary file."""
    import matplotlib as mpl  # noqa: PLC0415  (an extra, and slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown, completed = complete(model, digits, posteriors["full"], key)
    with mpl.rc_context(plot.STYLE):
        page = Figure(figsize=(12.0, 7.4), dpi=110, layout="constrained")
        left, right = page.subfigures(1, 2, width_ratios=(1.0, 1.08), wspace=0.03)
        curve, latent = left.subplots(2, 1, height_ratios=(1.0, 1.6))
        halves, generated = right.subplots(2, 1, height_ratios=(4.75, 2.3))
        plot.elbo_curve(model.history_, log_likelihood=log_likelihood, ax=curve)
        curve.set_title("Training")
        draw_latent_map(latent, model, digits, posteriors, shown)
        plot.digit_grid(completed, gap=2, vmax=COUNT, ax=halves)
        halves.set_title("Lower half hidden: what is shown, six completions, the truth")
        images = np.asarray(model.sample(48, key=key)).reshape(4, 12, SIDE, SIDE)
        plot.digit_grid(images, vmax=COUNT, ax=generated)
        generated.set_title("Generated digits")
        temporary = path.with_suffix(".tmp")
        page.savefig(temporary, format="png")
        temporary.replace(path)


def complete(model: Any, digits: Digits, q: Any, key: int) -> tuple[Array, Array]:
    """The six images, each of another class, whose completions differ most; and the panel that shows them."""
    hidden = lower_half_hidden() == 0
    decoded = np.asarray(model.decode(q.rsample((COMPLETIONS,), key=key)), dtype=np.float64)
    spread = decoded[:, :, hidden].std(0).mean(-1)
    labels = digits.test_labels[: len(digits.half_hidden)]
    of_class = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    widest = np.array([own[np.argmax(spread[own])] for own in of_class])
    shown = np.sort(widest[np.argsort(-spread[widest], kind="stable")[:ROWS]])
    shown = shown[np.argsort(labels[shown])]
    truth = digits.test[shown].astype(np.float64)
    table = np.stack([truth, *decoded[:, shown], truth], axis=1)
    table[:, :-1][..., ~hidden] = truth[:, None, ~hidden]
    table[:, 0][:, hidden] = np.nan
    return shown, table.reshape(len(shown), -1, SIDE, SIDE)


def draw_latent_map(ax: Any, model: Any, digits: Digits, posteriors: dict[str, Any], shown: Array) -> None:
    """Posterior means of the training digits, and q(z | upper half) of the shown ones."""
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    factor = np.asarray(posteriors["full"].scale_tril, dtype=np.float64)[shown]
    covariance = factor @ np.swapaxes(factor, -1, -2)
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    correlation = np.abs(covariance / scale[:, :, None] / scale[:, None, :]).mean(0) - np.eye(
        factor.shape[-1]
    )
    dims = [int(i) for i in np.unravel_index(np.argmax(correlation), correlation.shape)]
    plot.latent_map(model.transform(digits.train), digits.train_labels, dims=dims, ax=ax)
    for kind, label in (("diag", "diagonal"), ("full", "full")):
        q = posteriors[kind]
        spread = q.scale_tril if kind == "full" else q.scale_diag
        plot.posterior_ellipses(
            q.loc[shown],
            spread[shown],
            dims=dims,
            color=plot.COLORS[kind],
            label=f"{label} covariance",
            ax=ax,
        )
    for k in shown:
        ax.annotate(
            str(digits.test_labels[k]),
            tuple(posteriors["full"].loc[k, dims]),
            ha="center",
            va="center",
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 1.02))
    ax.set_title("Latent map, and q(z | upper half) of these six")
