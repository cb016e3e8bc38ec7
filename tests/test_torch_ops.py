# SPDX-License-Identifier: MIT
"""Every op of the table on tensors: the numbers of the NumPy ops, gradients by their vjp, and what is refused."""

import functools
import importlib
import inspect
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import reparam as rp
import support
import test_docstrings

torch = pytest.importorskip("torch", reason="needs torch")
rt = pytest.importorskip("reparam.torch", reason="needs torch")
forward_ad = pytest.importorskip("torch.autograd.forward_ad", reason="needs torch")

OPS = [op for op in support.OPS if op.name not in {"bits", "normal"}]
WITH_VJP = [op for op in OPS if op.vjp]
WITHOUT_VJP = [op for op in OPS if not op.vjp and op.outputs]
EYE = torch.eye(3, dtype=torch.float64)
HYPER = {"step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}


def by_name(op):
    return op.name


def tensors(arrays, *, requires_grad=False):
    made = [torch.from_numpy(np.array(x)) for x in arrays]
    return [x.requires_grad_(requires_grad and x.dtype.is_floating_point) for x in made]


def call(op, given, **attributes):
    """The outputs of a floating type."""
    made = support.as_tuple(getattr(rt, op.name)(*given, **attributes))
    return [x for x, o in zip(made, op.outputs, strict=True) if o.item == "real"]


def numpy_of(made):
    return [x.detach().numpy() for x in made]


def problem(op, rng, batch, d=4, dtype="float64"):
    return (make(op, rng, batch, d, dtype) for make in (support.sample_inputs, support.sample_cotangents))


# ---- values


@pytest.mark.parametrize("op", OPS, ids=by_name)
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_values_are_those_of_numpy(op, batch, rng, dtype):
    for attributes in support.some_variants(op):
        inputs, _ = problem(op, rng, batch, dtype=dtype)
        given = tensors(inputs)
        made = support.as_tuple(getattr(rt, op.name)(*given, **attributes))
        made = made if op.outputs else [x for o, x in zip(op.inputs, given, strict=True) if o.in_place]
        assert all(isinstance(x, torch.Tensor) for x in made)
        support.same_bits(numpy_of(made), list(support.forward(op, inputs, **attributes)))


@pytest.mark.parametrize("op", [op for op in OPS if op.packable], ids=by_name)
def test_factors_may_be_packed(op, rng):
    inputs, _ = problem(op, rng, (5,))
    packed = [x[(..., *np.tril_indices(4))] if o.kind == "tril" else x for o, x in zip(op.inputs, inputs, strict=True)]
    given = tensors(packed, requires_grad=True)
    made = call(op, given, packed=True)
    expected = support.as_tuple(op(*packed, packed=True))
    support.same_bits(numpy_of(made), list(expected))
    if op.vjp:
        cotangents = [np.ones_like(x) for x in expected]
        saved = expected if op.vjp_from == "outputs" else packed
        grads = torch.autograd.grad(made, given, tensors(cotangents))
        support.same_bits(numpy_of(grads), list(support.as_tuple(op.vjp(*saved, *cotangents, packed=True))))


@pytest.mark.parametrize("op", OPS, ids=by_name)
def test_a_function_looks_like_its_op(op):
    function = getattr(rt, op.name)
    assert function.__name__ == op.name
    parameters = [*inspect.signature(function).parameters]
    assert parameters == [n for n in inspect.signature(op).parameters if n != "out"]
    assert function.__doc__.splitlines()[0] == op.__doc__.splitlines()[0]
    found = test_docstrings.sections(function.__doc__)
    documented = [test_docstrings.arguments_of(found.get(title, "")) for title in ("Parameters", "Other Parameters")]
    assert {n for n in parameters if len(n) > 1} <= set.union(*documented)
    assert "out" not in set.union(*documented)
    assert pickle.loads(pickle.dumps(function)) is function


def test_operands_may_be_named(rng):
    loc, scale, value = torch.from_numpy(rng.standard_normal((3, 5)) ** 2)
    expected = rt.normal_log_prob(value, loc, scale)
    assert torch.equal(rt.normal_log_prob(value=value, loc=loc, scale=scale), expected)
    assert torch.equal(rt.normal_log_prob(value, scale=scale, loc=loc), expected)


def test_the_doc_of_cholesky_names_the_error_of_torch():
    assert "LinAlgError" in rt.cholesky.__doc__
    assert "NotPositiveDefiniteError" not in rt.cholesky.__doc__


def test_numbers_have_the_dtype_of_the_tensors_or_of_torch():
    assert rt.normal_log_prob(torch.zeros(3), 0, 1.0).dtype == torch.float32
    assert rt.normal_log_prob(torch.zeros(3, dtype=torch.float64), 0, 1.0).dtype == torch.float64
    assert rt.normal_log_prob(0.0, 0, 1.0).dtype == torch.get_default_dtype()


LAYOUTS = {
    "transposed": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "strided": lambda x: x.repeat_interleave(2, 0)[::2],
    "negative": lambda x: torch.complex(torch.zeros_like(x), -x).conj().imag,
    "parameter": torch.nn.Parameter,
    "column": lambda x: torch.stack([x, x], -1)[..., 1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same(layout, rng):
    op = rp.normal_tril_transform_and_log_prob
    inputs, cotangents = problem(op, rng, (6,))
    given = [LAYOUTS[layout](x).detach().requires_grad_() for x in tensors(inputs)]
    made = call(op, given)
    support.same_bits(numpy_of(made), list(op(*inputs)))
    grads = torch.autograd.grad(made, given, [LAYOUTS["strided"](x) for x in tensors(cotangents)])
    support.same_bits(numpy_of(grads), list(op.vjp(*inputs, *cotangents)))


def test_events_of_no_coordinates():
    loc = torch.zeros(0, requires_grad=True)
    made = rt.normal_tril_log_prob(torch.zeros(5, 0), loc, torch.zeros(0, 0))
    assert made.tolist() == [0] * 5
    (grad,) = torch.autograd.grad(made.sum(), loc)
    assert grad.shape == (0,)


def test_a_size_that_no_tensor_shows_is_a_keyword():
    given = [torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3, 2), torch.eye(2)]
    draw = rt.Draw(1, torch.arange(3))
    assert rt.elbo_diag_gaussian(draw, *given, s=4)[0].shape == (3, 4)
    with pytest.raises(TypeError, match="elbo_diag_gaussian needs the keyword s"):
        rt.elbo_diag_gaussian(draw, *given)


# ---- gradients


@pytest.mark.parametrize("op", WITH_VJP, ids=by_name)
def test_gradients_are_the_vjp(op, rng, dtype):
    for attributes in support.some_variants(op):
        inputs, cotangents = problem(op, rng, (5,), dtype=dtype)
        given = tensors(inputs, requires_grad=True)
        made = call(op, given, **attributes)
        assert made[0].grad_fn.name() == f"{op.name}Backward"
        grads = torch.autograd.grad(made, given, tensors(cotangents))
        support.same_bits(numpy_of(grads), list(support.vjp(op, inputs, cotangents, **attributes)))


@pytest.mark.parametrize("batch", [(), (5,), (3000,)])  # the last is worth a choice of cotangents
@pytest.mark.parametrize("op", WITH_VJP, ids=by_name)
def test_one_input_alone_may_want_a_gradient(op, batch, rng):
    inputs, cotangents = problem(op, rng, batch, 2)
    every = support.vjp(op, inputs, cotangents)
    for k in range(len(inputs)):
        given = tensors(inputs)
        given[k].requires_grad_()
        (grad,) = torch.autograd.grad(call(op, given), given[k], tensors(cotangents))
        support.same_bits(grad.numpy(), every[k])


@pytest.mark.parametrize("op", WITH_VJP, ids=by_name)
def test_gradcheck(op, rng):
    for attributes in support.some_variants(op):
        inputs = tensors(support.sample_inputs(op, rng, (2,), 3), requires_grad=True)

        def run(*given, attributes=attributes):
            if op.inputs[0].kind == "sym":  # the lower triangle alone is read, and its gradient is symmetric
                given = [(x + x.mT) / 2 for x in given]
            return tuple(call(op, given, **attributes))

        assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("op", [op for op in WITH_VJP if len(op.inputs) > 1], ids=by_name)
def test_gradients_are_summed_over_broadcast_dims(op, rng):
    inputs, cotangents = problem(op, rng, (5, 4), 3)
    inputs[-1] = inputs[-1][:1, :1]
    whole = tensors(inputs, requires_grad=True)
    torch.autograd.backward(call(op, whole), tensors(cotangents))
    support.same_bits(numpy_of(x.grad for x in whole), list(support.vjp(op, inputs, cotangents)))
    expanded = tensors(inputs, requires_grad=True)
    last = expanded[-1].expand(5, 4, *expanded[-1].shape[2:])  # a view of strides of 0, whose gradient torch sums
    torch.autograd.backward(call(op, [*expanded[:-1], last]), tensors(cotangents))
    for x, y in zip(whole, expanded, strict=True):
        torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("used", [0, 1])
@pytest.mark.parametrize("op", [op for op in WITH_VJP if len(op.real(op.outputs)) > 1], ids=by_name)
def test_an_output_that_is_not_used(op, used, rng):
    inputs, cotangents = problem(op, rng, (5,))
    given = tensors(inputs, requires_grad=True)
    grads = torch.autograd.grad(call(op, given)[used], given, tensors(cotangents)[used])
    only = [ct if k == used else None for k, ct in enumerate(cotangents)]
    support.same_bits(numpy_of(grads), list(support.vjp(op, inputs, only)))


@pytest.mark.parametrize("op", WITHOUT_VJP, ids=by_name)
def test_what_has_no_derivative_says_so(op, rng):
    inputs, _ = problem(op, rng, (3,))
    made = call(op, tensors(inputs, requires_grad=True))
    with pytest.raises(RuntimeError, match=f"{op.name} has no derivative: .*detach its inputs"):
        made[0].sum().backward()
    with torch.no_grad():
        assert not call(op, tensors(inputs, requires_grad=True))[0].requires_grad


def test_what_was_saved_may_not_change(rng):
    value, scale = tensors(rng.uniform(1, 2, (2, 5)))
    scale.requires_grad_()
    made = rt.normal_log_prob(value, 0.0, scale)
    value += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        made.sum().backward()


def test_what_was_saved_may_lie_elsewhere_in_between(rng):
    x = torch.from_numpy(rng.standard_normal(5)).requires_grad_()
    packed = []

    def pack(saved):
        packed.append(saved.shape)
        return saved.tolist()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: torch.tensor(saved, dtype=x.dtype)):
        made = rt.normal_log_prob(x, 0.5, 2.0)
    (grad,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(grad, -(x.detach() - 0.5) / 4)
    assert packed == [x.shape]


def test_a_checkpoint_runs_the_op_again(rng):
    from torch.utils.checkpoint import checkpoint

    x = torch.from_numpy(rng.standard_normal(5)).requires_grad_()
    made = checkpoint(lambda x: rt.normal_log_prob(x, 0.5, 2.0), x, use_reentrant=False)
    (grad,) = torch.autograd.grad(made.sum(), x)
    torch.testing.assert_close(grad, -(x.detach() - 0.5) / 4)


# ---- noise

DRAWING = [op for op in WITH_VJP if any(o.drawable for o in op.inputs)]
DRAWS = {
    "of arrays": lambda key, index: rp.random.Draw(key, index),
    "of a tensor": lambda key, index: rp.random.Draw(key, torch.from_numpy(index)),
    "of torch": lambda key, index: rt.Draw(key, torch.from_numpy(index)),
    "of torch, its key a tensor": lambda key, index: rt.Draw(torch.tensor(key - 2**64), torch.from_numpy(index)),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("op", DRAWING, ids=by_name)
def test_noise_is_drawn_forward_and_backward(op, kind, rng, dtype):
    inputs, cotangents = problem(op, rng, (5,), dtype=dtype)
    key, index = 2**63 + 5, np.array([4, 0, 7, 1, 1])
    draw = rp.random.Draw(key, index)
    given = tensors(inputs[1:], requires_grad=True)
    made = call(op, [DRAWS[kind](key, index.copy()), *given])
    support.same_bits(numpy_of(made), list(support.as_tuple(op(draw, *inputs[1:]))))
    grads = torch.autograd.grad(made, given, tensors(cotangents))
    support.same_bits(numpy_of(grads), list(op.vjp(draw, *inputs[1:], *cotangents)[1:]))


def test_the_index_of_a_draw_may_change_afterwards(rng):
    index, scale = torch.arange(5), torch.ones(5, requires_grad=True)
    made = rt.normal_transform(rt.Draw(3, index), 0.0, scale)
    expected = made.detach().clone()
    index.zero_()
    (grad,) = torch.autograd.grad(made.sum(), scale)
    assert torch.equal(grad, expected)


def test_a_draw_that_is_none():
    with pytest.raises(TypeError, match=r"noise: the index of the Draw must be an int64 tensor, got ndarray"):
        rt.normal_transform(rt.Draw(1, np.arange(3)), 0.0, torch.ones(3))
    with pytest.raises(TypeError, match=r"the index of the Draw must be torch.int64, got torch.float32"):
        rt.normal_transform(rt.Draw(1, torch.zeros(3)), 0.0, torch.ones(3))
    with pytest.raises(TypeError, match="loc must be a tensor or a number, got a Draw"):
        rt.normal_transform(0.0, rt.Draw(1, torch.arange(3)), torch.ones(3))
    with pytest.raises(ValueError, match="index must be >= 0, got -1"):
        rt.normal_transform(rt.Draw(1, torch.tensor([-1])), 0.0, torch.ones(1))
    with pytest.raises(ValueError, match=r"Draw: key must be in \[0, 2\*\*64\), got -1"):
        rt.normal_transform(rt.Draw(-1, torch.arange(3)), 0.0, torch.ones(3))


def test_an_index_of_any_layout():
    index = torch.arange(12).reshape(3, 4).mT
    for numbers in (index, index.contiguous(), index.int(), index[:0]):
        made = rt.normal_transform(rt.Draw(5, numbers), 0.0, torch.ones(()))
        expected = rp.normal_transform(rp.random.Draw(5, numbers.numpy()), 0.0, np.float32(1))
        support.same_bits(made.numpy(), expected)


# ---- factors


def test_a_matrix_without_a_factor():
    a = EYE.expand(4, 3, 3).clone()
    a[2, 1, 1] = -1
    with pytest.raises(torch.linalg.LinAlgError, match=r"in 1 of 4 events: \[2\] \(leading minor 2\)") as caught:
        rt.cholesky(a)
    assert caught.value.__cause__.info.tolist() == [0, 0, 2, 0]
    assert rt.cholesky(a, check=False)[2].isnan().any()
    scale_tril, info = rt.cholesky_ex(a)
    assert info.tolist() == [0, 0, 2, 0]
    assert info.dtype == torch.int32
    assert torch.equal(scale_tril[0], EYE)
    a[2, 1, 1] = 0
    with pytest.warns(RuntimeWarning, match="1 of 4 matrices were tried again"):
        assert rt.cholesky(a, jitter=1e-6).isfinite().all()


def test_factors_have_the_gradient_of_torch(rng):
    a = torch.from_numpy(support.sample_inputs(rp.cholesky_ex, rng, (5,), 4)[0]).requires_grad_()
    ct = torch.from_numpy(rng.standard_normal((5, 4, 4)))
    for ours in (rt.cholesky(a), rt.cholesky(a, check=False), rt.cholesky_ex(a).scale_tril):
        theirs = torch.linalg.cholesky(a)
        torch.testing.assert_close(ours, theirs)
        pulled = [torch.autograd.grad(made, a, ct)[0] for made in (ours, theirs)]
        torch.testing.assert_close(*pulled)
    assert not rt.cholesky_ex(a).info.requires_grad


# ---- in place


def test_adam_updates_in_place_and_autograd_is_told(rng):
    given = tensors(rng.uniform(1, 2, (4, 5)))
    arrays = [x.numpy().copy() for x in given]
    assert rt.adam_step(*given, **HYPER) is None
    rp.adam_step(*arrays, **HYPER)
    support.same_bits(numpy_of(given), arrays)
    assert [x._version for x in given] == [1, 0, 1, 1]
    assert rt.adam_step(*given[:2], m=given[2], v=given[3], **HYPER) is None
    with torch.inference_mode():
        free = [torch.ones(3) for _ in given]  # which counts no versions
        rt.adam_step(*free, **HYPER)
        assert (free[0] < 1).all()


def test_an_update_that_cannot_be():
    x = torch.zeros(4)
    leaf = torch.nn.Parameter(x.clone())
    with pytest.raises(RuntimeError, match=r"param is updated in place and requires grad; call it under torch.no_grad"):
        rt.adam_step(leaf, x, x.clone(), x.clone(), **HYPER)
    with torch.no_grad():
        rt.adam_step(leaf, x + 1, x.clone(), x.clone(), **HYPER)
    assert (leaf < 0).all()
    with pytest.raises(ValueError, match="share memory"):
        rt.adam_step(torch.zeros(1).expand(4), x, x.clone(), x.clone(), **HYPER)
    with pytest.raises(TypeError, match="adam_step takes 4 arrays"):
        rt.adam_step(x, x, **HYPER)


# ---- what is refused

X = torch.zeros(3)
REFUSED = {
    "dtypes": ((X, X.double(), X), TypeError, r"value is torch.float32 and loc is torch.float64; they must have one"),
    "half": ((X.half(), X, X), TypeError, r"value must be torch.float32 or torch.float64, got torch.float16; convert"),
    "bfloat16": ((X, X.bfloat16(), X), TypeError, r"loc must be torch.float32 or torch.float64, got torch.bfloat16"),
    "integers": ((X, X, X.int()), TypeError, r"scale must be torch.float32 or torch.float64, got torch.int32"),
    "complex": ((X, X, X.cfloat()), TypeError, r"scale must be torch.float32 or torch.float64, got torch.complex64$"),
    "sparse": ((X.to_sparse(), X, X), TypeError, r"value must be a dense tensor, .*sparse_coo; convert it with"),
    "devices": ((X, X.to("meta"), X), TypeError, r"value is on cpu and loc on meta; they must be on one device"),
    "arrays": ((X.numpy(), X, X), TypeError, "value must be a tensor or a number, got ndarray"),
    "strings": ((X, "x", X), TypeError, "loc must be a tensor or a number, got str"),
    "None": ((X, X, None), TypeError, "scale must be a tensor or a number, got NoneType"),
    "shapes": ((X, X[:2], X), ValueError, r"batch shapes do not broadcast: value \(3,\), loc \(2,\), scale \(3,\)"),
    "too few": ((X, X), TypeError, "normal_log_prob takes 3 arrays"),
    "too many": ((X, X, X, X), TypeError, "normal_log_prob takes 3 arrays"),
}


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, requires_grad):
    args, error, words = REFUSED[name]
    real = [x for x in args if isinstance(x, torch.Tensor) and x.dtype.is_floating_point]
    for x in real:
        x.requires_grad_(requires_grad)
    try:
        with pytest.raises(error, match=words):
            rt.normal_log_prob(*args)
    finally:
        for x in real:
            x.requires_grad_(False)


def test_keywords_that_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword 'out'; it takes value, loc, scale"):
        rt.normal_log_prob(X, X, X, out=X)
    with pytest.raises(TypeError, match="normal_log_prob got two values for value"):
        rt.normal_log_prob(X, X, X, value=X)
    with pytest.raises(ValueError, match="diagonal must be one of 'exp', 'softplus'"):
        rt.tril_from_vector(X, diagonal="cosh")
    with pytest.raises(ValueError, match=r"scale_tril must have shape \(\.\.\., d, d\)"):
        rt.normal_tril_entropy(torch.zeros(3, 2))


def test_tensors_of_meta_have_shapes_alone():
    made = rt.normal_tril_transform_and_log_prob(*[torch.empty(s, device="meta") for s in [(5, 3), (3,), (5, 3, 3)]])
    assert [(x.device.type, tuple(x.shape)) for x in made] == [("meta", (5, 3)), ("meta", (5,))]


# ---- autocast


def test_autocast_computes_in_float32(rng):
    value, loc = (torch.from_numpy(rng.standard_normal(5)).bfloat16().requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = rt.normal_log_prob(value, loc, 2.0)
        mixed = rt.normal_log_prob(value.float(), loc, 2.0)
        assert rt.normal_log_prob(value.double(), 0.0, 2.0).dtype == torch.float64
    assert made.dtype == torch.linalg.vector_norm(value.float()).dtype == torch.float32
    expected = rt.normal_log_prob(value.float(), loc.float(), 2.0)
    assert torch.equal(made, expected)
    assert torch.equal(mixed, expected)
    grads = [torch.autograd.grad(x.sum(), (value, loc)) for x in (made, expected)]
    assert all(map(torch.equal, *grads))
    assert grads[0][0].dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"value must be torch.float32 or torch.float64, got torch.bfloat16"):
        rt.normal_log_prob(value, loc, 2.0)


# ---- transforms


def log_prob(x):
    return rt.normal_log_prob(x, 0.5, 2.0)


TRANSFORMS = {
    "grad": lambda x: torch.func.grad(lambda x: log_prob(x).sum())(x),
    "vmap": lambda x: torch.func.vmap(log_prob)(x),
    "jvp": lambda x: torch.func.jvp(log_prob, (x,), (x,)),
    "vjp": lambda x: torch.func.vjp(log_prob, x),
    "jacfwd": lambda x: torch.func.jacfwd(log_prob)(x),
    "jacrev": lambda x: torch.func.jacrev(log_prob)(x),
    "hessian": lambda x: torch.func.hessian(log_prob)(x),
}


# Forward mode of torch 2.13 compiles its decompositions when it is first used.
of_torch = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@of_torch
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_torch_func_raise(name):
    with pytest.raises(RuntimeError, match=r"normal_log_prob runs compiled kernels, which transforms of torch.func"):
        TRANSFORMS[name](X)


@of_torch
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_tangents_are_never_dropped(mode):
    with mode(), forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="normal_log_prob has no forward-mode derivative"):
            log_prob(forward_ad.make_dual(X, X + 1))
        assert torch.equal(log_prob(X), log_prob(X))  # without a tangent


def test_a_second_derivative_raises():
    x = torch.ones(3, requires_grad=True)
    (grad,) = torch.autograd.grad(log_prob(x).sum(), x, create_graph=True)  # whose cotangent is a constant
    torch.testing.assert_close(grad, -(x.detach() - 0.5) / 4)
    with pytest.raises(RuntimeError, match="normal_log_prob has no second derivative"):
        (grad**2).sum().backward()
    with pytest.raises(RuntimeError, match="normal_log_prob has no second derivative"):
        torch.autograd.functional.hessian(lambda x: log_prob(x).sum(), X)
    weight = torch.ones(3, requires_grad=True)
    (grad,) = torch.autograd.grad((weight * log_prob(x)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="normal_log_prob has no second derivative"):
        grad.sum().backward()


def test_jacobians_of_reverse_mode(rng):
    x = torch.from_numpy(rng.standard_normal(4))
    made = torch.autograd.functional.jacobian(log_prob, x)
    torch.testing.assert_close(made, torch.diag(-(x - 0.5) / 4))


BATCHED = {
    "jacobian": lambda x: torch.autograd.functional.jacobian(log_prob, x, vectorize=True),
    "grad": lambda x: torch.autograd.grad(log_prob(x), x, torch.eye(3), is_grads_batched=True),
    "vmap": lambda x: torch.func.vmap(functools.partial(torch.autograd.grad, log_prob(x), x))(torch.eye(3)),
}


@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_of_cotangents_is_refused(name):
    with pytest.raises(RuntimeError, match=r"normal_log_prob takes one cotangent at a time: .* vectorize=False"):
        BATCHED[name](torch.ones(3, requires_grad=True))


def test_torch_has_the_private_functions_that_the_fast_path_asks():
    eager = importlib.import_module("reparam.torch._eager")
    assert eager.transforming is torch._C._are_functorch_transforms_active
    assert eager.modes is torch._C._len_torch_dispatch_stack


@of_torch
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_without_them_nothing_is_computed_wrongly(name, monkeypatch):
    functions = importlib.import_module("reparam.torch._functions")
    monkeypatch.setattr(functions, "transforming", lambda: False)
    monkeypatch.setattr(functions, "modes", lambda: 1)
    x = torch.ones(3, requires_grad=True)
    (grad,) = torch.autograd.grad(log_prob(x).sum(), x)
    torch.testing.assert_close(grad, -(x.detach() - 0.5) / 4)
    if name == "vmap":
        assert torch.equal(TRANSFORMS[name](X), log_prob(X))
    else:
        with pytest.raises((RuntimeError, NotImplementedError)):
            TRANSFORMS[name](X)


# ---- the module

STAND_INS = {
    "missing": (
        "sys.modules['torch'] = None",
        'reparam.torch needs PyTorch 2.13 or newer: pip install "reparam[torch]"',
    ),
    "too old": (
        "import types; sys.modules['torch'] = types.SimpleNamespace(__version__='2.9.1+cpu')",
        'reparam.torch needs PyTorch 2.13 or newer, found 2.9.1+cpu: pip install -U "reparam[torch]"',
    ),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_missing_framework_is_said_in_one_line(name):
    script, words = STAND_INS[name]
    code = f"""
    import sys
    {script}
    import reparam as rp
    try:
        rp.torch
    except ImportError as error:
        print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{words}\n"


def test_the_package_alone_imports_no_framework():
    code = "import sys, reparam; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
