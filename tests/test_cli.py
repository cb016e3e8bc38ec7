# SPDX-License-Identifier: MIT
"""The command line: what it says, and that a user's error is one line and exit code 2, and changes nothing."""

import contextlib
import importlib
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import reparam as rp
from reparam import cli, demo

COMMAND = [sys.executable, "-m", "reparam"]
COMMANDS = ["demo", "info", "selftest", "bench"]
EXTRAS = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}


def run(*arguments, stdout=subprocess.PIPE, **environment):
    environment = {**os.environ, "PYTHONUNBUFFERED": "", **environment}  # buffered, as it is at a user's
    command = [*COMMAND, *arguments]
    pipe = subprocess.PIPE
    return subprocess.run(command, stdout=stdout, stderr=pipe, text=True, timeout=120, check=False, env=environment)


def run_here(*arguments):
    """Exit code, stdout and stderr of a call in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text.rstrip()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """What an earlier demo has left, a file where a folder may be wanted, a folder in a file's place, a loop."""
    earlier = tmp_path / "reparam-demo"
    earlier.mkdir()
    for name in demo.FILES:
        (earlier / name).write_bytes(b"of an earlier run")
    (tmp_path / "file").write_bytes(b"a file")
    (tmp_path / "taken" / "vae.npz").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- what a user gets wrong

