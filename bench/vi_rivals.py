# SPDX-License-Identifier: MIT
"""Variational inference of a batch of logistic regressions: our natural gradient, and torch by hand with Adam.

Both start at N(0, I). A run has as many steps as its method needs to come within ``ACCURACY`` nats of the best ELBO, in
the mean over the problems; they are counted before anything is timed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import rivals
from .elbo_rivals import PRIOR_SCALE, by_hand, logistic

DRAWS = 8
ACCURACY = 0.1
ADAM_RATE, ADAM_DECAY = 0.2, 10.0  # of the rates tried, those that need the fewest steps
MOST_STEPS = 2000
Result = tuple[Any, np.ndarray, np.ndarray]


def target_of(features: np.ndarray, y: np.ndarray) -> Any:
    """The posterior of the coefficients."""
    return rp.targets.GLM(features, y, family="logistic", prior_scale=PRIOR_SCALE)


def elbos(result: Result) -> tuple[np.ndarray, ...]:
    """The bound of each problem, by one set of draws for all methods."""
    target, loc, factor = result
    q = rp.MultivariateNormal(loc, scale_tril=factor)
    return (rp.elbo(q, target, key=7, num_samples=64, estimator="stl", grad=False).value,)


def start(batch: int, d: int) -> Any:
    """N(0, I) for every problem."""
    eye = np.eye(d, dtype=np.float32)
    return rp.MultivariateNormal(np.zeros((batch, d), np.float32), scale_tril=np.tile(eye, (batch, 1, 1)))


def our_step(features: np.ndarray, y: np.ndarray) -> Callable[[], Result]:
    """One step, from where the last one ended."""
    target, keys = target_of(features, y), itertools.count()
    q = start(len(y), features.shape[-1])

    def run() -> Result:
        nonlocal q
        q = rp.inference.refine(q, target, steps=1, key=next(keys), num_samples=DRAWS)
        return target, q.loc, q.scale_tril

    return run


def our_run(features: np.ndarray, y: np.ndarray) -> Callable[[], Result]:
    """All steps."""
    target, first = target_of(features, y), start(len(y), features.shape[-1])

    def after(steps: int) -> Result:
        q = rp.inference.refine(first, target, steps=steps, key=3, num_samples=DRAWS)
        return target, q.loc, q.scale_tril

    best, steps = best_elbo(target, first), 4
    while elbos(after(steps))[0].mean() < best - ACCURACY:
        steps += 2
        refuse_too_many(steps)
    return lambda: after(steps)


def best_elbo(target: Any, first: Any) -> float:
    """In the mean over the problems."""
    q = rp.inference.refine(first, target, steps=200, key=1, num_samples=32)
    return float(elbos((target, q.loc, q.scale_tril))[0].mean())


def refuse_too_many(steps: int) -> None:
    """A method that does not get there has no time to print."""
    if steps > MOST_STEPS:
        raise RuntimeError(f"the ELBO is not within {ACCURACY} of the best after {MOST_STEPS} steps")


class _TorchAdam:
    """Ascent in loc and in the factor with its diagonal as logarithms; everything in closed form and in place."""

    def __init__(self, features: np.ndarray, y: np.ndarray) -> None:
        import torch

        self.data = rivals.tensors([features, y])
        batch, d = len(y), features.shape[-1]
        self.parameters = torch.zeros(batch, d + d * d)
        self.moments = [torch.zeros_like(self.parameters) for _ in range(2)]
        self.gradient = torch.empty_like(self.parameters)
        self.noise = torch.empty(batch, DRAWS, d)
        self.steps, self.d = 0, d
        self._formula = by_hand(logistic)

    def q(self) -> tuple[Any, Any]:
        """Loc and factor."""
        loc, raw = self.parameters[:, : self.d], self.parameters[:, self.d :].reshape(-1, self.d, self.d)
        factor = raw.tril(-1)
        factor.diagonal(dim1=-2, dim2=-1).copy_(raw.diagonal(dim1=-2, dim2=-1).exp())
        return loc, factor

    def step(self) -> None:
        """Adam with a decreasing rate."""
        loc, factor = self.q()
        _, ct_loc, ct_factor = self._formula(self.noise.normal_(), loc, factor, *self.data)
        ct_factor.diagonal(dim1=-2, dim2=-1).mul_(factor.diagonal(dim1=-2, dim2=-1))
        self.gradient[:, : self.d] = ct_loc
        self.gradient[:, self.d :] = ct_factor.flatten(1)
        m, v = self.moments
        m.lerp_(self.gradient, 0.1)
        v.mul_(0.99).addcmul_(self.gradient, self.gradient, value=0.01)
        self.steps += 1
        rate = ADAM_RATE / (1 + self.steps / ADAM_DECAY)
        scale = (v / (1 - 0.99**self.steps)).sqrt_().add_(1e-8)
        self.parameters.addcdiv_(m, scale, value=rate / (1 - 0.9**self.steps))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of loc and factor."""
        loc, factor = self.q()
        return loc.numpy().copy(), factor.numpy().copy()


def torch_step(features: np.ndarray, y: np.ndarray) -> Callable[[], Result]:
    """One step, from where the last one ended."""
    ascent, target = _TorchAdam(features, y), target_of(features, y)

    def run() -> Result:
        ascent.step()
        return target, *ascent.arrays()

    return run


def torch_run(features: np.ndarray, y: np.ndarray) -> Callable[[], Result]:
    """All steps."""
    import torch

    target = target_of(features, y)

    def after(steps: int) -> Result:
        torch.manual_seed(3)
        ascent = _TorchAdam(features, y)
        for _ in range(steps):
            ascent.step()
        return target, *ascent.arrays()

    best, counted = best_elbo(target, start(len(y), features.shape[-1])), _TorchAdam(features, y)
    torch.manual_seed(3)
    while counted.steps % 10 or elbos((target, *counted.arrays()))[0].mean() < best - ACCURACY:
        counted.step()
        refuse_too_many(counted.steps)
    return lambda: after(counted.steps)
