// SPDX-License-Identifier: MIT
// An op on the emulated warps of warp.cpp.
#pragma once
#include "drivers/plan.hpp"

namespace reparam {

struct WarpKernels {
  // One thread's part of events [0, count), or of the blocks [0, count) of a reduction.
  void (*run[2][2])(const Call& call, int64_t count, const Blocks& blocks, int64_t warp, int64_t warps, char* arena);
  int64_t (*thread_bytes[2][2])(const Call& call);  // [forward, reverse][float32, float64]
};

}  // namespace reparam
