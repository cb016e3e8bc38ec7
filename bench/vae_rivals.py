# SPDX-License-Identifier: MIT
"""One training step of the same VAE in torch and JAX: tanh nets, one hidden layer, one draw, closed-form entropy, Adam.

All start from the same weights: of each net ``(weight, bias, weight, bias)``, weights as ``(in, out)``. A step returns
a function that looks at the state: the ELBO of each row but for the constant that the likelihood does not need, loc and
scale of its q, the decoder's weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from .row import flat

RATE = 1e-3
LAYERS = ("weight0", "bias0", "weight1", "bias1")


def outputs(latent: int, full: bool) -> int:
    """Numbers of the encoder's head beside loc."""
    return latent * (latent + 1) // 2 if full else latent


def start(rng: np.random.Generator, data: int, hidden: int, latent: int, full: bool) -> list[np.ndarray]:
    """The weights of both nets: normal, of variance 2 / (in + out); q starts with the identity as its scale."""
    head = latent + outputs(latent, full)
    made = []
    for n, m in ((data, hidden), (hidden, head), (latent, hidden), (hidden, data)):
        made += [rng.standard_normal((n, m), "float32") * np.float32(np.sqrt(2 / (n + m))), np.zeros(m, "float32")]
    made[2][:, latent:] = 0
    return made


def looked(look: Callable[[], Any]) -> tuple[np.ndarray, ...]:
    """The answer."""
    return flat(look())


def our_step(x: np.ndarray, *weights: np.ndarray, count: int, full: bool) -> Callable[[], Any]:
    """``partial_fit`` on one minibatch."""
    latent, hidden = weights[4].shape
    family = {"likelihood": "bernoulli"} if count == 1 else {"likelihood": "binomial", "total_count": count}
    covariance = "full" if full else "diag"
    model = rp.VAE(latent, hidden=(hidden,), covariance_type=covariance, lr=RATE, batch_size=len(x), key=0, **family)
    model._start(x)
    nets = [net.views[name] for net in (model._encoder, model._decoder) for name in LAYERS]
    for mine, given in zip(nets, weights, strict=True):
        mine[...] = given
    constants = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)]

    def look() -> Any:
        q = model.posterior(x)
        elbos = model.elbo(x, key=1) - np.array(constants)[x.astype(int)].sum(1)
        return elbos, q.loc, q.scale_tril if full else q.scale_diag, *nets[4:]

    def run() -> Any:
        model.partial_fit(x)
        return look

    return run


def torch_step(x: np.ndarray, *weights: np.ndarray, count: int, full: bool) -> Callable[[], Any]:
    """Eager, with the fused Adam."""
    import torch
    from torch.nn import Linear, Sequential, Tanh, functional

    torch.manual_seed(0)
    (data, hidden), latent = weights[0].shape, len(weights[4])
    size = outputs(latent, full)
    encoder = Sequential(Linear(data, hidden), Tanh(), Linear(hidden, latent + size))
    decoder = Sequential(Linear(latent, hidden), Tanh(), Linear(hidden, data))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    with torch.no_grad():
        for mine, given in zip(parameters, weights, strict=True):
            mine.copy_(torch.from_numpy(given).t())
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    batch = torch.from_numpy(x)
    fractions = batch / count
    rows, columns = torch.tril_indices(latent, latent)
    on_diagonal = rows == columns

    def estimate() -> Any:
        loc, vector = encoder(fractions).split([latent, size], dim=1)
        noise = torch.randn_like(loc)
        if full:
            scale = vector.new_zeros(len(x), latent, latent)
            scale[:, rows, columns] = torch.where(on_diagonal, vector.exp(), vector)
            z = torch.baddbmm(loc.unsqueeze(-1), scale, noise.unsqueeze(-1)).squeeze(-1)
            log_det = vector[:, on_diagonal].sum(1)
        else:
            scale = vector.exp()
            z = loc + scale * noise
            log_det = vector.sum(1)
        logits = decoder(z)
        log_likelihood = (batch * logits - count * functional.softplus(logits)).sum(1)
        return log_likelihood - 0.5 * z.square().sum(1) + log_det + 0.5 * latent, loc, scale

    def look() -> Any:
        with torch.no_grad():
            return *estimate(), *(p.detach().t() for p in parameters[4:])

    def run() -> Any:
        optimizer.zero_grad(set_to_none=True)
        (-estimate()[0].mean()).backward()
        optimizer.step()
        return look

    return run


def jax_step(x: np.ndarray, *weights: np.ndarray, count: int, full: bool) -> Callable[[], Any]:
    """The whole step under one jit, parameters and moments donated, Adam by hand."""
    import jax
    import jax.numpy as jnp

    latent = len(weights[4])
    size = outputs(latent, full)
    rows, columns = np.tril_indices(latent)
    place = np.full((latent, latent), size)  # behind the vector stands a zero
    place[rows, columns] = np.arange(len(rows)) if full else 0
    diagonal = place[np.arange(latent), np.arange(latent)]

    def estimate(parameters: Any, batch: Any, fractions: Any, noise: Any) -> Any:
        w1, b1, w2, b2, w3, b3, w4, b4 = parameters
        head = jnp.tanh(fractions @ w1 + b1) @ w2 + b2
        loc, vector = head[:, :latent], head[:, latent:]
        if full:
            log_diagonal = vector[:, diagonal]
            square = jnp.concatenate([vector, jnp.zeros((len(batch), 1), vector.dtype)], 1)[:, place]
            scale = jnp.where(np.eye(latent, dtype=bool), jnp.exp(square), square)
            z = loc + jnp.einsum("bij,bj->bi", scale, noise)
        else:
            log_diagonal = vector
            scale = jnp.exp(vector)
            z = loc + scale * noise
        logits = jnp.tanh(z @ w3 + b3) @ w4 + b4
        log_likelihood = (batch * logits - count * jax.nn.softplus(logits)).sum(1)
        return log_likelihood - 0.5 * (z * z).sum(1) + log_diagonal.sum(1) + 0.5 * latent, loc, scale

    def noise_of(seed: Any) -> Any:
        return jax.random.normal(jax.random.key(seed), (len(x), latent), jnp.float32)

    def loss(parameters: Any, *given: Any) -> Any:
        return -estimate(parameters, *given)[0].mean()

    def step(parameters: Any, m: Any, v: Any, t: Any, *data: Any) -> Any:
        value, g = jax.value_and_grad(loss)(parameters, *data, noise_of(t))
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        rate = jnp.float32(RATE) * jnp.sqrt(1 - jnp.float32(0.999) ** t) / (1 - jnp.float32(0.9) ** t)
        parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), parameters, m, v)
        return parameters, m, v, value

    state = [[jnp.array(w) for w in weights]]
    state += [jax.tree.map(jnp.zeros_like, state[0]) for _ in range(2)]
    data = [jax.device_put(given) for given in (x, x / np.float32(count))]
    compiled, times = jax.jit(step, donate_argnums=(0, 1, 2)), itertools.count(1)

    def look() -> Any:
        return *estimate(state[0], *data, noise_of(0)), *state[0][4:]

    def run() -> Any:
        *state[:], value = compiled(*state, next(times), *data)
        jax.block_until_ready(value)
        return look

    return run
