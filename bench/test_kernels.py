# SPDX-License-Identifier: MIT
"""Kernels against NumPy and torch: the same work in one group, the answer asserted before it is timed."""

import numpy as np
import pytest

import reparam as rp
import rivals

CHOLESKY = [(4, 100_000), (8, 100_000), (16, 20_000)]
threads = {"argnames": "our_threads", "argvalues": rivals.THREADS, "indirect": True}
torch_threads = {"argnames": "torch_threads", "argvalues": rivals.THREADS, "indirect": True}


def covariances(rng, batch, d):
    factor = rng.standard_normal((batch, d, d), dtype=np.float32)
    return factor @ factor.swapaxes(-1, -2) + d * np.eye(d, dtype=np.float32)


@pytest.fixture(params=CHOLESKY, ids=lambda p: f"d={p[0]}")
def matrices(request, rng, benchmark):
    d, batch = request.param
    benchmark.group = f"cholesky float32 {batch} x {d} x {d}"
    return covariances(rng, batch, d)


def test_cholesky_numpy(matrices, benchmark):
    benchmark(rivals.numpy_cholesky(matrices))


@pytest.mark.parametrize(**torch_threads)
def test_cholesky_torch(matrices, benchmark, torch_threads):
    benchmark(rivals.torch_cholesky(matrices))


@pytest.mark.parametrize(**threads)
def test_cholesky_reparam(matrices, benchmark, our_threads):
    out = np.empty_like(matrices)
    rp.cholesky(matrices, out=out)
    np.testing.assert_allclose(out, np.linalg.cholesky(matrices), rtol=1e-4, atol=1e-4)
    benchmark(lambda: rp.cholesky(matrices, out=out))


@pytest.fixture(params=[(*size, real) for size in CHOLESKY for real in ("float32", "float64")], ids=str)
def typed_matrices(request, rng, benchmark):
    d, batch, real = request.param
    benchmark.group = f"cholesky on Numba, {real} {batch} x {d} x {d}"
    return covariances(rng, batch, d).astype(real)


def test_cholesky_on_numba_numpy(typed_matrices, benchmark):
    benchmark(rivals.numpy_cholesky(typed_matrices))


def test_cholesky_on_numba_reparam(typed_matrices, benchmark):
    if "numba" not in rp.backends():
        pytest.skip("Numba is not installed")
    out = np.empty_like(typed_matrices)
    with rp.backend("numba"):
        rp.cholesky(typed_matrices, out=out)
        np.testing.assert_allclose(out, np.linalg.cholesky(typed_matrices), rtol=1e-4, atol=1e-4)
        benchmark(lambda: rp.cholesky(typed_matrices, out=out))


@pytest.fixture
def density(rng, benchmark):
    batch, d = 20_000, 16
    benchmark.group = f"log_prob with gradient float32 {batch} x {d}"
    scale_tril = np.linalg.cholesky(covariances(rng, batch, d)).astype(np.float32)
    return (*rng.standard_normal((2, batch, d), dtype=np.float32), scale_tril)


@pytest.mark.parametrize(**torch_threads)
def test_log_prob_torch(density, benchmark, torch_threads):
    benchmark(rivals.torch_log_prob_and_gradient(*density))


@pytest.mark.parametrize(**torch_threads)
def test_log_prob_torch_by_hand(density, benchmark, torch_threads):
    benchmark(rivals.torch_log_prob_and_gradient_by_hand(*density))


@pytest.mark.parametrize(**threads)
def test_log_prob_reparam(density, benchmark, our_threads):
    ones = np.ones(len(density[0]), np.float32)

    def run():
        log_prob, cotangents = rp.normal_tril_log_prob.value_and_vjp(*density, ones)
        return log_prob, *cotangents

    if rivals.torch is not None:
        for ours, theirs in zip(run(), rivals.torch_log_prob_and_gradient(*density)(), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-3, atol=1e-3)
    benchmark(run)


@pytest.fixture(params=["float32", "float64"])
def dtype(request, benchmark):
    benchmark.group = f"normals {request.param}, 1e6"
    return request.param


def test_normal_numpy(dtype, benchmark):
    benchmark(rivals.numpy_normal(10**6, dtype))


@pytest.mark.parametrize(**torch_threads)
def test_normal_torch(dtype, benchmark, torch_threads):
    benchmark(rivals.torch_normal(10**6, dtype))


@pytest.mark.parametrize(**threads)
def test_normal_reparam(dtype, benchmark, our_threads):
    noise = rp.random.normal((10**6,), key=1, dtype=dtype)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    benchmark(lambda: rp.random.normal((10**6,), key=1, dtype=dtype))