KEY = r"argument --key: expected an integer in \[0, 2\*\*64\), got "
POSITIVE = "expected a positive integer, got "
REFUSED = [
    ([], "the following arguments are required: COMMAND"),
    (["train"], "argument COMMAND: invalid choice: 'train'"),
    (["--frobnicate"], "the following arguments are required: COMMAND"),
    (["--versio"], "the following arguments are required: COMMAND"),  # no abbreviations
    (["--frobnicate", "info"], "unrecognized arguments: --frobnicate"),
    (["info", "--xml"], "unrecognized arguments: --xml"),
    (["info", "--js"], "unrecognized arguments: --js"),
    (["selftest", "now"], "unrecognized arguments: now"),
    (["demo", "digits"], "unrecognized arguments: digits"),
    (["demo", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
    (["demo", "--key"], "argument --key: expected one argument"),
    (["demo", "--key", "-1"], KEY + "'-1'"),
    (["demo", "--key", "18446744073709551616"], KEY + "'18446744073709551616'"),
    (["demo", "--key", "1.5"], KEY + "'1.5'"),
    (["demo", "--key", "seven"], KEY + "'seven'"),
    (["demo", "--key", ""], KEY + "''"),
    (["demo", "--key", "1\n2"], KEY + r"'1\\n2'"),
    (["demo", "--epochs", "0"], f"argument --epochs: {POSITIVE}'0'"),
    (["demo", "--epochs", "-3"], f"argument --epochs: {POSITIVE}'-3'"),
    (["demo", "--epochs", "1.5"], f"argument --epochs: {POSITIVE}'1.5'"),
    (["demo", "--epochs", "1e3"], f"argument --epochs: {POSITIVE}'1e3'"),
    (["demo", "--epochs", "nan"], f"argument --epochs: {POSITIVE}'nan'"),
    (["demo", "--refine", "0"], f"argument --refine: {POSITIVE}'0'"),
    (["demo", "--refine", ""], f"argument --refine: {POSITIVE}''"),
    (["demo", "--out"], "argument --out: expected one argument"),
    (["demo", "--out", ""], "argument --out: expected a folder, got ''"),
    (["demo", "--out", "file"], "--out: cannot write into 'file': "),
    (["demo", "--out", "file/below"], "--out: cannot write into 'file/below': "),
    (["demo", "--out", "/proc/nowhere"], "--out: cannot write into '/proc/nowhere': "),
    (["demo", "--out", "/dev/null"], "--out: cannot write into '/dev/null': "),
    (["demo", "--out", "loop"], "--out: cannot write into 'loop': "),
    (["demo", "--out", "x" * 300], "--out: cannot write into 'x*': "),
    (["demo", "--out", "a\0b"], r"--out: cannot write into 'a\\x00b': "),
    (["demo", "--out", "taken"], "--out: cannot write 'taken/vae.npz': a folder has that name"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), REFUSED, ids=lambda x: " ".join(x)[:30] if isinstance(x, list) else ""
)
def test_bad_input_is_one_line_and_changes_nothing(arguments, message, workplace):
    before = contents(workplace)
    code, out, err = run_here(*arguments)
    assert (code, out) == (2, "")
    assert re.match(f"reparam( demo| info| selftest| bench)?: error: {message}", one_line(err)), err
    assert contents(workplace) == before


@pytest.mark.parametrize(
    "arguments", [["train"], ["demo", "--epochs", "0"], ["demo", "--out", "file/below"]], ids=lambda x: x[-1]
)
def test_the_process_ends_with_2_and_one_line(arguments, workplace):
    before = contents(workplace)
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    one_line(ended.stderr)
    assert contents(workplace) == before


@pytest.mark.parametrize(("name", "value", "message"), [
    ("REPARAM_BACKEND", "cuda", "REPARAM_BACKEND must be one of native, .*reference, got 'cuda'"),
    ("REPARAM_BACKEND", "native:mmx", "REPARAM_BACKEND must be one of .*, got 'native:mmx'"),
    ("REPARAM_ISA", "mmx", "REPARAM_ISA must be one of .*scalar.*, got 'mmx'"),
    ("REPARAM_NUM_THREADS", "0", "REPARAM_NUM_THREADS must be .*, got '0'"),
    ("REPARAM_NUM_THREADS", "-2", "REPARAM_NUM_THREADS must be .*, got '-2'"),
    ("REPARAM_NUM_THREADS", "100000", "REPARAM_NUM_THREADS must be .*, got '100000'"),
    ("REPARAM_NUM_THREADS", "two", "REPARAM_NUM_THREADS must be .*, got 'two'"),
])  # fmt: skip
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_setting_is_one_line_for_every_command(command, name, value, message, workplace, monkeypatch):
    before = contents(workplace)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(rp._settings, "_default", [])  # as in a process that has not read them yet
    monkeypatch.setattr(rp._settings, "_threads", [])
    code, out, err = run_here(command)
    assert (code, out) == (2, "")
    assert re.fullmatch(f"reparam: error: {message}", one_line(err)), err
    assert contents(workplace) == before


def test_a_bad_setting_ends_the_process_with_2_and_one_line(workplace):
    for environment in ({"REPARAM_ISA": "mmx", "REPARAM_BACKEND": "reference"}, {"REPARAM_NUM_THREADS": "many"}):
        ended = run("demo", **environment)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert one_line(ended.stderr).startswith(f"reparam: error: {next(iter(environment))} must be ")


@pytest.mark.parametrize("missing", [["sklearn"], ["matplotlib"], ["tqdm"], list(EXTRAS)], ids=lambda x: "-".join(x))
def test_a_missing_extra_is_named_with_what_installs_it(missing, workplace, monkeypatch):
    before = contents(workplace)
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    code, out, err = run_here("demo", "--out", "new")
    packages = [EXTRAS[module] for module in missing]
    assert (code, out) == (2, "")
    assert one_line(err) == f"reparam: error: the demo needs {' and '.join(packages)}: pip install {' '.join(packages)}"
    assert contents(workplace) == before
    assert not (workplace / "new").exists()


# ---- what it says


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=lambda x: x[0])
def test_help(arguments):
    code, out, err = run_here(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["usage: reparam", *arguments[:-1]]))
    for name in COMMANDS if len(arguments) == 1 else []:
        assert f"\n    {name} " in out


def test_version():
    assert run_here("--version") == (0, f"reparam {rp.__version__}\n", "")


@pytest.mark.parametrize("option", ["key", "epochs", "refine"])
def test_the_defaults_stand_in_one_place_and_in_the_help(option):
    default = getattr(demo.Settings, option)
    assert getattr(cli._parser().parse_args(["demo"]), option) == default
    help_of_option = " ".join(run_here("demo", "--help")[1].split(f"--{option} ")[-1].split("--")[0].split())
    assert f"(default {default})" in help_of_option


def test_the_default_of_refine_is_past_the_slower_convergence_of_the_diagonal():
    assert demo.Settings.refine == 400


