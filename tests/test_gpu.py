# SPDX-License-Identifier: MIT
"""Ops on CuPy's arrays: the table against its oracles, noise, streams, graphs, errors.

On a GPU where there is one; the stand-in for CuPy runs what needs no more than arrays. bench/gpu_check.py does more.
"""

import importlib.util

import numpy as np
import pytest
from reparam._bench import gpu_check, gpu_device, gpu_ops

import reparam as rp
import support
from reparam._backends import cuda
from support import OPS, OPS_WITH_VJP, same_bits
from test_ops import assert_cotangents, assert_outputs, cases, largest

needs_gpu = pytest.mark.skipif(
    bool(gpu_check.missing()) or cuda._cuda is None, reason="needs a CUDA GPU, CuPy and a build with nvcc"
)
ON_A_GPU = pytest.param("CuPy", marks=[pytest.mark.gpu, needs_gpu])
AXIS = [ON_A_GPU, *(["stand-in"] if importlib.util.find_spec("fake_cupy") else [])]
PACKABLE = [op for op in OPS if op.packable]
KEY = 2**40 + 17


@pytest.fixture(params=AXIS)
def xp(request):
    """CuPy, whose fresh memory holds NaN, and what stands in for it."""
    if request.param == "stand-in":
        import fake_cupy

        with fake_cupy.installed() as (cupy, _):
            yield cupy
        return
    import cupy

    gpu_device.Device(cupy).poison()
    yield cupy
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)


@pytest.fixture
def gpu():
    """CuPy itself, for what only a GPU can show."""
    import cupy

    return cupy


def only_on_a_gpu(test):
    return pytest.mark.gpu(needs_gpu(test))


def put(xp, arrays, dtype):
    return gpu_device.Device(xp).put(arrays, dtype)


def get(arrays):
    return [x.get() for x in support.as_tuple(arrays)]


def problem(d=5, batch=7, dtype="float64"):
    """Value, loc and factor in NumPy."""
    rng = np.random.default_rng(d)
    value, loc = rng.standard_normal((2, batch, d))
    return [x.astype(dtype) for x in (value, loc, support.factor(rng, (batch,), d))]


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


# ---- how a call can be made


def test_out_is_filled_and_returned(xp, dtype):
    value, loc, factor = put(xp, problem(), dtype)
    expected = rp.normal_tril_transform(value, loc, factor).get()
    out = xp.zeros((7, 5), dtype)
    assert rp.normal_tril_transform(value, loc, factor, out=out) is out
    same_bits(out.get(), expected)
    assert rp.normal_tril_transform(value, loc, factor, out=value) is value  # as if there were no overlap
    same_bits(value.get(), expected)
    strided = xp.zeros((5, 14), dtype).T[::2]
    value = put(xp, problem(), dtype)[0]
    assert rp.normal_tril_transform(value, loc, factor, out=strided) is strided
    same_bits(strided.get(), expected)


@pytest.mark.parametrize("op", PACKABLE, ids=lambda op: op.name)
def test_packed_factors_give_the_bits_of_dense_ones(op, xp, dtype):
    inputs, cotangents, _, _ = support.oracle_problem(op.name, 3, largest(3))
    rows, columns = np.tril_indices(3)

    def packed(arrays, operands):
        return [x[..., rows, columns] if o.kind == "tril" else x for o, x in zip(operands, arrays, strict=True)]

    attributes = support.variants(op)[0]
    dense = get(op(*put(xp, inputs, dtype), **attributes))
    found = get(op(*put(xp, packed(inputs, op.inputs), dtype), packed=True, **attributes))
    same_bits(found, packed(dense, op.outputs))
    if op.vjp is not None:
        dense = get(op.vjp(*put(xp, [*inputs, *cotangents], dtype), **attributes))
        given = [*packed(inputs, op.inputs), *packed(cotangents, op.real(op.outputs))]
        found = get(op.vjp(*put(xp, given, dtype), packed=True, **attributes))
        same_bits(found, packed(dense, op.inputs))


def test_cotangents_that_nobody_wants_are_none(xp, dtype):
    given = put(xp, [*problem(), np.ones(7)], dtype)
    every = rp.normal_tril_log_prob.vjp(*given)
    value, loc, factor = rp.normal_tril_log_prob.vjp(*given, wrt=("loc",))
    assert value is None
    assert factor is None
    same_bits(loc.get(), every[1].get())


def test_a_cotangent_of_none_is_zero(xp, dtype):
    given = put(xp, problem(), dtype)
    ct = xp.ones((7, 5), dtype)
    expected = rp.normal_tril_transform_and_log_prob.vjp(*given, ct, xp.zeros(7, dtype))
    same_bits(get(rp.normal_tril_transform_and_log_prob.vjp(*given, ct, None)), get(expected))


def test_views_of_any_strides_are_walked(xp, dtype):
    value, loc, factor = problem(d=4, batch=6, dtype=dtype)
    expected = rp.normal_tril_log_prob(*put(xp, [value, loc, factor], dtype)).get()
    backwards = put(xp, [value[::-1].copy(), np.repeat(loc, 2, axis=1), factor.swapaxes(-1, -2).copy()], dtype)
    views = backwards[0][::-1], backwards[1][:, ::2], backwards[2].swapaxes(-1, -2)
    same_bits(rp.normal_tril_log_prob(*views).get(), expected)


# ---- errors


