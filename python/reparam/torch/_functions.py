# SPDX-License-Identifier: MIT
"""Every op of the table as a function on tensors, made by one loop."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from .._check import is_weak
from .._op import OPS, Op, without_out
from .._operands import Draw as DrawOfArrays
from ..ops import cholesky
from ._draw import Draw, as_constant, as_pair
from ._eager import NO_TRANSFORM, Call, modes, transforming
from ._library import Form, register
from ._run import run
from ._tensors import is_dual, is_foreign, refuse_operands, widened

__all__ = ["FUNCTIONS"]

RAW = {"bits", "normal"}  # words of numbered streams: torch has no arithmetic on uint64, and random numbers of its own

_NO_FORWARD_MODE = "{} has no forward-mode derivative; take gradients by backward or torch.autograd.grad"


def _make(op: Op) -> Callable[..., Any]:
    """The function of an op."""
    p, result = op.forward_pass, op.result
    names = tuple(o.name for o in p.inputs)
    own = (*op.attributes, *(("packed",) if op.packable else ()), *p.free_symbols)
    written = tuple((k, o.name) for k, o in enumerate(p.inputs) if o.in_place)
    alone = len(op.outputs) == 1 and result is None
    function: Any = type(op.name, (Call,), {})
    by_operator, apply = _by_operator(op), function.apply

    def call(*args: Any, **keywords: Any) -> Any:
        if keywords:
            args, keywords = _bind(op.name, names, own, args, keywords)
        if written:
            _refuse_gradients(op.name, written, args)
        made: Any
        if torch.compiler.is_compiling():
            if forward_ad._current_level >= 0:  # operators would give tangents of zero
                raise NotImplementedError(_NO_FORWARD_MODE.format(op.name))
            made = by_operator(args, keywords)
        else:
            if transforming():
                raise RuntimeError(NO_TRANSFORM.format(op.name))
            if forward_ad._current_level >= 0 and any(map(is_dual, args)):
                raise NotImplementedError(_NO_FORWARD_MODE.format(op.name))
            made = by_operator(args, keywords) if modes() else _eagerly(op, by_operator, apply, args, keywords)
        if alone:
            return made[0]
        return result(*made) if result else made or None

    call.__code__ = call.__code__.replace(co_name=op.name)  # one for each op: Dynamo counts recompilations by it
    call.__name__ = call.__qualname__ = op.name
    call.__module__ = "reparam.torch"
    text, call.__signature__ = without_out(op)  # type: ignore[attr-defined]
    call.__doc__ = _of_tensors(text)
    return call


_NOT_HERE = [
    (" Its vjp takes the factor in place of ``a``:\n    ``cholesky.vjp(scale_tril, ct_scale_tril)``.", ""),
    ("\nNotPositiveDefiniteError\n    With", "\ntorch.linalg.LinAlgError\n    Whose ``__cause__`` has"),
    (" With ``out``, it then holds NaN for those.", ""),
]


def _of_tensors(text: str) -> str:
    """The text of an op, as it is of tensors."""
    for told, instead in _NOT_HERE:
        text = text.replace(told, instead)
    return re.sub(r"\barray", "tensor", text)


def _eagerly(op: Op, by_operator: Any, apply: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """A call on plain tensors; what is seldom is asked for when such a call has failed."""
    try:
        return _on_memory(op, apply, args, keywords)
    except (TypeError, RuntimeError):
        if any(is_foreign(x) for x in args):
            return by_operator(args, keywords)
        wider = widened(args)
        if wider is None:
            refuse_operands(op.forward_pass, args)
            raise
    return _on_memory(op, apply, wider, keywords)


def _on_memory(op: Op, apply: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if op.forward_pass.in_place:
        return _update(op, args, keywords)
    if torch.is_grad_enabled():
        for x in args:
            if isinstance(x, torch.Tensor) and x.requires_grad:
                drawn = [as_constant(f"{op.name}: noise", x) if isinstance(x, Draw) else x for x in args]
                return apply(op, keywords, *drawn)
    return run(op.forward_pass, args, keywords)


def _bind(name: str, names: tuple[str, ...], own: tuple[str, ...], args: Any, keywords: dict[str, Any]) -> Any:
    """Operands given by name in their places, as far as none is missing before."""
    ordered, rest = list(args), dict(keywords)
    for operand in names[len(args) :]:
        if operand not in rest:
            break
        ordered.append(rest.pop(operand))
    for given in rest:
        if given not in own and given not in names:
            raise TypeError(f"{name} got an unexpected keyword {given!r}; it takes {', '.join((*names, *own))}")
    return tuple(ordered), rest


def _update(op: Op, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """Run an op that updates operands in place, of which autograd is told."""
    run(op.forward_pass, args, keywords)
    torch.autograd.graph.increment_version([x for o, x in zip(op.inputs, args, strict=True) if o.in_place])
    return ()


def _refuse_gradients(name: str, written: tuple[tuple[int, str], ...], args: tuple[Any, ...]) -> None:
    """Refuse an update in place that autograd would have to know of."""
    if torch.is_grad_enabled():
        for k, operand in written:
            if k < len(args) and isinstance(args[k], torch.Tensor) and args[k].requires_grad:
                raise RuntimeError(
                    f"{name}: {operand} is updated in place and requires grad; call it under torch.no_grad()"
                )


def _by_operator(op: Op) -> Callable[..., Any]:
    """Call the operator of torch.library; code that Dynamo traces."""
    target, form, p = register(op), Form(op.forward_pass), op.forward_pass
    count, drawn, settings = form.count, form.drawn, form.settings
    names = tuple(o.name for o in p.inputs)
    defaults = {**op.defaults, "packed": False, **dict.fromkeys(p.free_symbols)}
    needed = tuple(k for k, v in op.defaults.items() if v is None and k != "jitter")
    single = len(op.outputs) == 1

    def call(args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if len(args) != count:
            raise TypeError(f"{op.name} takes {count} arguments ({', '.join(names)}), got {len(args)}")
        for name in needed:
            if name not in keywords:
                raise TypeError(f"{op.name} needs the keyword {name}")
        wider = widened(args)
        operands = list(args if wider is None else wider)
        noise = []
        if drawn is not None:
            noise = [None, None]
            if isinstance(operands[drawn], (Draw, DrawOfArrays)):
                noise = list(as_pair(f"{op.name}: {names[drawn]}", operands[drawn]))
                operands[drawn] = None
        like = None
        for x in operands:
            if isinstance(x, torch.Tensor):
                like = x
        for k, x in enumerate(operands):
            if is_weak(x):
                operands[k] = (
                    torch.full((), x) if like is None else torch.full((), x, dtype=like.dtype, device=like.device)
                )
        made = target(*operands, *noise, *[keywords.get(k, defaults[k]) for k in settings])
        return (made,) if single else made

    return call


FUNCTIONS = {op.name: _make(op) for op in (*OPS.values(), cholesky) if op.name not in RAW}
