# SPDX-License-Identifier: MIT
"""What nvcc makes of the kernels, which needs no GPU: registers that spill, and instructions that noise may not have.

The commands are those of the build, from CMake.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
NVCC = shutil.which("nvcc")
GPU = "90"  # Hopper
WATCHED = (
    "cholesky_ex", "cholesky_ex_team", "normal_tril_log_prob", "normal_tril_transform",
    "normal_tril_transform_and_log_prob", "normal_vector_transform_and_log_prob_team",
)  # fmt: skip
WAYS = 4  # kernels of an op at least: two passes, two types

needs_nvcc = pytest.mark.skipif(NVCC is None, reason="needs nvcc")


# ---- reading


class Kernel(NamedTuple):
    name: str
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int

    def __str__(self):
        spills = f"{self.spill_stores} spilled, {self.spill_loads} loaded again"
        return f"{demangled(self.name)}: {self.registers} registers, {self.stack} bytes of stack, {spills}"


def demangled(name):
    """The name without its arguments, as far as there is a program that knows."""
    if shutil.which("c++filt"):
        name = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    return name.partition("(")[0].removeprefix("void ").replace("reparam::cuda::", "")


FUNCTION = re.compile(
    r"Function properties for (\S+)\s+"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r"(?:\s+ptxas info\s*: Used (\d+) registers)?"
)


def kernels_of(report):
    """Every function that ``ptxas -v`` speaks of."""
    return [
        Kernel(name, int(registers or 0), int(stack), int(stores), int(loads))
        for name, stack, stores, loads, registers in FUNCTION.findall(report)
    ]


def in_local_memory(kernels):
    """Those that keep anything in a thread's own part of the memory, which is as slow as all of it."""
    return [kernel for kernel in kernels if kernel.stack or kernel.spill_stores or kernel.spill_loads]


def inexact(ptx):
    """Instructions that fuse a product and a sum, or that approximate."""
    return re.findall(r"\b(?:fma\.[\w.]+|mad\.\w+\.f\d+|\w+(?:\.\w+)*\.approx[\w.]*)", ptx)


REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7reparam4cuda6run_opINS0_4goodEfLb0EEEvNS_8CudaCallE' for 'sm_90'
ptxas info    : Function properties for _ZN7reparam4cuda6run_opINS0_4goodEfLb0EEEvNS_8CudaCallE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
ptxas info    : Compile time = 720.728 ms
ptxas info    : Compiling entry function '_ZN7reparam4cuda6run_opINS0_3badEdLb1EEEvNS_8CudaCallE' for 'sm_90'
ptxas info    : Function properties for _ZN7reparam4cuda6run_opINS0_3badEdLb1EEEvNS_8CudaCallE
    968 bytes stack frame, 72 bytes spill stores, 120 bytes spill loads
ptxas info    : Used 80 registers, used 0 barriers, 968 bytes cumulative stack size
ptxas info    : Function properties for helper
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""


def test_spills_are_read_off_a_report():
    good, bad, helper = kernels_of(REPORT)
    assert good[1:] == (40, 0, 0, 0)
    assert bad[1:] == (80, 968, 72, 120)
    assert helper[1:] == (0, 16, 0, 0)
    assert in_local_memory([good, bad, helper]) == [bad, helper]
    assert str(bad).endswith(": 80 registers, 968 bytes of stack, 72 spilled, 120 loaded again")


# ---- compiling


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The build's command for each source of CUDA, for one kind of GPU."""
    import pybind11

    folder = tmp_path_factory.mktemp("cuda")
    configure = [
        "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DSKBUILD_PROJECT_VERSION=0.0.0", "-DREPARAM_CUDA=ON",
        f"-DREPARAM_CUDA_ARCHITECTURES={GPU}-real", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
    ]  # fmt: skip
    done = subprocess.run(configure, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    entries = json.loads((folder / "compile_commands.json").read_text())
    return {Path(entry["file"]).name: entry for entry in entries if entry["file"].endswith(".cu")}


def compiled(entry, output, *more, source=None, instead_of_object="-c"):
    """Run the command of the build, into another file; what it has printed."""
    words = [instead_of_object if word == "-c" else word for word in shlex.split(entry["command"])]
    words[words.index("-o") + 1] = str(output)
    if source is not None:
        words[words.index(entry["file"])] = str(source)
    done = subprocess.run([*words, *more], cwd=entry["directory"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_nvcc
def test_kernels_keep_nothing_in_local_memory(commands, tmp_path):
    def report(unit):
        return compiled(commands[f"{unit}.cu"], tmp_path / f"{unit}.o", "-Xptxas", "-v")

    with ThreadPoolExecutor(2) as pool:
        found = {unit: kernels_of(text) for unit, text in zip(WATCHED, pool.map(report, WATCHED), strict=True)}
    assert all(len(kernels) >= WAYS for kernels in found.values())
    slow = [str(kernel) for kernels in found.values() for kernel in in_local_memory(kernels)]
    assert not slow, "\n" + "\n".join(slow)


@needs_nvcc
@pytest.mark.parametrize("op", ["bits", "normal"])
def test_noise_is_neither_fused_nor_approximate(op, commands, tmp_path):
    """Or its bits would not be those of a CPU."""
    output = tmp_path / "kernels.ptx"
    compiled(commands[f"{op}.cu"], output, instead_of_object="-ptx")
    ptx = output.read_text()
    assert ptx.count(".entry") >= WAYS // 2
    assert inexact(ptx) == []


PLANTED = """
__global__ void planted(float* x, double* y) {
  x[0] = x[0] * x[1] + x[2];
  y[0] = y[0] * y[1] + y[2];
  if (y[3] > 0) x[3] = __fdividef(x[1], x[2]);
}
"""


@needs_nvcc
def test_fused_and_approximate_instructions_are_found(commands, tmp_path):
    source, output = tmp_path / "planted.cu", tmp_path / "planted.ptx"
    source.write_text(PLANTED)
    compiled(commands["bits.cu"], output, source=source, instead_of_object="-ptx")
    assert inexact(output.read_text()) == ["div.approx.f32"]
    compiled(commands["bits.cu"], output, "--fmad=true", source=source, instead_of_object="-ptx")
    assert sorted(inexact(output.read_text())) == ["div.approx.f32", "fma.rn.f32", "fma.rn.f64"]
