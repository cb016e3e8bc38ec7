# SPDX-License-Identifier: MIT
"""The conductor of ``bench/gpu_check.py`` without a GPU: building, stages that fail or hang, what is missing."""

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reparam._bench import gpu_build, gpu_check, gpu_ops

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "gpu_check.py"


@pytest.mark.skipif(not gpu_build.missing(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so_in_a_line():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == ""
    assert done.stdout == f"bench/gpu_check.py needs a CUDA GPU and CuPy, and this machine has {gpu_build.missing()}\n"


class Driver:
    def __init__(self, devices):
        self._devices = devices

    def cuInit(self, _):
        return 0 if self._devices else 100

    def cuDeviceGetCount(self, count):
        count._obj.value = self._devices
        return 0


def test_it_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(gpu_build.ctypes, "CDLL", lambda _: Driver(0))
    assert gpu_build.missing() == "a driver, but no GPU that it can use"
    monkeypatch.setattr(gpu_build.ctypes, "CDLL", lambda _: Driver(1))
    monkeypatch.setattr(gpu_build.importlib.util, "find_spec", lambda _: None)
    assert gpu_build.missing() == "no CuPy (pip install cupy-cuda13x)"


@pytest.fixture
def built(monkeypatch, tmp_path):
    """The folder of a build in another place, as an earlier run has left it."""
    monkeypatch.setattr(gpu_build, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_build, "BUILT", tmp_path / "build" / "gpu_check")
    (tmp_path / "build" / "gpu_check" / "reparam").mkdir(parents=True)
    return tmp_path / "build" / "gpu_check" / "reparam"


def test_without_nvcc_it_takes_what_is_there(monkeypatch, built):
    monkeypatch.setattr(gpu_build, "find_program", lambda _: None)
    assert gpu_build.build(1.0) == "no nvcc: the reparam in build/gpu_check is used"
    assert gpu_build.environment()["PYTHONPATH"].startswith(str(built.parent))
    built.rmdir()
    assert gpu_build.build(1.0) == "no nvcc: the installed reparam is used"
    assert not gpu_build.environment()["PYTHONPATH"].startswith(str(built.parent))


@pytest.fixture
def nvcc(monkeypatch, built):
    """A compiler that is there, and packages that build; what ``finished`` was asked."""
    monkeypatch.setattr(gpu_build, "find_program", lambda _: "/opt/nvcc")
    monkeypatch.setattr(gpu_build, "capability", lambda: "90")
    requires = '[build-system]\nrequires = ["scikit-build-core>=1.0", "pybind11>=3.0.2"]\n'
    (gpu_build.ROOT / "pyproject.toml").write_text(requires)
    versions = {"scikit-build-core": "1.0", "pybind11": "3.0.2"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(gpu_build.importlib.metadata, "version", version)
    return versions


def building(monkeypatch, ends):
    """Commands go to a list, and end like this; pip leaves something in its target either way."""
    asked = []

    def finished(command, seconds, env):
        asked.append((command, env))
        target = Path(command[command.index("--target") + 1])
        (target / "reparam").mkdir(parents=True)
        (target / "reparam" / "new").touch()
        return "compiling\n", "error: no such header\n", ends

    monkeypatch.setattr(gpu_build, "finished", finished)
    return asked


def test_a_build_that_fails_says_why_and_leaves_the_last(monkeypatch, nvcc, built):
    asked = building(monkeypatch, "status 1")
    said = "the build failed, the reparam in build/gpu_check is used:\nstatus 1\ncompiling\nerror: no such header"
    assert gpu_build.build(1.0) == said
    (command, environment), *_ = asked
    assert command[-1] == str(gpu_build.ROOT)
    assert "--no-build-isolation" in command
    assert environment["SKBUILD_CMAKE_DEFINE"] == "REPARAM_CUDA=ON;REPARAM_CUDA_ARCHITECTURES=90"
    assert environment["CUDACXX"] == "/opt/nvcc"
    assert list(built.iterdir()) == []
    assert [x.name for x in built.parents[1].iterdir()] == ["gpu_check"]


def test_a_build_takes_the_place_of_the_last_when_it_stands(monkeypatch, nvcc, built):
    building(monkeypatch, "")
    assert gpu_build.build(1.0).startswith("built in ")
    assert [x.name for x in built.iterdir()] == ["new"]
    assert [x.name for x in built.parents[1].iterdir()] == ["gpu_check"]


def test_what_a_build_lacks_is_named(monkeypatch, nvcc, built):
    assert gpu_build.unfit() == []
    nvcc.update({"scikit-build-core": "0.11.6", "pybind11": "3.0.10"})
    assert gpu_build.unfit() == ["scikit-build-core 0.11.6, before 1.0"]
    del nvcc["pybind11"]
    asked = building(monkeypatch, "status 1")
    assert gpu_build.build(1.0).startswith(
        "the build failed (scikit-build-core 0.11.6, before 1.0; no pybind11, 3.0.2 or later: pip had to fetch what "
        "builds), the reparam in build/gpu_check is used:\n"
    )
    assert "--no-build-isolation" not in asked[0][0]


def test_kernels_that_do_not_answer_are_given_up(monkeypatch, capsys):
    monkeypatch.setattr(gpu_build, "STARTING", 1e-6)  # over before anything can answer
    assert gpu_build.kernels() == ""
    assert capsys.readouterr().err == "not done after 0 s\n"
    assert gpu_build.finished([sys.executable, "-c", "print(1); exit(3)"], 60, {}) == ("1\n", "", "status 3")


REPORTS = """
import json, sys
from pathlib import Path
file = Path(sys.argv[sys.argv.index("--report") + 1])
file.write_text("".join(json.dumps(x) + "\\n" for x in {lines}))
raise SystemExit({status})
"""


def stage(source, **how):
    return gpu_check.Stage("a stage", (sys.executable, "-c", source), 30, **how)


def test_what_stages_report_is_kept(monkeypatch):
    found = gpu_check.Found()
    lines = [["failed", "wrong"], ["skipped", "no jax"], ["row", {"name": "r"}], ["done", "much"]]
    gpu_check.run(stage(REPORTS.format(lines=lines, status=1)), 30, found)
    assert found == gpu_check.Found(["a stage: wrong"], ["a stage: no jax"], [{"name": "r"}])
    many = gpu_check.Found()
    gpu_check.run(stage(REPORTS.format(lines=[["failed", "wrong"]] * 9, status=1)), 30, many)
    assert many.failed == ["a stage: wrong"] * 5 + ["a stage: and 4 more, above"]
    gpu_check.run(stage(REPORTS.format(lines=[["skipped", "half"]], status=139)), 30, found)
    assert found.failed[1:] == ["a stage: ended with status 139"]
    assert found.skipped[1:] == ["a stage: half"]


def test_a_stage_that_hangs_is_ended_with_what_it_started(monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 0.0)
    found = gpu_check.Found()
    begin = time.monotonic()
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    gpu_check.run(stage(child, reports=False), 1.0, found)
    assert found.failed == ["a stage: did not end in 1 s"]
    assert time.monotonic() - begin < 20


def test_a_stage_without_what_it_needs_is_skipped_and_named(monkeypatch):
    found = gpu_check.Found()
    gpu_check.run(stage("raise SystemExit(1)", modules=("no_such_module",)), 30, found)
    monkeypatch.setattr(gpu_build, "find_program", lambda _: None)
    gpu_check.run(stage("raise SystemExit(1)", tool="memcheck"), 30, found)
    assert found.skipped == ["a stage: no no_such_module", "a stage: no compute-sanitizer"]
    assert found.failed == []


def test_the_stages_fit_into_ten_minutes():
    assert gpu_check.WHOLE + gpu_check.GRACE < 600
    assert {s.command[-1] for s in gpu_check.STAGES if s.command[2] == "reparam._bench.gpu_ops"} == set(gpu_ops.STAGES)
    assert all((SCRIPT.parents[1] / name).is_file() for name in gpu_check.TESTS)


def test_the_tool_that_watches_is_told_how(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_build, "find_program", lambda name: f"/opt/{name}")
    monkeypatch.setattr(gpu_check, "wait", lambda command, _: asked.append(command) or "")
    for tool in ("memcheck", "racecheck"):
        gpu_check.run(gpu_check.Stage("a stage", ("python",), 30, tool=tool, reports=False), 30, gpu_check.Found())
    every = ["--error-exitcode", "9", "--print-limit", "20"]
    assert asked == [
        ["/opt/compute-sanitizer", "--tool", "memcheck", *every, "--report-api-errors", "no", "python"],
        ["/opt/compute-sanitizer", "--tool", "racecheck", *every, "python"],
    ]


def test_rows_are_written_as_json(monkeypatch, tmp_path, capsys):
    file = tmp_path / "rows.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--no-build", "--json", str(file)])
    monkeypatch.setattr(gpu_build, "missing", lambda: "")
    monkeypatch.setattr(gpu_build, "kernels", lambda: "a GPU")
    monkeypatch.setattr(gpu_check, "table", lambda rows: [str(len(rows))])
    lines = [["failed", "wrong"], ["row", {"name": "r"}]]
    monkeypatch.setattr(gpu_check, "STAGES", (stage(REPORTS.format(lines=lines, status=1)),))
    assert gpu_check.main() == 1
    said = {"kernels": "a GPU", "failed": ["a stage: wrong"], "skipped": [], "rows": [{"name": "r"}]}
    assert json.loads(file.read_text()) == said
    assert capsys.readouterr().out.endswith("FAILED: a stage: wrong\n1\n")
