# SPDX-License-Identifier: MIT
"""What is installed: every compiled module as the loader sees it, the stubs beside them, and what a user's types see.

The installed package alone is looked at, so all this runs on a wheel where there is neither a compiler nor binutils.
"""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import reparam as rp

PACKAGE = Path(rp.__file__).parent
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
MODULES = sorted(PACKAGE.glob(f"*{SUFFIX}"))
STUBS = sorted(PACKAGE.glob("*.pyi"))

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name.removesuffix(SUFFIX))
each_stub = pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)

# What manylinux leaves to the system: no OpenMP, and of CUDA neither driver nor runtime.
SYSTEM = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux-(x86-64|aarch64))\.so\.\d+")


# ---- reading


def entries(elf, tag):
    return list(elf.get_section_by_name(".dynamic").iter_tags(tag))


def flag(elf, tag, bit):
    return any(entry.entry.d_val & bit for entry in entries(elf, tag))


def symbols(elf, *, defined):
    found = elf.get_section_by_name(".dynsym").iter_symbols()
    return {s.name for s in found if s.name and (s.entry.st_shndx != "SHN_UNDEF") == defined}


def needed(elf):
    return {entry.needed for entry in entries(elf, "DT_NEEDED")}


def needed_glibc(elf):
    """The newest version of glibc that a symbol asks for."""
    versions = elf.get_section_by_name(".gnu.version_r").iter_versions()
    names = {aux.name for _, auxiliaries in versions for aux in auxiliaries}
    return max(tuple(int(x) for x in n[6:].split(".")) for n in names if re.fullmatch(r"GLIBC_[\d.]+", n))


def glibc_of_the_tag():
    """Of a manylinux wheel, what its oldest tag promises; of one that was built here, the C library of this machine."""
    tags = re.findall(r"^Tag: .*-manylinux_(\d+)_(\d+)_\w+$", distribution("reparam").read_text("WHEEL"), flags=re.M)
    tags = tags or [os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")]
    return min((int(major), int(minor)) for major, minor in tags)


def foreign_paths(elf):
    """Where the loader would search for libraries, besides the package."""
    texts = [entry.rpath for entry in entries(elf, "DT_RPATH")] + [
        entry.runpath for entry in entries(elf, "DT_RUNPATH")
    ]
    return [path for text in texts for path in text.split(":") if not re.fullmatch(r"\$ORIGIN(/[^.].*)?", path)]


def flaws(elf):
    """What the loader would leave open to be written, to be run or to be put in place of ours, in words."""
    segments = [(segment.header.p_type, segment.header.p_flags) for segment in elf.iter_segments()]
    found = {
        "bound lazily": not flag(elf, "DT_FLAGS", 0x8) and not flag(elf, "DT_FLAGS_1", 0x1),
        "relocations stay writable": "PT_GNU_RELRO" not in dict(segments),
        "an executable stack": dict(segments).get("PT_GNU_STACK", 1) & 1,
        "memory to write and to run": any(kind == "PT_LOAD" and flags & 3 == 3 for kind, flags in segments),
        "relocations in the code": entries(elf, "DT_TEXTREL") or flag(elf, "DT_FLAGS", 0x4),
        "foreign paths": foreign_paths(elf),
        "no stack protector": "__stack_chk_fail" not in symbols(elf, defined=False),
    }
    return {words for words, is_so in found.items() if is_so}


@pytest.fixture
def elf(path):
    with path.open("rb") as file:
        yield ELFFile(file)


# ---- the compiled modules


def test_there_are_modules_and_each_has_its_stub():
    modules = {path.name.removesuffix(SUFFIX) for path in MODULES}
    assert "_core" in modules
    assert modules <= {stub.stem for stub in STUBS}


@each_module
def test_a_module_is_hardened(path, elf):
    assert flaws(elf) == set()


@each_module
def test_a_module_exports_its_entry_alone(path, elf):
    assert symbols(elf, defined=True) == {f"PyInit_{path.name.removesuffix(SUFFIX)}"}


@each_module
def test_a_module_needs_nothing_but_the_system(path, elf):
    assert {name for name in needed(elf) if not SYSTEM.fullmatch(name)} == set()
    assert not (PACKAGE.parent / "reparam.libs").exists()  # where auditwheel puts copies of libraries


@each_module
def test_a_module_loads_where_its_tag_says(path, elf):
    assert (2, 2) < needed_glibc(elf) <= glibc_of_the_tag()


# Of the process that loads it: as Python's floats, before and after.
LOAD = """
import ctypes, sys
smallest = float.fromhex("0x1p-1074")
assert smallest * 1.0 > 0
ctypes.CDLL(sys.argv[1])
sys.exit(0 if smallest * 1.0 > 0 and smallest * 3.0 > smallest else "subnormal numbers are flushed to zero")
"""


def load(path):
    return subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, check=False)


@each_module
def test_to_load_a_module_leaves_the_float_environment(path):
    done = load(path)
    assert done.returncode == 0, done.stderr


# ---- the same checks, on a library with planted flaws

SOURCE = """
int answer(int n) { volatile char a[64]; for (int k = 0; k < 64; ++k) a[k] = (char)(n * k); return a[n & 63]; }
#if defined PLANT_CODE
__asm__(".section .rodata\\n.8byte answer\\n");
#elif defined PLANT_SEGMENT
__asm__(".section .both, \\"awx\\"\\n.8byte 0\\n");
#elif defined PLANT_FLUSH && defined __x86_64__
__attribute__((constructor)) static void flush(void) { __builtin_ia32_ldmxcsr(0x9fc0); }
#elif defined PLANT_FLUSH && defined __aarch64__
__attribute__((constructor)) static void flush(void) { __asm__ volatile("msr fpcr, %0" : : "r"(1ul << 24)); }
#endif
"""


