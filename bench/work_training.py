# SPDX-License-Identifier: MIT
"""Rows of the optimizer and of a whole training step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from . import expectations, rivals, vae_rivals
from .row import NO_LIMIT, Contestant, Row, Target, ratio

ADAM_SIZES = (10_000, 1_000_000, 10_000_000)
ADAM_BYTES = 28  # of a parameter: parameter, gradient and two moments read, three of them written
IN_MEMORY = 5_000_000  # parameters
RATE = 1e-3
WEIGHTS = 8  # arrays of two nets with one hidden layer
#: (data, hidden, latent, batch, trials of each entry, target against the fastest rival)
NETS = [(64, 128, 8, 128, 16, 1.3), (784, 256, 16, 128, 1, 1.3), (784, 400, 20, 512, 1, 1.1)]


# ---- Adam on one flat array


def our_adam(param: np.ndarray, grad: np.ndarray) -> Callable[[], Any]:
    mine = param.copy()
    optimizer = rp.optim.Adam(mine, lr=RATE)

    def run() -> np.ndarray:
        optimizer.step(grad)
        return mine

    return run


def numpy_adam(param: np.ndarray, grad: np.ndarray) -> Callable[[], Any]:
    """In place, with one array of scratch."""
    mine, m, v, scratch = param.copy(), np.zeros_like(param), np.zeros_like(param), np.empty_like(param)
    t = 0

    def run() -> np.ndarray:
        nonlocal t
        t += 1
        np.multiply(m, 0.9, out=m)
        np.multiply(grad, 0.1, out=scratch)
        np.add(m, scratch, out=m)
        np.multiply(v, 0.999, out=v)
        np.multiply(grad, grad, out=scratch)
        np.multiply(scratch, 0.001, out=scratch)
        np.add(v, scratch, out=v)
        np.multiply(v, 1 / (1 - 0.999**t), out=scratch)
        np.sqrt(scratch, out=scratch)
        np.add(scratch, 1e-8, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, RATE / (1 - 0.9**t), out=scratch)
        np.subtract(mine, scratch, out=mine)
        return mine

    return run


def torch_adam(**how: bool) -> Callable[..., Callable[[], Any]]:
    """One of the ways that torch has to do it."""

    def build(param: np.ndarray, grad: np.ndarray) -> Callable[[], Any]:
        import torch

        mine, given = rivals.tensors([param.copy(), grad])
        mine.requires_grad_().grad = given
        optimizer = torch.optim.Adam([mine], lr=RATE, **how)

        def run() -> Any:
            optimizer.step()
            return mine

        return run

    return build


def jax_adam(param: np.ndarray, grad: np.ndarray) -> Callable[[], Any]:
    """Under jit, parameters and moments donated."""
    import jax
    import jax.numpy as jnp

    def step(p: Any, m: Any, v: Any, t: Any, g: Any) -> Any:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        scale = jnp.sqrt(v / (1 - jnp.float32(0.999) ** t)) + 1e-8
        return p - RATE / (1 - jnp.float32(0.9) ** t) * m / scale, m, v

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    start, given = rivals.jax_arrays([param, grad])
    state = [jnp.array(start), jnp.zeros_like(start), jnp.zeros_like(start)]
    t = 0

    def run() -> Any:
        nonlocal t
        t += 1
        state[:] = jax.block_until_ready(compiled(*state, t, given))
        return state[0]

    return run


def adam(size: int, limit: int) -> Row:
    batch = min(size, limit)

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        param, grad = rng.standard_normal((2, batch), dtype="float32")
        return param, grad

    return Row(
        op="adam",
        size=f"B={size}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=make,
        contestants=(
            Contestant("reparam", "ours", our_adam),
            Contestant("torch", "library", torch_adam()),
            Contestant("torch", "foreach", torch_adam(foreach=True)),
            Contestant("torch", "fused", torch_adam(fused=True)),
            Contestant("numpy", "by hand", numpy_adam),
            Contestant("jax", "by hand", jax_adam),
        ),
        flops=15 * batch,
        bytes=ADAM_BYTES * batch,
        roof="update" if size >= IN_MEMORY else None,
        moves="update",
        targets=_adam_targets(size),
        quick=size == 1_000_000,
    )


def _adam_targets(size: int) -> tuple[Target, ...]:
    if size < 100_000:
        return (Target("torch", 5),)
    return (Target("torch", 3), *([Target("update", 0.9)] if size >= IN_MEMORY else []))


# ---- a step of a VAE


def vae(net: tuple[int, int, int, int, int, float], full: bool, limit: int) -> Row:
    data, hidden, latent, nominal, count, target = net
    batch = min(nominal, limit)

    def make(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        # Each row has its own mean, or all would have nearly one ELBO, and rows in a wrong order would look right.
        x = rng.binomial(count, 0.05 + 0.4 * rng.random((batch, 1)), (batch, data)).astype(np.float32)
        return x, *vae_rivals.start(rng, data, hidden, latent, full)

    def build(step: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
        return functools.partial(step, count=count, full=full)

    def reference(x: np.ndarray, *given: np.ndarray) -> Any:
        return expectations.vae(x, count, *given[WEIGHTS:])

    first, last = data * hidden, hidden * data
    weights = first + hidden * (latent + vae_rivals.outputs(latent, full)) + latent * hidden + last
    return Row(
        op="vae-step",
        size=f"{data}-{hidden}-{latent} {'full' if full else 'diagonal'} B={nominal}",
        dtype="float32",
        regime="-",
        batch=batch,
        make=make,
        contestants=(
            Contestant("reparam", "ours", build(vae_rivals.our_step), vae_rivals.looked, blas=True),
            Contestant("torch", "library", build(vae_rivals.torch_step), vae_rivals.looked),
            Contestant("jax", "by hand", build(vae_rivals.jax_step), vae_rivals.looked),
        ),
        flops=batch * (6 * weights - 2 * first),  # nobody needs the gradient in the data
        bytes=4 * (batch * data + 7 * weights),
        roof="fma",
        targets=ratio(target) if full else (),
        check="training",
        reference=reference,
        quick=latent == 16 or (latent == 8 and full),
    )


def rows(limit: int = NO_LIMIT) -> list[Row]:
    """The rows of this module, with at most ``limit`` parameters or data rows each."""
    made = [adam(size, limit) for size in ADAM_SIZES]
    return made + [vae(net, full, limit) for net in NETS for full in (False, True)]
