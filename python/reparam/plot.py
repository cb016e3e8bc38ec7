# SPDX-License-Identifier: MIT
"""Figures: the ELBO over epochs, posterior ellipses, maps of the latent space, grids of images.

Every function draws into ``ax`` (a new one if it is None) and returns it. Matplotlib is imported at the first call.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "STYLE", "digit_grid", "elbo_curve", "latent_map", "posterior_ellipses"]

#: One colour per meaning, the same in every panel.
COLORS = {
    "full": "#1f5fa8",
    "diag": "#d9661f",
    "train": "#8a94a0",
    "held_out": "#1f5fa8",
    "bound": "#2e8b57",
    "hidden": "#d5e3f2",
    "ink": "#20262d",
}

#: rcParams of a light, quiet page; use as ``with matplotlib.rc_context(rp.plot.STYLE)``.
STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": COLORS["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "font.size": 11,
    "legend.frameon": False,
    "text.color": COLORS["ink"],
    "xtick.color": "#5b646e",
    "ytick.color": "#5b646e",
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}

#: Ten light hues for ten classes, apart from the colours of the two covariance types.
CLASS_COLORS = (
    "#7f9fc6", "#e3b07c", "#86b889", "#d58d8d", "#a896c8", "#b59a8b", "#d9a3c7", "#a3a8ad", "#bdb96a", "#79bcc4",
)  # fmt: skip


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt  # noqa: PLC0415  (an extra, and slow to import)

    return plt.subplots()[1]


def elbo_curve(
    history: Mapping[str, ArrayLike],
    *,
    log_likelihood: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the training and held-out ELBO over the epochs.

    Parameters
    ----------
    history : mapping
        A model's ``history_``: ``epoch``, ``elbo`` and, where there was one, ``validation_elbo``.
    log_likelihood : float, optional
        A held-out log-likelihood, drawn as a level above the bound.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    epoch = np.asarray(history["epoch"], dtype=np.float64)
    train = np.asarray(history["elbo"], dtype=np.float64)
    held_out = np.asarray(history.get("validation_elbo", np.empty(0)), dtype=np.float64)
    ax.plot(epoch, train, color=COLORS["train"], linewidth=1.4, label="training")
    shown = [train[len(train) // 20 :]]
    if held_out.shape == epoch.shape and np.isfinite(held_out).any():
        ax.plot(epoch, held_out, color=COLORS["held_out"], linewidth=1.8, label="held out")
        shown.append(held_out[len(held_out) // 20 :])
    if log_likelihood is not None:
        ax.axhline(
            log_likelihood,
            color=COLORS["bound"],
            linewidth=1.2,
            linestyle=(0, (5, 3)),
            label="held-out log p(x)",
        )
        shown.append(np.array([log_likelihood]))
    finite = np.concatenate(shown)
    finite = finite[np.isfinite(finite)]
    if finite.size and (finite.max() > finite.min()):
        margin = 0.06 * (finite.max() - finite.min())
        ax.set_ylim(finite.min() - margin, finite.max() + margin)
    ax.set(xlabel="epoch", ylabel="ELBO, nats per image")
    ax.legend(loc="lower right")
    return ax


def _ellipses(loc: NDArray[np.float64], rows: NDArray[np.float64], mass: float) -> NDArray[np.float64]:
    """Outlines ``[B, 73, 2]`` that hold `mass` of N(loc, rows rows^T), rows ``[B, 2, d]``."""
    covariance = rows @ np.swapaxes(rows, -1, -2)
    factor = np.linalg.cholesky(covariance)
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    circle = np.sqrt(-2.0 * np.log1p(-mass)) * np.stack([np.cos(angle), np.sin(angle)])
    return np.asarray(np.swapaxes(loc[..., None] + factor @ circle, -1, -2))


def posterior_ellipses(  # noqa: PLR0913  (a public signature: all but two are keywords)
    loc: ArrayLike,
    scale_tril: ArrayLike,
    *,
    dims: Sequence[int] = (0, 1),
    mass: float = 0.9,
    color: str = COLORS["full"],
    label: str | None = None,
    ax: "Axes | None" = None,
    **style: Any,
) -> "Axes":
    """Draw the ellipse of each Gaussian's marginal over two coordinates.

    Parameters
    ----------
    loc : array_like of shape (B, d)
        Means.
    scale_tril : array_like of shape (B, d, d) or (B, d)
        Lower factors, or the standard deviations of diagonal Gaussians.
    dims : pair of int
        The two coordinates.
    mass : float
        The share of the marginal's probability inside the ellipse.
    color, label : str
        Colour of the lines, and their entry in the legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    **style
        Passed to ``ax.plot``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    means, scale = np.asarray(loc, dtype=np.float64), np.asarray(scale_tril, dtype=np.float64)
    if scale.ndim == means.ndim:
        scale = scale[..., None] * np.eye(scale.shape[-1])
    pair = list(dims)
    outlines = _ellipses(means[..., pair], scale[..., pair, :], mass)
    for k, outline in enumerate(outlines.reshape(-1, *outlines.shape[-2:])):
        ax.plot(*outline.T, color=color, label=label if k == 0 else None, **style)
    return ax


def latent_map(
    value: ArrayLike,
    labels: ArrayLike,
    *,
    dims: Sequence[int] = (0, 1),
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw points of the latent space over two coordinates, one light colour per class.

    Parameters
    ----------
    value : array_like of shape (n, d)
        Latent points, for instance posterior means.
    labels : array_like of shape (n,)
        The class of each.
    dims : pair of int
        The two coordinates.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    points = np.asarray(value, dtype=np.float64)[:, list(dims)]
    classes = np.asarray(labels)
    names = np.unique(classes)
    for k, name in enumerate(names):
        x, y = points[classes == name].T
        color = CLASS_COLORS[k % len(CLASS_COLORS)]
        ax.scatter(x, y, s=11, color=color, alpha=0.75, linewidths=0, zorder=1)
        ax.text(
            0.99 - 0.035 * (len(names) - 1 - k),
            0.015,
            str(name),
            transform=ax.transAxes,
            ha="right",
            va="bottom",
            fontsize=12,
            fontweight="bold",
            color=color,
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=f"z[{dims[0]}]", ylabel=f"z[{dims[1]}]")
    return ax


def digit_grid(
    images: ArrayLike, *, gap: int = 1, vmax: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw a table of small grey images, dark on white; NaN pixels are shown as hidden.

    Parameters
    ----------
    images : array_like of shape (rows, columns, height, width)
        The images; an image that is NaN throughout its pixels is left out as one tinted square.
    gap : int
        Pixels between two images.
    vmax : float, optional
        The value drawn black; the largest by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Image ``(r, c)`` has its upper left pixel at ``(c * (width + gap), r * (height + gap))``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    from matplotlib import colormaps  # noqa: PLC0415

    table = np.asarray(images, dtype=np.float64)
    rows, columns, height, width = table.shape
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap))
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gap), c * (width + gap)
            canvas[top : top + height, left : left + width] = table[r, c]
    greys = colormaps["Greys"].with_extremes(bad=COLORS["hidden"])
    limit = float(np.nanmax(table)) if vmax is None else vmax
    ax.imshow(canvas, cmap=greys, vmin=0.0, vmax=limit, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax
