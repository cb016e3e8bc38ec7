# SPDX-License-Identifier: MIT
"""``reparam selftest --full``: the worst error of each pass on each backend, in the measures of its promise."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

import reparam as rp

from .cases import Case
from .rows import MEASURES, SIZES, Row, rows

__all__ = ["run"]

DTYPES = ("float32", "float64")
CELL = 8  # characters


class Found(NamedTuple):
    """The worst error on a backend and its problem; or in ``text`` why there is none."""

    error: float
    where: str
    text: str = ""


def run(sizes: tuple[int, ...] = SIZES, backends: Sequence[str] | None = None) -> int:
    """Print the accuracy report, row by row as it is worked out.

    Parameters
    ----------
    sizes : tuple of int
        The event sizes d.
    backends : sequence of str, optional
        By default all of them.

    Returns
    -------
    int
        0 if every error is measured and within its limit, else 1; then stderr names each one that is not within it,
        and what is needed to measure the rest.
    """
    begin = time.perf_counter()
    names = [name for name in backends or rp.backends() if name != "native"]  # `native` is one of the `native:<isa>`
    all_rows = list(rows(sizes))
    width = max(len(row.name) for row in all_rows) + 2
    for line in _head(names, width):
        print(line)
    failures: list[str] = []
    lacking: set[str] = set()
    for row in all_rows:
        found = {dtype: _measure(row, dtype, names) for dtype in DTYPES}
        over = [text for dtype, cells in found.items() for text in _over(row, dtype, cells)]
        texts = {cell.text for cells in found.values() for cell in cells.values()}
        needs = {text for text in texts if text.startswith("needs")}
        print(_line(row, found, width) + ("  OVER" if over else "  OK" if "" in texts else "  -"), flush=True)
        failures += over
        lacking |= needs
    print()
    for name, measure in MEASURES.items():
        print(f"{name:10}" + measure.text.replace("\n", "\n" + " " * 10))
    seconds = time.perf_counter() - begin
    rest = f"; not measured: what {' or '.join(sorted(lacking))}" if lacking else ""
    print(f"\n{len(all_rows)} measures on {len(names)} backends in {seconds:.0f} s, {len(failures)} over{rest}")
    failures += [f"NOT MEASURED: what {text} (pip install {text.split()[-1]})" for text in sorted(lacking)]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


# ---- measuring


def _measure(row: Row, dtype: str, names: Sequence[str]) -> dict[str, Found]:
    """By backend: the worst of all problems of one element type."""
    if _limit(row, dtype) is None:
        return dict.fromkeys(names, Found(0.0, "", "-"))
    try:
        cases = list(row.cases(dtype))
    except ImportError as error:
        return dict.fromkeys(names, Found(0.0, "", f"needs {error.name}"))
    except Exception as error:
        return dict.fromkeys(names, _failed(error, "making the problems"))
    return {name: _worst(cases, name) for name in names}


def _worst(cases: list[Case], name: str) -> Found:
    telling = [case for case in cases if name not in case.itself]
    worst = Found(0.0, "", "" if telling else "-")
    with rp.backend(name):
        for case in telling:
            try:
                error = float(np.max(case.errors()))
            except Exception as raised:
                return _failed(raised, case.where)
            if not error <= worst.error:  # a NaN too
                worst = Found(error if error > 0 else np.inf, case.where)
    return worst


def _failed(error: Exception, where: str) -> Found:
    return Found(np.inf, f"{where}: {traceback.format_exception_only(error)[-1].strip()}", "failed")


def _limit(row: Row, dtype: str) -> float | None:
    measure = MEASURES[row.measure]
    return measure.float32 if dtype == "float32" else measure.float64


def _over(row: Row, dtype: str, cells: dict[str, Found]) -> Iterator[str]:
    """A line for each backend whose error is over the limit."""
    limit = _limit(row, dtype)
    for name, found in cells.items():
        if limit is not None and not found.error <= limit:
            number = _number(found.error)
            yield f"OVER: {row.name}, {row.measure}, {name}, {dtype}: {number}, limit {_number(limit)} ({found.where})"


# ---- the table


def _number(error: float) -> str:
    text = f"{error:.0f}" if 10 <= error < 1e4 else f"{error:.2g}" if 1e-3 <= error < 10 else f"{error:.1e}"
    return "0" if error == 0 else text.replace("e-0", "e-").replace("e+0", "e").replace(".0e", "e")


def _head(names: Sequence[str], width: int) -> Iterator[str]:
    columns = "limit".rjust(CELL) + "".join(name.removeprefix("native:").rjust(CELL) for name in names)
    columns = columns.replace("reference", "    ref.")
    yield " " * (width + 10) + "".join(dtype.center(len(columns)) for dtype in DTYPES).rstrip()
    yield "op, pass".ljust(width) + "measure".ljust(10) + columns * len(DTYPES)


def _line(row: Row, found: dict[str, dict[str, Found]], width: int) -> str:
    line = f"{row.name:{width}}{row.measure:10}"
    for dtype, cells in found.items():
        limit = _limit(row, dtype)
        line += ("-" if limit is None else _number(limit)).rjust(CELL)
        texts = [cell.text or _number(cell.error) for cell in cells.values()]
        if texts[0].startswith("needs"):
            line += f"  {texts[0]}".rjust(CELL * len(texts))
        else:
            line += "".join(text.rjust(CELL) for text in texts)
    return line
