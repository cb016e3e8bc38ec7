# SPDX-License-Identifier: MIT
"""The table of operations: an op is a signature and a definition for one event, readable as mathematics.

A definition takes the inputs, then its attributes as numbers (of a choice its place, of a bool 0 or 1), then the
outputs as arrays to fill. It is written over the value type of the C++ bodies: a scalar, or an array of events on a
trailing axis. So one text is the specification and the reference backend.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OPS", "Op", "Operand", "op", "real_positive", "select"]

Array = NDArray[Any]
Body = Callable[..., None]

_OPERAND = re.compile(r"(tril|sym|vec)?\(([a-z]?(?:,[a-z])*)\)(:[iu][48])?(!)?")
_ITEMS = {None: "real", ":i4": "int32", ":u4": "uint32", ":u8": "uint64"}


@dataclass(frozen=True)
class Operand:
    """One operand of a pass: its name, kind, event symbols and element type."""

    name: str
    kind: str  # scalar, vector, rows, tril, sym, vec
    symbols: tuple[str, ...]
    item: str = "real"
    in_place: bool = False

    @property
    def event_rank(self) -> int:
        """Number of event dims."""
        return {"scalar": 0, "vector": 1, "vec": 1}.get(self.kind, 2)

    def event_shape(self, extents: dict[str, int]) -> tuple[int, ...]:
        """Event shape for these extents."""
        if self.kind in {"tril", "sym"}:
            return (extents[self.symbols[0]],) * 2
        if self.kind == "vec":
            d = extents[self.symbols[0]]
            return (d * (d + 1) // 2,)
        return tuple(extents[s] for s in self.symbols)

    def event_text(self) -> str:
        """Event dims as users read them: ``d, d``."""
        if self.kind in {"tril", "sym"}:
            return f"{self.symbols[0]}, {self.symbols[0]}"
        if self.kind == "vec":
            return f"{self.symbols[0]}({self.symbols[0]}+1)/2"
        return ", ".join(self.symbols)

    @property
    def takes_number(self) -> bool:
        """Whether a Python number may stand in its place."""
        return self.event_rank == 0 and self.item == "real" and not self.in_place

    @property
    def drawable(self) -> bool:
        """Whether a Draw may stand in its place."""
        return self.name == "noise" and self.kind == "rows"

    def cotangent(self) -> Operand:
        """The operand that holds this one's cotangent."""
        return replace(self, name=f"ct_{self.name}", in_place=False)


def parse_signature(spec: str, names: list[str]) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """Inputs and outputs of a signature; ``names`` are the body's arguments."""
    sides = spec.split("->")
    operands: list[list[Operand]] = []
    rest = iter(names)
    for side in sides:
        found = []
        for word, symbols, item, in_place in _OPERAND.findall(side):
            letters = tuple(s for s in symbols.split(",") if s)
            kind = word or ("scalar", "vector", "rows")[len(letters)]
            found.append(Operand(next(rest), kind, letters, _ITEMS[item or None], bool(in_place)))
        operands.append(found)
    return tuple(operands[0]), tuple(operands[1])


Dispatcher = Callable[..., Any]
_dispatcher: list[Dispatcher] = []


def set_dispatcher(dispatcher: Dispatcher) -> None:
    """Install the function that runs ops (the dispatch layer lies above this one)."""
    _dispatcher[:] = [dispatcher]


class Pass:
    """Forward or vjp of an op as a flat list of operands in the order of the body."""

    def __init__(
        self, op: Op, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], body: Body, vjp: bool
    ) -> None:
        self.op, self.inputs, self.outputs, self.body, self.vjp = op, inputs, outputs, body, vjp
        self.symbols = tuple(dict.fromkeys(s for o in (*op.inputs, *op.outputs) for s in o.symbols))
        self.name = f"{op.name}.vjp" if vjp else op.name
        self.in_place = any(o.in_place for o in inputs)
        shown = {s for o in inputs if not o.drawable for s in o.symbols}
        self.free_symbols = tuple(s for s in self.symbols if s not in shown)  # taken by keyword, if need be


class Op:
    """An operation: callable on arrays, with ``.vjp``, ``.signature`` and its definition.

    Made by :func:`op`; all of them stand in :data:`OPS`.
    """

    def __init__(self, spec: str, body: Body, settings: dict[str, Any]) -> None:
        self.name = body.__name__
        self.__name__ = self.name
        self.__qualname__ = self.name
        self.__doc__ = body.__doc__
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
        self.forward_pass = Pass(self, self.inputs, self.outputs, body, vjp=False)
        self.vjp_pass: Pass | None = None
        self.__signature__ = self._python_signature(self.forward_pass)
        self.vjp: Any = None  # None, or vjp(*inputs, *output_cotangents) -> input cotangents

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
        vjp_pass = self.vjp_pass = Pass(self, (*primal, *cts), results, body, vjp=True)

        def vjp(*args: Any, out: Any = None, **attributes: Any) -> Any:
            return _dispatcher[0](vjp_pass, args, out, attributes)

        vjp.__name__ = vjp_pass.name.rpartition(".")[2]
        vjp.__qualname__, vjp.__module__ = vjp_pass.name, self.__module__  # by which pickle finds it
        vjp.__doc__ = self._vjp_doc(vjp_pass)
        vjp.__signature__ = self._python_signature(vjp_pass)  # type: ignore[attr-defined]
        self.vjp = vjp
        return body

    def _python_signature(self, p: Pass) -> inspect.Signature:
        kind = inspect.Parameter
        made = [kind(o.name, kind.POSITIONAL_OR_KEYWORD) for o in p.inputs]
        made += [kind(s, kind.KEYWORD_ONLY) for s in p.free_symbols]
        for name, value in self.defaults.items():
            made.append(kind(name, kind.KEYWORD_ONLY, default=kind.empty if value is None else value))
        if p.outputs:
            made.append(kind("out", kind.KEYWORD_ONLY, default=None))
        return inspect.Signature(made)

    def _vjp_doc(self, p: Pass) -> str:
        """Parameters and results of the reverse pass, from the operands."""

        def shape(o: Operand) -> str:
            return f"array, shape (...{', ' if o.symbols else ''}{o.event_text()})"

        def result(o: Operand) -> str:
            space = {"tril": "\n    Lower triangular, zero above.", "sym": "\n    Symmetric."}.get(o.kind, "")
            return f"{o.name} : {shape(o)}{space}"

        head = (
            f"Cotangents of the inputs of ``{self.name}``, each of its own input's shape, summed over broadcast dims."
        )
        taken = [f"{o.name} : {shape(o)}" for o in p.inputs]
        keywords = [f"{', '.join(self.attributes)}\n    As in the forward call."] if self.attributes else []
        keywords.append("out : array or tuple of arrays, optional\n    Where to write the results.")
        parameters, results = "\n".join(taken + keywords), "\n".join(map(result, p.outputs))
        return f"{head}\n\nParameters\n----------\n{parameters}\n\nReturns\n-------\n{results}\n"

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
        function of the inputs, in float64, that tests hold the op against. ``samples``: function
        ``(rng, batch_shape, extents)`` to inputs, where the kinds alone do not say enough. ``result``: what to make of
        the tuple of outputs.
    """

    def make(body: Body) -> Op:
        made = Op(spec, body, settings)
        OPS[made.name] = made
        return made

    return make


def select(condition: Any, yes: Any, no: Any) -> Any:
    """Choose by lane."""
    return np.where(condition, yes, no)


def real_positive(x: Any) -> Any:
    """Whether x > 0, false for NaN; of a complex-step number, whether its real part is."""
    return x.real > 0
