# SPDX-License-Identifier: MIT
"""What the examples share: the command line, data, a table of numbers, a picture."""

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import plot

__all__ = ["data", "folder", "picture", "standardized", "table"]

Array = NDArray[Any]
INCHES, HIGH, DPI, COLORS = 4.6, 3.6, 90, 128


def folder(argv: Sequence[str] | None, about: str | None) -> Path | None:
    """Where the picture goes, or None."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write the picture; none without it")
    out: Path | None = parser.parse_args(argv).out
    return out


def data(name: str) -> tuple[Array, Array]:
    """Rows and classes of one of scikit-learn's data sets."""
    try:
        from sklearn import datasets  # noqa: PLC0415  (an extra)
    except ImportError:
        raise SystemExit("this example takes its data from scikit-learn: pip install scikit-learn") from None
    rows, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(rows), np.asarray(classes)


def standardized(x: Array) -> Array:
    """Columns of mean 0 and variance 1."""
    result: Array = (x - x.mean(0)) / x.std(0)
    return result


def table(title: str, rows: Mapping[str, tuple[float, float | None]]) -> None:
    """Print what was found, beside the exact number where there is one."""
    width = max(map(len, rows), default=0) + 2
    print(f"{title}\n{'':{width}}{'found':>14}{'exact':>16}")
    for name, (found, exact) in rows.items():
        print(f"{name:{width}}{found:14.6f}" + ("" if exact is None else f"{exact:16.6f}"))
    print()


def picture(out: Path | None, name: str, panels: Mapping[str, Callable[[Any], object]], high: float = HIGH) -> None:
    """Draw the panels, side by side, into NAME.png of the folder; without matplotlib there are the numbers alone."""
    if out is None:
        return
    try:
        import matplotlib as mpl  # noqa: PLC0415  (an extra, and slow to import)
        from matplotlib.figure import Figure  # noqa: PLC0415
        from PIL import Image  # noqa: PLC0415  (matplotlib needs it too)
    except ImportError:
        print("no picture: pip install matplotlib")
        return
    out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(plot.STYLE):
        page = Figure(figsize=(INCHES * len(panels), high), dpi=DPI, layout="constrained")
        for ax, (title, draw) in zip(page.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            ax.set_title(title)
            draw(ax)
        drawn = io.BytesIO()
        page.savefig(drawn)
    # A palette takes a third of the bytes of three channels.
    Image.open(drawn).convert("RGB").quantize(COLORS).save(out / f"{name}.png", optimize=True)
    print(f"picture: {out / f'{name}.png'}")
