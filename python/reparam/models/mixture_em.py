# SPDX-License-Identifier: MIT
"""Expectation-maximization of a Gaussian mixture as two matrix products over features of the rows.

For a row y the log densities of all K components are linear in the features (1, y_i, y_i y_j for i <= j), and what the
M-step needs are sums of those features, weighted by the responsibilities: one product each, block by block of rows, so
that no more than a block of features is in memory. Such expanded squares cancel; they are exact enough for components
whose size is that of the rows' whole spread. Any component that is narrower than 1e-2 of it in some direction is
evaluated as ``|U^T (y - mean)|^2``, and its covariance is summed about its own mean, in a second pass.

Rows of CuPy stay on their GPU, with their features and responsibilities; components are few numbers and the host's. So
an iteration takes the coefficients there, and brings back the sums: the one time that it waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_cupy, move, namespace_of, to_numpy
from .mixture_frame import Frame, covariances_of, precision_factors

__all__ = ["EM", "Assign", "Components", "NoInverseError", "for_each", "log_normalize"]

Array = NDArray[Any]
#: Features of a block, about: those stay in the caches between the two products.
BLOCK_ELEMENTS = 320_000
MOST_ELEMENTS = 4_000_000  # of a block, however many features a row has
#: Rows of a block; no powers of two, since rows of features that far apart share the lines of a cache.
LEAST_ROWS, MOST_ROWS = 500, 2000
#: Multiplications of one product, if blocks allow: OpenBLAS does such small ones at once, without packing or threads.
SMALL_PRODUCT = 1_000_000
LEAST_PIECE = 100  # rows of such a product
#: Below this eigenvalue of a whitened covariance the expanded form is not used.
NARROW = 1e-4
EMPTY = 10 * float(np.finfo(np.float64).eps)  # rows that an empty component is given, as in scikit-learn
#: Which rows and their features (p, b) give responsibilities (K, b) and the sum of log p(row).
Assign = Callable[[slice, Array], tuple[Array, Any]]


class NoInverseError(ValueError):
    """A covariance of an M-step."""


@dataclass(frozen=True)
class Components:
    """K Gaussians and their weights.

    ``factors`` are upper triangular U (K, d, d) with precision ``U U^T``, or its roots (K, d) if that is diagonal.
    ``covariances`` are of the same shape, where an M-step has made them.
    """

    weights: Array
    means: Array
    factors: Array
    covariances: Array | None = None

    def log_scales(self) -> Array:
        """Log density of each weighted component at its mean, shape (K,)."""
        diagonal = self.factors if self.factors.ndim == 2 else np.diagonal(self.factors, axis1=1, axis2=2)
        with np.errstate(divide="ignore"):  # a weight of zero
            log_weights = np.log(self.weights)
        result: Array = log_weights + np.log(diagonal).sum(-1) - self.means.shape[1] / 2 * math.log(2 * math.pi)
        return result

    def squares(self, columns: Array, k: int) -> Array:
        """Squared Mahalanobis distances of columns (d, b) from component k, without cancellation."""
        centred = columns - move(self.means[k], columns)[:, None]
        factor = move(self.factors[k], columns)
        scaled = factor[:, None] * centred if factor.ndim == 1 else factor.T @ centred
        made: Array = (scaled * scaled).sum(0) if is_cupy(scaled) else np.einsum("ib,ib->b", scaled, scaled)
        return made

    def log_probs(self, columns: Array) -> Array:
        """Log densities of weighted components, shape (K, b)."""
        return np.stack([c - 0.5 * self.squares(columns, k) for k, c in enumerate(self.log_scales())])

    def coefficients(self) -> Array:
        """Of the log densities in the features, shape (K, p)."""
        if self.factors.ndim == 2:
            precisions = self.factors**2
            linear, quadratic = precisions * self.means, -0.5 * precisions
        else:
            precisions = self.factors @ self.factors.swapaxes(-1, -2)
            linear = (precisions @ self.means[..., None])[..., 0]
            i, j = np.triu_indices(self.means.shape[1])
            quadratic = precisions[:, i, j] * np.where(i == j, -0.5, -1)
        constant = self.log_scales() - 0.5 * (linear * self.means).sum(-1)
        return np.concatenate([constant[:, None], linear, quadratic], axis=1)

    def narrow(self) -> Array:
        """Numbers of those whose covariance may have an eigenvalue below the limit: the trace of a precision tells."""
        traces = np.square(self.factors).sum(tuple(range(1, self.factors.ndim)))
        return np.flatnonzero(~(traces * NARROW <= 1))


def for_each(array: Array, covariance_type: str, k: int, d: int) -> Array:
    """What is stored as the covariance type has it, as a matrix or the diagonal of one for each component."""
    if covariance_type == "tied":
        return np.broadcast_to(array, (k, d, d))
    return np.broadcast_to(array[:, None], (k, d)) if covariance_type == "spherical" else array


def log_normalize(log_probs: Array) -> tuple[Array, Array]:
    """Responsibilities, in the place of ``log_probs`` (K, b), and the log of their sum before, shape (b,)."""
    most = log_probs.max(0)
    log_probs -= np.where(np.isfinite(most), most, 0)  # a row whose squares overflow has the density zero
    np.exp(log_probs, out=log_probs)
    total = log_probs.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_probs /= total
        return log_probs, np.log(total) + most


class EM:
    """Rows in their frame, and the steps."""

    def __init__(self, x: Array, n_components: int, covariance_type: str, reg_covar: float) -> None:
        self.kind, self.n_components = covariance_type, n_components
        self.frame = Frame.of(x, reg_covar, whiten=covariance_type in {"full", "tied"})
        diagonal = np.diagonal(self.frame.scale) if self.frame.whitens else self.frame.scale
        self.log_volume = float(np.log(diagonal).sum())  # log p(x) is log p(y) less this
        self.ridge = self.frame.ridge(reg_covar)
        self.columns = self.frame.enter(x)
        self.d, self.n = self.columns.shape
        self.width = 1 + 2 * self.d if self.frame.scale.ndim == 1 else (self.d + 1) * (self.d + 2) // 2
        least = max(1, min(LEAST_ROWS, MOST_ELEMENTS // self.width))
        self.block = min(MOST_ROWS, max(least, BLOCK_ELEMENTS // self.width), self.n)
        piece = SMALL_PRODUCT // (n_components * self.width)
        self.piece = piece if piece >= LEAST_PIECE else self.block
        if is_cupy(x):  # whose products are fastest in one
            self.block = self.piece = min(max(1, MOST_ELEMENTS // self.width), self.n)
            self._pairs = [move(k, x) for k in np.triu_indices(self.d)]
        self.xp = namespace_of(x)
        self._buffer: Array = self.xp.empty((self.width, self.block))

    def enter(self, components: Components) -> Components:
        """Components of x in the frame."""
        frame = self.frame
        means, factors = frame.enter_means(components.means), frame.enter_factors(components.factors)
        return Components(components.weights, means, factors)

    def leave(self, components: Components) -> tuple[Array, Array, Array, Array]:
        """Weights, means, factors and covariances of x."""
        frame, covariances = self.frame, components.covariances
        means, factors = frame.leave_means(components.means), frame.leave_factors(components.factors)
        if covariances is None:
            covariances = covariances_of(components.factors)
        return components.weights, means, factors, frame.leave_covariances(covariances)

    def _blocks(self) -> Iterator[slice]:
        return (slice(k, min(k + self.block, self.n)) for k in range(0, self.n, self.block))

    def _features(self, at: slice) -> Array:
        """Of a block of rows, shape (p, b), in an array that is used again."""
        columns, features = self.columns[:, at], self._buffer[:, : at.stop - at.start]
        features[0] = 1
        features[1 : self.d + 1] = columns
        first = self.d + 1
        if not self.frame.whitens:
            np.square(columns, out=features[first:])
            return features
        if is_cupy(columns):  # a kernel for all pairs, and not one for each feature
            features[first:] = columns[self._pairs[0]] * columns[self._pairs[1]]
            return features
        for i in range(self.d):
            np.multiply(columns[i], columns[i:], out=features[first : first + self.d - i])
            first += self.d - i
        return features

    def _pieces(self, features: Array) -> Iterator[slice]:
        """Of the rows of a block, for each of the products."""
        return (slice(k, k + self.piece) for k in range(0, features.shape[1], self.piece))

    def assign(self, components: Components) -> Assign:
        """The E-step."""
        narrow = components.narrow()
        log_scales = components.log_scales()
        with np.errstate(over="ignore", invalid="ignore"):
            coefficients = components.coefficients()
        coefficients[narrow] = 0
        coefficients = move(coefficients, self.columns)

        def responsibilities(at: slice, features: Array) -> tuple[Array, Any]:
            log_probs = self.xp.empty((len(coefficients), features.shape[1]))
            for part in self._pieces(features):
                np.matmul(coefficients, features[:, part], out=log_probs[:, part])
            for k in narrow:
                log_probs[k] = log_scales[k] - 0.5 * components.squares(self.columns[:, at], k)
            made, log_prob = log_normalize(log_probs)
            return made, log_prob.sum()

        return responsibilities

    def estimate(self, assign: Assign, *, keep: bool = False) -> tuple[float, Components]:
        """The M-step for these responsibilities; it gives the mean log p(row) that came with them, too.

        ``keep`` has them all in memory, for a second pass that is likely: else it computes them again.
        """
        log_prob: Any = 0.0
        moments: Any = 0.0
        kept = self.xp.empty((self.n_components, self.n)) if keep else None
        for at in self._blocks():
            features = self._features(at)
            shares, of_block = assign(at, features)
            log_prob += of_block
            if kept is not None:
                kept[:, at] = shares
            by_row = self.xp.ascontiguousarray(shares.T)
            for part in self._pieces(features):
                moments = moments + features[:, part] @ by_row[part]
        moments, log_prob = to_numpy(moments), float(log_prob)
        counts = moments[0] + EMPTY
        means, second = np.split((moments[1:] / counts).T, [self.d], axis=1)
        covariances = self._central(means, second) + self.ridge
        components = self._components(counts, means, covariances)
        narrow = components.narrow()
        if len(narrow):
            covariances[narrow] = self._scatter(assign, kept, means, narrow)
            covariances[narrow] /= counts[narrow].reshape(-1, *[1] * (covariances.ndim - 1))
            covariances[narrow] += self.ridge
            components = self._components(counts, means, covariances)
        bad = narrow[~(self.frame.rounding(components.factors[narrow]) < 1)]  # NaN, too
        if len(bad):
            raise NoInverseError(
                f"GaussianMixture: the covariance of component {bad[0]} has no inverse, as those of a single row, of "
                "equal rows or of linearly dependent features; x needs fewer components, or a larger reg_covar"
            )
        return log_prob / self.n, components

    def _components(self, counts: Array, means: Array, covariances: Array) -> Components:
        pooled = self._pool(covariances, counts)
        return Components(counts / counts.sum(), means, precision_factors(pooled), pooled)

    def _central(self, means: Array, second: Array) -> Array:
        """Covariances from moments about the frame's origin."""
        if not self.frame.whitens:
            return np.asarray(second - means**2)
        i, j = np.triu_indices(self.d)
        made = np.empty((len(means), self.d, self.d))
        made[:, i, j] = made[:, j, i] = second - means[:, i] * means[:, j]
        return made

    def _scatter(self, assign: Assign, kept: Array | None, means: Array, narrow: Array) -> Array:
        """Sums of squares about their own means, of some of the components."""
        made = self.xp.zeros((len(narrow), *[self.d] * (2 if self.frame.whitens else 1)))
        for at in self._blocks():
            shares = assign(at, self._features(at))[0] if kept is None else kept[:, at]
            for i, k in enumerate(narrow):
                centred = self.columns[:, at] - move(means[k], self.columns)[:, None]
                made[i] += (shares[k] * centred) @ centred.T if self.frame.whitens else centred**2 @ shares[k]
        return to_numpy(made)

    def _pool(self, covariances: Array, counts: Array) -> Array:
        """One covariance for all, or one variance for all features of x."""
        if self.kind == "tied":
            mean = np.tensordot(counts / counts.sum(), covariances, 1)
            return np.broadcast_to(mean, covariances.shape)
        if self.kind == "spherical":
            share = (self.frame.scale / self.frame.scale.max()) ** 2
            return np.asarray((covariances @ share / self.d)[:, None] / share)
        return covariances
