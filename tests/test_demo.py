# SPDX-License-Identifier: MIT
"""The demo does the main job on real data: it writes what it says, repeats its numbers, and never spoils a folder."""

import errno
import getpass
import json
import os
import pty
import re
import socket
import subprocess
import sys
import tempfile
import termios
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

import reparam as rp
from reparam import cli, demo
from reparam.demo import figure as demo_figure
from reparam.demo import report
from support import same_bits

EPOCHS, REFINE = 10, 30
SHORT = ["--epochs", str(EPOCHS), "--refine", str(REFINE), "--no-progress"]
KEY_OF_SCORES = 2**63 + 16
STEPS = ["training", "inference, diagonal", "inference, full"]
PARTS = ["loading digits", "training", "evaluation", *STEPS[1:], "half-hidden ELBOs", "figure", "checkpoint", "total"]
NATS = ["train_elbo", "held_out_elbo", "held_out_log_likelihood"]


def run_demo(folder, key, **environment):
    """Everything that one run has said and written."""
    command = [sys.executable, "-W", "error", "-m", "reparam", "demo", *SHORT, "--key", str(key), "--out", str(folder)]
    environment = {**os.environ, **environment}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    summary = json.loads(files["summary.json"])
    return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr, files=files, summary=summary)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / os.fsdecode(b"not text \xff")


@pytest.fixture(scope="module")
def first(folder):
    return run_demo(folder, 0)


@pytest.fixture(scope="module")
def again(first, folder):
    """The same key into the same folder, whose figure was spoilt meanwhile, on other numbers of threads."""
    (folder / "demo.png").write_bytes(b"")
    return run_demo(folder, 0, REPARAM_NUM_THREADS="3", OPENBLAS_NUM_THREADS="2")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture(scope="module")
def digits():
    return demo.load_digits()


