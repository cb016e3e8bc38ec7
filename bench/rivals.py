# SPDX-License-Identifier: MIT
"""How a formula becomes a contestant of NumPy, torch or JAX. Libraries are imported when a contestant is built.

A formula takes the arrays of one library. ``*_grad`` differentiate the sum of what it returns; the answers are then the
value and the gradients, as ``value_and_vjp`` with cotangents of one gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Build = Callable[..., Callable[[], Any]]


def numpy_calls(formula: Callable[..., Any]) -> Build:
    """The formula on NumPy arrays."""
    return lambda *inputs: lambda: formula(*inputs)


def tensors(inputs: Sequence[Any]) -> list[Any]:
    """The arrays, NumPy's or CuPy's, as torch tensors over the same memory."""
    import torch

    return [
        torch.from_numpy(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else torch.as_tensor(x, device="cuda")
        for x in inputs
    ]


def jax_arrays(inputs: Sequence[Any]) -> list[Any]:
    """The arrays, NumPy's or CuPy's, as those of JAX."""
    import jax
    import jax.dlpack

    return [jax.device_put(x) if isinstance(x, np.ndarray) else jax.dlpack.from_dlpack(x) for x in inputs]


def torch_calls(formula: Callable[..., Any]) -> Build:
    """The formula on tensors, without autograd."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import torch

        operands = tensors(inputs)

        def run() -> Any:
            with torch.no_grad():
                return formula(*operands)

        return run

    return build


def torch_grad(formula: Callable[..., Any], wrt: Sequence[int] | None = None) -> Build:
    """Eager forward and backward passes."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        operands = tensors(inputs)
        leaves = [operands[k].requires_grad_() for k in (range(len(operands)) if wrt is None else wrt)]

        def run() -> Any:
            for leaf in leaves:
                leaf.grad = None
            value = formula(*operands)
            value.sum().backward()
            return value.detach(), [leaf.grad for leaf in leaves]

        return run

    return build


def jax_calls(formula: Callable[..., Any]) -> Build:
    """The formula under jit."""

    def build(*inputs: np.ndarray) -> Callable[[], Any]:
        import jax

        operands, compiled = jax_arrays(inputs), jax.jit(formula)
        return lambda: jax.block_until_ready(compiled(*operands))

    return build


def jax_grad(formula: Callable[..., Any], wrt: Sequence[int] | None = None) -> Build:
    """Value and gradients in one jitted function."""

    def both(*operands: Any) -> Any:
        import jax
        import jax.numpy as jnp

        chosen = range(len(operands)) if wrt is None else wrt

        def partial(*leaves: Any) -> Any:
            given = list(operands)
            for k, leaf in zip(chosen, leaves, strict=True):
                given[k] = leaf
            return formula(*given)

        value, pull = jax.vjp(partial, *[operands[k] for k in chosen])
        return value, pull(jnp.ones_like(value))

    return jax_calls(both)


def batch_last(formula: Callable[..., Any]) -> Callable[..., Any]:
    """A formula over arrays whose last dim is the batch, for arrays whose first dim is: the work that ours does."""

    def outer(*operands: Any) -> Any:
        import jax.numpy as jnp

        results = formula(*[jnp.moveaxis(x, 0, -1) for x in operands])
        if isinstance(results, tuple):
            return tuple(jnp.moveaxis(x, -1, 0) for x in results)
        return jnp.moveaxis(results, -1, 0)

    return outer
