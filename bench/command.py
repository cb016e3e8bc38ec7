# SPDX-License-Identifier: MIT
"""``reparam bench``: measure the roofs, then row after row, and report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..demo import UsageError
from . import contest, figures, libraries, machine, report, roofs, scaling, table, timing
from .row import NO_LIMIT, Row
from .worker import WorkerError

FILES = ("bench.json", "bench.csv")
SECONDS = {False: 3.0, True: 1.2}  # of timing for a row, by --quick, past its first rounds


@dataclass(frozen=True)
class Settings:
    """What ``reparam bench`` was asked for."""

    quick: bool = False
    op: tuple[str, ...] = ()
    rival: tuple[str, ...] = ()
    size: tuple[str, ...] = ()
    out: Path = Path("reparam-bench")
    compare: Path | None = None
    limit: int = NO_LIMIT


def run(settings: Settings) -> int:
    """Run the rows that were asked for.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    int
        0, or 1 if contestants disagree.

    Raises
    ------
    UsageError
        For an unknown op, rival or size, and files that cannot be read or written.
    """
    rows = table.choose(settings.op, settings.size, quick=settings.quick, limit=settings.limit)
    rivals = table.rivals(settings.rival)
    old = report.read(settings.compare) if settings.compare else None
    _prepare(settings.out)
    begin = time.perf_counter()
    about = machine.describe()
    _say_where(about, rows, rivals)
    limits = roofs.measure()
    _say_roofs(limits)
    print(f"\n{report.head()}", flush=True)
    held = contest.Contest(rivals, settings.limit)
    try:
        results, wrong = _all_rows(rows, held, limits, SECONDS[settings.quick])
    finally:
        held.close()
        libraries.restore_threads()
    whole_table = not (settings.op or settings.size)
    sweeps = scaling.measure(quick=settings.quick, limit=settings.limit) if whole_table else {}
    print("", *report.means(results), sep="\n")
    if old is not None:
        print("", *report.comparison(results, old), sep="\n")
    report.write(settings.out, results, about, limits, sweeps)
    print("", *_draw(settings.out, results, limits, sweeps), sep="\n")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{time.perf_counter() - begin:.0f} s")
    return 1 if wrong else 0


def _all_rows(
    rows: Sequence[Row], held: contest.Contest, limits: roofs.Roofs, seconds: float
) -> tuple[list[Any], list[str]]:
    """The results, and what went wrong: rows whose answers differ, and contestants that fail."""
    results, wrong = [], []
    for row in rows:
        if row.needs and not libraries.installed(row.needs):
            print(f"{row.name}: skipped, {row.needs} is not installed", flush=True)
            continue
        free = machine.available_bytes()
        if row.memory > free / 2:
            need = f"needs about {row.memory / 2**30:.1f} GiB, more than half of the {free / 2**30:.1f} available"
            print(f"{row.name}: skipped, {need}", flush=True)
            continue
        try:
            runners = held.runners(row)
            timed = timing.measure(runners, seconds)
        except (contest.AnswerError, WorkerError) as error:
            wrong.append(f"{'answers differ' if isinstance(error, contest.AnswerError) else 'failed'}: {error}")
            print(wrong[-1], flush=True)
            continue
        results.append(report.result(row, timed, limits))
        print(report.line(results[-1]), flush=True)
    return results, wrong


def _prepare(folder: Path) -> None:
    """Find out before the work whether its result can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with (folder / name).open("a", encoding="utf-8"):
                pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--out: cannot write into '{folder}': {reason}") from error


def _say_where(about: dict[str, Any], rows: Sequence[Row], rivals: Sequence[str]) -> None:
    for name, value in about.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        elif isinstance(value, list):
            shown = ", ".join(value)
        elif name == "last-level cache":
            shown = f"{value / 2**20:.0f} MiB"
        print(f"{name:18}{'not known' if shown is None else shown}")
    taking_part = {c.library for row in rows for c in row.contestants}
    for name in rivals:
        if name in taking_part and not libraries.installed(name):
            print(f"{name} is not installed: skipped")
    if not libraries.installed("threadpoolctl"):
        print("threadpoolctl is not installed: BLAS keeps the threads it starts with, which can be many times slower")


def _say_roofs(limits: roofs.Roofs) -> None:
    for name, rates in limits.items():
        unit = "GFLOP/s" if name.startswith("fma") else "GB/s"
        print(f"{name:18}{rates['1'] / 1e9:.1f} {unit} with one thread, {rates['all'] / 1e9:.1f} with all")


def _draw(folder: Path, results: Sequence[Any], limits: roofs.Roofs, sweeps: Any) -> list[str]:
    written = [str(folder / name) for name in FILES]
    if machine.version("matplotlib") is None:
        return [*(f"wrote {path}" for path in written), "matplotlib is not installed: no figures"]
    return [f"wrote {path}" for path in [*written, *map(str, figures.draw(folder, results, limits, sweeps))]]
