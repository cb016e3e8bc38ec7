# SPDX-License-Identifier: MIT
"""The three families, made in every way: against SciPy, torch and exact formulas, and the same draws in any shape."""

import copy
import itertools
import pickle
import re
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import reparam as rp
from reparam.distributions import matrix_cotangent
from support import UNIT, complex_outputs, factor, same_bits

BATCH, D, KEY = (2, 3), 3, 2**40 + 7
FORMS = ("scalar", "diag", "tril", "packed", "covariance", "precision")
FULL = FORMS[2:]
OWNER = {"scalar": "Normal", "diag": "MultivariateNormalDiag", **dict.fromkeys(FULL, "MultivariateNormal")}
PAIRS = list(itertools.product(FORMS[1:], FORMS[1:]))

backend_axis = pytest.mark.usefixtures("backend")
form_axis = pytest.mark.parametrize("form", FORMS)


def pack(matrix):
    return matrix[(..., *np.tril_indices(matrix.shape[-1]))]


def make(form, loc, lower):
    """Ours, of arrays of vector events: of scalar events the first coordinate."""
    if form == "scalar":
        return rp.Normal(loc[..., 0], lower[..., 0, 0])
    if form == "diag":
        return rp.MultivariateNormalDiag(loc, np.diagonal(lower, axis1=-2, axis2=-1))
    if form == "tril":
        return rp.MultivariateNormal(loc, scale_tril=lower)
    if form == "packed":
        return rp.MultivariateNormal(loc, scale_tril=pack(lower), packed=True)
    covariance = lower.astype(np.float64) @ lower.swapaxes(-1, -2).astype(np.float64)
    if form == "covariance":
        return rp.MultivariateNormal(loc, covariance_matrix=covariance.astype(loc.dtype))
    return rp.MultivariateNormal(loc, precision_matrix=np.linalg.inv(covariance).astype(loc.dtype))


def problem(form, rng, dtype="float64", batch=BATCH):
    """Ours; the same as mean and covariance of vector events in float64; values of its event shape."""
    loc, lower = rng.standard_normal((*batch, D)).astype(dtype), factor(rng, batch, D).astype(dtype)
    value = rng.standard_normal((4, *batch, D)).astype(dtype)
    if form == "scalar":
        loc, lower, value = loc[..., :1], lower[..., :1, :1], value[..., :1]
    if form == "diag":
        lower = lower * np.eye(D, dtype=dtype)
    q = make(form, loc, lower)
    covariance = lower.astype(np.float64) @ lower.swapaxes(-1, -2).astype(np.float64)
    return SimpleNamespace(
        q=q, value=value.reshape(4, *batch, *q.event_shape), rows=value, loc=loc.astype(np.float64),
        covariance=covariance, batch=batch,
    )  # fmt: skip


def close(actual, expected, dtype):
    """To rounding: conditions of these covariances are below 300."""
    assert np.asarray(actual).dtype == dtype
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=300 * UNIT[dtype] * np.abs(expected).max(initial=1))


# ---- what it says about itself


@backend_axis
@form_axis
def test_moments_are_those_of_the_fields(form, dtype, rng):
    p = problem(form, rng, dtype)
    variance = np.diagonal(p.covariance, axis1=-2, axis2=-1)
    assert type(p.q).__name__ == OWNER[form]
    assert p.q.batch_shape == BATCH
    assert p.q.event_shape == (() if form == "scalar" else (D,))
    assert p.q.dtype == dtype
    close(p.q.mean, p.loc.reshape(p.q.mean.shape), dtype)
    close(p.q.variance, variance.reshape(p.q.mean.shape), dtype)
    close(p.q.stddev, np.sqrt(variance).reshape(p.q.mean.shape), dtype)
    close(p.q.covariance_matrix, p.covariance, dtype)
    if form in FULL:
        close(p.q.precision_matrix, np.linalg.inv(p.covariance), dtype)


@backend_axis
@form_axis
def test_entropy_and_density_are_those_of_scipy(form, dtype, rng):
    p = problem(form, rng, dtype)
    entropy, log_prob = np.empty(BATCH), np.empty((4, *BATCH))
    for b in np.ndindex(*BATCH):
        theirs = stats.multivariate_normal(p.loc[b], p.covariance[b])
        entropy[b] = theirs.entropy()
        log_prob[(..., *b)] = theirs.logpdf(p.rows[(slice(None), *b)])
    close(p.q.entropy(), entropy, dtype)
    close(p.q.log_prob(p.value), log_prob, dtype)


