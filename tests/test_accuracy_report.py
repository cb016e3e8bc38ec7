# SPDX-License-Identifier: MIT
"""``reparam selftest --full``: its measures on known answers, the errors that it must find, and that there are none."""

import sys

import mpmath
import numpy as np
import pytest

import reparam as rp
from reparam import _core, cli
from reparam._backends import native
from reparam.selftest import exact, measures, own_cases, problems, report
from reparam.selftest.cases import Case
from reparam.selftest.elbo_gradient import elbo_gradient
from reparam.selftest.rows import MEASURES, rows
from support import OPS, UNIT, run_by, same_bits

NATIVE = f"native:{native.default_isa()}"
COMPILED = [*(f"native:{isa}" for isa in _core.isas()), *(["numba"] if "numba" in rp.backends() else [])]
ITSELF = ("numba", "reference")  # their value_and_vjp is the forward and the vjp
PASSES = [p for op in OPS for p in (op.forward_pass, op.vjp_pass, op.value_and_vjp_pass) if p is not None]


@pytest.fixture(autouse=True)
def _few_steps_of_adam(monkeypatch):
    monkeypatch.setattr(own_cases, "ADAM_STEPS", {0.01: 20})


def lines_of(text):
    """Row and measure to the words that follow, down to the empty line above the legend."""
    _, _, *lines = text.split("\n\n")[0].splitlines()
    known = sorted(MEASURES, key=len, reverse=True)
    table = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        measure = next(m for m in known if rest.strip().startswith(f"{m} "))
        table[name, measure] = rest.strip().removeprefix(measure).split()
    return table


def only(monkeypatch, *names):
    monkeypatch.setattr(rp, "OPS", {name: rp.OPS[name] for name in names})


# ---- the report


LARGE = ("cholesky_ex", "tril_solve", "normal_tril_transform")  # 33 is beyond the loops over lanes


@pytest.mark.parametrize(
    ("backends", "sizes", "ops"),
    [(COMPILED, (3, 16), None), (COMPILED, (33,), LARGE), (["reference"], (3,), None)],
    ids=["compiled", "compiled, large", "reference"],
)
def test_every_op_is_within_its_limits(backends, sizes, ops, monkeypatch, capsys):
    only(monkeypatch, *(ops or rp.OPS))
    assert report.run(sizes, backends) == 0
    out, err = capsys.readouterr()
    table = lines_of(out)
    assert err == ""
    assert list(table) == [(row.name, row.measure) for row in rows()]
    assert "0 over" in out.splitlines()[-1]
    for (name, measure), words in table.items():
        itself = [name.endswith(".value_and_vjp") and backend in ITSELF for backend in backends]
        assert words[-1] == ("-" if all(itself) else "OK")
        for wanted, (limit, *errors) in zip(MEASURES[measure][:2], np.split(np.array(words[:-1]), 2), strict=True):
            assert limit == "-" if wanted is None else float(limit) == wanted
            for error, no_test in zip(errors, itself, strict=True):
                assert error == "-" if wanted is None or no_test else float(error) <= wanted


def test_every_pass_of_every_op_has_a_row():
    named = [row.name for row in rows()]
    for op in OPS:
        assert op.name in named
        if op.vjp is not None:
            assert {f"{op.name}.vjp", f"{op.name}.value_and_vjp"} <= set(named)


def first_written(p, inputs, results):
    outputs = results if p.outputs else [x for o, x in zip(p.inputs, inputs, strict=True) if o.in_place]
    return next(x for x in outputs if x is not None)


def spoil(array):
    """By some thousandths, entry by entry."""
    array[...] = array ^ 1 if array.dtype.kind == "u" else array + (1 + abs(array)) * array.dtype.type(0.004)


@pytest.mark.parametrize("broken", PASSES, ids=lambda p: p.name)
def test_a_wrong_kernel_is_found(broken, monkeypatch, capsys):
    run = native.run

    def run_wrong(p, isa, plan, attributes, inputs, results, num_threads):
        run(p, isa, plan, attributes, inputs, results, num_threads)
        if p is broken:
            spoil(first_written(p, inputs, results))

    run_by(monkeypatch, run_wrong)
    only(monkeypatch, broken.op.name)
    assert report.run(sizes=(3,), backends=[NATIVE, "reference"]) == 1
    out, err = capsys.readouterr()
    over = [line for line in err.splitlines() if line.startswith("OVER: ")]
    assert over == err.splitlines()
    assert any(line.startswith(f"OVER: {broken.name}, ") for line in over)
    assert all(f" {NATIVE}, float" in line for line in over)
    assert {key for key, words in lines_of(out).items() if words[-1] == "OVER"} == {
        tuple(line.removeprefix("OVER: ").split(", ")[:2]) for line in over
    }
    assert f"{len(over)} over" in out.splitlines()[-1]


