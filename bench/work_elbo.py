# SPDX-License-Identifier: MIT
"""Rows of the Monte Carlo ELBO with its gradient, and of classical variational inference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import elbo_rivals, expectations, vi_rivals
from .expectations import NOISE_SCALE, PRIOR_SCALE
from .formulas import HALF_LOG_2PI
from .row import DTYPES, NO_LIMIT, Contestant, Row, Target, factors, flat, items, ratio

SIZES = [(4096, 1, 8), (4096, 8, 16), (1024, 16, 32)]
OBSERVED = 32  # rows of a regression, and dims of the linear Gaussian's x
PROBLEMS, POINTS, COEFFICIENTS, DRAWS = 2000, 50, 8, vi_rivals.DRAWS
#: What rivals compute, and what holds them and ours to its expectation.
TARGETS = {
    "external": (elbo_rivals.external, expectations.external),
    "linear-gaussian": (elbo_rivals.linear_gaussian, expectations.linear_gaussian),
    "glm": (elbo_rivals.logistic, expectations.logistic),
}
TRUSTED = 4096  # events of trusted estimates, from which their spread is read
NORMAL_COST = 60  # operations of one normal: ten Philox rounds and Box-Muller, about


def ours_external(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N(0, I) in NumPy, on the ``(S, B, d)`` that :func:`reparam.elbo` hands out."""
    log_prob = -0.5 * np.einsum("...i,...i->...", value, value) - value.shape[-1] * HALF_LOG_2PI
    return log_prob.astype(value.dtype, copy=False), -value


def our_target(kind: str, data: tuple[np.ndarray, ...]) -> Any:
    """What :func:`reparam.elbo` takes."""
    if kind == "external":
        return ours_external
    if kind == "linear-gaussian":
        return rp.targets.LinearGaussian(*data, noise_scale=NOISE_SCALE)
    return rp.targets.GLM(*data, family="logistic", prior_scale=PRIOR_SCALE)


def ours(kind: str, draws: int, scale: str) -> Callable[..., Callable[[], Any]]:
    """``rp.elbo`` with a new key every call."""

    def build(loc: np.ndarray, factor: np.ndarray, *data: np.ndarray) -> Callable[[], Any]:
        if scale == "diagonal":
            q: Any = rp.MultivariateNormalDiag(loc, factor)
        elif scale == "packed":
            q = rp.MultivariateNormal(loc, scale_tril=factor[(..., *np.tril_indices(loc.shape[-1]))], packed=True)
        else:
            q = rp.MultivariateNormal(loc, scale_tril=factor)
        target, keys = our_target(kind, data), itertools.count()

        def run() -> Any:
            estimate = rp.elbo(q, target, key=next(keys), num_samples=draws)
            gradient = estimate.grad.scale_diag if scale == "diagonal" else estimate.grad.scale_tril
            return estimate.value, estimate.grad.loc, gradient

        return run

    return build


def unpacked(result: Any) -> tuple[np.ndarray, ...]:
    """The answer with the gradient's triangle as a matrix."""
    value, ct_loc, triangle = result
    d = ct_loc.shape[-1]
    ct_factor = np.zeros((len(ct_loc), d, d), ct_loc.dtype)
    ct_factor[(..., *np.tril_indices(d))] = triangle
    return value, ct_loc, ct_factor


def lower(result: Any) -> tuple[np.ndarray, ...]:
    """The answer of autograd, which differentiates with respect to what stands above the diagonal, too."""
    value, ct_loc, ct_scale = flat(result)
    return value, ct_loc, np.tril(ct_scale) if ct_scale.ndim == 3 else ct_scale


def data_of(kind: str, rng: np.random.Generator, batch: int, d: int, n: int, dtype: str) -> tuple[np.ndarray, ...]:
    """The operands of a target."""
    if kind == "linear-gaussian":
        weight = rng.standard_normal((n, d), dtype=dtype) / np.asarray(math.sqrt(d), dtype)
        return rng.standard_normal((batch, n), dtype=dtype), weight, rng.standard_normal(n, dtype=dtype)
    if kind == "glm":
        features = rng.standard_normal((batch, n, d), dtype=dtype)
        return features, (rng.random((batch, n)) < 0.5).astype(dtype)
    return ()


