# SPDX-License-Identifier: MIT
"""To the bit: an event's result depends on its own numbers alone, a sum on its own terms and their order alone."""

import numpy as np
import pytest

import reparam as rp
from support import (
    ATTRIBUTES,
    LACKING,
    LAYOUTS,
    OPS,
    OPS_WITH_VJP,
    VIEWS,
    as_tuple,
    extents_of,
    field_of_records,
    forward,
    keyword_extents,
    lanes,
    residuals,
    same_bits,
    sample_cotangents,
    sample_inputs,
    seen_through,
    some_variants,
    vjp,
)

SIZES = [3, 8, 17]  # unrolled, unrolled to the full lane, looped
BATCH = 67
OPS_ON_REALS = [op for op in OPS if all(o.item == "real" for o in op.inputs)]
OPS_UNDER_FACTORS = [op for op in OPS_WITH_VJP if op.vjp_from == "inputs" and {o.kind for o in op.inputs} > {"tril"}]
op_axis = pytest.mark.parametrize("op", OPS_ON_REALS, ids=lambda op: op.name)


def sizes(op, backend=""):
    """The definitions have one path for all."""
    return ([3] if backend == "reference" else SIZES) if op.forward_pass.symbols else [1]


def problem(op, rng, batch_shape, d, dtype):
    return sample_inputs(op, rng, batch_shape, d, dtype), sample_cotangents(op, rng, batch_shape, d, dtype)


def both_passes(op, inputs, cotangents, attributes):
    results = forward(op, inputs, **attributes)
    return [*results, *(vjp(op, inputs, cotangents, **attributes) if op.vjp is not None else ())]


def rows(arrays, at):
    return [x[at] for x in arrays]


@op_axis
def test_an_event_does_not_depend_on_the_others(op, rng, backend, dtype):
    """Its place, the size of the batch, the tail."""
    w = lanes(backend, dtype)
    for d in sizes(op, backend):
        for attributes in some_variants(op):
            inputs, cotangents = problem(op, rng, (BATCH,), d, dtype)
            whole = both_passes(op, inputs, cotangents, attributes)
            for n in {1, w - 1, w, w + 1, 2 * w + 1} - {0}:
                at = slice(3, 3 + n)
                same_bits(both_passes(op, rows(inputs, at), rows(cotangents, at), attributes), rows(whole, at))
            at = rng.permutation(BATCH)
            same_bits(both_passes(op, rows(inputs, at), rows(cotangents, at), attributes), rows(whole, at))
            at = np.zeros(w + 1, int)  # duplicates
            same_bits(both_passes(op, rows(inputs, at), rows(cotangents, at), attributes), rows(whole, at))
            alone = both_passes(
                op, rows(inputs, (5, ...)), rows(cotangents, (5, ...)), attributes
            )  # no batch dims at all
            same_bits(alone, rows(whole, 5))


@op_axis
def test_an_event_does_not_depend_on_its_layout(op, rng, backend, dtype):
    for d in sizes(op, backend)[::2]:
        inputs, cotangents = problem(op, rng, (21,), d, dtype)
        if any(o.in_place for o in op.inputs):
            continue  # the next test
        plain = both_passes(op, inputs, cotangents, {})
        for layout in LAYOUTS.values():
            same_bits(both_passes(op, list(map(layout, inputs)), list(map(layout, cotangents)), {}), plain)


@op_axis
def test_the_stride_of_a_dim_of_length_one_does_not_matter(op, rng, backend, dtype):
    """NumPy leaves there what it likes, here no multiple of the element."""
    if any(o.in_place for o in op.inputs):
        return
    inputs, cotangents = problem(op, rng, (1,), 1, dtype)
    odd = [field_of_records(x) for x in (*inputs, *cotangents)]
    plain = both_passes(op, inputs, cotangents, {})
    same_bits(both_passes(op, odd[: len(inputs)], odd[len(inputs) :], {}), plain)


def test_an_operand_updated_in_place_is_updated_whatever_its_layout(rng, backend, dtype):
    op = rp.OPS["adam_step"]
    inputs = sample_inputs(op, rng, (21,), 1, dtype)
    hyper = {name: ATTRIBUTES[name] for name in op.defaults}
    expected = forward(op, inputs)
    for layout in (make for name, make in LAYOUTS.items() if name != "read-only"):
        param, grad, m, v = map(layout, inputs)
        assert op(param, grad, m, v, **hyper) is None
        for x, exact in zip((param, m, v), expected, strict=True):
            same_bits(x.astype(dtype), exact)


