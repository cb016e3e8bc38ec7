# SPDX-License-Identifier: MIT
"""The ops on arrays of CuPy, against NumPy's to the bit; there is no GPU here, but what stands for one is strict."""

import numpy as np
import pytest

import fake_cupy
import reparam as rp
from hostile import PASSES, arguments, call, flat
from reparam import _dispatch
from support import DTYPES, same_bits

LAYOUTS = ("C", "Fortran", "strided", "reversed", "broadcast")
DRAWABLE = [p for p in PASSES if any(o.drawable for o in p.inputs)]
WITH_OUT = [p for p in PASSES if p.outputs]
REVERSE = [p for p in PASSES if p.reverse]


@pytest.fixture
def gpu():
    """CuPy and the kernels of a GPU with their stand-ins."""
    with fake_cupy.installed() as (cupy, kernels):
        yield cupy, kernels


def named(p):
    return p.name + ("" if p.unpacked is p else "-packed")


def on_gpu(cupy, x):
    return cupy.asarray(x) if isinstance(x, np.ndarray) else x


def to_host(x):
    if isinstance(x, tuple):
        return tuple(to_host(each) for each in x)
    return x.get() if isinstance(x, fake_cupy.ndarray) else x


def expected(p, arrays, **keywords):
    """What NumPy's arrays give, by the kernels that a thread of a GPU runs."""
    with rp.backend("native:scalar"):
        return flat(call(p, *arrays, **keywords))


def check(p, arrays, on_device, **keywords):
    """The same bits as of NumPy, by the GPU's kernels alone, and without waiting for them."""
    arrays = [x.copy() if isinstance(x, np.ndarray) and o.in_place else x
              for x, o in zip(arrays, p.inputs, strict=True)]  # fmt: skip
    wanted = expected(p, arrays, **keywords)
    before = _dispatch.counts.copy()
    waits = fake_cupy.counts["waits"]
    made = flat(call(p, *on_device, **keywords))
    if p.op.name != "cholesky":  # which asks whether it has failed
        assert fake_cupy.counts["waits"] == waits
    assert {name for name, n in _dispatch.counts.items() if n > before[name]} == {"native:cuda"}
    for actual, known in zip(made, wanted, strict=True):
        assert actual is None if known is None else isinstance(actual, fake_cupy.ndarray)
        if known is not None:
            same_bits(to_host(actual), known)
    for x, y, operand in zip(arrays, on_device, p.inputs, strict=True):
        if operand.in_place:
            same_bits(to_host(y), x)


