# SPDX-License-Identifier: MIT
"""Where EM starts: k-means, k-means++, random responsibilities, random rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import is_cupy, move, namespace_of, row_dot, to_numpy
from .mixture_em import Assign

__all__ = ["STARTS", "at_rows", "of_labels", "start"]

Array = NDArray[Any]
STARTS = ("kmeans", "k-means++", "random", "random_from_data")
ROWS_AT_ONCE, ROWS_OF_GPU = 4096, 2**18
KMEANS_STEPS = 300
KMEANS_TOL = 1e-4  # of the mean variance of a feature: a smaller move of the centres is none


def start(method: str, x: Array, n_components: int, rng: np.random.Generator) -> Assign:
    """Responsibilities of each block of centred rows x (n, d), as an E-step gives them."""
    if method == "random":
        seed = int(rng.integers(2**63))
        return lambda at, *_: (move(_random(seed, at, n_components), x), 0.0)
    if method == "kmeans":
        return of_labels(kmeans(x, seeds(x, n_components, rng)), n_components)
    far = method == "k-means++"
    rows = seeds(x, n_components, rng) if far else rng.choice(len(x), n_components, replace=False)
    return at_rows(rows, x)


def of_labels(labels: Array, n_components: int) -> Assign:
    """A whole row each to the component of its label."""
    return lambda at, *_: (_one_hot(labels[at], n_components), 0.0)


def at_rows(rows: Array, x: Array) -> Assign:
    """To component k the row of number ``rows[k]``, and to no component any other."""
    return lambda at, *_: (move((rows[:, None] == np.arange(at.start, at.stop)).astype(np.float64), x), 0.0)


def _random(seed: int, at: slice, n_components: int) -> Array:
    """Made anew whenever the block is asked for, and the same each time."""
    made: Array = np.random.default_rng([seed, at.start]).random((n_components, at.stop - at.start))
    made /= made.sum(0)
    return made


def _one_hot(labels: Array, n_components: int) -> Array:
    made: Array = (namespace_of(labels).arange(n_components)[:, None] == labels).astype(np.float64)
    return made


def seeds(x: Array, n_components: int, rng: np.random.Generator) -> Array:
    """Numbers of rows that are far from each other: greedy k-means++ (Arthur and Vassilvitskii, 2007).

    Each next row is the best of a few that are drawn with odds of their squared distance from those that stand.
    """
    norms, xp = row_dot(x, x), namespace_of(x)
    trials = 2 + int(math.log(n_components))
    chosen = [int(rng.integers(len(x)))]
    nearest = _distances(x, norms, x[move(np.array(chosen), x)])[0]
    while len(chosen) < n_components:
        reach = np.cumsum(nearest)
        if reach[-1] > 0:
            drawn = move(rng.random(trials), x) * reach[-1]
            candidates = xp.minimum(xp.searchsorted(reach, drawn, side="right"), len(x) - 1)
        else:  # fewer different rows than components
            candidates = move(rng.choice(np.setdiff1d(np.arange(len(x)), chosen), 1), x)
        closer = np.minimum(nearest, _distances(x, norms, x[candidates]))
        best = int(closer.sum(1).argmin())
        chosen.append(int(candidates[best]))
        nearest = closer[best]
    return np.array(chosen)


def _distances(x: Array, norms: Array, centres: Array) -> Array:
    """Squared distances, shape (k, n)."""
    made: Array = centres @ x.T
    made *= -2
    made += norms
    made += row_dot(centres, centres)[:, None]
    np.maximum(made, 0, out=made)
    return made


def kmeans(x: Array, rows: Array) -> Array:
    """Labels of the rows by Lloyd's algorithm, from the centres at some rows."""
    xp, at_once = namespace_of(x), ROWS_OF_GPU if is_cupy(x) else ROWS_AT_ONCE
    centres = x[move(rows, x)]
    labels: Array = xp.zeros(len(x), np.intp)
    norms = row_dot(x, x)
    least = KMEANS_TOL * float(norms.mean()) / x.shape[1]
    for _ in range(KMEANS_STEPS):
        sums, counts, farthest = xp.zeros_like(centres), xp.zeros(len(centres)), []
        before = labels.copy()
        for begin in range(0, len(x), at_once):
            at = slice(begin, begin + at_once)
            distances = _distances(x[at], norms[at], centres)
            labels[at] = distances.argmin(0)
            own = distances.min(0)
            farthest.append((own.max(), begin + own.argmax()))
            shares = _one_hot(labels[at], len(centres))
            sums += shares @ x[at]
            counts += shares.sum(1)
        empty = np.flatnonzero(to_numpy(counts) == 0)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        far = sorted(((float(d), int(row)) for d, row in farthest), reverse=True) if len(empty) else []
        for k, (distance, row) in zip(empty, far, strict=False):
            if distance > 0:
                moved[k] = x[row]
        shift = float(np.square(moved - centres).sum())
        centres = moved
        if shift <= least or (labels == before).all():
            break
    return labels
