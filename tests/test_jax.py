# SPDX-License-Identifier: MIT
"""The ops inside JAX: the bits of NumPy's calls, gradients by their vjp, every transformation."""

import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs jax: pip install jax")
pytest.importorskip("reparam._xla", reason="needs the module for JAX: REPARAM_XLA=1 pip install .")

import jax.numpy as jnp  # noqa: E402

import reparam as rp  # noqa: E402
import reparam.jax as rj  # noqa: E402
from support import (  # noqa: E402
    OPS,
    as_tuple,
    extents_of,
    keyword_extents,
    same_bits,
    sample_cotangents,
    sample_inputs,
    variants,
)  # fmt: skip

MADE = [op for op in OPS if hasattr(rj, op.name) and op.name != "normal"]
WITH_VJP = [op for op in MADE if op.vjp is not None]
PACKABLE = [op for op in MADE if op.packable]
DRAWABLE = [op for op in MADE if any(o.drawable for o in op.inputs)]
TRIL = np.tril_indices


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Both types, float64 as it is switched on in JAX."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def of(op):
    return getattr(rj, op.name)


def problem(op, dtype, batch=(3, 5), d=4, **options):
    """Inputs that broadcast: each has all batch dims, the last one alone, a dim of 1, or none, in turn."""
    rng = np.random.default_rng(len(op.name))
    inputs = sample_inputs(op, rng, batch, d, dtype, **options)
    cut = [lambda x: x, lambda x: x[0], lambda x: x[:, :1], lambda x: x[0, 0]]
    inputs = [np.ascontiguousarray(cut[k % 4](x)) for k, x in enumerate(inputs)]
    return inputs, sample_cotangents(op, rng, full_batch(op, inputs), d, dtype)


def full_batch(op, inputs):
    return np.broadcast_shapes(*(x.shape[: x.ndim - o.event_rank] for o, x in zip(op.inputs, inputs, strict=True)))


def real_inputs(op, inputs):
    return [k for k, o in enumerate(op.inputs) if o.item == "real"]


def with_cotangents(op, cotangents):
    """A scalar function of the inputs whose gradient is the op's vjp of these cotangents."""

    def total(*inputs, **keywords):
        outputs = [
            y for o, y in zip(op.outputs, as_tuple(of(op)(*inputs, **keywords)), strict=True) if o.item == "real"
        ]
        masks = [
            jnp.tril(ct) if o.kind == "tril" else ct for o, ct in zip(op.real(op.outputs), cotangents, strict=True)
        ]
        return sum((y * ct).sum() for y, ct in zip(outputs, masks, strict=True))

    return total


def close(actual, expected, dtype, scale=1.0):
    for a, e in zip(as_tuple(actual), as_tuple(expected), strict=True):
        assert a.shape == e.shape
        assert a.dtype == e.dtype
        size = max(1.0, np.abs(np.asarray(e)).max(initial=0.0))
        np.testing.assert_allclose(a, e, rtol=0, atol=scale * size * (1e-4 if dtype == "float32" else 1e-11))


# ---- the bits of NumPy's calls


@pytest.mark.parametrize("op", MADE, ids=lambda op: op.name)
def test_values_have_the_bits_of_numpy(op, dtype):
    inputs, _ = problem(op, dtype)
    for attributes in variants(op):
        expected = op(*inputs, **attributes)
        same_bits(as_tuple(of(op)(*inputs, **attributes)), as_tuple(expected))
        compiled = jax.jit(lambda *args, chosen=attributes: of(op)(*args, **chosen))
        same_bits(as_tuple(compiled(*inputs)), as_tuple(expected))