def laid_out(cupy, layout, operand, x):
    """The operand on the GPU in another layout; a broadcast one has no batch dim."""
    x = cupy.asarray(x)
    if layout == "Fortran":
        return cupy.asarray(x.T.copy()).T if x.ndim else x
    if layout == "strided":
        wide = cupy.zeros(tuple(2 * n for n in x.shape), x.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
        view[...] = x
        return view
    if layout == "reversed" and x.ndim:
        return x[::-1].copy()[::-1]
    return x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", PASSES, ids=named)
def test_every_pass_has_the_bits_of_numpy(gpu, p, dtype, layout):
    arrays, keywords = arguments(p, dtype=dtype)
    if "dtype" in keywords or p.op.name in {"normal"}:
        keywords = {**keywords, "dtype": dtype}
    if layout == "broadcast":
        arrays = [x[:1] if k == 0 and not o.in_place else x[0] if k == 1 and not o.in_place else x
                  for k, (x, o) in enumerate(zip(arrays, p.inputs, strict=True))]  # fmt: skip
    on_device = [laid_out(gpu[0], layout, o, x) for o, x in zip(p.inputs, arrays, strict=True)]
    check(p, arrays, on_device, **keywords)


@pytest.mark.parametrize("p", DRAWABLE, ids=named)
def test_noise_is_drawn_on_the_gpu(gpu, p):
    arrays, keywords = arguments(p)
    k = next(k for k, o in enumerate(p.inputs) if o.drawable)
    draw = rp.random.Draw(5, np.arange(10, 14))
    arrays = [draw if i == k else x for i, x in enumerate(arrays)]
    keywords = {**keywords, **dict.fromkeys(p.free_symbols, 3)}
    on_device = [on_gpu(gpu[0], x) for x in arrays]
    uploads = fake_cupy.counts["uploads"]
    check(p, arrays, on_device, **keywords)
    check(p, arrays, on_device, **keywords)
    assert fake_cupy.counts["uploads"] == uploads + 1  # of the index, once


@pytest.mark.parametrize("p", WITH_OUT, ids=named)
def test_results_go_where_they_are_wanted(gpu, p):
    arrays, keywords = arguments(p)
    wanted = expected(p, arrays, **keywords)
    out = tuple(gpu[0].empty(np.shape(x), x.dtype) for x in wanted)
    made = call(p, *[on_gpu(gpu[0], x) for x in arrays], **keywords, out=out if len(out) > 1 else out[0])
    assert all(x is y for x, y in zip(flat(made), out, strict=True))
    for x, known in zip(out, wanted, strict=True):
        same_bits(x.get(), np.asarray(known))


@pytest.mark.parametrize("p", REVERSE, ids=named)
def test_wanted_cotangents_alone_and_cotangents_of_zero(gpu, p):
    arrays, keywords = arguments(p)
    name = p.outputs[-1].name.removeprefix("ct_")
    check(p, arrays, [on_gpu(gpu[0], x) for x in arrays], **keywords, wrt=(name,))
    without = [*arrays[: p.primals], *[None] * (len(arrays) - p.primals)]
    check(p, without, [on_gpu(gpu[0], x) for x in without], **keywords)


@pytest.mark.parametrize("p", [p for p in WITH_OUT if not p.values], ids=named)
def test_out_may_overlap_an_input(gpu, p):
    arrays, keywords = arguments(p)
    wanted = expected(p, arrays, **keywords)
    on_device = [on_gpu(gpu[0], x) for x in arrays]
    fits = [(i, k) for i, x in enumerate(arrays) for k, y in enumerate(wanted)
            if (x.shape, x.dtype) == (np.shape(y), y.dtype)]  # fmt: skip
    if not fits:
        return
    i, k = fits[0]
    out = [gpu[0].empty(np.shape(y), y.dtype) for y in wanted]
    out[k] = on_device[i]
    call(p, *on_device, **keywords, out=tuple(out) if len(out) > 1 else out[0])
    for x, known in zip(out, wanted, strict=True):
        same_bits(x.get(), np.asarray(known))


def test_numbers_go_along_with_arrays(gpu):
    x = np.linspace(-1, 1, 5)
    made = rp.normal_log_prob(gpu[0].asarray(x), 0.5, np.float64(2))
    with rp.backend("native:scalar"):
        same_bits(made.get(), rp.normal_log_prob(x, 0.5, 2.0))


@pytest.mark.parametrize("batch", [(0,), (0, 3), (2, 0)])
def test_an_empty_batch(gpu, batch):
    cupy = gpu[0]
    value, loc, scale_tril = np.zeros((*batch, 2)), np.zeros(2), np.eye(2)
    made = rp.normal_tril_log_prob.value_and_vjp(*map(cupy.asarray, (value, loc, scale_tril)), cupy.zeros(batch))
    with rp.backend("native:scalar"):
        wanted = rp.normal_tril_log_prob.value_and_vjp(value, loc, scale_tril, np.zeros(batch))
    same_bits(to_host(flat(made)), flat(wanted))
    assert rp.normal_diag_transform(*[cupy.zeros((4, 0))] * 3).shape == (4, 0)


def test_an_object_that_shows_memory_of_a_gpu(gpu):
    cupy = gpu[0]

    class Other:
        def __init__(self, x):
            self.array = cupy.asarray(x)
            self.__cuda_array_interface__ = self.array.__cuda_array_interface__

    made = rp.normal_entropy(Other(np.ones(3)))
    assert isinstance(made, fake_cupy.ndarray)
    same_bits(made.get(), rp.normal_entropy(np.ones(3)))
    out = cupy.empty((2, 3, 3))
    assert rp.cholesky(Other(np.stack([np.eye(3), 4 * np.eye(3)])), out=out) is out
    same_bits(out.get(), np.stack([np.eye(3), 2 * np.eye(3)]))


# ---- where and when


def test_on_the_device_of_the_arrays(gpu):
    cupy = gpu[0]
    with cupy.cuda.Device(1):
        x = cupy.asarray(np.ones(3))
        stream = cupy.cuda.Stream()
    assert rp.normal_entropy(x).device.id == 1
    rp.random.Draw(0, np.arange(3))
    rp.normal_transform(rp.random.Draw(0, np.arange(3)), x, x)
    assert [device for _, device, *_ in fake_cupy.calls] == [1, 1]
    with cupy.cuda.Device(1), stream:
        rp.normal_entropy(x)
    assert fake_cupy.calls[-1][1:3] == (1, stream.ptr)


def test_on_the_current_stream_also_of_another_library(gpu):
    cupy = gpu[0]
    x = cupy.asarray(np.ones(3))
    with cupy.cuda.Stream() as stream:
        rp.normal_entropy(x)

    class Other:
        def __cuda_stream__(self):
            return 0, stream.ptr

    with cupy.cuda.Stream.from_external(Other()):
        rp.normal_entropy(x)
    rp.normal_entropy(x)
    assert [ptr for _, _, ptr, _ in fake_cupy.calls] == [stream.ptr, stream.ptr, 0]


def test_a_draw_is_uploaded_once_for_each_stream(gpu):
    cupy = gpu[0]
    draw, x = rp.random.Draw(0, np.arange(3)), cupy.asarray(np.ones(3))
    uploads = fake_cupy.counts["uploads"]
    for _ in range(2):
        rp.normal_transform(draw, x, x)
        with cupy.cuda.Stream():
            rp.normal_transform(draw, x, x)
    assert fake_cupy.counts["uploads"] == uploads + 3
    of_gpu = rp.random.Draw(0, cupy.arange(3))
    same_bits(rp.normal_transform(of_gpu, x, x).get(), rp.normal_transform(draw, x, x).get())


def test_nothing_is_uploaded_while_a_graph_is_captured(gpu):
    cupy = gpu[0]
    draw, x = rp.random.Draw(0, np.arange(3)), cupy.asarray(np.ones(3))
    uploads = fake_cupy.counts["uploads"]
    with cupy.cuda.Stream() as stream:
        stream.captures = True
        with pytest.raises(
            RuntimeError, match="cannot be uploaded while a graph is captured: make the call once before"
        ):
            rp.normal_transform(draw, x, x)
        assert fake_cupy.counts["uploads"] == uploads
        stream.captures = False
        rp.normal_transform(draw, x, x)
        stream.captures = True
        rp.normal_transform(draw, x, x)
    assert fake_cupy.counts["uploads"] == uploads + 1


def test_only_a_check_waits(gpu):
    a = gpu[0].asarray(np.stack([np.eye(2), -np.eye(2)]))
    rp.cholesky(a, check=False)
    rp.cholesky_ex(a)
    assert fake_cupy.counts["waits"] == 0
    with pytest.raises(rp.NotPositiveDefiniteError, match=r"\[1\] \(leading minor 1\)") as caught:
        rp.cholesky(a)
    assert fake_cupy.counts["waits"] > 0
    assert caught.value.info.tolist() == [0, 1]


def test_jitter(gpu):
    singular = np.stack([np.eye(3), np.ones((3, 3))])
    with pytest.warns(RuntimeWarning, match="1 of 2 matrices were tried again"):
        made = rp.cholesky(gpu[0].asarray(singular), jitter=1e-6)
    with rp.backend("native:scalar"), pytest.warns(RuntimeWarning, match="1 of 2"):
        same_bits(made.get(), rp.cholesky(singular, jitter=1e-6))


def test_an_object_that_refuses_to_show_its_memory_is_read_by_the_host(gpu):
    class OfTheHost:
        def __array__(self, dtype=None, copy=None):
            return np.ones(3)

        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("only defined for GPU buffers")

        def __dlpack_device__(self):
            return (1, 0)

    assert isinstance(rp.normal_entropy(OfTheHost()), np.ndarray)
