# SPDX-License-Identifier: MIT
"""A call of an op of which a gradient is wanted: a plain ``autograd.Function``, the fastest that torch has."""

from __future__ import annotations

from typing import Any

import torch

from .._op import Op
from ..ops import cholesky, cholesky_ex
from ._run import run

__all__ = ["NO_DERIVATIVE", "NO_SECOND", "NO_TRANSFORM", "Call", "modes", "refuse_transforms", "transforming"]

NO_DERIVATIVE = (
    "{} has no derivative: it returns values and gradients themselves; call it under torch.no_grad(), or detach its "
    "inputs"
)
NO_SECOND = "{} has no second derivative: its gradients cannot be differentiated again"
NO_TRANSFORM = (
    "{} runs compiled kernels, which transforms of torch.func (grad, vmap, jvp) cannot follow: give the axis of vmap "
    "as a batch dim, and take gradients by backward or torch.autograd.grad"
)
_NO_BATCH = (
    "{} takes one cotangent at a time: call jacobian with vectorize=False, or torch.autograd.grad without "
    "is_grads_batched for each of them"
)


# Private to torch. Where one is missing there is no fast path: torch's dispatcher decides in each call.
_NAMES = ("_are_functorch_transforms_active", "_len_torch_dispatch_stack")
_private: Any = [getattr(torch._C, name, None) for name in _NAMES]
_is_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: False)  # torch itself fails later
transforming, modes = _private if all(_private) else (lambda: False, lambda: 1)


def refuse_transforms(name: str) -> None:
    """Refuse an eager call under a transform of torch.func, before anything looks at values."""
    if not torch.compiler.is_compiling() and transforming():
        raise RuntimeError(NO_TRANSFORM.format(name))


_SMALL = 4096  # elements, up to which all cotangents cost less than the choice of some


class _Once(torch.autograd.Function):
    """Gradients as they are; who differentiates them is told that there is no second derivative."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *grads: Any) -> Any:
        """Aliases of the first so many, which depend on the others."""
        ctx.name = name
        return tuple([None if x is None else x.view_as(x) for x in grads[:count]])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raise."""
        raise RuntimeError(NO_SECOND.format(ctx.name))


class Call(torch.autograd.Function):
    """One call; each op has a subclass of its name, which users see as ``grad_fn``."""

    @staticmethod
    def forward(ctx: Any, op: Op, keywords: dict[str, Any], *args: Any) -> Any:
        """Run the op, and keep what its vjp takes."""
        made = run(op.forward_pass, args, keywords)
        ctx.op, ctx.keywords = op, keywords
        if op.vjp is None:
            return made
        ctx.set_materialize_grads(False)
        saved = made[:1] if op.vjp_from == "outputs" else args
        tensor = torch.Tensor
        ctx.others = None
        if not all(isinstance(x, tensor) for x in saved):
            ctx.others = [None if isinstance(x, tensor) else x for x in saved]
            saved = tuple([x if isinstance(x, tensor) else None for x in saved])
        ctx.save_for_backward(*saved)
        if op is cholesky_ex:
            ctx.mark_non_differentiable(made[1])
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The vjp for the inputs that want it."""
        op = ctx.op
        if transforming() or any(map(_is_batch, cotangents)):
            raise RuntimeError(_NO_BATCH.format(op.name))
        if op.vjp is None:
            raise RuntimeError(NO_DERIVATIVE.format(op.name))
        if not torch.is_grad_enabled():
            return (None, None, *_gradients(ctx, op, cotangents))
        # To be differentiated again, perhaps. once_differentiable looks at the cotangents alone: gradients that
        # depend on the inputs alone would pass for a constant.
        with torch.no_grad():
            grads = _gradients(ctx, op, cotangents)
        return (None, None, *_Once.apply(op.name, len(grads), *grads, *cotangents, *ctx.saved_tensors))


def _is_batch(cotangent: Any) -> bool:
    """Whether it stands for many, as ``is_grads_batched`` makes them."""
    return cotangent is not None and _is_batched(cotangent)


def _gradients(ctx: Any, op: Any, cotangents: Any) -> Any:
    saved = ctx.saved_tensors
    if ctx.others is not None:
        saved = [y if x is None else x for x, y in zip(saved, ctx.others, strict=True)]
    if op is cholesky_ex:
        cotangents = cotangents[:1]
    keywords = {} if op is cholesky else ctx.keywords  # whose vjp takes no settings
    wanted = ctx.needs_input_grad[2:]
    if all(wanted):
        return run(op.vjp_pass, (*saved, *cotangents), keywords)
    if ctx.others is None and sum([x.numel() for x in saved]) <= _SMALL:
        made = run(op.vjp_pass, (*saved, *cotangents), keywords)
        return [x if w else None for x, w in zip(made, wanted, strict=True)]
    wrt = tuple([o.name for o, w in zip(op.inputs, wanted, strict=True) if w])
    return run(op.vjp_pass, (*saved, *cotangents), {**keywords, "wrt": wrt})
