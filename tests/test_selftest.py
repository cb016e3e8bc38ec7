# SPDX-License-Identifier: MIT
"""``reparam selftest`` passes in seconds, and finds any number and any kernel that is wrong."""

import contextlib
import time

import numpy as np
import pytest

import reparam as rp
from reparam import _dispatch, selftest
from reparam._backends import native
from support import OPS, run_by

BACKENDS = selftest.checked_backends()
NATIVE = [name for name in BACKENDS if name.startswith("native")]
NUMBERS = [(name, at) for name, value in selftest.GOLDEN.items() for at in np.ndindex(np.shape(value))]
PASSES = [p for op in OPS for p in (op.forward_pass, op.vjp_pass) if p is not None]
GOLDEN_OPS = ["cholesky_ex", "normal_tril_log_prob", "normal_tril_entropy", "normal_tril_kl_standard",
              "elbo_tril_linear_gaussian", "bits", "normal"]  # fmt: skip


def read_table(text):
    """Row to backend to verdict."""
    header, *rows = text.splitlines()
    rows, names = rows[: len(selftest.GOLDEN) + 1], header.split()
    verdicts = {}
    for row in rows:
        (*words,) = row.split()
        verdicts[" ".join(words[: -len(names)])] = dict(zip(names, words[-len(names) :], strict=True))
    return verdicts


def failed(verdicts):
    return {(row, name) for row, by_backend in verdicts.items() for name, word in by_backend.items() if word != "ok"}


@pytest.fixture
def golden_alone(monkeypatch):
    monkeypatch.setattr(rp, "OPS", {})


def test_every_number_holds_on_every_backend_in_ten_seconds(capsys):
    """Of the processor, which a neighbour does not prolong as it does those on the clock."""
    begin = time.process_time()
    assert selftest.run() == 0
    seconds = time.process_time() - begin
    out, err = capsys.readouterr()
    verdicts = read_table(out)
    assert err == ""
    assert list(verdicts) == [*selftest.GOLDEN, "ops and vjps"]
    assert all(list(by_backend) == BACKENDS for by_backend in verdicts.values())
    assert failed(verdicts) == set()
    assert out.splitlines()[-1].endswith(", 0 failed")
    assert seconds < 10


def test_each_backend_runs_on_itself():
    for name in BACKENDS:
        ran = []
        with rp.backend(name):
            for check, _, wrong in selftest._checks():
                before = _dispatch.counts[name]
                assert wrong() is None
                ran.append((check, _dispatch.counts[name] - before))
        assert all(calls > 0 for _, calls in ran), name


def altered(number):
    """The nearest number that must be told apart."""
    if isinstance(number, int):
        return number ^ 1
    if isinstance(number, str):
        value = float.fromhex(number)
        single = float(np.float32(value)) == value
        return float(np.nextafter(np.float32(value) if single else value, 9)).hex()
    return number + 2e-13 * max(1, abs(number))


@pytest.mark.usefixtures("golden_alone")
@pytest.mark.parametrize(("name", "at"), NUMBERS, ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x)))
def test_a_number_that_is_not_met_is_named(name, at, monkeypatch, capsys):
    changed = np.array(selftest.GOLDEN[name], dtype=object)
    changed[at] = altered(changed[at])
    monkeypatch.setitem(selftest.GOLDEN, name, changed.tolist())
    assert selftest.run() == 1
    out, err = capsys.readouterr()
    assert failed(read_table(out)) == {(name, backend) for backend in BACKENDS}
    lines = err.splitlines()
    assert len(lines) == len(BACKENDS)
    for backend, line in zip(BACKENDS, lines, strict=True):
        assert line.startswith(f"FAILED: {name}")
        assert f" on {backend}: got " in line
        assert (f" at {list(at)}, expected " if at else ", expected ") in line


def written(p, inputs, results):
    """The first real array that a pass fills or updates."""
    outputs = results if p.outputs else [x for o, x in zip(p.inputs, inputs, strict=True) if o.in_place]
    return next(x for x in outputs if x is not None)


def spoil(array):
    """The last event of a batch, by a little."""
    if array.ndim and len(array) == selftest.EVENTS:
        array[-1] = array[-1] ^ 1 if array.dtype.kind == "u" else array[-1] + 1e-9 * (1 + abs(array[-1]))


