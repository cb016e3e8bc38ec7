# SPDX-License-Identifier: MIT
"""SVI in NumPyro, a Gaussian with its own factor for each of 2,000 regressions; one import is changed."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np
import numpyro
from numpyro import distributions as dist
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoBatchedMultivariateNormal
from numpyro.optim import Adam

import reparam.numpyro

from ._show import before_and_after

PROBLEMS, ROWS, DIM, STEPS = 2000, 20, 8, 300
BEFORE = "from numpyro.infer.autoguide import AutoBatchedMultivariateNormal"
AFTER = "from reparam.numpyro import AutoBatchedMultivariateNormal"


def model(features: Any, y: Any = None) -> Any:
    """Logistic regressions, each with its own data and coefficients."""
    with numpyro.plate("problems", PROBLEMS):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([DIM]).to_event(1))
        logits = (features * z[:, None, :]).sum(-1)
        return numpyro.sample("y", dist.Bernoulli(logits=logits).to_event(1), obs=y)


def fit(Guide: Any, features: Any, y: Any) -> tuple[Any, float]:  # the class that the changed line imports
    """The loss of each step, and the seconds of all steps after those that compile."""
    svi = SVI(model, Guide(model, batch_ndim=1), Adam(0.05), Trace_ELBO())
    state = svi.init(jax.random.PRNGKey(0), features, y)

    def steps(state: Any) -> Any:
        return jax.lax.scan(lambda state, _: svi.update(state, features, y), state, None, length=STEPS)

    run = jax.jit(steps).lower(state).compile()
    begin = time.perf_counter()
    losses = np.asarray(jax.block_until_ready(run(state)[1]))
    return losses, time.perf_counter() - begin


def main() -> dict[str, float]:
    """Fit with NumPyro's guide and with ours, from one key."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((PROBLEMS, ROWS, DIM), dtype=np.float32)
    coefficients = rng.standard_normal((PROBLEMS, 1, DIM), dtype=np.float32)
    y = (rng.random((PROBLEMS, ROWS)) < 1 / (1 + np.exp(-(features * coefficients).sum(-1)))).astype(np.float32)
    before, seconds_before = fit(AutoBatchedMultivariateNormal, features, y)
    after, seconds_after = fit(reparam.numpyro.AutoBatchedMultivariateNormal, features, y)
    before_and_after(f"{PROBLEMS} regressions, {DIM} coefficients each, {STEPS} steps of SVI", BEFORE, AFTER, {
        "loss of the first step": (float(before[0]), float(after[0])),
        "loss of step 20": (float(before[19]), float(after[19])),
        "loss, mean of the last 50 steps": (float(before[-50:].mean()), float(after[-50:].mean())),
        "milliseconds a step": (1e3 * seconds_before / STEPS, 1e3 * seconds_after / STEPS),
    })  # fmt: skip
    return {
        "difference": float(np.abs(after[:20] / before[:20] - 1).max()),
        "fall": float(before[0] - after[-1]),
        "gain": seconds_before / seconds_after,
    }


if __name__ == "__main__":
    main()
