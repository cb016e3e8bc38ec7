# SPDX-License-Identifier: MIT
"""The rivals, each as its users write it and, where that differs, by an expert's hand. Answers are NumPy arrays.

A rival that is not installed is skipped by name. torch is measured at one thread and at all.
"""

import math
import os

import numpy as np

try:
    import torch
except ImportError:
    torch = None

ALL_THREADS = len(os.sched_getaffinity(0))
THREADS = sorted({1, ALL_THREADS})


def numpy_cholesky(a):
    return lambda: np.linalg.cholesky(a)


def torch_cholesky(a):
    tensor = torch.from_numpy(a)
    return lambda: torch.linalg.cholesky(tensor)


def torch_log_prob_and_gradient(value, loc, scale_tril):
    """torch.distributions, forward and backward."""
    operands = [torch.from_numpy(x).requires_grad_() for x in (value, loc, scale_tril)]

    def run():
        for operand in operands:
            operand.grad = None
        q = torch.distributions.MultivariateNormal(operands[1], scale_tril=operands[2], validate_args=False)
        log_prob = q.log_prob(operands[0])
        log_prob.sum().backward()
        return log_prob.detach(), *[operand.grad for operand in operands]

    return run


def torch_log_prob_and_gradient_by_hand(value, loc, scale_tril):
    """Two triangular solves and an outer product, no autograd."""
    value, loc, factor = (torch.from_numpy(x) for x in (value, loc, scale_tril))
    d = value.shape[-1]

    def run():
        y = torch.linalg.solve_triangular(factor, (value - loc).unsqueeze(-1), upper=False)
        z = torch.linalg.solve_triangular(factor.mT, y, upper=True)
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        log_prob = -0.5 * y.square().sum((-2, -1)) - diagonal.log().sum(-1) - 0.5 * d * math.log(2 * math.pi)
        ct_factor = torch.tril(z @ y.mT)
        ct_factor.diagonal(dim1=-2, dim2=-1).sub_(diagonal.reciprocal())
        return log_prob, -z.squeeze(-1), z.squeeze(-1), ct_factor

    return run


def torch_normal(n, dtype):
    return lambda: torch.randn(n, dtype=getattr(torch, dtype))


def numpy_normal(n, dtype):
    rng = np.random.default_rng(0)
    return lambda: rng.standard_normal(n, dtype=dtype)


def torch_vae_step(x, total_count, hidden, latent_dim, full):
    """One eager training step of the same VAE: tanh MLPs, binomial likelihood, closed-form entropy, Adam."""
    data_dim, size = x.shape[1], latent_dim * (latent_dim + 1) // 2 if full else latent_dim
    layers = torch.nn.ModuleDict(
        {
            "encoder": torch.nn.Sequential(
                torch.nn.Linear(data_dim, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, latent_dim + size)
            ),
            "decoder": torch.nn.Sequential(
                torch.nn.Linear(latent_dim, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, data_dim)
            ),
        }
    )
    optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3, fused=True)
    batch = torch.from_numpy(x)
    rows, columns = torch.tril_indices(latent_dim, latent_dim)
    on_diagonal = rows == columns

    def run():
        optimizer.zero_grad(set_to_none=True)
        loc, vector = layers["encoder"](batch).split([latent_dim, size], dim=1)
        noise = torch.randn_like(loc)
        if full:
            entries = torch.where(on_diagonal, vector.exp(), vector)
            factor = entries.new_zeros(len(x), latent_dim, latent_dim)
            factor[:, rows, columns] = entries
            z = loc + (factor @ noise.unsqueeze(-1)).squeeze(-1)
            log_det = vector[:, on_diagonal].sum(1)
        else:
            z = loc + vector.exp() * noise
            log_det = vector.sum(1)
        logits = layers["decoder"](z)
        log_likelihood = (batch * logits - total_count * torch.nn.functional.softplus(logits)).sum(1)
        elbo = log_likelihood - 0.5 * z.square().sum(1) + log_det
        (-elbo.mean()).backward()
        optimizer.step()
        return elbo

    return run