def library(folder, *options):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path = folder / "planted.so"
    hardened = ["-O1", "-fstack-protector-strong", "-Wl,-z,relro,-z,now,-z,noexecstack"]
    command = [compiler, "-shared", "-fPIC", *hardened, *options, "-xc", "-", "-o", str(path)]
    subprocess.run(command, input=SOURCE, text=True, capture_output=True, check=True)
    return path


@pytest.mark.parametrize(("expected", "options"), [
    (set(), ["-Wl,-rpath,$ORIGIN/lib"]),
    ({"bound lazily"}, ["-Wl,-z,lazy"]),
    ({"relocations stay writable"}, ["-Wl,-z,norelro"]),
    ({"an executable stack"}, ["-Wl,-z,execstack"]),
    ({"memory to write and to run"}, ["-DPLANT_SEGMENT"]),
    ({"relocations in the code"}, ["-DPLANT_CODE", "-Wl,-z,notext"]),
    ({"foreign paths"}, ["-Wl,-rpath,$ORIGIN/lib:/usr/lib"]),
    ({"foreign paths"}, ["-Wl,-rpath,$ORIGIN/../elsewhere,--disable-new-dtags"]),
    ({"no stack protector"}, ["-fno-stack-protector"]),
])  # fmt: skip
def test_a_planted_flaw_is_seen(expected, options, tmp_path):
    with library(tmp_path, *options).open("rb") as file:
        elf = ELFFile(file)
        assert flaws(elf) == expected
        assert symbols(elf, defined=True) == {"answer"}


def test_a_planted_library_is_seen(tmp_path):
    with library(tmp_path, "-Wl,--no-as-needed", "-lgomp").open("rb") as file:
        assert [name for name in needed(ELFFile(file)) if not SYSTEM.fullmatch(name)] == ["libgomp.so.1"]


def test_a_planted_flush_to_zero_is_seen(tmp_path):
    assert load(library(tmp_path)).returncode == 0
    assert "flushed to zero" in load(library(tmp_path, "-DPLANT_FLUSH")).stderr


# ---- the stubs, which mypy believes


def signature(text):
    """Of `name(x: a[b, c], y: d) -> e[f]`, as pybind11 writes it: how many parameters, and which type comes back."""
    inside, result = re.fullmatch(r"\w+\((.*)\) -> (.*)", text.strip().splitlines()[0]).groups()
    while re.search(r"\[[^][]*\]", inside):
        inside = re.sub(r"\[[^][]*\]", "", inside)
    return len([part for part in inside.split(",") if part.strip()]), result


def functions_of(node, prefix=""):
    """Dotted name, parameters and type that comes back, of each function of a stub and of the methods in it."""
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from functions_of(child, f"{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            parameters = [*child.args.posonlyargs, *child.args.args]
            result = re.sub(r"\[.*\]", "", ast.unparse(child.returns))
            yield f"{prefix}{child.name}", (len(parameters), result)


@each_module
def test_a_stub_says_what_the_module_takes(path):
    module = importlib.import_module(f"reparam.{path.name.removesuffix(SUFFIX)}")
    functions = dict(functions_of(ast.parse((PACKAGE / f"{module.__name__.rpartition('.')[2]}.pyi").read_text())))
    assert functions
    for name, told in functions.items():
        found = module
        for part in name.split("."):
            found = getattr(found, part)
        parameters, result = signature(found.__doc__)
        assert (parameters, result if told[1] != "Any" else "Any") == told, name


def test_signatures_are_read():
    assert signature("run(arg0: str, arg1: Sequence[A[B, C] | D], arg2: int) -> None\n\nText.") == (3, "None")
    assert signature("isas() -> tuple") == (0, "tuple")


def mypy(module, *arguments, folder):
    """mypy in an empty folder, so that it sees the installed package and no setting of ours."""
    pytest.importorskip("mypy", reason="needs mypy")
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_stubs_name_what_the_modules_have(tmp_path):
    (tmp_path / "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\nfollow_untyped_imports = False\n")
    (tmp_path / "allowed").write_text("reparam._core.Direct\n")  # its metaclass, which pybind11 makes at run time
    modules = [f"reparam.{path.name.removesuffix(SUFFIX)}" for path in MODULES]
    done = mypy("mypy.stubtest", "--mypy-config-file", "mypy.ini", "--allowlist", "allowed", *modules, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


USER = """\
import numpy as np
import reparam as rp
q = rp.MultivariateNormal(np.zeros((5, 2)), scale_tril=np.broadcast_to(np.eye(2), (5, 2, 2)))
estimate = rp.elbo(q, rp.targets.Gaussian(np.zeros(2), scale_tril=np.eye(2)), key=0)
reveal_type(q.rsample(key=0))
reveal_type(estimate.value)
"""


def test_a_users_program_type_checks(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    done = mypy("mypy", "--strict", "user.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    revealed = re.findall(r'Revealed type is "(.*?)"', done.stdout)
    assert len(revealed) == 2
    assert all("numpy.ndarray" in text for text in revealed), revealed
    (tmp_path / "user.py").write_text(USER + "q.rsample(key=None, count='three')\n")
    assert "[call-arg]" in mypy("mypy", "--strict", "user.py", folder=tmp_path).stdout


# ---- the other files


def test_what_lies_beside_the_modules():
    files = {str(file) for file in distribution("reparam").files}
    assert {"reparam/py.typed", *(f"reparam/{stub.name}" for stub in STUBS)} <= files
    assert [name for name in files if name.endswith("/LICENSE") and ".dist-info/" in name]
    assert not [name for name in files if re.search(r"\.(png|md|cpp|hpp|cuh?|o)$|/test_\w+\.py$|^tests/", name)]