@pytest.mark.parametrize("broken", PASSES, ids=lambda p: p.name)
def test_a_wrong_last_event_of_one_kernel_is_found(broken, monkeypatch, capsys):
    isa = NATIVE[0].removeprefix("native:")
    run = native.run

    def run_wrong(p, isa_of_call, plan, attributes, inputs, results, num_threads):
        run(p, isa_of_call, plan, attributes, inputs, results, num_threads)
        if p is broken and isa_of_call == isa:
            spoil(written(p, inputs, results))

    run_by(monkeypatch, run_wrong)
    monkeypatch.setattr(rp, "OPS", {broken.op.name: broken.op})
    assert selftest.run() == 1
    out, err = capsys.readouterr()
    assert failed(read_table(out)) == {("ops and vjps", f"native:{isa}")}
    assert f"FAILED: ops and vjps, {broken.op.name}" in err


@pytest.mark.usefixtures("golden_alone")
@pytest.mark.parametrize(
    ("backends", "checked", "said"),
    [
        (("native", "native:avx2", "numba", "reference"), ["native:avx2", "reference"], "numba is left to"),
        (("native", "native:avx2", "reference"), ["native:avx2", "reference"], ""),
        (
            ("numba", "reference"),
            ["numba", "reference"],
            "no compiled kernels here: only numba and reference were checked",
        ),
        (("reference",), ["reference"], "no compiled kernels here: only reference was checked"),
    ],
    ids=["all", "no numba", "no kernels", "neither"],
)
def test_numba_is_checked_where_it_is_what_users_run(backends, checked, said, monkeypatch, capsys):
    monkeypatch.setattr(rp, "backends", lambda: backends)
    monkeypatch.setattr(rp, "backend", contextlib.nullcontext)
    assert selftest.run() == 0
    header, *lines, last = capsys.readouterr().out.splitlines()
    assert header.split() == checked
    assert f"on {len(checked)} backends" in last
    remarks = lines[len(selftest.GOLDEN) + 1 :]
    assert len(remarks) == bool(said)
    assert all(remark.startswith(said) for remark in remarks)


@pytest.mark.usefixtures("golden_alone")
@pytest.mark.parametrize("name", GOLDEN_OPS)
def test_a_wrong_definition_is_found_without_kernels(name, monkeypatch, capsys):
    """The golden numbers hold the reference, which everything else is held against."""
    forward = next(op for op in OPS if op.name == name).forward_pass
    body = forward.body

    def wrong_body(*args):
        body(*args)
        first = args[len(forward.inputs) + len(forward.op.attributes)]
        first[...] = first ^ 1 if first.dtype.kind == "u" else first + 1e-6 * (1 + abs(first))

    monkeypatch.setattr(forward, "body", wrong_body)
    assert selftest.run() == 1
    out, err = capsys.readouterr()
    assert {backend for _, backend in failed(read_table(out))} == {"reference"}
    assert " on reference: got " in err


@pytest.mark.usefixtures("golden_alone")
def test_a_kernel_that_raises_fails_and_the_others_are_still_checked(monkeypatch, capsys):
    run = native.run

    def run_or_raise(p, isa, *rest):
        if f"native:{isa}" == NATIVE[-1]:
            raise RuntimeError("no such instruction")
        run(p, isa, *rest)

    run_by(monkeypatch, run_or_raise)
    assert selftest.run() == 1
    out, err = capsys.readouterr()
    assert failed(read_table(out)) == {(name, NATIVE[-1]) for name in selftest.GOLDEN}
    assert set(err.splitlines()[0].split(": ")[1:]) >= {"RuntimeError", "no such instruction"}
    assert "Traceback" not in err


def test_nan_is_no_agreement():
    assert selftest._difference(np.array([1.0, np.nan]), np.array([1.0, 2.0]), 1e-13) is not None
    assert selftest._difference(np.array([1.0]), np.array([1.0, 1.0]), 1e-13) == "shape (1,), expected (2,)"
    assert selftest._difference(np.array(1.0), np.array(1.0), 0) is None


def test_the_evidence_of_the_golden_model():
    """log N(x | bias, weight weight^T + noise_scale^2 I), which each log weight at the posterior is."""
    weight, residual = np.array(selftest.WEIGHT), np.subtract(selftest.X, selftest.BIAS)
    covariance = weight @ weight.T + selftest.NOISE_SCALE**2 * np.eye(3)
    quadratic = residual @ np.linalg.solve(covariance, residual)
    evidence = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
    np.testing.assert_allclose(selftest.GOLDEN["ELBO at the posterior"], evidence, rtol=1e-14)
