# SPDX-License-Identifier: MIT
"""All checks and measurements of the kernels for GPUs, in ten minutes: ``python bench/gpu_check.py``.

Builds reparam where nvcc is, else takes what was built before or is installed. Each stage runs in a process of its own
with a time of its own, so that what fails or hangs in one spoils no other; what a stage needs and the machine lacks is
named. A table of speeds comes last, and goes to ``--json`` as well. Exit status: 0; 1 where a check failed; 2 without
GPU or kernels.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __package__:
    from . import gpu_build
else:  # a script, whose folder is where modules are looked for
    import gpu_build

WHOLE = 570.0  # seconds
GRACE = 20.0  # seconds in which a stage whose time is up may end by itself
SHOWN = 5  # failures of a stage in the summary
FAILED_CHECKS = "ended with status 1"
COLUMNS = (("row", 58), ("ms", 9), ("GB/s", 7), ("of copy", 8), ("torch", 8), ("cupy", 8), ("jax", 8), ("targets", 26))
MARKS = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True)
class Stage:
    """A command and its seconds, and what it is skipped without: modules, and the program for a tool that watches."""

    name: str
    command: tuple[str, ...]
    seconds: float
    modules: tuple[str, ...] = ()
    tool: str = ""  # of compute-sanitizer
    reports: bool = True  # whether it takes --seconds and --report


def checks(stage: str) -> tuple[str, ...]:
    """The command of a stage of gpu_ops."""
    return (sys.executable, "-m", "reparam._bench.gpu_ops", stage)


def tests(*which: str) -> tuple[str, ...]:
    """A command of pytest in this tree, by four processes where it can; CuPy may have come to warn of its own use."""
    how = ("-p", "no:cacheprovider", "--maxfail=15", "--tb=short", "-W", "default::DeprecationWarning")
    spread = ("-n", "4") if importlib.util.find_spec("xdist") else ()
    return (sys.executable, "-m", "pytest", "-q", *how, *spread, *which)


TESTS = tuple(f"tests/test_{name}.py" for name in ("gpu", "gpu_calls", "cupy_parts", "cupy_models"))
STAGES = (
    Stage("noise, bit for bit", checks("noise"), 30),
    Stage("every op, every d", checks("sizes"), 100),
    Stage("large batches, every element", checks("batches"), 80),
    Stage("speed", (sys.executable, "-m", "reparam._bench.gpu_speed"), 120),
    Stage("the same bits again", checks("repeats"), 40),
    Stage(  # the table of ops was the second stage
        "tests on the GPU", tests("-m", "gpu", "-k", "not test_forward and not test_vjp", *TESTS), 90,
        ("pytest", "scipy"), reports=False,
    ),
    Stage("memory accesses", checks("few"), 25, tool="memcheck"),
    Stage("races", checks("races"), 25, tool="racecheck"),
)  # fmt: skip
SANITIZER = "compute-sanitizer"
WATCHED = ("--error-exitcode", "9", "--print-limit", "20")
OF_TOOL = {"memcheck": ("--report-api-errors", "no")}


@dataclass
class Found:
    """What the stages have said."""

    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


# ---- stages


def lacking(stage: Stage) -> str:
    """Why a stage cannot run here; empty if it can."""
    absent = [name for name in stage.modules if not importlib.util.find_spec(name)]
    absent += [SANITIZER] if stage.tool and gpu_build.find_program(SANITIZER) is None else []
    if not all((gpu_build.ROOT / word).exists() for word in stage.command if word.startswith("tests/")):
        return "the tests are not here: run bench/gpu_check.py of a source tree"
    return f"no {', '.join(absent)}" if absent else ""


def run(stage: Stage, seconds: float, found: Found) -> None:
    """One stage: what it prints goes on, what it reports is kept."""
    lacks = lacking(stage)
    print(f"\n==== {stage.name}" + (f": skipped, {lacks}" if lacks else f", up to {seconds:.0f} s"), flush=True)
    if lacks:
        found.skipped.append(f"{stage.name}: {lacks}")
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        command = list(stage.command)
        if stage.tool:
            watched = (*WATCHED, *OF_TOOL.get(stage.tool, ()))
            command = [str(gpu_build.find_program(SANITIZER)), "--tool", stage.tool, *watched, *command]
        if stage.reports:
            command += ["--seconds", f"{seconds:.0f}", "--report", str(report)]
        ended = wait(command, seconds + GRACE)
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    kept: dict[str, list[Any]] = {"failed": [], "skipped": [], "done": [], "row": []}
    for kind, what in map(json.loads, lines):
        kept[kind].append(what)
    found.failed += [f"{stage.name}: {what}" for what in kept["failed"][:SHOWN]]
    if len(kept["failed"]) > SHOWN:
        found.failed.append(f"{stage.name}: and {len(kept['failed']) - SHOWN} more, above")
    found.skipped += [f"{stage.name}: {what}" for what in kept["skipped"]]
    found.rows += kept["row"]
    if ended and not (kept["failed"] and ended == FAILED_CHECKS):
        found.failed.append(f"{stage.name}: {ended}")


def wait(command: list[str], seconds: float) -> str:
    """Run a command; how it ended, empty if well."""
    process = subprocess.Popen(
        command, env=gpu_build.environment(), cwd=gpu_build.ROOT, start_new_session=True, text=True
    )
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"did not end in {seconds:.0f} s"
    finally:
        gpu_build.end(process)  # Ctrl-C reaches this process alone
    return f"ended with status {status}" if status else ""


# ---- the table


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each row: ours, and how many times as long the best of each library takes."""
    lines = [columns([name for name, _ in COLUMNS])]
    for row in rows:
        times = [ratio_to(row, library) for library in ("torch", "cupy", "jax")]
        targets = ", ".join(f"{t['text']} {MARKS[t['met']]}" for t in row["targets"])
        share = "" if row["share"] is None else f"{100 * row['share']:.0f}%"
        lines.append(
            columns([row["name"], f"{1e3 * row['seconds']:.4g}", f"{row['rate']:.0f}", share, *times, targets])
        )
    return lines


