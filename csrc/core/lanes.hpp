// SPDX-License-Identifier: MIT
// Lanes<T, W>: W values of T side by side, one event per lane. On the `scalar` arch and on a CUDA thread the value
// type is T itself, and the free functions below have an overload for it: a body is written once over V.
// GCC vector extensions do the arithmetic; intrinsics (only in this file) do what the extensions lack: sqrt, the
// fused multiply-add and the 32 x 32 -> 64 bit product. A vector wider than the hardware's is halved until it fits.
#pragma once
#include "config.hpp"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace reparam::REPARAM_ARCH {

template <int... I>
struct Indices {};
template <int N, int... I>
struct IndicesUpTo : IndicesUpTo<N - 1, N - 1, I...> {};
template <int... I>
struct IndicesUpTo<0, I...> {
  using type = Indices<I...>;
};
template <int N>
using indices = typename IndicesUpTo<N>::type;

template <class T, int W>
struct VectorOf {  // in a trait of its own: GCC 12 confuses constructors when the typedef sits in Lanes
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T>
struct SignedOf;
template <>
struct SignedOf<float> {
  using type = int32_t;
};
template <>
struct SignedOf<double> {
  using type = int64_t;
};
template <>
struct SignedOf<uint32_t> {
  using type = int32_t;
};
template <>
struct SignedOf<uint64_t> {
  using type = int64_t;
};
template <>
struct SignedOf<int32_t> {
  using type = int32_t;
};
template <>
struct SignedOf<int64_t> {
  using type = int64_t;
};

template <class T, int W>
struct Mask {  // all ones where true
  using Raw = typename VectorOf<typename SignedOf<T>::type, W>::type;
  Raw raw;
  friend REPARAM_HD Mask operator&(Mask a, Mask b) { return {a.raw & b.raw}; }
  friend REPARAM_HD Mask operator|(Mask a, Mask b) { return {a.raw | b.raw}; }
  friend REPARAM_HD Mask operator!(Mask a) { return {~a.raw}; }
};

template <class T, int W>
struct Lanes {
  using Raw = typename VectorOf<T, W>::type;
  using Bool = Mask<T, W>;
  Raw raw;
  Lanes() = default;
  REPARAM_HD Lanes(Raw r) : raw(r) {}
  REPARAM_HD Lanes(T x) : raw(x - Raw{}) {}  // splat; x - 0 and not x + 0, which would lose the sign of -0
  REPARAM_HD T operator[](int lane) const { return raw[lane]; }
  REPARAM_HD void set(int lane, T x) { raw[lane] = x; }
  friend REPARAM_HD Lanes operator+(Lanes a, Lanes b) { return a.raw + b.raw; }
  friend REPARAM_HD Lanes operator-(Lanes a, Lanes b) { return a.raw - b.raw; }
  friend REPARAM_HD Lanes operator*(Lanes a, Lanes b) { return a.raw * b.raw; }
  friend REPARAM_HD Lanes operator/(Lanes a, Lanes b) { return a.raw / b.raw; }
  friend REPARAM_HD Lanes operator-(Lanes a) { return -a.raw; }
  friend REPARAM_HD Lanes operator&(Lanes a, Lanes b) { return a.raw & b.raw; }
  friend REPARAM_HD Lanes operator|(Lanes a, Lanes b) { return a.raw | b.raw; }
  friend REPARAM_HD Lanes operator^(Lanes a, Lanes b) { return a.raw ^ b.raw; }
  friend REPARAM_HD Lanes operator<<(Lanes a, int n) { return a.raw << n; }
  friend REPARAM_HD Lanes operator>>(Lanes a, int n) { return a.raw >> n; }
  friend REPARAM_HD Bool operator>(Lanes a, Lanes b) { return {a.raw > b.raw}; }
  friend REPARAM_HD Bool operator>=(Lanes a, Lanes b) { return {a.raw >= b.raw}; }
  friend REPARAM_HD Bool operator<(Lanes a, Lanes b) { return {a.raw < b.raw}; }
  friend REPARAM_HD Bool operator<=(Lanes a, Lanes b) { return {a.raw <= b.raw}; }
  friend REPARAM_HD Bool operator==(Lanes a, Lanes b) { return {a.raw == b.raw}; }
};

// Element<V>, width<V>, and the lane type with the same number of lanes and another element type.
template <class V>
struct LaneTraits {
  using Element = V;
  using Bool = bool;
  static constexpr int width = 1;
  template <class U>
  using With = U;
};
template <class T, int W>
struct LaneTraits<Lanes<T, W>> {
  using Element = T;
  using Bool = Mask<T, W>;
  static constexpr int width = W;
  template <class U>
  using With = Lanes<U, W>;
};
template <class V>
using ElementOf = typename LaneTraits<V>::Element;
template <class V>
using BoolOf = typename LaneTraits<V>::Bool;
template <class V, class U>
using LanesWith = typename LaneTraits<V>::template With<U>;

template <class T>
REPARAM_HD T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}
template <class T, int W>
REPARAM_HD Lanes<T, W> select(Mask<T, W> condition, Lanes<T, W> yes, Lanes<T, W> no) {
  return condition.raw ? yes.raw : no.raw;
}

