# SPDX-License-Identifier: MIT
"""Settings of a process and of a context: which backend runs the ops, and on how many threads."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from . import _check
from ._backends import native, numba

__all__ = [
    "backend",
    "backends",
    "chosen_backend",
    "current_backend",
    "get_num_threads",
    "limit_threads_by",
    "named_backend",
    "set_num_threads",
    "tell_num_threads",
]


def backends() -> tuple[str, ...]:
    """Names that :func:`backend` takes.

    Returns
    -------
    tuple of str
        Those that are usable here: ``native``, ``native:<isa>`` for each instruction set, ``numba``, ``reference``.
        A GPU is no choice of its own: its kernels, ``native:cuda``, run where the arrays are CuPy's, and
        :func:`show_config` says which GPUs there are.
    """
    isas = native.available()
    compiled = [*(("native",) if isas else ()), *(f"native:{isa}" for isa in isas)]
    return (*compiled, *(("numba",) if numba.available() else ()), "reference")


def _parse(name: str, origin: str) -> tuple[str, str]:
    """``native[:isa]``, ``numba`` or ``reference`` as (backend, isa)."""
    if not isinstance(name, str) or name not in backends():
        raise ValueError(f"{origin} must be one of {', '.join(backends())}, got {_check.came(name)}")
    if name == "native":
        isa = os.environ.get("REPARAM_ISA") or native.default_isa()
        if isa not in native.available():
            raise ValueError(f"REPARAM_ISA must be one of {', '.join(native.available())}, got {isa!r}")
        return "native", isa
    backend_name, _, isa = name.partition(":")
    return backend_name, isa


_chosen: ContextVar[tuple[str, str] | None] = ContextVar("reparam_backend", default=None)
_named: ContextVar[str] = ContextVar("reparam_backend_name", default="")
_default: list[tuple[str, str]] = []


def _default_backend() -> tuple[str, str]:
    if not _default:
        wanted = os.environ.get("REPARAM_BACKEND")
        if wanted:
            _default.append(_parse(wanted, "REPARAM_BACKEND"))
        elif native.available():
            _default.append(_parse("native", "backend"))
        elif numba.available():
            _default.append(("numba", ""))
        else:
            warnings.warn(
                "reparam has no compiled kernels here and runs its NumPy definitions, 10 to 1000 times slower; "
                "install with a C++ compiler (pip install .), or Numba (pip install numba)",
                RuntimeWarning,
                stacklevel=6,  # the line that calls the op
            )
            _default.append(("reference", ""))
    return _default[0]


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the ops of this context on one backend.

    The device follows the arrays: CuPy arrays run on their GPU under ``native``, as they do without a choice, and are
    refused under the name of a backend that has no GPU.

    Parameters
    ----------
    name : str
        One of :func:`backends`.

    Raises
    ------
    ValueError
        For an unknown name, or an ISA that this CPU lacks.
    """
    token, named = _chosen.set(_parse(name, "backend")), _named.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)
        _named.reset(named)


def chosen_backend() -> tuple[str, str]:
    """The backend of the next call and its ISA."""
    return _chosen.get() or _default_backend()


def named_backend() -> str:
    """The backend that was asked for, as it was written; empty where nobody did."""
    return _named.get() or os.environ.get("REPARAM_BACKEND", "")


def current_backend() -> str:
    """The backend that the next call takes, such as ``native:avx2``."""
    name, isa = chosen_backend()
    return f"{name}:{isa}" if isa else name


def _usable_cpus() -> int:
    """The CPUs that this process may use, by affinity and cgroup quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cpus = min(cpus, max(1, math.ceil(int(quota) / int(period))))
    return cpus


_MOST_THREADS = 1024
_threads: list[tuple[int, bool]] = []  # how many, and whether somebody has said so
_most_of_framework: list[Callable[[], int]] = []
_told: list[Callable[[int], None]] = []


def get_num_threads() -> int:
    """Threads that a large call may use."""
    if not _threads:
        wanted = os.environ.get("REPARAM_NUM_THREADS")
        if wanted and not (wanted.isdecimal() and int(wanted) in range(1, _MOST_THREADS + 1)):
            raise ValueError(f"REPARAM_NUM_THREADS must be an integer in [1, {_MOST_THREADS + 1}), got {wanted!r}")
        _threads.append((int(wanted), True) if wanted else (_usable_cpus(), False))
    n, chosen = _threads[0]
    return n if chosen or not _most_of_framework else min(n, *(most() for most in _most_of_framework))


def limit_threads_by(most: Callable[[], int]) -> None:
    """Where nobody has chosen a number of threads, use no more than a framework does, whose answer may change."""
    _most_of_framework.append(most)


def set_num_threads(n: int | None) -> None:
    """Let large calls use so many threads, in the whole process. Results do not depend on it.

    Parameters
    ----------
    n : int or None
        In [1, 1024]; None goes back to the default: ``REPARAM_NUM_THREADS``, else the CPUs that the process may use,
        and with ``reparam.torch`` no more than ``torch.get_num_threads()``.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    _threads[:] = [] if n is None else [(_check.as_int("set_num_threads: n", n, 1, _MOST_THREADS + 1), True)]
    for tell in _told:
        tell(get_num_threads())


def tell_num_threads(tell: Callable[[int], None]) -> None:
    """Tell a module whose calls do not come through Python, now and after each change."""
    _told.append(tell)
    tell(get_num_threads())