def ratio_to(row: dict[str, Any], library: str) -> str:
    """The fastest form of a library over ours."""
    medians = [c["median"] for c in row["contestants"] if c["library"] == library]
    return f"{min(medians) / row['seconds']:.1f}x" if medians else "-"


def columns(cells: list[str]) -> str:
    """Cells in their widths."""
    return " ".join(cell.ljust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)).rstrip()


def main() -> int:
    """All stages, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=WHOLE, help="of the whole run (default %(default)s)")
    parser.add_argument("--no-build", action="store_true", help="take what was built before, or is installed")
    parser.add_argument("--json", type=Path, help="a file for the rows of speed and what failed")
    asked = parser.parse_args()
    lacks = gpu_build.missing()
    if lacks:
        print(f"bench/gpu_check.py needs a CUDA GPU and CuPy, and this machine has {lacks}")
        return 2
    end = time.monotonic() + asked.seconds
    print(f"{gpu_build.which()} is used" if asked.no_build else gpu_build.build(0.4 * asked.seconds), flush=True)
    checked = gpu_build.kernels()
    if not checked:
        print("bench/gpu_check.py needs reparam with kernels for GPUs: install it where nvcc is (pip install .)")
        return 2
    print(checked, flush=True)
    found = Found()
    for stage in STAGES:
        left = end - time.monotonic() - GRACE
        if left < GRACE:
            found.skipped.append(f"{stage.name}: no time left")
        else:
            run(stage, min(stage.seconds, left), found)
        if asked.json:  # as far as it has come
            asked.json.write_text(json.dumps({"kernels": checked, **asdict(found)}, indent=1), encoding="utf-8")
    print()
    print("\n".join([*(f"skipped: {text}" for text in found.skipped), *(f"FAILED: {text}" for text in found.failed)]))
    print("\n".join(table(found.rows)))
    return 1 if found.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