def theirs_of(torch, p):
    """The same Gaussian of torch, made of the very field that ours was made of."""
    normal, field = torch.distributions.Normal, p.q._made_from
    if isinstance(p.q, rp.Normal):
        return normal(torch.tensor(p.q.loc), torch.tensor(p.q.scale))
    if isinstance(p.q, rp.MultivariateNormalDiag):
        return torch.distributions.Independent(normal(torch.tensor(p.q.loc), torch.tensor(p.q.scale_diag)), 1)
    matrix = {
        "scale_tril": np.linalg.cholesky(p.covariance),
        "covariance_matrix": p.covariance,
        "precision_matrix": np.linalg.inv(p.covariance),
    }[field]
    return torch.distributions.MultivariateNormal(torch.tensor(p.q.loc), **{field: torch.tensor(matrix)})


@form_axis
def test_everything_is_what_torch_says(form, rng):
    torch = pytest.importorskip("torch")
    p = problem(form, rng)
    theirs = theirs_of(torch, p)
    assert (p.q.batch_shape, p.q.event_shape) == (theirs.batch_shape, theirs.event_shape)
    for name in ("mean", "variance", "stddev"):
        close(getattr(p.q, name), getattr(theirs, name).numpy(), "float64")
    close(p.q.entropy(), theirs.entropy().numpy(), "float64")
    close(p.q.log_prob(p.value), theirs.log_prob(torch.tensor(p.value)).numpy(), "float64")
    if form in FULL:
        for name in ("covariance_matrix", "precision_matrix"):
            close(getattr(p.q, name), getattr(theirs, name).numpy(), "float64")


@backend_axis
@pytest.mark.parametrize("form", FULL)
@pytest.mark.parametrize("d", [0, 1, 2, 7, 20])
def test_the_factor_of_a_covariance_or_a_precision(form, d, dtype, rng):
    lower = factor(rng, BATCH, d).astype(dtype)
    q = make(form, rng.standard_normal((*BATCH, d)).astype(dtype), lower)
    actual = q.scale_tril if form != "packed" else unpacked(q.scale_tril, d)
    condition = (np.linalg.norm(lower, axis=(-2, -1)) * np.linalg.norm(np.linalg.inv(lower), axis=(-2, -1))) ** 2
    error = np.abs(actual - lower).max(axis=(-2, -1), initial=0)
    assert (error <= 8 * (1 + d) * UNIT[dtype] * np.maximum(1, condition)).all()
    same_bits(actual, np.tril(actual))


def unpacked(packed, d):
    dense = np.zeros((*packed.shape[:-1], d, d), packed.dtype)
    dense[(..., *np.tril_indices(d))] = packed
    return dense


# ---- broadcasting, views, nothing in it


@backend_axis
@form_axis
def test_loc_and_scale_broadcast(form, dtype, rng):
    loc, lower = rng.standard_normal((2, 1, D)).astype(dtype), factor(rng, (3,), D).astype(dtype)
    q = make(form, loc, lower)
    whole = make(form, np.broadcast_to(loc, (2, 3, D)).copy(), np.broadcast_to(lower, (2, 3, D, D)).copy())
    value = rng.standard_normal((5, 2, 3, *q.event_shape)).astype(dtype)
    assert q.batch_shape == (2, 3)
    for name in ("mean", "variance", "stddev", "covariance_matrix"):
        same_bits(getattr(q, name), getattr(whole, name))
    same_bits(q.entropy(), whole.entropy())
    same_bits(q.log_prob(value), whole.log_prob(value))
    same_bits(q.rsample(key=KEY), whole.rsample(key=KEY))
    same_bits(q.rsample_and_log_prob((4,), key=KEY), whole.rsample_and_log_prob((4,), key=KEY))


