# SPDX-License-Identifier: MIT
"""The one shape language: ``"(d)~,(d),tril(d)->(d)"``; CONTRIBUTING.md has the grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_OPERAND = re.compile(r"(tril|sym|vec)?\(([a-z]?(?:,[a-z])*)\)(:[iu][48])?([!~])?")
_ITEMS = {None: "real", ":i4": "int32", ":u4": "uint32", ":u8": "uint64"}


@dataclass(frozen=True)
class Operand:
    """One operand of a pass: its name, kind, event symbols and element type."""

    name: str
    kind: str  # scalar, vector, rows, tril, sym, vec
    symbols: tuple[str, ...]
    item: str = "real"
    in_place: bool = False
    drawable: bool = False  # a Draw may stand in its place

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

    def cotangent(self) -> Operand:
        """The operand that holds this one's cotangent."""
        return replace(self, name=f"ct_{self.name}", in_place=False, drawable=False)


def parse_signature(spec: str, names: list[str]) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """Inputs and outputs of a signature; ``names`` are the body's arguments."""
    sides = spec.split("->")
    operands: list[list[Operand]] = []
    rest = iter(names)
    for side in sides:
        found = []
        for word, symbols, item, mark in _OPERAND.findall(side):
            letters = tuple(s for s in symbols.split(",") if s)
            kind = word or ("scalar", "vector", "rows")[len(letters)]
            found.append(Operand(next(rest), kind, letters, _ITEMS[item or None], mark == "!", mark == "~"))
        operands.append(found)
    return tuple(operands[0]), tuple(operands[1])
