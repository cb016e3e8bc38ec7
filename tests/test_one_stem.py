# SPDX-License-Identifier: MIT
"""An op is one stem: a header, a line of the table and a definition with its name make it one everywhere.

Proved on a copy of the tree with one op more. Of its build only what the new op changes is compiled, by the rules that
CMake made; the other objects are those of this tree.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

import reparam as rp
from reparam import _core, ops

ROOT = Path(__file__).resolve().parents[1]
MODULE = "_core" + sysconfig.get_config_var("EXT_SUFFIX")
NAME = "normal_tril_mahalanobis"

HEADER = """// SPDX-License-Identifier: MIT
// |y|^2, y = L^-1 (value - loc), L = scale_tril.  vjp: z = 2 ct L^-T y;  value: z, loc: -z, L: -tril(z y^T)
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_mahalanobis {
  static constexpr auto signature = "(d),(d),tril(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] + 4.0); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return 2 * n[0]; }

  template <class V>
  REPARAM_HD static void whiten(int64_t d, Vec<const V> value, Vec<const V> loc, Tril<const V> scale_tril, Vec<V> y) {
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = 0; i < d; ++i) y[i] = value[i] - loc[i] + poison;
    solve_lower(d, scale_tril, y);
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<V> y, Vec<const V> value, Vec<const V> loc,
                                 Tril<const V> scale_tril,  // inputs
                                 Scalar<V> square) {        // outputs
    whiten<V>(d, value, loc, scale_tril, y);
    square() = square_norm<V>(d, as_const(y));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<V> y, Vec<const V> value, Vec<const V> loc, Tril<const V> scale_tril,  // inputs
                             Scalar<const V> ct_square,                                // output cotangents
                             Vec<V> ct_value, Vec<V> ct_loc, Tril<V> ct_scale_tril) {  // input cotangents
    whiten<V>(d, value, loc, scale_tril, y);
    const V ct = constant<V>(-2) * ct_square();
    for (int64_t i = 0; i < d; ++i) ct_loc[i] = y[i];
    solve_lower_transposed(d, scale_tril, ct_loc);
    for (int64_t i = 0; i < d; ++i) ct_loc[i] = ct * ct_loc[i], ct_value[i] = -ct_loc[i];
    outer_lower(d, as_const(ct_loc), as_const(y), ct_scale_tril);
  }
};

}  // namespace reparam::REPARAM_ARCH
"""
LINE = f"REPARAM_OP({NAME})\n"
DEFINITION = '''

def _mahalanobis_oracle(value, loc, scale_tril):
    return (np.linalg.solve(np.tril(scale_tril), (value - loc)[..., None])[..., 0] ** 2).sum(-1)


@op("(d),(d),tril(d)->()", oracle=_mahalanobis_oracle)
def normal_tril_mahalanobis(value, loc, scale_tril, square):
    """Squared distance of ``value`` from ``loc`` in units of the scale: ``|L^-1 (value - loc)|^2``."""
    y = value - loc + poison(diagonal_of(scale_tril))
    solve_lower(scale_tril, y)
    square[0] = square_norm(y)


@normal_tril_mahalanobis.defvjp
def _(value, loc, scale_tril, ct_square, ct_value, ct_loc, ct_scale_tril):
    y = value - loc + poison(diagonal_of(scale_tril))
    solve_lower(scale_tril, y)
    z = y.copy()
    solve_lower_transposed(scale_tril, z)
    for i in range(value.shape[0]):
        ct_value[i] = 2 * ct_square * z[i]
        ct_loc[i] = -ct_value[i]
        for j in range(i + 1):
            ct_scale_tril[i, j] = ct_loc[i] * y[j]
'''
CALL = f"""
import numpy as np
import reparam as rp
from reparam import _dispatch

value, scale_tril = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [1.0, 2.0]])
square = rp.{NAME}(value, np.zeros(2), scale_tril)
assert square.tolist() == [9.25, 1.0], square
assert all(name.startswith("native") for name in _dispatch.counts), _dispatch.counts
assert "{NAME}" in rp.__all__ and rp.{NAME}.__doc__.startswith("Squared distance")
"""


def add_header(root):
    (root / f"csrc/ops/{NAME}.hpp").write_text(HEADER)


def add_line(root):
    with (root / "csrc/ops/table.inc").open("a") as file:
        file.write(LINE)


def add_definition(root):
    with (root / "python/reparam/ops/normal_tril.py").open("a") as file:
        file.write(DEFINITION)


def add_name(root):
    """The one line besides: what is public is listed."""
    file = root / "python/reparam/ops/__init__.py"
    file.write_text(file.read_text().replace("__all__ = [\n", f'__all__ = [\n    "{NAME}",\n'))


# ---- a copy of the tree, and its build


def copy_of_the_tree(folder):
    for part in ("csrc", "python", "tests", "CMakeLists.txt", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    shutil.copy2(_core.__file__, folder / "python" / "reparam" / MODULE)
    return folder


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def run_tests(root, *arguments):
    """The house's own tests on the copy: whether they pass, and what they print."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root / "python"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@cache