@backend_axis
@pytest.mark.parametrize(("form", "d", "batch"), [
    *((form, D, (0,)) for form in FORMS), *((form, 0, (2,)) for form in FORMS if form != "scalar"),
])  # fmt: skip
def test_empty_batches_and_events(form, d, batch, dtype):
    q = make(form, np.zeros((*batch, d), dtype), np.broadcast_to(np.eye(d, dtype=dtype), (*batch, d, d)))
    event = q.event_shape
    assert (q.batch_shape, event) == (batch, () if form == "scalar" else (d,))
    assert q.variance.shape == q.stddev.shape == q.mean.shape == (*batch, *event)
    assert q.covariance_matrix.shape == (*batch, *(event or (1,)) * 2)
    for zero in (q.log_prob(np.zeros((4, *batch, *event), dtype))[0], q.entropy(), rp.kl_divergence(q, q)):
        np.testing.assert_array_equal(zero, np.zeros(batch, dtype), strict=True)
    assert q.rsample((4,), key=KEY).shape == (4, *batch, *event)
    assert q.rsample_and_log_prob(key=KEY)[1].shape == batch


@form_axis
def test_one_event_without_a_batch_gives_numbers(form, rng):
    p = problem(form, rng, batch=())
    results = [
        p.q.entropy(),
        p.q.log_prob(p.value[0]),
        p.q.rsample_and_log_prob(key=KEY)[1],
        rp.kl_divergence(p.q, p.q),
    ]
    results += [p.q.mean, p.q.variance, p.q.stddev, p.q.rsample(key=KEY)] if form == "scalar" else []
    assert {type(x) for x in results} == {np.float64}


@form_axis
def test_arrays_are_kept_and_not_copied_or_changed(form, rng):
    loc, lower = rng.standard_normal((*BATCH, D)), factor(rng, BATCH, D)
    before = loc.copy(), lower.copy()
    q = make(form, loc, lower)
    assert np.shares_memory(q.loc, loc)
    if form in {"scalar", "diag", "tril"}:
        assert np.shares_memory(q._scale, lower)
    q.log_prob(np.zeros(q.event_shape))
    q.rsample((3,), key=KEY)
    rp.kl_divergence(q, q)
    same_bits((loc, lower), before)


@backend_axis
def test_a_packed_factor_gives_the_bits_of_a_dense_one(dtype, rng):
    loc, lower = rng.standard_normal((*BATCH, D)).astype(dtype), factor(rng, BATCH, D).astype(dtype)
    value = rng.standard_normal((5, *BATCH, D)).astype(dtype)
    dense, packed = make("tril", loc, lower), make("packed", loc, lower)
    same_bits(packed.scale_tril, pack(lower))
    for name in ("mean", "variance", "stddev", "covariance_matrix", "precision_matrix"):
        same_bits(getattr(packed, name), getattr(dense, name))
    same_bits(packed.entropy(), dense.entropy())
    same_bits(packed.log_prob(value), dense.log_prob(value))
    same_bits(packed.rsample((4,), key=KEY), dense.rsample((4,), key=KEY))
    same_bits(packed.rsample_and_log_prob(key=KEY), dense.rsample_and_log_prob(key=KEY))


@pytest.mark.parametrize(("loc", "scale", "dtype"), [
    (0.0, 1.0, "float64"),
    (0, 1, "float64"),
    (np.float32(0), 1.5, "float32"),
    (0, np.ones(3, "f4"), "float32"),
    (np.zeros((2, 1), "f4"), 2, "float32"),
    (np.zeros(3), 1.0, "float64"),
    (np.float64(0), 1, "float64"),
])  # fmt: skip
def test_python_numbers_take_the_dtype_of_the_other(loc, scale, dtype):
    q = rp.Normal(loc, scale)
    shape = np.broadcast_shapes(np.shape(loc), np.shape(scale))
    assert {x.dtype for x in (q.loc, q.scale, q.mean, q.rsample(key=0), q.log_prob(1), q.entropy())} == {
        np.dtype(dtype)
    }
    assert q.batch_shape == q.mean.shape == q.log_prob(0.5).shape == shape
    np.testing.assert_allclose(q.log_prob(0.5), stats.norm(loc, scale).logpdf(0.5), rtol=8 * UNIT[dtype])


# ---- draws