@pytest.mark.parametrize(("text", "key"), [("0", 0), ("18446744073709551615", 2**64 - 1), ("0x10", 16)])
def test_keys_reach_from_0_to_the_last(text, key):
    assert cli._parser().parse_args(["demo", "--key", text]).key == key


def test_info_as_json():
    ended = run("info", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    info = json.loads(ended.stdout)
    assert info == cli.collect()
    assert info["reparam"] == rp.__version__
    assert info["python"] == platform.python_version()
    assert info["numpy"] == np.__version__
    assert info["backends"] == list(rp.backends())
    assert info["backend"] in info["backends"]
    assert info["threads"] >= 1
    assert info["ops"] == {op.name: op.signature for op in rp.OPS.values()}
    assert set(info["extras"]) == set(EXTRAS.values())
    assert all(info["extras"].values())


def test_info_shows_the_settings_that_are_in_force():
    ended = run("info", "--json", REPARAM_BACKEND="reference", REPARAM_NUM_THREADS="3")
    info = json.loads(ended.stdout)
    assert (info["backend"], info["threads"]) == ("reference", 3)
    assert info["environment"] == {"REPARAM_BACKEND": "reference", "REPARAM_NUM_THREADS": "3"}


def test_info_names_a_missing_extra(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert cli.collect()["extras"] == dict.fromkeys(EXTRAS.values())
    assert "tqdm missing" in run_here("info")[1]


def test_info_and_show_config_print_the_same_lines(capsys):
    rp.show_config()
    shown = capsys.readouterr().out
    assert run_here("info") == (0, shown, "")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.splitlines()}
    info = cli.collect()
    assert list(lines) == list(info)
    assert lines["backend"] == info["backend"]
    assert lines["backends"] == ", ".join(info["backends"])
    assert lines["ops"] == str(len(rp.OPS))


def test_selftest_by_command():
    begin = time.perf_counter()
    ended = run("selftest")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert time.perf_counter() - begin < 10


def test_a_failed_selftest_ends_with_1(monkeypatch):
    monkeypatch.setitem(cli.selftest.GOLDEN, "entropy", 5.6)
    code, _, err = run_here("selftest")
    assert code == 1
    assert err.startswith("FAILED: entropy")


def test_nothing_heavy_is_imported_for_a_small_command():
    heavy = ("sklearn", "matplotlib", "tqdm", "scipy")
    code = f"import sys, reparam.cli as c; c.main(['info']); assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, timeout=60)


# ---- pipes and signals

PRINTING = [["info"], ["--help"], ["demo", "--help"], ["--version"]]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_has_left_gives_no_traceback(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    ended = run(*arguments, stdout=writing, PYTHONUNBUFFERED=unbuffered)
    os.close(writing)
    assert ended.returncode in {0, 1}  # argparse itself overlooks that an unbuffered help is not read
    assert ended.stderr == ""


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        ended = run(*arguments, stdout=full)
    assert ended.returncode == 2
    assert one_line(ended.stderr) == "reparam: error: [Errno 28] No space left on device"


@pytest.mark.parametrize("redirection", ["| head -0", ">&-"])
def test_output_that_nobody_takes_is_no_fault(redirection):
    shell = f'"{sys.executable}" -m reparam info {redirection}'
    ended = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_an_interrupted_demo_says_so_in_one_line_and_leaves_a_checkpoint_that_loads(workplace):
    earlier = contents(workplace)
    job = subprocess.Popen(
        [*COMMAND, "demo", "--epochs", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint = workplace / "reparam-demo" / "training.npz"
    deadline = time.monotonic() + 60
    while checkpoint.read_bytes() == b"of an earlier run":
        assert time.monotonic() < deadline, "no checkpoint after a minute"
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 130
    assert one_line(err) == "reparam: interrupted"
    model = rp.VAE.load(checkpoint)
    assert len(model.history_["epoch"]) >= 1
    assert np.isfinite(model.history_["validation_elbo"]).all()
    now = contents(workplace)
    assert set(now) == set(earlier)  # nothing half written is left
    assert {name for name in now if now[name] != earlier[name]} == {"reparam-demo/training.npz"}
