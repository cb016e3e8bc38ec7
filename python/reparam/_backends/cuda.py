# SPDX-License-Identifier: MIT
"""The kernels for GPUs, in a module of their own, which loads without a driver."""

from __future__ import annotations

try:
    from .. import _cuda
except ImportError:  # a build without nvcc
    _cuda = None  # type: ignore[assignment]


def describe() -> dict[str, str]:
    """What ``reparam info`` says of GPUs: what was compiled, the driver, the devices or why there are none."""
    if _cuda is None:
        return {"kernels": "none in this build: it found no nvcc"}
    driver = _cuda.versions()[0]
    about = {"kernels": f"for {_cuda.targets} by {_cuda.compiler}"}
    about["driver"] = f"for CUDA {driver // 1000}.{driver % 1000 // 10}" if driver else "none"
    try:
        names = [device["name"] for device in _cuda.devices()]
    except RuntimeError as error:
        return {**about, "devices": str(error)}
    return {**about, "devices": ", ".join(names)}