@backend_axis
@form_axis
@pytest.mark.parametrize("index", [None, np.array([[5, 0, 2**63], [7, 7, 1]], np.uint64)], ids=["counted", "given"])
def test_draws_transform_the_normals_of_their_streams(form, index, dtype, rng):
    q = problem(form, rng, dtype).q
    streams = np.arange(6).reshape(BATCH) if index is None else index
    d = 1 if form == "scalar" else D
    noise = np.empty((4, *BATCH, d), dtype)
    for b in np.ndindex(*BATCH):
        noise[(slice(None), *b)] = rp.random.normal((4, d), key=KEY, stream=int(streams[b]), dtype=dtype)
    keywords = {"packed": True} if form == "packed" else {}
    transform = rp.OPS["normal_transform" if form == "scalar" else f"normal_{q._family}_transform"]
    expected = transform(noise.reshape(4, *BATCH, *q.event_shape), q.loc, q._scale, **keywords)
    same_bits(q.rsample((4,), key=KEY, index=index), expected)
    same_bits(q.rsample(4, key=KEY, index=index), expected)
    same_bits(q.rsample((2, 2), key=KEY, index=index), expected.reshape(2, 2, *expected.shape[1:]))
    same_bits(q.rsample((1,), key=KEY, index=index), expected[:1])
    same_bits(q.rsample(key=KEY, index=index), expected[0])
    assert q.rsample((0, 2), key=KEY, index=index).shape == (0, 2, *expected.shape[1:])


@backend_axis
@form_axis
@pytest.mark.parametrize("sample_shape", [(), (1,), (2, 2)])
def test_draws_come_with_their_density(form, sample_shape, dtype, rng):
    q = problem(form, rng, dtype).q
    value, log_prob = q.rsample_and_log_prob(sample_shape, key=KEY)
    same_bits(value, q.rsample(sample_shape, key=KEY))
    close(log_prob, q.log_prob(value).astype(np.float64), dtype)


@form_axis
def test_draws_have_the_moments(form, rng):
    p = problem(form, rng)
    z = p.q.rsample((40_000,), key=KEY).reshape(40_000, *p.rows.shape[1:])
    error = z - p.loc
    spread = np.sqrt(np.diagonal(p.covariance, axis1=-2, axis2=-1))
    assert np.abs(error.mean(0) / spread).max() < 4.5 / 200
    estimate = np.einsum("s...i,s...j->...ij", error, error) / 40_000 / (spread[..., None] * spread[..., None, :])
    correlation = p.covariance / (spread[..., None] * spread[..., None, :])
    assert np.abs(estimate - correlation).max() < 4.5 * np.sqrt(2) / 200


@form_axis
def test_the_noise_of_one_draw_is_not_stored(form):
    d, batch = (1, 200_000) if form == "scalar" else (16, 20_000)
    q = make(form, np.zeros((batch, d)), np.broadcast_to(np.eye(d), (batch, d, d)))
    with rp.backend("native"):
        tracemalloc.start()
        value = q.rsample(key=KEY)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    index = 8 * batch
    assert peak < value.nbytes + index + 0.1 * value.nbytes


# ---- divergence


def exact_kl(a, b):
    """From covariances, with inverse and determinant."""
    inverse = np.linalg.inv(b.covariance)
    difference = b.loc - a.loc
    squares = np.einsum("...ij,...ji", inverse, a.covariance) + np.einsum(
        "...i,...ij,...j", difference, inverse, difference
    )
    return 0.5 * (squares - a.loc.shape[-1] + np.linalg.slogdet(b.covariance)[1] - np.linalg.slogdet(a.covariance)[1])


@backend_axis
@pytest.mark.parametrize(("form", "other"), [("scalar", "scalar"), *PAIRS])
def test_divergence_of_every_pair(form, other, dtype, rng):
    a, b = problem(form, rng, dtype, (2, 1)), problem(other, rng, dtype, (3,))
    kl = rp.kl_divergence(a.q, b.q)
    close(kl, exact_kl(a, b), dtype)
    assert (kl > 0).all()


@pytest.mark.parametrize(("form", "other"), [("scalar", "scalar"), *PAIRS])
def test_divergence_is_that_of_torch(form, other, rng):
    torch = pytest.importorskip("torch")
    a, b = problem(form, rng), problem(other, rng)

    def full(p):
        return torch.distributions.MultivariateNormal(torch.tensor(p.loc), torch.tensor(p.covariance))

    theirs = torch.distributions.kl_divergence(full(a), full(b))
    close(rp.kl_divergence(a.q, b.q), theirs.numpy(), "float64")


