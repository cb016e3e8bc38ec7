// SPDX-License-Identifier: MIT
#pragma once
#include "lanes.hpp"

namespace reparam::REPARAM_ARCH {

// ---- arithmetic shared by all functions --------------------------------------------------------------------------
// How a b + c is formed. Plain gives the same bits on every backend (the normal transform of philox.hpp); Fused is
// mul_add: faster and a little more accurate where the arch has it.
struct Plain {
  template <class V> static REPARAM_HD V mul_add(V a, V b, V c) { return a * b + c; }
};
struct Fused {
  template <class V> static REPARAM_HD V mul_add(V a, V b, V c) { return REPARAM_ARCH::mul_add(a, b, c); }
};

// c0 + c1 x + c2 x^2 + ..., by Horner's rule.
template <class Step, class V>
REPARAM_HD V polynomial(V, ElementOf<V> c0) { return V(c0); }
template <class Step, class V, class... C>
REPARAM_HD V polynomial(V x, ElementOf<V> c0, C... c) {
  return Step::mul_add(x, polynomial<Step>(x, c...), V(c0));
}

// The IEEE format of T: its word of the same size, mantissa bits, exponent bias.
template <class T> struct Format;
template <> struct Format<float> {
  using Word = uint32_t;
  static constexpr int mantissa = 23;
  static constexpr Word bias = 127, one = 0x3f800000, sqrt_half = 0x3f3504f3;
  static constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  static constexpr float ln2_high = 0x1.62e3p-1f, ln2_low = 0x1.2fefa2p-17f;  // high is short: k high is exact
  static constexpr float epsilon = 0x1p-24f, min_normal = 0x1p-126f, infinity = __builtin_inff(), nan = __builtin_nanf("");
};
template <> struct Format<double> {
  using Word = uint64_t;
  static constexpr int mantissa = 52;
  static constexpr Word bias = 1023, one = 0x3ff0000000000000, sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double epsilon = 0x1p-53, min_normal = 0x1p-1022, infinity = __builtin_inf(), nan = __builtin_nan("");
};
template <class V>
using WordElementOf = typename Format<ElementOf<V>>::Word;
template <class V>
using WordOf = LanesWith<V, WordElementOf<V>>;

// The integer n in [0, 2^mantissa) as a value, exactly, without a conversion instruction (AVX2 has none for 64 bits).
template <class V>
REPARAM_HD V small_integer(WordOf<V> n) {
  using F = Format<ElementOf<V>>;
  constexpr typename F::Word two_to_mantissa = (F::bias + F::mantissa) << F::mantissa;
  return bit_cast<ElementOf<V>>(n | two_to_mantissa) - V(ElementOf<V>(typename F::Word(1) << F::mantissa));
}

template <class V>
REPARAM_HD WordOf<V> sign_bit() {
  return WordOf<V>(WordElementOf<V>(1) << (8 * sizeof(ElementOf<V>) - 1));
}
template <class V>
REPARAM_HD V absolute(V x) {
  return bit_cast<ElementOf<V>>(bit_cast<WordElementOf<V>>(x) & (sign_bit<V>() - WordOf<V>(1)));
}
template <class V>
REPARAM_HD V copy_sign(V magnitude, V x) {  // magnitude >= 0
  return bit_cast<ElementOf<V>>(bit_cast<WordElementOf<V>>(magnitude) | (bit_cast<WordElementOf<V>>(x) & sign_bit<V>()));
}

// ---- logarithm ---------------------------------------------------------------------------------------------------
template <class T> struct LogSeries;
template <> struct LogSeries<float> {
  template <class Step, class V> static REPARAM_HD V at(V z) {
    return polynomial<Step>(z, 0.66666776f, 0.39977583f, 0.29870796f);
  }
};
template <> struct LogSeries<double> {
  template <class Step, class V> static REPARAM_HD V at(V z) {
    return polynomial<Step>(z, 0.6666666666666734, 0.39999999999416647, 0.2857142874202624, 0.22222198605298993,
                            0.18183562836985048, 0.15314085238708422, 0.14795629105132813);
  }
};

// x = 2^exponent (1 + fraction), 1 + fraction in [sqrt(1/2), sqrt(2)), for a positive normal finite x.
template <class V>
struct Scaled {
  V exponent, fraction;
};
template <class V>
REPARAM_HD Scaled<V> split_exponent(V x) {
  using F = Format<ElementOf<V>>;
  using Word = typename F::Word;
  constexpr Word offset = F::one - F::sqrt_half;
  const WordOf<V> shifted = bit_cast<WordElementOf<V>>(x) + WordOf<V>(offset);
  const V biased = small_integer<V>(shifted >> F::mantissa);
  const WordOf<V> mantissa = shifted & WordOf<V>((Word(1) << F::mantissa) - 1);
  return {biased - V(ElementOf<V>(F::bias)), bit_cast<ElementOf<V>>(mantissa + WordOf<V>(F::sqrt_half)) - V(1)};
}

// log(2^k (1 + f)) + correction, by log(1 + f) = f - (f^2/2 - s (f^2/2 + z R(z))), s = f / (2 + f), z = s^2.
template <class Step, class V>
REPARAM_HD V log_scaled(Scaled<V> x, V correction) {
  using F = Format<ElementOf<V>>;
  const V k = x.exponent, f = x.fraction;
  const V s = f / (V(2) + f);
  const V z = s * s;
  const V half_square = V(ElementOf<V>(0.5)) * f * f;
  const V tail = Step::mul_add(s, Step::mul_add(z, LogSeries<ElementOf<V>>::template at<Step>(z), half_square),
                               Step::mul_add(k, V(F::ln2_low), correction));
  return Step::mul_add(k, V(F::ln2_high), -((half_square - tail) - f));
}

template <class V>
REPARAM_HD V log(V x) {
  using T = ElementOf<V>;
  using F = Format<T>;
  constexpr int shift = F::mantissa + 2;
  const auto small = x < V(F::min_normal);
  Scaled<V> scaled = split_exponent(select(small, x * V(T(uint64_t(1) << shift)), x));
  scaled.exponent = scaled.exponent - select(small, V(T(shift)), V(0));
  const V y = log_scaled<Fused>(scaled, V(0));
  const V outside = select(x == V(0), V(-F::infinity), select(x > V(0), x, V(F::nan)));  // +-0, inf, negative or NaN
  return select((x > V(0)) & (x < V(F::infinity)), y, outside);
}

// log(1 + x): the rounding error of u = 1 + x is put back as a correction.
template <class V>
REPARAM_HD V log1p(V x) {
  using F = Format<ElementOf<V>>;
  const V u = V(1) + x;
  const V y = log_scaled<Fused>(split_exponent(u), (x - (u - V(1))) / u);
  const V outside = select(x == V(-1), V(-F::infinity), select(x > V(-1), x, V(F::nan)));
  const V inside = select(absolute(x) < V(F::epsilon), x, y);
  return select((x > V(-1)) & (x < V(F::infinity)), inside, outside);
}

// ---- exponential -------------------------------------------------------------------------------------------------
template <class T> struct ExpSeries;
template <> struct ExpSeries<float> {
  static constexpr float lowest = -104.0f, highest = 89.0f;
  static constexpr float lowest_minus_one = -18.0f;
  template <class V> static REPARAM_HD V at(V r) {
    return polynomial<Fused>(r, 0.5f, 0.16666545f, 0.041666403f, 0.008366457f, 0.001394055f);
  }
};
template <> struct ExpSeries<double> {
  static constexpr double lowest = -746.0, highest = 710.0;
  static constexpr double lowest_minus_one = -38.0;
  template <class V> static REPARAM_HD V at(V r) {
    return polynomial<Fused>(r, 0.5, 0.1666666666666668, 0.04166666666661954, 0.008333333333318921,
                             0.001388888892071034, 0.00019841269894405657, 2.4801516070383596e-05,
                             2.7557235072415814e-06, 2.7622345451009606e-07, 2.5112380291648544e-08);
  }
};

// x = k log 2 + r with |r| <= log(2) / 2: exp(r) - 1, and k as a word.
template <class V>
struct ReducedExp {
  V minus_one;
  WordOf<V> exponent;
};
template <class V>
REPARAM_HD ReducedExp<V> reduced_exp(V x) {
  using T = ElementOf<V>;
  using F = Format<T>;
  const V rounded = mul_add(x, V(T(1.4426950408889634)), V(F::round_magic));
  const V k = rounded - V(F::round_magic);
  const V head = mul_add(k, V(-F::ln2_high), x);  // exact
  const V r = mul_add(k, V(-F::ln2_low), head);
  const V lost = mul_add(k, V(-F::ln2_low), head - r);  // what the rounding of r took
  return {r + mul_add(r * r, ExpSeries<T>::at(r), lost),
          bit_cast<typename F::Word>(rounded) - bit_cast<typename F::Word>(V(F::round_magic))};
}

// 2^n for the word n + bias.
template <class V>
REPARAM_HD V power_of_two(WordOf<V> biased) {
  return bit_cast<ElementOf<V>>(biased << Format<ElementOf<V>>::mantissa);
}

template <class V>
REPARAM_HD V clamp(V x, ElementOf<V> low, ElementOf<V> high) {  // NaN stays
  x = select(x < V(low), V(low), x);
  return select(x > V(high), V(high), x);
}

template <class V>
REPARAM_HD V exp(V x) {
  using T = ElementOf<V>;
  const auto e = reduced_exp(clamp(x, ExpSeries<T>::lowest, ExpSeries<T>::highest));
  const WordOf<V> biased = e.exponent + WordOf<V>(2 * Format<T>::bias), half = biased >> 1;  // two factors: 2^k may overflow
  return (V(1) + e.minus_one) * power_of_two<V>(half) * power_of_two<V>(biased - half);
}

// exp(x) - 1 = 2 (h (exp(r) - 1) + (h - 1/2)), h = 2^(k-1).
template <class V>
REPARAM_HD V expm1(V x) {
  using T = ElementOf<V>;
  const auto e = reduced_exp(clamp(x, ExpSeries<T>::lowest_minus_one, ExpSeries<T>::highest));
  const V h = power_of_two<V>(e.exponent + WordOf<V>(Format<T>::bias - 1));
  const V y = V(2) * mul_add(h, e.minus_one, h - V(T(0.5)));
  return select(absolute(x) < V(Format<T>::epsilon), x, y);
}

// ---- functions made of these -------------------------------------------------------------------------------------
template <class V>
REPARAM_HD V tanh(V x) {
  const V e = expm1(V(-2) * absolute(x));
  return copy_sign(-e / (e + V(2)), x);
}

template <class V>
REPARAM_HD V softplus(V x) {  // log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))
  return select(x > V(0), x, V(0)) + log1p(exp(-absolute(x)));
}

template <class V>
REPARAM_HD V sigmoid(V x) {  // 1 / (1 + exp(-x)), by exp(-|x|)
  const V e = exp(-absolute(x));
  return select(x < V(0), e, V(1)) / (V(1) + e);
}

}  // namespace reparam::REPARAM_ARCH
