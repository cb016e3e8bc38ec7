# SPDX-License-Identifier: MIT
"""Rows of the Cholesky factor, its vjp, and the fallback on Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import in_place, mkl_compact, rivals
from .row import (
    DTYPES,
    NO_LIMIT,
    Contestant,
    Row,
    Target,
    batch_for,
    covariances,
    factors,
    items,
    lower_bytes,
    ratio,
    recycled,
)

FORWARD = {
    "float32": {4: 40, 8: 35, 16: 30, 32: 15, 64: 8, 128: 6},
    "float64": {4: 25, 8: 20, 16: 15, 32: 10, 64: 6, 128: 5},
}
#: Sizes of the published table: (d, batch, dtype).
NAMED = [
    (4, 100_000, "float32"), (8, 100_000, "float32"), (16, 20_000, "float32"), (32, 20_000, "float32"),
    (64, 4000, "float32"), (128, 1000, "float32"), (8, 100_000, "float64"),
]  # fmt: skip
UNROLLED = 8  # the largest d that is written out by hand
SCIPY_FROM = 64  # SciPy loops over the batch in Python
CHECKED = 1000  # events that float64 NumPy answers


# ---- forward


def numpy_cholesky(a: np.ndarray) -> Any:
    return np.linalg.cholesky(a)


def scipy_cholesky(a: np.ndarray) -> Callable[[], Any]:
    import scipy.linalg

    out = np.empty_like(a)

    def run() -> np.ndarray:
        for k, matrix in enumerate(a):
            out[k] = scipy.linalg.cholesky(matrix, lower=True, check_finite=False)
        return out

    return run


def torch_cholesky(a: np.ndarray) -> Callable[[], Any]:
    import torch

    (tensor,) = rivals.tensors([a])
    out = torch.empty_like(tensor)
    return lambda: torch.linalg.cholesky(tensor, out=out)


def jax_cholesky(a: Any) -> Any:
    import jax.numpy as jnp

    return jnp.linalg.cholesky(a)


def jax_unrolled(a: Any) -> Any:
    """Every entry by itself, over the batch in the last dim."""
    import jax.numpy as jnp

    d = a.shape[0]
    entries: dict[tuple[int, int], Any] = {}
    for j in range(d):
        pivot = jnp.sqrt(a[j, j] - sum(entries[j, k] ** 2 for k in range(j)))
        inverse = 1 / pivot
        entries[j, j] = pivot
        for i in range(j + 1, d):
            entries[i, j] = (a[i, j] - sum(entries[i, k] * entries[j, k] for k in range(j))) * inverse
    zero = jnp.zeros_like(a[0, 0])
    return jnp.stack([jnp.stack([entries.get((i, j), zero) for j in range(d)]) for i in range(d)])


def reference(a: np.ndarray) -> tuple[np.ndarray, ...]:
    return (np.linalg.cholesky(a[:CHECKED].astype(np.float64)),)


OURS = Contestant("reparam", "ours", recycled(rp.cholesky))
NUMPY = Contestant("numpy", "library", rivals.numpy_calls(numpy_cholesky))


def forward(d: int, batch: int, dtype: str, regime: str, named: bool, limit: int) -> Row:
    contestants = [
        OURS,
        NUMPY,
        Contestant("torch", "library", torch_cholesky),
        Contestant("jax", "library", rivals.jax_calls(jax_cholesky)),
    ]
    if d <= UNROLLED:
        contestants.append(Contestant("jax", "unrolled", rivals.jax_calls(rivals.batch_last(jax_unrolled))))
    contestants.append(Contestant("mkl", "compact", mkl_compact.cholesky, mkl_compact.lower))
    if d >= SCIPY_FROM:
        contestants.append(Contestant("scipy", "library", scipy_cholesky))
    nominal, batch = batch, min(batch, limit)
    targets = ratio(FORWARD[dtype][d]) if d in FORWARD[dtype] and regime == "R" else ()
    if regime == "M":
        targets = (Target("copy", 0.85),)
    elif d >= 32 and dtype == "float32" and regime == "R":
        targets = (*targets, Target("fma", 0.5))
    return Row(
        op="cholesky",
        size=f"d={d} B={nominal}" if named else f"d={d}",
        dtype=dtype,
        regime=regime,
        batch=batch,
        make=lambda rng: (covariances(rng, batch, d, dtype),),
        contestants=tuple(contestants),
        flops=batch * d**3 / 3,
        bytes=2 * batch * d * d * items(dtype),  # what the published target counts, though half of ``a`` is not read
        roof="copy" if regime == "M" else "fma",
        targets=targets,
        reference=reference,
        quick=dtype == "float32" and (regime == "R" and d in (4, 16, 64)),
    )


# ---- vjp: takes the factor and its cotangent


def torch_pull(factor: np.ndarray, ct: np.ndarray) -> Callable[[], Any]:
    """The backward pass of autograd alone."""
    import torch

    lower, cotangent = rivals.tensors([factor, ct])
    a = (lower @ lower.mT).requires_grad_()
    made = torch.linalg.cholesky(a)
    return lambda: torch.autograd.grad(made, a, cotangent, retain_graph=True)[0]


def pull_by_hand(xp: Any, factor: Any, ct: Any) -> Callable[[], Any]:
    """``L^-T phi(L^T ct) L^-1``, phi the lower triangle with half the diagonal (Murray, arXiv 1602.07527), in place.

    NumPy, which has no triangular solve, takes the factor's inverse.
    """
    upper = factor.swapaxes(-1, -2)
    phi, half, out = (xp.empty_like(factor) for _ in range(3))
    keep = xp.tril(xp.ones_like(factor[0]))
    keep *= 1 - 0.5 * xp.eye(len(keep), dtype=factor.dtype)

    def run() -> Any:
        xp.matmul(upper, ct, out=phi)
        xp.multiply(phi, keep, out=phi)
        if xp is np:
            inverse = np.linalg.inv(factor)
            np.matmul(inverse.swapaxes(-1, -2), phi, out=half)
            np.matmul(half, inverse, out=phi)
        else:
            xp.linalg.solve_triangular(upper, phi, upper=True, out=half)
            xp.linalg.solve_triangular(factor, half, upper=False, left=False, out=phi)
        xp.add(phi, phi.swapaxes(-1, -2), out=out)
        return xp.multiply(out, 0.5, out=out)

    return run


def jax_pull(factor: np.ndarray, ct: np.ndarray) -> Callable[[], Any]:
    """The backward pass alone: the forward's residuals are kept, as in a training step."""
    import jax
    import jax.numpy as jnp

    forward_and_pull = jax.jit(lambda a: jax.vjp(jnp.linalg.cholesky, a))
    a, cotangent = rivals.jax_arrays([factor @ factor.swapaxes(-1, -2), ct])
    _, pull = forward_and_pull(a)
    backward = jax.jit(lambda pull, ct: pull(ct))
    return lambda: jax.block_until_ready(backward(pull, cotangent))