@backend_axis
@form_axis
def test_divergence_to_itself_is_zero(form, dtype, rng):
    q = problem(form, rng, dtype).q
    same_bits(rp.kl_divergence(q, q), np.zeros(BATCH, dtype))


@backend_axis
@pytest.mark.parametrize("form", ["tril", "packed"])
def test_divergence_to_its_twin_of_another_family_is_zero(form, dtype, rng):
    loc, lower = rng.standard_normal((*BATCH, D)).astype(dtype), factor(rng, BATCH, D) * np.eye(D)
    diag, full = make("diag", loc, lower.astype(dtype)), make(form, loc, lower.astype(dtype))
    same_bits(rp.kl_divergence(diag, full), np.zeros(BATCH, dtype))
    same_bits(rp.kl_divergence(full, diag), np.zeros(BATCH, dtype))


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("swap", [False, True])
def test_divergence_of_scalar_and_vector_events_is_refused(form, swap, rng):
    pair = [problem("scalar", rng, batch=(3,)).q, problem(form, rng, batch=()).q]
    q, p = reversed(pair) if swap else pair
    message = f"kl_divergence: event shapes differ: q has {q.event_shape}, p has {p.event_shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rp.kl_divergence(q, p)


# ---- gradients to a covariance or a precision


def complex_factor(matrix, form):
    """L of a complex symmetric covariance or precision, analytic in its entries."""
    covariance = np.linalg.inv(matrix) if form == "precision" else matrix
    return np.tril(complex_outputs(rp.OPS["cholesky_ex"], [covariance], matrix.shape[-1], {})[0])


@backend_axis
@pytest.mark.parametrize("form", ["covariance", "precision"])
@pytest.mark.parametrize("d", [1, 3, 8])
def test_the_cotangent_of_the_matrix_is_the_derivative(form, d, rng):
    """Against the complex step in every symmetric direction, for any cotangent of the factor."""
    lower = factor(rng, (5,), d)
    q = make(form, np.zeros(d), lower)
    covariance = lower @ lower.swapaxes(-1, -2)
    matrix = covariance if form == "covariance" else np.linalg.inv(covariance)
    ct_scale_tril = np.where(np.tri(d) == 1, rng.standard_normal((5, d, d)), np.nan)  # not read above the diagonal
    actual = matrix_cotangent(q, ct_scale_tril)
    expected = np.empty((5, d, d))
    for i, j in np.ndindex(d, d):
        direction = np.zeros((d, d))
        direction[i, j] += 0.5
        direction[j, i] += 0.5
        moved = complex_factor(matrix + 1e-30j * direction, form).imag / 1e-30
        expected[:, i, j] = (np.tril(ct_scale_tril) * moved).sum((-1, -2))
    assert np.abs(actual - expected).max() <= 1e-9 * np.abs(expected).max()
    same_bits(actual, np.ascontiguousarray(actual.swapaxes(-1, -2)))


@pytest.mark.parametrize("field", ["covariance_matrix", "precision_matrix"])
def test_the_cotangent_of_the_matrix_is_that_of_torch(field, rng):
    torch = pytest.importorskip("torch")
    lower, ct = factor(rng, BATCH, D), np.tril(rng.standard_normal((*BATCH, D, D)))
    matrix = lower @ lower.swapaxes(-1, -2)
    leaf = torch.tensor(matrix, requires_grad=True)
    symmetric = (leaf + leaf.mT) / 2
    covariance = symmetric if field == "covariance_matrix" else torch.linalg.inv(symmetric)
    (torch.linalg.cholesky(covariance) * torch.tensor(ct)).sum().backward()
    actual = matrix_cotangent(rp.MultivariateNormal(np.zeros(D), **{field: matrix}), ct)
    np.testing.assert_allclose(actual, leaf.grad.numpy(), rtol=0, atol=1e-9 * np.abs(leaf.grad.numpy()).max())


