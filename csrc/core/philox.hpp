// SPDX-License-Identifier: MIT
// Philox4x32-10 (Salmon et al. 2011) and the standard normals made from it. The bits are the same on every backend:
// the transform uses + - * / sqrt and exact conversions only, never a fused multiply-add, in the order written here
// and in python/reparam/ops/_normal_transform.py. Each lane owns a stream: block and stream may differ per lane.
// Normals: within 3.2 ULP (float) and 3.3 ULP (double) of the exact transform of the rounded u1 and angle (48 million
// values each, edges included); |z| <= 6.77 and 8.58. About 470 and 160 million a second on one AVX2 core.
#pragma once
#include "math.hpp"

namespace reparam::REPARAM_ARCH {

struct Key {
  uint32_t low, high;
};

// Four words per lane, each in the low half of a 64-bit lane; the high halves hold what the rounds leave there.
template <class Word64>
struct Words {
  Word64 w0, w1, w2, w3;
};

// The block with counter (block low, block high, stream low, stream high).
template <class Word64>
REPARAM_HD Words<Word64> philox_block(Key key, Word64 block, Word64 stream) {
  if constexpr (wider_than_hardware<Word64>) {
    const auto low = philox_block(key, low_half(block), low_half(stream));
    const auto high = philox_block(key, high_half(block), high_half(stream));
    return {join(low.w0, high.w0), join(low.w1, high.w1), join(low.w2, high.w2), join(low.w3, high.w3)};
  } else {
    Words<Word64> c{block, block >> 32, stream, stream >> 32};
    REPARAM_UNROLL
    for (int round = 0; round < 10; ++round) {
      const Word64 product0 = multiply_low_words(c.w0, 0xd2511f53u), product1 = multiply_low_words(c.w2, 0xcd9e8d57u);
      c = {(product1 >> 32) ^ c.w1 ^ Word64(key.low), product1, (product0 >> 32) ^ c.w3 ^ Word64(key.high), product0};
      key.low += 0x9e3779b9u, key.high += 0xbb67ae85u;
    }
    return c;
  }
}

// Raw bits: the four words of one block per lane.
template <class V>
REPARAM_HD void philox_words(Key key, LanesWith<V, uint64_t> block, LanesWith<V, uint64_t> stream,
                             LanesWith<V, uint32_t> words[4]) {
  const auto c = philox_block(key, block, stream);
  words[0] = low_words(c.w0), words[1] = low_words(c.w1), words[2] = low_words(c.w2), words[3] = low_words(c.w3);
}

// ---- Box-Muller --------------------------------------------------------------------------------------------------
// sin and cos of t turns, |t| <= 1/8: 2 pi t + t^3 S(t^2) with 2 pi = high + low, and 1 + t^2 C(t^2). S and C are
// fitted like the series of math.hpp: within 2^-28.0 and 2^-31.2 (float), 2^-58.0 and 2^-61.5 (double) of sin and cos.
template <class T>
struct TurnSeries;
template <>
struct TurnSeries<float> {
  static constexpr float two_pi = 6.2831855f;
  template <class V>
  REPARAM_HD static V sin_tail(V z) {
    return polynomial<Plain>(z, -1.7484556e-07f, -41.341675f, 81.59423f, -75.465744f);
  }
  template <class V>
  REPARAM_HD static V cos(V z) {
    return polynomial<Plain>(z, 1.0f, -19.739208f, 64.93914f, -85.42312f, 58.56117f);
  }
};
template <>
struct TurnSeries<double> {
  static constexpr double two_pi = 6.283185307179586;
  template <class V>
  REPARAM_HD static V sin_tail(V z) {
    return polynomial<Plain>(z, 2.4492935982947064e-16, -41.34170224039968, 81.6052492759699, -76.70585970920139,
                             42.058685554409465, -15.093831870669538, 3.7814180828433197);
  }
  template <class V>
  REPARAM_HD static V cos(V z) {
    return polynomial<Plain>(z, 1.0, -19.739208802178716, 64.93939402266663, -85.45681720595773, 60.244641219098696,
                             -26.426240178958153, 7.902577349524932, -1.6872297127668068);
  }
};

// sqrt(-2 log u1) times the cosine and the sine of an angle: a quarter (the two top bits of `turned`) and t turns.
template <class V>
REPARAM_HD void box_muller(V u1, WordOf<V> turned, V t, V out[2]) {
  using Series = TurnSeries<ElementOf<V>>;
  using Word = WordOf<V>;
  const V radius = square_root(V(0) - V(2) * log_scaled<Plain>(split_exponent(u1), V(0)));  // 0 - 2 log 1 is +0
  const V z = t * t;
  const Word sine = bits_of(t * V(Series::two_pi) + t * Series::sin_tail(z)), cosine = bits_of(Series::cos(z));
  const Word half_turn = sign_bit<V>(), quarter_turn = half_turn >> 1;
  const auto even = (turned & quarter_turn) == Word(0);
  const Word minus_first = (turned + quarter_turn) & half_turn, minus_second = turned & half_turn;
  out[0] = radius * from_bits<V>(select(even, cosine, sine) ^ minus_first);   // quarters 1, 2: minus
  out[1] = radius * from_bits<V>(select(even, sine, cosine) ^ minus_second);  // quarters 2, 3: minus
}

// The pair of normals of a radius word and an angle word, 32 bits each for float ...
template <class V>
REPARAM_HD void normal_pair(LanesWith<V, uint32_t> radius, LanesWith<V, uint32_t> angle, V out[2]) {
  using Word = LanesWith<V, uint32_t>;
  const V high = convert<float>(bit_cast<int32_t>(radius >> 16));
  const V low = convert<float>(bit_cast<int32_t>(radius & Word(0xffff)));
  const V u1 = (high * V(0x1p16f) + low) * V(0x1p-32f) + V(0x1p-33f);
  const V t = convert<float>(bit_cast<int32_t>(angle << 2)) * V(0x1p-34f);  // two bits lost: the distance to a quarter
  box_muller(u1, angle + Word(1u << 29), t, out);
}
// ... and the upper 53 bits of 64 for double.
template <class V>
REPARAM_HD void normal_pair(LanesWith<V, uint64_t> radius, LanesWith<V, uint64_t> angle, V out[2]) {
  using Word = LanesWith<V, uint64_t>;
  const Word low = (radius >> 11) & Word(0xffffffff);
  const V u1 = (small_integer<V>(radius >> 43, 0) * V(0x1p32) + small_integer<V>(low, -1)) * V(0x1p-53);
  const Word turned = (angle >> 11 << 11) + Word(uint64_t(1) << 61);
  const V t = small_integer<V>(turned << 2 >> 13, 0x1p50) * V(0x1p-53);
  box_muller(u1, turned, t, out);
}

// The normals of one block per lane: its words are two pairs for float, one pair for double.
template <class V>
constexpr int normals_per_block = 16 / int(sizeof(ElementOf<V>));

template <class V>
REPARAM_HD void normal_block(Key key, LanesWith<V, uint64_t> block, LanesWith<V, uint64_t> stream, V* out) {
  const auto c = philox_block(key, block, stream);
  if constexpr (sizeof(ElementOf<V>) == 4) {
    normal_pair<V>(low_words(c.w0), low_words(c.w1), out);
    normal_pair<V>(low_words(c.w2), low_words(c.w3), out + 2);
  } else {
    const LanesWith<V, uint64_t> low(0xffffffff);
    normal_pair<V>(c.w1 << 32 | (c.w0 & low), c.w3 << 32 | (c.w2 & low), out);
  }
}

}  // namespace reparam::REPARAM_ARCH
