# SPDX-License-Identifier: MIT
"""Rows of densities, solves and transforms, with own factors, diagonal and scalar scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import reparam as rp

from . import formulas, in_place, rivals
from .row import DTYPES, NO_LIMIT, Contestant, Row, Target, batch_for, factors, items, lower_bytes, ratio, recycled

#: Sizes of the published table: (d, batch).
NAMED_FORWARD = [(8, 50_000), (16, 20_000), (32, 5000), (64, 1000)]
NAMED_BOTH = [(8, 50_000), (16, 20_000), (32, 5000)]
UNROLLED = 8
CHECKED = 1000


def torch_distribution(value: Any, loc: Any, factor: Any) -> Any:
    """As users write it."""
    import torch

    return torch.distributions.MultivariateNormal(loc, scale_tril=factor, validate_args=False).log_prob(value)


def torch_normal(value: Any, loc: Any, scale: Any) -> Any:
    """As users write it."""
    import torch

    return torch.distributions.Normal(loc, scale, validate_args=False).log_prob(value)


def torch_diagonal(value: Any, loc: Any, scale: Any) -> Any:
    """As users write it."""
    import torch

    normal = torch.distributions.Normal(loc, scale, validate_args=False)
    return torch.distributions.Independent(normal, 1, validate_args=False).log_prob(value)


def own_reference(value: np.ndarray, loc: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the first events, in float64, by the general solve."""
    value, loc, factor = (x[:CHECKED].astype(np.float64) for x in (value, loc, factor))
    y = np.linalg.solve(factor, (value - loc)[..., None])[..., 0]
    diagonal = np.diagonal(factor, axis1=-2, axis2=-1)
    return (-0.5 * (y**2).sum(-1) - np.log(diagonal).sum(-1) - value.shape[-1] * formulas.HALF_LOG_2PI,)