@pytest.mark.parametrize("form", ["covariance", "precision"])
def test_the_cotangent_keeps_the_dtype_and_its_accuracy(form, rng):
    lower, ct = factor(rng, (50,), 6), rng.standard_normal((50, 6, 6))
    single = matrix_cotangent(make(form, np.zeros(6, "f4"), lower.astype("f4")), ct.astype("f4"))
    double = matrix_cotangent(make(form, np.zeros(6), lower), ct)
    assert single.dtype == np.float32
    condition = np.linalg.cond(lower) ** 2
    error = np.abs(single - double).max(axis=(-1, -2)) / np.abs(double).max(axis=(-1, -2))
    assert (error <= 100 * 6 * UNIT["float32"] * condition).all()


# ---- what is refused

LOC, EYE = np.zeros((2, 3)), np.eye(3)


@pytest.mark.parametrize(("loc", "scale", "error", "message"), [
    (None, 1.0, TypeError, "loc must be an array or a number, got NoneType"),
    ("0", 1.0, TypeError, "loc must be an array or a number, got str"),
    (True, 1.0, TypeError, "loc must be an array or a number, got bool"),
    ([0.0], 1.0, TypeError, "loc must be an array or a number, got list"),
    (0.0, [1.0], TypeError, "scale must be an array or a number, got list"),
    (0.0, 1j, TypeError, "scale must be an array or a number, got complex"),
    (np.zeros(3, int), 1.0, TypeError, "loc must be float32 or float64, got int64; convert it with .astype"),
    (0.0, np.float16(1), TypeError, "scale must be float32 or float64, got float16; convert it with .astype"),
    (np.zeros(3), np.ones(3, "f4"), TypeError, "loc is float64 and scale is float32; they must have one dtype"),
    (np.zeros(3), np.ones(2), ValueError, "batch shapes do not broadcast: loc (3,), scale (2,)"),
    (np.array([0.0, np.nan]), 1.0, ValueError, "loc must be finite, got nan at [1]"),
    (0.0, np.array([1.0, np.inf]), ValueError, "scale must be finite, got inf at [1]"),
    (0.0, np.array([[1.0, 0.0]]), ValueError, "scale must be > 0, got 0.0 at [0, 1]"),
    (0.0, -1.0, ValueError, "scale must be > 0, got -1.0"),
    (0, 0, ValueError, "scale must be > 0, got 0.0"),
    (np.zeros(3, "f4"), 1e39, ValueError, "scale must be within the range of float32, got 1e+39"),
])  # fmt: skip
def test_a_normal_of_other_fields_is_refused(loc, scale, error, message):
    with pytest.raises(error, match=f"^{re.escape(f'Normal: {message}')}$"):
        rp.Normal(loc, scale)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_refused(number):
    for name, fields in [("loc", (number, 1.0)), ("scale", (0.0, number))]:
        with pytest.raises(ValueError, match=f"^Normal: {name} must be finite, got {number}"):
            rp.Normal(*fields)