@pytest.fixture(scope="module")
def model(first, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "vae.npz"
    path.write_bytes(first.files["vae.npz"])
    return rp.VAE.load(path)


# ---- the data


def test_the_digits_are_counts_of_16_and_each_stands_in_one_part(digits):
    from sklearn.datasets import load_digits

    rows = np.concatenate([digits.train, digits.test])
    assert rows.dtype == np.float32
    assert rows.min() == 0
    assert rows.max() == 16
    assert (rows == np.round(rows)).all()
    assert (len(digits.train), len(digits.test), len(digits.half_hidden)) == (1437, 360, 200)
    pairs = zip(rows, np.concatenate([digits.train_labels, digits.test_labels]), strict=True)
    bundled = zip(load_digits().data, load_digits().target, strict=True)
    assert sorted((*x, y) for x, y in pairs) == sorted((*x, y) for x, y in bundled)


def test_the_split_is_fixed(digits):
    assert zlib.crc32(digits.test) == 0x9E4E7CD7
    assert set(digits.test_labels[:200]) == set(range(10))


def test_the_lower_half_is_hidden():
    np.testing.assert_array_equal(
        demo.lower_half_hidden().reshape(8, 8), np.repeat([[1], [0]], 4, axis=0) * np.ones((1, 8))
    )


# ---- one run


def test_it_ends_well_and_says_nothing_on_stderr(first, again, other):
    for ended in (first, again, other):
        assert (ended.code, ended.err) == (0, "")


def test_it_writes_the_four_files_and_nothing_else(first, again):
    assert set(first.files) == set(again.files) == set(demo.FILES)


def leaves(tree):
    return [x for value in tree.values() for x in (leaves(value) if isinstance(value, dict) else [value])]


def test_the_summary_is_complete(first):
    summary = first.summary
    assert list(summary) == [
        "about", "settings", *NATS, "half_hidden_elbo", "reloaded_checkpoint_gives_the_same_score", "timings",
    ]  # fmt: skip
    assert summary["about"] == {**{name: cli.collect()[name] for name in cli.ABOUT}, "blas_threads": 1}
    assert set(summary["about"]) >= {"reparam", "python", "numpy", "extras", "compiler", "backend", "threads"}
    assert summary["settings"] == {"key": 0, "epochs": EPOCHS, "refine": REFINE}
    assert summary["held_out_log_likelihood"]["num_samples"] == 1000
    assert set(summary["half_hidden_elbo"]) == {"diag", "full", "full_minus_diag", "num_images", "num_samples"}
    assert summary["half_hidden_elbo"]["num_images"] == 200
    assert list(summary["timings"]["seconds"]) == PARTS
    assert np.isfinite([x for x in leaves(summary) if isinstance(x, float)]).all()


def test_the_summary_names_no_place_of_this_machine(first, folder):
    text = first.files["summary.json"].decode()
    for place in (
        folder.name,
        tempfile.gettempdir(),
        sys.prefix,
        str(Path.home()),
        str(Path.cwd()),
        socket.gethostname(),
    ):
        assert place not in text
    assert getpass.getuser() not in leaves(first.summary)


def test_bounds_stand_in_their_order(first):
    summary, half = first.summary, first.summary["half_hidden_elbo"]
    for name in NATS:
        assert summary[name]["standard_error"] > 0
    bound = summary["held_out_log_likelihood"]
    assert bound["mean"] > summary["held_out_elbo"]["mean"]
    assert 0 < bound["monte_carlo_error"] < bound["standard_error"]
    assert half["full_minus_diag"]["mean"] == pytest.approx(half["full"]["mean"] - half["diag"]["mean"], abs=1e-9)


def test_a_full_covariance_explains_a_half_hidden_digit_better(first):
    """By about 1.6 nats after this short training, by about 2 after the whole of it."""
    gap = first.summary["half_hidden_elbo"]["full_minus_diag"]
    assert gap["mean"] - 4.5 * gap["standard_error"] > 1


def test_the_model_has_learned(first, model, digits):
    """Better than the best model without latents: each pixel binomial with its own training mean."""
    p = (digits.train.mean(0) + 1e-3) / (16 + 2e-3)
    coefficient = rp.models.likelihoods.Binomial(16).log_coefficient[digits.test.astype(int)].sum(-1)
    baseline = coefficient + (digits.test * np.log(p) + (16 - digits.test) * np.log1p(-p)).sum(-1)
    assert first.summary["held_out_elbo"]["mean"] > baseline.mean() + 30
    history = model.history_["validation_elbo"]
    assert len(history) == EPOCHS
    assert history[-1] > history[0] + 50


def test_the_table_has_the_numbers_of_the_summary(first):
    half, times = first.summary["half_hidden_elbo"], first.summary["timings"]
    shown = {
        "training ELBO": first.summary["train_elbo"], "held-out ELBO": first.summary["held_out_elbo"],
        "held-out log-likelihood": first.summary["held_out_log_likelihood"],
        "half-hidden ELBO, diagonal": half["diag"], "half-hidden ELBO, full": half["full"],
        "full minus diagonal": half["full_minus_diag"],
    }  # fmt: skip
    for name, value in shown.items():
        assert f"\n{name:28}{value['mean']:9.2f}{value['standard_error']:8.2f}" in first.out
    for part in PARTS:
        assert f"\n{part:28}{times['seconds'][part]:9.2f}" in first.out
    assert "the same score, bit for bit" in first.out


def test_times_are_those_of_the_steps(first):
    times = first.summary["timings"]
    seconds, steps = times["seconds"], times["steps"]
    assert seconds["total"] == pytest.approx(sum(seconds[part] for part in PARTS[:-1]))
    assert steps == {"training": EPOCHS * 12, "inference, diagonal": REFINE, "inference, full": REFINE}
    by_steps = {part: steps[part] * times["microseconds_per_step"][part] / 1e6 for part in STEPS}
    for part in STEPS[1:]:
        assert by_steps[part] == pytest.approx(seconds[part])
        assert times["microseconds_per_step_and_image"][part] == pytest.approx(
            times["microseconds_per_step"][part] / 200
        )
    assert by_steps["training"] > 0
    assert times["microseconds_per_step_and_image"]["training"] * 1437 * EPOCHS / 1e6 == pytest.approx(
        by_steps["training"]
    )


def test_the_time_of_a_step_leaves_out_what_comes_between_epochs(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 102.0, 103.0, 104.0, 204.0])
    monkeypatch.setattr(report, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    timer = report.StepTimer()
    for epoch in (0, 0, 0, 1, 1, 1, 2):
        timer(SimpleNamespace(epoch=epoch))
    assert timer.seconds_per_step == 1


# ---- the checkpoint


def test_the_checkpoint_gives_the_score_of_the_summary(first, model, digits):
    score = model.elbo(digits.test, key=rp.random.fold_in(0, KEY_OF_SCORES))
    assert np.mean(score, dtype=np.float64) == pytest.approx(first.summary["held_out_elbo"]["mean"], rel=1e-6)
    assert first.summary["reloaded_checkpoint_gives_the_same_score"] is True


def test_both_checkpoints_hold_the_same_model(first, model, digits, tmp_path):
    (tmp_path / "training.npz").write_bytes(first.files["training.npz"])
    trained = rp.VAE.load(tmp_path / "training.npz")
    same_bits(trained.elbo(digits.test, key=3), model.elbo(digits.test, key=3))
    for name, values in model.history_.items():
        same_bits(trained.history_[name], values)


@pytest.fixture
def trained(model, monkeypatch):
    """The demo without its training and with fewer draws: what comes after is under test."""
    monkeypatch.setattr(demo, "train", lambda *_: model)
    monkeypatch.setattr(demo, "IMPORTANCE_SAMPLES", 2)


def test_another_score_of_the_reloaded_checkpoint_ends_with_1(trained, model, tmp_path, monkeypatch, capsys):
    model.save(tmp_path / "vae.npz")
    wrong = rp.VAE.load(tmp_path / "vae.npz")
    wrong._params += 0.01
    monkeypatch.setattr(rp.VAE, "load", lambda _: wrong)
    assert cli.main(["demo", "--out", str(tmp_path / "out"), "--refine", "1"]) == 1
    assert "the reloaded checkpoint gives ANOTHER SCORE" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "out" / "summary.json").read_text())["reloaded_checkpoint_gives_the_same_score"] is False
    )


