# SPDX-License-Identifier: MIT
"""Cholesky factors and their cotangents in one call, which takes two passes: results, ``out=``, refused calls."""

import inspect

import numpy as np
import pytest

import reparam as rp
from hostile import refused
from support import same_bits, sample_cotangents, sample_inputs

BATCH, D = 3, 4
CALLS = {"cholesky": rp.cholesky.value_and_vjp, "cholesky_ex": rp.cholesky_ex.value_and_vjp}
call_axis = pytest.mark.parametrize("name", CALLS)


def flat(made):
    """The arrays of a result, in order."""
    outputs, ct_a = made
    return [*(outputs if isinstance(outputs, tuple) else (outputs,)), ct_a]


@pytest.fixture
def problem(rng, dtype):
    op = rp.OPS["cholesky_ex"]
    (a,), (ct,) = sample_inputs(op, rng, (BATCH,), D, dtype), sample_cotangents(op, rng, (BATCH,), D, dtype)
    return a, ct


@pytest.mark.usefixtures("backend")
@call_axis
def test_it_is_the_factor_and_the_cotangent_of_it(name, problem):
    a, ct = problem
    scale_tril, *_, ct_a = flat(CALLS[name](a, ct))
    same_bits(scale_tril, rp.cholesky(a))
    same_bits(ct_a, rp.cholesky.vjp(scale_tril, ct))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("place", ["scale_tril", "ct_a"])
@pytest.mark.parametrize("operand", ["a", "ct_scale_tril"])
@call_axis
def test_results_may_lie_over_an_operand(name, operand, place, problem):
    """As if there were no overlap, also where it is of a part."""
    names, before = ["a", "ct_scale_tril"].index(operand), flat(CALLS[name](*problem))
    buffer = np.empty((BATCH + 1, D, D), problem[0].dtype)
    for shift in (0, 1):
        arrays, out = [*problem], [np.empty_like(x) for x in before]
        arrays[names] = buffer[:BATCH]
        arrays[names][...] = problem[names]
        out[0 if place == "scale_tril" else -1] = buffer[shift : BATCH + shift]
        made = flat(CALLS[name](*arrays, out=tuple(out)))
        assert all(x is y for x, y in zip(made, out, strict=True))
        same_bits(tuple(out), tuple(before))


@call_axis
@pytest.mark.parametrize("given", [False, True], ids=["new", "out"])
def test_a_cotangent_that_is_none_is_zero(name, given, problem):
    a, ct = problem
    before = flat(CALLS[name](a, np.zeros_like(ct)))
    out = tuple(np.full_like(x, 7) for x in before) if given else None
    same_bits(tuple(flat(CALLS[name](a, None, out=out))), tuple(before))


@call_axis
@pytest.mark.parametrize("given", [False, True], ids=["new", "out"])
@pytest.mark.parametrize("wrt", [None, ("a",), ()])
def test_wrt_names_the_cotangent_that_is_wanted(name, wrt, given, problem):
    *values, ct_a = flat(CALLS[name](*problem))
    ct_a = None if wrt == () else ct_a
    out = tuple(x if x is None else np.full_like(x, 7) for x in (*values, ct_a)) if given else None
    *found, found_ct = flat(CALLS[name](*problem, wrt=wrt, out=out))
    same_bits(tuple(found), tuple(values))
    assert (found_ct is None) == (ct_a is None)
    if ct_a is not None:
        same_bits(found_ct, ct_a)


def test_settings_go_to_the_factor(dtype):
    a = np.stack([np.ones((2, 2)), np.eye(2)]).astype(dtype)
    ct = np.ones_like(a)
    with pytest.raises(rp.NotPositiveDefiniteError):
        rp.cholesky.value_and_vjp(a, ct)
    scale_tril, ct_a = rp.cholesky.value_and_vjp(a, ct, check=False)
    assert np.isnan(ct_a[0]).all()
    assert not np.isnan(scale_tril[1]).any()
    for out in (None, (a.copy(), ct.copy())):
        with pytest.warns(RuntimeWarning, match="cholesky: 1 of 2 matrices were tried again"):
            scale_tril, ct_a = rp.cholesky.value_and_vjp(a, ct, jitter=0.25, out=out)
        same_bits(scale_tril, rp.cholesky(a + np.array([0.25, 0], dtype)[:, None, None] * np.eye(2, dtype=dtype)))
        same_bits(ct_a, rp.cholesky.vjp(scale_tril, ct))


# ---- refused calls

