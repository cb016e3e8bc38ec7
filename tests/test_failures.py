# SPDX-License-Identifier: MIT
"""The failure contract: info is exact, a bad event is NaN, its neighbours keep their bits, the message says where."""

import numpy as np
import pytest

import reparam as rp
from support import OPS_WITH_SCALE, OPS_WITH_TRIANGLE, forward, same_bits, sample_cotangents, sample_inputs, vjp

pytestmark = pytest.mark.usefixtures("backend")
D = 5
BATCH = 2 * 16 + 3  # more than two packs of the widest lanes, and a tail


@pytest.fixture
def matrices(rng, dtype):
    factor = rng.standard_normal((BATCH, D, D))
    return (factor @ factor.swapaxes(-1, -2) + D * np.eye(D)).astype(dtype)


def assert_failed(result, bad):
    """``bad`` maps an event to its info; all other events have succeeded."""
    expected = np.zeros(BATCH, np.int32)
    for event, info in bad.items():
        expected[event] = info
    lower = np.tril(np.ones((D, D), bool))
    assert result.info.dtype == np.int32
    np.testing.assert_array_equal(result.info, expected)
    assert np.isnan(result.scale_tril[expected > 0][:, lower]).all()
    good = result.scale_tril[expected == 0]
    assert np.isfinite(good).all()
    assert (np.diagonal(good, axis1=-2, axis2=-1) > 0).all()
    assert not good[:, ~lower].any()


