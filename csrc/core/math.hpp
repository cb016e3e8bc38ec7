// SPDX-License-Identifier: MIT
// exp, log, log1p, expm1, erf, tanh, softplus and sigmoid over any V. No libm and no branch on data: special values are
// chosen by select. NaN gives NaN, subnormal numbers are not flushed, and the odd functions keep the sign of zero.
//
// Largest error seen, in ULP of the result (float: every 61st bit pattern of all; double: 72 million values):
//            exp   expm1   log   log1p   erf   tanh   softplus   sigmoid
//   float    0.9   1.7     0.9   0.9     1.2   2.5    1.7        2.3
//   double   1.0   1.9     0.9   0.9     1.5   2.6    1.7        2.5
//
// The polynomials are minimax fits by Remez exchange in 50 digits, for the error relative to the function on the
// interval named beside them; their leading coefficients are rounded first and the others refitted.
#pragma once
#include "lanes.hpp"

namespace reparam::REPARAM_ARCH {

// ---- arithmetic --------------------------------------------------------------------------------------------------
// How a b + c is formed. Plain has the same bits on every backend: the normal transform of philox.hpp is made of it.
// Fused is mul_add: faster and a little more accurate, where the arch has it.
struct Plain {
  template <class V>
  REPARAM_HD static V mul_add(V a, V b, V c) {
    return a * b + c;
  }
};
struct Fused {
  template <class V>
  REPARAM_HD static V mul_add(V a, V b, V c) {
    return REPARAM_ARCH::mul_add(a, b, c);
  }
};

// c0 + c1 x + c2 x^2 + ..., by Horner's rule.
template <class Step, class V>
REPARAM_HD V polynomial(V, ElementOf<V> c0) {
  return V(c0);
}
template <class Step, class V, class... C>
REPARAM_HD V polynomial(V x, ElementOf<V> c0, C... c) {
  return Step::mul_add(x, polynomial<Step>(x, c...), V(c0));
}

// The IEEE format of an element type, as numbers and as a word of the same size.
template <class T>
struct Format;
template <>
struct Format<float> {
  using Word = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Word bias = 127, sqrt_half = 0x3f3504f3;  // sqrt_half: the bits of sqrt(1/2)
  static constexpr float half_ulp = 0x1p-24f, min_normal = 0x1p-126f, infinity = __builtin_inff(),
                         nan = __builtin_nanf("");
  static constexpr float to_integer = 0x1.8p23f;  // x + to_integer rounds x to an integer and keeps it in the low bits
  static constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0x1.62e3p-1f, ln2_low = 0x1.2fefa4p-17f;
};
template <>
struct Format<double> {  // ln2_high is short in both formats: its product with an exponent is exact
  using Word = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Word bias = 1023, sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double half_ulp = 0x1p-53, min_normal = 0x1p-1022, infinity = __builtin_inf(),
                          nan = __builtin_nan("");
  static constexpr double to_integer = 0x1.8p52;
  static constexpr double log2_e = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
};
template <class V>
using FormatOf = Format<ElementOf<V>>;
template <class V>
using WordOf = LanesWith<V, typename FormatOf<V>::Word>;

template <class V>
REPARAM_HD WordOf<V> bits_of(V x) {
  return bit_cast<typename FormatOf<V>::Word>(x);
}
template <class V>
REPARAM_HD V from_bits(WordOf<V> bits) {
  return bit_cast<ElementOf<V>>(bits);
}

template <class V>
REPARAM_HD WordOf<V> sign_bit() {
  return WordOf<V>(typename FormatOf<V>::Word(1) << (8 * sizeof(ElementOf<V>) - 1));
}
template <class V>
REPARAM_HD V absolute(V x) {
  return from_bits<V>(bits_of(x) & (sign_bit<V>() - WordOf<V>(1)));
}
template <class V>
REPARAM_HD V copy_sign(V magnitude, V x) {  // magnitude must not be negative
  return from_bits<V>(bits_of(magnitude) | (bits_of(x) & sign_bit<V>()));
}
template <class V>
REPARAM_HD V clamp(V x, ElementOf<V> low, ElementOf<V> high) {  // NaN stays
  x = select(x < V(low), V(low), x);
  return select(x > V(high), V(high), x);
}

// n - offset for words n < 2^mantissa_bits, exactly; AVX2 has no instruction that converts 64-bit integers.
template <class V>
REPARAM_HD V small_integer(WordOf<V> n, ElementOf<V> offset) {
  using F = FormatOf<V>;
  const V base = from_bits<V>(WordOf<V>((F::bias + F::mantissa_bits) << F::mantissa_bits));  // its ULP is 1
  return from_bits<V>(bits_of(base) | n) - (base + V(offset));
}

// 2^(n - bias) for words 0 < n <= 2 bias.
template <class V>
REPARAM_HD V power_of_two(WordOf<V> n) {
  return from_bits<V>(n << FormatOf<V>::mantissa_bits);
}

// ---- logarithm ---------------------------------------------------------------------------------------------------
// R(z) = (log((1 + s)/(1 - s)) - 2 s) / (s z), z = s^2 <= (3 - sqrt 8)^2. Within 2^-30.2 and 2^-59.5 of the logarithm.
template <class T>
struct LogSeries;
template <>
struct LogSeries<float> {
  template <class Step, class V>
  REPARAM_HD static V at(V z) {
    return polynomial<Step>(z, 0.66666776f, 0.39977583f, 0.29870796f);
  }
};
template <>
struct LogSeries<double> {
  template <class Step, class V>
  REPARAM_HD static V at(V z) {
    return polynomial<Step>(z, 0.6666666666666734, 0.39999999999416647, 0.2857142874202624, 0.22222198605298993,
                            0.18183562836985048, 0.15314085238708422, 0.14795629105132813);
  }
};

// x = 2^exponent (1 + fraction) with 1 + fraction in [sqrt(1/2), sqrt(2)), for a positive normal x.
template <class V>
struct Scaled {
  V exponent, fraction;
};
template <class V>
REPARAM_HD Scaled<V> split_exponent(V x) {
  using F = FormatOf<V>;
  constexpr auto one = F::bias << F::mantissa_bits, mantissa = (typename F::Word(1) << F::mantissa_bits) - 1;
  const WordOf<V> shifted = bits_of(x) + WordOf<V>(one - F::sqrt_half);
  const V exponent = small_integer<V>(shifted >> F::mantissa_bits, F::bias);
  return {exponent, from_bits<V>((shifted & WordOf<V>(mantissa)) + WordOf<V>(F::sqrt_half)) - V(1)};
}

// log(2^k (1 + f)) + correction, by log(1 + f) = f - (f^2/2 - s (f^2/2 + z R(z))), s = f / (2 + f), z = s^2,
// which is the form of fdlibm.
template <class Step, class V>
REPARAM_HD V log_scaled(Scaled<V> x, V correction) {
  using F = FormatOf<V>;
  const V k = x.exponent, f = x.fraction;
  const V s = f / (V(2) + f);
  const V z = s * s;
  const V half_square = V(0.5) * f * f;
  const V series = Step::mul_add(z, LogSeries<ElementOf<V>>::template at<Step>(z), half_square);
  const V tail = Step::mul_add(s, series, Step::mul_add(k, V(F::ln2_low), correction));
  return Step::mul_add(k, V(F::ln2_high), -((half_square - tail) - f));
}

// As split_exponent, of a subnormal x too, which is scaled up first.
template <class V>
REPARAM_HD Scaled<V> split_exponent_of_any(V x) {
  using F = FormatOf<V>;
  constexpr int shift = F::mantissa_bits + 2;
  const auto subnormal = x < V(F::min_normal);
  Scaled<V> scaled = split_exponent(select(subnormal, x * power_of_two<V>(F::bias + shift), x));
  scaled.exponent = scaled.exponent - select(subnormal, V(shift), V(0));
  return scaled;
}

// log(+-0) = -inf, log(x < 0) = NaN.
template <class V>
REPARAM_HD V log(V x) {
  using F = FormatOf<V>;
  const Scaled<V> scaled = split_exponent_of_any(x);
  const V special = select(x == V(0), V(-F::infinity), select(x > V(0), x, V(F::nan)));
  return select((x > V(0)) & (x < V(F::infinity)), log_scaled<Fused>(scaled, V(0)), special);
}

// log(1 + x) = log u + (x - (u - 1)) / u, where u is 1 + x rounded. log1p(-1) = -inf, log1p(x < -1) = NaN.
template <class V>
REPARAM_HD V log1p(V x) {
  using F = FormatOf<V>;
  const V u = V(1) + x;
  const V y = log_scaled<Fused>(split_exponent(u), (x - (u - V(1))) / u);
  const V special = select(x == V(-1), V(-F::infinity), select(x > V(-1), x, V(F::nan)));
  return select((x > V(-1)) & (x < V(F::infinity)), select(absolute(x) < V(F::half_ulp), x, y), special);
}

// ---- exponential -------------------------------------------------------------------------------------------------
// Q(r) = (exp(r) - 1 - r) / r^2, |r| <= log(2)/2: within 2^-26.1 and 2^-55.1 of exp(r) - 1. Also the arguments beyond
// which the results are constant.
template <class T>
struct ExpSeries;
template <>
struct ExpSeries<float> {
  static constexpr float exp_is_zero = -104, expm1_is_minus_one = -18, is_infinite = 89;
  template <class V>
  REPARAM_HD static V at(V r) {
    return polynomial<Fused>(r, 0.5f, 0.16666545f, 0.041666403f, 0.008366457f, 0.001394055f);
  }
};
template <>
struct ExpSeries<double> {
  static constexpr double exp_is_zero = -746, expm1_is_minus_one = -38, is_infinite = 710;
  template <class V>
  REPARAM_HD static V at(V r) {
    return polynomial<Fused>(r, 0.5, 0.1666666666666668, 0.04166666666661954, 0.008333333333318921,
                             0.001388888892071034, 0.00019841269894405657, 2.4801516070383596e-05,
                             2.7557235072415814e-06, 2.7622345451009606e-07, 2.5112380291648544e-08);
  }
};

// x = k log 2 + r: exp(r) - 1, and k as a word (modulo 2^32 or 2^64).
template <class V>
struct ReducedExp {
  V expm1;
  WordOf<V> exponent;
};
template <class V>
REPARAM_HD ReducedExp<V> reduced_exp(V x) {
  using F = FormatOf<V>;
  const V shifted = mul_add(x, V(F::log2_e), V(F::to_integer));
  const V k = shifted - V(F::to_integer);
  const V head = mul_add(k, V(-F::ln2_high), x);  // exact
  const V r = mul_add(k, V(-F::ln2_low), head);
  const V lost = mul_add(k, V(-F::ln2_low), head - r);  // by the rounding of r
  return {r + mul_add(r * r, ExpSeries<ElementOf<V>>::at(r), lost), bits_of(shifted) - bits_of(V(F::to_integer))};
}

// exp(x) = 2^k (1 + (exp(r) - 1)); 2^k in two factors, since it may be subnormal or exceed the largest number.
template <class V>
REPARAM_HD V exp(V x) {
  using Series = ExpSeries<ElementOf<V>>;
  const auto e = reduced_exp(clamp(x, Series::exp_is_zero, Series::is_infinite));
  const WordOf<V> twice_biased = e.exponent + WordOf<V>(2 * FormatOf<V>::bias), half = twice_biased >> 1;
  return (V(1) + e.expm1) * power_of_two<V>(half) * power_of_two<V>(twice_biased - half);
}

// exp(x) - 1 = 2 (h (exp(r) - 1) + (h - 1/2)), h = 2^(k-1).
template <class V>
REPARAM_HD V expm1(V x) {
  using Series = ExpSeries<ElementOf<V>>;
  const auto e = reduced_exp(clamp(x, Series::expm1_is_minus_one, Series::is_infinite));
  const V h = power_of_two<V>(e.exponent + WordOf<V>(FormatOf<V>::bias - 1));
  const V y = V(2) * mul_add(h, e.expm1, h - V(0.5));
  return select(absolute(x) < V(FormatOf<V>::half_ulp), x, y);
}

// ---- error function ----------------------------------------------------------------------------------------------
// P(x^2) = erf(x)/x - 1 for |x| <= split, and Q(x - 1) = log(1 - erf(x)) from there to where erf(x) rounds to 1, fitted
// for the error of erf. Within 2^-25.3 and 2^-54.8 of erf.
template <class T>
struct ErfSeries;
template <>
struct ErfSeries<float> {
  static constexpr float split = 0.875f, is_one = 4;
  template <class V>
  REPARAM_HD static V inner(V z) {
    return polynomial<Fused>(z, 0.12837915f, -0.3761255f, 0.11282455f, -0.026791463f, 0.005032181f, -0.00062032515f);
  }
  template <class V>
  REPARAM_HD static V outer(V t) {
    return polynomial<Fused>(t, -1.8496056f, -2.6389678f, -0.8431065f, -0.041548006f, 0.009969549f, -0.0018825649f,
                             0.00019989388f);
  }
};
template <>
struct ErfSeries<double> {
  static constexpr double split = 1, is_one = 6;
  template <class V>
  REPARAM_HD static V inner(V z) {
    return polynomial<Fused>(z, 0.12837916709551256, -0.3761263890318352, 0.11283791670944184, -0.026866170643111427,
                             0.005223977606118504, -0.0008548325929321861, 0.00012055293577157444,
                             -1.492471230652664e-05, 1.6447131617232896e-06, -1.6206314032613041e-07,
                             1.3710981296872088e-08, -7.779469768502414e-10);
  }
  template <class V>
  REPARAM_HD static V outer(V t) {
    return polynomial<Fused>(
        t, -1.8496055099332485, -2.638967514234725, -0.8431072563621751, -0.04156109796695765, 0.010033824553354973,
        -0.0019778972377053933, 0.00023730018800991682, 2.6341310034347645e-05, -2.7286447076003465e-05,
        9.793604449236853e-06, -2.2562884911260713e-06, 2.973594966208462e-07, 7.815048485192089e-09,
        -1.3829682111323279e-08, 3.1982006516327865e-09, -3.6256611917337226e-10, 1.740030258175054e-11);
  }
};

template <class V>
REPARAM_HD V erf(V x) {
  using Series = ErfSeries<ElementOf<V>>;
  const V a = clamp(absolute(x), 0, Series::is_one);
  const V inside = mul_add(a, Series::inner(a * a), a);
  const V outside = -expm1(Series::outer(a - V(1)));
  return copy_sign(select(a < V(Series::split), inside, outside), x);
}

// ---- made of these -----------------------------------------------------------------------------------------------
// tanh |x| = -e / (e + 2), e = exp(-2 |x|) - 1.
template <class V>
REPARAM_HD V tanh(V x) {
  const V e = expm1(V(-2) * absolute(x));
  return copy_sign(-e / (e + V(2)), x);
}

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)).
template <class V>
REPARAM_HD V softplus(V x) {
  return select(x > V(0), x, V(0)) + log1p(exp(-absolute(x)));
}

// 1 / (1 + exp(-x)) = e / (1 + e) for x < 0, else 1 / (1 + e), e = exp(-|x|): relative accuracy in both tails.
template <class V>
REPARAM_HD V sigmoid(V x) {
  const V e = exp(-absolute(x));
  return select(x < V(0), e, V(1)) / (V(1) + e);
}

}  // namespace reparam::REPARAM_ARCH
