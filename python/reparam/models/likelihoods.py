# SPDX-License-Identifier: MIT
"""What a decoder's output means: p(x | output), its gradient, its mean and its draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import is_cupy, move, namespace_of, row_dot, to_numpy
from .._check import as_choice, as_float, as_int
from ..ops.normal_tril import HALF_LOG_2PI

__all__ = ["Likelihood", "Prepared", "make_likelihood"]

Array = NDArray[Any]
Pullback = Callable[[Array], tuple[Array, Array]]  # weights to (gradient in the output, gradient in theta)
_NO_THETA = np.zeros(0)


@dataclass(frozen=True)
class Prepared:
    """Data rows in the model's dtype, which entries count, and the constant of each row's log likelihood."""

    x: Array  # unobserved entries are 0
    mask: Array | None
    total: Array  # counts, or nothing
    constant: Array

    def rows(self, index: Any) -> Prepared:
        """Some of the rows."""
        mask = None if self.mask is None else self.mask[index]
        total = self.total[index] if self.total.ndim > 1 else self.total
        return Prepared(self.x[index], mask, total, self.constant[index])


class Binomial:
    """Counts of ``total_count`` trials; the output is the log odds. ``total_count = 1`` is the Bernoulli."""

    theta_size = 0

    def __init__(self, total_count: int) -> None:
        self.total_count = total_count
        log_factorial = np.array([math.lgamma(k + 1) for k in range(total_count + 1)])
        self.log_coefficient = log_factorial[-1] - (log_factorial + log_factorial[::-1])

    def check(self, name: str, x: Array) -> None:
        """Refuse what is not a count."""
        wrong = (x < 0) | (x > self.total_count) | (x != np.floor(x))
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            allowed = "0 or 1" if self.total_count == 1 else f"a whole number in 0..{self.total_count} (total_count)"
            raise ValueError(f"{name} must be {allowed} everywhere, got {x[at]} at {list(at)}")

    def prepare(self, x: Array, mask: Array | None) -> Prepared:
        """Counts and totals, 0 of 0 where an entry is unobserved."""
        coefficient = move(self.log_coefficient, x)[x.astype(np.intp)]
        full = namespace_of(x).full(x.shape[-1:], self.total_count, x.dtype)
        if mask is None:
            return Prepared(x, None, full, coefficient.sum(-1).astype(x.dtype))
        return Prepared(x * mask, mask, full * mask, (coefficient * mask).sum(-1).astype(x.dtype))

    def scale_input(self, x: Array) -> Array:
        """What the encoder sees: fractions."""
        return x if self.total_count == 1 else x * x.dtype.type(1 / self.total_count)

    def log_prob(self, output: Array, data: Prepared, theta: Array) -> tuple[Array, Pullback]:
        """Log p(x | output) of shape (S, B), and its pullback."""
        log_prob = ops.binomial_log_likelihood(data.x, output, data.total) + data.constant

        def pullback(weights: Array) -> tuple[Array, Array]:
            operands = (data.x, output, data.total, weights)
            return ops.binomial_log_likelihood.vjp(*operands, wrt=("logits",))[1], _NO_THETA

        return log_prob, pullback

    def mean(self, output: Array) -> Array:
        """Mean of x given the output."""
        with np.errstate(over="ignore"):
            result: Array = output.dtype.type(self.total_count) / (1 + np.exp(-output))
        return result

    def draw(self, output: Array, theta: Array, rng: np.random.Generator) -> Array:
        """Draw x given the output, in NumPy's memory."""
        odds = np.clip(self.mean(output).astype(np.float64) / self.total_count, 0, 1)
        return rng.binomial(self.total_count, odds).astype(output.dtype)


class Gaussian:
    """Real data with one shared noise scale; the output is the mean."""

    def __init__(self, noise_scale: float | None) -> None:
        self.fixed = noise_scale
        self.theta_size = 1 if noise_scale is None else 0  # log sigma, where it is learned

    def check(self, name: str, x: Array) -> None:
        """Accept any finite data."""

    def prepare(self, x: Array, mask: Array | None) -> Prepared:
        """Data with zeros where an entry is unobserved."""
        xp = namespace_of(x)
        observed = xp.full(len(x), x.shape[-1], x.dtype) if mask is None else mask.sum(-1).astype(x.dtype)
        constant = observed * x.dtype.type(-HALF_LOG_2PI)
        return Prepared(x if mask is None else x * mask, mask, observed[:, None], constant)

    def scale_input(self, x: Array) -> Array:
        """What the encoder sees: the data."""
        return x

    def sigma(self, theta: Array) -> float:
        """The noise scale."""
        return self.fixed if self.fixed is not None else float(np.exp(to_numpy(theta)[0]))

    def _noise(self, theta: Array, output: Array) -> tuple[Any, Any]:
        """Log sigma and 1/sigma^2 in the output's dtype; learned ones stay on their GPU."""
        if self.fixed is None and is_cupy(theta):
            log_sigma = theta[:1].astype(np.float64)
            return theta[:1], np.exp(np.minimum(-2 * log_sigma, 700)).astype(output.dtype)
        number = math.log(self.fixed) if self.fixed is not None else float(theta[0])
        precision = np.asarray(math.exp(min(-2 * number, 700)), output.dtype)[()]  # inf in float32, never an error
        return output.dtype.type(number), precision

    def log_prob(self, output: Array, data: Prepared, theta: Array) -> tuple[Array, Pullback]:
        """Log p(x | output) of shape (S, B), and its pullback."""
        log_sigma, precision = self._noise(theta, output)
        observed = data.total[:, 0]
        residual = data.x - output
        if data.mask is not None:
            residual *= data.mask
        squares = row_dot(residual, residual) * precision
        log_prob = output.dtype.type(-0.5) * squares - observed * log_sigma

        def pullback(weights: Array) -> tuple[Array, Array]:
            ct_output = residual * (weights * precision)[..., None]
            ct_log_sigma = np.sum(weights * (squares - observed), dtype=np.float64)
            return ct_output, ct_log_sigma.reshape(1)[: self.theta_size]

        return log_prob + data.constant, pullback

    def mean(self, output: Array) -> Array:
        """Mean of x given the output."""
        return output

    def draw(self, output: Array, theta: Array, rng: np.random.Generator) -> Array:
        """Draw x given the output, in NumPy's memory."""
        noise: Array = rng.standard_normal(output.shape, dtype=output.dtype)
        result: Array = output + output.dtype.type(self.sigma(theta)) * noise
        return result


Likelihood = Binomial | Gaussian


def make_likelihood(name: str, total_count: Any, noise_scale: Any) -> Likelihood:
    """The likelihood of a model's arguments, checked."""
    as_choice("VAE: likelihood", name, ("gaussian", "bernoulli", "binomial"))
    if name != "binomial" and total_count is not None:
        raise ValueError(
            f"VAE: total_count goes with likelihood='binomial', got total_count={total_count!r} with {name!r}"
        )
    if name != "gaussian" and noise_scale is not None:
        raise ValueError(
            f"VAE: noise_scale goes with likelihood='gaussian', got noise_scale={noise_scale!r} with {name!r}"
        )
    if name == "gaussian":
        return Gaussian(None if noise_scale is None else as_float("VAE: noise_scale", noise_scale, 0, above=True))
    if name == "bernoulli":
        return Binomial(1)
    if total_count is None:
        raise ValueError("VAE: likelihood='binomial' needs total_count, the number of trials of each entry")
    return Binomial(as_int("VAE: total_count", total_count, 1, 2**20))
