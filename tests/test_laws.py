# SPDX-License-Identifier: MIT
"""The laws of the house: who may include whom, what an object file may export, how long a file may be."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import reparam as rp

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PYTHON = ROOT / "python" / "reparam"

CPP_LAYERS = ["core", "ops", "drivers", "arch", "bind"]
PYTHON_LAYERS = [
    {"_arrays"},
    {"_signature"},
    {"_op"},
    {"_check"},
    {"_operands"},
    {"_backends"},
    {"_settings"},
    {"_dispatch"},
    {"ops"},
    {"random", "distributions", "targets", "elbo", "optim", "nn"},
    {"inference"},
    {"models"},
    {"plot", "torch", "jax", "numpyro", "sklearn"},
    {"demo", "selftest", "examples"},
    {"cli"},
    {"__main__"},
]


def cpp_files():
    return sorted(p for p in CSRC.rglob("*") if p.suffix in {".hpp", ".cpp", ".inc", ".cu", ".cuh"})


def includes(path):
    return re.findall(r'^#include "([^"]+)"', path.read_text(), flags=re.M)


def layer_of(name):
    return next((k for k, names in enumerate(PYTHON_LAYERS) if name in names), None)


def imported_modules(path):
    """Modules of the package that a file imports, by their first name below `reparam`."""
    text = path.read_text()
    package = path.parent.relative_to(PYTHON).parts
    found = set()
    pattern = r"^\s*from (\.+)([\w.]*) import ([\w, ()\n]+)|^\s*from reparam\.?([\w.]*) import"
    for dots, module, names, absolute in re.findall(pattern, text, flags=re.M):
        if dots:
            above = package[: len(package) - (len(dots) - 1)]
            full = [*above, *[p for p in module.split(".") if p]]
            found |= {full[0]} if full else {n.strip(" ()\n").split(" as ")[0] for n in names.split(",")}
        elif absolute:
            found.add(absolute.split(".")[0])
    return found


@pytest.mark.parametrize("path", cpp_files(), ids=lambda p: str(p.relative_to(CSRC)))
def test_cpp_includes_only_lower_layers(path):
    own = CPP_LAYERS.index(path.relative_to(CSRC).parts[0])
    for name in includes(path):
        target = (path.parent / name).resolve()
        assert target.exists(), f"{path} includes {name}"
        assert CPP_LAYERS.index(target.relative_to(CSRC).parts[0]) <= own


def test_kernel_sources_include_no_library():
    allowed = {"cstddef", "cstdint", "cmath", "immintrin.h", "arm_neon.h", "cuda_pipeline_primitives.h"}
    for folder in ("core", "ops"):
        for path in (CSRC / folder).glob("*.hpp"):
            assert set(re.findall(r"^#include <([^>]+)>", path.read_text(), flags=re.M)) <= allowed, path
    kernel_drivers = "body call pack pack_once cpu events elementwise operand position shared stage transport warp"
    for name in (f"{stem}.hpp" for stem in kernel_drivers.split()):
        assert not re.findall(r"^#include <", (CSRC / "drivers" / name).read_text(), flags=re.M)


def test_only_lanes_holds_intrinsics():
    for path in (CSRC / "core").glob("*.hpp"):
        assert path.name == "lanes.hpp" or "_mm" not in path.read_text(), path
    for path in (CSRC / "ops").glob("*.hpp"):
        assert "_mm" not in path.read_text(), path


def test_cuda_is_mentioned_in_core_only():
    for path in cpp_files():
        if path.parent.name not in {"core"} and path.name != "cuda.cuh":
            assert "__CUDACC__" not in path.read_text(), path


def test_macros_are_few():
    defined = set()
    for path in [*CSRC.rglob("*.hpp"), *CSRC.rglob("*.cuh")]:
        defined |= set(re.findall(r"^#define (REPARAM_\w+)", path.read_text(), flags=re.M))
    assert len(defined) <= 6, defined


@pytest.mark.parametrize(
    ("suffixes", "folder", "limit"),
    [
        ({".hpp"}, CSRC / "ops", 150),
        ({".hpp", ".cpp", ".cu", ".cuh"}, CSRC, 400),
        ({".py"}, PYTHON, 300),
    ],
)
def test_files_keep_their_budget(suffixes, folder, limit):
    for path in folder.rglob("*"):
        if path.suffix in suffixes:
            assert len(path.read_text().splitlines()) <= limit, path


def test_no_forbidden_switches():
    texts = [ROOT / "CMakeLists.txt", *cpp_files(), *PYTHON.rglob("*.py")]
    for path in texts:
        found = re.search(r"(?<!no)-ffast-math|-Ofast|-fopenmp|--use_fast_math|-march=native", path.read_text())
        assert not found, f"{path}: {found}"


def python_files():
    return sorted(PYTHON.rglob("*.py"))


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(PYTHON)))
def test_python_imports_only_lower_layers(path):
    own = layer_of(path.relative_to(PYTHON).parts[0].removesuffix(".py"))
    if own is None:
        pytest.fail(f"{path} is in no layer") if path.name not in {"__init__.py", "__main__.py"} else None
        return
    for name in imported_modules(path):
        layer = layer_of(name)
        assert layer is None or layer <= own, f"{path} imports {name}"


def test_files_carry_a_licence_line():
    for path in [*cpp_files(), *python_files()]:
        if path.suffix != ".inc":
            assert "SPDX-License-Identifier: MIT" in path.read_text().splitlines()[0], path


def test_tables_are_equal():
    """Each native op has its Python twin of the same signature, attributes and passes, and none is without."""
    core = pytest.importorskip("reparam._core")
    native = core.table()
    python = {op.name: op for op in rp.OPS.values()}
    assert set(native) == set(python)
    for name, (signature, attributes, has_vjp, vjp_from) in native.items():
        op = python[name]
        assert op.spec == signature
        assert ",".join(op.attributes) == attributes
        assert (op.vjp is not None) == has_vjp
        if has_vjp:
            assert op.vjp_from == vjp_from


def test_every_native_op_has_a_header_of_its_name():
    names = re.findall(r"^REPARAM_OP\((\w+)\)", (CSRC / "ops" / "table.inc").read_text(), flags=re.M)
    assert len(names) == len(set(names))
    for name in names:
        assert (CSRC / "ops" / f"{name}.hpp").exists()


def kernel_objects():
    return sorted(ROOT.glob("build/*/csrc/CMakeFiles/reparam_*.dir/**/*.cpp.o"))


def symbols(path):
    out = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    return [(line.split()[-2], line.split()[-1]) for line in out.splitlines() if len(line.split()) >= 2]


def test_kernel_objects_share_no_symbol():
    """The linker may pick a weak symbol compiled with AVX for a CPU without it; libm rounds in its own way."""
    if not kernel_objects() or not shutil.which("nm"):
        pytest.fail("no kernel objects: build in this tree first (pip install .)")
    allowed = {"memcpy", "memset", "memmove", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
    for path in kernel_objects():
        arch = next(part for part in path.parts if part.endswith(".dir")).removeprefix("reparam_").removesuffix(".dir")
        for kind, name in symbols(path):
            own = re.match(rf"_ZNK?7reparam{len(arch)}{arch}\d+(\w+)", name)  # in the namespace of its arch
            assert kind not in "WwVvu", f"{path.name}: weak {name}"
            assert kind != "U" or own or name in allowed, f"{path.parent}: {path.name} calls {name}"
            assert kind not in "TDRB" or own, f"{path.name} exports {name}"


def disassembly(op, arch):
    path = next(ROOT.glob(f"build/*/csrc/CMakeFiles/reparam_{arch}.dir/kernels/{op}.cpp.o"))
    return subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(("arch", "register"), [("avx2", "ymm"), ("avx512", "zmm")])
def test_cholesky_takes_packed_roots_and_fused_products(arch, register):
    if not kernel_objects():
        pytest.fail("no kernel objects: build in this tree first (pip install .)")
    text = disassembly("cholesky_ex", arch)
    assert re.search(rf"vsqrtps\s.*%{register}", text)
    assert re.search(rf"vsqrtpd\s.*%{register}", text)
    assert not re.search(r"vsqrtss|vsqrtsd", text)
    assert re.search(rf"vfn?m(add|sub)\d+p[sd]\s.*%{register}", text)
