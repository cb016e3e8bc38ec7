// SPDX-License-Identifier: MIT
// Event sizes. A body takes them as a type N, so that a compile-time size can stand in their place. On the CPU none
// does: Cholesky of d = 4 and 8 with fixed sizes was measured within 5% of the loops (-O2 and -O3, AVX2), for twice the
// code.
#pragma once
#include "config.hpp"

namespace reparam::REPARAM_ARCH {

struct Dynamic {
  int64_t size;
  REPARAM_HD constexpr Dynamic(int64_t n) : size(n) {}
  REPARAM_HD constexpr operator int64_t() const { return size; }
};

// Number of entries of a lower triangle with n rows; also the packed index of the first entry of row n.
REPARAM_HD constexpr int64_t triangle(int64_t n) { return n * (n + 1) / 2; }

}  // namespace reparam::REPARAM_ARCH
