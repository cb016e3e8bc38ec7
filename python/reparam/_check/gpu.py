# SPDX-License-Identifier: MIT
"""Errors of a call on a GPU: where its arrays lie, and what the machine lacks. Each names what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._arrays import cupy_is_there, is_cupy

__all__ = ["explain", "one_device", "refuse_backend", "require_aligned"]

OTHER_KIND = ("cudaErrorNoKernelImageForDevice", "cudaErrorInvalidDeviceFunction", "cudaErrorInvalidKernelImage")
TOO_OLD = ("cudaErrorInsufficientDriver", "cudaErrorUnsupportedPtxVersion", "cudaErrorCompatNotSupportedOnDevice")
OTHER_STREAM = "cudaErrorInvalidResourceHandle"
LOST = (
    "cudaErrorIllegalAddress",
    "cudaErrorLaunchFailure",
    "cudaErrorMisalignedAddress",
    "cudaErrorHardwareStackError",
)


def one_device(owner: str, arrays: Sequence[tuple[str, Any]]) -> Any:
    """The GPU on which all these arrays are, given as (name, array); None if they are NumPy's."""
    if not cupy_is_there():
        return None
    name, first = next(((n, x) for n, x in arrays if is_cupy(x)), ("", None))
    if first is None:
        return None
    device = first.device
    for other, x in arrays:
        if not is_cupy(x):
            raise TypeError(
                f"{owner}: {name} is a CuPy array and {other} a NumPy array; they must lie in one memory: move {other} "
                f"by cupy.asarray, or {name} by cupy.asnumpy"
            )
        if x.device != device:
            raise TypeError(
                f"{owner}: {name} is on GPU {device.id} and {other} on GPU {x.device.id}; they must be on one: copy "
                f"{other} by cupy.asarray under `with cupy.cuda.Device({device.id})`"
            )
    return device


def refuse_backend(owner: str, backend: str, arrays: str = "CuPy arrays", by: str = "cupy.asnumpy") -> None:
    """A backend of the CPU was asked for by its name."""
    if backend not in {"", "native"}:
        raise ValueError(
            f"{owner}: {arrays} run on native:cuda alone, but the backend is {backend}; drop that choice "
            f"(rp.backend, REPARAM_BACKEND), or move the arrays by {by}"
        )


def require_aligned(owner: str, name: str, address: int, item: int, strides: Sequence[int]) -> None:
    """A GPU reads elements at multiples of their size alone: anything else would cost the process its context."""
    if address % item or any(s % item for s in strides):
        raise ValueError(
            f"{owner}: {name} must lie at a multiple of its {item} bytes, got the address {address:#x} and "
            f"strides {tuple(strides)}; copy it"
        )


def explain(owner: str, error: Exception, device: Any, compiled: Any) -> Exception:
    """What a user can do about an error of the GPU; ``compiled`` is the extension module, None without one."""
    text = str(error).removeprefix(f"{owner}: ")
    if isinstance(error, MemoryError):
        return MemoryError(
            f"{owner}: GPU {device.id} is out of memory: {text.rstrip('.')}; drop arrays that you no longer need, give "
            "back what other libraries keep (torch.cuda.empty_cache()), or take smaller batches"
        )
    if compiled is None or "cudaError" not in text:
        return error
    advice = ""
    if any(name in text for name in TOO_OLD):
        driver, runtime = (f"CUDA {v // 1000}.{v % 1000 // 10}" if v else "" for v in compiled.versions())
        advice = f"this machine has no driver: install one for {runtime}, with which reparam was built: "
        if driver:
            advice = (
                f"the driver of this machine (for {driver}) is older than the {runtime} that reparam was built with: "
                f"install a driver for {runtime}, or build reparam with the toolkit of the driver: "
            )
    elif any(name in text for name in OTHER_KIND):
        capability = device.compute_capability
        advice = (
            f"reparam was compiled for GPUs of kind {compiled.targets}, and GPU {device.id} has compute capability "
            f"{capability}: build it by SKBUILD_CMAKE_DEFINE=REPARAM_CUDA_ARCHITECTURES={capability} pip install .: "
        )
    elif OTHER_STREAM in text:
        advice = (
            f"CuPy's current stream was not made on GPU {device.id}, where the arrays are, or is gone: make one "
            f"current that was made under `with cupy.cuda.Device({device.id})`: "
        )
    elif any(name in text for name in LOST):
        advice = "a kernel failed, and with it this process's use of the GPU; start the process anew: "
    return RuntimeError(f"{owner}: {advice}{text}")
