# SPDX-License-Identifier: MIT
"""Random numbers: Philox4x32-10 by its known answers, the same normals on every backend, addressed by event."""

import mpmath
import numpy as np
import pytest
from scipy import stats

import reparam as rp
from support import LAYOUTS, batch_sizes, same_bits

backend_axis = pytest.mark.usefixtures("backend")
WORD, LAST = 2**32 - 1, 2**64 - 1

OFFICIAL = {  # Random123: counter, key -> block
    ((0, 0, 0, 0), (0, 0)): "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ((WORD,) * 4, (WORD, WORD)): "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)): "d16cfe09 94fdcceb 5001e420 24126ea1",
}
WITNESSES = {  # one word of counter or key set: an all-zero vector cannot see two words exchanged
    ((1, 0, 0, 0), (0, 0)): "f8e4cca4 5cb200db b1a574eb 097eff67",
    ((0, 1, 0, 0), (0, 0)): "6ad0c5ec ea236249 73a459f5 074944b3",
    ((0, 0, 1, 0), (0, 0)): "844515e1 f08d6eaa 0f19c053 83f875f0",
    ((0, 0, 0, 1), (0, 0)): "2dce73e5 1348e23f fcf8e0ec a287aadb",
    ((WORD, 0, 0, 0), (0, 0)): "c5b20a9d 4434ec4e 11bbe4fb 2a1ef7a5",
    ((0, 0, 0, 0), (1, 0)): "e3e80670 e50a0ebc 95f222c0 b615aa27",
    ((0, 0, 0, 0), (0, 1)): "fdde3e0b fa7e58b6 3380ec46 d8d55c4f",
}
SEVEN_ROUNDS = "5f6fb709 0d893f64 4f121f81 4f730a48"  # of zeros: what a wrong number of rounds would give


