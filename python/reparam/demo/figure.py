# SPDX-License-Identifier: MIT
"""The demo's figure: training, the latent map, hidden halves completed, generated digits."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops, plot
from .digits import COUNT, SIDE, Digits, lower_half_hidden
from .report import replacing

__all__ = ["PIXELS", "figure"]

Array = NDArray[Any]
INCHES, DPI = (12.0, 7.2), 150
PIXELS = (1800, 1080)  #: width and height of the image
NAMES = {"diag": "diagonal", "full": "full covariance"}
COMPLETIONS, LETTERS = 4, "abcdef"
SPREAD_DRAWS, SAME_MODE = 64, 1.5
# Places in inches from the upper left corner, and inches that one pixel of a digit takes.
LEFT, RIGHT, PIXEL = 0.8, 5.75, 0.0525
QUIET = plot.COLORS["quiet"]


def figure(
    path: Path, model: Any, digits: Digits, posteriors: dict[str, Any], gain: Array, log_likelihood: float, key: int
) -> None:
    """Draw the four panels into `path`.

    Parameters
    ----------
    path : Path
        The PNG, replaced as a whole.
    model : VAE
        The fitted model.
    digits : Digits
        The data.
    posteriors : dict
        q(z | upper half) of the half-hidden images, ``"diag"`` and ``"full"``.
    gain : ndarray
        By how many nats the ELBO of each half-hidden image is higher with a full covariance.
    log_likelihood : float
        Of the held-out digits.
    key : int
        Of the draws shown.
    """
    import matplotlib as mpl  # noqa: PLC0415  (an extra, and slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown = _most_different(model, digits, posteriors, key)
    with mpl.rc_context(plot.STYLE):
        page = Figure(figsize=INCHES, dpi=DPI)
        curve = _place(page, "Training", LEFT, 0.5, 4.3, 1.85)
        plot.elbo_curve(model.history_, log_likelihood=log_likelihood, ax=curve).set_ylabel("ELBO, nats per image")
        latent = _place(page, "Latent map, and 90 % of q(z | upper half)", LEFT, 3.22, 4.3, 3.41)
        _draw_latent_map(latent, model, digits, posteriors, shown)
        _draw_halves(page, model, digits, posteriors, gain, shown, key)
        sampled = _place(page, "Generated digits", RIGHT, 4.32, 107 * PIXEL, 44 * PIXEL)
        plot.digit_grid(np.asarray(model.sample(60, key=key)).reshape(5, 12, SIDE, SIDE), vmax=COUNT, ax=sampled)
        with replacing(path) as temporary:
            page.savefig(temporary, format="png")


def _place(page: Any, title: str, left: float, top: float, width: float, height: float, above: float = 0.14) -> Any:
    """Axes at a place in inches, with a title so far above them."""
    across, down = INCHES
    page.text(left / across, 1 - (top - above) / down, title, fontsize=12, fontweight="bold", va="bottom")
    return page.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _completed(model: Any, digits: Digits, q: Any, draws: int, key: int) -> Array:
    """The half-hidden images ``[draws, image, pixel]``, hidden pixels filled with their means given draws of z."""
    hidden = lower_half_hidden() == 0
    return np.where(hidden, model.decode(q.rsample((draws,), key=key)), digits.half_hidden)


def _most_different(model: Any, digits: Digits, posteriors: dict[str, Any], key: int) -> Array:
    """Six images, each of another class, whose completions vary most beyond those by the diagonal covariance.

    Those come first on which both posteriors have the same mode, so that their shapes are compared.
    """
    spread = {k: _completed(model, digits, q, SPREAD_DRAWS, key).std(0).mean(-1) for k, q in posteriors.items()}
    apart = ops.tril_solve(posteriors["full"].scale_tril, posteriors["diag"].loc - posteriors["full"].loc)
    same_mode = np.linalg.norm(apart, axis=-1) < SAME_MODE
    beyond = spread["full"] - spread["diag"] + np.where(same_mode, COUNT, 0)
    labels = digits.test_labels[: len(beyond)]
    of_class = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    best = np.array([own[np.argmax(beyond[own])] for own in of_class])
    best = best[np.argsort(-beyond[best], kind="stable")[: len(LETTERS)]]
    return best[np.argsort(labels[best])]


def _draw_halves(
    page: Any, model: Any, digits: Digits, posteriors: dict[str, Any], gain: Array, shown: Array, key: int
) -> None:
    """A row for each image: what is seen, four completions by each posterior, the truth, the gain in nats."""
    truth = digits.half_hidden[shown].astype(np.float64)
    columns = [("seen", QUIET, np.where(lower_half_hidden() == 0, np.nan, truth)[None])]
    for kind, name in NAMES.items():
        columns.append(
            (name, plot.COLORS[kind], _completed(model, digits, posteriors[kind], COMPLETIONS, key)[:, shown])
        )
    columns.append(("truth", QUIET, truth[None]))
    left, gap, title = RIGHT, 2, "Lower half hidden: completions by each q, gain in nats"
    height = len(shown) * (SIDE + gap) - gap
    for name, color, images in columns:
        width = len(images) * (SIDE + gap) - gap
        ax = _place(page, title, left, 0.78, width * PIXEL, height * PIXEL, above=0.42)
        plot.digit_grid(images.swapaxes(0, 1).reshape(len(shown), -1, SIDE, SIDE), gap=gap, vmax=COUNT, ax=ax)
        ax.set_title(name, loc="center", color=color, fontsize=10, fontweight="normal", pad=5)
        left, title = left + (width + 5) * PIXEL, ""
        if name == "seen":
            for k, letter in enumerate(LETTERS[: len(shown)]):
                ax.text(-3, k * (SIDE + gap) + 3.5, letter, ha="right", va="center", fontweight="bold")
    quiet = {"color": QUIET, "fontsize": 10, "ha": "right"}
    for k, nats in enumerate(gain[shown]):
        ax.text(SIDE + 8, k * (SIDE + gap) + 3.5, f"{nats:+.1f}", va="center", **quiet)
    ax.text(SIDE + 8, -1.8, "gain", va="baseline", **quiet)


def _draw_latent_map(ax: Any, model: Any, digits: Digits, posteriors: dict[str, Any], shown: Array) -> None:
    """Posterior means of the training digits, and q(z | upper half) of the shown ones."""
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    full = posteriors["full"]
    dims = _telling_pair(full.loc[shown], np.asarray(full.covariance_matrix, np.float64)[shown])
    plot.latent_map(model.transform(digits.train), digits.train_labels, dims=dims, ax=ax)
    stroke = [withStroke(linewidth=2.5, foreground="white")]
    for kind, name in NAMES.items():
        q = posteriors[kind]
        spread = q.scale_tril if kind == "full" else q.scale_diag
        color = plot.COLORS[kind]
        plot.posterior_ellipses(q.loc[shown], spread[shown], dims=dims, color=color, label=name, ax=ax, linewidth=1.6)
    for letter, center in zip(LETTERS, full.loc[shown][:, dims], strict=False):
        style = {"ha": "center", "va": "center", "fontweight": "bold", "path_effects": stroke}
        ax.annotate(letter, tuple(center), **style)
    ax.legend(loc="upper left", borderaxespad=0.0, frameon=True, framealpha=0.85, edgecolor="none")


def _telling_pair(loc: Array, covariance: Array) -> list[int]:
    """The two coordinates in which these Gaussians are most correlated on average and do not lie on each other."""
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    correlation = np.abs(covariance / scale[:, :, None] / scale[:, None, :]).mean(0)
    one, two = np.triu_indices(len(loc), 1)
    squares = (loc[one] - loc[two]) ** 2
    closest = np.sqrt(np.min(squares[:, :, None] + squares[:, None, :], axis=0))
    telling = np.triu(correlation * np.minimum(closest, 1.0), 1)
    return [int(i) for i in np.unravel_index(np.argmax(telling), telling.shape)]