A, CT, SAME = np.eye(2), np.ones((2, 2)), np.zeros((2, 2))
TWO, THREE = (np.zeros((2, 2)), np.zeros((2, 2))), (np.zeros((2, 2)), np.zeros((), np.int32), np.zeros((2, 2)))
MASKED = np.ma.masked_array(CT, mask=[[0, 0], [1, 0]])
NO_MASK = "must be an array without a mask; fill the masked entries with .filled"
TAKES = "takes 2 arrays (a, ct_scale_tril)"
CALL = "a, check, jitter, out"
BOTH = "a, ct_scale_tril, check, jitter, wrt, out"
REFUSED = {
    "nothing": (rp.cholesky, (), {}, TypeError, "cholesky takes 1 array (a), got 0"),
    "too many": (rp.cholesky, (A, A), {}, TypeError, "cholesky takes 1 array (a), got 2"),
    "twice": (rp.cholesky, (A,), {"a": A}, TypeError, "cholesky got two values for a"),
    "unknown": (rp.cholesky, (A,), {"lower": True}, TypeError,
                f"cholesky got an unexpected keyword 'lower'; it takes {CALL}"),
    "a mask": (rp.cholesky, (MASKED,), {"jitter": 0.1, "out": SAME}, TypeError, f"cholesky: a {NO_MASK}"),
    "a list": (rp.cholesky, ([[1.0]],), {"jitter": 0.1, "out": SAME}, TypeError,
               "cholesky: a must be an array, got list"),
    "no cotangent": (rp.cholesky.value_and_vjp, (A,), {}, TypeError, f"cholesky.value_and_vjp {TAKES}, got 1"),
    "both unknown": (rp.cholesky.value_and_vjp, (A, CT), {"lower": 1}, TypeError,
                     f"cholesky.value_and_vjp got an unexpected keyword 'lower'; it takes {BOTH}"),
    "both wrt": (rp.cholesky.value_and_vjp, (A, CT), {"wrt": ("b",)}, ValueError,
                 "cholesky.value_and_vjp: wrt must name inputs out of a, got 'b'"),
    "both the same": (rp.cholesky.value_and_vjp, (A, CT), {"out": (SAME, SAME)}, ValueError,
                      "cholesky.value_and_vjp: out for scale_tril and out for ct_a share memory"),
    "both a list": (rp.cholesky.value_and_vjp, (A, [1.0]), {"out": TWO}, TypeError,
                    "cholesky.vjp: ct_scale_tril must be an array or None, got list"),
    "both a mask": (rp.cholesky.value_and_vjp, (A, MASKED), {"out": TWO}, TypeError,
                    f"cholesky.vjp: ct_scale_tril {NO_MASK}"),
    "both unwanted": (rp.cholesky.value_and_vjp, (A, CT), {"wrt": (), "out": TWO}, TypeError,
                      "cholesky.value_and_vjp: out for ct_a must be None, since its cotangent is not wanted, "
                      "got ndarray"),
    "ex no cotangent": (rp.cholesky_ex.value_and_vjp, (A,), {}, TypeError, f"cholesky_ex.value_and_vjp {TAKES}, got 1"),
    "ex unknown": (rp.cholesky_ex.value_and_vjp, (A, CT), {"check": True}, TypeError,
                   "cholesky_ex.value_and_vjp got an unexpected keyword 'check'; it takes a, ct_scale_tril, wrt, out"),
    "ex the same": (rp.cholesky_ex.value_and_vjp, (A, CT), {"out": (SAME, THREE[1], SAME)}, ValueError,
                    "cholesky_ex.value_and_vjp: out for scale_tril and out for ct_a share memory"),
    "ex a mask": (rp.cholesky_ex.value_and_vjp, (A, MASKED), {"out": THREE}, TypeError,
                  f"cholesky_ex.vjp: ct_scale_tril {NO_MASK}"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_calls_are_refused_in_the_words_of_every_op(case):
    call, args, keywords, error, message = REFUSED[case]
    refused(error, message, call, *args, **keywords)


@pytest.mark.parametrize(
    ("call", "name", "parameters"),
    [
        (rp.cholesky, "cholesky", "(a, *, check=True, jitter=None, out=None)"),
        (CALLS["cholesky"], "value_and_vjp", "(a, ct_scale_tril, *, check=True, jitter=None, wrt=None, out=None)"),
        (CALLS["cholesky_ex"], "value_and_vjp", "(a, ct_scale_tril, *, wrt=None, out=None)"),
    ],
)
def test_signatures_name_everything(call, name, parameters):
    assert (call.__name__, str(inspect.signature(call))) == (name, parameters)
