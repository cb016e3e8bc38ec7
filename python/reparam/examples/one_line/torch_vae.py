# SPDX-License-Identifier: MIT
"""A VAE in PyTorch with a full-covariance posterior; one import is changed, and the losses stay what they were."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

import reparam.torch

from .._show import data
from ._show import before_and_after

LATENT, HIDDEN, BATCH, EPOCHS = 16, 128, 128, 10
BEFORE = "from torch.distributions import MultivariateNormal"
AFTER = "from reparam.torch import MultivariateNormal"


def net(inputs: int, outputs: int) -> Any:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs))


def train(MultivariateNormal: Any) -> tuple[Any, float]:  # the class that the changed line imports
    """The loss of each step [nats a row], and the seconds of all steps after the first."""
    torch.manual_seed(0)
    x = torch.from_numpy(np.asarray(data("digits")[0], np.float32))
    encoder, decoder = net(64, 2 * LATENT + LATENT * (LATENT - 1) // 2), net(LATENT, 64)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=2e-3, fused=True)
    prior = MultivariateNormal(torch.zeros(LATENT), scale_tril=torch.eye(LATENT))
    rows, columns = torch.tril_indices(LATENT, LATENT, -1)
    losses = []
    begin = 0.0
    for _ in range(EPOCHS):
        for batch in torch.split(x[torch.randperm(len(x))], BATCH):
            loc, log_diagonal, below = torch.split(encoder(batch / 16), [LATENT, LATENT, len(rows)], dim=-1)
            scale_tril = torch.diag_embed(log_diagonal.exp())
            scale_tril[:, rows, columns] = 0.1 * below
            q = MultivariateNormal(loc, scale_tril=scale_tril)
            z = q.rsample()
            logits = decoder(z)
            log_likelihood = (batch * logits - 16 * nn.functional.softplus(logits)).sum(-1)
            loss = (q.log_prob(z) - prior.log_prob(z) - log_likelihood).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            begin = begin or time.perf_counter()
    return torch.stack(losses).numpy(), time.perf_counter() - begin


def main() -> dict[str, float]:
    """Train with torch's class and with ours, from one seed."""
    before, seconds_before = train(torch.distributions.MultivariateNormal)
    after, seconds_after = train(reparam.torch.MultivariateNormal)
    steps = len(before) - 1
    title = f"VAE, {LATENT} latents, full covariance, digits, {len(before)} steps of {BATCH} rows"
    before_and_after(title, BEFORE, AFTER, {
        "loss of the first step": (float(before[0]), float(after[0])),
        "loss of step 20": (float(before[19]), float(after[19])),
        "loss, mean of the last epoch": (float(before[-15:].mean()), float(after[-15:].mean())),
        "milliseconds a step": (1e3 * seconds_before / steps, 1e3 * seconds_after / steps),
    })  # fmt: skip
    return {
        "difference": float(np.abs(after[:20] / before[:20] - 1).max()),
        "fall": float(before[0] - after[-1]),
        "gain": seconds_before / seconds_after,
    }


if __name__ == "__main__":
    main()
