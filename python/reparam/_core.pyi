# SPDX-License-Identifier: MIT
"""The compiled module, csrc/bind/module.cpp: the table of native ops, and one entry that runs any of them."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

kernels: Any  # a capsule of what the module for JAX runs
compiler: str
version: str

class LayoutError(Exception):
    """An array that the kernels cannot walk as it lies."""

def run(
    op_name: str,
    reverse: bool,
    isa: str,
    dtype: str,
    batch_shape: Sequence[int],
    extents: Sequence[int],
    # inputs, then outputs, of a reverse pass inputs, output cotangents, outputs, input cotangents; (key, index) draws
    # the noise, None is an output that is not wanted
    operands: list[NDArray[Any] | tuple[int, NDArray[Any]] | None],
    attributes: Sequence[float],
    num_threads: int,
    packed: bool,  # lower factors lie as their triangles
    /,
) -> None:
    """Run one pass of an op; outputs are written in place."""

class Direct:
    """One pass of an op, of kind forward, vjp or value_and_vjp, for arrays that need no conversion."""

    def __init__(self, op_name: str, kind: str, isa: str, /) -> None: ...
    def __call__(
        self, args: tuple[Any, ...], out: tuple[Any, ...] | None, attributes: Sequence[float], num_threads: int, /
    ) -> tuple[NDArray[Any], ...] | None:
        """The results, in ``out`` if it is given; None where the call needs more than that, or is a mistake."""

def table() -> dict[str, tuple[str, str, bool, str]]:
    """Op to signature, attributes, whether it has a vjp, and what that takes: inputs or outputs."""

def isas() -> tuple[str, ...]:
    """Instruction sets usable on this CPU, the best last."""

def default_isa() -> str:
    """The one that is chosen without being named."""

def thread_stats() -> dict[str, int]:
    """Counts ``workers``, ``jobs`` and ``max_threads_seen`` of the pool."""

def fma_loop(isa: str, dtype: str, rounds: int, /) -> int:
    """Multiply-adds at the peak rate of one core, without the interpreter's lock; the flops that it did."""
