# SPDX-License-Identifier: MIT
"""The stages of ``bench/gpu_check.py`` without a GPU: on NumPy's arrays, with faults that they must find."""

import dataclasses
import json
import time

import numpy as np
import pytest
from reparam._bench import gpu_check, gpu_device, gpu_ops, gpu_problems, gpu_rows, gpu_speed, libraries
from reparam._bench.row import Target

import reparam as rp


class Host(gpu_device.Device):
    """NumPy in the place of CuPy."""

    def __init__(self):
        super().__init__(np)

    def free_bytes(self):
        return 2**30

    def synchronize(self):
        pass

    def seconds(self, run, rounds):
        begin = time.perf_counter()
        for _ in range(rounds):
            run()
        return (time.perf_counter() - begin) / rounds


@pytest.fixture
def report(tmp_path):
    return gpu_device.Report(tmp_path / "report", 60.0)


def said(report, kind):
    lines = [json.loads(line) for line in report._file.read_text().splitlines()]
    return [what for k, what in lines if k == kind]


# ---- the stages


def test_the_stages_pass_where_the_kernels_are_right(report):
    gpu_ops.check_sizes(Host(), report, (1, 3))
    gpu_ops.check_batches(Host(), report, (0, 1, 31, 2500), (3,))
    gpu_ops.check_repeats(Host(), report, 2, (3,))
    gpu_ops.check_noise(Host(), report, (1, 31))
    assert said(report, "failed") == []
    assert said(report, "skipped") == []
    assert len(said(report, "done")) == 4


def test_every_op_of_the_table_is_checked():
    assert {op.name for op in gpu_problems.OPS} | set(gpu_problems.NOISE) == set(rp.OPS)
    assert sorted(gpu_ops.SIZES) == list(range(1, 131))
    assert max(gpu_ops.SIZES[:10]) > 100
    assert min(gpu_ops.SIZES[:10]) < 30
    assert gpu_ops.BATCHES == (0, 1, 31, 65535, 65536, 524281, 2**20 + 3)
    assert gpu_ops.REPEATS == 100


def only(monkeypatch, *names):
    for module in (gpu_ops, gpu_problems):
        monkeypatch.setattr(module, "OPS", [rp.OPS[name] for name in names])


def change_results(monkeypatch, change):
    """What a pass gives goes through ``change``, which may write into it."""
    right, calls = gpu_ops.run, []

    def wrong(*args):
        calls.append(args)
        found = tuple(np.array(x) for x in right(*args))
        change(found, len(calls))
        return found

    monkeypatch.setattr(gpu_ops, "run", wrong)


def test_one_wrong_number_is_found(report, monkeypatch):
    def spoil(found, _):
        found[0].reshape(-1)[-1] += 1

    only(monkeypatch, "normal_tril_log_prob", "cholesky_ex")
    change_results(monkeypatch, spoil)
    gpu_ops.check_sizes(Host(), report, (3,))
    assert report.failures == 8  # two ops, passes and types
    assert said(report, "failed")[0].startswith(
        "normal_tril_log_prob forward float32 d=3: result 0 of 1 events, first 30: error"
    )


def test_a_number_that_nobody_wrote_is_found(report, monkeypatch):
    def leave_out(found, _):
        found[-1].reshape(-1).view("u1")[-8:] = 0xFF

    only(monkeypatch, "normal_tril_log_prob", "cholesky_ex")
    change_results(monkeypatch, leave_out)
    gpu_ops.check_sizes(Host(), report, (3,))
    assert report.failures == 8


def test_one_wrong_bit_of_a_large_batch_is_found(report, monkeypatch):
    def flip(found, _):
        if len(found[0]) == 2500:
            found[0].reshape(-1).view("u1")[-4] ^= 1

    only(monkeypatch, "normal_log_prob")
    change_results(monkeypatch, flip)
    gpu_ops.check_batches(Host(), report, (31, 2500), (3,))
    failed = said(report, "failed")
    assert len(failed) == 4
    assert failed[0] == (
        "normal_log_prob float32 d=3: forward, batch 2500: result 0 has other bits than that of 1009 events"
    )


def test_a_call_that_gives_other_bits_is_found(report, monkeypatch):
    def flip_the_third(found, n):
        if n == 3:
            found[0].view("u1")[0] ^= 1

    only(monkeypatch, "normal_log_prob")
    change_results(monkeypatch, flip_the_third)
    gpu_ops.check_repeats(Host(), report, 5, (3,))
    assert said(report, "failed") == ["normal_log_prob float32 d=3: forward: result 0 is not the same in 5 calls"]


