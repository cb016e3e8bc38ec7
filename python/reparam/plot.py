# SPDX-License-Identifier: MIT
"""Figures: the ELBO over epochs, posterior ellipses, maps of the latent space, grids of images.

Every function draws into ``ax`` (a new one if it is None) and returns it. Matplotlib is imported at the first call.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._check import as_float, as_int, came

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "STYLE", "digit_grid", "elbo_curve", "latent_map", "posterior_ellipses"]

Array = NDArray[Any]

#: One colour per meaning, the same in every panel.
COLORS = {
    "full": "#1f5fa8",
    "diag": "#d9661f",
    "train": "#a3abb4",
    "held_out": "#20262d",
    "hidden": "#d9e2ec",
    "ink": "#20262d",
    "quiet": "#6b747e",
}

#: rcParams of a light, quiet page; use as ``with matplotlib.rc_context(rp.plot.STYLE)``.
STYLE: Any = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": COLORS["quiet"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelsize": 10,
    "font.size": 11,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["quiet"],
    "ytick.color": COLORS["quiet"],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
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


def _real(name: str, value: ArrayLike, *shapes: tuple[str | int, ...], hidden: bool = False) -> Array:
    """`value` in float64: not empty, of one of these shapes, and finite (or NaN too, where pixels may be `hidden`).

    A letter in a shape stands for any size.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    fits = any(
        len(shape) == array.ndim and all(n == m or isinstance(n, str) for n, m in zip(shape, array.shape, strict=True))
        for shape in shapes
    )
    if not fits:
        wanted = " or ".join("(" + ", ".join(map(str, s)) + ("," if len(s) == 1 else "") + ")" for s in shapes)
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
    if not array.size:
        raise ValueError(f"{name} is empty: it has shape {array.shape}")
    array = array.astype(np.float64)
    if np.isinf(array).any() or (not hidden and np.isnan(array).any()):
        raise ValueError(f"{name} must be finite{' or NaN' if hidden else ''} everywhere")
    return array


def _pair(dims: Sequence[int], size: int) -> list[int]:
    """Two coordinates out of `size`."""
    wanted = f"dims must be two different coordinates in 0..{size - 1}, got "
    try:
        pair = [operator.index(k) for k in dims]
    except TypeError:
        raise TypeError(f"{wanted}{came(dims)}") from None
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= k < size for k in pair):
        raise ValueError(f"{wanted}{tuple(dims)}")
    return pair


