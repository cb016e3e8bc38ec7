# SPDX-License-Identifier: MIT
"""The other ways to call an op, to the bit: value_and_vjp, wrt, cotangents of None, packed factors, noise as a Draw."""

import numpy as np
import pytest

import reparam as rp
from support import (
    OPS,
    OPS_WITH_VJP,
    as_tuple,
    extents_of,
    forward,
    keyword_extents,
    residuals,
    same_bits,
    sample_cotangents,
    sample_inputs,
    some_variants,
    vjp,
)

SIZES = [3, 8, 17]
KEY = 2**40 + 5
PACKABLE = [op for op in OPS if op.packable]
DRAWABLE = [op for op in OPS if any(o.drawable for o in op.inputs)]
OPS_FROM_INPUTS = [op for op in OPS_WITH_VJP if op.vjp_from == "inputs"]


def axis(ops):
    return pytest.mark.parametrize("op", ops, ids=lambda op: op.name)


def sizes(op):
    return SIZES if op.forward_pass.symbols else [1]


def problem(op, rng, batch_shape, d, dtype):
    return sample_inputs(op, rng, batch_shape, d, dtype), sample_cotangents(op, rng, batch_shape, d, dtype)


@axis(OPS_WITH_VJP)
def test_value_and_vjp_is_both(op, rng, backend, dtype):
    for d in sizes(op):
        inputs, cotangents = problem(op, rng, (21,), d, dtype)
        for attributes in some_variants(op):
            outputs, found = op.value_and_vjp(*inputs, *cotangents, **attributes)
            same_bits(as_tuple(outputs), forward(op, inputs, **attributes))
            same_bits(as_tuple(found), vjp(op, inputs, cotangents, **attributes))


@axis(OPS_FROM_INPUTS)
def test_value_and_vjp_sums_over_broadcast_dims(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (70,), sizes(op)[0], dtype)
    given = [inputs[0], *(x[0] for x in inputs[1:])]
    outputs, found = op.value_and_vjp(*given, *cotangents)
    same_bits(as_tuple(outputs), as_tuple(op(*given)))
    same_bits(as_tuple(found), as_tuple(op.vjp(*given, *cotangents)))
    for x, ct in zip(given, as_tuple(found), strict=True):
        assert ct.shape == x.shape


@axis(OPS_WITH_VJP)
def test_value_and_vjp_writes_out(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (9,), sizes(op)[0], dtype)
    outputs, found = op.value_and_vjp(*inputs, *cotangents)
    expected = (*as_tuple(outputs), *as_tuple(found))
    out = tuple(np.full_like(x, 7) for x in expected)
    again = op.value_and_vjp(*inputs, *cotangents, out=out)
    same_bits(out, expected)
    assert all(x is y for x, y in zip((*as_tuple(again[0]), *as_tuple(again[1])), out, strict=True))


@axis(OPS_WITH_VJP)
def test_wrt_gives_the_wanted_cotangents_and_none(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (21,), sizes(op)[1 % len(sizes(op))], dtype)
    names = [o.name for o in op.inputs]
    args = [*residuals(op, inputs), *cotangents]
    everything = as_tuple(op.vjp(*args))
    for wanted in [*((name,) for name in names), tuple(names), tuple(names[::-1])]:
        found = as_tuple(op.vjp(*args, wrt=wanted))
        both = as_tuple(op.value_and_vjp(*inputs, *cotangents, wrt=list(wanted))[1])
        for name, ct, other, exact in zip(names, found, both, everything, strict=True):
            if name in wanted:
                same_bits(ct, exact)
                same_bits(other, exact)
            else:
                assert ct is None
                assert other is None


@axis([op for op in OPS_FROM_INPUTS if len(op.inputs) > 1])
def test_wrt_with_sums_and_out(op, rng, backend, dtype):
    """The first input alone, which is broadcast: what is not wanted takes no part in a sum."""
    inputs, cotangents = problem(op, rng, (70,), sizes(op)[0], dtype)
    given, name = [inputs[0][0], *inputs[1:]], op.inputs[0].name
    exact = op.vjp(*given, *cotangents)[0]
    out = (np.empty_like(exact), *(None for _ in inputs[1:]))
    assert op.vjp(*given, *cotangents, wrt=(name,), out=out) is out
    same_bits(out[0], exact)


@axis(OPS_FROM_INPUTS)
def test_a_cotangent_of_none_is_zero(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (21,), sizes(op)[0], dtype)
    for k in range(len(cotangents)):
        zeros = [np.zeros_like(ct) if j == k else ct for j, ct in enumerate(cotangents)]
        nones = [None if j == k else ct for j, ct in enumerate(cotangents)]
        for _ in range(2):  # the second call takes the plan of the first
            same_bits(as_tuple(op.vjp(*inputs, *nones)), as_tuple(op.vjp(*inputs, *zeros)))