// The same bits read as another type of the same width, and conversion of values.
template <class To, class T, int W>
REPARAM_HD Lanes<To, W> bit_cast(Lanes<T, W> x) {
  return (typename Lanes<To, W>::Raw)x.raw;
}
template <class To, class From>
REPARAM_HD To bit_cast(From x) {
  To out;
  __builtin_memcpy(&out, &x, sizeof out);
  return out;
}
template <class To, class T, int W>
REPARAM_HD Lanes<To, W> convert(Lanes<T, W> x) {
  return __builtin_convertvector(x.raw, typename Lanes<To, W>::Raw);
}
template <class To, class From>
REPARAM_HD To convert(From x) {
  return (To)x;
}

// ---- hardware steps on raw vectors -------------------------------------------------------------------------------
namespace raw {

#if defined(__AVX512F__)
constexpr size_t kHardwareBytes = 64;
#elif defined(__AVX2__)
constexpr size_t kHardwareBytes = 32;
#else
constexpr size_t kHardwareBytes = 16;
#endif

// In registers by a shuffle (through memory the two parts would wait for their stores); a vector wider than the
// hardware's lies in memory anyway.
template <class T, int W>
struct Halves {
  typename VectorOf<T, W / 2>::type low, high;
};
template <class T, int W, int... I>
REPARAM_HD Halves<T, W> shuffle_apart(typename VectorOf<T, W>::type x, Indices<I...>) {
  return {REPARAM_SHUFFLE(x, x, I...), REPARAM_SHUFFLE(x, x, (W / 2 + I)...)};
}
template <class T, int W>
REPARAM_HD Halves<T, W> split(typename VectorOf<T, W>::type x) {
  if constexpr (sizeof x <= kHardwareBytes) return shuffle_apart<T, W>(x, indices<W / 2>{});
  Halves<T, W> h;
  __builtin_memcpy(&h, &x, sizeof h);
  return h;
}
template <class T, int W, int... I>
REPARAM_HD typename VectorOf<T, W>::type shuffle_together(Halves<T, W> h, Indices<I...>) {
  return REPARAM_SHUFFLE(h.low, h.high, I...);
}
template <class T, int W>
REPARAM_HD typename VectorOf<T, W>::type join(Halves<T, W> h) {
  typename VectorOf<T, W>::type x;
  if constexpr (sizeof x <= kHardwareBytes) return shuffle_together<T, W>(h, indices<W>{});
  __builtin_memcpy(&x, &h, sizeof x);
  return x;
}

template <class T, int W>
REPARAM_HD typename VectorOf<T, W>::type square_root(typename VectorOf<T, W>::type x) {
  constexpr size_t bytes = sizeof(T) * W;
  constexpr bool is_float = sizeof(T) == 4;
  if constexpr (bytes > kHardwareBytes) {
    auto h = split<T, W>(x);
    return join<T, W>({square_root<T, W / 2>(h.low), square_root<T, W / 2>(h.high)});
  }
#if defined(__AVX512F__)
  else if constexpr (bytes == 64 && is_float)
    return _mm512_maskz_sqrt_ps(0xffff, x);  // maskz: GCC 12 warns of the plain one
  else if constexpr (bytes == 64) return _mm512_maskz_sqrt_pd(0xff, x);
#endif
#if defined(__AVX2__)
  else if constexpr (bytes == 32 && is_float) return _mm256_sqrt_ps(x);
  else if constexpr (bytes == 32) return _mm256_sqrt_pd(x);
#endif
#if defined(__aarch64__)
  else if constexpr (bytes == 16 && is_float) return vsqrtq_f32(x);
  else if constexpr (bytes == 16) return vsqrtq_f64(x);
#endif
  else {
    for (int i = 0; i < W; ++i) x[i] = is_float ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
    return x;
  }
}

template <class T, int W>
REPARAM_HD typename VectorOf<T, W>::type multiply_add(typename VectorOf<T, W>::type a, typename VectorOf<T, W>::type b,
                                                      typename VectorOf<T, W>::type c) {
#if defined(__FMA__) || defined(__aarch64__)
  constexpr size_t bytes = sizeof(T) * W;
  constexpr bool is_float = sizeof(T) == 4;
  if constexpr (bytes > kHardwareBytes) {
    auto ha = split<T, W>(a), hb = split<T, W>(b), hc = split<T, W>(c);
    return join<T, W>(
        {multiply_add<T, W / 2>(ha.low, hb.low, hc.low), multiply_add<T, W / 2>(ha.high, hb.high, hc.high)});
  }
#if defined(__AVX512F__)
  else if constexpr (bytes == 64 && is_float)
    return _mm512_fmadd_ps(a, b, c);
  else if constexpr (bytes == 64) return _mm512_fmadd_pd(a, b, c);
#endif
#if defined(__FMA__)
  else if constexpr (bytes == 32 && is_float) return _mm256_fmadd_ps(a, b, c);
  else if constexpr (bytes == 32) return _mm256_fmadd_pd(a, b, c);
#endif
#if defined(__aarch64__)
  else if constexpr (bytes == 16 && is_float) return vfmaq_f32(c, a, b);
  else if constexpr (bytes == 16) return vfmaq_f64(c, a, b);
#endif
  else return a * b + c;
#else
  return a * b + c;
#endif
}

template <class T, int W>
REPARAM_HD bool any(typename Mask<T, W>::Raw x) {
  constexpr size_t bytes = sizeof x;
  if constexpr (bytes > kHardwareBytes) {
    using Half = typename SignedOf<T>::type;
    const auto h = split<Half, W>(x);
    return any<T, W / 2>(h.low | h.high);
  }
#if defined(__AVX512F__)
  else if constexpr (bytes == 64)
    return _mm512_test_epi64_mask((__m512i)x, (__m512i)x) != 0;
#endif
#if defined(__AVX2__)
  else if constexpr (bytes == 32) return !_mm256_testz_si256((__m256i)x, (__m256i)x);
#endif
#if defined(__aarch64__)
  else if constexpr (bytes == 16) return vmaxvq_u32((uint32x4_t)x) != 0;
#endif
  else {
    bool found = false;
    for (int i = 0; i < W; ++i) found = found || x[i];
    return found;
  }
}

// The 64-bit products of the low words of a with the word b; the high words of a are ignored.
template <int W>
REPARAM_HD typename VectorOf<uint64_t, W>::type multiply_low_words(typename VectorOf<uint64_t, W>::type a, uint32_t b) {
  constexpr size_t bytes = 8 * W;
  [[maybe_unused]] const auto factor = (long long)b;  // x86 alone takes it
  if constexpr (bytes > kHardwareBytes) {
    auto h = split<uint64_t, W>(a);
    return join<uint64_t, W>({multiply_low_words<W / 2>(h.low, b), multiply_low_words<W / 2>(h.high, b)});
  }
#if defined(__AVX512F__)
  else if constexpr (bytes == 64)
    return (typename VectorOf<uint64_t, W>::type)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi64(factor));
#endif
#if defined(__AVX2__)
  else if constexpr (bytes == 32)
    return (typename VectorOf<uint64_t, W>::type)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#endif
#if defined(__x86_64__)
  else if constexpr (bytes == 16)
    return (typename VectorOf<uint64_t, W>::type)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(factor));
