// SPDX-License-Identifier: MIT
// Where the lanes of a pack stand in each operand, as the events of a call are walked in C order.
#pragma once
#include "call.hpp"
#include "operand.hpp"

namespace reparam::REPARAM_ARCH {

// Event `lane` of operand `i` begins at `at[i][lane]`.
template <int kCount, int W>
struct Position {
  int64_t index[kMaxRank];
  int64_t at[kCount][W];
  int64_t loaded[kCount];  // where a broadcast operand was loaded from, or kNotLoaded
  int count;               // lanes in use
  bool one_row;            // all lanes in one innermost row

  REPARAM_HD void seek(const Call& call, int64_t event) {
    for (int k = call.rank - 1; k >= 0; --k) {
      index[k] = event % call.shape[k];
      event /= call.shape[k];
    }
    for (int i = 0; i < kCount; ++i) loaded[i] = kNotLoaded;
  }

  // Finds the lanes of the next pack of at most `left` events and moves past them.
  REPARAM_HD void place(const Call& call, int64_t left) {
    count = static_cast<int>(left < W ? left : W);
    const int last = call.rank - 1;
    one_row = last < 0 || index[last] + count <= call.shape[last];
    if (one_row) {
      for (int i = 0; i < kCount; ++i) {
        const int64_t first = offset(call, i), step = last < 0 ? 0 : call.operand[i].batch_stride[last];
        for (int lane = 0; lane < W; ++lane) at[i][lane] = first + step * (lane < count ? lane : count - 1);
      }
      advance(call, count);
      return;
    }
    for (int lane = 0; lane < W; ++lane) {
      for (int i = 0; i < kCount; ++i) at[i][lane] = lane < count ? offset(call, i) : at[i][count - 1];
      if (lane < count) advance(call, 1);
    }
  }

 private:
  REPARAM_HD void advance(const Call& call, int64_t by) {
    for (int k = call.rank - 1; k >= 0 && by; --k) {
      const int64_t moved = index[k] + by;
      if (moved < call.shape[k]) {
        index[k] = moved;
        return;
      }
      index[k] = moved % call.shape[k];
      by = moved / call.shape[k];
    }
  }

  REPARAM_HD int64_t offset(const Call& call, int i) const {
    int64_t sum = 0;
    for (int k = 0; k < call.rank; ++k) sum += index[k] * call.operand[i].batch_stride[k];
    return sum;
  }
};

}  // namespace reparam::REPARAM_ARCH