def philox(counter, key, rounds=10):
    """The block function once more, in Python integers: what all backends are held against."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(rounds):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & WORD, (a >> 32) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


def block(index, stream, key):
    return philox((index & WORD, index >> 32, stream & WORD, stream >> 32), (key & WORD, key >> 32))


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key"), [*OFFICIAL, *WITNESSES])
def test_known_answers_of_the_oracle(counter, key):
    assert philox(counter, key) == words({**OFFICIAL, **WITNESSES}[counter, key])
    assert philox((0,) * 4, (0, 0), rounds=7) == words(SEVEN_ROUNDS)


@backend_axis
@pytest.mark.parametrize(("counter", "key"), WITNESSES)
def test_word_order(counter, key):
    c0, c1, c2, c3 = counter
    offset, stream = 4 * (c0 | c1 << 32), c2 | c3 << 32
    drawn = rp.random.bits(4, key=key[0] | key[1] << 32, stream=stream, offset=offset)
    assert drawn.dtype == np.uint32
    assert drawn.tolist() == words(WITNESSES[counter, key])


@backend_axis
def test_known_answer_of_zeros():
    assert rp.random.bits(4, key=0).tolist() == words("6627e8d5 e169c58d bc57ac4c 9b00dbd8")


@backend_axis
def test_bits_agree_with_the_oracle_on_random_addresses(rng):
    for _ in range(20):
        key, stream = (int(x) for x in rng.integers(0, LAST, 2, dtype=np.uint64))
        first = int(rng.integers(0, 2**61 - 4, dtype=np.uint64))
        expected = np.concatenate([block(first + k, stream, key) for k in range(3)])
        np.testing.assert_array_equal(rp.random.bits(12, key=key, stream=stream, offset=4 * first), expected)


@backend_axis
def test_the_block_index_carries_into_its_high_word():
    first = 2**32 - 2
    expected = np.concatenate([block(first + k, 3, 5) for k in range(4)])
    np.testing.assert_array_equal(rp.random.bits(16, key=5, stream=3, offset=4 * first), expected)


@backend_axis
@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 5, 7, 4 * 2**32 - 3])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 33])
def test_element_i_depends_on_key_stream_and_i_alone(n, offset, dtype):
    whole_bits = rp.random.bits(64, key=9, stream=2, offset=offset // 4 * 4)
    whole = rp.random.normal((64,), key=9, stream=2, offset=offset // 4 * 4, dtype=dtype)
    at = slice(offset % 4, offset % 4 + n)
    same_bits(rp.random.bits(n, key=9, stream=2, offset=offset), whole_bits[at])
    same_bits(rp.random.normal((n,), key=9, stream=2, offset=offset, dtype=dtype), whole[at])


@backend_axis
def test_the_shape_changes_nothing(dtype):
    flat = rp.random.normal((60,), key=4, dtype=dtype)
    same_bits(rp.random.normal((3, 4, 5), key=4, dtype=dtype), flat.reshape(3, 4, 5))
    same_bits(rp.random.normal(60, key=4, dtype=dtype), flat)
    assert rp.random.normal((), key=4, dtype=dtype) == flat[0]
    assert rp.random.normal((0, 3), key=4, dtype=dtype).shape == (0, 3)


def test_dtype_and_like():
    assert rp.random.normal((2,), key=0).dtype == np.float64
    same_bits(
        rp.random.normal((2,), key=0, like=np.zeros(1, np.float32)), rp.random.normal((2,), key=0, dtype="float32")
    )
    same_bits(rp.random.normal((2,), key=0, dtype=np.float32), rp.random.normal((2,), key=0, dtype="float32"))


@backend_axis
@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
def test_normals_have_the_same_bits_everywhere(num_threads, dtype, reference_normals):
    rp.set_num_threads(num_threads)
    same_bits(rp.random.normal((300, 333), key=2**40 + 17, stream=5, dtype=dtype), reference_normals[dtype])


@pytest.fixture(scope="module")
def reference_normals():
    with rp.backend("reference"):
        return {t: rp.random.normal((300, 333), key=2**40 + 17, stream=5, dtype=t) for t in ("float32", "float64")}


@backend_axis
@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
@pytest.mark.parametrize("family", ["diag", "tril"])
def test_an_event_draws_the_same_in_any_batch(family, num_threads, dtype, backend):
    """Event b takes stream index[b], wherever it stands and however many stand beside it."""
    rp.set_num_threads(num_threads)
    d, draws, key = 3, 5, 77
    index = np.array([0, 5, 2**40, 7, 5, 2**63 - 1, *range(100, 2100)])
    expected = np.stack([rp.random.normal((draws, d), key=key, stream=int(b), dtype=dtype) for b in index[:40]], axis=1)
    for batch in {*batch_sizes(backend, dtype), len(index)}:
        drawn = standard(family, (batch,), d, dtype).rsample((draws,), key=key, index=index[:batch])
        same_bits(drawn[:, :40], expected[:, :batch])
    moved = np.random.default_rng(0).permutation(len(index))
    whole = standard(family, index.shape, d, dtype).rsample((draws,), key=key, index=index)
    same_bits(standard(family, index.shape, d, dtype).rsample((draws,), key=key, index=index[moved]), whole[:, moved])


def standard(family, batch, d, dtype):
    """N(0, I), whose draws are the noise itself."""
    loc = np.zeros((*batch, d), dtype)
    if family == "diag":
        return rp.MultivariateNormalDiag(loc, np.ones_like(loc))
    return rp.MultivariateNormal(loc, scale_tril=np.broadcast_to(np.eye(d, dtype=dtype), (*batch, d, d)).copy())


@backend_axis
def test_the_default_index_counts_events_in_c_order(dtype):
    q = standard("tril", (2, 3), 4, dtype)
    same_bits(q.rsample((6,), key=1), q.rsample((6,), key=1, index=np.arange(6).reshape(2, 3)))
    same_bits(q.rsample((6,), key=1)[:, 1, 2], rp.random.normal((6, 4), key=1, stream=5, dtype=dtype))
    same_bits(q.rsample(key=1), q.rsample((6,), key=1)[0])


@backend_axis
@pytest.mark.parametrize("layout", ["unaligned", "byte-swapped", "reversed", "strided", "field of records"])
def test_an_index_may_lie_in_any_layout(layout, dtype):
    index, q = np.array([3, 0, 2**40, 7], np.uint64), standard("tril", (4,), 3, dtype)
    laid = LAYOUTS[layout](index)
    same_bits(laid.astype(np.uint64), index)
    same_bits(q.rsample((2,), key=5, index=laid), q.rsample((2,), key=5, index=index))
    same_bits(transform(rp.random.Draw(5, laid), dtype), transform(rp.random.Draw(5, index), dtype))
    target = rp.targets.Gaussian(np.zeros(3, dtype), np.eye(3, dtype=dtype))
    found, exact = (rp.elbo(q, target, key=5, index=x, num_samples=2) for x in (laid, index))
    same_bits(found.log_weights, exact.log_weights)


def transform(draw, dtype, **keywords):
    scale = np.ones(draw.index.shape, dtype)
    return rp.normal_transform(draw, np.zeros_like(scale), scale, **keywords)


@backend_axis
def test_results_may_lie_over_the_index_of_a_draw():
    buffer = np.arange(65, dtype=np.uint64)
    exact = transform(rp.random.Draw(5, np.arange(64)), np.float64)
    found = buffer.view(np.float64)[1:]
    transform(rp.random.Draw(5, buffer[:-1]), np.float64, out=found)
    same_bits(found, exact)


@backend_axis
def test_both_passes_draw_the_same_whatever_becomes_of_the_index(dtype):
    index, ct = np.arange(8, dtype=np.uint64), np.ones(8, dtype)
    draw, scale = rp.random.Draw(5, index), np.ones(8, dtype)
    noise = transform(draw, dtype)
    index += 100
    same_bits(rp.normal_transform.vjp(draw, np.zeros_like(scale), scale, ct)[2], noise)
    with pytest.raises(ValueError, match="read-only"):
        draw.index[0] = 1


@backend_axis
@pytest.mark.parametrize(("key", "data"), [(0, 0), (1, 2), (2**63 + 11, 2**40 + 3), (LAST, LAST - 1)])
def test_fold_in_is_a_block_of_the_reserved_stream(key, data):
    low, high = block(data, LAST, key)[:2]
    assert rp.random.fold_in(key, data) == low | high << 32
    assert isinstance(rp.random.fold_in(key, data), int)


def test_fold_in_takes_its_data_up_to_the_limit():
    with pytest.raises(ValueError, match="data"):
        rp.random.fold_in(0, LAST)


def test_key_forms():
    expected = rp.random.bits(8, key=5 * 2**32 + 7)
    same_bits(rp.random.bits(8, key=np.array([5, 7], np.uint32)), expected)
    same_bits(rp.random.bits(8, key=np.uint64(5 * 2**32 + 7)), expected)
    generator, twin = np.random.default_rng(3), np.random.default_rng(3)
    same_bits(rp.random.bits(8, key=generator), rp.random.bits(8, key=int(twin.integers(2**64, dtype=np.uint64))))
    assert generator.integers(2**32) == twin.integers(2**32)  # moved on by one draw
    sequence = np.random.SeedSequence(8)
    same_bits(rp.random.bits(8, key=sequence), rp.random.bits(8, key=int(sequence.generate_state(1, np.uint64)[0])))


def exact_normals(w, dtype):
    """The transform in 50 digits, from the rounded u1 and angle that the definition prescribes."""
    if dtype == "float32":
        f = np.float32
        u1 = (f(w[0] >> 16) * f(65536) + f(w[0] & 0xFFFF)) * f(2**-32) + f(2**-33)
        u1, turns = mpmath.mpf(float(u1)), mpmath.mpf(w[1]) / 2**32
    else:
        u1 = mpmath.mpf(((w[1] << 32 | w[0]) >> 11) + 1) / 2**53
        turns = mpmath.mpf((w[3] << 32 | w[2]) >> 11) / 2**53
    radius = mpmath.sqrt(-2 * mpmath.log(u1))
    return radius * mpmath.cospi(2 * turns), radius * mpmath.sinpi(2 * turns)


@backend_axis
def test_the_transform_errs_by_at_most_four_ulp(dtype):
    per_pair, pairs = (2, 1500) if dtype == "float32" else (4, 1500)
    drawn = rp.random.bits(per_pair * pairs, key=123).reshape(pairs, per_pair).tolist()
    normals = rp.random.normal((pairs, 2), key=123, dtype=dtype)
    with mpmath.workdps(50):
        exact = np.array([exact_normals(w, dtype) for w in drawn])
        ulp = np.spacing(np.abs(exact.ravel().astype(dtype))).astype(float)
        error = [abs(float(z) - e) / u for z, e, u in zip(normals.ravel(), exact.ravel(), ulp, strict=True)]
    assert max(error) <= 4


@pytest.fixture(scope="module")
def many_normals():
    return {t: rp.random.normal((10**6,), key=2026, dtype=t).astype(np.float64) for t in ("float32", "float64")}


def test_moments_and_distribution(many_normals, dtype):
    z, n = many_normals[dtype], 10**6
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - mean) < 4.5 * np.sqrt(variance / n)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    for lag in (1, 2, 3, 4):
        assert abs((z[lag:] * z[:-lag]).mean()) < 4.5 / np.sqrt(n)


def test_streams_and_keys_are_independent(dtype):
    """Word 0 of block 0 of many streams, of many keys, and of many folded keys: how models use them."""
    n = 20_000
    by_stream = standard("diag", (n,), 1, dtype).rsample(key=3)[:, 0]
    by_key = np.concatenate([rp.random.normal((1,), key=k, dtype=dtype) for k in range(2000)])
    by_fold = np.concatenate([rp.random.normal((1,), key=rp.random.fold_in(1, k), dtype=dtype) for k in range(2000)])
    for z in (by_stream, by_key, by_fold):
        assert stats.kstest(z.astype(np.float64), "norm").pvalue > 1e-4
        assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 4.5 / np.sqrt(len(z))