#elif defined(__aarch64__)
  else if constexpr (bytes == 16)
    return (typename VectorOf<uint64_t, W>::type)vmull_n_u32(vmovn_u64((uint64x2_t)a), b);
#endif
  else return (a & 0xffffffffu) * (uint64_t)b;
}

}  // namespace raw

// ---- the same functions over any V -------------------------------------------------------------------------------
REPARAM_HD float square_root(float x) { return __builtin_sqrtf(x); }
REPARAM_HD double square_root(double x) { return __builtin_sqrt(x); }
template <class T, int W>
REPARAM_HD Lanes<T, W> square_root(Lanes<T, W> x) {
  return raw::square_root<T, W>(x.raw);
}

// a * b + c: fused where the arch has it, multiply then add elsewhere (an fma on baseline x86-64 is a libm call).
// The build forbids contraction, so nothing else is ever fused.
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__aarch64__)
REPARAM_HD float mul_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
REPARAM_HD double mul_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
REPARAM_HD float mul_add(float a, float b, float c) { return a * b + c; }
REPARAM_HD double mul_add(double a, double b, double c) { return a * b + c; }
#endif
template <class T, int W>
REPARAM_HD Lanes<T, W> mul_add(Lanes<T, W> a, Lanes<T, W> b, Lanes<T, W> c) {
  return raw::multiply_add<T, W>(a.raw, b.raw, c.raw);
}

