# SPDX-License-Identifier: MIT
"""What a user of CuPy arrays reads when something does not fit, and that the process goes on afterwards."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fake_cupy
import reparam as rp
from reparam._backends import cuda as backend

ONES = np.ones(3)


@pytest.fixture
def gpu():
    """CuPy and the kernels of a GPU with their stand-ins."""
    with fake_cupy.installed() as (cupy, kernels):
        yield cupy, kernels


def refused(error, message, call, *args, **keywords):
    with pytest.raises(error) as caught:
        call(*args, **keywords)
    assert (caught.type, str(caught.value)) == (error, message)


def on(cupy, device, x=ONES):
    with cupy.cuda.Device(device):
        return cupy.asarray(x)


def test_numpy_mixed_with_cupy(gpu):
    x = on(gpu[0], 0)
    for loc, scale, names in ((ONES, x, ("scale", "loc")), (x, ONES, ("loc", "scale"))):
        refused(
            TypeError,
            f"normal_log_prob: {'scale' if scale is x else 'loc'} is a CuPy array and {names[1]} a NumPy array; they "
            f"must lie in one memory: move {names[1]} by cupy.asarray, or {names[0]} by cupy.asnumpy",
            rp.normal_log_prob, 0.0, loc, scale,
        )  # fmt: skip
    refused(
        TypeError,
        "Normal: loc is a CuPy array and scale a NumPy array; they must lie in one memory: move scale by cupy.asarray, "
        "or loc by cupy.asnumpy",
        rp.Normal, x, ONES,
    )  # fmt: skip
    with pytest.raises(TypeError, match="normal_transform: the index of noise is a CuPy array and loc a NumPy array"):
        rp.normal_transform(rp.random.Draw(0, gpu[0].arange(3)), ONES, ONES)


def test_two_devices(gpu):
    refused(
        TypeError,
        "normal_log_prob: loc is on GPU 0 and scale on GPU 1; they must be on one: copy scale by cupy.asarray under "
        "`with cupy.cuda.Device(0)`",
        rp.normal_log_prob, 0.0, on(gpu[0], 0), on(gpu[0], 1),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["numba", "reference", "native:scalar"])
def test_a_backend_without_a_gpu(gpu, name):
    if name not in rp.backends():
        pytest.skip("needs numba")
    x = on(gpu[0], 0)
    with rp.backend(name):
        refused(
            ValueError,
            f"normal_entropy: CuPy arrays run on native:cuda alone, but the backend is {name}; drop that choice "
            "(rp.backend, REPARAM_BACKEND), or move the arrays by cupy.asnumpy",
            rp.normal_entropy, x,
        )  # fmt: skip
    with rp.backend("native"):
        assert rp.normal_entropy(x).device.id == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda cupy: ONES, TypeError, "must be a CuPy array on GPU 0, where the operands are, got ndarray"),
        (lambda cupy: on(cupy, 1), TypeError,
         "must be a CuPy array on GPU 0, where the operands are, got cupy.ndarray on GPU 1"),
        (lambda cupy: on(cupy, 0, np.ones(4)), ValueError, "must have shape (3,), got (4,)"),
        (lambda cupy: on(cupy, 0, np.ones(3, "f4")), TypeError, "must be float64, got float32"),
        (lambda cupy: cupy.broadcast_to(on(cupy, 0, 1.0), (3,)), ValueError,
         "has entries that share memory (a stride of 0)"),
    ],
)  # fmt: skip
def test_out_that_does_not_fit(gpu, make, error, message):
    out = make(gpu[0])
    refused(error, f"normal_entropy: out for entropy {message}", rp.normal_entropy, on(gpu[0], 0), out=out)


def test_out_of_cupy_for_arrays_of_numpy(gpu):
    message = "normal_entropy: out for entropy must be a NumPy array, got cupy.ndarray"
    refused(TypeError, message, rp.normal_entropy, ONES, out=on(gpu[0], 0))


def test_dtypes_and_shapes_as_of_numpy(gpu):
    x = on(gpu[0], 0)
    refused(
        TypeError, "normal_entropy: scale must be float32 or float64, got int64; convert it with .astype",
        rp.normal_entropy, on(gpu[0], 0, np.ones(3, int)),
    )  # fmt: skip
    refused(
        TypeError, "normal_log_prob: value is float64 and scale is float32; they must have one dtype",
        rp.normal_log_prob, x, 0.0, x.astype("float32"),
    )  # fmt: skip
    refused(
        ValueError, "normal_diag_log_prob: loc must have shape (..., d) with d = 3 (from value), got (2,)",
        rp.normal_diag_log_prob, x, on(gpu[0], 0, np.ones(2)), x,
    )  # fmt: skip


def test_memory_that_a_gpu_cannot_read(gpu):
    odd = fake_cupy._wrap(np.zeros(25, np.uint8))
    view = fake_cupy.ndarray(odd._values[1:].view(np.float64))
    with pytest.raises(ValueError, match=r"^normal_entropy: scale must lie at a multiple of its 8 bytes, got the addr"):
        rp.normal_entropy(view)


def test_in_place_operands(gpu):
    x = on(gpu[0], 0)
    hyper = {"step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="param and m are updated in place, but share memory"):
        rp.adam_step(x, x, x, x.copy(), **hyper)


def test_a_stream_of_another_device(gpu):
    cupy = gpu[0]
    x = on(cupy, 0)
    with cupy.cuda.Device(1):
        other = cupy.cuda.Stream()
    with cupy.cuda.Stream.from_external(other):  # which takes the word of the other library
        fake_cupy._streams[other.ptr] = {1: 0}
        refused(
            RuntimeError,
            "normal_entropy: CuPy's current stream was not made on GPU 0, where the arrays are, or is gone: make one "
            "current that was made under `with cupy.cuda.Device(0)`: invalid resource handle "
            "(cudaErrorInvalidResourceHandle)",
            rp.normal_entropy, x,
        )  # fmt: skip
    assert rp.normal_entropy(x).shape == (3,)


def test_a_build_without_cuda(gpu, monkeypatch):
    monkeypatch.setattr(backend, "_cuda", None)
    refused(
        TypeError,
        "normal_entropy: this build of reparam has no kernels for CuPy arrays, it found no nvcc: install reparam where "
        "nvcc is, or move the arrays by cupy.asnumpy",
        rp.normal_entropy, on(gpu[0], 0),
    )  # fmt: skip
    assert rp.normal_entropy(ONES).shape == (3,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("too old (cudaErrorInsufficientDriver)",
         "the driver of this machine (for CUDA 12.4) is older than the CUDA 13.0 that reparam was built with: install "
         "a driver for CUDA 13.0, or build reparam with the toolkit of the driver: "),
        ("no image (cudaErrorNoKernelImageForDevice)",
         "reparam was compiled for GPUs of kind 80 90, and GPU 0 has compute capability 90: build it by "
         "SKBUILD_CMAKE_DEFINE=REPARAM_CUDA_ARCHITECTURES=90 pip install .: "),
        ("lost (cudaErrorIllegalAddress)",
         "a kernel failed, and with it this process's use of the GPU; start the process anew: "),
        ("else (cudaErrorUnknown)", ""),
    ],
)  # fmt: skip
def test_errors_of_the_driver_say_what_to_do(gpu, text, message):
    kernels = gpu[1]
    kernels.error, kernels.versions = RuntimeError(f"normal_entropy: {text}"), lambda: (12040, 13000)
    refused(RuntimeError, f"normal_entropy: {message}{text}", rp.normal_entropy, on(gpu[0], 0))


def test_out_of_memory_and_back(gpu):
    cupy = gpu[0]
    x = on(cupy, 0, np.ones(1000))
    fake_cupy.pool.kept, fake_cupy.pool.limit = 10**6, fake_cupy.pool.used_bytes() + 10**6 + 100
    before = fake_cupy.pool.used_bytes()
    advice = r"\(torch\.cuda\.empty_cache\(\)\), or take smaller batches"
    with pytest.raises(MemoryError, match=rf"^normal_entropy: GPU 0 is out of memory: Out of memory.*{advice}"):
        rp.normal_entropy(x)
    assert fake_cupy.pool.used_bytes() == before
    cupy.get_default_memory_pool().free_all_blocks()
    assert rp.normal_entropy(x).shape == (1000,)


def test_no_import_of_cupy():
    code = "import sys, numpy, reparam as rp; rp.normal_entropy(numpy.ones(3)); assert 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