BROADCASTS = {
    "both dims of length 1": lambda x: x[:1, :1],
    "no dims": lambda x: x[0, 0],
    "one for each row": lambda x: x[:, :1],
    "one for each column": lambda x: x[0],
}


@op_axis
def test_broadcasting_is_the_same_as_copies(op, rng, backend, dtype):
    """One operand at a time lacks some of the batch dims, or has them with stride zero."""
    inputs, cotangents = problem(op, rng, (7, 5), sizes(op)[0], dtype)
    operands = [(k, how) for k, o in enumerate(op.inputs) if not o.in_place for how in BROADCASTS.values()]
    for k, how in operands:
        small = how(inputs[k])
        copied = np.broadcast_to(small, inputs[k].shape)
        given, strided, full = [[*inputs[:k], x, *inputs[k + 1 :]] for x in (small, copied, copied.copy())]
        expected = forward(op, full)
        same_bits(forward(op, strided), expected)
        if len(inputs) > 1:
            same_bits(forward(op, given), expected)
        if len(inputs) > 1 and op.vjp is not None:
            check_reduced(op, {k}, given, full, cotangents)


def shared_shape(op, d):
    """Batch dims of work that two threads share, in rows that no number of lanes divides; ELBOs work more a value."""
    values = sum(int(np.prod(o.event_shape(extents_of(op, d)))) for o in (*op.inputs, *op.outputs))
    return 2 + (50_000 if op.name.startswith("elbo") else 110_000) // (values * 3 * 19), 3, 19


@op_axis
def test_a_broadcast_operand_is_the_same_through_any_view(op, backend, dtype):
    """Each operand in turn lacks the first, the middle or the last batch dim, or has it with a stride of zero.

    By the op's name, and no other chance: the size of the event that goes with a dim, and the view of a case.
    """
    choose, native = np.random.default_rng(list(op.name.encode())), backend.startswith("native")
    dims = choose.permutation([1, 3, 17 if native else 2]) if op.forward_pass.symbols else [1, 1, 1]
    for axis, d in enumerate(dims):
        shape = shared_shape(op, d) if native else (2, 3, 5)
        inputs, cotangents = problem(op, choose, shape, d, dtype)
        for call, args in passes(op, inputs, cotangents):
            for k, x in enumerate(args):
                small = x[(slice(None),) * axis + (slice(1),)]
                full = [*args[:k], np.broadcast_to(small, x.shape).copy(), *args[k + 1 :]]
                rp.set_num_threads(2)
                expected = as_tuple(call(*full))
                view = seen_through(choose.choice(list(VIEWS)), small)
                sums = call is op.vjp and op.vjp_from == "inputs" and k < len(op.inputs)
                same_bits(as_tuple(call(*args[:k], np.broadcast_to(view, x.shape), *args[k + 1 :])), expected)
                for threads in ((1, 2) if native else (1,)) * (len(args) > 1):
                    rp.set_num_threads(threads)
                    found = list(as_tuple(call(*args[:k], view, *args[k + 1 :])))
                    if sums:
                        same_bits(found[k], fixed_order_sum(expected[k], small.shape, op.inputs[k].event_rank))
                        found[k] = expected[k]
                    same_bits(found, list(expected))


def test_a_chunk_of_one_thread_begins_within_any_row(backend, dtype):
    """Over 2 ms of work in rows of a broadcast operand that lies one element backwards: three chunks at least."""
    shape = (3, 100_003) if backend.startswith("native") else (3, 7)
    loc = np.array([[1, 2, 3], [10, 20, 30], [100, 200, 300]], dtype)[:, None]
    view = seen_through("first axis reversed, Fortran", loc)
    assert view.strides[0] == -view.itemsize
    value, scale_tril = np.zeros((*shape, 3), dtype), np.eye(3, dtype=dtype)
    rp.set_num_threads(1)
    one_row = rp.normal_tril_log_prob(value[:, :1], loc, scale_tril)
    same_bits(rp.normal_tril_log_prob(value, view, scale_tril), np.broadcast_to(one_row, shape))


def check_reduced(op, broadcast, given, full, cotangents):
    """The cotangents of broadcast operands are the fixed-order sums of the terms; the others are as they were."""
    terms, reduced = vjp(op, full, cotangents), vjp(op, given, cotangents)
    for j, (ct, term) in enumerate(zip(reduced, terms, strict=True)):
        same_bits(ct, fixed_order_sum(term, given[j].shape, op.inputs[j].event_rank) if j in broadcast else term)


