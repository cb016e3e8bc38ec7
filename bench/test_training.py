# SPDX-License-Identifier: MIT
"""One training step of the digits VAE (64-128-8, batch 128, counts of 16) against torch eager."""

import numpy as np
import pytest

import reparam as rp
import rivals

BATCH, DATA, HIDDEN, LATENT, COUNT = 128, 64, 128, 8, 16


@pytest.fixture(params=["diag", "full"])
def covariance_type(request, benchmark):
    benchmark.group = f"VAE step {DATA}-{HIDDEN}-{LATENT}, batch {BATCH}, {request.param}"
    return request.param


@pytest.fixture
def x(rng):
    return rng.integers(0, COUNT + 1, (BATCH, DATA)).astype(np.float32)


@pytest.mark.parametrize("torch_threads", rivals.THREADS, indirect=True)
def test_step_torch(x, covariance_type, benchmark, torch_threads):
    step = rivals.torch_vae_step(x, COUNT, HIDDEN, LATENT, covariance_type == "full")
    first = float(step().mean().detach())
    for _ in range(20):
        last = float(step().mean().detach())
    assert last > first
    benchmark(step)


@pytest.mark.parametrize("our_threads", rivals.THREADS, indirect=True)
def test_step_reparam(x, covariance_type, benchmark, our_threads):
    model = rp.VAE(
        LATENT, hidden=(HIDDEN,), covariance_type=covariance_type, likelihood="binomial", total_count=COUNT, key=0
    )
    model.partial_fit(x)
    first = model.elbo(x, key=1).mean()
    for _ in range(20):
        model.partial_fit(x)
    assert model.elbo(x, key=1).mean() > first
    benchmark(lambda: model.partial_fit(x))
