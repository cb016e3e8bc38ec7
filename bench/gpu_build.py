# SPDX-License-Identifier: MIT
"""What a machine with a GPU has for its checks, and a build of this tree for it; of the standard library alone.

The build lands beside the last one and takes its place when it stands, so that one that fails costs nothing.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "gpu_check"
WANTED = "REPARAM_CUDA=ON;REPARAM_CUDA_ARCHITECTURES="
TOOLKIT = ("/usr/local/cuda/bin",)
STARTING = 60.0  # seconds in which the kernels must say what they are


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


def which() -> str:
    """Which reparam the stages import."""
    return f"the reparam in {BUILT.relative_to(ROOT)}" if (BUILT / "reparam").is_dir() else "the installed reparam"


def environment() -> dict[str, str]:
    """Of the stages: what was built here comes first, and BLAS has one thread, more of which make small work slow."""
    path = [str(BUILT)] if (BUILT / "reparam").is_dir() else []
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    here = {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **here}


def finished(command: list[str], seconds: float, env: dict[str, str]) -> tuple[str, str, str]:
    """Run a command: what it printed, its errors, and how it ended, which is empty if well."""
    with subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return "", "", f"not done after {seconds:.0f} s"
        finally:
            end(process)
    return out, err, f"status {process.returncode}" if process.returncode else ""


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session, with what it has started; nothing if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# ---- building


def unfit() -> list[str]:
    """What building needs, by pyproject.toml, and is not here or is too old."""
    found = []
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    for name, _, least in (text.partition(">=") for text in asked):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}, {least} or later")
            continue
        if numbers(version) < numbers(least):
            found.append(f"{name} {version}, before {least}")
    return found


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without zeros at its end: 3.0.2rc1 is 3, 0, 2."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def build(seconds: float) -> str:
    """Compile this tree; what became of it, in words. What was built before stays until the new one stands."""
    nvcc = find_program("nvcc")
    if nvcc is None:
        return f"no nvcc: {which()} is used"
    new = BUILT.with_name(f"{BUILT.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    lacks = unfit()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--retries", "1", "--timeout", "10"]
    command += [] if lacks else ["--no-build-isolation"]  # then it needs no network
    command += ["--target", str(new), str(ROOT)]
    settings = {"SKBUILD_CMAKE_DEFINE": WANTED + capability(), "CUDACXX": nvcc}
    begin = time.monotonic()
    out, err, ended = finished(command, seconds, {**os.environ, **settings})
    if not ended:
        shutil.rmtree(BUILT, ignore_errors=True)
        new.rename(BUILT)
        return f"built in {time.monotonic() - begin:.0f} s"
    shutil.rmtree(new, ignore_errors=True)
    fetched = f" ({'; '.join(lacks)}: pip had to fetch what builds)" if lacks else ""
    last = "\n".join([ended, *(out + err).splitlines()[-30:]])
    return f"the build failed{fetched}, {which()} is used:\n{last}"


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
    out, err, ended = finished([sys.executable, "-c", told], STARTING, environment())
    if ended:
        print(err.strip().splitlines()[-1] if err.strip() else ended, file=sys.stderr)
        return ""
    return out.strip()
