// SPDX-License-Identifier: MIT
// Ops with one lower factor for many events: the factor is kept as elements, not lanes (SharedTril), and its cotangent,
// a sum of outer products over the terms of a block, is summed from the vectors of the whole block: the product of each
// term would be written, read and added in memory.
#pragma once
#include "../core/linear.hpp"
#include "operand.hpp"

namespace reparam::REPARAM_ARCH {

// The sum of the lanes, as a balanced tree.
template <class T>
REPARAM_HD T sum_of_lanes(T x) {
  return x;
}
template <class T, int W>
REPARAM_HD T sum_of_lanes(Lanes<T, W> x) {
  if constexpr (W == 2) return x[0] + x[1];
  else return sum_of_lanes(low_half(x) + high_half(x));
}

// The 8 partial sums of a value, and as many terms, in vectors of at most the hardware's width.
template <class T>
struct Eight {
  using V = typename NativeLanes<T>::type;
  static constexpr int kHardware = raw::kHardwareBytes / sizeof(T), kLanes = LaneTraits<V>::width;
  static constexpr int kMost = kHardware < kSums ? kHardware : kSums;
  static constexpr int W = kLanes < kMost ? kLanes : kMost, kParts = kSums / W;
  using Part = typename SelectType<W == 1, T, Lanes<T, W>>::type;
  Part part[kParts];

  static REPARAM_HD Eight load(const T* from) {
    Eight x;
    REPARAM_UNROLL
    for (int k = 0; k < kParts; ++k) __builtin_memcpy(&x.part[k], from + k * W, sizeof x.part[k]);
    return x;
  }
  REPARAM_HD void store(T* to) const {
    REPARAM_UNROLL
    for (int k = 0; k < kParts; ++k) __builtin_memcpy(to + k * W, &part[k], sizeof part[k]);
  }
  friend REPARAM_HD Eight operator+(Eight a, Eight b) {
    REPARAM_UNROLL
    for (int k = 0; k < kParts; ++k) a.part[k] = a.part[k] + b.part[k];
    return a;
  }
  friend REPARAM_HD Eight operator*(Eight a, Eight b) {
    REPARAM_UNROLL
    for (int k = 0; k < kParts; ++k) a.part[k] = a.part[k] * b.part[k];
    return a;
  }
  // As one, by a balanced tree: partial sums 0 and 4, 2 and 6, ...
  REPARAM_HD T joined() const {
    Eight x = *this;
    REPARAM_UNROLL
    for (int n = kParts / 2; n > 0; n /= 2) REPARAM_UNROLL
    for (int k = 0; k < n; ++k) x.part[k] = x.part[k] + x.part[k + n];
    return sum_of_lanes(x.part[0]);
  }
};

// Whether an op has the shared path: with one lane there is nothing to share.
template <class Op, class T>
consteval bool shares_factor() {
  return OpTraits<Op>::shares_factor() && LaneTraits<typename NativeLanes<T>::type>::width > 1;
}

// The factor of a pass, and its cotangent; -1 where there is none.
template <class Op, bool kVjp>
struct FactorOf {
  static consteval int find(bool written) {
    const PassSpec pass = OpTraits<Op>::pass(kVjp);
    for (int i = 0; i < pass.count; ++i)
      if (pass.operand[i].kind == Kind::tril && (written ? pass.writes[i] : pass.reads[i])) return i;
    return -1;
  }
  static constexpr int value = find(false), cotangent = kVjp ? find(true) : -1;
};

// From so many events with one factor on they are walked by themselves: the last pack of a run may be all but empty.
template <class T>
constexpr int64_t kLeastRun = 4 * LaneTraits<typename NativeLanes<T>::type>::width;

// How many events from a multiple of itself on take the shared path together: those with one factor, whose cotangent is
// summed over them if anyone wants it; 0 where there are too few.
template <class Op, class T, bool kVjp>
REPARAM_HD int64_t shared_run(const Call& call) {
  using Factor = FactorOf<Op, kVjp>;
  int64_t length = 1;
  for (int k = call.rank - 1; k >= 0 && call.operand[Factor::value].batch_stride[k] == 0; --k) length *= call.shape[k];
  if constexpr (kVjp) {
    const OperandData& cotangent = call.operand[Factor::cotangent];
    if (cotangent.data && !cotangent.reduced) return 0;
  }
  return length >= kLeastRun<T> ? length : 0;
}

// d * (d + 1) / 2 elements of one factor.
template <class T>
REPARAM_HD void load_factor(T* to, const T* data, const OperandData& operand, int64_t d) {
  const int64_t* stride = operand.event_stride;
  for (int64_t i = 0; i < d; ++i, to += i) {
    const T* row = data + (operand.packed ? triangle(i) * stride[0] : i * stride[0]);
    const int64_t step = operand.packed ? stride[0] : stride[1];
    if (step == 1) __builtin_memcpy(to, row, static_cast<size_t>(i + 1) * sizeof(T));
    else
      for (int64_t j = 0; j <= i; ++j) to[j] = row[j * step];
  }
}

// Where the outer products of one block of terms wait for their sum: the vectors a, b and diagonal of all terms, the
// values of one coordinate side by side.
template <class V>
struct OuterBlock {
  using T = ElementOf<V>;
  static constexpr int W = LaneTraits<V>::width, kPacks = kBlockTerms / W, kGroups = kBlockTerms / kSums;
  T* first;
  int64_t d;

  static REPARAM_HD int64_t bytes(int64_t d) { return 3 * d * kBlockTerms * static_cast<int64_t>(sizeof(T)); }

  REPARAM_HD OuterProduct<V> pack(int64_t term, bool wanted) const {
    V* a = reinterpret_cast<V*>(first + term);
    return {a, a + d * kPacks, a + 2 * d * kPacks, kPacks, wanted};
  }

  REPARAM_HD Eight<T> group(int64_t coordinate, int64_t g) const {
    return Eight<T>::load(first + coordinate * kBlockTerms + g * kSums);
  }

  // The sums over the first `groups` groups, as a triangle.
  template <int kCount>
  REPARAM_HD void sum_groups(int64_t groups, T* to) const {
    const int64_t count = kCount ? kCount : groups;
    constexpr Eight<T> zero{};
    for (int64_t i = 0; i < d; ++i) {
      Eight<T> a[kGroups], sum = zero;
      REPARAM_UNROLL
      for (int64_t g = 0; g < count; ++g) a[g] = group(i, g);
      for (int64_t j = 0; j < i; ++j) {
        sum = zero;
        REPARAM_UNROLL
        for (int64_t g = 0; g < count; ++g) sum = sum + a[g] * group(d + j, g);
        *to++ = sum.joined();
      }
      sum = zero;
      for (int64_t g = 0; g < count; ++g) sum = sum + (a[g] * group(d + i, g) + group(2 * d + i, g));
      *to++ = sum.joined();
    }
  }

  REPARAM_HD void sum(int64_t terms, T* to) const {
    if (terms == kBlockTerms) {
      sum_groups<kGroups>(kGroups, to);
      return;
    }
    const int64_t groups = (terms + kSums - 1) / kSums;
    for (int64_t k = 0; k < 3 * d; ++k)  // what fills the last group up
      for (int64_t term = terms; term < groups * kSums; ++term) first[k * kBlockTerms + term] = T(0);
    sum_groups<0>(groups, to);
  }
};

}  // namespace reparam::REPARAM_ARCH