def pack(operands, arrays):
    return [x[(..., *np.tril_indices(x.shape[-1]))] if o.kind == "tril" else x
            for o, x in zip(operands, arrays, strict=True)]  # fmt: skip


@axis(PACKABLE)
def test_packed_factors_give_the_bits_of_dense_ones(op, rng, backend, dtype):
    real = [o for o in op.outputs if o.item == "real"]
    for d in (1, 2, *SIZES):
        inputs, cotangents = problem(op, rng, (21,), d, dtype)
        for attributes in some_variants(op):
            dense = forward(op, inputs, **attributes)
            same_bits(as_tuple(op(*pack(op.inputs, inputs), packed=True, **attributes)), pack(op.outputs, dense))
            if op.vjp is None:
                continue
            exact = pack(op.inputs, vjp(op, inputs, cotangents, **attributes))
            given = [*pack(op.inputs, inputs), *pack(real, cotangents)]
            same_bits(as_tuple(op.vjp(*given, packed=True, **attributes)), exact)
            outputs, found = op.value_and_vjp(*given, packed=True, **attributes)
            same_bits(as_tuple(outputs), pack(op.outputs, dense))
            same_bits(as_tuple(found), exact)


@axis([op for op in PACKABLE if op.vjp is not None])
def test_packed_factors_in_any_layout_and_summed(op, rng, backend, dtype):
    real = [o for o in op.outputs if o.item == "real"]
    inputs, cotangents = problem(op, rng, (70,), 5, dtype)
    shared = [x[0] if o.kind in {"tril", "vec"} else x for o, x in zip(op.inputs, inputs, strict=True)]
    exact = pack(op.inputs, as_tuple(op.vjp(*shared, *cotangents)))
    reverse = [x[..., ::-1].copy()[..., ::-1] for x in [*pack(op.inputs, shared), *pack(real, cotangents)]]
    same_bits(as_tuple(op.vjp(*reverse, packed=True)), exact)


@axis(DRAWABLE)
def test_a_draw_gives_the_bits_of_its_normals(op, rng, backend, dtype):
    """In the forward, and again in the vjp, where it has no cotangent."""
    for d in sizes(op):
        inputs, cotangents = problem(op, rng, (21,), d, dtype)
        index = rng.integers(0, 2**62, 21)
        noise, *rest = inputs
        event, extents = noise.shape[1:], extents_of(op, d)
        count = int(np.prod(event))
        normals = [rp.random.normal(count, key=KEY, stream=int(b), dtype=dtype).reshape(event) for b in index]
        drawn = (rp.random.Draw(KEY, index), *rest)
        keywords = {k: extents[k] for k in op.forward_pass.free_symbols}
        expected = as_tuple(op(np.array(normals), *rest))
        same_bits(as_tuple(op(*drawn, **keywords)), expected)
        if op.vjp is None:
            continue
        exact = as_tuple(op.vjp(np.array(normals), *rest, *cotangents))
        found = as_tuple(op.vjp(*drawn, *cotangents, **keywords))
        assert found[0] is None
        same_bits(found[1:], exact[1:])
        outputs, found = op.value_and_vjp(*drawn, *cotangents, **keywords)
        same_bits(as_tuple(outputs), expected)
        same_bits(found[1:], exact[1:])


@axis([op for op in DRAWABLE if op.vjp is not None])
def test_a_draw_broadcasts_and_depends_on_its_streams_alone(op, rng, backend, dtype):
    """One stream for a whole batch of other operands, and rows of streams in another order."""
    inputs, cotangents = problem(op, rng, (3, 7), sizes(op)[0], dtype)
    index = np.arange(7) * 10
    whole = as_tuple(op(rp.random.Draw(KEY, index), *inputs[1:]))
    order = rng.permutation(7)
    same_bits(as_tuple(op(rp.random.Draw(KEY, index[order]), *(x[:, order] for x in inputs[1:]))),
              tuple(x[:, order] for x in whole))  # fmt: skip
    one = as_tuple(op(rp.random.Draw(KEY, np.array(20)), *inputs[1:]))
    same_bits(tuple(x[:, 2] for x in one), tuple(x[:, 2] for x in whole))
    for num_threads in (1, 3):
        rp.set_num_threads(num_threads)
        same_bits(as_tuple(op.vjp(rp.random.Draw(KEY, index), *inputs[1:], *cotangents))[1:],
                  as_tuple(op.vjp(rp.random.Draw(KEY, index), *inputs[1:], *cotangents))[1:])  # fmt: skip


def tril_log_prob(*args, **keywords):
    return rp.normal_tril_log_prob.vjp(np.zeros(2), np.zeros(2), np.eye(2), 1.0, *args, **keywords)


def drawn_vjp(**keywords):
    return rp.normal_diag_transform.vjp(
        rp.random.Draw(0, np.arange(3)), np.zeros(2), np.ones(2), np.zeros((3, 2)), **keywords
    )


