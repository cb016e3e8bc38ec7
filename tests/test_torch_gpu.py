# SPDX-License-Identifier: MIT
"""CUDA tensors go to the kernels by address. Without a GPU, tensors of the host stand for them, and the kernels of the
stand-in walk their addresses and strides.
"""

import contextlib
import types

import numpy as np
import pytest

import fake_cupy
import reparam as rp
import support
from reparam._backends import cuda as backend

torch = pytest.importorskip("torch", reason="needs torch")
rt = pytest.importorskip("reparam.torch", reason="needs torch")

OPS = [op for op in support.OPS if op.name not in {"bits", "normal"}]
STREAM = 4096


@pytest.fixture
def kernels(monkeypatch):
    """Every tensor says that it lies on a GPU, and torch that it has one."""
    made = fake_cupy.Kernels()
    stream = types.SimpleNamespace(cuda_stream=STREAM)
    monkeypatch.setattr(backend, "_cuda", made)
    monkeypatch.setattr(fake_cupy, "_require_inside", lambda *_: None)
    monkeypatch.setitem(fake_cupy._streams, STREAM, {0: 1})
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    fake_cupy.calls.clear()
    return made


def tensors(arrays, dtype="float64"):
    return [torch.from_numpy(x.astype(dtype)) for x in arrays]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_ops_give_the_numbers_of_the_scalar_kernels(op, kernels, rng, dtype):
    for attributes in support.some_variants(op):
        inputs = [x.astype(dtype) for x in support.sample_inputs(op, rng, (5,), 4)]
        with rp.backend("native:scalar"):
            expected = support.forward(op, inputs, **attributes)
        given = tensors(inputs, dtype)
        made = support.as_tuple(getattr(rt, op.name)(*given, **attributes))
        made = made if op.outputs else [x for o, x in zip(op.inputs, given, strict=True) if o.in_place]
        support.same_bits([x.numpy() for x in made], list(expected))
    assert {name for name, *_ in fake_cupy.calls} == {op.name}
    assert {stream for _, _, stream, _ in fake_cupy.calls} == {STREAM}


@pytest.mark.parametrize("op", [op for op in OPS if op.vjp], ids=lambda op: op.name)
def test_gradients_are_those_of_the_scalar_kernels(op, kernels, rng, dtype):
    inputs = [x.astype(dtype) for x in support.sample_inputs(op, rng, (2, 5), 4)]
    inputs[0] = inputs[0][:1]  # its cotangent is summed over a dim
    cotangents = support.sample_cotangents(op, rng, (2, 5) if len(inputs) > 1 else (1, 5), 4, dtype)
    with rp.backend("native:scalar"):
        expected = support.vjp(op, inputs, cotangents)
    given = [x.requires_grad_() for x in tensors(inputs, dtype)]
    made = support.as_tuple(getattr(rt, op.name)(*given))
    real = [x for x, o in zip(made, op.outputs, strict=True) if o.item == "real"]
    for k in range(len(given)):  # one alone, and all
        (one,) = torch.autograd.grad(real, given[k], tensors(cotangents, dtype), retain_graph=True)
        support.same_bits(one.numpy(), expected[k])
    every = torch.autograd.grad(real, given, tensors(cotangents, dtype))
    support.same_bits([x.numpy() for x in every], list(expected))
    assert {name for name, *_ in fake_cupy.calls} == {op.name}


def test_strides_of_any_kind_are_walked(kernels, rng):
    inputs = support.sample_inputs(rp.normal_tril_log_prob, rng, (6,), 4)
    value, loc, scale_tril = tensors(inputs)
    given = (value.flip(0).T.contiguous().T.flip(0), loc[:1].expand(6, 4), scale_tril.mT.contiguous().mT)
    with rp.backend("native:scalar"):
        expected = rp.normal_tril_log_prob(inputs[0], inputs[1][:1], inputs[2])
    support.same_bits(rt.normal_tril_log_prob(*given).numpy(), expected)


def test_factors_may_be_packed(kernels, rng):
    value, loc, scale_tril = support.sample_inputs(rp.normal_tril_log_prob, rng, (6,), 4)
    packed = scale_tril[(..., *np.tril_indices(4))]
    with rp.backend("native:scalar"):
        expected = rp.normal_tril_log_prob(value, loc, scale_tril)
    support.same_bits(rt.normal_tril_log_prob(*tensors([value, loc, packed]), packed=True).numpy(), expected)


def test_a_number_lies_where_the_tensors_do(kernels, rng):
    x = rng.standard_normal(5)
    with rp.backend("native:scalar"):
        expected = rp.normal_log_prob(x, 0.5, 2.0)
    support.same_bits(rt.normal_log_prob(torch.from_numpy(x), 0.5, 2).numpy(), expected)