def test_arrays_of_two_libraries_are_refused_by_name(xp):
    value, loc, factor = problem()
    on_gpu = put(xp, [value, loc, factor], "float64")
    with pytest.raises(TypeError, match="normal_tril_log_prob: value is a CuPy array and loc a NumPy array"):
        rp.normal_tril_log_prob(on_gpu[0], loc, on_gpu[2])
    with pytest.raises(
        TypeError, match=r"normal_tril_log_prob: out for log_prob must be a NumPy array, got cupy\.ndarray"
    ):
        rp.normal_tril_log_prob(value, loc, factor, out=xp.zeros(7))
    with pytest.raises(TypeError, match="value is float64 and scale_tril is float32"):
        rp.normal_tril_log_prob(*on_gpu[:2], on_gpu[2].astype("float32"))
    assert rp.normal_tril_log_prob(*on_gpu).shape == (7,)


def test_a_bad_matrix_is_named(xp):
    a = np.stack([np.eye(3)] * 4)
    a[2, 1, 1] = -1.0
    (on_gpu,) = put(xp, [a], "float64")
    with pytest.raises(rp.NotPositiveDefiniteError, match=r"\[2\] \(leading minor 2\)") as caught:
        rp.cholesky(on_gpu)
    assert caught.value.info.tolist() == [0, 0, 2, 0]
    assert np.isnan(rp.cholesky(on_gpu, check=False).get()[2]).any()
    assert rp.cholesky_ex(on_gpu).info.get().tolist() == [0, 0, 2, 0]
    with pytest.warns(RuntimeWarning, match="1"):
        assert np.isnan(rp.cholesky(on_gpu, check=False, jitter=1e-6).get()[2]).any()


@only_on_a_gpu
def test_too_little_memory_is_an_error_and_the_gpu_goes_on(gpu):
    noise = gpu.broadcast_to(gpu.zeros((), "float32"), (2**42,))  # 16 TiB of results
    before = rp.normal_entropy(gpu.ones(3)).get()
    for _ in range(2):
        with pytest.raises(MemoryError, match=r"^normal_transform: GPU 0 is out of memory"):
            rp.normal_transform(noise, 0.0, 1.0)
        same_bits(rp.normal_entropy(gpu.ones(3)).get(), before)


@only_on_a_gpu
def test_too_little_memory_for_scratch_is_an_error_too(gpu):
    """A sum over events puts its blocks there."""
    value, loc, factor = put(gpu, problem(d=64, batch=4000), "float32")
    ct, pool = gpu.ones(4000, "float32"), gpu.get_default_memory_pool()
    given = value, loc[:1].copy(), factor[:1].copy(), ct
    out = tuple(gpu.empty_like(x) for x in given[:3])
    expected = get(rp.normal_tril_log_prob.vjp(*given, out=out))
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes())
    try:
        with pytest.raises(MemoryError, match=r"^normal_tril_log_prob.vjp: GPU 0 is out of memory"):
            rp.normal_tril_log_prob.vjp(*given, out=out)
    finally:
        pool.set_limit(size=0)
    same_bits(get(rp.normal_tril_log_prob.vjp(*given, out=out)), expected)


# ---- streams, devices, graphs


def test_a_call_runs_on_the_current_stream(xp, dtype):
    arrays = problem(d=16, batch=1000, dtype=dtype)
    expected = rp.normal_tril_log_prob(*put(xp, arrays, dtype)).get()
    streams = [xp.cuda.Stream() for _ in range(4)]
    found = []
    for _ in range(5):
        for stream in streams:
            with stream:
                given = put(xp, arrays, dtype)
                found.append(rp.normal_tril_log_prob(given[0] + 0, given[1], given[2]) + 0)
    for k, result in enumerate(found):
        with streams[k % len(streams)]:
            same_bits(result.get(), expected)


def test_a_call_runs_where_its_arrays_are(xp, dtype):
    if len(cuda._cuda.devices()) < 2:
        pytest.skip("needs a CUDA GPU, and a second one")
    arrays = problem(dtype=dtype)
    expected = rp.normal_tril_log_prob(*put(xp, arrays, dtype)).get()
    with xp.cuda.Device(1):
        given = put(xp, arrays, dtype)
    found = rp.normal_tril_log_prob(*given)  # the current device is another one
    assert found.device.id == 1
    same_bits(found.get(), expected)
    with pytest.raises(TypeError, match="value is on GPU 1 and loc on GPU 0"):
        rp.normal_tril_log_prob(given[0], *put(xp, arrays[1:], dtype))


@only_on_a_gpu
@pytest.mark.parametrize("shared", [False, True], ids=["own factors", "sums over events"])
def test_a_graph_captures_a_call(gpu, shared, dtype):
    """What a graph has captured runs again on what its arrays hold by then."""
    value, loc, factor = put(gpu, problem(d=8, batch=1000), dtype)
    loc, factor = (loc[0].copy(), factor[0].copy()) if shared else (loc, factor)
    draw = rp.random.Draw(KEY, np.arange(1000))
    ct = gpu.ones(1000, dtype)
    kept = [rp.normal_tril_transform(draw, loc, factor), *rp.normal_tril_log_prob.vjp(value, loc, factor, ct)]

    def call():
        rp.normal_tril_transform(draw, loc, factor, out=kept[0])
        rp.normal_tril_log_prob.vjp(value, loc, factor, ct, out=tuple(kept[1:]))

    stream = gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.runtime.deviceSynchronize()
    with stream:
        call()  # the pool has the memory from now on, and the Draw its index
        stream.begin_capture()
        call()
        graph = stream.end_capture()
        for step in range(3):
            value += step
            for x in kept:
                x.fill(np.nan)
            graph.launch(stream)
            found = get(tuple(kept))
            call()
            same_bits(found, get(tuple(kept)))
            assert all(np.isfinite(x).all() for x in found)


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
