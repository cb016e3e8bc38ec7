// SPDX-License-Identifier: MIT
// Raw words of Philox4x32-10: word i of a stream is word i % 4 of block i / 4. `offset` is a multiple of 4 and is the
// first word; key_low and key_high are the halves of the 64-bit key. Cost 60 integer operations per block of 4.
#pragma once
#include "../core/philox.hpp"
#include "../core/view.hpp"

namespace reparam::REPARAM_ARCH {

struct bits {
  static constexpr auto signature = "():u8,():u8->(n):u4";
  static constexpr auto attributes = "key_low,key_high";
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t* n) { return 15.0 * n[0]; }

  template <class V, class N, class U>
  REPARAM_HD static void forward(N n, const double* attribute, Scalar<const U> stream,
                                 Scalar<const U> offset,               // inputs
                                 Vec<LanesWith<V, uint32_t>> words) {  // outputs
    const Key key{static_cast<uint32_t>(attribute[0]), static_cast<uint32_t>(attribute[1])};
    const U first = offset() >> 2;
    for (int64_t i = 0; i < n; i += 4) {
      LanesWith<V, uint32_t> block[4];
      philox_words<V>(key, first + U(static_cast<uint64_t>(i / 4)), stream(), block);
      for (int64_t k = 0; k < 4 && i + k < n; ++k) words[i + k] = block[k];
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
