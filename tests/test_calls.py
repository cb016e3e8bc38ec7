# SPDX-License-Identifier: MIT
"""The other ways to call an op, to the bit: value_and_vjp, wrt, cotangents of None, packed factors, noise as a Draw."""

import numpy as np
import pytest

import reparam as rp
from support import (
    LAYOUTS,
    OPS,
    OPS_WITH_VJP,
    STEP,
    VIEWS,
    as_tuple,
    backend_axis,
    condition,
    directional_derivative,
    event_error,
    extents_of,
    forward,
    largest_entry,
    limit,
    random_direction,
    residuals,
    same_bits,
    sample_cotangents,
    sample_inputs,
    seen_through,
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


def ways_to_call():
    """(op, packed, drawn): as it is, and with all that it takes besides dense arrays."""
    for op in (op for op in OPS if op.outputs and all(o.item == "real" for o in op.inputs)):
        for packed, drawn in dict.fromkeys([(False, False), (op.packable, op in DRAWABLE)]):
            yield pytest.param(op, packed, drawn, id=op.name + "-packed" * packed + "-drawn" * drawn)


@pytest.mark.parametrize(("op", "packed", "drawn"), list(ways_to_call()))
def test_layouts_change_nothing_in_any_way_to_call(op, packed, drawn, backend, dtype):
    """Operands and results each in a layout of its own, by chance that depends on the op alone."""
    choose = np.random.default_rng(list(op.name.encode()))
    call = op.value_and_vjp if op.vjp else op
    for d in sizes(op)[:1] if backend == "reference" else sizes(op)[::2]:
        inputs, cotangents = problem(op, choose, (21,), d, dtype)
        args = [*inputs, *cotangents] if op.vjp else inputs
        keywords = {"packed": True} if packed else {}
        if packed:
            args = pack([*op.inputs, *(o for o in op.outputs if o.item == "real")][: len(args)], args)
        if drawn:
            args[0] = choose.integers(0, 2**62, 21)
            keywords |= {s: extents_of(op, d)[s] for s in op.forward_pass.free_symbols}
        for attributes in some_variants(op):
            keywords |= attributes
            expected = all_results(call, args, drawn, keywords)
            found = all_results(call, [some_layout(choose, x) for x in args], drawn, keywords)
            out = tuple(
                None if x is None else seen_through(choose.choice(list(VIEWS)), np.zeros_like(x)) for x in found
            )
            keywords["out"] = out if len(out) > 1 else out[0]
            all_results(call, [some_layout(choose, x) for x in args], drawn, keywords)
            del keywords["out"]
            for results in (found, out):
                assert [x is None for x in results] == [x is None for x in expected]
                same_bits([x for x in results if x is not None], [x for x in expected if x is not None])


def some_layout(choose, x):
    return LAYOUTS[choose.choice(list(LAYOUTS))](x)


def all_results(call, args, drawn, keywords):
    """Outputs and cotangents in one list; the first operand may be the index of a Draw."""
    given = [rp.random.Draw(KEY, args[0]), *args[1:]] if drawn else args
    return [x for part in as_tuple(call(*given, **keywords)) for x in as_tuple(part)]


@pytest.mark.parametrize("shift", [0, 1])
@axis([op for op in DRAWABLE if op.vjp is not None])
def test_an_out_over_an_operand_beside_a_draw(op, shift, rng, backend, dtype):
    """Both passes: each result in the memory of each operand of its shape, or one event further."""
    d = sizes(op)[0]
    inputs, cotangents = problem(op, rng, (11,), d, dtype)
    keywords = {s: extents_of(op, d)[s] for s in op.forward_pass.free_symbols}
    draw = rp.random.Draw(KEY, np.arange(11))
    for call, args in ((op, inputs[1:]), (op.vjp, [*inputs[1:], *cotangents])):
        expected = as_tuple(call(draw, *args, **keywords))
        alike = [
            (j, k) for j, y in enumerate(expected) for k, x in enumerate(args) if y is not None and y.shape == x.shape
        ]
        assert alike or call is op
        for j, k in alike:
            memory = np.concatenate([args[k], args[k][:1]])
            given = [*args[:k], memory[:-1], *args[k + 1 :]]
            out = [None if y is None else np.zeros_like(y) for y in expected]
            out[j] = memory[shift : shift + 11]
            call(draw, *given, out=tuple(out) if len(out) > 1 else out[0], **keywords)
            same_bits([y for y in out if y is not None], [y for y in expected if y is not None])


def test_an_out_in_the_memory_of_an_index_of_a_draw(backend, dtype):
    index = np.arange(64, dtype=np.uint64)
    loc, scale, draw = np.ones((), dtype), np.full((), 2, dtype), rp.random.Draw(KEY, index)
    expected = rp.normal_transform(draw, loc, scale)
    out = index.view(dtype)[1:33]  # behind the index in float64, across it in float32
    rp.normal_transform(rp.random.Draw(KEY, index[:32]), loc, scale, out=out)
    same_bits(out, expected[:32])


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
    """2^19 + 1 events of d = 64 by a stride of zero: 2^31 + 4096 elements of scale_tril."""
    events, d = 2**19 + 1, 64
    value, loc, scale_tril = np.arange(d, dtype=np.float32), np.zeros(d, np.float32), np.eye(d, dtype=np.float32)
    with rp.backend("native"):
        result = rp.normal_tril_log_prob(value, loc, np.broadcast_to(scale_tril, (events, d, d)))
        one = rp.normal_tril_log_prob(value, loc, scale_tril)
    assert result.shape == (events,)
    assert (result == one).all()


@pytest.mark.parametrize("d", [1, 5])
def test_offsets_past_2_to_the_31_elements(d, rng):
    """Nine events, 2^28 elements apart, of which memory has only the pages that are touched."""
    try:
        memory = [np.zeros(2**31 + 2**28, np.float32).reshape(9, -1)[:, :d] for _ in range(2)]
    except MemoryError:
        pytest.skip("needs 20 GB of address space")
    value, ct_value = memory
    value[...] = rng.standard_normal((9, d))
    loc, scale, ct = np.zeros(d, np.float32), np.ones(d, np.float32), np.ones(9, np.float32)
    with rp.backend("native"):
        same_bits(rp.normal_diag_log_prob(value, loc, scale), rp.normal_diag_log_prob(value.copy(), loc, scale))
        near = rp.normal_diag_log_prob.vjp(value.copy(), loc, scale, ct)
        out = (ct_value, *map(np.zeros_like, near[1:]))
        rp.normal_diag_log_prob.vjp(value, loc, scale, ct, out=out)
        same_bits(out, near)


def test_a_sum_of_more_than_2_to_the_31_terms():
    """2^20 + 64 events of d = 64 by strides of zero, the Draw among them: 2^20 blocks of the same 64 terms, and one."""
    events, d = 2**20 + 64, 64
    loc, scale_tril = np.zeros(d, np.float32), np.eye(d, dtype=np.float32)
    draw, ct = rp.random.Draw(KEY, 20), np.ones(d, np.float32)
    with rp.backend("native"):
        _, *sums = rp.normal_tril_transform.vjp(draw, loc, scale_tril, np.broadcast_to(ct, (events, d)))
        _, *block = rp.normal_tril_transform.vjp(draw, loc, scale_tril, np.broadcast_to(ct, (64, d)))
    exact = [(x.astype(float) * (events // 64)).astype(np.float32) for x in block]  # 24 bits times 2^14: no rounding
    assert np.abs(exact[1]).max() > 2**20
    same_bits(sums, exact)


# ---- large events

NO_COMPLEX_ORACLE = {  # a cast to real, or a function of NumPy that has no complex numbers
    "binomial_log_likelihood", "normal_diag_vector_transform_and_log_prob", "normal_vector_transform_and_log_prob",
    "tril_from_vector",
}  # fmt: skip


def cholesky_slope(inputs, directions):
    """dL = L Phi(L^-1 dA L^-T), Phi the lower triangle with half the diagonal."""
    scale_tril = np.linalg.cholesky(inputs[0])
    between = np.linalg.solve(scale_tril, np.linalg.solve(scale_tril, directions[0]).swapaxes(-1, -2))
    return [scale_tril @ (np.tril(between) - 0.5 * between * np.eye(between.shape[-1]))]


def tril_kl_slope(inputs, directions):
    """Of |R|_F^2/2 + |y|^2/2 + log det M - log det L, where R = M^-1 L and y = M^-1 (m - l)."""
    loc, scale_tril, other_loc, other = inputs
    d_loc, d_scale_tril, d_other_loc, d_other = directions
    ratio, y = np.linalg.solve(other, scale_tril), np.linalg.solve(other, (other_loc - loc)[..., None])
    d_ratio = np.linalg.solve(other, d_scale_tril - d_other @ ratio)
    d_y = np.linalg.solve(other, (d_other_loc - d_loc)[..., None] - d_other @ y)
    d_log_det = [
        np.trace(np.linalg.solve(m, v), axis1=-2, axis2=-1) for m, v in ((other, d_other), (scale_tril, d_scale_tril))
    ]
    return [(ratio * d_ratio).sum((-1, -2)) + (y * d_y).sum((-1, -2)) + d_log_det[0] - d_log_det[1]]


CLOSED_SLOPES = {"cholesky_ex": cholesky_slope, "normal_tril_kl": tril_kl_slope}


def oracle_slope(op, inputs, directions, d):
    """J v in float64: in closed form, or by the complex step, through the oracle where it takes complex numbers."""
    if op.name in CLOSED_SLOPES:
        return CLOSED_SLOPES[op.name](inputs, directions)
    if op.name in NO_COMPLEX_ORACLE:
        return directional_derivative(op, inputs, directions, d, op.defaults)
    moved = [x + STEP * 1j * v for x, v in zip(inputs, directions, strict=True)]
    results = as_tuple(op.oracle(*moved, **op.defaults))
    return [np.imag(y) / STEP for o, y in zip(op.outputs, results, strict=True) if o.item == "real"]


def event_sum(x):
    return x.sum(axis=tuple(range(1, x.ndim)))


def large_events_are_right(op, d, rng):
    inputs, cotangents = problem(op, rng, (3,), d, "float64")
    number = condition(op, inputs)
    exact = as_tuple(op.oracle(*inputs))
    single = [[x.astype(np.float32) for x in arrays] for arrays in (inputs, cotangents)]
    for x, narrow, y in zip(forward(op, inputs), forward(op, single[0]), exact, strict=True):
        assert (event_error(x, y) <= limit(op, d, "float64", number)).all()
        assert (event_error(narrow, y) <= limit(op, d, "float32", number)).all()
    if op.vjp is None:
        return
    number = number * largest_entry(cotangents)
    found = vjp(op, inputs, cotangents)
    for narrow, ct in zip(vjp(op, *single), found, strict=True):
        assert (event_error(narrow, ct) <= limit(op, d, "float32", number)).all()
    real = [o for o in op.outputs if o.item == "real"]
    read = [np.tril(ct) if o.kind == "tril" else ct for o, ct in zip(real, cotangents, strict=True)]
    for _ in range(3):
        directions = random_direction(op, rng, inputs)
        slopes = zip(read, oracle_slope(op, inputs, directions, d), strict=True)
        slope = sum(event_sum(ct * dy) for ct, dy in slopes)
        parts = [ct * v for ct, v in zip(found, directions, strict=True)]
        size = np.maximum(1, sum(event_sum(np.abs(part)) for part in parts))
        assert (np.abs(sum(map(event_sum, parts)) - slope) / size <= limit(op, d, "float64", number)).all()


LARGE = axis([op for op in OPS if op.forward_pass.symbols and op.oracle is not None])


@pytest.mark.parametrize("d", [65, 128, 256])
@pytest.mark.parametrize("backend", [b for b in backend_axis() if b not in ("reference", "numba")], indirect=True)
@LARGE
def test_large_events(op, d, backend, rng):
    """Beyond every block and buffer that a smaller d fits into: float64 against the oracle, float32 against float64."""
    large_events_are_right(op, d, rng)


@pytest.mark.parametrize("backend", [b for b in backend_axis() if b == "numba"], indirect=True)
@LARGE
def test_large_events_of_a_definition(op, backend, rng):
    """It has one loop for all d."""
    large_events_are_right(op, 65, rng)
