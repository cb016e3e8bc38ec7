# SPDX-License-Identifier: MIT
"""Calls of ops on CuPy's arrays: results in place, packed factors, views, errors, streams, devices, graphs."""

import numpy as np
import pytest

import reparam as rp
import support
from gpu_arrays import AXIS, KEY, get, library, only_on_a_gpu, problem, put
from reparam._backends import cuda
from support import OPS, same_bits
from test_ops import largest

PACKABLE = [op for op in OPS if op.packable]


@pytest.fixture(params=AXIS)
def xp(request):
    """CuPy, and what stands in for it."""
    with library(request.param) as cupy:
        yield cupy


@pytest.fixture
def gpu():
    """CuPy itself, for what only a GPU can show."""
    import cupy

    return cupy


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
    given = value, loc[:1].copy(), factor[:1].copy(), gpu.ones(4000, "float32")
    out = tuple(gpu.empty_like(x) for x in given[:3])
    expected = get(rp.normal_tril_log_prob.vjp(*given, out=out))
    pool = gpu.cuda.MemoryPool()
    pool.set_limit(size=512)  # the least block; 0 would be no limit
    with (
        gpu.cuda.using_allocator(pool.malloc),
        pytest.raises(MemoryError, match=r"^normal_tril_log_prob.vjp: GPU 0 is out of memory"),
    ):
        rp.normal_tril_log_prob.vjp(*given, out=out)
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


@only_on_a_gpu
def test_a_graph_of_an_elbo_reads_its_index_again(gpu, dtype):
    """Another index, written into the array that was given, is other noise."""
    _, loc, factor = put(gpu, problem(d=8, batch=100), dtype)
    x, weight, bias = put(
        gpu, [np.random.default_rng(1).standard_normal(shape) for shape in ((4,), (4, 8), (4,))], dtype
    )
    q, target = rp.MultivariateNormal(loc, scale_tril=factor), rp.targets.LinearGaussian(x, weight, bias, 0.5)
    index = gpu.arange(100, dtype=np.uint64)

    def call(index):
        made = rp.elbo(q, target, key=KEY, num_samples=3, index=index)
        return made.value, made.grad.loc, made.grad.scale_tril

    pool, stream = gpu.cuda.MemoryPool(), gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.runtime.deviceSynchronize()
    with stream, gpu.cuda.using_allocator(pool.malloc):
        call(index)  # what is uploaded once has been, and the pool has the memory
        stream.begin_capture()
        made = call(index)
        graph = stream.end_capture()
        found = []
        for step in range(3):
            index += step
            graph.launch(stream)
            found.append(get(made))
            same_bits(found[-1], get(call(index.copy())))
    assert len({values.tobytes() for values, *_ in found}) == 3
