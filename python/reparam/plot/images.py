# SPDX-License-Identifier: MIT
"""Images: tables of them, reconstructions and completions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .._check import as_float, as_int, came
from .page import COLORS, as_axes, as_reals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["digit_grid", "reconstructions"]


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
    table = as_reals("images", images, ("rows", "columns", "height", "width"), hidden=True)
    gap = as_int("gap", gap)
    rows, columns, height, width = table.shape
    padded = np.zeros((rows, height + gap, columns, width + gap))
    padded[:, :height, :, :width] = table.swapaxes(1, 2)
    canvas = padded.reshape(rows * (height + gap), -1)[: rows * (height + gap) - gap, : columns * (width + gap) - gap]
    limit = np.max(table, initial=0.0, where=~np.isnan(table)) if vmax is None else as_float("vmax", vmax)
    ax = as_axes(ax)
    from matplotlib import colormaps  # noqa: PLC0415

    greys = colormaps["Greys"].with_extremes(bad=COLORS["hidden"])
    ax.imshow(canvas, cmap=greys, vmin=0.0, vmax=float(limit) or 1.0, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def reconstructions(
    x: ArrayLike,
    decoded: ArrayLike,
    *,
    image_shape: Sequence[int],
    observed: ArrayLike | None = None,
    vmax: float | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw images beside what a model makes of them: reconstructions or, where pixels were hidden, completions.

    Parameters
    ----------
    x : array_like of shape (n, pixels)
        The images, one a row of the table.
    decoded : array_like of shape (n, pixels) or (S, n, pixels)
        What the model gives for each, or S draws of it.
    image_shape : pair of int
        Height and width.
    observed : array_like of 0 and 1, shape (n, pixels), optional
        Which pixels were seen: the others are tinted in the first column and come from ``decoded`` in the next ones;
        the last column is then ``x`` itself.
    vmax : float, optional
        The value drawn black; the largest by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
    """
    try:
        height, width = (as_int("image_shape", size, 1) for size in image_shape)
    except (TypeError, ValueError):
        raise TypeError(f"image_shape must be two positive integers, got {came(image_shape)}") from None
    rows = as_reals("x", x, ("n", height * width))
    made = as_reals("decoded", decoded, rows.shape, ("S", *rows.shape))
    made = made.reshape(-1, *rows.shape)
    columns, what = [rows[None], made], "reconstruction"
    if observed is not None:
        seen = as_reals("observed", observed, rows.shape) != 0
        columns, what = [np.where(seen, rows, np.nan)[None], np.where(seen, rows, made), rows[None]], "completion"
    table = np.concatenate(columns).swapaxes(0, 1).reshape(len(rows), -1, height, width)
    ax = digit_grid(table, gap=2, vmax=vmax, ax=ax)
    edges = np.cumsum([0, *(len(column) for column in columns)]) * (width + 2)
    names = ["seen" if observed is not None else "data", what + "s" * (len(made) > 1), "truth"][: len(columns)]
    ax.set_xticks((edges[:-1] + edges[1:] - 2) / 2 - 0.5, names)
    ax.tick_params(axis="x", length=0, labeltop=True, labelbottom=False)
    return ax