def fixed_order_sum(terms, shape, event_rank):
    """The order of all sums over broadcast dims, spelled out one term after the other."""
    batch_rank = terms.ndim - event_rank
    own = (1,) * (terms.ndim - len(shape)) + shape
    summed = [a for a in range(batch_rank) if own[a] == 1 and terms.shape[a] != 1]
    rest = [a for a in range(terms.ndim) if a not in summed]
    lined_up = terms.transpose(*summed, *rest).reshape(-1, *(terms.shape[a] for a in rest))
    total = np.zeros(lined_up.shape[1:])
    for first in range(0, len(lined_up), 64):
        s = [np.zeros(lined_up.shape[1:], terms.dtype) for _ in range(8)]
        for t, term in enumerate(lined_up[first : first + 64]):
            s[t % 8] = s[t % 8] + term
        total = total + (((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))).astype(float)
    return total.astype(terms.dtype).reshape(shape)


@pytest.mark.parametrize("op", [op for op in OPS_WITH_VJP if op.vjp_from == "inputs"], ids=lambda op: op.name)
def test_sums_over_a_batch_have_one_order(op, rng, backend, dtype):
    for batch in (1, 7, 8, 63, 64, 65, 300):
        inputs, cotangents = problem(op, rng, (batch,), sizes(op)[0], dtype)
        for k in range(len(inputs)):
            given = [x[:1] if j == k else x for j, x in enumerate(inputs)]
            full = [np.broadcast_to(x, (batch, *x.shape[1:])).copy() for x in given]
            check_reduced(op, {k}, given, full, cotangents)


@pytest.mark.parametrize("op", OPS_UNDER_FACTORS, ids=lambda op: op.name)
def test_many_events_under_each_of_a_few_factors(op, rng, backend, dtype):
    """A factor that stays for a run of events is kept once for all lanes; the run may be the inner dim or the outer."""
    few = {k for k, o in enumerate(op.inputs) if o.kind in {"tril", "sym"}}
    count = 150 if backend.startswith("native") else 20
    for shape, own in (((3, count), (3, 1)), ((count, 3), (1, 3))):
        for d in sizes(op, backend):
            inputs, cotangents = problem(op, rng, shape, d, dtype)
            given = [x[: own[0], : own[1]] if k in few else x for k, x in enumerate(inputs)]
            full = [np.broadcast_to(x, (*shape, *x.shape[2:])).copy() for x in given]
            same_bits(forward(op, given), forward(op, full))
            same_bits(as_tuple(op.value_and_vjp(*given, *cotangents)[0]), forward(op, full))
            check_reduced(op, few, given, full, cotangents)


@pytest.mark.parametrize("count", [5, 65])
def test_a_shared_factor_that_fails_poisons_its_own_events(count, rng, backend, dtype):
    value, loc = rng.standard_normal((2, 3, count, 5)).astype(dtype)
    factors = np.tril(rng.standard_normal((3, 1, 5, 5)) / 4 + 2 * np.eye(5)).astype(dtype)
    factors[1, 0, 2, 2] = -1
    log_prob, cts = rp.normal_tril_log_prob.value_and_vjp(value, loc, factors, np.ones((3, count), dtype))
    lower = np.tril_indices(5)
    for x in (log_prob, cts[0], cts[1], cts[2][(..., *lower)]):
        assert np.isnan(x[1]).all()
        assert np.isfinite(x[[0, 2]]).all()


@pytest.mark.parametrize("count", [5, 65])
def test_the_last_term_of_a_sum_counts_once(count, backend, dtype):
    """Lanes past the end repeat the last event, here an infinite one: what they hold takes no part."""
    noise, ct = np.ones((2, 2, count, 3), dtype)
    ct[0, -1] = np.inf
    _, ct_loc, ct_factors = rp.normal_tril_transform.vjp(noise, np.zeros(3, dtype), np.eye(3, dtype=dtype), ct)
    np.testing.assert_array_equal(ct_loc, np.full(3, np.inf))
    _, _, ct_factors = rp.normal_tril_transform.vjp(
        noise, np.zeros(3, dtype), np.tile(np.eye(3, dtype=dtype), (2, 1, 1, 1)), ct
    )
    lower = np.tril_indices(3)
    assert np.isposinf(ct_factors[0, 0][lower]).all()
    np.testing.assert_array_equal(ct_factors[1, 0][lower], count)