REPARAM_HD uint64_t multiply_low_words(uint64_t a, uint32_t b) { return (uint64_t)(uint32_t)a * b; }
template <int W>
REPARAM_HD Lanes<uint64_t, W> multiply_low_words(Lanes<uint64_t, W> a, uint32_t b) {
  return raw::multiply_low_words<W>(a.raw, b);
}

// Vectors wider than the hardware's, in halves: where GCC would fall back to one element at a time.
template <class V>
constexpr bool wider_than_hardware = sizeof(V) > raw::kHardwareBytes;
template <class T, int W>
REPARAM_HD Lanes<T, W / 2> low_half(Lanes<T, W> x) {
  return raw::split<T, W>(x.raw).low;
}
template <class T, int W>
REPARAM_HD Lanes<T, W / 2> high_half(Lanes<T, W> x) {
  return raw::split<T, W>(x.raw).high;
}
template <class T, int W>
REPARAM_HD Lanes<T, 2 * W> join(Lanes<T, W> low, Lanes<T, W> high) {
  return raw::join<T, 2 * W>({low.raw, high.raw});
}

// Whether the condition holds in some lane.
REPARAM_HD bool any(bool condition) { return condition; }
template <class T, int W>
REPARAM_HD bool any(Mask<T, W> condition) {
  return raw::any<T, W>(condition.raw);
}

// 64 bytes to an aligned line of memory, past the cache where the arch can; `end_streams` orders them before what
// follows.
REPARAM_HD void stream_line(void* to, const void* from) {
#if defined(__AVX2__)
  for (int k = 0; k < 2; ++k) _mm256_stream_si256((__m256i*)to + k, _mm256_loadu_si256((const __m256i*)from + k));
#else
  __builtin_memcpy(to, from, 64);
#endif
}
REPARAM_HD void end_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// The low words of 64-bit lanes.
REPARAM_HD uint32_t low_words(uint64_t x) { return (uint32_t)x; }
template <int W>
REPARAM_HD Lanes<uint32_t, W> low_words(Lanes<uint64_t, W> x) {
  if constexpr (sizeof(x) > 2 * raw::kHardwareBytes) return join(low_words(low_half(x)), low_words(high_half(x)));
  else return convert<uint32_t>(x);
}

// The lane type of this arch for element type T.
template <class T>
struct NativeLanes;
#if defined(REPARAM_LANE_BYTES)
template <>
struct NativeLanes<float> {
  using type = Lanes<float, REPARAM_LANE_BYTES / 4>;
};
template <>
struct NativeLanes<double> {
  using type = Lanes<double, REPARAM_LANE_BYTES / 8>;
};
#else
template <>
struct NativeLanes<float> {
  using type = float;
};
template <>
struct NativeLanes<double> {
  using type = double;
};
#endif

}  // namespace reparam::REPARAM_ARCH
