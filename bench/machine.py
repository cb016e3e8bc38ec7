# SPDX-License-Identifier: MIT
"""What this machine is: caches, memory, processor, versions, instruction set, threads."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

import reparam as rp

from .._settings import current_backend, get_num_threads

LIBRARIES = {
    "numpy": "numpy", "scipy": "scipy", "torch": "torch", "jax": "jax", "numpyro": "numpyro",
    "sklearn": "scikit-learn", "mkl": "mkl", "numba": "numba",
    "threadpoolctl": "threadpoolctl", "matplotlib": "matplotlib",
}  # fmt: skip
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@functools.cache
def cache_bytes() -> int:
    """Of the last-level cache; 32 MiB where the system does not say."""
    sizes = [32 * 2**20]
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        found = re.match(r"(\d+)([KMG])", _text(folder / "size"))
        if found:
            sizes.append(int(found[1]) * UNITS[found[2]])
    return max(sizes[1:] or sizes)


def available_bytes() -> int:
    """Memory that a process may still take."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")))
    free = int(found[1]) * 1024 if found else 4 * 2**30
    limit, used = _text(Path("/sys/fs/cgroup/memory.max")), _text(Path("/sys/fs/cgroup/memory.current"))
    return min(free, int(limit) - int(used)) if limit.isdecimal() and used.isdecimal() else free


def all_threads() -> int:
    """Threads that a contestant may take: those of the whole machine, but where fewer are set for a while."""
    return get_num_threads()


def version(library: str) -> str | None:
    """Its version, or None where it is not installed."""
    try:
        return importlib.metadata.version(LIBRARIES[library])
    except importlib.metadata.PackageNotFoundError:
        return None


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """What the head of the table says; nothing that names a folder or a host."""
    return {
        "reparam": rp.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cpus": cpus(),
        "threads": all_threads(),
        "last-level cache": cache_bytes(),
        "backend": current_backend(),
        "backends": list(rp.backends()),
        "libraries": {name: version(name) for name in LIBRARIES},
        "BLAS threads": _blas_threads(),
    }


def isa() -> str:
    """The instruction set of the native kernels in force, or ''."""
    name, _, isa = current_backend().partition(":")
    return isa if name == "native" else ""


def _blas_threads() -> int | None:
    try:
        import threadpoolctl
    except ImportError:
        return None
    np.dot(np.ones(2), np.ones(2))
    return max((pool["num_threads"] for pool in threadpoolctl.threadpool_info()), default=None)


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", _text(Path("/proc/cpuinfo")))
    return found[1] if found else platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