@pytest.mark.parametrize("k", [0, D // 2, D - 1], ids=["first", "middle", "last"])
def test_a_zero_row_and_column_is_found(matrices, k):
    """LAPACK's matrix types 3 to 5."""
    matrices[7, k, :] = matrices[7, :, k] = 0
    assert_failed(rp.cholesky_ex(matrices), {7: k + 1})


@pytest.mark.parametrize("pivot", [0.0, -0.0, -1.0, np.nan, np.inf, -np.inf])
def test_a_bad_diagonal_entry_is_the_first_bad_minor(matrices, pivot):
    for k in range(D):
        matrices[10 + k, k, k] = pivot
        matrices[20 + k, k, k] = matrices[20 + k, D - 1, D - 1] = pivot
    bad = {first + k: k + 1 for k in range(D) for first in (10, 20)}
    assert_failed(rp.cholesky_ex(matrices), bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e18])
def test_a_bad_entry_below_the_diagonal_fails_in_its_own_row(matrices, value):
    places = [(1, 0), (3, 1), (D - 1, 0), (D - 1, D - 2)]
    for event, (i, j) in enumerate(places):
        matrices[event, i, j] = value
    assert_failed(rp.cholesky_ex(matrices), {event: i + 1 for event, (i, _) in enumerate(places)})


def test_info_of_random_indefinite_matrices_agrees_with_the_signs_of_the_minors(rng):
    a = rng.integers(-4, 5, (300, 4, 4)).astype(float)
    a = a + a.swapaxes(-1, -2) + 5 * np.eye(4)
    minors = np.stack([np.round(np.linalg.det(a[:, :k, :k])) for k in range(1, 5)], axis=1)
    a, minors = a[(minors != 0).all(axis=1)], minors[(minors != 0).all(axis=1)]
    expected = np.where((minors > 0).all(axis=1), 0, np.argmax(minors < 0, axis=1) + 1)
    assert set(expected) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(rp.cholesky_ex(a).info, expected)


def test_neighbours_of_a_failed_event_keep_their_bits(matrices):
    """At every place in the batch, so at every lane."""
    clean = rp.cholesky_ex(matrices).scale_tril
    ct = np.ones_like(clean)
    ct_clean = rp.cholesky_ex.vjp(clean, ct)
    for event in range(BATCH):
        spoiled = matrices.copy()
        spoiled[event, 2, 2] = np.nan
        result = rp.cholesky_ex(spoiled)
        ct_a = rp.cholesky_ex.vjp(result.scale_tril, ct)
        others = np.arange(BATCH) != event
        same_bits(result.scale_tril[others], clean[others])
        same_bits(ct_a[others], ct_clean[others])
        assert np.isnan(ct_a[event]).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("op", OPS_WITH_TRIANGLE, ids=lambda op: op.name)
def test_the_unread_upper_triangle_has_no_effect(op, poison, rng, dtype):
    inputs, cotangents = sample_inputs(op, rng, (BATCH,), D, dtype), sample_cotangents(op, rng, (BATCH,), D, dtype)
    upper = np.triu(np.ones((D, D), bool), 1)
    spoiled = [spoil(o, x, upper, poison) for o, x in zip(op.inputs, inputs, strict=True)]
    same_bits(forward(op, spoiled), forward(op, inputs))
    if op.vjp is not None:
        real = [o for o in op.outputs if o.item == "real"]
        spoiled_cts = [spoil(o, x, upper, poison) for o, x in zip(real, cotangents, strict=True)]
        same_bits(vjp(op, spoiled, spoiled_cts), vjp(op, inputs, cotangents))


def spoil(operand, array, upper, poison):
    if operand.kind not in {"tril", "sym"}:
        return array
    return np.where(upper, array.dtype.type(poison), array)


@pytest.mark.parametrize("case", OPS_WITH_SCALE, ids=lambda case: f"{case[0].name}-{case[1]}")
def test_a_scale_that_is_not_positive_is_nan_in_its_event_alone(case, rng, dtype):
    op, name = case
    inputs, cotangents = sample_inputs(op, rng, (BATCH,), D, dtype), sample_cotangents(op, rng, (BATCH,), D, dtype)
    at = [o.name for o in op.inputs].index(name)
    spoiled = [x.copy() for x in inputs]
    bad = {0: (0, 0.0), 3: (D - 1, -0.0), 9: (2, -1.0), 20: (1, np.nan), BATCH - 1: (D - 2, -np.inf)}
    for event, (k, scale) in bad.items():
        spoiled[at][(event, *[k] * op.inputs[at].event_rank)] = scale
    is_bad = np.isin(np.arange(BATCH), list(bad))
    assert_poisoned(op.outputs, forward(op, spoiled), forward(op, inputs), is_bad)
    if op.vjp is not None:
        assert_poisoned(op.inputs, vjp(op, spoiled, cotangents), vjp(op, inputs, cotangents), is_bad)


def assert_poisoned(operands, results, clean, bad):
    for operand, result, before in zip(operands, results, clean, strict=True):
        same_bits(result[~bad], before[~bad])
        read = result[bad]
        if operand.kind == "tril":
            read = read[:, np.tril(np.ones((D, D), bool))]
        assert np.isnan(read).all(axis=tuple(range(1, read.ndim))).all(), operand.name


def test_cholesky_raises_with_the_events_and_their_minors(matrices):
    stack = matrices[:6].reshape(2, 3, D, D).copy()
    stack[0, 1, 3, 3] = -1
    stack[1, 2, 0, 0] = np.nan
    with pytest.raises(rp.NotPositiveDefiniteError) as caught:
        rp.cholesky(stack)
    error = caught.value
    assert isinstance(error, np.linalg.LinAlgError)
    np.testing.assert_array_equal(error.info, [[0, 4, 0], [0, 0, 1]])
    assert [tuple(int(i) for i in index) for index in error.indices] == [(0, 1), (1, 2)]
    message = str(error)
    assert "2 of 6" in message
    assert "[0, 1] (leading minor 4)" in message
    assert "[1, 2] (leading minor 1)" in message


def test_the_message_names_at_most_eight_events(matrices):
    matrices[2:22, 1, 1] = -1
    with pytest.raises(rp.NotPositiveDefiniteError) as caught:
        rp.cholesky(matrices)
    message = str(caught.value)
    assert f"20 of {BATCH}" in message
    assert len(caught.value.indices) == 20
    assert [event for event in range(BATCH) if f"[{event}] (leading minor 2)" in message] == list(range(2, 10))
    assert "12 more" in message


def test_a_single_matrix_that_fails_says_which_minor():
    with pytest.raises(rp.NotPositiveDefiniteError, match=r"leading minor.*2"):
        rp.cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_cholesky_without_check_does_not_raise(matrices):
    matrices[4, 1, 1] = -1
    scale_tril = rp.cholesky(matrices, check=False)
    same_bits(scale_tril, rp.cholesky_ex(matrices).scale_tril)
    assert np.isnan(scale_tril[4, 0, 0])


def test_nothing_is_warned_about():
    """Failure is data: not even a floating-point warning comes with it (the suite turns warnings into errors)."""
    with np.errstate(all="raise"):
        result = rp.cholesky_ex(np.array([[np.inf, 0.0], [0.0, -1.0]]))
        log_prob = rp.normal_diag_log_prob(np.array([1e200]), np.array([0.0]), np.array([1e-200]))
    assert result.info == 1
    assert log_prob == -np.inf


# ---- jitter


def nearly_singular(dtype):
    """Four matrices of rank one plus nothing, plus a little, plus the identity, and one that no jitter saves."""
    ones = np.ones((3, 3))
    return np.stack([ones, ones + 1e-1 * np.eye(3), np.eye(3), -np.eye(3)]).astype(dtype)


def test_jitter_helps_the_failed_alone(backend, dtype):
    a = nearly_singular(dtype)[:3]
    with pytest.warns(RuntimeWarning, match=r"cholesky: 1 of 3 matrices were tried again with up to 0\.001 times"):
        scale_tril = rp.cholesky(a, jitter=1e-3)
    same_bits(scale_tril[1:], rp.cholesky(a[1:]))
    same_bits(scale_tril[0], rp.cholesky(a[0] + np.eye(3, dtype=dtype) * a.dtype.type(1e-3)))


def test_jitter_grows_tenfold_twice(backend):
    a = np.diag([1.0, 1.0, -0.05])  # mean of the diagonal .65: 1e-3 and 1e-2 of it are too little, 1e-1 is enough
    with pytest.warns(RuntimeWarning, match=r"with up to 0\.1 times the mean"):
        scale_tril = rp.cholesky(a, jitter=1e-3)
    np.testing.assert_allclose(scale_tril @ scale_tril.T, a + 0.065 * np.eye(3), rtol=1e-14)


def test_what_still_fails_raises_or_is_nan(backend, dtype):
    a = nearly_singular(dtype)
    warned = pytest.warns(RuntimeWarning, match="2 of 4 matrices were tried again .*; 1 failed even so")
    with warned, pytest.raises(rp.NotPositiveDefiniteError) as caught:
        rp.cholesky(a, jitter=1e-3)
    assert caught.value.indices.tolist() == [[3]]
    with pytest.warns(RuntimeWarning):
        scale_tril = rp.cholesky(a, jitter=1e-3, check=False)
    assert np.isnan(np.tril(scale_tril[3])[np.tril_indices(3)]).all()
    assert np.isfinite(scale_tril[:3]).all()


def test_jitter_in_place_takes_the_matrices_as_they_were(backend, dtype):
    a = nearly_singular(dtype)[:3]
    with pytest.warns(RuntimeWarning):
        expected = rp.cholesky(a, jitter=1e-3)
    out = a.copy()
    with pytest.warns(RuntimeWarning):
        assert rp.cholesky(out, jitter=1e-3, out=out) is out
    same_bits(out, expected)


def test_jitter_is_silent_where_nothing_fails(backend, dtype):
    a = np.eye(3, dtype=dtype)
    same_bits(rp.cholesky(a, jitter=1e-3), rp.cholesky(a))


@pytest.mark.parametrize("jitter", [0.0, -1.0, np.nan, np.inf])
def test_jitter_must_be_positive(jitter):
    with pytest.raises(ValueError, match="cholesky: jitter must be a finite number > 0, got"):
        rp.cholesky(np.eye(2), jitter=jitter)


def test_cholesky_value_and_vjp(backend, dtype, rng):
    lower = np.tril(rng.standard_normal((5, 3, 3))) + 3 * np.eye(3)
    a, ct = (lower @ lower.swapaxes(-1, -2)).astype(dtype), rng.standard_normal((5, 3, 3)).astype(dtype)
    scale_tril, ct_a = rp.cholesky.value_and_vjp(a, ct)
    same_bits(scale_tril, rp.cholesky(a))
    same_bits(ct_a, rp.cholesky.vjp(scale_tril, ct))
    out = a, ct
    rp.cholesky.value_and_vjp(a, ct, out=out)
    same_bits(out, (scale_tril, ct_a))
    with pytest.raises(TypeError, match=r"out must be a tuple of 2 arrays \(scale_tril, ct_a\)"):
        rp.cholesky.value_and_vjp(a, ct, out=a)


@pytest.mark.parametrize("large", [1e13, 1e17])
def test_a_natural_step_is_clipped_before_it_overflows(large):
    """In float32 the product of L and what it whitens is past 3e38, the clipped step is not."""
    loc, scale_tril, grad_loc = np.zeros(2, "float32"), np.float32([[large, 0], [large, large]]), np.full(2, large)
    grad_scale_tril = np.tril(np.full((2, 2), large))
    given = loc, scale_tril, grad_loc.astype("float32"), grad_scale_tril.astype("float32")
    expected = rp.ops.normal_tril_natural_step.oracle(*(x.astype("float64") for x in given))
    for found, exact in zip(rp.ops.normal_tril_natural_step(*given), expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    scale, grad = (np.full(2, large, "float32") for _ in range(2))
    expected = rp.ops.normal_diag_natural_step.oracle(*(x.astype("float64") for x in (loc, scale, grad, grad)))
    for found, exact in zip(rp.ops.normal_diag_natural_step(loc, scale, grad, grad), expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-5)