def test_a_wrong_sum_is_found(report, monkeypatch):
    def lose_a_term(found, _):
        found[-1][...] *= 0.9

    only(monkeypatch, "normal_diag_log_prob")
    change_results(monkeypatch, lose_a_term)
    gpu_ops.check_repeats(Host(), report, 2, (3,))
    assert any("inputs shared: result 2 is not the CPU's" in text for text in said(report, "failed"))


def test_other_noise_is_found(report, monkeypatch):
    monkeypatch.setattr(Host, "host", lambda self, x: np.asarray(x) + (1 if x.dtype == np.uint32 else 0))
    gpu_ops.check_noise(Host(), report, (31,))
    assert said(report, "failed") == [
        f"normals {dtype} n=31: bits differs from the CPU's in 28 of 28" for dtype in ("float32", "float64")
    ]


def test_an_error_is_a_failure_and_many_end_the_stage(report, monkeypatch):
    def fail(*_):
        raise RuntimeError("an illegal memory access (cudaErrorIllegalAddress)")

    monkeypatch.setattr(gpu_ops, "run", fail)
    gpu_ops.check_sizes(Host(), report, (1, 3))
    assert report.failures >= gpu_device.MOST_FAILURES
    assert said(report, "failed")[0].endswith("RuntimeError: an illegal memory access (cudaErrorIllegalAddress)")
    assert said(report, "skipped")[0].startswith("d = 1 from ")


def test_what_does_not_fit_is_cut_and_named(report, monkeypatch):
    only(monkeypatch, "normal_log_prob", "cholesky_ex")
    monkeypatch.setattr(gpu_ops, "SCRATCH", 0.8 * 2**30 - 2500 * 200)
    gpu_ops.check_batches(Host(), report, (0, 2500), (1, 8))
    assert report.failures == 0
    assert said(report, "skipped")[0].startswith("the largest batches of cholesky_ex d=8 float32, cholesky_ex d=8 f")


# ---- speed


def test_rows_of_speed_run_and_agree(report, monkeypatch):
    for name, value in {
        "EVENTS": 16, "BYTES": 4e5, "ELBO_EVENTS": 50, "PARAMETERS": (1000, 50_000), "NORMALS": 4000,
        "CHOLESKY": {"float32": {4: (0.85, 20)}, "float64": {8: (0.75, 8)}}, "PULL": {16: (0.6, 12)},
    }.items():  # fmt: skip
        monkeypatch.setattr(gpu_rows, name, value)
    usable = ("torch",) if libraries.installed("torch") else ()
    todo = [row for row in gpu_rows.rows(Host()) if "d=32" not in row.size]
    gpu_speed.check_speed(Host(), report, usable, todo, 0.001)
    assert said(report, "failed") == []
    rows = said(report, "row")
    assert [row["name"] for row in rows] == [row.name for row in todo]
    lines = gpu_check.table(rows)
    assert len(lines) == 1 + len(todo)
    assert "85% copy " in lines[1]


def test_a_wrong_rival_is_left_out_and_ours_is_a_failure(report, monkeypatch):
    monkeypatch.setattr(gpu_rows, "EVENTS", 16)
    row = gpu_rows.repeated(gpu_rows.work_cholesky.forward(4, 16, "float32", "M", False, 16), 100, (Target("copy", 1),))
    ours = row.contestants[0]
    wrong = dataclasses.replace(ours, library="torch", form="wrong", build=lambda a: lambda: a)
    held = gpu_speed.held_runners(Host(), report, dataclasses.replace(row, contestants=(ours, wrong)), ("torch",))
    assert [runner.contestant for runner in held] == [ours]
    assert "torch wrong: AnswerError" in said(report, "skipped")[0]
    bad = dataclasses.replace(row, contestants=(dataclasses.replace(wrong, library="reparam"),))
    assert gpu_speed.held_runners(Host(), report, bad, ()) == []
    assert "reparam wrong: AnswerError" in said(report, "failed")[0]


def test_a_row_of_each_kind_comes_first_and_jax_last():
    every = list(gpu_rows.rows(Host()))
    assert [row.op for row in every[:3]] == ["cholesky", "cholesky.vjp", "elbo-linear-gaussian"]
    assert len({row.op for row in every[:7]}) == 7
    assert {row.op for row in every} == {row.op for row in every[:7]} | {"elbo-glm"}
    asked = [row for row in every if any(c.library == "jax" for c in row.contestants)]
    assert {row.op for row in asked} == {"elbo-linear-gaussian", "elbo-glm"}
    last = list(gpu_rows.jax_rows())
    assert all({c.library for c in row.contestants} == {"reparam", "jax"} for row in last)
    assert not {row.name for row in last} & {row.name for row in every}
    assert {row.op for row in last} >= {"cholesky, JAX", "cholesky.vjp, JAX"}