@op_axis
def test_threads_change_nothing(op, rng, backend, dtype):
    """Enough work that the kernels share it; whole and reduced results."""
    batch = int(np.prod(shared_shape(op, 3))) if backend.startswith("native") else 500
    inputs, cotangents = problem(op, rng, (batch,), 3, dtype)
    shared = [x if o.in_place or k else x[:1] for k, (o, x) in enumerate(zip(op.inputs, inputs, strict=True))]
    for given in [inputs] if len(inputs) == 1 else [inputs, shared]:
        rp.set_num_threads(1)
        alone = both_passes(op, given, cotangents, {})
        for num_threads in (2, 3, 7):
            rp.set_num_threads(num_threads)
            same_bits(both_passes(op, given, cotangents, {}), alone)


@pytest.mark.parametrize("op", OPS_ON_REALS, ids=lambda op: op.name)
def test_lane_counts_change_nothing(op, rng, dtype):
    """`wide` runs avx2's instructions on twice the lanes."""
    if "native:wide" not in rp.backends():
        pytest.skip(LACKING["wide"])
    for d in sizes(op):
        for attributes in some_variants(op):
            inputs, cotangents = problem(op, rng, (BATCH,), d, dtype)
            with rp.backend("native:avx2"):
                narrow = both_passes(op, inputs, cotangents, attributes)
            with rp.backend("native:wide"):
                same_bits(both_passes(op, inputs, cotangents, attributes), narrow)


@op_axis
def test_inputs_are_not_modified(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (9,), sizes(op)[0], dtype)
    given = residuals(op, inputs)
    before = [x.copy() for x in (*inputs, *given, *cotangents)]
    forward(op, inputs)
    if op.vjp is not None:
        op.vjp(*given, *cotangents)
    same_bits([*inputs, *given, *cotangents], before)


@op_axis
def test_out_is_written_and_returned(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (11,), sizes(op)[0], dtype)
    for call, args in passes(op, inputs, cotangents):
        expected = as_tuple(call(*args))
        for layout in ("plain", "strided", "fortran"):
            out = tuple(empty_like(x, layout) for x in expected)
            returned = call(*args, out=out if len(out) > 1 else out[0])
            assert all(x is y for x, y in zip(as_tuple(returned), out, strict=True))
            same_bits(out, expected)


def passes(op, inputs, cotangents):
    if op.outputs:
        yield lambda *args, **kw: op(*args, **kw), inputs
    if op.vjp is not None:
        yield op.vjp, [*residuals(op, inputs), *cotangents]