@pytest.mark.parametrize("op", WITH_VJP, ids=lambda op: op.name)
def test_gradients_have_the_bits_of_the_vjp(op, dtype):
    inputs, cotangents = problem(op, dtype)
    for attributes in variants(op):
        first = [op(*inputs, **attributes)[0]] if op.vjp_from == "outputs" else inputs
        expected = as_tuple(op.vjp(*first, *cotangents, **attributes))
        outputs, pull = jax.vjp(lambda *args, chosen=attributes: of(op)(*args, **chosen), *inputs)
        given = iter(cotangents)
        cts = [
            jnp.asarray(next(given)) if o.item == "real" else np.zeros(y.shape, jax.dtypes.float0)
            for o, y in zip(op.outputs, as_tuple(outputs), strict=True)
        ]
        found = pull(type(outputs)(*cts) if hasattr(outputs, "_fields") else tuple(cts) if len(cts) > 1 else cts[0])
        same_bits(found, expected)


@pytest.mark.parametrize("op", PACKABLE, ids=lambda op: op.name)
def test_packed_factors(op, dtype):
    inputs, cotangents = problem(op, dtype)
    flat = [x[(..., *TRIL(x.shape[-1]))] if o.kind == "tril" else x for o, x in zip(op.inputs, inputs, strict=True)]
    same_bits(as_tuple(of(op)(*flat, packed=True)), as_tuple(op(*flat, packed=True)))
    if op.vjp is None:
        return
    cotangents = [
        x[(..., *TRIL(x.shape[-1]))] if o.kind == "tril" else x
        for o, x in zip(op.real(op.outputs), cotangents, strict=True)
    ]
    _, pull = jax.vjp(lambda *args: as_tuple(of(op)(*args, packed=True)), *flat)
    same_bits(pull(tuple(cotangents)), as_tuple(op.vjp(*flat, *cotangents, packed=True)))


@pytest.mark.parametrize("op", DRAWABLE, ids=lambda op: op.name)
def test_noise_is_drawn_from_a_key(op, dtype):
    inputs, cotangents = problem(op, dtype)
    index = np.arange(15).reshape(3, 5) + 2**31
    sizes = keyword_extents(op, extents_of(op, 4)) if not any(o.name == "log_prob" for o in op.inputs) else {}
    sizes = dict.fromkeys(op.forward_pass.free_symbols, 5) | sizes
    expected = op(rp.random.Draw(2**32 * 7 + 9, index), *inputs[1:], **sizes)
    key = jnp.array([7, 9], np.uint32)

    def call(key, index, *rest):
        return as_tuple(of(op)(rj.Draw(key, index), *rest, **sizes))

    same_bits(call(key, index, *inputs[1:]), as_tuple(expected))
    same_bits(
        jax.jit(call)(jax.random.wrap_key_data(key), jnp.asarray(index, np.uint32), *inputs[1:]), as_tuple(expected)
    )
    if op.vjp is not None:
        found = jax.vjp(lambda *rest: call(key, index, *rest), *inputs[1:])[1](tuple(cotangents))
        expected = op.vjp(rp.random.Draw(2**32 * 7 + 9, index), *inputs[1:], *cotangents)
        same_bits(found, expected[1:])


@pytest.mark.parametrize("shape", [(), (3,), (7, 100), (0, 3)])
def test_normal_has_the_bits_of_rp_random(shape, dtype):
    expected = rp.random.normal(shape, key=5, dtype=dtype)
    same_bits(rj.normal(shape, key=5), expected)
    same_bits(rj.normal(shape, key=jax.random.key(5)), expected)
    same_bits(jax.jit(lambda key: rj.normal(shape, key=key))(jax.random.PRNGKey(5)), expected)
    same_bits(rj.normal(shape, key=jax.random.key(5), dtype=dtype), expected)


@pytest.mark.parametrize("d", [0, 1])
@pytest.mark.parametrize("batch", [(), (0,), (3, 0), (0, 1)])
@pytest.mark.parametrize("op", WITH_VJP, ids=lambda op: op.name)
def test_nothing_to_compute(op, batch, d):
    rng = np.random.default_rng(0)
    inputs, cotangents = sample_inputs(op, rng, batch, d, "float32"), sample_cotangents(op, rng, batch, d, "float32")
    same_bits(as_tuple(of(op)(*inputs)), as_tuple(op(*inputs)))
    first = [op(*inputs)[0]] if op.vjp_from == "outputs" else inputs
    found = jax.grad(with_cotangents(op, cotangents), argnums=tuple(real_inputs(op, inputs)))(*inputs)
    same_bits(found, as_tuple(op.vjp(*first, *cotangents)))