@pytest.mark.parametrize("make", [rp.random.Draw, lambda key, index: rt.Draw(key, torch.from_numpy(index))])
def test_noise_is_drawn_where_it_is_used(make, kernels, rng):
    _, loc, scale_tril = support.sample_inputs(rp.normal_tril_transform, rng, (6,), 4)
    index, ct = np.arange(6)[::-1].copy(), rng.standard_normal((6, 4))
    draw = rp.random.Draw(2**63 + 1, index)
    with rp.backend("native:scalar"):
        expected = rp.normal_tril_transform(draw, loc, scale_tril)
        cotangents = rp.normal_tril_transform.vjp(draw, loc, scale_tril, ct, wrt=("loc", "scale_tril"))
    given = [x.requires_grad_() for x in tensors([loc, scale_tril])]
    z = rt.normal_tril_transform(make(2**63 + 1, index), *given)
    support.same_bits(z.detach().numpy(), expected)
    made = torch.autograd.grad(z, given, torch.from_numpy(ct))
    support.same_bits([x.numpy() for x in made], list(cotangents[1:]))


def test_an_index_of_the_host_is_uploaded_once_for_each_stream(kernels, rng, monkeypatch):
    _, loc, scale_tril = tensors(support.sample_inputs(rp.normal_tril_transform, rng, (6,), 4))
    draw = rp.random.Draw(1, np.arange(6))
    first = rt.normal_tril_transform(draw, loc, scale_tril)
    (kept,) = vars(draw)["_uploaded"].values()
    assert torch.equal(rt.normal_tril_transform(draw, loc, scale_tril), first)
    assert list(vars(draw)["_uploaded"].values()) == [kept]


def test_an_output_without_a_cotangent(kernels, rng):
    inputs = support.sample_inputs(rp.normal_diag_transform_and_log_prob, rng, (6,), 4)
    given = [x.requires_grad_() for x in tensors(inputs)]
    with rp.backend("native:scalar"):
        expected = rp.normal_diag_transform_and_log_prob.vjp(*inputs, None, np.ones(6))
    made = torch.autograd.grad(rt.normal_diag_transform_and_log_prob(*given)[1].sum(), given)
    support.same_bits([x.numpy() for x in made], list(expected))


def test_a_matrix_without_a_factor(kernels):
    a = torch.eye(3, dtype=torch.float64).expand(4, 3, 3).clone()
    a[2, 1, 1] = -1
    with pytest.raises(torch.linalg.LinAlgError, match=r"in 1 of 4 events: \[2\] \(leading minor 2\)"):
        rt.cholesky(a)
    assert rt.cholesky(a, check=False).isnan().any(-1).any(-1).tolist() == [False, False, True, False]
    a[2, 1, 1] = 0
    with pytest.warns(RuntimeWarning, match="1 of 4 matrices were tried again"):
        made = rt.cholesky(a, jitter=1e-6)
    assert made.isfinite().all()


def test_an_update_in_place(kernels):
    x = torch.zeros(4)
    hyper = {"step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="param is updated in place, but entries of it share memory"):
        rt.adam_step(torch.zeros(1).expand(4), x, x.clone(), x.clone(), **hyper)
    with pytest.raises(ValueError, match="are updated in place, but share memory"):
        rt.adam_step(x, x.clone(), x, x.clone(), **hyper)


def test_what_is_missing_is_said(kernels, monkeypatch):
    with rp.backend("reference"), pytest.raises(ValueError, match="CUDA tensors run on native:cuda alone"):
        rt.normal_log_prob(torch.zeros(3), 0.0, 1.0)
    kernels.error = RuntimeError("normal_log_prob: no kernel image (cudaErrorNoKernelImageForDevice)")
    with pytest.raises(RuntimeError, match="GPU None has compute capability 90: build it by"):
        rt.normal_log_prob(torch.zeros(3), 0.0, 1.0)
    monkeypatch.setattr(backend, "_cuda", None)
    with pytest.raises(TypeError, match=r"no kernels for CUDA tensors, .*or move the arrays by \.cpu\(\)"):
        rt.normal_log_prob(torch.zeros(3), 0.0, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or backend._cuda is None, reason="needs a CUDA GPU of torch")
@pytest.mark.parametrize("op", [op for op in OPS if op.vjp], ids=lambda op: op.name)
def test_on_a_gpu(op, rng, dtype):
    inputs, cotangents = (
        make(op, rng, (129,), 4, dtype) for make in (support.sample_inputs, support.sample_cotangents)
    )
    on_gpu = [torch.from_numpy(x).cuda().requires_grad_() for x in inputs]
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        made = support.as_tuple(getattr(rt, op.name)(*on_gpu))
        real = [x for x, o in zip(made, op.outputs, strict=True) if o.item == "real"]
        grads = torch.autograd.grad(real, on_gpu, [torch.from_numpy(x).cuda() for x in cotangents])
    torch.cuda.synchronize()
    tolerance = {"float32": 1e-3, "float64": 1e-10}[dtype]
    expected = [*support.forward(op, inputs), *support.vjp(op, inputs, cotangents)]
    for x, y in zip((*made, *grads), expected, strict=True):
        assert x.is_cuda
        np.testing.assert_allclose(x.detach().cpu().numpy(), y, rtol=tolerance, atol=tolerance)
