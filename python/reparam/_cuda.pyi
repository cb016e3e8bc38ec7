# SPDX-License-Identifier: MIT
"""The module for GPUs: ops on arrays given as addresses and strides in elements."""

from collections.abc import Sequence
from typing import Any

targets: str
kernels: Any  # a capsule of what the module for JAX runs
compiler: str

# address, batch strides, event strides, and the key of a draw; None is an output that is not wanted
_Operand = tuple[int, list[int], list[int]] | tuple[int, list[int], list[int], int] | None

def run(
    op: str,
    vjp: bool,
    dtype: str,
    batch_shape: Sequence[int],
    extents: Sequence[int],
    operands: list[_Operand],
    attributes: Sequence[float],
    packed: bool,
    scratch: int,
    stream: int,
    /,
) -> None: ...
def scratch(
    op: str,
    vjp: bool,
    dtype: str,
    batch_shape: Sequence[int],
    extents: Sequence[int],
    operands: list[_Operand],
    attributes: Sequence[float],
    packed: bool,
    /,
) -> int: ...
def devices() -> list[dict[str, Any]]: ...
def versions() -> tuple[int, int]: ...
def table() -> dict[str, tuple[str, str, bool, str]]: ...
