# SPDX-License-Identifier: MIT
"""``reparam bench``: measure the roofs, then row after row, and report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..demo import UsageError
from . import answers, contest, figures, libraries, machine, report, roofs, scaling, table, timing
from .row import NO_LIMIT, Row
from .worker import WorkerError

FILES = ("bench.json", "bench.csv")
STOPPED = 130  # exit code of a program that Ctrl-C ends
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


@dataclass
class Found:
    """The results, and what went wrong: rows whose answers differ, and contestants that fail."""

    results: list[Any] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run(settings: Settings) -> int:
    """Run the rows that were asked for.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    int
        0, 1 if contestants disagree, 130 if Ctrl-C stopped it; the rows so far are kept then.

    Raises
    ------
    UsageError
        For an unknown op, rival or size, and files that cannot be read or written.
    """
    rows = table.choose(settings.op, settings.size, quick=settings.quick, limit=settings.limit)
    rivals = table.rivals(settings.rival)
    old = report.read(settings.compare) if settings.compare else None
    made = _prepare(settings.out)
    begin = time.perf_counter()
    about, limits, sweeps, found = machine.describe(), {}, {}, Found()
    try:
        _say_where(about, rows, rivals)
        limits = roofs.measure()
        _say_roofs(limits)
        print(f"\n{report.head()}", flush=True)
        _all_rows(found, rows, contest.Contest(rivals, settings.limit), limits, SECONDS[settings.quick])
        if not (settings.op or settings.size):
            sweeps = scaling.measure(quick=settings.quick, limit=settings.limit)
    except KeyboardInterrupt:
        return _stopped(settings.out, made, found.results, about, limits)
    report.write(settings.out, found.results, about, limits, sweeps)
    print("", *report.means(found.results), sep="\n")
    if old is not None:
        print("", *report.comparison(found.results, old), sep="\n")
    print("", *_draw(settings.out, found.results, limits, sweeps), sep="\n")
    print(*found.wrong, sep="\n", end="\n" if found.wrong else "")
    print(f"{time.perf_counter() - begin:.0f} s")
    return 1 if found.wrong else 0


def _stopped(
    folder: Path, made: Sequence[Path], results: Sequence[Any], about: dict[str, Any], limits: roofs.Roofs
) -> int:
    """Keep the rows so far, or leave no empty files."""
    if results:
        report.write(folder, results, about, limits, {})
        print(f"stopped: wrote what was measured, rows: {len(results)}, into {folder}", flush=True)
    else:
        _remove(made)
        print("stopped before the first row: nothing was written", flush=True)
    return STOPPED


def _all_rows(found: Found, rows: Sequence[Row], held: contest.Contest, limits: roofs.Roofs, seconds: float) -> None:
    """Add row after row to what is found, so that it is there when someone stops the run."""
    try:
        for row in rows:
            _one_row(found, row, held, limits, seconds)
    finally:
        held.close()
        libraries.restore_threads()


def _one_row(found: Found, row: Row, held: contest.Contest, limits: roofs.Roofs, seconds: float) -> None:
    if row.needs and not libraries.installed(row.needs):
        print(f"{row.name}: skipped, {row.needs} is not installed", flush=True)
        return
    free = machine.available_bytes()
    if row.memory > free / 2:
        need = f"needs about {row.memory / 2**30:.1f} GiB, more than half of the {free / 2**30:.1f} available"
        print(f"{row.name}: skipped, {need}", flush=True)
        return
    try:
        runners = held.runners(row)
        timed = timing.measure(runners, seconds)
    except (answers.AnswerError, WorkerError) as error:
        found.wrong.append(f"{'answers differ' if isinstance(error, answers.AnswerError) else 'failed'}: {error}")
        print(found.wrong[-1], flush=True)
        return
    found.results.append(report.result(row, timed, limits))
    print(report.line(found.results[-1]), flush=True)


def _prepare(folder: Path) -> list[Path]:
    """Find out before the work whether its result can be kept; give the files and folders made for it, inner first."""
    made: list[Path] = []
    try:
        made += [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            if not (folder / name).exists():
                made.insert(0, folder / name)
            with (folder / name).open("a", encoding="utf-8"):
                pass
    except (OSError, ValueError) as error:
        _remove(made)
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--out: cannot write into '{folder}': {reason}") from error
    return made


def _remove(made: Sequence[Path]) -> None:
    """Take back what :func:`_prepare` made, but for what others have used since."""
    for path in made:
        with contextlib.suppress(OSError):
            if path.is_dir():
                path.rmdir()
            elif path.stat().st_size == 0:
                path.unlink()


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
