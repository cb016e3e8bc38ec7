# SPDX-License-Identifier: MIT
"""One training step of the same VAE in torch and JAX: tanh nets, one hidden layer, one draw, closed-form entropy, Adam.

A step returns the ELBO of each row before the update, but for the constant that the likelihood does not need.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 1e-3


def outputs(latent: int, full: bool) -> int:
    """Numbers of the encoder's head beside loc."""
    return latent * (latent + 1) // 2 if full else latent


def torch_step(x: np.ndarray, count: int, hidden: int, latent: int, full: bool) -> Callable[[], Any]:
    """Eager, with the fused Adam."""
    import torch
    from torch.nn import Linear, Sequential, Tanh, functional

    torch.manual_seed(0)
    data, size = x.shape[1], outputs(latent, full)
    encoder = Sequential(Linear(data, hidden), Tanh(), Linear(hidden, latent + size))
    decoder = Sequential(Linear(latent, hidden), Tanh(), Linear(hidden, data))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE, fused=True)
    batch = torch.from_numpy(x)
    rows, columns = torch.tril_indices(latent, latent)
    on_diagonal = rows == columns

    def run() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loc, vector = encoder(batch).split([latent, size], dim=1)
        noise = torch.randn_like(loc)
        if full:
            factor = vector.new_zeros(len(x), latent, latent)
            factor[:, rows, columns] = torch.where(on_diagonal, vector.exp(), vector)
            z = torch.baddbmm(loc.unsqueeze(-1), factor, noise.unsqueeze(-1)).squeeze(-1)
            log_det = vector[:, on_diagonal].sum(1)
        else:
            z = loc + vector.exp() * noise
            log_det = vector.sum(1)
        logits = decoder(z)
        log_likelihood = (batch * logits - count * functional.softplus(logits)).sum(1)
        elbo = log_likelihood - 0.5 * z.square().sum(1) + log_det + 0.5 * latent
        (-elbo.mean()).backward()
        optimizer.step()
        return elbo.detach()

    return run


def jax_step(x: np.ndarray, count: int, hidden: int, latent: int, full: bool) -> Callable[[], Any]:
    """The whole step under one jit, parameters and moments donated, Adam by hand."""
    import jax
    import jax.numpy as jnp

    data, size = x.shape[1], outputs(latent, full)
    rows, columns = np.tril_indices(latent)
    place = np.full((latent, latent), size)  # behind the vector stands a zero
    place[rows, columns] = np.arange(len(rows)) if full else 0
    diagonal = place[np.arange(latent), np.arange(latent)]

    def linear(key: Any, inputs: int, features: int) -> Any:
        weight = jax.random.uniform(key, (inputs, features), jnp.float32, -1, 1) / np.sqrt(inputs)
        return weight.astype(jnp.float32), jnp.zeros(features, jnp.float32)

    def elbos(parameters: Any, batch: Any, noise: Any) -> Any:
        (w1, b1), (w2, b2), (w3, b3), (w4, b4) = parameters
        head = jnp.tanh(batch @ w1 + b1) @ w2 + b2
        loc, vector = head[:, :latent], head[:, latent:]
        if full:
            log_diagonal = vector[:, diagonal]
            strict = jnp.concatenate([vector, jnp.zeros((len(batch), 1), vector.dtype)], 1)[:, place]
            below = jnp.einsum("bij,bj->bi", jnp.tril(strict, -1), noise)
            z = loc + below + jnp.exp(log_diagonal) * noise
        else:
            log_diagonal = vector
            z = loc + jnp.exp(vector) * noise
        logits = jnp.tanh(z @ w3 + b3) @ w4 + b4
        log_likelihood = (batch * logits - count * jax.nn.softplus(logits)).sum(1)
        return log_likelihood - 0.5 * (z * z).sum(1) + log_diagonal.sum(1) + 0.5 * latent

    def loss(parameters: Any, batch: Any, noise: Any) -> Any:
        values = elbos(parameters, batch, noise)
        return -values.mean(), values

    def step(parameters: Any, m: Any, v: Any, t: Any, batch: Any) -> Any:
        noise = jax.random.normal(jax.random.key(t), (len(batch), latent), jnp.float32)
        (_, values), g = jax.value_and_grad(loss, has_aux=True)(parameters, batch, noise)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        rate = jnp.float32(RATE) * jnp.sqrt(1 - jnp.float32(0.999) ** t) / (1 - jnp.float32(0.9) ** t)
        parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), parameters, m, v)
        return parameters, m, v, values

    shapes = [(data, hidden), (hidden, latent + size), (latent, hidden), (hidden, data)]
    keys = jax.random.split(jax.random.key(0), 4)
    state = [linear(key, *shape) for key, shape in zip(keys, shapes, strict=True)]
    state = [state, *(jax.tree.map(jnp.zeros_like, state) for _ in range(2))]
    compiled, batch, times = jax.jit(step, donate_argnums=(0, 1, 2)), jax.device_put(x), itertools.count(1)

    def run() -> Any:
        *state[:], values = compiled(*state, next(times), batch)
        return jax.block_until_ready(values)

    return run