# ---- the same key, another key


def numbers(summary):
    return {name: value for name, value in summary.items() if name not in {"about", "timings"}}


def test_the_same_key_gives_the_same_numbers_and_the_same_files_on_any_number_of_threads(first, again):
    assert again.summary["about"]["threads"] == 3 != first.summary["about"]["threads"]
    assert numbers(again.summary) == numbers(first.summary)
    for name in ("demo.png", "vae.npz", "training.npz"):
        assert again.files[name] == first.files[name]
    words = [ended.out.split("\n\ntime")[0] for ended in (first, again)]
    assert words[0] == words[1]


def test_another_key_gives_other_numbers(first, other):
    for name in NATS:
        assert other.summary[name]["mean"] != first.summary[name]["mean"]
    for kind in ("diag", "full", "full_minus_diag"):
        assert other.summary["half_hidden_elbo"][kind]["mean"] != first.summary["half_hidden_elbo"][kind]["mean"]
    assert other.summary["settings"]["key"] == 1


# ---- inference


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_nothing_is_inferred_from_the_hidden_half(model, digits, covariance_type):
    settings = demo.Settings(out=Path("nowhere"), refine=2)
    hidden = demo.lower_half_hidden() == 0
    changed = digits.test.copy()
    changed[:, hidden] = 16 - changed[:, hidden]
    one = demo.infer(model, digits, settings, covariance_type)
    two = demo.infer(
        model, demo.Digits(digits.train, digits.train_labels, changed, digits.test_labels), settings, covariance_type
    )
    same_bits(two.loc, one.loc)
    same_bits(two.covariance_matrix, one.covariance_matrix)
    off_diagonal = one.covariance_matrix * (1 - np.eye(8))
    assert (np.abs(off_diagonal).max() > 0) == (covariance_type == "full")


def test_the_decoder_stays_as_it_is(model, digits):
    before = model._params.copy()
    demo.infer(model, digits, demo.Settings(out=Path("nowhere"), refine=2), "full")
    same_bits(model._params, before)


# ---- the figure