def elbo_curve(
    history: Mapping[str, ArrayLike], *, log_likelihood: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw the training and held-out ELBO over the epochs.

    Parameters
    ----------
    history : mapping
        A model's ``history_``: ``epoch``, ``elbo`` and, where there was validation data, ``validation_elbo``.
    log_likelihood : float, optional
        An estimate of the held-out log-likelihood, drawn as a level: what the held-out ELBO is a bound of.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The range of its y axis leaves out the first twentieth of the epochs, which would flatten the rest.
    """
    if not isinstance(history, Mapping):
        raise TypeError(f"history must be a mapping with the entries epoch and elbo, got {came(history)}")
    missing = [name for name in ("epoch", "elbo") if name not in history]
    if missing:
        raise ValueError(f"history must have the entries epoch and elbo, it lacks {' and '.join(missing)}")
    epoch = _real("history['epoch']", history["epoch"], ("n",)) + 1
    curves = [("training", COLORS["train"], _real("history['elbo']", history["elbo"], epoch.shape))]
    if np.isfinite(np.asarray(history.get("validation_elbo", np.nan))).any():  # all NaN: no validation data
        held_out = _real("history['validation_elbo']", history["validation_elbo"], epoch.shape)
        curves.append(("held out", COLORS["held_out"], held_out))
    level = None if log_likelihood is None else float(_real("log_likelihood", log_likelihood, ()))
    ax = _axes(ax)
    for label, color, curve in curves:
        ax.plot(epoch, curve, color=color, linewidth=1.5, label=label, marker="o" if len(epoch) == 1 else None)
    shown = [curve[len(curve) // 20 :] for *_, curve in curves]
    if level is not None:
        style: dict[str, Any] = {"color": COLORS["held_out"], "linewidth": 1.1, "linestyle": (0, (4, 3))}
        ax.axhline(level, label="log-likelihood, held out", **style)
        shown.append(np.array([level]))
    low, high = (float(bound(np.concatenate(shown))) for bound in (np.min, np.max))
    margin = 0.06 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.set(xlabel="epoch", ylabel="ELBO, nats per row")
    ax.legend(loc="lower right")
    return ax


def posterior_ellipses(
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
    """Draw for each Gaussian the ellipse that holds `mass` of its marginal over two coordinates.

    Its half axes are ``sqrt(-2 log(1 - mass))`` times the standard deviations along the principal axes of the marginal:
    2.146 for the default of 90 %, 1 for ``mass = 1 - exp(-1/2) = 0.393``.

    Parameters
    ----------
    loc : array_like of shape (B, d) or (d,)
        Means.
    scale_tril : array_like of shape (B, d, d) or (B, d); (d, d) or (d,) for one Gaussian
        Lower factors, or the standard deviations of diagonal Gaussians.
    dims : pair of int
        The two coordinates.
    mass : float
        The share of the marginal's probability inside the ellipse, in (0, 1).
    color, label : str
        Colour of the lines, and their entry in the legend.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    **style
        Passed to ``ax.plot``.

    Returns
    -------
    matplotlib.axes.Axes
        With one line per Gaussian.
    """
    means = np.atleast_2d(_real("loc", loc, ("B", "d"), ("d",)))
    batch = np.shape(loc)
    scale = _real("scale_tril", scale_tril, (*batch, batch[-1]), batch)
    if scale.ndim == len(batch):
        scale = scale[..., None] * np.eye(batch[-1])
    pair = _pair(dims, batch[-1])
    mass = as_float("mass", mass, 0, 1, above=True)
    rows = np.tril(scale).reshape(-1, batch[-1], batch[-1])[:, pair]
    axes, deviations, _ = np.linalg.svd(rows, full_matrices=False)  # covariance = axes deviations^2 axes^T
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    circle = np.sqrt(-2.0 * np.log1p(-mass)) * np.stack([np.cos(angle), np.sin(angle)])
    ax = _axes(ax)
    for k, outline in enumerate(means[:, pair, None] + (axes * deviations[:, None, :]) @ circle):
        ax.plot(*outline, color=color, label=label if k == 0 else None, **style)
    return ax


def latent_map(
    value: ArrayLike, labels: ArrayLike, *, dims: Sequence[int] = (0, 1), ax: "Axes | None" = None
) -> "Axes":
    """Draw points of the latent space over two coordinates, one light colour per class.

    Parameters
    ----------
    value : array_like of shape (n, d)
        Latent points, for instance posterior means.
    labels : array_like of shape (n,)
        The class of each: numbers or names.
    dims : pair of int
        The two coordinates.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        With one collection of points per class, in the order of the sorted classes.
    """
    points = _real("value", value, ("n", "d"))
    classes = np.asarray(labels)
    if classes.shape != points.shape[:1]:
        raise ValueError(f"labels must have shape ({len(points)},), got {classes.shape}")
    pair = _pair(dims, points.shape[1])
    ax = _axes(ax)
    names = np.unique(classes)
    colors = [CLASS_COLORS[k % len(CLASS_COLORS)] for k in range(len(names))]
    style: dict[str, Any] = {"s": 9, "alpha": 0.7, "linewidths": 0, "zorder": 1}
    drawn = [
        ax.scatter(*points[classes == name][:, pair].T, color=color, **style)
        for name, color in zip(names, colors, strict=True)
    ]
    legend = ax.legend(
        drawn,
        [str(name) for name in names],
        loc="center right",
        ncols=-(-len(names) // 20),
        labelcolor=colors,
        prop={"weight": "bold", "size": 11},
        handlelength=0.0,
        handletextpad=0.0,
        labelspacing=0.3,
        borderaxespad=0.0,
        scatterpoints=0,
    )
    ax.add_artist(legend)  # so that another legend does not take its place
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=f"z[{pair[0]}]", ylabel=f"z[{pair[1]}]")
    return ax


def digit_grid(images: ArrayLike, *, gap: int = 1, vmax: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw a table of small grey images, dark on white; NaN pixels, the hidden ones, are tinted.

    Parameters
    ----------
    images : array_like of shape (rows, columns, height, width)
        The images.
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
    table = _real("images", images, ("rows", "columns", "height", "width"), hidden=True)
    gap = as_int("gap", gap)
    from matplotlib import colormaps  # noqa: PLC0415

    rows, columns, height, width = table.shape
    padded = np.zeros((rows, height + gap, columns, width + gap))
    padded[:, :height, :, :width] = table.swapaxes(1, 2)
    canvas = padded.reshape(rows * (height + gap), -1)[: rows * (height + gap) - gap, : columns * (width + gap) - gap]
    limit = np.max(table, initial=0.0, where=~np.isnan(table)) if vmax is None else as_float("vmax", vmax)
    ax = _axes(ax)
    greys = colormaps["Greys"].with_extremes(bad=COLORS["hidden"])
    ax.imshow(canvas, cmap=greys, vmin=0.0, vmax=float(limit) or 1.0, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