def test_sums_over_no_terms_are_zero():
    value, loc, scale_tril = np.zeros((0, 3), "f4"), np.zeros((1, 3), "f4"), np.eye(3, dtype="f4")
    found = jax.grad(lambda *args: rj.normal_tril_log_prob(value, *args).sum(), argnums=(0, 1))(loc, scale_tril)
    same_bits(found, (np.zeros((1, 3), "f4"), np.zeros((3, 3), "f4")))


# ---- transformations


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.parametrize("op", WITH_VJP, ids=lambda op: op.name)
def test_vmap_is_a_loop(op, dtype):
    inputs, cotangents = problem(op, dtype)
    n, rng = 3, np.random.default_rng(1)
    slopes = jax.grad(with_cotangents(op, cotangents), argnums=tuple(real_inputs(op, inputs)))
    functions = [jax.jit(lambda *args: as_tuple(of(op)(*args))), jax.jit(slopes)]
    for mapped in {1, 2 ** len(inputs) - 2 or 1}:  # the first operand, or all but that
        axes = [(0, -1, 1)[k % 3] if mapped >> k & 1 else None for k in range(len(inputs))]
        axes = [None if a is None else min(a, x.ndim) for a, x in zip(axes, inputs, strict=True)]
        several = [
            x if axis is None else np.stack([x * x.dtype.type(f) for f in rng.uniform(0.9, 1.1, n)], axis)
            for x, axis in zip(inputs, axes, strict=True)
        ]
        for f in functions:
            found = jax.jit(jax.vmap(f, in_axes=tuple(axes)))(*several)
            loop = [
                f(*(x if axis is None else np.take(x, k, axis) for x, axis in zip(several, axes, strict=True)))
                for k in range(n)
            ]
            same_bits(found, tuple(np.stack(x) for x in zip(*loop, strict=True)))


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
@pytest.mark.parametrize("op", WITH_VJP, ids=lambda op: op.name)
def test_grad_of_vmap_adds_what_is_shared(op, dtype):
    inputs, cotangents = problem(op, dtype, batch=(3, 5))
    n = 3
    several = [x if k % 2 else np.stack([x] * n) for k, x in enumerate(inputs)]
    axes = tuple(None if k % 2 else 0 for k in range(len(inputs)))
    where = tuple(real_inputs(op, inputs))
    total = with_cotangents(op, cotangents)
    found = jax.jit(jax.grad(lambda *args: jax.vmap(total, axes)(*args).sum(), argnums=where))(*several)
    one = jax.grad(total, argnums=where)(*inputs)
    expected = [x * n if k % 2 else jnp.stack([x] * n) for k, x in zip(where, one, strict=True)]
    close(tuple(found), tuple(expected), dtype)


def test_nested_vmap_shares_a_factor():
    rng = np.random.default_rng(0)
    value, loc = rng.standard_normal((2, 3, 5, 4)).astype("f4"), rng.standard_normal((3, 4)).astype("f4")
    scale_tril = np.linalg.cholesky(np.eye(4) + 0.5).astype("f4")
    f = jax.vmap(jax.vmap(rj.normal_tril_log_prob, (0, 0, None)), (0, None, None))
    same_bits(f(value, loc, scale_tril), rp.normal_tril_log_prob(value, loc[:, None], scale_tril))
    text = jax.jit(f).lower(value, loc, scale_tril).compile().as_text()
    assert "f32[1,1,1,4,4]" in text  # the operand of the call: one factor


def test_jacobian_by_reverse_mode():
    scale_tril = np.linalg.cholesky(np.eye(3) + 0.5).astype("f4")
    noise, loc = np.arange(3, dtype="f4"), np.zeros(3, "f4")
    jacobian = jax.jacrev(lambda x: rj.normal_tril_transform(x, loc, scale_tril))(noise)
    np.testing.assert_allclose(jacobian, scale_tril, rtol=1e-6)


