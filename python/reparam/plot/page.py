# SPDX-License-Identifier: MIT
"""What all figures share: colours, style, axes, and the checks of what is to be drawn."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arrays import to_numpy
from .._check import came

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CLASS_COLORS", "COLORS", "STYLE", "as_axes", "as_pair", "as_reals", "scatter_classes"]

Array = NDArray[Any]

#: One colour per meaning, the same in every panel.
COLORS = {
    "full": "#1f5fa8",
    "diag": "#d9661f",
    "train": "#a3abb4",
    "held_out": "#20262d",
    "hidden": "#d9e2ec",
    "approximation": "#5d4a8a",
    "amortization": "#bcaedb",
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


def as_axes(ax: "Axes | None") -> "Axes":
    """`ax`, or those of a new figure."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot as plt  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError:
        raise ImportError("figures need matplotlib: pip install matplotlib") from None
    return plt.subplots()[1]


def as_reals(name: str, value: ArrayLike, *shapes: tuple[str | int, ...], hidden: bool = False) -> Array:
    """`value` in float64: not empty, of one of these shapes, and finite (or NaN too, where pixels may be `hidden`).

    A letter in a shape stands for any size.
    """
    array = to_numpy(value)
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


def as_pair(dims: Sequence[int], size: int) -> list[int]:
    """Two coordinates out of `size`."""
    wanted = f"dims must be two different coordinates in 0..{size - 1}, got "
    try:
        pair = [operator.index(k) for k in dims]
    except TypeError:
        raise TypeError(f"{wanted}{came(dims)}") from None
    if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= k < size for k in pair):
        raise ValueError(f"{wanted}{tuple(dims)}")
    return pair


def scatter_classes(ax: "Axes", points: Array, classes: Array) -> dict[Any, Any]:
    """Points of a plane, one light colour per class; the collection of each class, in the order of the classes."""
    style: dict[str, Any] = {"s": 9, "alpha": 0.7, "linewidths": 0, "zorder": 1}
    return {
        name: ax.scatter(*points[classes == name].T, color=CLASS_COLORS[k % len(CLASS_COLORS)], **style)
        for k, name in enumerate(np.unique(classes))
    }