@pytest.mark.parametrize(("keywords", "error", "message"), [
    ({"scale_tril": EYE, "packed": 1}, TypeError, "MultivariateNormal: packed must be True or False, got 1"),
    ({"packed": True}, TypeError,
     "MultivariateNormal takes exactly one of scale_tril, covariance_matrix, precision_matrix, got none"),
    ({"covariance_matrix": EYE, "packed": True}, TypeError,
     "MultivariateNormal: packed=True goes with scale_tril alone, got covariance_matrix"),
    ({"precision_matrix": pack(EYE), "packed": True}, TypeError,
     "MultivariateNormal: packed=True goes with scale_tril alone, got precision_matrix"),
    ({"scale_tril": pack(EYE)}, ValueError,
     "MultivariateNormal: scale_tril must have shape (..., d, d) with d = 3 (from loc), got (6,)"),
    ({"scale_tril": EYE, "packed": True}, ValueError,
     "MultivariateNormal: scale_tril must have shape (..., d(d+1)/2) with d = 3 (from loc), got (3, 3)"),
    ({"scale_tril": np.ones(10), "packed": True}, ValueError,
     "MultivariateNormal: scale_tril must have shape (..., d(d+1)/2) with d = 3 (from loc), got (10,)"),
    ({"scale_tril": np.ones((5, 6)), "packed": True}, ValueError,
     "MultivariateNormal: batch shapes do not broadcast: loc (2,), scale_tril (5,)"),
    ({"scale_tril": np.ones(6, "f4"), "packed": True}, TypeError,
     "MultivariateNormal: loc is float64 and scale_tril is float32; they must have one dtype"),
    ({"scale_tril": np.array([1, np.nan, 1, 0, 0, 1]), "packed": True}, ValueError,
     "MultivariateNormal: scale_tril must be finite, got nan at [1]"),
    ({"scale_tril": np.array([[1.0, 9, 1, 9, 9, 1], [1, 9, 1, 9, 9, -2]]), "packed": True}, ValueError,
     "MultivariateNormal: the diagonal of scale_tril must be > 0, got -2.0 at [1, 2]"),
])  # fmt: skip
def test_a_packed_factor_that_does_not_fit_is_refused(keywords, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        rp.MultivariateNormal(LOC, **keywords)


@pytest.mark.parametrize(
    "q", [rp.MultivariateNormalDiag(LOC, np.ones(3)), rp.MultivariateNormal(LOC, scale_tril=EYE)], ids=repr
)
def test_a_value_of_another_batch_is_refused_by_the_distribution(q):
    message = f"{type(q).__name__}: batch shapes do not broadcast: value (4,), batch_shape (2,)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        q.log_prob(np.zeros((4, 3)))


@pytest.mark.parametrize(("value", "error", "message"), [
    (None, TypeError, "Normal: value must be an array or a number, got NoneType"),
    ([0.0], TypeError, "Normal: value must be an array or a number, got list"),
    (np.zeros(2, int), TypeError, "Normal: value must be float32 or float64, got int64; convert it with .astype"),
    (np.zeros(2, "f4"), TypeError, "Normal: value is float32 and loc is float64; they must have one dtype"),
    (np.zeros(3), ValueError, "Normal: batch shapes do not broadcast: value (3,), batch_shape (2,)"),
])  # fmt: skip
def test_a_value_of_scalar_events_that_does_not_fit_is_refused(value, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        rp.Normal(np.zeros(2), 1.0).log_prob(value)


# ---- the object


@form_axis
def test_it_is_frozen(form, rng):
    q = problem(form, rng).q
    for name in ("loc", "_scale", "batch_shape", "other"):
        with pytest.raises(AttributeError, match=f"^{OWNER[form]} is frozen"):
            setattr(q, name, 1)
        with pytest.raises(AttributeError, match=f"^{OWNER[form]} is frozen"):
            delattr(q, name)


@form_axis
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
def test_copies_and_pickles_are_whole(form, again, rng):
    q = problem(form, rng).q
    twin = again(q)
    assert repr(twin) == repr(q)
    assert twin._made_from == q._made_from
    same_bits(twin.rsample_and_log_prob((2,), key=KEY), q.rsample_and_log_prob((2,), key=KEY))


@form_axis
def test_what_is_trusted_is_the_same(form, rng):
    q = problem(form, rng).q
    packed = {"packed": True} if form == "packed" else {}
    twin = type(q).trusted(q.loc, q._scale, **packed)
    assert repr(twin) == repr(q)
    assert twin.loc is q.loc
    same_bits(twin.log_prob(q.mean), q.log_prob(q.mean))


@pytest.mark.parametrize(("q", "text"), [
    (rp.Normal(0.0, 1.0), "Normal(batch_shape=(), event_shape=(), dtype=float64)"),
    (rp.Normal(np.zeros(2, "f4"), 1), "Normal(batch_shape=(2,), event_shape=(), dtype=float32)"),
    (rp.MultivariateNormalDiag(LOC, np.ones(3)),
     "MultivariateNormalDiag(batch_shape=(2,), event_shape=(3,), dtype=float64)"),
    (rp.MultivariateNormal(LOC, scale_tril=EYE),
     "MultivariateNormal(batch_shape=(2,), event_shape=(3,), dtype=float64)"),
    (rp.MultivariateNormal(LOC, scale_tril=pack(EYE), packed=True),
     "MultivariateNormal(batch_shape=(2,), event_shape=(3,), dtype=float64, packed=True)"),
], ids=lambda x: x if isinstance(x, str) else "")  # fmt: skip
def test_repr_is_short(q, text):
    assert repr(q) == text
