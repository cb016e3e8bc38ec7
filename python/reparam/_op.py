# SPDX-License-Identifier: MIT
"""The table of operations: an op is a signature and a definition for one event, readable as mathematics.

A definition takes the inputs, then its attributes as numbers (of a choice its place, of a bool 0 or 1), then the
outputs as arrays to fill. It is written over the value type of the C++ bodies: a scalar, or an array of events on a
trailing axis. So one text is the specification and the reference backend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._signature import Operand, parse_signature

__all__ = ["OPS", "Op", "Pass", "op", "real_positive", "select", "without_out"]

Array = NDArray[Any]
Body = Callable[..., None]

Dispatcher = Callable[..., Any]
_dispatcher: list[Dispatcher] = []


def set_dispatcher(dispatcher: Dispatcher) -> None:
    """Install the function that runs ops (the dispatch layer lies above this one)."""
    _dispatcher[:] = [dispatcher]


class Pass:
    """One way to call an op: its operands in order, and the definitions that make the outputs.

    ``kind`` is ``"forward"``, ``"vjp"`` or ``"value_and_vjp"``; the outputs of the last are those of the forward, then
    those of the vjp. Inputs from ``primals`` on are output cotangents, outputs from ``values`` on are input cotangents.
    """

    def __init__(self, op: Op, kind: str, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], body: Any) -> None:
        self.op, self.kind, self.inputs, self.outputs, self.body = op, kind, inputs, outputs, body
        self.symbols = tuple(dict.fromkeys(s for o in (*op.inputs, *op.outputs) for s in o.symbols))
        self.name = op.name if kind == "forward" else f"{op.name}.{kind}"
        self.reverse = kind != "forward"
        self.primals = len(inputs) if kind == "forward" else len(inputs) - len(op.real(op.outputs))
        self.values = {"forward": len(outputs), "vjp": 0}.get(kind, len(op.outputs))
        leaves_out = kind == "vjp" and op.vjp_from == "inputs"  # the outputs: both reverse passes have one kernel
        self.left_out = (None,) * (len(op.real(op.outputs)) if leaves_out else 0)
        self.packed: Pass | None = None  # this pass on packed lower factors, where the op takes them
        self.unpacked = self
        self.in_place = any(o.in_place for o in inputs)
        shown = {s for o in inputs if not o.drawable for s in o.symbols}
        self.free_symbols = tuple(s for s in self.symbols if s not in shown)  # taken by keyword, if need be

    def allow_packed(self) -> None:
        """Make the pass whose lower factors lie as vectors of their triangles."""

        def flat(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
            return tuple(replace(o, kind="vec") if o.kind == "tril" else o for o in operands)

        self.packed = Pass(self.op, self.kind, flat(self.inputs), flat(self.outputs), self.body)
        self.packed.unpacked = self


class Op:
    """An operation: callable on arrays, with ``.vjp``, ``.signature`` and its definition.

    Made by :func:`op`; all of them stand in :data:`OPS`.
    """

    def __init__(self, spec: str, body: Body, settings: dict[str, Any]) -> None:
        self.name = body.__name__
        self.__name__ = self.name
        self.__qualname__ = self.name
        self.__module__ = body.__module__
        self.spec = spec
        attributes: dict[str, Any] = settings.get("attributes", {})
        self.attributes = tuple(attributes)
        self.choices = {k: v for k, v in attributes.items() if isinstance(v, tuple)}
        self.defaults = {k: v[0] if isinstance(v, tuple) else v for k, v in attributes.items()}
        self.limits: dict[str, tuple[float, float]] = settings.get("limits", {})
        names = [n for n in inspect.signature(body).parameters if n not in attributes]
        self.inputs, self.outputs = parse_signature(spec, names)
        self.vjp_from: str = settings.get("vjp_from", "inputs")
        self.oracle: Callable[..., Any] | None = settings.get("oracle")
        self.samples: Callable[..., Any] | None = settings.get("samples")
        self.result: Callable[..., Any] | None = settings.get("result")
        self.packable: bool = settings.get("packable", False)
        self._two_calls: Dispatcher | None = settings.get("two_calls")
        self.forward_pass = self._make_pass("forward", self.inputs, self.outputs, body)
        self.vjp_pass: Pass | None = None
        self.value_and_vjp_pass: Pass | None = None
        self.__signature__ = self._python_signature(self.forward_pass)
        self.__doc__ = forward_doc(self.forward_pass, body.__doc__ or "")
        self.vjp: Any = None  # None, or vjp(*inputs, *output_cotangents) -> input cotangents
        self.value_and_vjp: Any = None  # None, or value_and_vjp(same) -> (outputs, input cotangents)

    def _make_pass(self, kind: str, inputs: Any, outputs: Any, body: Any) -> Pass:
        made = Pass(self, kind, inputs, outputs, body)
        if self.packable:
            made.allow_packed()
        return made

    @property
    def signature(self) -> str:
        """The plain gufunc form, such as ``(d),(d),(d,d)->()``."""

        def side(operands: tuple[Operand, ...]) -> str:
            return ",".join(f"({o.event_text().replace(' ', '')})" if o.kind != "vec" else "(p)" for o in operands)

        return f"{side(self.inputs)}->{side(self.outputs)}"

    def defvjp(self, body: Body) -> Body:
        """Register the definition of the reverse pass: inputs, output cotangents, input cotangents."""
        primal = self.inputs if self.vjp_from == "inputs" else self.real(self.outputs)
        cts = tuple(o.cotangent() for o in self.real(self.outputs))
        results = tuple(o.cotangent() for o in self.real(self.inputs))
        self.vjp_pass = self._make_pass("vjp", (*primal, *cts), results, body)
        self.vjp = self._caller(self.vjp_pass)
        whole = self._make_pass("value_and_vjp", (*self.inputs, *cts), (*self.outputs, *results), None)
        self.value_and_vjp = self._caller(whole, self._two_calls)
        if self._two_calls is None:
            self.value_and_vjp_pass = whole
        return body

    def _caller(self, p: Pass, run: Dispatcher | None = None) -> Callable[..., Any]:
        """The function that users call for a reverse pass; ``run`` stands for the dispatcher."""

        def call(*args: Any, out: Any = None, **keywords: Any) -> Any:
            return (run or _dispatcher[0])(p, args, out, keywords)

        call.__name__ = p.kind
        call.__qualname__, call.__module__ = p.name, self.__module__  # by which pickle finds it
        call.__doc__ = reverse_doc(p)
        call.__signature__ = self._python_signature(p)  # type: ignore[attr-defined]
        return call

    def _python_signature(self, p: Pass) -> inspect.Signature:
        kind = inspect.Parameter
        made = [kind(o.name, kind.POSITIONAL_OR_KEYWORD) for o in p.inputs]
        made += [kind(s, kind.KEYWORD_ONLY) for s in p.free_symbols]
        for name, value in self.defaults.items():
            made.append(kind(name, kind.KEYWORD_ONLY, default=kind.empty if value is None else value))
        if p.packed:
            made.append(kind("packed", kind.KEYWORD_ONLY, default=False))
        if p.reverse:
            made.append(kind("wrt", kind.KEYWORD_ONLY, default=None))
        if p.outputs:
            made.append(kind("out", kind.KEYWORD_ONLY, default=None))
        return inspect.Signature(made)

    @staticmethod
    def real(operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
        """Those of the floating type, which alone have cotangents."""
        return tuple(o for o in operands if o.item == "real")

    def __call__(self, *args: Any, out: Any = None, **attributes: Any) -> Any:
        """Run the op on arrays of shape ``batch_shape + event_shape``."""
        return _dispatcher[0](self.forward_pass, args, out, attributes)

    def __repr__(self) -> str:
        return f"<op {self.name}: {self.signature}>"

    def __reduce__(self) -> str:
        return self.name  # there is one of each: a pickle and a copy name it


_PACKED_DOC = "packed : bool\n    Whether lower factors and their cotangents are (..., d (d + 1) / 2), row after row."
_OUT_DOC = "out : array or tuple of arrays, optional\n    Where to write the results."
_RAISES_DOC = "Raises\n------\nTypeError, ValueError\n    Naming the argument, what came and what was expected."


def forward_doc(p: Pass, text: str) -> str:
    """The text of the definition, and what all ops share."""
    head, notes, rest = inspect.cleandoc(text).partition("\n\nNotes\n-----")
    shared = [_PACKED_DOC] if p.packed else []
    shared += [_OUT_DOC] if p.outputs else []
    others = "\n".join(["\n\nOther Parameters", "-" * 16, *shared]) if shared else ""
    return f"{head}{others}\n\n{_RAISES_DOC}{notes}{rest}\n"


def without_out(op: Op) -> tuple[str, inspect.Signature]:
    """Text and signature of an op for the functions of a framework, which take no ``out``."""
    text = (op.__doc__ or "").replace(f"\n\nOther Parameters\n{'-' * 16}\n{_OUT_DOC}", "").replace(f"\n{_OUT_DOC}", "")
    shown = [x for x in op.__signature__.parameters.values() if x.name != "out"]
    return text, op.__signature__.replace(parameters=shown)


def reverse_doc(p: Pass) -> str:
    """Parameters and results of a reverse pass, from its operands."""

    def shape(o: Operand) -> str:
        item = "" if o.item == "real" else f"{o.item} "
        return f"{item}array, shape (...{', ' if o.symbols else ''}{o.event_text()})"

    def result(o: Operand) -> str:
        space = {"tril": "\n    Lower triangular, zero above.", "sym": "\n    Symmetric."}.get(o.kind, "")
        return f"{o.name} : {shape(o)}{space}"

    name = p.op.name
    head = f"Cotangents of the inputs of ``{name}``, each of its own input's shape, summed over broadcast dims."
    if p.values:
        head = f"Outputs of ``{name}`` and the cotangents of its inputs in one call, as ``(outputs, cotangents)``."
    taken = [f"{o.name} : {shape(o)}" + " or Draw" * o.drawable for o in p.inputs[: p.primals]]
    taken += [f"{o.name} : {shape(o)} or None\n    None stands for zero." for o in p.inputs[p.primals :]]
    taken += [f"{', '.join(p.op.attributes)}\n    As in the forward call."] if p.op.attributes else []
    taken += [_PACKED_DOC] if p.packed else []
    names = ", ".join(o.name for o in p.op.real(p.op.inputs))
    taken.append(
        f"wrt : tuple of str, optional\n    Inputs whose cotangents are wanted, of {names}; None for the others.\n"
        "    Only the native kernels leave their work out."
    )
    taken.append("out : array or tuple of arrays, optional\n    Where to write the results, in their order.")
    results = "\n".join(map(result, p.outputs))
    sections = f"Parameters\n----------\n{chr(10).join(taken)}\n\nReturns\n-------\n{results}"
    return f"{head}\n\n{sections}\n\n{_RAISES_DOC}\n"


OPS: dict[str, Op] = {}


def op(spec: str, **settings: Any) -> Callable[[Body], Op]:
    """Make an op of a one-event definition and enter it into :data:`OPS`.

    Parameters
    ----------
    spec : str
        The signature; CONTRIBUTING.md has the grammar.
    **settings : object
        ``attributes``: dict from name to default, or to the tuple of choices whose first is the default. ``limits``:
        from name to the interval ``[low, high)`` of a number. ``vjp_from``: ``"inputs"`` or ``"outputs"``. ``oracle``:
        function of the inputs, in float64, that tests hold the op against. ``packable``: whether it takes lower factors
        as their packed triangles too. ``samples``: function
        ``(rng, batch_shape, extents)`` to inputs, where the kinds alone do not say enough. ``result``: what to make of
        the tuple of outputs. ``two_calls``: what runs ``value_and_vjp`` where the vjp reads the outputs of the forward
        call; it takes what the dispatcher does.
    """

    def make(body: Body) -> Op:
        made = Op(spec, body, settings)
        OPS[made.name] = made
        return made

    return make


SCALAR_FORMS: dict[Any, Any] = {}


def scalar_form(function: Any) -> Callable[[Any], Any]:
    """Register what stands for a helper of the definitions where lanes are scalars and its own text cannot."""

    def register(form: Any) -> Any:
        SCALAR_FORMS[function] = form
        return form

    return register


def select(condition: Any, yes: Any, no: Any) -> Any:
    """Choose by lane."""
    return np.where(condition, yes, no)


@scalar_form(select)
def _(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def real_positive(x: Any) -> Any:
    """Whether x > 0, false for NaN; of a complex-step number, whether its real part is."""
    return x.real > 0
