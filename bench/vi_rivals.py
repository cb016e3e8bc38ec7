# SPDX-License-Identifier: MIT
"""Variational inference of a batch of logistic regressions: our natural gradient, and by hand with Adam.

All start at N(0, I). A run has as many steps as its method needs to come within ``ACCURACY`` nats of the best ELBO, in
the mean over the problems; they are counted before anything is timed. A result is ``(loc, factor)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import expectations, rivals
from .elbo_rivals import TorchDraws, gradient_by_hand, logistic
from .expectations import PRIOR_SCALE

DRAWS = 8
ACCURACY = 0.1
#: Of the settings tried for Adam, those that need the fewest steps. The rate falls as ``RATE / (1 + step / DECAY)``.
RATE, DECAY, BETA1, BETA2, EPS = 0.5, 3.0, 0.8, 0.9, 1e-8
MOST_STEPS, STRIDE = 2000, 5  # of Adam; the exact ELBO, by which steps are counted, takes longer than one
Result = tuple[np.ndarray, np.ndarray]


def mean_elbo(features: np.ndarray, y: np.ndarray, result: Any) -> float:
    """Exactly, over the problems."""
    return float(expectations.elbo(expectations.logistic, *map(np.asarray, result), features, y)[0].mean())


def steps_needed(features: np.ndarray, y: np.ndarray, after: Callable[[int], Any], stride: int) -> int:
    """Steps until the ELBO is within ``ACCURACY`` of the best; ``after(n)`` is the result of n; n rises by a stride."""
    q = rp.inference.refine(*_start(features, y), steps=200, key=1, num_samples=32)
    best = mean_elbo(features, y, (q.loc, q.scale_tril))
    for steps in range(stride, MOST_STEPS + 1, stride):
        if mean_elbo(features, y, after(steps)) >= best - ACCURACY:
            return steps
    raise RuntimeError(f"the ELBO is not within {ACCURACY} of the best after {MOST_STEPS} steps")


# ---- ours


def _start(features: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """N(0, I) for every problem, and the posteriors of the coefficients."""
    batch, _, d = features.shape
    factor = np.tile(np.eye(d, dtype=np.float32), (batch, 1, 1))
    q = rp.MultivariateNormal(np.zeros((batch, d), np.float32), scale_tril=factor)
    return q, rp.targets.GLM(features, y, family="logistic", prior_scale=PRIOR_SCALE)


def our_step(features: np.ndarray, y: np.ndarray) -> Callable[[], Result]:
    """One step, from where the last one ended."""
    (q, target), keys = _start(features, y), itertools.count()

    def run() -> Result:
        nonlocal q
        q = rp.inference.refine(q, target, steps=1, key=next(keys), num_samples=DRAWS)
        return q.loc, q.scale_tril

    return run


def our_run(features: np.ndarray, y: np.ndarray) -> Callable[[], Result]:
    """All steps."""
    first, target = _start(features, y)

    def after(steps: int) -> Result:
        q = rp.inference.refine(first, target, steps=steps, key=3, num_samples=DRAWS)
        return q.loc, q.scale_tril

    steps = steps_needed(features, y, after, 1)
    return lambda: after(steps)


# ---- torch


class _TorchAdam:
    """Ascent in loc and in the factor with its diagonal as logarithms; everything in closed form and in place."""

    def __init__(self, features: np.ndarray, y: np.ndarray) -> None:
        import torch

        batch, _, d = features.shape
        # Loc and factor side by side, so that a step is one pass over one array.
        self._parameters = torch.zeros(batch, d + d * d)
        self._moments = [torch.zeros_like(self._parameters) for _ in range(2)]
        self._gradient, self._scale = (torch.empty_like(self._parameters) for _ in range(2))
        self.loc, self._raw = self._parameters[:, :d], self._parameters[:, d:].view(batch, d, d)
        self.factor = torch.eye(d).repeat(batch, 1, 1)
        self._kept = TorchDraws(logistic, DRAWS, self.loc, self.factor, rivals.tensors([features, y]))
        self._kept.ct_loc, self._kept.ct_scale = self._gradient[:, :d], self._gradient[:, d:].view(batch, d, d)
        self.steps = 0

    def step(self) -> Any:
        """Adam with a decreasing rate; nobody asks for the value."""
        import torch

        kept, factor, (m, v) = self._kept, self.factor, self._moments
        kept.draw(self.loc, factor)
        kept.ct_scale.diagonal(dim1=-2, dim2=-1).mul_(factor.diagonal(dim1=-2, dim2=-1))
        m.lerp_(self._gradient, 1 - BETA1)
        v.mul_(BETA2).addcmul_(self._gradient, self._gradient, value=1 - BETA2)
        self.steps += 1
        rate = RATE / (1 + self.steps / DECAY) / (1 - BETA1**self.steps) * (1 - BETA2**self.steps) ** 0.5
        torch.sqrt(v, out=self._scale).add_(EPS)
        self._parameters.addcdiv_(m, self._scale, value=rate)
        factor.copy_(self._raw)
        factor.diagonal(dim1=-2, dim2=-1).exp_()
        return self.loc, factor


def torch_step(features: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """One step, from where the last one ended."""
    return _TorchAdam(features, y).step


def torch_run(features: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """All steps."""
    import torch

    def ascent() -> _TorchAdam:
        torch.manual_seed(3)
        return _TorchAdam(features, y)

    def run() -> Any:
        made = ascent()
        for _ in range(steps):
            made.step()
        return made.loc, made.factor

    counted = ascent()
    steps = steps_needed(features, y, lambda _: [counted.step() for _ in range(STRIDE)][-1], STRIDE)
    return run


# ---- JAX


def _jax_adam(features: np.ndarray, y: np.ndarray) -> tuple[Callable[..., Any], Any, Any]:
    """``step(state, seed, *data)``, the first state ``(steps, loc, raw, moments)``, and the data on the device."""
    import jax
    import jax.numpy as jnp

    batch, _, d = features.shape
    eye = jnp.eye(d, dtype=jnp.float32)

    def factor_of(raw: Any) -> Any:
        return jnp.tril(raw, -1) + eye * jnp.exp(raw)

    def step(state: Any, seed: Any, *data: Any) -> Any:
        steps, loc, raw, m, v = state
        steps, factor = steps + 1, factor_of(raw)
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(seed), steps), (batch, DRAWS, d), jnp.float32)
        z = loc[:, None, :] + noise @ factor.mT
        g = logistic.gradient(z, logistic.shared(z, *data), *data)
        ct_loc, ct_factor = gradient_by_hand(noise, g, factor)
        gradient = (ct_loc, jnp.where(eye == 1, ct_factor * factor, ct_factor))
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradient)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradient)
        t = steps.astype(jnp.float32)
        rate = RATE / (1 + t / DECAY) / (1 - BETA1**t) * jnp.sqrt(1 - BETA2**t)
        loc, raw = jax.tree.map(lambda p, m, v: p + rate * m / (jnp.sqrt(v) + EPS), (loc, raw), m, v)
        return steps, loc, raw, m, v

    loc, raw = jnp.zeros((batch, d), jnp.float32), jnp.zeros((batch, d, d), jnp.float32)
    moments = [jax.tree.map(jnp.zeros_like, (loc, raw)) for _ in range(2)]
    state = (jnp.int32(0), loc, raw, *moments)
    return step, state, [jax.device_put(x) for x in (features, y)]


def _jax_result(state: Any) -> Result:
    loc, raw = (np.asarray(x) for x in state[1:3])
    return loc, np.where(np.eye(raw.shape[-1]) == 1, np.exp(raw), np.tril(raw, -1))


def jax_step(features: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """One step under jit, the state donated."""
    import jax

    step, state, data = _jax_adam(features, y)
    compiled = jax.jit(step, donate_argnums=0)

    def run() -> Any:
        nonlocal state
        state = jax.block_until_ready(compiled(state, 5, *data))
        return state

    return run


def jax_run(features: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    """All steps as one loop under jit."""
    import jax

    step, state, data = _jax_adam(features, y)

    def steps_from(state: Any, steps: Any, *data: Any) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, state: step(state, 3, *data), state)

    compiled, first = jax.jit(steps_from), state

    def after(_: int) -> Result:
        nonlocal state
        state = compiled(state, STRIDE, *data)
        return _jax_result(state)

    steps = steps_needed(features, y, after, STRIDE)
    return lambda: jax.block_until_ready(compiled(first, steps, *data))


def answer(library: str) -> Callable[[Any], tuple[np.ndarray, ...]] | None:
    """How a result becomes loc and factor."""
    return _jax_result if library == "jax" else None


STEPS = {"reparam": our_step, "torch": torch_step, "jax": jax_step}
RUNS = {"reparam": our_run, "torch": torch_run, "jax": jax_run}