def own_reference_both(value: np.ndarray, loc: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same with the gradients."""
    wide = [x[:CHECKED].astype(np.float64) for x in (value, loc, factor)]
    y = np.linalg.solve(wide[2], (wide[0] - wide[1])[..., None])
    z = np.linalg.solve(wide[2].swapaxes(-1, -2), y)
    ct_factor = np.tril(z @ y.swapaxes(-1, -2))
    i = np.arange(value.shape[-1])
    ct_factor[:, i, i] -= 1 / wide[2][:, i, i]
    return *own_reference(value, loc, factor), -z[..., 0], z[..., 0], ct_factor


def with_ones(op: Any) -> Callable[..., Callable[[], Any]]:
    """Ours, value and gradients in one call, outputs recycled."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        ones = np.ones_like(op(*inputs))
        return recycled(op.value_and_vjp)(*inputs, ones)

    return build


def by_hand(name: str, numpy_too: bool = True) -> list[Contestant]:
    """One formula in each library; JAX compiles it, which is the best it can have."""
    kept, compiled = getattr(in_place, name), getattr(formulas, name)
    made = [Contestant("torch", "by hand", in_place.in_torch(kept))]
    made.append(Contestant("jax", "by hand", rivals.jax_calls(compiled)))
    if numpy_too:
        made.append(Contestant("numpy", "by hand", in_place.in_numpy(kept)))
    return made


def own_inputs(batch: int, d: int, dtype: str) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """Each event with its own loc and factor."""

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        value, loc = rng.standard_normal((2, batch, d), dtype=dtype)
        return value, loc, factors(rng, batch, d, dtype)

    return make


def scale_inputs(shape: tuple[int, ...], dtype: str) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    """Value or noise, loc, and positive scales."""

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        value, loc = rng.standard_normal((2, *shape), dtype=dtype)
        return value, loc, 0.5 + rng.random(shape, dtype=dtype)

    return make


def own(op: str, d: int, dtype: str, regime: str, limit: int, named: int = 0) -> Row:
    """A row of one of the ops with own factors."""
    numbers, written, flops = {  # beside the factor that is read; full matrices that are written; operations
        "tril_solve": (2 * d, 0, d * d),
        "log_prob": (2 * d + 1, 0, d * d),
        "log_prob+vjp": (4 * d + 1, 1, 3 * d * d),
        "transform": (3 * d, 0, d * d),
        "transform_and_log_prob": (3 * d + 1, 0, d * d),
    }[op]
    rest = (numbers + written * d * d) * items(dtype)
    event = rest + lower_bytes(d, dtype)
    room = rest + d * d * items(dtype) if regime == "R" else event  # the caches have to hold all of it
    batch = min(named, limit) if named else batch_for(regime, room, limit)
    ours = {
        "tril_solve": recycled(lambda b, _, factor, out: rp.tril_solve(factor, b, out=out)),
        "log_prob": recycled(rp.normal_tril_log_prob),
        "log_prob+vjp": with_ones(rp.normal_tril_log_prob),
        "transform": recycled(rp.normal_tril_transform),
        "transform_and_log_prob": recycled(rp.normal_tril_transform_and_log_prob),
    }[op]
    return Row(
        op=op,
        size=f"d={d} B={named}" if named else f"d={d}",
        dtype=dtype,
        regime=regime,
        batch=batch,
        make=own_inputs(batch, d, dtype),
        contestants=(Contestant("reparam", "ours", ours), *_own_rivals(op, d)),
        flops=batch * flops,
        bytes=batch * event,
        roof=("read" if op == "log_prob" else "copy") if regime == "M" else "fma",
        moves="read" if op == "log_prob" else "copy",
        targets=_own_targets(op, d, regime),
        reference={"log_prob": own_reference, "log_prob+vjp": own_reference_both}.get(op),
        quick=dtype == "float32" and ((regime == "R" and d in (8, 32)) or (op, d, regime) == ("log_prob+vjp", 8, "M")),
    )


def _own_targets(op: str, d: int, regime: str) -> tuple[Target, ...]:
    if d > 32:
        return ()
    if op == "log_prob":
        return ratio(8)
    if op == "log_prob+vjp":
        return (*ratio(15), *([Target("copy", 0.8)] if regime == "M" else []))
    return ()


def _own_rivals(op: str, d: int) -> Sequence[Contestant]:
    if op == "tril_solve":
        return by_hand("tril_solve", numpy_too=False)
    if op == "transform":
        return [*by_hand("transform"), Contestant("torch", "baddbmm", in_place.in_torch(torch_baddbmm))]
    if op == "transform_and_log_prob":
        return by_hand("transform_and_log_prob")
    if op == "log_prob":
        made = [Contestant("torch", "library", rivals.torch_calls(torch_distribution))]
        made += by_hand("log_prob", numpy_too=False)
        unrolled = formulas.unrolled_log_prob
    else:
        made = [
            Contestant("torch", "library", rivals.torch_grad(torch_distribution)),
            Contestant("jax", "library", rivals.jax_grad(formulas.log_prob)),
            *by_hand("log_prob_and_gradient", numpy_too=False),
        ]
        unrolled = formulas.unrolled_log_prob_and_gradient
    if d <= UNROLLED:
        made.append(Contestant("jax", "unrolled", rivals.jax_calls(rivals.batch_last(unrolled))))
    return made


def torch_baddbmm(torch: Any, noise: Any, loc: Any, factor: Any) -> Callable[[], Any]:
    """One call that adds and multiplies."""
    z = torch.empty_like(noise)[..., None]
    return lambda: torch.baddbmm(loc[..., None], factor, noise[..., None], out=z)[..., 0]


def scales(op: str, d: int | None, batch: int, dtype: str, limit: int) -> Row:
    """A row of the diagonal family, or of scalars where ``d`` is None."""
    nominal, batch = batch, min(batch, limit)
    kind = "scalar" if d is None else "diag"
    shape, family = ((batch,), "normal") if d is None else ((batch, d), "normal_diag")
    gradient = op == "log_prob+vjp"
    if gradient:
        contestants = [
            Contestant("reparam", "ours", with_ones(getattr(rp, f"{family}_log_prob"))),
            Contestant("torch", "library", rivals.torch_grad(torch_normal if d is None else torch_diagonal)),
            *by_hand(f"{kind}_log_prob_and_gradient"),
        ]
    else:
        ours = recycled(getattr(rp, f"{family}_transform_and_log_prob"))
        contestants = [Contestant("reparam", "ours", ours), *by_hand(f"{kind}_transform_and_log_prob")]
    size = (6 if gradient else 4) * int(np.prod(shape)) * items(dtype) + batch * items(dtype)
    return Row(
        op=f"{op}-{kind}",
        size=f"B={nominal}" if d is None else f"d={d} B={nominal}",
        dtype=dtype,
        regime="-",
        batch=batch,
        make=scale_inputs(shape, dtype),
        contestants=tuple(contestants),
        flops=8 * float(np.prod(shape)),
        bytes=size,
        roof="copy",
        quick=dtype == "float32" and d in (None, 16),
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` events each."""
    made = []
    for dtype in DTYPES:
        for op in ("log_prob", "log_prob+vjp"):
            made += [own(op, d, dtype, "R", limit) for d in (2, 4, 8, 16, 32, 64, 128)]
            made += [own(op, d, dtype, "M", limit) for d in (4, 8, 16, 32, 64)]
        made += [own("tril_solve", d, dtype, "R", limit) for d in (4, 8, 16, 32, 64)]
        for op in ("transform", "transform_and_log_prob"):
            made += [own(op, d, dtype, "R", limit) for d in (8, 32)]
        for op in ("log_prob+vjp", "transform_and_log_prob"):
            made += [scales(op, d, batch, dtype, limit) for d, batch in ((16, 100_000), (None, 1_000_000))]
    made += [own("log_prob", d, "float32", "-", limit, batch) for d, batch in NAMED_FORWARD]
    made += [own("log_prob+vjp", d, "float32", "-", limit, batch) for d, batch in NAMED_BOTH]
    return made
