// SPDX-License-Identifier: MIT
// Where the rows of a `(m,n)` operand come from: an array, or Philox (the noise of a Draw, made and never stored).
#pragma once
#include "philox.hpp"
#include "view.hpp"

namespace reparam::REPARAM_ARCH {

// Row s of event b holds normals s * n .. s * n + n - 1 of stream index[b]: each lane owns one stream.
template <class V>
REPARAM_HD Ptr<const V> draw_row_loop(Key key, const LanesWith<V, uint64_t>& stream, int64_t row, int64_t n,
                                      Ptr<V> buffer) {
  constexpr int per_block = normals_per_block<V>;
  const int64_t first = row * n, last = first + n;
  const int64_t first_block = first / per_block;
  int64_t block = first_block;
  for (Ptr<V> to = buffer; block * per_block < last; ++block, to = to + per_block) {
    V normals[per_block];
    normal_block<V>(key, LanesWith<V, uint64_t>(static_cast<uint64_t>(block)), stream, normals);
    REPARAM_UNROLL
    for (int k = 0; k < per_block; ++k) to[k] = normals[k];
  }
  return buffer + (first - first_block * per_block);
}

// Values that a row buffer must hold: a row of a Draw may begin and end inside a block.
REPARAM_HD constexpr int64_t row_buffer_values(int64_t n) { return n + 8; }

}  // namespace reparam::REPARAM_ARCH
