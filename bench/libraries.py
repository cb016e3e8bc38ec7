# SPDX-License-Identifier: MIT
"""Which rivals are installed, and how many threads they take."""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

import reparam as rp

from . import machine

#: Who may stand in a row; ours is no rival.
RIVALS = ("numpy", "scipy", "torch", "jax", "numpyro", "sklearn", "mkl")
#: The pool of JAX has its size from the start, so its contestants run in processes of their own.
IN_WORKERS = ("jax", "numpyro")
#: Their threads are those of BLAS, which threadpoolctl sets.
BY_BLAS = ("numpy", "scipy", "sklearn")
#: Seconds for which their threads spin after the work, on CPUs that the next contestant needs: OpenBLAS 2**26 cycles,
#: OpenMP some milliseconds.
SPINNING = {"numpy": 0.02, "scipy": 0.02, "sklearn": 0.02, "torch": 0.01}


def installed(library: str) -> bool:
    """Whether a contestant of this library can run here."""
    return library == "reparam" or machine.version(library) is not None


@functools.cache
def _blas() -> Any:
    """The BLAS pools of this process, NumPy's and SciPy's."""
    try:
        import threadpoolctl
    except ImportError:
        return None
    if installed("scipy"):
        import scipy.linalg  # noqa: F401  its BLAS must be there when the pools are counted
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


def counts(library: str, everyone: int) -> list[int]:
    """The numbers of threads that a contestant of this library is measured at."""
    fixed = library in BY_BLAS and _blas() is None
    return [everyone] if fixed else sorted({1, everyone})


def set_threads(n: int, *, blas: bool = True) -> None:
    """Let torch, ours and, if it is wanted, NumPy's and SciPy's BLAS use ``n`` threads."""
    rp.set_num_threads(n)
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != n:
        torch.set_num_threads(n)
    pools = (
        [] if _blas() is None or not blas else [pool for pool in _blas().lib_controllers if pool.get_num_threads() != n]
    )
    for pool in pools:
        pool.set_num_threads(n)
    if pools:  # threads that OpenBLAS has just started spin too
        outlast_spinning("numpy")


def outlast_spinning(library: str) -> None:
    """Wait until its threads have gone to sleep. Busily: a CPU that has slept runs at half its speed at first."""
    end = time.perf_counter() + SPINNING.get(library, 0.0)
    while time.perf_counter() < end:
        pass


def restore_threads() -> None:
    """As many as a user who sets nothing has."""
    if "torch" in sys.modules:  # which limits ours where nobody has said how many
        sys.modules["torch"].set_num_threads(machine.cpus())
    rp.set_num_threads(None)
    set_threads(machine.all_threads())
    rp.set_num_threads(None)