ERRORS = {
    "wrt of an unknown name": (
        ValueError,
        lambda: tril_log_prob(wrt=("scale",)),
        "normal_tril_log_prob.vjp: wrt must name inputs out of value, loc, scale_tril, got 'scale'",
    ),
    "wrt as one word": (
        TypeError,
        lambda: tril_log_prob(wrt="loc"),
        "normal_tril_log_prob.vjp: wrt must be a tuple of names out of value, loc, scale_tril, got 'loc'",
    ),
    "wrt twice": (
        ValueError,
        lambda: tril_log_prob(wrt=("loc", "loc")),
        "normal_tril_log_prob.vjp: wrt names an input twice: ('loc', 'loc')",
    ),
    "wrt in the forward": (
        TypeError,
        lambda: rp.normal_tril_entropy(np.eye(2), wrt=("scale_tril",)),
        "normal_tril_entropy got an unexpected keyword 'wrt'; it takes scale_tril, packed, out",
    ),
    "wrt of a draw": (
        TypeError,
        lambda: drawn_vjp(wrt=("noise",)),
        "normal_diag_transform.vjp: wrt names noise, but a Draw has no cotangent",
    ),
    "an out that is not wanted": (
        TypeError,
        lambda: tril_log_prob(wrt=("loc",), out=(np.zeros(2), np.zeros(2), None)),
        "normal_tril_log_prob.vjp: out for ct_value must be None, since its cotangent is not wanted, got ndarray",
    ),
    "no out where one is wanted": (
        TypeError,
        lambda: tril_log_prob(out=(np.zeros(2), np.zeros(2), None)),
        "normal_tril_log_prob.vjp: out for ct_scale_tril must be a NumPy array, got NoneType",
    ),
    "an input of None": (
        TypeError,
        lambda: rp.normal_tril_log_prob(np.zeros(2), None, np.eye(2)),
        "normal_tril_log_prob: loc must be an array, got NoneType",
    ),
    "a draw where no noise is": (
        TypeError,
        lambda: rp.normal_diag_log_prob(rp.random.Draw(0, np.arange(3)), np.zeros(2), np.ones(2)),
        "normal_diag_log_prob: value must be an array, got a Draw",
    ),
    "packed where there is no factor": (
        TypeError,
        lambda: rp.normal_diag_entropy(np.ones(2), packed=True),
        "normal_diag_entropy got an unexpected keyword 'packed'; it takes scale_diag, out",
    ),
    "packed of no triangle": (
        ValueError,
        lambda: rp.normal_tril_entropy(np.ones(4), packed=True),
        "normal_tril_entropy: scale_tril must have shape (..., d(d+1)/2), got (4,)",
    ),
    "packed of another size": (
        ValueError,
        lambda: rp.normal_tril_log_prob(np.zeros(2), np.zeros(2), np.ones(6), packed=True),
        "normal_tril_log_prob: scale_tril must have shape (..., d(d+1)/2) with d = 2 (from value), got (6,)",
    ),
    "packed as a word": (
        TypeError,
        lambda: rp.normal_tril_entropy(np.eye(2), packed="yes"),
        "normal_tril_entropy: packed must be True or False, got 'yes'",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_what_came_and_what_was_expected(case):
    error, call, text = ERRORS[case]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


def test_more_than_2_to_the_31_elements():
    """2^29 + 1 events of d = 2 by a stride of zero: 2^31 + 4 elements of scale_tril, an output beyond 2^31 bytes."""
    events = 2**29 + 1
    value, loc = np.array([0.5, -1.0], np.float32), np.zeros(2, np.float32)
    scale_tril = np.array([[2.0, 0.0], [0.5, 1.0]], np.float32)
    many = np.broadcast_to(scale_tril, (events, 2, 2))
    with rp.backend("native"):
        result = rp.normal_tril_log_prob(value, loc, many)
        one = rp.normal_tril_log_prob(value, loc, scale_tril)
    assert result.shape == (events,)
    assert (result == one).all()


@axis([op for op in OPS if op.forward_pass.symbols and all(o.item == "real" for o in op.inputs)])
def test_large_events(op, backend, rng, dtype):
    """d = 256: beyond every block and buffer that a smaller d fits into."""
    d = 40 if backend == "reference" or "elbo" in op.name else 256
    inputs, cotangents = problem(op, rng, (3,), d, dtype)
    keywords = keyword_extents(op, extents_of(op, d))
    whole = [*forward(op, inputs, **keywords), *(vjp(op, inputs, cotangents) if op.vjp is not None else ())]
    for x in whole:
        assert np.isfinite(x).all()
    if op.oracle is not None:
        for x, exact in zip(forward(op, inputs, **keywords), as_tuple(op.oracle(*(y.astype(float) for y in inputs))),
                            strict=True):  # fmt: skip
            np.testing.assert_allclose(x, exact, rtol=2e-2 if dtype == "float32" else 1e-9, atol=1e-2)
