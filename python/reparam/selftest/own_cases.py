# SPDX-License-Identifier: MIT
"""Problems of the ops that the accuracy report measures in ways of their own: Cholesky, solves, Adam and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reparam as rp

from .._op import Op
from . import GOLDEN, exact, first_normals, measures, words
from .cases import COMPLEX, LARGEST, Case, Lanes, Problem, Sizes, lanes
from .measures import EVENTS
from .problems import UNIT, exact_cotangents

Array = NDArray[Any]
CONDITIONS = {"float32": (1e1, 1e2, 1e3, 1e4, 1e5), "float64": (1e1, 1e3, 1e5, 1e7, 1e9, 1e10)}  # of A
MODERATE = (1e1, 1e3, 1e5)


# ---- Cholesky


def _matrices(sizes: Sizes, dtype: str) -> Iterator[tuple[str, int, Array]]:
    """LAPACK's matrices, and the info of each: 0, or the number of its row of zeros."""
    for d in sizes:
        for kind in range(1, 10):
            a = measures.lapack_matrices(kind, np.random.default_rng([d, kind]), d, dtype)
            info = measures.ZERO_ROW[kind](d) + 1 if kind in measures.ZERO_ROW else 0
            yield f"d = {d}, type {kind}", info, a


def of_cholesky(_: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Residuals of the factors of matrices that are not singular."""
    for where, info, a in _matrices(sizes, dtype):
        if not info:
            yield Case(where, partial(_cholesky_errors, a))


def _cholesky_errors(a: Array) -> Array:
    return measures.cholesky_residual(a, rp.cholesky_ex(a).scale_tril)


def of_info(_: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Failures that are not told, or told wrongly."""
    for where, info, a in _matrices(sizes, dtype):
        yield Case(where, partial(_info_errors, a, info))


def _info_errors(a: Array, info: int) -> int:
    result = rp.cholesky_ex(a)
    lower = result.scale_tril[:, *np.tril_indices(a.shape[-1])]
    kept = np.isnan(lower).all(axis=1) if info else np.isfinite(lower).all(axis=1)
    return int(np.count_nonzero((result.info != info) | ~kept))


def of_cholesky_vjp(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Relative errors over cond(A) u."""
    for condition in CONDITIONS[dtype]:
        for where, errors in _graded(op, sizes, dtype, condition):
            yield Case(where, partial(errors, condition * UNIT[dtype]))


def of_cholesky_vjp_at_moderate_condition(op: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Relative errors themselves."""
    for condition in MODERATE:
        for where, errors in _graded(op, sizes, dtype, condition):
            yield Case(where, partial(errors, 1.0))


def _graded(op: Op, sizes: Sizes, dtype: str, condition: float) -> Iterator[tuple[str, Callable[[float], Array]]]:
    """Matrices of one condition: the errors of their cotangents over a scale."""
    for d in (d for d in sizes if d <= LARGEST):
        rng = np.random.default_rng([d, int(condition)])
        p = Problem(f"d = {d}, condition {condition:g}", d, {}, [measures.spd(rng, EVENTS, d, condition).astype(dtype)])
        at, ct = lanes(op, p), np.tril(rng.standard_normal((EVENTS, d, d))).astype(dtype)
        few = at.exact.inputs
        wanted = exact_cotangents(op, few, [ct[: len(few[0])]], d, {}, COMPLEX[dtype])
        yield p.where, partial(_cholesky_vjp_errors, [*p.inputs, ct], at, wanted)


def _cholesky_vjp_errors(arrays: list[Array], at: Lanes, wanted: list[Array], scale: float) -> Array:
    a, ct = at.of(arrays)
    ((found, exact_ct),) = at.beside([rp.cholesky_ex.vjp(rp.cholesky(a), ct)], wanted)
    return measures.relative_error(found, exact_ct) / scale


# ---- solves


def of_solve(_: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Residuals of both triangular systems."""
    for d in sizes:
        rng = np.random.default_rng(d)
        factors, b = measures.factors(rng, d, dtype), rng.standard_normal((EVENTS, d)).astype(dtype)
        for transpose in (False, True):
            yield Case(f"d = {d}, transpose = {transpose}", partial(_solve_errors, factors, b, transpose))


def _solve_errors(factors: Array, b: Array, transpose: bool) -> Array:
    matrix = factors.swapaxes(-1, -2) if transpose else factors
    return measures.product_residual(b, matrix, rp.tril_solve(factors, b, transpose=transpose))


# ---- Adam

ADAM_STEPS = {0.01: 1000, 0.0: 100}  # by weight decay


def of_adam(_: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Every step with and without weight decay."""
    for weight_decay, steps in ADAM_STEPS.items():
        yield Case(f"weight_decay = {weight_decay:g}", partial(_adam_errors, dtype, weight_decay, steps))


def _adam_errors(dtype: str, weight_decay: float, steps: int) -> list[float]:
    return list(exact.adam_errors(dtype, np.random.default_rng(0), weight_decay, steps).values())


# ---- noise

STREAMS, NUMBERS, PAIRS = 37, 33, 500
KEY = 2**40 + 17


def of_words(op: Op, _: Sizes, dtype: str) -> Iterator[Case]:
    """Known answers of Philox, and its definition at random addresses."""
    yield Case("known answers", lambda: measures.different(words(), np.array(GOLDEN["Philox words"], np.uint32)))
    yield _against_the_definition(op, dtype)


def of_noise(op: Op, _: Sizes, dtype: str) -> Iterator[Case]:
    """The first four normals of a key, and the definition at random addresses."""
    yield Case("known answers", lambda: measures.different(*first_normals(dtype)))
    yield _against_the_definition(op, dtype)


def _against_the_definition(op: Op, dtype: str) -> Case:
    rng = np.random.default_rng(0)
    addresses = [rng.integers(0, 2**62, STREAMS, dtype=np.uint64) * np.uint64(4) for _ in range(2)]
    settings = {"n": NUMBERS, "dtype": dtype, "key_low": KEY & 0xFFFFFFFF, "key_high": KEY >> 32}
    with rp.backend("reference"):
        expected = op(*addresses, **settings)
    return Case("random addresses", lambda: measures.different(op(*addresses, **settings), expected), ("reference",))


def of_noise_in_ulps(_: Op, sizes: Sizes, dtype: str) -> Iterator[Case]:
    """Against the exact transform of the rounded u1 and angle."""
    count = 2 if dtype == "float32" else 4
    with rp.backend("reference"):
        drawn = rp.random.bits(count * PAIRS, key=KEY).reshape(PAIRS, count).tolist()
    wanted = [z for w in drawn for z in exact.normals(w, dtype)]
    yield Case(f"{PAIRS} pairs", partial(_noise_errors, wanted, dtype))


def _noise_errors(wanted: list[Any], dtype: str) -> float:
    return exact.ulps(rp.random.normal(2 * PAIRS, key=KEY, dtype=dtype), wanted, [float(z) for z in wanted], dtype)
