# SPDX-License-Identifier: MIT
"""``reparam bench``: what it refuses, what it writes, that wrong answers are caught; no time is asserted."""

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from reparam._bench import (
    answers,
    command,
    contest,
    figures,
    libraries,
    machine,
    report,
    roofs,
    scaling,
    table,
    timing,
    vae_rivals,
    work_elbo,
    work_noise,
    work_training,
)
from reparam._bench.row import Contestant, Row, Target, flat, lower_bytes

from reparam import cli

LIMIT = 16
MOVES = ("copy", "update", "read")
LIMITS = ("fma float32", "fma float64", *MOVES, *(f"{move} cached" for move in MOVES))
ROOFS = {name: {"1": 1e9, "all": 2e9} for name in LIMITS}
TINY = {"op": ("cholesky",), "size": ("d=4 float32 R",), "rival": ("numpy",), "limit": LIMIT}
#: The works of the published tables, and the op that has their rows.
WORKS = {
    "Cholesky": "cholesky", "Cholesky vjp": "cholesky.vjp", "MVN log_prob": "log_prob",
    "log_prob with its gradient": "log_prob+vjp", "MC ELBO, external target": "elbo-external",
    "MC ELBO, linear Gaussian": "elbo-linear-gaussian", "MC ELBO, GLM": "elbo-glm", "classical VI, one step": "vi-step",
    "classical VI, whole": "vi-run", "normals": "normals", "Adam": "adam", "VAE step": "vae-step",
    "one call": "call-cholesky", "Numba fallback": "cholesky-on-numba", "triangular solve": "tril_solve",
    "transform": "transform", "transform and log_prob": "transform_and_log_prob",
    "densities of a mixture": "log_prob-components",
    "shared factor": "log_prob+vjp-shared", "diagonal": "log_prob+vjp-diag", "scalar": "log_prob+vjp-scalar",
    "mixture, EM": "gmm-em",
}  # fmt: skip
#: Sizes that the published tables name.
SIZES = [
    ("cholesky", "B=100000 d=4 float32"), ("cholesky", "B=100000 d=8 float32"), ("cholesky", "B=20000 d=16"),
    ("cholesky", "B=20000 d=32"), ("cholesky", "B=4000 d=64"), ("cholesky", "B=1000 d=128"),
    ("cholesky", "B=100000 d=8 float64"), ("log_prob", "B=50000 d=8"), ("log_prob", "B=20000 d=16"),
    ("log_prob", "B=5000 d=32"), ("log_prob", "B=1000 d=64"), ("log_prob+vjp", "B=50000 d=8"),
    ("log_prob+vjp", "B=20000 d=16"), ("log_prob+vjp", "B=5000 d=32"), ("elbo-external", "B=4096 S=1 d=8"),
    ("elbo-external", "B=4096 S=8 d=16 float64"), ("elbo-external", "B=1024 S=16 d=32 float64"),
    ("vi-step", "n=50 d=8 S=8 B=2000"), ("normals", "B=1000000 float32"), ("normals", "B=1000000 float64"),
    ("adam", "B=10000000"), ("vae-step", "64-128-8 diagonal B=128"), ("vae-step", "64-128-8 full B=128"),
    ("vae-step", "784-256-16 diagonal B=128"), ("vae-step", "784-256-16 full B=128"),
    ("cholesky.vjp", "d=4 float32 M"), ("cholesky.vjp", "d=32 float64 M"), ("log_prob", "d=128 R"),
    ("log_prob+vjp", "d=2 R"), ("log_prob-components", "B=20000 K=16 d=8 float64"),
    ("vae-step", "784-400-20 diagonal B=512"), ("vae-step", "784-400-20 full B=512"),
    ("gmm-em", "n=100000 d=8 K=8 float64"), ("gmm-em", "n=100000 d=16 K=16"), ("gmm-em", "n=20000 d=64 K=16"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _known_roofs(monkeypatch):
    monkeypatch.setattr(roofs, "measure", lambda: ROOFS)


def bench(folder, **settings):
    """Exit code and lines of one run of the command on few events."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = command.run(command.Settings(out=folder, **{**TINY, **settings}))
    return code, out.getvalue().splitlines()


def refused(*arguments):
    """The line that a command line is refused with."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["bench", *arguments])
    assert (code, out.getvalue(), err.getvalue().count("\n")) == (2, "", 1)
    return err.getvalue()


# ---- what a user gets wrong


@pytest.mark.parametrize(("option", "given", "known"), [
    ("--op", "cholesk", "cholesky, cholesky.vjp"),
    ("--op", "", "cholesky"),
    ("--rival", "eigen", "numpy, scipy, torch, jax, numpyro, sklearn, mkl"),
    ("--size", "d=5", "d=4, d=8, d=16"),
    ("--size", "d=4 float16", "float32"),
    ("--size", "", "d=4"),
])  # fmt: skip
def test_an_unknown_name_lists_those_that_are_known(option, given, known, tmp_path):
    line = refused(option, given, "--out", str(tmp_path / "new"))
    assert line.startswith(f"reparam: error: {option}: unknown {given.split()[-1] if given else ''!r}, known are ")
    assert known in line
    assert not (tmp_path / "new").exists()


def test_a_size_that_the_op_does_not_have(tmp_path):
    line = refused("--op", "normals", "--size", "d=4", "--out", str(tmp_path))
    assert line.endswith("no row of normals has size 'd=4', known are float32 B=1000000, float64 B=1000000\n")


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"schema": 0, "rows": []}', '{"schema": 1, "rows": [{}]}'])
def test_an_earlier_run_that_cannot_be_read(text, tmp_path):
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert f"--compare: cannot read '{path}'" in refused("--compare", str(path), "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, None, "x"])
def test_an_earlier_run_with_a_time_that_is_none(seconds, tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema": 1, "rows": [{"name": "a row", "seconds": seconds}]}))
    line = refused("--compare", str(path), "--out", str(tmp_path / "new"))
    assert f"--compare: cannot read '{path}'" in line
    assert not isinstance(seconds, (int, float)) or f"row 'a row' has {seconds:g} seconds" in line


def test_a_run_that_is_stopped_keeps_its_rows(tmp_path, monkeypatch):
    whole, rounds = timing.measure, iter([None, KeyboardInterrupt, KeyboardInterrupt])

    def stopped(*arguments):
        if (error := next(rounds)) is not None:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(timing, "measure", stopped)
    code, lines = bench(tmp_path / "kept", size=("d=4 float32 R", "d=8 float32 R"))
    assert (code, lines[-1]) == (130, f"stopped: wrote what was measured, rows: 1, into {tmp_path / 'kept'}")
    (row,) = json.loads((tmp_path / "kept" / "bench.json").read_text())["rows"]
    assert row["name"] == "cholesky float32 d=4 R"
    assert len((tmp_path / "kept" / "bench.csv").read_text().splitlines()) == 1 + len(row["contestants"])
    code, lines = bench(tmp_path / "new" / "deep")
    assert (code, lines[-1]) == (130, "stopped before the first row: nothing was written")
    assert not (tmp_path / "new").exists()


def test_the_rows_are_written_before_anything_else_can_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "means", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench(tmp_path)
    assert len(json.loads((tmp_path / "bench.json").read_text())["rows"]) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "--out: cannot write into" in refused("--op", "adam", "--out", str(tmp_path / "file"))


def test_too_little_memory_skips_the_row_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "available_bytes", lambda: 1000)
    code, lines = bench(tmp_path)
    assert code == 0
    assert [line for line in lines if "skipped" in line] == [
        "cholesky float32 d=4 R: skipped, needs about 0.0 GiB, more than half of the 0.0 available"
    ]
    assert json.loads((tmp_path / "bench.json").read_text())["rows"] == []


def test_a_rival_that_is_not_installed_is_named_once(tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "installed", lambda library: library in ("reparam", "numpy"))
    code, lines = bench(tmp_path, rival=(), size=("d=4 float32", "d=8 float32"))
    named = [line for line in lines if line.endswith("is not installed: skipped")]
    assert (code, named) == (0, [f"{name} is not installed: skipped" for name in ("torch", "jax", "mkl")])


# ---- what it writes


def test_a_run_writes_the_table_json_and_csv(tmp_path):
    code, lines = bench(tmp_path, quick=True)
    assert code == 0
    at = next(k for k, line in enumerate(lines) if line.startswith("row "))
    assert re.split(r"\s{2,}", lines[at]) == [name for name, _ in report.COLUMNS]
    assert lines[at + 1].startswith("cholesky float32 d=4 R ")
    assert "numpy" in lines[at + 1]
    assert any(line.startswith("geometric mean") for line in lines)
    whole = json.loads((tmp_path / "bench.json").read_text())
    (row,) = whole["rows"]
    assert set(whole) == {"schema", "machine", "roofs", "rows", "scaling"}
    assert row["batch"] == LIMIT
    assert row["ratio"] == pytest.approx(row["rival"]["seconds"] / row["seconds"])
    assert {who["library"] for who in row["contestants"]} == {"reparam", "numpy"}
    assert all(0 < who["least"] <= who["median"] for who in row["contestants"])
    with (tmp_path / "bench.csv").open(newline="") as file:
        table_of_csv = list(csv.DictReader(file))
    assert [float(who["median"]) for who in table_of_csv] == [who["median"] for who in row["contestants"]]


def test_a_run_is_compared_with_an_earlier_one(tmp_path):
    bench(tmp_path)
    old = tmp_path / "old.json"
    whole = json.loads((tmp_path / "bench.json").read_text())
    whole["rows"][0]["seconds"] = 1.0
    old.write_text(json.dumps(whole))
    code, lines = bench(tmp_path, compare=old, size=("d=4 float32 R", "d=8 float32 R"))
    assert code == 0
    at = lines.index("our time, new over old:")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert lines[at + 1].split()[4:6] == [f"{rows[0]['seconds']:.3f}", f"({1e3 * rows[0]['seconds']:.4g}"]
    assert lines[at + 2].endswith("not in the earlier run")
    assert lines[at + 3].split() == ["geometric", "mean", f"{rows[0]['seconds']:.3f}"]


def test_means_and_targets():
    def made(op, ratio, met):
        targets = [{"text": "2x", "met": met, "possible": False}]
        floor = {"seconds": 0.1 if op == "a" else 0.4, "limit": "copy"} if ratio else None
        row = {"name": op, "op": op, "seconds": 1.0, "ratio": ratio, "counts": op != "c"}
        return {**row, "targets": targets, "floor": floor}

    lines = report.means([made("a", 2.0, True), made("a", 8.0, False), made("b", None, None), made("c", 9.0, None)])
    assert [line.split() for line in lines[1:]] == [
        ["a", "4.00x", "of", "2"], ["all", "4.00x", "of", "2"],
        ["bound", "by", "copy:", "10%", "of", "it", "reached", "in", "the", "mean", "of", "2,", "10", "to", "10%"],
        ["targets", "met:", "1", "of", "2;", "the", "floor", "would", "miss", "1", "too"],
    ]  # fmt: skip


def test_the_figures_of_a_whole_run_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "BATCHES", (1, 9, 100))
    monkeypatch.setattr(scaling, "DIMS", (1, 5))
    sweeps = scaling.measure(limit=LIMIT)
    curves = [curve for axis in sweeps.values() for curve in axis.values()]
    assert all(len(c["x"]) == len(c["seconds"]) and min(c["seconds"]) > 0 for c in curves)
    assert {x for c in sweeps["batch"].values() for x in c["x"]} == {1, 9}
    bench(tmp_path)
    results = json.loads((tmp_path / "bench.json").read_text())["rows"]
    names = {path.name for path in figures.draw(tmp_path, results, ROOFS, sweeps)}
    assert names == {"ratios.png", "roofline.png", "against_batch.png", "against_d.png", "against_threads.png"}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_the_roofs_are_measured(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(machine, "cache_bytes", lambda: 2**16)
    monkeypatch.setattr(roofs, "FMA_ROUNDS", 1000)
    measured = roofs.measure()
    assert set(measured) == set(ROOFS)
    assert all(0 < rates["1"] <= rates["all"] for rates in measured.values())


# ---- the rows


def test_every_published_work_and_size_has_a_row():
    assert set(WORKS.values()) <= set(table.known_ops())
    for op, size in SIZES:
        assert table.choose([op], [size]), (op, size)


def test_rows_have_names_of_their_own_and_a_shrunk_form():
    rows, shrunk = table.rows(), table.rows(LIMIT)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert [row.name for row in shrunk] == names
    assert all(row.batch <= 32 for row in shrunk if row.op != "gmm-em")  # each component needs rows of its own
    assert sum(row.batch for row in shrunk) < 10_000
    for row in rows:
        assert row.contestants[0].library == "reparam", row.name
        assert len({c.name for c in row.contestants}) == len(row.contestants), row.name
        assert {c.library for c in row.contestants} <= {"reparam", *libraries.RIVALS}, row.name


def test_regimes_hold_what_they_say():
    for row in table.rows():
        assert row.regime != "R" or row.bytes <= 8e6, row.name
        assert row.regime != "M" or row.bytes >= 4 * machine.cache_bytes(), row.name


@pytest.mark.parametrize(("d", "dtype", "lines"), [
    (2, "float32", 1 / 4), (3, "float32", 9 / 16), (4, "float64", 2), (16, "float32", 16), (16, "float64", 24),
    (32, "float32", 48), (64, "float32", 160), (128, "float64", 1088),
])  # fmt: skip
def test_the_cache_lines_of_a_lower_triangle(d, dtype, lines):
    assert lower_bytes(d, dtype) == 64 * lines


def test_quick_is_a_choice_of_rows_and_names_overrule_it():
    quick = table.choose(quick=True)
    assert {row.op for row in quick} == set(table.known_ops()) - {"vi-run"}
    assert len(quick) < len(table.rows()) / 3
    assert [row.name for row in table.choose(["cholesky"], ["d=2 float64 R"], quick=True)] == ["cholesky float64 d=2 R"]


@pytest.mark.parametrize("op", table.known_ops())
def test_ours_and_numpy_agree(op):
    held = contest.Contest(("numpy",), LIMIT, workers=False)
    for row in table.choose([op], quick=True, limit=LIMIT):
        here = row.contestants[0].home not in libraries.IN_WORKERS
        if here and (row.needs is None or libraries.installed(row.needs)):
            assert held.runners(row)


# ---- answers and times


def constant(library, *answer):
    """A contestant that always answers this."""
    return Contestant(library, "library", lambda: lambda: tuple(np.array(x) for x in answer))


def row_of(*contestants, **fields):
    named = {"op": "op", "size": "d=1", "dtype": "float64", "regime": "-", "batch": 2, "make": lambda rng: ()}
    return Row(**named, contestants=contestants, **fields)


@pytest.mark.parametrize("wrong", [[1.0, 2.001], [1.0, math.nan], [1.0], [[1.0, 2.0]]], ids=str)
def test_a_wrong_answer_names_the_row_and_the_contestant(wrong):
    held = contest.Contest(("numpy",), workers=False)
    right = constant("reparam", [1.0, 2.0])
    assert held.runners(row_of(right, constant("numpy", [1.0, 2.0])))
    with pytest.raises(answers.AnswerError, match=r"op float64 d=1: numpy .* and ours"):
        held.runners(row_of(right, constant("numpy", wrong)))
    with pytest.raises(answers.AnswerError, match=r"op float64 d=1: reparam .* and the float64 answer"):
        held.runners(row_of(right, reference=lambda: (np.array([1.0, 3.0]),)))


def test_a_wrong_answer_fails_the_run_and_leaves_the_other_rows(tmp_path, monkeypatch):
    rows = [
        row_of(constant("reparam", [1.0]), constant("numpy", [2.0])),
        *table.choose(["cholesky"], ["d=4 float32 R"]),
    ]
    monkeypatch.setattr(table, "choose", lambda *_, **__: rows)
    code, lines = bench(tmp_path)
    assert code == 1
    assert lines[-2].startswith("answers differ: op float64 d=1: numpy")
    assert [row["op"] for row in json.loads((tmp_path / "bench.json").read_text())["rows"]] == ["cholesky"]


def with_fault(row, change):
    """The row with ours, and ours with a fault as a rival."""
    ours = row.contestants[0]
    bad = dataclasses.replace(ours, library="numpy", answer=lambda result: change(*ours.arrays(result)))
    return dataclasses.replace(row, contestants=(ours, bad))


def held_to_account(row):
    contest.Contest(("numpy",), workers=False).runners(row)


def on_diagonal(matrix):
    return matrix * np.eye(matrix.shape[-1], dtype=matrix.dtype)


GRADIENT_FAULTS = {
    "loc with the wrong sign": lambda v, g, c: (v, -g, c),
    "loc of zero": lambda v, g, c: (v, 0 * g, c),
    "loc halved": lambda v, g, c: (v, g / 2, c),
    "one entry of loc is zero": lambda v, g, c: (v, g * (np.arange(g.shape[-1]) > 0), c),
    "loc is noise": lambda v, g, c: (v, 100 * np.random.default_rng(0).standard_normal(g.shape).astype(g.dtype), c),
    "zero below the diagonal": lambda v, g, c: (v, g, on_diagonal(c)),
    "wrong sign below the diagonal": lambda v, g, c: (v, g, 2 * on_diagonal(c) - c),
    "twice the diagonal": lambda v, g, c: (v, g, c + on_diagonal(c)),
    "values of other events": lambda v, g, c: (np.roll(v, 1), g, c),
    "gradients of other events": lambda v, g, c: (v, np.roll(g, 7, 0), np.roll(c, 3, 0)),
    "the loc of other events": lambda v, g, c: (v, np.roll(g, 1, 0), c),
    "entries of the loc in another order": lambda v, g, c: (v, g[:, ::-1], c),
    "a constant value": lambda v, g, c: (np.full_like(v, v.mean()), g, c),
    "a value that is off by a tenth": lambda v, g, c: (1.1 * v, g, c),
    "no number": lambda v, g, c: (v, g + np.nan, c),
    "a transposed factor": lambda v, g, c: (v, g, c.swapaxes(-1, -2)),
}
ESTIMATED = [(kind, size) for kind in work_elbo.TARGETS for size in work_elbo.SIZES]


@pytest.mark.parametrize(("kind", "size"), ESTIMATED, ids=str)
def test_a_wrong_gradient_of_an_estimate_is_caught(kind, size):
    row = work_elbo.estimate(kind, size, "float32", "dense", 4096)
    inputs = row.inputs()
    held, run = answers.CHECKS["random"](row, inputs), row.contestants[0].build(*inputs)
    held([flat(run())], "ours")
    missed = []
    for name, change in GRADIENT_FAULTS.items():
        with contextlib.suppress(answers.AnswerError):
            held([change(*flat(run()))], name)
            missed.append(name)
    assert missed == []


@pytest.mark.parametrize("scale", ["dense", "diagonal"])
@pytest.mark.parametrize("kind", work_elbo.TARGETS)
def test_right_estimates_pass_whatever_their_noise(kind, scale):
    row = work_elbo.estimate(kind, (1024, 2, 5), "float64", scale, 300)
    inputs = row.inputs()
    held = answers.CHECKS["random"](row, inputs)
    runs = [contestant.build(*inputs) for contestant in row.contestants if contestant.library in ("reparam", "numpy")]
    assert len(runs) == 2
    for _ in range(20):  # each call has another key
        for run in runs:
            held([flat(run())], "a right one")


def test_wrong_normals_are_caught():
    row = work_noise.normals("float64", 10_000)
    held_to_account(with_fault(row, lambda moments: (moments,)))
    for change in (lambda x: x + 0.1, lambda x: 1.1 * x, np.abs, lambda x: np.repeat(x[::2], 2)):
        with pytest.raises(answers.AnswerError, match="times what chance allows"):
            held_to_account(with_fault(row, lambda moments, f=change: work_noise.moments(f(moments[:, 0]))))


@pytest.mark.parametrize("full", [False, True])
def test_training_that_says_or_reaches_something_else_is_caught(full):
    row = work_training.vae((64, 32, 4, 128, 16, 1.0), full, 128)
    held_to_account(with_fault(row, lambda *answer: answer))
    for change in (lambda e: np.roll(e, 1), lambda e: 1.03 * e, lambda e: np.full_like(e, e.mean())):
        with pytest.raises(answers.AnswerError, match="times what chance allows"):
            held_to_account(with_fault(row, lambda elbos, *state, f=change: (f(elbos), *state)))
    slow = dataclasses.replace(row.contestants[0], library="numpy", build=lambda *inputs: training_of(row, inputs, 0.8))
    stuck = dataclasses.replace(slow, build=lambda *inputs: training_of(row, inputs, 0))
    for other in (slow, stuck):
        with pytest.raises(answers.AnswerError, match="the ELBO went from"):
            held_to_account(dataclasses.replace(row, contestants=(row.contestants[0], other)))


@pytest.mark.parametrize("batch", [128, 512])
def test_a_step_of_ours_is_one_step_however_many_the_rows(batch):
    """More than a model's own batch, too: Adam moves no weight by more than its rate in a step."""
    row = work_training.vae((64, 32, 4, batch, 16, 1.0), True, batch)
    inputs = row.make(np.random.default_rng(0))
    decoder = row.contestants[0].build(*inputs)()()[3:]
    moved = [np.abs(after - before).max() for after, before in zip(decoder, inputs[5:], strict=True)]
    assert 0 < max(moved) < 1.01 * vae_rivals.RATE


def training_of(row, inputs, share):
    """Ours, that makes only this share of its steps."""
    run = row.contestants[0].build(*inputs)
    look, calls = run(), itertools.count(1)

    def sometimes():
        n = next(calls)
        return run() if int(n * share) > int((n - 1) * share) else look

    return sometimes


def test_steps_and_runs_of_inference_end_together():
    row = work_elbo.inference("vi-step", 40)
    held_to_account(with_fault(row, lambda *answer: answer))
    for change in (
        lambda loc, factor: (np.roll(loc, 1, 0), factor),
        lambda loc, factor: (0 * loc, factor),
        lambda loc, factor: (loc, 3 * factor),
        lambda loc, factor: (np.broadcast_to(loc.mean(0), loc.shape), factor),
    ):
        for op in ("vi-step", "vi-run"):
            with pytest.raises(answers.AnswerError, match="the ELBO"):
                held_to_account(with_fault(work_elbo.inference(op, 40), change))


class Fixed:
    """A runner that takes a set time, and says so."""

    def __init__(self, library, seconds, order):
        self.contestant, self.threads, self.seconds, self.order = constant(library, 1.0), 1, seconds, order

    def time(self, rounds):
        self.order.append(self.contestant.library)
        return self.seconds


def test_contestants_take_turns_and_the_hopeless_leave():
    order = []
    timed = timing.measure([Fixed(*who, order) for who in (("reparam", 9.0), ("numpy", 1.0), ("torch", 5.0))], 100.0)
    assert order[:6] == ["reparam", "numpy", "torch"] * 2
    assert [len(t.seconds) for t in timed] == [timing.ROUNDS, timing.ROUNDS, timing.FEW]


def test_a_result_is_of_the_best_threads_and_the_fastest_rival():
    row = row_of(
        constant("reparam", 1.0), flops=4e9, bytes=1e9, roof="copy",
        targets=(Target("ratio", 2), Target("copy", 0.6), Target("torch", 4), Target("seconds", 2.0), Target("jax", 1)),
    )  # fmt: skip
    times = [("reparam", 1.0), ("numpy", 3.0), ("torch", 5.0)]
    found = report.result(row, [timing.Timed(Fixed(*who, []), 1, [who[1]] * 3) for who in times], ROOFS)
    assert (found["ratio"], found["rival"]["name"], found["rate"], found["share"]) == (3.0, "numpy", 1.0, 1.0)
    assert [t["met"] for t in found["targets"]] == [True, True, True, True, None]
    assert [t["text"] for t in found["targets"]] == ["2x", "60% copy", "4x torch", "2e+06 us", "1x jax"]


def test_a_target_beyond_the_floor_is_told_from_a_miss():
    named = (Target("ratio", 5), Target("ratio", 3), Target("ratio", 2), Target("copy", 1.1), Target("seconds", 1.0))
    row = row_of(constant("reparam", 1.0), bytes=8e9, roof="copy", targets=named)
    times = [("reparam", 16.0), ("numpy", 24.0)]
    found = report.result(row, [timing.Timed(Fixed(*who, []), 1, [who[1]] * 3) for who in times], ROOFS)
    assert [t["possible"] for t in found["targets"]] == [False, True, True, False, False]
    assert report.line(found).split()[-5:] == ["floor,", "no,", "no,", "floor,", "floor"]


@pytest.mark.parametrize(("flops", "moved", "moves", "floor"), [
    (4e9, 1e9, "copy", {"seconds": 4.0, "limit": "fma float64"}),
    (1e9, 3e9, "read", {"seconds": 3.0, "limit": "read"}),
    (1e3, 2e6, "update", {"seconds": 0.002, "limit": "update cached"}),
    (0.0, 8e6, "copy", {"seconds": 0.008, "limit": "copy cached"}),
    (0.0, 0.0, "copy", None),
])  # fmt: skip
def test_the_floor_is_the_limit_that_binds(flops, moved, moves, floor):
    row = row_of(constant("reparam", 1.0), flops=flops, bytes=moved, moves=moves)
    found = report.result(row, [timing.Timed(Fixed("reparam", 8.0, []), 1, [8.0] * 3)], ROOFS)
    assert found["floor"] == floor
    shown = report.line(found)
    assert (f"{100 * floor['seconds'] / 8:.0f}% {floor['limit']}" in shown) if floor else "%" not in shown


def test_settings_have_the_defaults_of_the_command_line():
    arguments = cli._parser().parse_args(["bench"])
    defaults = {f.name: f.default for f in dataclasses.fields(command.Settings)}
    assert arguments.out == defaults["out"]
    assert (arguments.quick, arguments.compare, arguments.op, arguments.rival, arguments.size) == (
        False,
        None,
        [],
        [],
        [],
    )
