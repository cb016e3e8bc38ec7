// SPDX-License-Identifier: MIT
// Standard normals offset .. offset + n - 1 of a stream (`offset` a multiple of 4): Philox and Box-Muller, the same
// bits on every backend (core/philox.hpp). Cost about 45 operations per normal, n elements moved.
#pragma once
#include "../core/philox.hpp"
#include "../core/view.hpp"

namespace reparam::REPARAM_ARCH {

struct normal {
  static constexpr auto signature = "():u8,():u8->(n)";
  static constexpr auto attributes = "key_low,key_high";
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t* n) { return 45.0 * n[0]; }

  template <class V, class N, class U>
  REPARAM_HD static void forward(N n, const double* attribute, Scalar<const U> stream,
                                 Scalar<const U> offset,  // inputs
                                 Vec<V> noise) {          // outputs
    constexpr int per_block = normals_per_block<V>;
    const Key key{static_cast<uint32_t>(attribute[0]), static_cast<uint32_t>(attribute[1])};
    const U first = per_block == 4 ? offset() >> 2 : offset() >> 1;
    for (int64_t i = 0; i < n; i += per_block) {
      V block[per_block];
      normal_block<V>(key, first + U(static_cast<uint64_t>(i / per_block)), stream(), block);
      for (int64_t k = 0; k < per_block && i + k < n; ++k) noise[i + k] = block[k];
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
