# SPDX-License-Identifier: MIT
"""Curves and bars: ELBOs over epochs or steps, and what they lack of the evidence."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import came
from .page import COLORS, as_axes, as_reals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["elbo_curve", "elbo_trace", "gap_bars"]


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
    epoch = as_reals("history['epoch']", history["epoch"], ("n",)) + 1
    curves = [("training", COLORS["train"], as_reals("history['elbo']", history["elbo"], epoch.shape))]
    if np.isfinite(np.asarray(history.get("validation_elbo", np.nan))).any():  # all NaN: no validation data
        held_out = as_reals("history['validation_elbo']", history["validation_elbo"], epoch.shape)
        curves.append(("held out", COLORS["held_out"], held_out))
    level = None if log_likelihood is None else float(as_reals("log_likelihood", log_likelihood, ()))
    ax = as_axes(ax)
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


def elbo_trace(
    elbo: ArrayLike,
    standard_error: ArrayLike | None = None,
    *,
    log_evidence: float | None = None,
    label: str | None = None,
    color: str = COLORS["full"],
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the ELBO of each step with a band of one standard error.

    Parameters
    ----------
    elbo : array_like of shape (steps,)
        Of one problem, for instance ``history["elbo"]`` of :func:`reparam.fit_vi`; NaN after it has stopped.
    standard_error : array_like of shape (steps,), optional
        Monte Carlo error of each.
    log_evidence : float, optional
        Drawn as a level: what the ELBO is a bound of.
    label, color : str
        Entry in the legend, which is left to the caller, and colour of the trace.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The range of its y axis leaves out the first twentieth of the steps, which would flatten the rest.
    """
    values = as_reals("elbo", elbo, ("steps",), hidden=True)
    error = np.zeros_like(values)
    if standard_error is not None:
        error = np.nan_to_num(as_reals("standard_error", standard_error, values.shape, hidden=True))
    level = None if log_evidence is None else float(as_reals("log_evidence", log_evidence, ()))
    if np.isnan(values).all():
        raise ValueError("elbo must have a step that is not NaN, got none")
    ax = as_axes(ax)
    edges = [*ax.get_ylim()] if ax.has_data() else []
    step = np.arange(1, len(values) + 1)
    low, high = values - error, values + error
    ax.fill_between(step, low, high, color=color, alpha=0.25, linewidth=0)
    ax.plot(step, values, color=color, linewidth=1.2, label=label)
    shown = slice(int(np.isfinite(values).sum()) // 20, None)
    edges += [np.nanmin(low[shown]), np.nanmax(high[shown])]
    if level is not None:
        style: dict[str, Any] = {"color": COLORS["held_out"], "linewidth": 1.1, "linestyle": (0, (4, 3))}
        ax.axhline(level, label="log evidence", **style)
        edges.append(level)
    margin = 0.06 * float(np.ptp(edges)) or 1.0
    ax.set_ylim(float(np.min(edges)) - margin, float(np.max(edges)) + margin)
    ax.set(xlabel="step", ylabel="ELBO, nats")
    return ax


def gap_bars(gaps: Mapping[str, Any], *, ax: "Axes | None" = None) -> "Axes":
    """Draw what the ELBO lacks of the evidence, in the mean over the rows: one bar for each model.

    Parameters
    ----------
    gaps : mapping
        From names of models to their :meth:`reparam.VAE.gaps`.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes
        The amortization gap stands on the approximation gap; beside them both, in nats per row.
    """
    if not isinstance(gaps, Mapping):
        raise TypeError(f"gaps must be a mapping from names to what VAE.gaps returns, got {came(gaps)}")
    if not gaps:
        raise ValueError("gaps must hold at least one model, got none")
    parts = ("approximation", "amortization")
    means = {}
    for name, each in gaps.items():
        for part in parts:
            if not hasattr(each, f"{part}_gap"):
                raise TypeError(f"gaps[{name!r}] must be what VAE.gaps returns, got {came(each)}")
        named = {f"gaps[{name!r}].{part}_gap": getattr(each, f"{part}_gap") for part in parts}
        means[name] = [as_reals(label, gap, ("n",)).mean() for label, gap in named.items()]
    ax = as_axes(ax)
    table = np.array([*means.values()])
    left = np.zeros(len(table))
    for k, part in enumerate(parts):
        ax.barh([*means], table[:, k], left=left, color=COLORS[part], height=0.6, label=f"{part} gap")
        left = left + table[:, k]
    for row, total in enumerate(left):
        both = " + ".join(f"{gap:.3g}" for gap in table[row])
        ax.annotate(both, (total, row), (5, 0), textcoords="offset points", va="center", color=COLORS["quiet"])
    ax.set_xlim(min(0.0, float(table.min())), 1.35 * float(left.max()) or 1.0)
    ax.set_ylim(len(table) + 0.1, -0.6)  # from above, with room for the legend below the last bar
    ax.set(xlabel="log evidence less ELBO, nats per row")
    ax.legend(loc="lower right", ncols=2)
    return ax
