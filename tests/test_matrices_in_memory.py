# SPDX-License-Identifier: MIT
"""To the bit: however matrices travel between memory and lanes, an event's result is what it is in a small batch.

Results that no cache holds are streamed past it; events a multiple of 2048 bytes apart are walked a few lanes at a
time.
"""

import numpy as np
import pytest

import reparam as rp
from support import backend_axis, lanes, same_bits

DISTINCT = 96
native = pytest.mark.parametrize(
    "backend", [b for b in backend_axis() if b not in {"reference", "numba"}], indirect=True
)


def covariances(rng, d, dtype):
    factor = rng.standard_normal((DISTINCT, d, d + 2)).astype(dtype)
    return factor @ factor.swapaxes(-1, -2) + np.eye(d, dtype=dtype)


def away_from_lines(shape, dtype):
    """An array whose rows begin at no line of the cache, and nowhere that vectors like."""
    return np.full(np.prod(shape) + 3, np.nan, dtype)[3:].reshape(shape)


def repeated(x, count):
    return np.resize(x, (count, *x.shape[1:]))


def too_many(d, dtype):
    """Events whose matrices are more than 16 MB, and a tail."""
    return int(18e6 / (d * d * np.dtype(dtype).itemsize)) // 16 * 16 + 5


@native
@pytest.mark.parametrize("d", [3, 8, 16, 32])
def test_results_that_no_cache_holds(d, backend, rng, dtype):
    a, ct = covariances(rng, d, dtype), rng.standard_normal((DISTINCT, d, d)).astype(dtype)
    value, loc = rng.standard_normal((2, DISTINCT, d)).astype(dtype)
    count, ones = too_many(d, dtype), np.ones(DISTINCT, dtype)
    assert count % lanes(backend, dtype) or lanes(backend, dtype) == 1
    out = away_from_lines((count, d, d), dtype)
    factors = rp.cholesky(a)
    rp.cholesky(repeated(a, count), out=out)
    same_bits(out, repeated(factors, count))
    expected = rp.cholesky.vjp(factors, ct)
    rp.cholesky.vjp(repeated(factors, count), repeated(ct, count), out=out)  # symmetric
    same_bits(out, repeated(expected, count))
    expected = rp.normal_tril_log_prob.vjp(value, loc, factors, ones)[2]
    operands = [repeated(x, count) for x in (value, loc, factors, ones)]
    rp.normal_tril_log_prob.vjp(*operands, out=(np.empty_like(operands[0]), np.empty_like(operands[0]), out))
    same_bits(out, repeated(expected, count))


@native
def test_results_that_no_cache_holds_in_rows_of_their_own(backend, rng):
    """The innermost batch dim is shorter than a pack, so a pack spans rows, which lie apart."""
    d, dtype = 8, "float32"
    a = covariances(rng, d, dtype)
    count = too_many(d, dtype) // 5 + 1
    room = np.full((count, 7, d, d), np.nan, dtype)
    rp.cholesky(repeated(a, 5 * count).reshape(count, 5, d, d), out=room[:, 1:6])
    same_bits(room[:, 1:6].reshape(-1, d, d), repeated(rp.cholesky(a), 5 * count))
    assert np.isnan(room[:, [0, 6]]).all()


@native
@pytest.mark.parametrize("apart", [2048, 4096, 8192])
@pytest.mark.parametrize("d", [3, 4, 9, 16, 20])
def test_events_that_crowd_into_few_sets_of_a_cache(d, apart, backend, rng, dtype):
    a, ct = covariances(rng, d, dtype), rng.standard_normal((DISTINCT, d, d)).astype(dtype)
    step = apart // np.dtype(dtype).itemsize
    if step < d * d:
        step *= 2

    def crowded(x):
        room = np.full((DISTINCT, step), np.nan, dtype)
        view = room[:, : d * d].reshape(DISTINCT, d, d)
        view[:] = x
        return room, view

    factors, (room, out) = rp.cholesky(a), crowded(0)
    rp.cholesky(crowded(a)[1], out=out)
    same_bits(out, factors)
    expected = rp.cholesky.vjp(factors, ct)
    rp.cholesky.vjp(crowded(factors)[1], crowded(ct)[1], out=out)
    same_bits(out, expected)
    assert np.isnan(room[:, d * d :]).all()
