# SPDX-License-Identifier: MIT
"""Rows inside a framework: its own arrays in, gradients out, its class beside ours of the same name."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import rivals, work_density
from .row import NO_LIMIT, Contestant, Row, Target, batch_for, covariances, items, lower_bytes
from .work_density import NAMED_BOTH, by_hand, own_inputs, own_reference_both

FEW = (8, 4)  # events and dim of a call that is all overhead


def torch_class(value: Any, loc: Any, factor: Any) -> Any:
    """Torch's, with the one line changed."""
    import reparam.torch

    return reparam.torch.MultivariateNormal(loc, scale_tril=factor, validate_args=False).log_prob(value)


def torch_covariance(value: Any, loc: Any, covariance: Any) -> Any:
    """As users write it, from a covariance."""
    import torch

    return torch.distributions.MultivariateNormal(loc, covariance, validate_args=False).log_prob(value)


def torch_class_covariance(value: Any, loc: Any, covariance: Any) -> Any:
    """The same with the one line changed."""
    import reparam.torch

    return reparam.torch.MultivariateNormal(loc, covariance, validate_args=False).log_prob(value)


def numpyro_distribution(value: Any, loc: Any, factor: Any) -> Any:
    """As users write it."""
    import numpyro.distributions as dist

    return dist.MultivariateNormal(loc, scale_tril=factor).log_prob(value)


def numpyro_class(value: Any, loc: Any, factor: Any) -> Any:
    """NumPyro's, with the one line changed."""
    import reparam.numpyro

    return reparam.numpyro.MultivariateNormal(loc, scale_tril=factor).log_prob(value)


IN_TORCH = (
    Contestant("reparam", "in torch", rivals.torch_grad(torch_class), inside="torch"),
    Contestant("torch", "library", rivals.torch_grad(work_density.torch_distribution)),
)
IN_JAX = (
    Contestant("reparam", "in jax", rivals.jax_grad(numpyro_class), inside="jax"),
    Contestant("numpyro", "library", rivals.jax_grad(numpyro_distribution)),
)


def density(framework: str, d: int, batch: int, limit: int) -> Row:
    """A log density with its gradient, each event with its own loc and factor."""
    named, batch = batch, min(batch, limit)
    small = (named, d) == FEW
    in_torch = framework == "torch"
    experts = [who for who in by_hand("log_prob_and_gradient", numpy_too=False) if who.library == framework]
    library, expert = ("torch", "torch by hand") if in_torch else ("numpyro", "jax by hand")
    return Row(
        op=f"log_prob+vjp-in-{framework}",
        size=f"d={d} B={named}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=own_inputs(batch, d, "float32"),
        contestants=(*(IN_TORCH if in_torch else IN_JAX), *(() if small else experts)),
        flops=batch * 3 * d * d,
        bytes=batch * ((4 * d + 1 + d * d) * items("float32") + lower_bytes(d, "float32")),
        roof="fma",
        targets=(Target(library, 1),) if small else _targets(in_torch, library, expert),
        reference=own_reference_both,
        quick=small or d == 16,
        needs=framework if in_torch else "numpyro",
    )


def _targets(in_torch: bool, library: str, expert: str) -> tuple[Target, ...]:
    return (Target(library, 15), Target(expert, 10)) if in_torch else (Target(library, 10),)


def covariance(d: int, dtype: str, limit: int) -> Row:
    """From a covariance to the log density, and its gradient in that."""
    batch = batch_for("R", (2 * d * d + 4 * d) * items(dtype), limit)

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        value, loc = rng.standard_normal((2, batch, d), dtype=dtype)
        return value, loc, covariances(rng, batch, d, dtype)

    return Row(
        op="log_prob-of-covariance+vjp-in-torch",
        size=f"d={d}",
        dtype=dtype,
        regime="R",
        batch=batch,
        make=make,
        contestants=(
            Contestant("reparam", "in torch", rivals.torch_grad(torch_class_covariance), inside="torch"),
            Contestant("torch", "library", rivals.torch_grad(torch_covariance)),
        ),
        flops=batch * (d**3 + 3 * d * d),
        bytes=batch * 2 * d * d * items(dtype),
        roof="fma",
        condition=100.0,
        quick=d == 16,
        needs="torch",
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` events each."""
    sizes = [*NAMED_BOTH, FEW[::-1]]
    made = [density(framework, d, batch, limit) for framework in ("torch", "jax") for d, batch in sizes]
    return made + [covariance(d, "float32", limit) for d in (8, 16, 32)]
