// SPDX-License-Identifier: MIT
// Event sizes. One body serves both: with Static<D> its loops unroll, with Dynamic they stay loops.
#pragma once
#include "config.hpp"

namespace reparam::REPARAM_ARCH {

struct Dynamic {
  int64_t size;
  REPARAM_HD constexpr Dynamic(int64_t n) : size(n) {}
  REPARAM_HD constexpr operator int64_t() const { return size; }
};

template <int D>
struct Static {
  REPARAM_HD constexpr Static(int64_t) {}
  REPARAM_HD constexpr operator int64_t() const { return D; }
};

// Number of entries of a lower triangle with n rows; also the packed index of the first entry of row n.
REPARAM_HD constexpr int64_t triangle(int64_t n) { return n * (n + 1) / 2; }

}  // namespace reparam::REPARAM_ARCH