IN_LANES = ("cholesky_ex.vjp", "tril_solve.vjp", "normal_tril_kl", "normal_tril_kl.vjp", "elbo_tril_combine")


@pytest.mark.parametrize("broken", [p for p in PASSES if p.name in IN_LANES], ids=lambda p: p.name)
def test_a_kernel_that_is_wrong_in_one_lane_is_found(broken, monkeypatch, capsys):
    """The last one of a full vector, in a size of which few events have exact answers."""
    run = native.run

    def run_wrong(p, isa, plan, attributes, inputs, results, num_threads):
        run(p, isa, plan, attributes, inputs, results, num_threads)
        if p is broken:
            for array in results:
                spoil(array[15::16])

    run_by(monkeypatch, run_wrong)
    only(monkeypatch, broken.op.name)
    assert report.run(sizes=(16,), backends=[NATIVE]) == 1
    over = {tuple(line.removeprefix("OVER: ").split(", ")[:2]) for line in capsys.readouterr().err.splitlines()}
    measured = {(row.name, row.measure) for row in rows() if row.name == broken.name}
    assert over >= measured


@pytest.mark.parametrize("broken", [p for p in PASSES if p.body], ids=lambda p: p.name)
def test_a_wrong_definition_is_found(broken, monkeypatch, capsys):
    """By answers that do not come from it, or by the kernels, which then differ from it."""
    body = broken.body

    def wrong_body(*args):
        body(*args)
        first = next(k for k, o in enumerate(broken.inputs) if o.in_place) if broken.in_place else (
            len(broken.inputs) + len(broken.op.attributes))  # fmt: skip
        spoil(args[first])

    monkeypatch.setattr(broken, "body", wrong_body)
    only(monkeypatch, broken.op.name)
    assert report.run(sizes=(3,), backends=["reference", NATIVE]) == 1
    assert "OVER: " in capsys.readouterr().err


def test_a_kernel_that_raises_has_failed_and_the_others_are_still_measured(monkeypatch, capsys):
    run = native.run

    def run_or_raise(p, *rest):
        if p is rp.normal_entropy.vjp_pass:
            raise RuntimeError("no such instruction")
        run(p, *rest)

    run_by(monkeypatch, run_or_raise)
    only(monkeypatch, "normal_entropy")
    assert report.run(sizes=(3,), backends=[NATIVE, "reference"]) == 1
    out, err = capsys.readouterr()
    words = lines_of(out)["normal_entropy.vjp", "gradient"]
    assert words[1] == words[4] == "failed"
    assert float(words[2]) <= 100
    assert words[-1] == "OVER"
    assert lines_of(out)["normal_entropy", "value"][-1] == "OK"
    assert f"OVER: normal_entropy.vjp, gradient, {NATIVE}, float64: inf, limit 1e-9 (" in err
    assert "RuntimeError: no such instruction" in err
    assert "Traceback" not in err


def test_what_needs_mpmath_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpmath", None)
    only(monkeypatch, "adam_step", "normal_log_prob", "normal_kl", "normal")
    assert report.run(sizes=(3,), backends=[NATIVE]) == 1
    out, err = capsys.readouterr()
    assert err == "NOT MEASURED: what needs mpmath (pip install mpmath)\n"
    lacking = {key for key, words in lines_of(out).items() if words[1:3] == ["needs", "mpmath"]}
    assert lacking == {("normal_log_prob", "log p"), ("normal_kl", "value"), ("normal", "ulp")}
    assert {key for key, words in lines_of(out).items() if words[-1] == "-"} == lacking
    assert out.splitlines()[-1].endswith("0 over; not measured: what needs mpmath")


