// SPDX-License-Identifier: MIT
// As many multiply-adds as one core of this arch does at best: the roof that `reparam bench` measures kernels against.
// Compiled once per arch, in its namespace.
#include "../core/lanes.hpp"

namespace reparam::REPARAM_ARCH {

// Enough independent chains to hide the latency of two multiply-adds a cycle, few enough for 16 registers.
template <class T>
static int64_t fma_chains(int64_t rounds) {
  using V = typename NativeLanes<T>::type;
  constexpr int kChains = 12;
  const V factor(T(0.9375)), term(T(0.0625));
  V x[kChains];
  for (int k = 0; k < kChains; ++k) x[k] = V(T(k));
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) x[k] = mul_add(x[k], factor, term);
  asm volatile("" : : "r"(x) : "memory");  // someone may read them
  return rounds * kChains * 2 * LaneTraits<V>::width;
}

int64_t fma_loop(bool is_double, int64_t rounds);  // the flops that it did
int64_t fma_loop(bool is_double, int64_t rounds) {
  return is_double ? fma_chains<double>(rounds) : fma_chains<float>(rounds);
}

}  // namespace reparam::REPARAM_ARCH
