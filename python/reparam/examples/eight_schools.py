# SPDX-License-Identifier: MIT
"""Eight schools: classical variational inference of a hierarchical model, full covariance and mean field."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import reparam as rp

from ._show import folder, picture, table

EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])  # of coaching on the score, as each school measured it
ERROR = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
#: The best ELBO of either family, and what both are bounds of.
EXACT, LOG_EVIDENCE = {"full": -31.53400795, "diag": -31.59730108}, -31.31134738
SHOWN = 100  # steps in the picture


def log_joint(z: Any) -> tuple[Any, Any]:
    """Non-centred: effect = mu + tau eta with eta ~ N(0, 1), mu ~ N(0, 5^2), tau ~ half-Cauchy(5).

    The density of z = (eta, mu, log tau) and its gradient; that of log tau is tau times that of tau.
    """
    eta, mu, tau = z[..., :8], z[..., 8:9], np.exp(z[..., 9:])
    r = (EFFECT - mu - tau * eta) / ERROR
    constant = -np.log(ERROR).sum() - 8.5 * np.log(2 * np.pi) - np.log(5) + np.log(2 / (5 * np.pi))
    log_prob = constant - 0.5 * (eta**2 + r**2).sum(-1) - 0.5 * (z[..., 8] / 5) ** 2
    log_prob += z[..., 9] - np.log1p((tau[..., 0] / 5) ** 2)
    of_tau = (r * tau * eta / ERROR).sum(-1, keepdims=True) - 2 * (tau / 5) ** 2 / (1 + (tau / 5) ** 2) + 1
    return log_prob, np.concatenate([tau * r / ERROR - eta, (r / ERROR).sum(-1, keepdims=True) - mu / 25, of_tau], -1)


def exact_elbo(q: Any) -> float:
    """By 400,000 draws, which leave an error of about 0.001 nats."""
    of = [rp.elbo(q, log_joint, key=k, num_samples=10_000, estimator="stl", grad=False).value for k in range(100, 140)]
    return float(np.mean(of))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Fit both families, and look at what k-hat says of them."""
    out = folder(argv, __doc__)
    settings: dict[str, Any] = {"num_samples": 64, "tol": 0.01, "key": 1}
    fits = {kind: rp.fit_vi(log_joint, 10, covariance_type=kind, **settings) for kind in EXACT}
    numbers: dict[str, float] = {}
    rows: dict[str, tuple[float, float | None]] = {}
    for kind, fit in fits.items():
        numbers[kind] = exact_elbo(fit.q)
        many = rp.fit_vi(log_joint, 10, covariance_type=kind, batch_shape=40, key=1)
        numbers[f"khat_{kind}"] = float(np.mean(many.khat))
        rows[f"ELBO, {kind}, after {fit.n_steps} steps"] = (numbers[kind], EXACT[kind])
        rows[f"k-hat, {kind}, mean of 40 fits"] = (numbers[f"khat_{kind}"], None)
    q = fits["full"].q
    weighted = rp.elbo(q, log_joint, key=9, num_samples=200_000, estimator="iwae", grad=False)
    numbers["weighted"] = float(weighted.value)
    rows["log evidence, 200,000 weighted draws"] = (numbers["weighted"], LOG_EVIDENCE)
    table("eight schools, nats", rows)

    def draw_traces(ax: Any) -> None:
        for kind, name in (("full", "full covariance"), ("diag", "mean field")):
            color, history = rp.plot.COLORS[kind], fits[kind].history
            elbo, error = (history[each][:SHOWN] for each in ("elbo", "standard_error"))
            rp.plot.elbo_trace(elbo, error, label=name, color=color, ax=ax)
            ax.axhline(EXACT[kind], color=color, linewidth=1, linestyle=(0, (4, 3)))
        ax.set(xlim=(0, SHOWN), ylim=(-34, -31))
        ax.legend(loc="lower right")

    def draw_effects(ax: Any) -> None:
        z = q.rsample((20_000,), key=5)
        effects = z[:, 8:9] + np.exp(z[:, 9:]) * z[:, :8]
        place = np.arange(8)
        ax.errorbar(place - 0.12, EFFECT, ERROR, fmt="o", color=rp.plot.COLORS["train"], label="measured, error")
        both = effects.mean(0), effects.std(0)
        ax.errorbar(place + 0.12, *both, fmt="o", color=rp.plot.COLORS["full"], label="posterior mean, sd")
        ax.set(xticks=place, xticklabels=list("ABCDEFGH"), xlabel="school", ylabel="effect, points", ylim=(-25, 65))
        ax.legend(loc="upper right")

    picture(out, "eight_schools", {"Each step's ELBO": draw_traces, "Effects are drawn together": draw_effects})
    return numbers


if __name__ == "__main__":
    main()
