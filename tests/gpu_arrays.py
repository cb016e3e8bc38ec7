# SPDX-License-Identifier: MIT
"""What the tests of ops on CuPy's arrays share: CuPy or what stands in for it, arrays on it, a problem."""

import contextlib

import numpy as np
import pytest
from reparam._bench import gpu_build, gpu_device

import fake_cupy
import support
from reparam._backends import cuda

needs_gpu = pytest.mark.skipif(
    bool(gpu_build.missing()) or cuda._cuda is None, reason="needs a CUDA GPU, CuPy and a build with nvcc"
)
AXIS = [pytest.param("CuPy", marks=[pytest.mark.gpu, needs_gpu]), "stand-in"]
KEY = 2**40 + 17


@contextlib.contextmanager
def library(kind):
    """CuPy, whose fresh memory holds NaN, and what stands in for it."""
    if kind == "stand-in":
        with fake_cupy.installed() as (cupy, _):
            yield cupy
        return
    import cupy

    gpu_device.Device(cupy).poison()
    yield cupy
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)


def only_on_a_gpu(test):
    return pytest.mark.gpu(needs_gpu(test))


def put(xp, arrays, dtype):
    return gpu_device.Device(xp).put(arrays, dtype)


def get(arrays):
    return [x.get() for x in support.as_tuple(arrays)]


def problem(d=5, batch=7, dtype="float64"):
    """Value, loc and factor in NumPy."""
    rng = np.random.default_rng(d)
    value, loc = rng.standard_normal((2, batch, d))
    return [x.astype(dtype) for x in (value, loc, support.factor(rng, (batch,), d))]