def vjp(d: int, dtype: str, regime: str, limit: int) -> Row:
    event = d * d * items(dtype) + 2 * lower_bytes(d, dtype)
    batch = batch_for(regime, 3 * d * d * items(dtype) if regime == "R" else event, limit)
    target = 15 if d <= 32 else {64: 6, 128: 4}[d]

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return factors(rng, batch, d, dtype), np.tril(rng.standard_normal((batch, d, d), dtype=dtype))

    return Row(
        op="cholesky.vjp",
        size=f"d={d}",
        dtype=dtype,
        regime=regime,
        batch=batch,
        make=make,
        contestants=(
            Contestant("reparam", "ours", recycled(rp.cholesky.vjp)),
            Contestant("numpy", "by hand", in_place.in_numpy(pull_by_hand)),
            Contestant("torch", "library", torch_pull),
            Contestant("torch", "by hand", in_place.in_torch(pull_by_hand)),
            Contestant("jax", "library", jax_pull),
        ),
        flops=batch * 2 * d**3 / 3,
        bytes=batch * event,
        roof="copy" if regime == "M" else "fma",
        targets=ratio(target),
        condition=100.0,
        quick=dtype == "float32" and regime == "R" and d in (8, 32),
    )


# ---- without a compiler


def on_numba(a: np.ndarray) -> Callable[[], Any]:
    out = np.empty_like(a)

    def run() -> np.ndarray:
        with rp.backend("numba"):
            result: np.ndarray = rp.cholesky(a, out=out)
        return result

    return run


def fallback(d: int, dtype: str, limit: int) -> Row:
    batch = batch_for("R", 2 * d * d * items(dtype), limit)
    return Row(
        op="cholesky-on-numba",
        size=f"d={d}",
        dtype=dtype,
        regime="R",
        batch=batch,
        make=lambda rng: (covariances(rng, batch, d, dtype),),
        contestants=(Contestant("reparam", "ours", on_numba), NUMPY),
        flops=batch * d**3 / 3,
        bytes=2 * batch * d * d * items(dtype),
        targets=ratio({"float32": 3, "float64": 1.5}[dtype]),
        reference=reference,
        quick=dtype == "float32" and d == 8,
        needs="numba",
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` events each."""
    made = []
    for dtype in DTYPES:
        sizes = [(d, "R") for d in (2, 4, 8, 16, 32, 64, 128)] + [(d, "M") for d in (4, 8, 16, 32)]
        for d, regime in sizes:
            batch = batch_for(regime, 2 * d * d * items(dtype), limit)
            made.append(forward(d, batch, dtype, regime, False, limit))
    made += [forward(d, batch, dtype, "-", True, limit) for d, batch, dtype in NAMED]
    for dtype in DTYPES:
        made += [vjp(d, dtype, "R", limit) for d in (4, 8, 16, 32, 64, 128)]
        made += [vjp(d, dtype, "M", limit) for d in (4, 8, 16, 32)]
    return made + [fallback(d, dtype, limit) for dtype in DTYPES for d in (4, 8, 16)]