def test_keys_under_vmap():
    keys, index = jax.random.split(jax.random.key(3), 4), jnp.arange(5)
    loc, scale = jnp.zeros((4, 5, 2)), jnp.ones((5, 2))

    def draw(key, loc, scale):
        return rj.normal_diag_transform(rj.Draw(key, index), loc, scale)

    for axes in ((0, 0, None), (0, None, None), (None, 0, None)):
        given = [
            x if a == 0 else x[0] if k < 2 else x for k, (x, a) in enumerate(zip((keys, loc, scale), axes, strict=True))
        ]
        found = jax.jit(jax.vmap(draw, axes))(*given)
        loop = [draw(*(x[k] if a == 0 else x for x, a in zip(given, axes, strict=True))) for k in range(4)]
        same_bits(found, jnp.stack(loop))
    weight = jnp.arange(40.0).reshape(4, 5, 2)
    slopes = jax.vmap(jax.grad(lambda key, scale, w: (draw(key, loc[0], scale) * w).sum(), 1), (0, None, 0))
    loop = [jax.grad(lambda scale, k=k: (draw(keys[k], loc[0], scale) * weight[k]).sum())(scale) for k in range(4)]
    same_bits(slopes(keys, scale, weight), jnp.stack(loop))


def test_keys_nested_in_the_middle():
    keys = jax.random.split(jax.random.key(3), (2, 3))
    one = jax.vmap(lambda key, x: rj.normal_transform(rj.Draw(key, jnp.arange(4)), x, 2.0))
    found = jax.vmap(one, (1, 0))(keys, jnp.zeros((3, 2, 4)))
    loop = [
        [rj.normal_transform(rj.Draw(keys[j, i], np.arange(4)), np.zeros(4, "f4"), 2.0) for j in range(2)]
        for i in range(3)
    ]
    same_bits(found, jnp.array(loop))


def test_a_cached_function_is_asked_for_other_gradients():
    rng = np.random.default_rng(0)
    args = [rng.standard_normal((5, 3)).astype("f4"), np.zeros(3, "f4"), np.tile(np.eye(3, dtype="f4"), (5, 1, 1))]
    f = jax.jit(rj.normal_tril_transform_and_log_prob)
    cts = [np.ones((5, 3), "f4"), np.ones(5, "f4")]
    for outputs in ((0,), (1,), (0, 1), (1,)):
        given = [ct if k in outputs else None for k, ct in enumerate(cts)]
        expected = rp.normal_tril_transform_and_log_prob.vjp(*args, *given)
        for wrt in ((0, 1), (2,), (0, 1, 2), (1, 2), (0,)):
            slopes = jax.grad(lambda *x, of=outputs: sum(f(*x)[k].sum() for k in of), argnums=wrt)
            same_bits(slopes(*args), [expected[k] for k in wrt])
            same_bits(jax.jit(slopes)(*args), [expected[k] for k in wrt])


def test_constants_have_no_cotangent():
    loc, scale_tril = jnp.zeros(4), np.eye(4, dtype="f4")
    shape = jax.ShapeDtypeStruct((8, 4), np.float32)
    text = str(jax.make_jaxpr(jax.grad(lambda x: rj.normal_tril_log_prob(x, loc, scale_tril).sum()))(shape))
    # Of value, loc, scale_tril, cotangent, log_prob, ct_value, ct_loc, ct_scale_tril the sixth operand alone.
    assert re.findall(r"'wanted', np.int64\((\d+)\)", text) == [str(1 << 3), str(1 << 5)]


def test_a_cotangent_of_zero_is_not_made():
    """The op has two outputs, and one of them takes part."""
    noise, loc, scale_tril = np.ones((6, 3), "f4"), np.zeros((6, 3), "f4"), np.eye(3, dtype="f4")
    found = jax.grad(lambda s: rj.normal_tril_transform_and_log_prob(noise, loc, s)[1].sum())(scale_tril)
    ct = rp.normal_tril_transform_and_log_prob.vjp(noise, loc, scale_tril, None, np.ones(6, "f4"))[2]
    same_bits(found, ct)