def empty_like(x, layout):
    if layout == "strided":
        return np.zeros([2 * n for n in x.shape], x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    return np.zeros(x.shape, x.dtype, order="F" if layout == "fortran" else "C")


@op_axis
def test_out_that_overlaps_an_input_is_as_if_it_did_not(op, rng, backend, dtype):
    """Both the same memory and a shifted view of it."""
    for call, args in passes(op, *problem(op, rng, (11,), sizes(op)[0], dtype)):
        expected = as_tuple(call(*args))
        for j, result in enumerate(expected):
            for k, x in enumerate(args):
                if x.shape != result.shape or x.dtype != result.dtype:
                    continue
                for shift in (0, 1):
                    memory = np.zeros((x.shape[0] + 1, *x.shape[1:]), x.dtype)
                    memory[:-1] = x
                    given = [*args[:k], memory[:-1], *args[k + 1 :]]
                    target = memory[shift : shift + len(x)]
                    out = tuple(target if i == j else np.empty_like(e) for i, e in enumerate(expected))
                    call(*given, out=out if len(out) > 1 else out[0])
                    same_bits(out, expected)


def test_cholesky_scales_exactly(rng, backend, dtype):
    """chol(4^k A) = 2^k chol(A) and chol(D A D) = D chol(A) D for signs D: true of the bits, with no oracle."""
    (a,) = sample_inputs(rp.OPS["cholesky_ex"], rng, (40,), 6, dtype)
    scale_tril = rp.cholesky(a)
    same_bits(rp.cholesky(a * a.dtype.type(4**5)), scale_tril * a.dtype.type(2**5))
    signs = rng.choice([-1.0, 1.0], (40, 6)).astype(dtype)
    flipped = rp.cholesky(signs[:, :, None] * a * signs[:, None, :])
    same_bits(flipped + a.dtype.type(0), signs[:, :, None] * scale_tril * signs[:, None, :] + a.dtype.type(0))


def test_repeated_calls_give_the_same_bits(rng, backend):
    inputs, cotangents = problem(rp.OPS["normal_tril_log_prob"], rng, (5000,), 4, "float32")
    first = both_passes(rp.OPS["normal_tril_log_prob"], inputs, cotangents, {})
    for _ in range(3 if backend == "reference" else 30):
        same_bits(both_passes(rp.OPS["normal_tril_log_prob"], inputs, cotangents, {}), first)


@op_axis
def test_empty_batches_have_empty_results(op, rng, backend, dtype):
    d = sizes(op)[0]
    for batch_shape in ((0,), (3, 0), (0, 1, 2)):
        inputs, cotangents = problem(op, rng, batch_shape, d, dtype)
        for x, o in zip(forward(op, inputs), op.outputs, strict=False):
            assert x.shape == (*batch_shape, *o.event_shape(extents_of(op, d)))
        if op.vjp is not None:
            for x, ct in zip(inputs, vjp(op, inputs, cotangents), strict=True):
                assert ct.shape == x.shape


@op_axis
def test_an_empty_out_is_not_written(op, rng, backend, dtype):
    """NumPy gives empty arrays strides of 0, which are no sum over a dim: the memory behind stays as it is."""
    d = sizes(op)[0]
    inputs, cotangents = problem(op, rng, (0,), d, dtype)
    for call, args in passes(op, inputs, cotangents):
        memory = np.full(100, 7.0, dtype)
        out = [np.lib.stride_tricks.as_strided(memory[5:], x.shape, (0,) * x.ndim) for x in as_tuple(call(*args))]
        out = [o if o.dtype == x.dtype else x for o, x in zip(out, as_tuple(call(*args)), strict=True)]
        call(*args, out=tuple(out) if len(out) > 1 else out[0])
        same_bits(memory, np.full(100, 7.0, dtype))


def test_an_out_whose_entries_share_memory_is_refused(backend, dtype):
    out = np.lib.stride_tricks.as_strided(np.zeros(1, dtype), (5,), (0,))
    with pytest.raises(ValueError, match="out for entropy has entries that share memory"):
        rp.normal_diag_entropy(np.ones((5, 2), dtype), out=out)


def test_an_update_in_place_is_as_if_nothing_overlapped(rng, backend, dtype):
    hyper = {name: ATTRIBUTES[name] for name in rp.OPS["adam_step"].defaults}
    memory = rng.standard_normal(41).astype(dtype)
    m, v = np.zeros((2, 40), dtype)
    apart = memory[1:].copy(), memory[:40].copy(), m.copy(), v.copy()
    rp.adam_step(*apart, **hyper)
    rp.adam_step(memory[1:], memory[:40], m, v, **hyper)
    same_bits([memory[1:], m, v], [apart[0], *apart[2:]])
    with pytest.raises(ValueError, match="share memory"):
        rp.adam_step(m, apart[1], m, v, **hyper)
    with pytest.raises(ValueError, match="stride of 0"):
        rp.adam_step(np.lib.stride_tricks.as_strided(m, (40,), (0,)), apart[1], m.copy(), v, **hyper)


@pytest.mark.parametrize("op", [op for op in OPS_WITH_VJP if len(op.inputs) > 1], ids=lambda op: op.name)
def test_a_sum_over_no_terms_is_zero(op, rng, backend, dtype):
    inputs, cotangents = problem(op, rng, (0,), sizes(op)[0], dtype)
    (one, *_), _ = problem(op, rng, (1,), sizes(op)[0], dtype)
    cts = vjp(op, [one, *inputs[1:]], cotangents)
    same_bits(cts[0], np.zeros_like(one))


@pytest.mark.parametrize("batch_shape", [(), (3,)])
@pytest.mark.parametrize("op", [op for op in OPS_ON_REALS if op.forward_pass.symbols], ids=lambda op: op.name)
def test_extent_zero(op, batch_shape, backend, dtype):
    """d = 0 gives results of the right shape, and the empty sums that the formulas have."""
    extents = dict.fromkeys(op.forward_pass.symbols, 0) | ({"s": 2} if "s" in op.forward_pass.symbols else {})
    inputs = [np.ones((*batch_shape, *o.event_shape(extents)), dtype) for o in op.inputs]
    results = op(*inputs, **keyword_extents(op, extents))
    for x, o in zip(as_tuple(results), op.outputs, strict=True):
        assert np.shape(x) == (*batch_shape, *o.event_shape(extents))
        assert not np.isnan(x).any() or o.name == "standard_error"
    if op.vjp is not None:
        cts = [np.ones((*batch_shape, *o.event_shape(extents)), dtype) for o in op.outputs if o.item == "real"]
        for x, ct in zip(
            inputs, as_tuple(op.vjp(*(results[:1] if op.vjp_from == "outputs" else inputs), *cts)), strict=True
        ):
            assert ct.shape == x.shape