def estimate(kind: str, size: tuple[int, int, int], dtype: str, scale: str, limit: int) -> Row:
    """One ELBO with its gradient."""
    nominal, draws, d = size
    batch, (formula, expected) = min(nominal, limit), TARGETS[kind]

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        loc = 0.5 * rng.standard_normal((batch, d), dtype=dtype)
        factor = np.asarray(0.3, dtype) * factors(rng, batch, d, dtype)
        if scale == "diagonal":
            factor = np.ascontiguousarray(np.diagonal(factor, axis1=-2, axis2=-1))
        return loc, factor, *data_of(kind, rng, batch, d, OBSERVED, dtype)

    def reference(*inputs: np.ndarray) -> Any:
        run = elbo_rivals.numpy_by_hand(formula, draws)(*(x.astype(np.float64) for x in inputs))
        return expectations.elbo(expected, *inputs), [run() for _ in range(math.ceil(TRUSTED / batch))]

    contestants = [
        Contestant("reparam", "ours", ours(kind, draws, scale), unpacked if scale == "packed" else None),
        Contestant("torch", "library", elbo_rivals.torch_library(formula, draws), lower),
        Contestant("torch", "by hand", elbo_rivals.torch_by_hand(formula, draws)),
        Contestant("jax", "library", elbo_rivals.jax_library(formula, draws), lower),
        Contestant("jax", "by hand", elbo_rivals.jax_by_hand(formula, draws)),
        Contestant("numpy", "by hand", elbo_rivals.numpy_by_hand(formula, draws)),
    ]
    own_data = {"external": 0, "linear-gaussian": OBSERVED, "glm": OBSERVED * (d + 1)}[kind]
    of_target = {"external": 3 * d, "linear-gaussian": 4 * OBSERVED * d, "glm": 4 * OBSERVED * (d + 10)}[kind]
    of_scale = 2 * d * d if scale != "diagonal" else 4 * d
    stored = {"dense": 2 * d * d, "packed": d * (d + 1), "diagonal": 2 * d}[scale]
    return Row(
        op=f"elbo-{kind}",
        size=f"{scale} d={d} S={draws} B={nominal}",
        dtype=dtype,
        regime="-",
        batch=batch,
        make=make,
        contestants=tuple(contestants),
        flops=batch * draws * (of_scale + of_target + NORMAL_COST * d),
        bytes=batch * (stored + 2 * d + 1 + own_data) * items(dtype),
        roof="fma",
        targets=(*ratio(5 if draws == 1 else 3), Target("library", 15)),
        check="random",
        reference=reference,
        quick=dtype == "float32" and d == 16 and (scale == "dense" or kind == "glm"),
    )


def inference(op: str, limit: int) -> Row:
    """A batch of logistic regressions: one step of ascent, or a whole run to the same accuracy."""
    batch = min(PROBLEMS, limit)

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        features, _ = data_of("glm", rng, batch, COEFFICIENTS, POINTS, "float32")
        z = rng.standard_normal((batch, COEFFICIENTS, 1), dtype="float32")
        y = rng.random((batch, POINTS)) < 1 / (1 + np.exp(-(features @ z)[..., 0]))
        return features, y.astype("float32")

    def reference(features: np.ndarray, y: np.ndarray, loc: np.ndarray, factor: np.ndarray) -> np.ndarray:
        return expectations.elbo(expectations.logistic, loc, factor, features, y)[0]

    whole = op == "vi-run"
    builds = vi_rivals.RUNS if whole else vi_rivals.STEPS
    forms = {"reparam": "ours"}
    return Row(
        op=op,
        size=f"n={POINTS} d={COEFFICIENTS} S={DRAWS} B={PROBLEMS}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=make,
        contestants=tuple(
            Contestant(name, forms.get(name, "by hand"), build, vi_rivals.answer(name))
            for name, build in builds.items()
        ),
        targets=ratio(20) if whole else (),
        check="accurate" if whole else "progress",
        reference=reference,
        bytes=batch * 4 * (POINTS * (COEFFICIENTS + 1) + 2 * COEFFICIENTS**2),
        quick=not whole,
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` events each."""
    made = [estimate(kind, size, dtype, "dense", limit) for dtype in DTYPES for kind in TARGETS for size in SIZES]
    made += [estimate("glm", size, "float32", scale, limit) for scale in ("packed", "diagonal") for size in SIZES]
    made += [estimate("external", SIZES[1], "float32", scale, limit) for scale in ("packed", "diagonal")]
    return [*made, inference("vi-step", limit), inference("vi-run", limit)]