def test_control_flow_and_checkpoint():
    a = jnp.eye(3) * 2 + 0.5

    def step(x, _):
        factor = jax.checkpoint(rj.cholesky)(x)
        return factor @ factor.T + jnp.eye(3) * 0.1, rj.normal_tril_entropy(factor)

    def reference(x, _):
        factor = jnp.linalg.cholesky(x)
        entropy = jnp.log(jnp.diagonal(factor)).sum() + 1.5 * (1 + np.log(2 * np.pi))
        return factor @ factor.T + jnp.eye(3) * 0.1, entropy

    both = [
        jax.jit(jax.value_and_grad(lambda x, f=f: jax.lax.scan(f, x, None, 5)[1].sum()))(a) for f in (step, reference)
    ]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-6)
    np.testing.assert_allclose(both[0][1], both[1][1], atol=1e-5)


@pytest.mark.parametrize(
    "transform",
    [jax.hessian, lambda f: lambda x: jax.jvp(f, (x,), (x,)), lambda f: lambda x: jax.linearize(f, x)[1](x)],
)
def test_forward_mode_is_refused(transform):
    with pytest.raises(TypeError, match="custom_vjp"):
        transform(lambda x: rj.normal_tril_entropy(x))(jnp.eye(3))


def test_ops_without_a_vjp_have_no_gradient():
    args = [jnp.zeros(3), jnp.eye(3), jnp.zeros(3), jnp.eye(3)]
    with pytest.raises(NotImplementedError, match="normal_tril_natural_step has no derivative"):
        jax.grad(lambda x: rj.normal_tril_natural_step(x, *args[1:])[0].sum())(args[0])


def test_a_gradient_has_no_gradient():
    gradient = jax.grad(lambda x: rj.normal_tril_log_prob(x, jnp.zeros(2), jnp.eye(2)))
    with pytest.raises(NotImplementedError, match="normal_tril_log_prob has no second derivative"):
        jax.jacrev(gradient)(jnp.ones(2))


def test_streams_are_not_negative_and_traced_ones_wrap_around():
    def draw(index):
        return rj.normal_tril_transform(rj.Draw(7, index), jnp.zeros((1, 3)), jnp.eye(3))

    for index in ([-1], np.array([-1]), jnp.array([-1])):
        with pytest.raises(ValueError, match="index must be >= 0, got -1"):
            draw(index)
    expected = rp.random.normal(3, key=7, stream=2**64 - 5, dtype="float32")
    same_bits(jax.jit(draw)(jnp.array([-5]))[0], expected)


def test_an_int_key_is_no_argument_of_jit():
    def draw(noise):
        return rj.normal_tril_transform(noise, jnp.zeros((1, 3)), jnp.eye(3))

    same_bits(jax.jit(draw)(rj.Draw(jax.random.key(7), jnp.array([0]))), draw(rj.Draw(7, [0])))
    with pytest.raises(TypeError, match=r"where an int is traced, give jax.random.key\(it\)"):
        jax.jit(draw)(rj.Draw(7, jnp.array([0])))


def test_an_export_names_the_foreign_call():
    allowed = [jax.export.DisabledSafetyCheck.custom_call("reparam")]
    exported = jax.export.export(jax.jit(rj.cholesky), disabled_checks=allowed)(jnp.eye(3))
    same_bits(exported.call(4 * jnp.eye(3)), 2 * np.eye(3, dtype="f4"))


# ---- failure, threads, types


def test_a_failed_matrix_is_nan_alone():
    a = np.stack([np.eye(3), -np.eye(3), [[1, 9, 9], [0, 1, 9], [0, 0, 1]]]).astype("f4")
    found = jax.jit(rj.cholesky)(a)
    same_bits(found, rp.cholesky(a, check=False))
    reference = jnp.linalg.cholesky(jnp.tril(a) + jnp.swapaxes(jnp.tril(a, -1), -1, -2))
    assert (np.isnan(found).any((-1, -2)) == np.isnan(reference).any((-1, -2))).all()
    same_bits(rj.cholesky_ex(a).info, np.array([0, 1, 0], np.int32))
    slopes = jax.grad(lambda x: rj.cholesky(x).sum())(a)
    assert (np.isnan(slopes).all((-1, -2)) == [False, True, False]).all()


