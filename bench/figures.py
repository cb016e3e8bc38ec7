# SPDX-License-Identifier: MIT
"""Figures of a run: ratios against their targets, the roofline, and time against d, batch and threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .roofs import Roofs

OURS, ROOF, MARK = "tab:blue", "tab:gray", "tab:red"
MOST_BARS = 64  # of a column
AXES = {"batch": "events in a call", "d": "d", "threads": "threads"}
TIMES = {"batch": "seconds of a call", "d": "seconds of an event", "threads": "seconds of a call"}


def draw(folder: Path, results: Sequence[dict[str, Any]], roofs: Roofs, sweeps: dict[str, Any]) -> list[Path]:
    """Write the figures as PNG and give their paths."""
    import matplotlib.figure

    def new(width: float, height: float) -> Any:
        return matplotlib.figure.Figure(figsize=(width, height), dpi=120, layout="constrained")

    made = {}
    rated = [each for each in results if each["ratio"] is not None]
    if rated:
        columns = -(-len(rated) // MOST_BARS)
        height = -(-len(rated) // columns)
        made["ratios"] = new(6.5 * columns, 1.5 + 0.17 * height)
        columns = made["ratios"].subplots(1, columns, sharex=True, squeeze=False)[0]
        for k, axes in enumerate(columns):
            _ratios(axes, rated[k * height : (k + 1) * height])
        made["ratios"].legend(*columns[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    counted = [each for each in results if each["flops"] and each["bytes"]]
    if counted:
        made["roofline"] = new(7, 5)
        _roofline(made["roofline"].subplots(), counted, roofs)
    for axis, curves in sweeps.items():
        made[f"against_{axis}"] = new(7, 5)
        _sweep(made[f"against_{axis}"].subplots(), axis, curves)
    paths = []
    for name, figure in made.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def _ratios(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    """Bars from 1: left of it a rival is faster."""
    y = np.arange(len(results))[::-1]
    ratios = np.array([each["ratio"] for each in results])
    axes.barh(y, ratios - 1, left=1, height=0.7, color=OURS, label="fastest rival / ours")
    marks = [(k, each["ratio_target"]) for k, each in zip(y, results, strict=True) if each["ratio_target"]]
    if marks:
        axes.scatter(
            [m for _, m in marks], [k for k, _ in marks], marker="|", s=60, color=MARK, label="target", zorder=3
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(y, [each["name"] for each in results], fontsize=6)
    axes.set_ylim(-1, len(results))
    axes.set_xlabel("time of the fastest rival over ours")


def _roofline(axes: Any, results: Sequence[dict[str, Any]], roofs: Roofs) -> None:
    x = np.array([each["flops"] / each["bytes"] for each in results])
    y = np.array([each["flops"] / each["seconds"] for each in results]) / 1e9
    grid = np.geomspace(min(x.min(), 0.1) / 2, max(x.max(), 100) * 2, 200)
    for dtype, style in {"float32": "-", "float64": "--"}.items():
        roof = np.minimum(roofs[f"fma {dtype}"]["all"], grid * roofs["copy"]["all"]) / 1e9
        axes.plot(grid, roof, style, color=ROOF, label=f"roof {dtype}: FMA, copy")
    for regime, marker in {"R": "o", "M": "s", "-": "^"}.items():
        chosen = [each["regime"] == regime for each in results]
        if any(chosen):
            where = {"R": "in cache", "M": "from memory", "-": "other sizes"}[regime]
            axes.scatter(x[chosen], y[chosen], s=14, marker=marker, label=where)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations for a byte of inputs and outputs")
    axes.set_ylabel("GFLOP/s")
    axes.legend(fontsize=8)


def _sweep(axes: Any, axis: str, curves: dict[str, Any]) -> None:
    for name, curve in curves.items():
        style = "--" if "float64" in name else "-"
        axes.plot(curve["x"], curve["seconds"], style, marker=".", markersize=3, linewidth=1, label=name)
    axes.set_xscale("log" if axis != "threads" else "linear")
    axes.set_yscale("log")
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel(TIMES[axis])
    if axis == "threads":
        axes.set_xticks(sorted({x for curve in curves.values() for x in curve["x"]}))
    axes.legend(fontsize=8)
