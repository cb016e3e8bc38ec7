# SPDX-License-Identifier: MIT
"""Every pass of an op as an opaque operator of ``torch.library``, for compiled code, exports and dispatch modes.

An operator takes the operands, key and index of a Draw in place of the noise, the attributes, ``packed`` and the sizes
that no operand shows; a vjp also which cotangents are wanted, of which it returns a list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .._op import Op, Pass
from .._operands import code_attributes
from ._draw import Draw
from ._eager import NO_DERIVATIVE, NO_SECOND
from ._plan import plan
from ._run import run

__all__ = ["Form", "register"]

_LIBRARY = torch.library.Library("reparam", "DEF")
_DEVICES = ("CPU", "CUDA")


class Form:
    """How the arguments of an operator stand for those of a pass."""

    def __init__(self, p: Pass) -> None:
        self.p, self.op = p, p.op
        self.count = len(p.inputs)
        self.primals = p.primals
        self.drawn = next((k for k, o in enumerate(p.inputs) if o.drawable), None)
        self.settings = (*p.op.attributes, *(("packed",) if p.packed else ()), *p.free_symbols)
        if p.reverse and p.op.name == "cholesky":
            self.settings = ()  # its vjp takes none

    def schema(self, name: str) -> str:
        """The operator's signature in torch's language."""
        p, op = self.p, self.op
        marks = iter("abc")
        parts = []
        for k, o in enumerate(p.inputs):
            kind = f"Tensor({next(marks)}!)" if o.in_place else "Tensor?" if o.drawable or k >= p.primals else "Tensor"
            parts.append(f"{kind} {o.name}")
        if self.drawn is not None:
            parts += ["Tensor? key", "Tensor? index"]
        for setting in self.settings:
            kind = "SymInt?" if setting in p.free_symbols else "bool" if self._is_bool(setting) else "float"
            kind = "str" if setting in op.choices else "float?" if setting == "jitter" else kind
            parts.append(f"{kind} {setting}")
        if p.reverse:
            return f"{name}({', '.join([*parts, 'bool[] wanted'])}) -> Tensor[]"
        made = ", ".join(["Tensor"] * len(p.outputs))
        return f"{name}({', '.join(parts)}) -> {made if len(p.outputs) == 1 else f'({made})'}"

    def _is_bool(self, setting: str) -> bool:
        return setting == "packed" or isinstance(self.op.defaults[setting], bool)

    def read(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any], Sequence[bool] | None]:
        """The operands, the settings and what is wanted."""
        args, rest = list(values[: self.count]), list(values[self.count :])
        if self.drawn is not None:
            key, index = rest[:2]
            rest = rest[2:]
            if args[self.drawn] is None:
                args[self.drawn] = Draw(key, index)
        settings = {k: v for k, v in zip(self.settings, rest, strict=False) if v is not None}
        return tuple(args), settings, rest[-1] if self.p.reverse else None


def _kernel(form: Form) -> Callable[..., Any]:
    """What runs where the tensors have memory."""
    p = form.p
    names = [o.name.removeprefix("ct_") for o in p.outputs]

    def kernel(*values: Any) -> Any:
        args, settings, wanted = form.read(values)
        if wanted is not None:
            settings["wrt"] = tuple(n for n, w in zip(names, wanted, strict=True) if w)
        made = run(p, args, settings)
        if wanted is not None:
            return [x for x in made if x is not None]
        return made[0] if len(p.outputs) == 1 else made if p.outputs else None

    return kernel


def _fake(form: Form) -> Callable[..., Any]:
    """What tells shapes and dtypes where they have none."""
    whole = form.p

    def fake(*values: Any) -> Any:
        args, settings, wanted = form.read(values)
        p = whole.packed if settings.pop("packed", False) else whole
        assert p is not None
        extents = {s: settings.pop(s) for s in p.free_symbols if s in settings}
        if p.op.name != "cholesky":
            code_attributes(p, settings)
        results = plan(p, args, extents).results
        like = next(x for x in values if isinstance(x, torch.Tensor))
        made = [like.new_empty(shape, dtype=dtype) for shape, dtype in results]
        if wanted is not None:
            return [x for x, w in zip(made, wanted, strict=True) if w]
        return made[0] if len(made) == 1 else tuple(made) if made else None

    return fake


def _define(form: Form, name: str) -> Any:
    _LIBRARY.define(form.schema(name), tags=(torch.Tag.pt2_compliant_tag,))
    kernel = _kernel(form)
    for device in _DEVICES:
        _LIBRARY.impl(name, kernel, device)
    torch.library.register_fake(f"reparam::{name}", _fake(form), lib=_LIBRARY)
    return getattr(torch.ops.reparam, name).default


def register(op: Op) -> Any:
    """The operator of an op, with its autograd formula."""
    form = Form(op.forward_pass)
    target = _define(form, op.name)
    if op.vjp is None:
        if op.outputs:
            _without_gradient(op.name, NO_DERIVATIVE.format(op.name))
        return target
    assert op.vjp_pass is not None
    reverse = Form(op.vjp_pass)
    vjp = _define(reverse, f"{op.name}_vjp")
    _without_gradient(f"{op.name}_vjp", NO_SECOND.format(op.name))
    count, real = form.count, [o.item == "real" for o in op.outputs]
    from_outputs = op.vjp_from == "outputs"
    kept = len(form.settings) if reverse.settings else 0

    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        drawn = inputs[count : count + 2] if form.drawn is not None else ()
        ctx.save_for_backward(*(outputs[:1] if from_outputs else inputs[:count]), *drawn)
        ctx.settings = inputs[len(inputs) - kept :]
        ctx.length = len(inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*[x for x, is_real in zip(outputs, real, strict=True) if not is_real])

    def backward(ctx: Any, *cotangents: Any) -> Any:
        saved, primals = ctx.saved_tensors, reverse.primals
        wanted = list(ctx.needs_input_grad[:count])
        cts = [ct for ct, is_real in zip(cotangents, real, strict=True) if is_real]
        made = iter(vjp(*saved[:primals], *cts, *saved[primals:], *ctx.settings, wanted))
        return (*(next(made) if w else None for w in wanted), *[None] * (ctx.length - count))

    torch.library.register_autograd(f"reparam::{op.name}", backward, setup_context=setup_context, lib=_LIBRARY)
    return target


def _without_gradient(name: str, text: str) -> None:
    """Who asks for it is told so: without a formula the gradient would be silently zero."""

    def backward(_ctx: Any, *_: Any) -> Any:
        raise RuntimeError(text)

    torch.library.register_autograd(f"reparam::{name}", backward, lib=_LIBRARY)