def test_cholesky_has_the_gradient_of_jax():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 4, 4))
    a, weight = root @ root.swapaxes(-1, -2) + np.eye(4), rng.standard_normal((5, 4, 4))
    with jax.enable_x64(True):
        ours, theirs = [jax.grad(lambda x, f=f: (f(x) * weight).sum())(a) for f in (rj.cholesky, jnp.linalg.cholesky)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_several_threads_at_once():
    rng = np.random.default_rng(0)
    a = np.eye(8, dtype="f4") + 0.1 * np.ones((20_000, 8, 8), "f4") * rng.uniform(0, 1, (20_000, 1, 1)).astype("f4")
    f = jax.jit(lambda x: rj.normal_tril_entropy(rj.cholesky(x)))
    expected, found = rp.normal_tril_entropy(rp.cholesky(a)), {}

    def work(k):
        found[k] = [np.asarray(f(a)) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for results in found.values():
        for x in results:
            same_bits(x, expected)
    assert len(found) == 4


def test_the_number_of_threads_is_told_to_compiled_functions():
    a = np.broadcast_to(np.eye(8, dtype="f4"), (50_000, 8, 8))
    f = jax.jit(rj.cholesky)
    f(a).block_until_ready()
    jobs = rp._core.thread_stats()["jobs"]
    rp.set_num_threads(1)
    f(a).block_until_ready()
    assert rp._core.thread_stats()["jobs"] == jobs
    rp.set_num_threads(2)
    f(a).block_until_ready()
    assert rp._core.thread_stats()["jobs"] > jobs
    rp.set_num_threads(None)


def test_weak_numbers_take_the_type_of_the_arrays(dtype):
    value = np.ones(3, dtype)
    same_bits(rj.normal_log_prob(value, 0, 2.5), rp.normal_log_prob(value, 0, 2.5))
    assert rj.normal_log_prob(0.0, 1, 2.0).dtype == dtype
    same_bits(jax.jit(lambda x: rj.normal_log_prob(value, 0.0, x))(2.5), rp.normal_log_prob(value, 0.0, 2.5))
    slope = jax.grad(lambda x: rj.normal_log_prob(value, 0.0, x).sum())(2.5)
    close(slope, np.asarray(rp.normal_log_prob.vjp(value, 0.0, np.asarray(2.5, dtype), np.ones(3, dtype))[2]), dtype)


ERRORS = [
    (
        lambda: rj.normal_tril_entropy(np.eye(3, dtype=int)),
        TypeError,
        "does not accept dtype int(32|64) for scale_tril",
    ),
    (lambda: rj.normal_tril_entropy(jnp.eye(3) > 0), TypeError, "does not accept dtype bool"),
    (lambda: rj.normal_tril_entropy(jnp.eye(3, dtype=jnp.bfloat16)), TypeError, "does not accept dtype bfloat16"),
    (lambda: rj.normal_tril_entropy([[1.0]]), TypeError, "requires ndarray or scalar arguments, got <class 'list'>"),
    (lambda: rj.normal_tril_entropy(None), TypeError, "got <class 'NoneType'> at position 0"),
    (lambda: rj.normal_tril_entropy(jnp.ones((3, 2))), ValueError, r"scale_tril must have shape \(..., d, d\)"),
    (lambda: rj.tril_solve(jnp.eye(3), jnp.ones(2)), ValueError, r"b must have shape \(..., d\) with d = 3"),
    (lambda: rj.tril_solve(jnp.ones((2, 3, 3)), jnp.ones((4, 3))), ValueError, "batch shapes do not broadcast"),
    (lambda: rj.tril_solve(jnp.eye(3)), TypeError, r"takes 2 arrays \(scale_tril, b\), got 1"),
    (
        lambda: rj.tril_solve(jnp.eye(3), jnp.ones(3), out=None),
        TypeError,
        "unexpected keyword 'out'; it takes scale_tril",
    ),
    (lambda: rj.tril_solve(jnp.eye(3), jnp.ones(3), transpose=1), TypeError, "transpose must be True or False"),
    (lambda: rj.tril_solve(jnp.eye(3), jnp.ones(3), packed=True), TypeError, "unexpected keyword 'packed'"),
    (lambda: rj.tril_solve(jnp.eye(3), rj.Draw(3, 0)), TypeError, "b must be an array, got a Draw"),
    (lambda: rj.normal_transform(rj.Draw(jnp.ones(3), 0), 0.0, 1.0), TypeError, r"must be one JAX key of two words"),
    (lambda: rj.normal_transform(rj.Draw(jax.random.key(0, impl="rbg"), 0), 0.0, 1.0), TypeError, r"got uint32\[4\]"),
    (lambda: rj.normal_transform(rj.Draw(jax.random.split(jax.random.key(0)), 0), 0.0, 1.0), TypeError, r"\[2, 2\]"),
    (lambda: rj.normal_transform(rj.Draw(3, -1), 0.0, 1.0), ValueError, "index must be >= 0"),
    (lambda: rj.normal_transform(rj.Draw(3, jnp.ones(2)), 0.0, 1.0), TypeError, "index must hold integers"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_mixed_types_are_refused_in_the_words_of_jax():
    with (
        jax.enable_x64(True),
        pytest.raises(TypeError, match="requires arguments to have the same dtypes, got float64, float32"),
    ):
        rj.tril_solve(np.eye(3), np.ones(3, "f4"))


@pytest.mark.parametrize(
    ("hide", "message"),
    [
        ("jax", 'reparam.jax needs JAX 0.8 or newer: pip install "reparam[jax]"'),
        ("reparam._xla", "this build of reparam has no kernels for JAX; from its source, REPARAM_XLA=1 pip install ."),
    ],
)
def test_what_is_missing_is_said_in_one_line(hide, message):
    script = f"import sys, reparam as rp\nsys.modules[{hide!r}] = None\ntry: rp.jax\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(message)
    assert done.stdout.count("\n") == 1


SHARDED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax, jax.numpy as jnp, numpy as np, reparam.jax as rj
from jax.sharding import Mesh, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()), ("b",))
value, scale_tril = jnp.arange(24.0).reshape(8, 3) / 24, jnp.eye(3) + 0.5 * jnp.tril(jnp.ones((3, 3)))

def f(value, scale_tril, key):
    drawn = rj.normal_tril_transform(rj.Draw(key, jnp.arange(4)), value, scale_tril)
    return rj.normal_tril_log_prob(drawn * value, jnp.zeros(3), scale_tril)

def apart(*args):
    return jnp.concatenate([f(args[0][:4], *args[1:]), f(args[0][4:], *args[1:])])

for check in (True, False):
    sharded = jax.shard_map(f, mesh=mesh, in_specs=(P("b"), P(), P()), out_specs=P("b"), check_vma=check)
    args = (value, scale_tril, jax.random.key(1))
    assert (jax.jit(sharded)(*args) == apart(*args)).all()
    found, right = [jax.jit(jax.grad(lambda *a: (g(*a) ** 2).sum(), (0, 1)))(*args) for g in (sharded, apart)]
    for a, b in zip(found, right):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)
"""


def test_shard_map_adds_cotangents_over_the_devices():
    subprocess.run([sys.executable, "-c", SHARDED], check=True)


def test_import_reparam_imports_no_jax():
    script = "import sys, reparam; assert 'jax' not in sys.modules and 'reparam._xla' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def foreign(*operands, results=((3,),), **changed):
    """The foreign call itself, whose arguments nobody has checked."""
    settings = {"op": "normal_tril_log_prob", "reverse": False, "packed": False, "keyed": False, "wanted": np.int64(8)}
    settings |= {"numbers": np.zeros(1)} | changed
    forms = [jax.ShapeDtypeStruct(shape, np.float32) for shape in results]
    return jax.block_until_ready(jax.ffi.ffi_call("reparam", forms)(*operands, **settings))


V, L, KEY = jnp.ones((3, 2)), jnp.ones((3, 2, 2)), jnp.zeros((3, 2), np.uint32)
LIES = [
    (lambda: foreign(V, V, L, op="nothing"), "there is no such op"),
    (lambda: foreign(V, V), "an operand has no buffer"),
    (lambda: foreign(V, V, L, L), "wrong number of operands"),
    (lambda: foreign(V, V, L, op="normal_tril_transform_and_log_prob", wanted=np.int64(24)), "a result has no buffer"),
    (lambda: foreign(V, V, L, results=((3,), (3,))), "wrong number of operands"),
    (lambda: foreign(V, V, L[:2]), "batch dims do not broadcast"),
    (lambda: foreign(V, V, L, results=((2,),)), "batch dims do not broadcast"),
    (lambda: foreign(V, V[:, :1], L), "event dims do not fit"),
    (lambda: foreign(V, V, L[:, :1]), "event dims do not fit"),
    (lambda: foreign(V, V, L[..., 0], packed=True), "a packed factor has no whole number of rows"),
    (lambda: foreign(V, V, jnp.ones(2)), "an operand has too few dims"),
    (lambda: foreign(V.reshape((1,) * 16 + (3, 2)), V, L), "more than 16 batch dims"),
    (lambda: foreign(V, V, L.astype(int)), "an operand must be float32 or float64"),
    (lambda: foreign(V, V, L, keyed=True), "an operand has no buffer"),
    (lambda: foreign(V, V, L, V, keyed=True), "a key is two words of 32 bits"),
    (lambda: foreign(V, V, L, KEY, keyed=True, op="normal_tril_transform"), "a stream is two words of 32 bits"),
    (
        lambda: foreign(KEY, V, L, KEY[:2], keyed=True, op="normal_tril_transform", results=((3, 2),)),
        "do not broadcast",
    ),
    (lambda: foreign(KEY, V, L, KEY, keyed=True, op="normal_tril_transform", results=((1, 2),)), "over several keys"),
    (lambda: foreign(L, V, op="tril_solve", wanted=np.int64(4), results=((3, 2),), numbers=np.zeros(0)), "numbe"),
    (lambda: foreign(V, V, V, V, op="adam_step"), "an op that updates its operands is not for XLA"),
]


@pytest.mark.parametrize(("call", "message"), LIES)
def test_the_handler_guards_the_memory(call, message):
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        call()


def test_a_signal_waits_for_the_end_of_a_compiled_call():
    """The kernels' hook for Ctrl-C would need the interpreter, which a handler may not have."""
    a = jnp.broadcast_to(jnp.eye(8), (100_000, 8, 8))
    f = jax.jit(lambda x: rj.normal_tril_entropy(rj.cholesky(x)).sum())
    expected, seen = f(a), []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        for _ in range(1000):
            assert f(a) == expected
            if len(seen) > 5:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) > 5


@pytest.mark.gpu
def test_on_a_gpu():
    """Values and gradients of the handler for CUDA, against the CPU's."""
    if not any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("needs a GPU that JAX sees")
    rng = np.random.default_rng(0)
    loc, index = rng.standard_normal((100, 4)).astype("f4"), np.arange(100)
    scale_tril = (np.eye(4) + np.tril(rng.standard_normal((100, 4, 4)), -1)).astype("f4")

    def f(key, loc, scale_tril):
        value, log_q = rj.normal_tril_transform_and_log_prob(rj.Draw(key, index), loc, scale_tril)
        return (value**2).sum() + log_q.sum()

    found = jax.jit(jax.value_and_grad(f, argnums=(1, 2)))(jax.random.key(3), loc, scale_tril)
    assert next(iter(found[0].devices())).platform == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        expected = jax.value_and_grad(f, argnums=(1, 2))(jax.random.key(3), loc, scale_tril)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
