# SPDX-License-Identifier: MIT
"""A fit of a Gaussian mixture: the start, given or found, and the ascent from there."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import move, to_numpy
from ..inference.data import as_real
from .mixture_em import EM, Assign, Components, for_each
from .mixture_start import start

__all__ = ["GIVEN", "Ascent", "Start", "ascend", "check_given", "stored_shape"]

Array = NDArray[Any]
GIVEN = ("weights_init", "means_init", "precisions_init")
SUM_TOLERANCE = 1e-6  # of given weights, which may come in float32
SYMMETRY = 1e-5  # of given precisions, relative, as in scikit-learn


def stored_shape(covariance_type: str, k: int, d: int) -> tuple[int, ...]:
    """Of covariances and precisions of a model."""
    return {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]


def check_given(given: Mapping[str, Any], k: int, d: int, covariance_type: str) -> dict[str, Array]:
    """What the user gave of a start, in float64; of precisions their factors, one for each component."""
    shapes = {"weights_init": (k,), "means_init": (k, d), "precisions_init": stored_shape(covariance_type, k, d)}
    made = {}
    for name, value in given.items():
        array = to_numpy(as_real(f"GaussianMixture: {name}", value, "fiu")).astype(np.float64)
        if array.shape != shapes[name]:
            raise ValueError(f"GaussianMixture: {name} must have shape {shapes[name]}, got {array.shape}")
        if not np.isfinite(array).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"GaussianMixture: {name} must be finite, got {array[at]} at {list(at)}")
        made[name] = array
    weights = made.get("weights_init")
    if weights is not None and (weights.min() < 0 or abs(weights.sum() - 1) > SUM_TOLERANCE):
        came = f"the least {weights.min()} and the sum {weights.sum()}"
        raise ValueError(f"GaussianMixture: weights_init must be >= 0 and sum to 1, got {came}")
    if "precisions_init" in made:
        made["precisions_init"] = for_each(_factors(made["precisions_init"], covariance_type), covariance_type, k, d)
    return made


def _factors(precisions: Array, covariance_type: str) -> Array:
    """Upper triangular U with ``U U^T`` the precision, or its root: the lower factor of the matrix upside down."""
    if covariance_type in {"full", "tied"}:
        turned = np.ascontiguousarray(precisions[..., ::-1, ::-1])
        size = np.abs(turned).max(initial=0)
        if (np.abs(turned - turned.swapaxes(-1, -2)) > SYMMETRY * size).any():
            raise ValueError("GaussianMixture: precisions_init must be symmetric, got a matrix that is not")
        lower, info = ops.cholesky_ex(turned)
        factors, bad = lower[..., ::-1, ::-1], np.argwhere(info)
    else:
        factors, bad = np.sqrt(np.maximum(precisions, 0)), np.argwhere(precisions <= 0)
    if len(bad):
        at = f" at {bad[0].tolist()}" if bad.shape[1] else ""
        raise ValueError(f"GaussianMixture: precisions_init must be positive definite, got one that is not{at}")
    return np.asarray(factors)


@dataclass(frozen=True)
class Start:
    """The first components: what was given, and the rest from an M-step."""

    method: str
    n_components: int
    given: Mapping[str, Array]

    def __call__(self, em: EM, x: Array, rng: Any) -> Components:
        """In the frame of EM; x are the rows (n, d)."""
        given, made = self.given, {}
        if given.keys() != {*GIVEN}:
            _, found = em.estimate(self.responsibilities(em, x, rng))
            made = dict(vars(found))
        if "weights_init" in given:
            made["weights"] = given["weights_init"]
        if "means_init" in given:
            made["means"] = em.frame.enter_means(given["means_init"])
        if "precisions_init" in given:
            made["factors"] = em.frame.enter_factors(given["precisions_init"])
            made["covariances"] = None  # follow from the factors
        return Components(**made)

    def responsibilities(self, em: EM, x: Array, rng: Any) -> Assign:
        """Of the first M-step."""
        centred = x - move(em.frame.loc, x)
        centred /= float(np.abs(centred).max()) or 1
        return start(self.method, centred, self.n_components, rng)


@dataclass(frozen=True)
class Ascent:
    """Where EM has come to: components in the frame, the bound before each M-step, whether it stopped by itself."""

    components: Components
    bounds: list[float]
    converged: bool

    @property
    def bound(self) -> float:
        """The last one."""
        return self.bounds[-1] if self.bounds else -math.inf


def ascend(
    em: EM, components: Components, bound: float, *, tol: float, max_iter: int, verbose: tuple[int, int]
) -> Ascent:
    """Iterate until the mean log likelihood of a row changes by less than ``tol`` from one iteration to the next.

    ``verbose`` says how much to print, and after how many iterations.
    """
    bounds: list[float] = []
    much, interval = verbose
    clock = time.perf_counter()
    converged = False
    while len(bounds) < max_iter and not converged:
        before = bound
        bound, components = em.estimate(em.assign(components), keep=components.narrow().size > 0)
        bound -= em.log_volume
        bounds.append(bound)
        converged = abs(bound - before) < tol
        if much and len(bounds) % interval == 0:
            change = f"\t time lapse {time.perf_counter() - clock:.5f}s\t ll change {bound - before:.5f}"
            print(f"  Iteration {len(bounds)}{change if much > 1 else ''}")
    if much:
        end = f" time lapse {time.perf_counter() - clock:.5f}s\t lower bound {bound:.5f}." if much > 1 else ""
        print(f"Initialization {'converged' if converged else 'did not converge'}.{end}")
    return Ascent(components, bounds, converged)