@pytest.fixture(scope="module")
def image(first, tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "demo.png"
    path.write_bytes(first.files["demo.png"])
    return imread(path)[..., :3]


def test_the_figure_has_the_stated_size(image):
    height, width, _ = image.shape
    assert (width, height) == demo_figure.PIXELS


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, None)], ids=["upper", "lower"])
@pytest.mark.parametrize("columns", [slice(0, 2), slice(2, None)], ids=["left", "right"])
def test_every_quarter_of_the_figure_shows_something(image, rows, columns):
    height, width, _ = image.shape
    part = np.array_split(np.arange(height), 4), np.array_split(np.arange(width), 4)
    shown = image[np.ix_(np.concatenate(part[0][rows]), np.concatenate(part[1][columns]))]
    ink = (shown.min(-1) < 0.5).mean()
    assert 0.005 < ink < 0.5


@pytest.mark.parametrize("meaning", ["full", "diag", "train", "held_out", "hidden"])
def test_every_colour_with_a_meaning_is_seen(image, meaning):
    near = np.abs(image - to_rgb(rp.plot.COLORS[meaning])).max(-1) < 0.02
    assert near.sum() > 300


def test_nothing_is_cut_off_at_the_edge_of_the_figure(image):
    for edge in (image[:8], image[-8:], image[:, :8], image[:, -8:]):
        assert (edge == 1).all()


def test_the_six_shown_digits_are_of_six_classes(model, digits):
    settings = demo.Settings(out=Path("nowhere"), refine=2)
    posteriors = {kind: demo.infer(model, digits, settings, kind) for kind in ("diag", "full")}
    shown = demo_figure._most_different(model, digits, posteriors, 5)
    labels = digits.test_labels[shown]
    apart = rp.tril_solve(posteriors["full"].scale_tril, posteriors["diag"].loc - posteriors["full"].loc)
    assert np.linalg.norm(apart, axis=-1)[shown].max() < demo_figure.SAME_MODE
    assert len(shown) == 6
    assert (np.diff(labels) > 0).all()
    assert shown.max() < 200


# ---- runs that go wrong


def test_a_refused_run_leaves_the_checkpoint_of_the_previous_one(first, again, folder, digits):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for wrong in (["--key", "x"], ["--epochs", "0"], ["--frobnicate"]):
        assert cli.main(["demo", "--out", str(folder), *wrong]) == 2
    assert cli.main(["demo", "--out", str(folder / "vae.npz")]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert np.isfinite(rp.VAE.load(folder / "vae.npz").elbo(digits.test, key=0)).all()


@pytest.mark.parametrize("failing", ["figure", "summary", "checkpoint"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_the_previous_files(
    failing, trained, tmp_path, monkeypatch, capsys
):
    for name in demo.FILES:
        (tmp_path / name).write_bytes(b"of an earlier run")

    def no_space(path, *_, **__):
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    if failing == "figure":
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, path, **__: no_space(path))
    elif failing == "summary":
        monkeypatch.setattr(Path, "write_text", no_space)
    else:
        monkeypatch.setattr(rp.VAE, "save", lambda *_: no_space(tmp_path / "x"))
    code = cli.main(["demo", "--out", str(tmp_path), "--refine", "1"])
    err = capsys.readouterr().err
    assert code == 2
    assert re.fullmatch(r"reparam: error: \[Errno 28\] No space left on device: '.*'\n", err)
    failed = {"figure": "demo.png", "summary": "summary.json", "checkpoint": "vae.npz"}[failing]
    assert (tmp_path / failed).read_bytes() == b"of an earlier run"
    assert {path.name for path in tmp_path.iterdir()} - {"x"} == set(demo.FILES)


# ---- the progress bar


@pytest.mark.parametrize("arguments", [[], ["--no-progress"]], ids=["bar", "none"])
def test_the_bar_is_shown_on_a_terminal_unless_it_is_not_wanted(arguments, tmp_path):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    job = subprocess.Popen(
        [sys.executable, "-m", "reparam", "demo", "--epochs", "1000000", "--out", str(tmp_path), *arguments],
        stdout=subprocess.PIPE, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    deadline = time.monotonic() + 60
    while not (tmp_path / "training.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    job.send_signal(2)
    job.communicate(timeout=30)
    said = b""
    while chunk := _read(master):
        said += chunk
    os.close(master)
    text = said.decode()
    assert job.returncode == 130
    assert "Traceback" not in text
    assert text.splitlines()[-1] == "reparam: interrupted"
    assert ("epoch/s" in text and "ELBO" in text) == (arguments == [])


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed and everything is read
        return b""