def sources_behind(path):
    """A file of csrc and all that it includes."""
    found = {path}
    for name in re.findall(r'^#include "([^"]+)"', path.read_text(), flags=re.M):
        found |= sources_behind((path.parent / name).resolve())
    return found


def source_of(root, object_file):
    """The sources of one object: of a kernel the common one and its op's header."""
    path = object_file.partition(".dir/")[2].removesuffix(".o")
    if path.startswith("kernels/"):
        header = root / "csrc" / "ops" / path.removeprefix("kernels/").replace(".cpp", ".hpp")
        return sources_behind(root / "csrc" / "arch" / "cpu.cpp") | sources_behind(header)
    return sources_behind(root / object_file.partition("CMakeFiles/")[0] / path)


def build(root):
    """`_core` of the copy; returns the objects that this tree does not have, and those that see the longer table."""
    import pybind11

    built = max(ROOT.glob("build/*/CMakeFiles/_core.dir"), key=os.path.getmtime, default=None)
    if built is None:
        pytest.fail("no objects: build in this tree first (pip install .)")
    tree, here = built.parents[1], root / "build"
    run(
        "cmake", "-S", root, "-B", here, "-G", "Ninja", "-DSKBUILD_PROJECT_VERSION=0.0.0",
        "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON", "-DREPARAM_CUDA=OFF", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}", f"-DREPARAM_WIDE={'wide' in _core.isas()}", cwd=root,
    )  # fmt: skip
    objects = [line for line in run("ninja", "-t", "inputs", MODULE, cwd=here).splitlines() if line.endswith(".o")]
    new = [o for o in objects if not (tree / o).exists()]
    changed = [o for o in objects if o not in new and root / "csrc/ops/table.inc" in source_of(root, o)]
    for o in set(objects) - {*new, *changed}:
        if (tree / o).stat().st_mtime < max(path.stat().st_mtime for path in source_of(root, o)):
            pytest.fail(f"{o} is older than its sources: build in this tree first (pip install .)")
        (here / o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / o, here / o)
    run("ninja", *new, *changed, cwd=here)
    (link,) = run("ninja", "-t", "commands", "-s", MODULE, cwd=here).splitlines()
    run("sh", "-c", link, cwd=here)
    shutil.copy2(here / MODULE, root / "python" / "reparam" / MODULE)
    return new, changed


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The copy with the new op, built."""
    root = copy_of_the_tree(tmp_path_factory.mktemp("house"))
    for add in (add_header, add_line, add_definition, add_name):
        add(root)
    new, changed = build(root)
    return SimpleNamespace(root=root, new=new, changed=changed)


# ---- the laws


def test_every_op_is_a_name_of_its_module():
    assert set(rp.OPS) <= set(ops.__all__)


def test_the_build_compiles_the_new_op_for_every_instruction_set_and_no_other_kernel(house):
    folders = [path.name for path in (house.root / "build" / "csrc" / "CMakeFiles").glob("reparam_*.dir")]
    assert {f"reparam_{isa}.dir" for isa in _core.isas()} <= set(folders)
    assert sorted(house.new) == sorted(f"csrc/CMakeFiles/{folder}/kernels/{NAME}.cpp.o" for folder in folders)
    assert all(o.startswith("CMakeFiles/_core.dir/") for o in house.changed)


def test_the_new_op_is_a_name_of_the_package_and_runs_natively(house):
    run(sys.executable, "-c", CALL, cwd=house.root / "python")


def test_the_tests_of_the_house_take_up_the_new_op(house):
    code, printed = run_tests(
        house.root, "tests/test_ops.py", "tests/test_failures.py", "-k", f"{NAME} and not -33 and not -64"
    )
    assert code == 0, printed[-4000:]
    assert int(re.search(r"(\d+) passed", printed)[1]) > 100


TABLES = "tests/test_laws.py::test_tables_are_equal"
HEADERS = "tests/test_laws.py::test_every_native_op_has_a_header_of_its_name"
NAMES = "tests/test_one_stem.py::test_every_op_is_a_name_of_its_module"


def test_a_whole_op_keeps_the_laws(house):
    code, printed = run_tests(house.root, TABLES, HEADERS, NAMES)
    assert code == 0, printed[-4000:]


@pytest.mark.parametrize(("parts", "kernel", "law"), [
    ([add_definition, add_name], False, TABLES),
    ([add_definition, add_name, add_header], False, TABLES),
    ([add_header, add_line], True, TABLES),
    ([add_line, add_definition, add_name], True, HEADERS),
    ([add_header, add_line, add_definition], True, NAMES),
], ids=["only a definition", "no line", "no definition", "no header", "no name"])  # fmt: skip
def test_a_forgotten_part_breaks_a_law(parts, kernel, law, house, tmp_path):
    root = copy_of_the_tree(tmp_path)
    for add in parts:
        add(root)
    if kernel:
        shutil.copy2(house.root / "python" / "reparam" / MODULE, root / "python" / "reparam" / MODULE)
    code, printed = run_tests(root, law)
    assert code == 1
    assert "AssertionError" in printed
    assert NAME in printed
