# SPDX-License-Identifier: MIT
"""All checks and measurements of the kernels for GPUs, in ten minutes: ``python bench/gpu_check.py``.

Builds reparam in place where nvcc is, else takes what was built before or is installed. Each stage runs in a process
of its own with a time of its own, so that what fails or hangs in one spoils no other; what a stage needs and the
machine lacks is named. A table of speeds comes last. Exit status: 0; 1 where a check failed; 2 without GPU or kernels.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "gpu_check"
WHOLE = 570.0  # seconds
GRACE = 20.0  # seconds in which a stage whose time is up may end by itself
WANTED = "REPARAM_CUDA=ON;REPARAM_CUDA_ARCHITECTURES="
SHOWN = 5  # failures of a stage in the summary
FAILED_CHECKS = "ended with status 1"
TOOLKIT = ("/usr/local/cuda/bin",)
COLUMNS = (("row", 58), ("ms", 9), ("GB/s", 7), ("of copy", 8), ("torch", 8), ("cupy", 8), ("jax", 8), ("targets", 26))
MARKS = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True)
class Stage:
    """A command and its seconds; ``needs`` are modules and programs without which it is skipped."""

    name: str
    command: tuple[str, ...]
    seconds: float
    modules: tuple[str, ...] = ()
    program: str = ""
    reports: bool = True  # whether it takes --seconds and --report


def checks(stage: str) -> tuple[str, ...]:
    """The command of a stage of gpu_ops."""
    return (sys.executable, "-m", "reparam._bench.gpu_ops", stage)


def tests(*which: str) -> tuple[str, ...]:
    """A command of pytest in this tree, which fails at once where there is no test left to run."""
    return (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *which)


STAGES = (
    Stage("noise, bit for bit", checks("noise"), 30),
    Stage("every op, every d", checks("sizes"), 100),
    Stage("large batches, every element", checks("batches"), 80),
    Stage("speed", (sys.executable, "-m", "reparam._bench.gpu_speed"), 120),
    Stage("the same bits again", checks("repeats"), 40),
    Stage(  # the table of ops was the second stage
        "tests on the GPU", tests("-m", "gpu", "-k", "not test_forward and not test_vjp", "tests/test_gpu.py"), 45,
        ("pytest", "scipy"), reports=False,
    ),
    Stage("memory accesses", checks("few"), 50, program="compute-sanitizer"),
    Stage("AVX-512", tests("-k", "avx512", "tests/test_ops.py"), 45, ("pytest", "scipy"), reports=False),
)  # fmt: skip
WATCHED = ("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", "--report-api-errors", "no")


@dataclass
class Found:
    """What the stages have said."""

    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


# ---- what is there


def missing() -> str:
    """What this machine lacks for any check, in one line; empty if nothing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "a driver, but no GPU that it can use"
    return "" if importlib.util.find_spec("cupy") else "no CuPy (pip install cupy-cuda13x)"


def capability() -> str:
    """Of the first GPU, as CMake names it."""
    driver, numbers = ctypes.CDLL("libcuda.so.1"), (ctypes.c_int(0), ctypes.c_int(0))
    driver.cuDeviceComputeCapability(ctypes.byref(numbers[0]), ctypes.byref(numbers[1]), 0)
    return "".join(str(n.value) for n in numbers)


def find_program(name: str) -> str | None:
    """Its path, on the PATH or where CUDA is installed."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(TOOLKIT))


def has_avx512() -> bool:
    """Whether the CPU has what native:avx512 is compiled for."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return all(f" {name}" in flags for name in ("avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd"))


def which() -> str:
    """Which reparam the stages import."""
    return f"the reparam in {BUILT.relative_to(ROOT)}" if (BUILT / "reparam").is_dir() else "the installed reparam"


def environment() -> dict[str, str]:
    """Of the stages: what was built here comes first."""
    path = [str(BUILT)] if (BUILT / "reparam").is_dir() else []
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}


# ---- building


def build(seconds: float) -> str:
    """Compile this tree into a folder of its own; what became of it, in words."""
    nvcc = find_program("nvcc")
    if nvcc is None:
        return f"no nvcc: {which()} is used"
    shutil.rmtree(BUILT, ignore_errors=True)
    complete = all(importlib.util.find_spec(name) for name in ("scikit_build_core", "pybind11"))
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--retries", "1", "--timeout", "10"]
    command = [*pip, "--target", str(BUILT), str(ROOT)]
    if complete:  # then it needs no network
        command.insert(len(pip), "--no-build-isolation")
    settings = {"SKBUILD_CMAKE_DEFINE": WANTED + capability(), "CUDACXX": nvcc}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command, env={**os.environ, **settings}, timeout=seconds, capture_output=True, text=True, check=False
        )
        ended = "\n".join((done.stdout + done.stderr).splitlines()[-30:]) if done.returncode else ""
    except subprocess.TimeoutExpired:
        ended = f"not done after {seconds:.0f} s"
    if not ended:
        return f"built in {time.monotonic() - begin:.0f} s"
    shutil.rmtree(BUILT, ignore_errors=True)
    return f"the build failed, {which()} is used:\n{ended}"


def kernels() -> str:
    """What the stages will run, or an empty string and the reason on stderr."""
    told = """
import cupy, reparam as rp
from reparam import _cuda
names = [f"{device['name']}, {device['memory'] / 2**30:.0f} GiB" for device in _cuda.devices()]
print(f"reparam {rp.__version__} for {_cuda.targets} by {_cuda.compiler}; CuPy {cupy.__version__}; {'; '.join(names)}")
driver, runtime = (f"{v // 1000}.{v % 1000 // 10}" for v in _cuda.versions())
print(f"driver for CUDA {driver}, kernels with the runtime of {runtime}")
"""
    done = subprocess.run([sys.executable, "-c", told], env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
    return done.stdout.strip()


# ---- stages


def lacking(stage: Stage) -> str:
    """Why a stage cannot run here; empty if it can."""
    absent = [name for name in stage.modules if not importlib.util.find_spec(name)]
    absent += [stage.program] if stage.program and find_program(stage.program) is None else []
    if stage.name == "AVX-512" and not has_avx512():
        return "the CPU has no AVX-512"
    if not all((ROOT / word).exists() for word in stage.command if word.startswith("tests/")):
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
        if stage.program:
            command = [str(find_program(WATCHED[0])), *WATCHED[1:], *command]
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
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, start_new_session=True)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"did not end in {seconds:.0f} s"
    finally:
        if process.poll() is None:  # Ctrl-C reaches this process alone
            os.killpg(process.pid, signal.SIGKILL)  # with what it has started
            process.wait()
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
    asked = parser.parse_args()
    lacks = missing()
    if lacks:
        print(f"bench/gpu_check.py needs a CUDA GPU and CuPy, and this machine has {lacks}")
        return 2
    end = time.monotonic() + asked.seconds
    print(f"{which()} is used" if asked.no_build else build(0.4 * asked.seconds), flush=True)
    checked = kernels()
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
    print()
    print("\n".join([*(f"skipped: {text}" for text in found.skipped), *(f"FAILED: {text}" for text in found.failed)]))
    print("\n".join(table(found.rows)))
    return 1 if found.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
