# SPDX-License-Identifier: MIT
"""Every op of the table as a function on tensors, made by one loop.

Eagerly an op is a call of NumPy's front end on views of the tensors, inside an ``autograd.Function`` where a gradient
is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from .._check import NotPositiveDefiniteError
from .._op import OPS, Op
from ..ops import cholesky
from ._tensors import as_array, as_tensors, is_dual, refuse_operands

__all__ = ["FUNCTIONS"]

RAW = {"bits", "normal"}  # words of numbered streams: torch has no arithmetic on uint64, and random numbers of its own

_transforming = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def _results(op: Op, call: Callable[..., Any], args: Any, keywords: dict[str, Any]) -> tuple[Any, ...]:
    """The results of one call of the front end on tensors, as a tuple of tensors."""
    try:
        return as_tensors(call(*[as_array(x) for x in args], **keywords))
    except NotPositiveDefiniteError as error:
        raise torch.linalg.LinAlgError(str(error)) from error


class _Once(torch.autograd.Function):
    """Gradients as they are; who differentiates them again is told that there is no second derivative."""

    @staticmethod
    def forward(ctx: Any, name: str, *grads: Any) -> Any:
        """Aliases of the gradients, which are connected to the graph."""
        ctx.name = name
        return tuple(None if x is None else x.view_as(x) for x in grads)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raise."""
        raise RuntimeError(f"{ctx.name} has no second derivative: its gradients cannot be differentiated again")


class _Call(torch.autograd.Function):
    """A call of an op of which a gradient is wanted; ``op`` is set by the subclass of each."""

    op: Op

    @staticmethod
    def forward(ctx: Any, op: Op, keywords: dict[str, Any], *args: Any) -> Any:
        """Run the op, and save what its vjp takes."""
        made = _results(op, op, args, keywords)
        ctx.set_materialize_grads(False)
        ctx.op, ctx.keywords = op, keywords
        if op.vjp is None:
            return made
        saved = made[:1] if op.vjp_from == "outputs" else args
        ctx.save_for_backward(*[x if isinstance(x, torch.Tensor) else None for x in saved])
        ctx.others = [None if isinstance(x, torch.Tensor) else x for x in saved]
        ctx.mark_non_differentiable(*[x for x, o in zip(made, op.outputs, strict=True) if o.item != "real"])
        return made

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        """The vjp for the inputs that want it."""
        op = ctx.op
        if op.vjp is None:
            raise RuntimeError(
                f"{op.name} has no derivative: what it returns are values and gradients themselves; call it under "
                "torch.no_grad(), or detach its inputs"
            )
        with torch.no_grad():
            grads = _gradients(ctx, op, cotangents)
        if torch.is_grad_enabled():  # to be differentiated again; once_differentiable looks at the cotangents alone
            grads = _Once.apply(op.name, *[None if x is None else x.requires_grad_() for x in grads])
        return (None, None, *grads)


def _gradients(ctx: Any, op: Op, cotangents: Any) -> tuple[Any, ...]:
    saved = [y if x is None else x for x, y in zip(ctx.saved_tensors, ctx.others, strict=True)]
    real = [ct for ct, o in zip(cotangents, op.outputs, strict=True) if o.item == "real"]
    wanted = ctx.needs_input_grad[2:]
    keywords = (
        {k: v for k, v in ctx.keywords.items() if k not in {"check", "jitter"}} if op is cholesky else ctx.keywords
    )
    if not all(wanted):
        keywords = {**keywords, "wrt": tuple(o.name for o, w in zip(op.inputs, wanted, strict=True) if w)}
    return _results(op, op.vjp, (*saved, *real), keywords)


def _make(op: Op) -> Callable[..., Any]:
    """The function of an op."""
    function: Any = type(op.name, (_Call,), {})
    apply = function.apply
    names, result = tuple(o.name for o in op.inputs), op.result
    own = {*op.attributes, *op.forward_pass.free_symbols, *(("packed",) if op.packable else ())}
    alone = len(op.outputs) == 1 and result is None
    pass_, tensor = op.forward_pass, torch.Tensor

    def call(*args: Any, **keywords: Any) -> Any:
        if keywords:
            args, keywords = _bind(op, names, own, args, keywords)
        if _transforming():
            raise RuntimeError(_NO_TRANSFORM.format(op.name))
        wants_grad = False
        grad_mode = torch.is_grad_enabled()
        for x in args:
            if isinstance(x, tensor):
                wants_grad = wants_grad or (grad_mode and x.requires_grad)
        if forward_ad._current_level >= 0 and any(map(is_dual, args)):
            raise NotImplementedError(f"{op.name} has no forward-mode derivative; use reverse mode (backward)")
        try:
            made = apply(op, keywords, *args) if wants_grad else _results(op, op, args, keywords)
        except (TypeError, RuntimeError):
            refuse_operands(pass_, args)
            raise
        if alone:
            return made[0]
        return made if result is None else result(*made)

    call.__name__ = call.__qualname__ = op.name
    call.__module__ = "reparam.torch"
    call.__doc__ = op.__doc__
    signature = op.__signature__
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[x for x in signature.parameters.values() if x.name != "out"]
    )
    return call


_NO_TRANSFORM = (
    "{} runs compiled kernels, which transforms of torch.func (grad, vmap, jvp) cannot follow: give the axis of vmap as "
    "a batch dim, and take gradients by backward or torch.autograd.grad"
)


def _bind(op: Op, names: tuple[str, ...], own: set[str], args: Any, keywords: dict[str, Any]) -> Any:
    """Operands given by name in their places, as far as none is missing before."""
    ordered, rest = list(args), dict(keywords)
    for name in names[len(args) :]:
        if name not in rest:
            break
        ordered.append(rest.pop(name))
    unknown = [name for name in rest if name not in own and name not in names]
    if unknown:
        raise TypeError(f"{op.name} got an unexpected keyword {unknown[0]!r}; it takes {', '.join([*names, *own])}")
    return tuple(ordered), rest


FUNCTIONS = {op.name: _make(op) for op in (*OPS.values(), cholesky) if op.name not in RAW}
