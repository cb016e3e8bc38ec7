# SPDX-License-Identifier: MIT
"""CuPy as the tests take it: the stand-in, which counts and has two devices, and the real one where there is a GPU."""

import contextlib
import importlib.util

import numpy as np
import pytest

import fake_cupy
from reparam._arrays import is_cupy
from reparam._backends import cuda as backend
from support import same_bits

BOTH = ["stand-in", pytest.param("CuPy", marks=pytest.mark.gpu)]
ROUNDING = 1e-6  # of a real GPU against a CPU: products and sums of whole matrices in another order


class Gpu:
    """CuPy, the stand-in's kernels (None of a real one), and what may be asked."""

    def __init__(self, cupy, kernels):
        self.cupy, self.kernels = cupy, kernels

    def __getitem__(self, at):
        return (self.cupy, self.kernels)[at]

    def require(self, device):
        """Skip the test where there is no such device."""
        if self.kernels is None and device >= self.cupy.cuda.runtime.getDeviceCount():
            pytest.skip("needs a GPU more")

    def count(self, name):
        """What the stand-in has counted; a real one counts nothing."""
        return fake_cupy.counts[name] if self.kernels is not None else 0

    def near(self, made, wanted, tolerance=1e-9):
        """On a GPU, and as NumPy has it."""
        assert is_cupy(made), type(made)
        made, wanted = made.get(), np.asarray(wanted)
        assert (made.dtype, made.shape) == (wanted.dtype, wanted.shape)
        tolerance = max(tolerance, 0 if self.kernels else ROUNDING)
        np.testing.assert_allclose(made, wanted, rtol=tolerance, atol=tolerance)

    def same(self, made, wanted):
        """To the bit of the stand-in, to rounding of a real GPU, whose compiler fuses products with sums."""
        made, wanted = np.asarray(made), np.asarray(wanted)
        if self.kernels is not None or wanted.dtype.kind != "f":
            same_bits(made, wanted)
            return
        tolerance = ROUNDING if wanted.dtype == np.float64 else 1e-3
        np.testing.assert_allclose(made, wanted, rtol=tolerance, atol=tolerance)


@contextlib.contextmanager
def gpu_of(kind):
    """The stand-in, or CuPy itself."""
    if kind == "stand-in":
        with fake_cupy.installed() as (cupy, kernels):
            yield Gpu(cupy, kernels)
        return
    if importlib.util.find_spec("cupy") is None or backend._cuda is None or not backend._cuda.versions()[0]:
        pytest.skip("needs a CUDA GPU, CuPy and a build with nvcc")
    import cupy

    yield Gpu(cupy, None)
