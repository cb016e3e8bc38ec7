# SPDX-License-Identifier: MIT
"""Planes: posterior ellipses, maps of the latent space, mixtures over their data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import to_numpy
from .._check import as_float, came
from .page import CLASS_COLORS, COLORS, as_axes, as_pair, as_reals, scatter_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["latent_map", "mixture_components", "posterior_ellipses"]


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
    means = np.atleast_2d(as_reals("loc", loc, ("B", "d"), ("d",)))
    batch = np.shape(loc)
    scale = as_reals("scale_tril", scale_tril, (*batch, batch[-1]), batch)
    if scale.ndim == len(batch):
        scale = scale[..., None] * np.eye(batch[-1])
    pair = as_pair(dims, batch[-1])
    mass = as_float("mass", mass, 0, 1, above=True)
    rows = np.tril(scale).reshape(-1, batch[-1], batch[-1])[:, pair]
    axes, deviations, _ = np.linalg.svd(rows, full_matrices=False)  # covariance = axes deviations^2 axes^T
    angle = np.linspace(0.0, 2.0 * np.pi, 73)
    circle = np.sqrt(-2.0 * np.log1p(-mass)) * np.stack([np.cos(angle), np.sin(angle)])
    ax = as_axes(ax)
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
    points = as_reals("value", value, ("n", "d"))
    classes = to_numpy(labels)
    if classes.shape != points.shape[:1]:
        raise ValueError(f"labels must have shape ({len(points)},), got {classes.shape}")
    pair = as_pair(dims, points.shape[1])
    ax = as_axes(ax)
    drawn = scatter_classes(ax, points[:, pair], classes)
    legend = ax.legend(
        drawn.values(),
        [str(name) for name in drawn],
        loc="center right",
        ncols=-(-len(drawn) // 20),
        labelcolor=[CLASS_COLORS[k % len(CLASS_COLORS)] for k in range(len(drawn))],
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


def mixture_components(
    model: Any, x: ArrayLike, *, dims: Sequence[int] = (0, 1), mass: float = 0.9, ax: "Axes | None" = None
) -> "Axes":
    """Draw rows in the colour of their most probable component, and for each component its ellipse and its weight.

    Parameters
    ----------
    model : GaussianMixture
        Fitted.
    x : array_like of shape (n, d)
        The rows.
    dims : pair of int
        The two features.
    mass : float
        The share of a component's marginal inside its ellipse, in (0, 1).
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        With one line per component.
    """
    if not all(hasattr(model, name) for name in ("predict", "covariance_type", "means_", "covariances_")):
        raise TypeError(f"model must be a fitted GaussianMixture, got {came(model)}")
    points = as_reals("x", x, ("n", "d"))
    mean = to_numpy(model.means_).astype(np.float64)
    pair, mass = as_pair(dims, mean.shape[1]), as_float("mass", mass, 0, 1, above=True)
    labels, covariance = model.predict(points), to_numpy(model.covariances_).astype(np.float64)
    if model.covariance_type == "spherical":
        covariance = covariance[:, None]
    if model.covariance_type in ("diag", "spherical"):
        covariance = covariance[..., None] * np.eye(mean.shape[1])
    marginal = np.broadcast_to(covariance, (*mean.shape, mean.shape[1]))[:, pair][:, :, pair]
    ax = as_axes(ax)
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    drawn = scatter_classes(ax, points[:, pair], labels)
    stroke = [withStroke(linewidth=2.5, foreground="white")]
    for k, (center, matrix, weight) in enumerate(zip(mean[:, pair], marginal, model.weights_, strict=True)):
        color = drawn[k].get_facecolor()[0, :3] if k in drawn else COLORS["quiet"]
        posterior_ellipses(center, np.linalg.cholesky(matrix), mass=mass, color=color, ax=ax, linewidth=1.6)
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold", "path_effects": stroke}
        ax.annotate(f"{weight:.2f}", (float(center[0]), float(center[1])), **style)
    ax.set(xlabel=f"x[{pair[0]}]", ylabel=f"x[{pair[1]}]")
    return ax
