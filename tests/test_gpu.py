# SPDX-License-Identifier: MIT
"""Ops on CuPy's arrays: the table against its oracles, and noise.

On a GPU where there is one; the stand-in for CuPy runs what needs no more than arrays. bench/gpu_check.py does more.
"""

import numpy as np
import pytest
from reparam._bench import gpu_device, gpu_ops

import reparam as rp
import support
from gpu_arrays import AXIS, KEY, get, library, problem, put
from support import OPS, OPS_WITH_VJP, same_bits
from test_ops import assert_cotangents, assert_outputs, cases, largest


@pytest.fixture(params=AXIS)
def xp(request):
    """CuPy, and what stands in for it."""
    with library(request.param) as cupy:
        yield cupy


# ---- the table


@pytest.mark.parametrize(("op", "variant", "d"), list(cases(OPS)))
def test_forward(op, variant, d, xp, dtype):
    inputs, _, expected, condition = support.oracle_problem(op.name, d, largest(d), variant)
    for batch in (0, 1, 129, largest(d)):
        results = support.forward(op, put(xp, [x[:batch] for x in inputs], dtype), **support.variants(op)[variant])
        assert all(isinstance(x, xp.ndarray) for x in results)
        assert_outputs(op, d, dtype, get(results), [exact[:batch] for exact in expected], condition[:batch])


@pytest.mark.parametrize(("op", "variant", "d"), list(cases(OPS_WITH_VJP)))
def test_vjp(op, variant, d, xp, dtype):
    inputs, cotangents, _, _ = support.oracle_problem(op.name, d, largest(d), variant)
    for batch in (0, 1, 129, largest(d)):
        given = (put(xp, [x[:batch] for x in arrays], dtype) for arrays in (inputs, cotangents))
        results = support.vjp(op, *given, **support.variants(op)[variant])
        assert [x.shape for x in results] == [(batch, *x.shape[1:]) for x in inputs]
        assert_cotangents(op, d, variant, dtype, get(results))


@pytest.mark.parametrize("op", OPS_WITH_VJP, ids=lambda op: op.name)
def test_values_and_cotangents_of_one_call_are_those_of_two(op, xp, dtype):
    inputs, cotangents, _, _ = support.oracle_problem(op.name, 3, largest(3))
    inputs, cotangents = (put(xp, [x[:129] for x in arrays], dtype) for arrays in (inputs, cotangents))
    attributes = support.variants(op)[0]
    values, pulled = op.value_and_vjp(*inputs, *cotangents, **attributes)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    for x, y in zip(get(tuple(support.as_tuple(values))), get(support.forward(op, inputs, **attributes)), strict=True):
        np.testing.assert_allclose(x, y, **close)
    for x, y in zip(get(pulled), get(support.vjp(op, inputs, cotangents, **attributes)), strict=True):
        np.testing.assert_allclose(x, y, **close)


@pytest.mark.parametrize("op", OPS_WITH_VJP, ids=lambda op: op.name)
def test_a_call_gives_the_same_bits_again(op, xp, dtype):
    inputs, cotangents, _, _ = support.oracle_problem(op.name, 3, largest(3))
    inputs, cotangents = (put(xp, arrays, dtype) for arrays in (inputs, cotangents))
    if op.vjp_from == "inputs" and len(inputs) > 1:  # sums over all events too
        inputs = [inputs[0], *(x[:1] for x in inputs[1:])]
    calls = [get(support.vjp(op, inputs, cotangents, **support.variants(op)[0])) for _ in range(3)]
    same_bits(calls[1:], calls[:1] * 2)


# ---- noise


@pytest.mark.parametrize("n", [1, 4, 31, 1000])
def test_noise_has_the_bits_of_the_cpu(n, xp, dtype):
    streams, offset = np.arange(5, dtype=np.uint64) * np.uint64(2**61 + 1), np.array(4 * 2**32 - 8, np.uint64)
    settings = {"n": n, "key_low": KEY & 0xFFFFFFFF, "key_high": KEY >> 32}
    given = put(xp, [streams, offset], dtype)
    same_bits(rp.OPS["bits"](*given, **settings).get(), rp.OPS["bits"](streams, offset, **settings))
    settings["dtype"] = dtype
    same_bits(rp.OPS["normal"](*given, **settings).get(), rp.OPS["normal"](streams, offset, **settings))


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 100), 10_001])
def test_normals_of_a_key_have_the_bits_of_the_cpu(shape, xp, dtype):
    like = xp.zeros(1, dtype)
    made = rp.random.normal(shape, key=KEY, stream=3, offset=5, like=like)
    same_bits(made.get(), np.asarray(rp.random.normal(shape, key=KEY, stream=3, offset=5, dtype=dtype)))


@pytest.mark.parametrize("where", ["NumPy", "CuPy"])
@pytest.mark.parametrize("d", [1, 3, 16, 33])
def test_a_draw_is_the_noise_of_the_cpu(d, where, xp, dtype):
    index = np.random.default_rng(d).integers(0, 2**63, 129)
    _, loc, factor = problem(d, 129, dtype)
    noise = rp.random.normal((129, d), key=KEY, dtype=dtype)
    for b, stream in enumerate(index):
        noise[b] = rp.random.normal(d, key=KEY, stream=int(stream), dtype=dtype)
    given, loc, factor = put(xp, [noise, loc, factor], dtype)
    draw = rp.random.Draw(KEY, index if where == "NumPy" else xp.asarray(index))
    for op in (rp.normal_tril_transform, rp.normal_tril_transform_and_log_prob):
        same_bits(get(op(draw, loc, factor)), get(op(given, loc, factor)))
    cts = put(xp, [np.ones((129, d))], dtype)
    drawn, stored = (rp.normal_tril_transform.vjp(x, loc, factor, *cts) for x in (draw, given))
    assert drawn[0] is None
    same_bits(get(drawn[1:]), get(stored[1:]))


# ---- the script that does all of this at large


def test_the_stages_of_gpu_check_run_on_arrays_of_cupy(xp, tmp_path):
    device, report = gpu_device.Device(xp), gpu_device.Report(tmp_path / "report", 60.0)
    gpu_ops.check_sizes(device, report, (3,))
    gpu_ops.check_repeats(device, report, 2, (3,))
    gpu_ops.check_noise(device, report, (31,))
    base = xp.asarray(np.arange(21.0).reshape(7, 3))
    for batch in (0, 3, 7, 30):
        repeated = device.repeated(base, batch)
        same_bits(repeated.get(), base.get()[np.arange(batch) % 7])
        assert bool(device.repeats(repeated, base))
        if batch:
            repeated[-1, 2] += 1
            assert not bool(device.repeats(repeated, base))
    assert report.failures == 0, (tmp_path / "report").read_text()