@pytest.mark.parametrize("errors", [np.nan, np.array([1.0, np.nan, 2.0]), np.inf])
def test_what_is_no_number_is_over_every_limit(errors):
    found = report._worst(
        [Case("first", lambda: 3.0), Case("second", lambda: errors), Case("third", lambda: 4.0)], NATIVE
    )
    assert found == (np.inf, "second", "")


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(report, "run", lambda: 1)
    assert cli.main(["selftest", "--full"]) == 1
    for arguments in (["--ful"], ["--full=now"], ["--full", "now"], ["--json"]):
        assert cli.main(["selftest", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)


# ---- the measures


@pytest.mark.parametrize("dtype", UNIT)
def test_residuals_count_roundings(dtype):
    u = UNIT[dtype]
    a = np.array([[[4.0, 99.0], [2.0, 5.0]]], dtype)  # what is above the diagonal is not read
    lower = np.array([[[2.0, 0.0], [1.0, 2.0]]], dtype)
    assert measures.cholesky_residual(a, lower) == 0
    lower[0, 1, 1] += 8 * u  # the last entry of L L^T is 2 * 2 * 8 u too large
    assert measures.cholesky_residual(a, lower) == pytest.approx(32 / (2 * 7), rel=1e-5)
    matrix, x = np.array([[[1.0, 0.0], [3.0, 2.0]]], dtype), np.array([[1.0, -2.0]], dtype)
    loc, b = np.array([[1.0, 0.0]], dtype), np.array([[2.0, -1.0]], dtype)
    assert measures.product_residual(b, matrix, x, loc) == 0
    b[0, 0] += 4 * u
    assert measures.product_residual(b, matrix, x, loc) == pytest.approx(4 / (2 * (1 + 4 * 3)))


@pytest.mark.parametrize("dtype", UNIT)
def test_errors_of_values_are_relative_above_one_and_absolute_below(dtype):
    u = UNIT[dtype]
    actual = np.array([1 + 2 * u, 8 + 16 * u, 0.25 + u], dtype)
    for exact_values in (np.array([1.0, 8.0, 0.25]), np.array([mpmath.mpf(x) for x in (1, 8, 0.25)])):
        np.testing.assert_allclose(measures.value_error(actual, exact_values, 2), [1, 1, 0.5])
    assert np.isnan(measures.value_error(np.array([np.nan], dtype), np.ones(1), 1)).all()


def test_relative_error_by_event_and_of_the_whole():
    actual, wanted = np.array([[1.0, 2.5], [30.0, 40.0]]), np.array([[1.0, 2.0], [30.0, 50.0]])
    np.testing.assert_allclose(measures.relative_error(actual, wanted), [0.25, 0.2])
    assert measures.relative_error(actual, wanted, events=0) == 0.2


def test_differing_bits_are_counted():
    x = np.array([0.0, 1.0, np.nan, np.inf])
    assert measures.different(x, x.copy()) == 0
    assert measures.different(x, np.array([-0.0, 1.0 + 2.0**-52, 2.0, np.inf])) == 3
    assert measures.different(x, x.astype(np.float32)) == measures.different(x, x[:3]) == 4
    assert measures.different(np.arange(3), np.array([0, 7, 2])) == 1


@pytest.mark.parametrize("kind", range(1, 10))
def test_the_nine_types_of_lapack(kind, rng):
    a = measures.lapack_matrices(kind, rng, 4, "float64")
    eigenvalues = np.linalg.eigvalsh(a)
    if kind in measures.ZERO_ROW:
        k = {3: 0, 4: 3, 5: 2}[kind]
        assert not a[:, k].any()
        assert not a[:, :, k].any()
        return
    condition = {6: np.sqrt(0.1 * 2.0**52), 7: 0.1 * 2.0**52}.get(kind, 8 if kind == 1 else 2)
    norm = {8: 2.0**-972, 9: 2.0**972}.get(kind)
    assert (eigenvalues[:, -1] / eigenvalues[:, 0]).max() <= 1.5 * condition
    assert kind == 1 or eigenvalues[0, -1] / eigenvalues[0, 0] >= condition / 1.5
    assert norm is None or 0.5 <= eigenvalues[0, -1] / norm <= 4


# ---- exact answers

SIGMA = np.array([[4.0, 2.0, 0.6], [2.0, 3.0, 0.4], [0.6, 0.4, 2.0]])
LOC, VALUE = np.array([0.5, -1.0, 2.0]), np.array([1.0, -2.0, 0.5])


def test_densities_in_fifty_digits():
    lower = np.linalg.cholesky(SIGMA)
    assert float(exact.log_prob(VALUE, LOC, lower)) == pytest.approx(-5.141087086029358, rel=1e-14)
    noise = np.linalg.solve(lower, VALUE - LOC)
    assert float(exact.log_density(noise, np.diag(lower))) == pytest.approx(-5.141087086029358, rel=1e-14)
    assert float(exact.kl(LOC, lower, np.zeros(3), np.eye(3))) == pytest.approx(4.263038224870749, rel=1e-14)
    assert exact.kl(LOC, lower, LOC, lower) == 0
    logits = np.array([0.0, 2.0])
    found = exact.binomial_log_likelihood(np.array([1.0, 3.0]), logits, np.array([2.0, 3.0]))
    assert float(found) == pytest.approx(2 * np.log(0.5) + 3 * np.log(1 / (1 + np.exp(-2))), rel=1e-14)
    assert [float(s) for s in exact.scales(logits, "exp", 0.5)] == pytest.approx([1.5, np.exp(2) + 0.5])
    assert [float(s) for s in exact.scales(logits, "softplus", 0.0)] == pytest.approx(np.logaddexp(0, logits))


@pytest.mark.parametrize("dtype", UNIT)
def test_an_error_of_the_noise_is_seen_in_units_in_the_last_place(dtype):
    count = {"float32": 2, "float64": 4}[dtype]
    wanted = exact.normals(rp.random.bits(count, key=5).tolist(), dtype)
    drawn = rp.random.normal(2, key=5, dtype=dtype)
    assert exact.ulps(drawn, wanted, drawn, dtype) <= 4
    assert 7 <= exact.ulps(drawn + 8 * np.spacing(drawn), wanted, drawn, dtype) <= 12
    assert np.isnan(exact.ulps(drawn * np.array([np.nan, 1], dtype), wanted, drawn, dtype))


def test_cotangents_by_the_complex_step():
    lower = np.linalg.cholesky(SIGMA)
    ct = np.array([[1.0, 0.0, 0.0], [2.0, 3.0, 0.0], [4.0, 5.0, 6.0]])
    (found,) = problems.exact_cotangents(rp.cholesky_ex, [SIGMA[None]], [ct[None]], 3, {})
    np.testing.assert_allclose(found[0][2], [-0.155579809984016, 1.659088419566036, 2.173570668006655], rtol=1e-13)
    np.testing.assert_array_equal(found, found.swapaxes(-1, -2))
    loc, scale = problems.exact_cotangents(
        rp.normal_tril_kl_standard, [LOC[None], lower[None]], [np.full(1, 2.0)], 3, {}
    )
    np.testing.assert_allclose(loc[0], 2 * LOC, rtol=1e-14)
    np.testing.assert_allclose(scale[0], 2 * (lower - np.diag(1 / np.diag(lower))), rtol=1e-14)


@pytest.mark.parametrize("chunk", [1, 40, 10**6])
def test_the_jacobian_does_not_depend_on_how_many_entries_move_at_once(chunk, monkeypatch, rng):
    inputs = problems.sample_inputs(rp.tril_solve, rng, (3,), 4)
    whole = problems.jacobian(rp.tril_solve, inputs, 0, 4, {})
    monkeypatch.setattr(problems, "_ELEMENTS", chunk)
    same_bits(problems.jacobian(rp.tril_solve, inputs, 0, 4, {}), whole)
    assert whole[0].shape == (3, 10, 4)


ELBOS = [(op, attributes) for op in OPS if op.name.startswith("elbo") for attributes in problems.variants(op)]


@pytest.mark.parametrize(
    ("op", "attributes"), ELBOS, ids=lambda x: getattr(x, "name", None) or "-".join(map(str, x.values()))
)
def test_gradients_of_the_elbo_agree_with_the_oracle(op, attributes, rng):
    inputs = problems.sample_inputs(op, rng, (6,), 3, single=False)
    *_, loc, scale = op.oracle(*inputs, **attributes)
    for actual, wanted in zip(elbo_gradient(op, inputs, attributes, np.longdouble), (loc, scale), strict=True):
        assert actual.dtype == np.longdouble
        assert measures.relative_error(actual, wanted).max() < 1e-12
