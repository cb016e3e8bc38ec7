# SPDX-License-Identifier: MIT
"""The compiled module for JAX, csrc/bind/xla_module.cpp: handlers of XLA's foreign function interface."""

from typing import Any

def use_core(kernels: Any, isa: str, /) -> Any:
    """The handler of platform ``cpu``; the kernels are ``_core.kernels``."""

def use_cuda(kernels: Any, /) -> Any:
    """The handler of platform ``CUDA``, once ``use_core`` was called; the kernels are ``_cuda.kernels``."""

def set_num_threads(n: int, /) -> None:
    """The threads that a call on the CPU may use."""
