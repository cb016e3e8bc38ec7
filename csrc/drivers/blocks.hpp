// SPDX-License-Identifier: MIT
// A reduction on a GPU: sums of blocks of 64 terms first, eight threads or a team each; then each value's blocks are
// added in order in float64, in rounds that bound the memory. What one round leaves of an event that it did not finish
// is carried on.
#pragma once
#include "plan.hpp"

namespace reparam {

inline constexpr int64_t kRoundBytesOnGpu = int64_t{64} << 20;

REPARAM_HD int64_t row_of_triangle(int64_t j) {
  int64_t row = 0, step = int64_t{1} << 31;
  for (; step > 0; step >>= 1)
    if ((row + step) * (row + step + 1) / 2 <= j) row += step;
  return row;
}

// Adds the blocks [blocks.first, end) of value j of kept event `kept` to what the round before left, and writes the sum
// if that is all; else leaves it to the next round, in another place: threads of one launch come in any order. A sum of
// no terms is zero.
template <class T>
REPARAM_HD void add_blocks(const Call& call, const PassSpec& pass, int kept_rank, const Blocks& blocks, int64_t kept,
                           int64_t j, int64_t end, const double* left, double* leaves) {
  const int64_t first = blocks.first, own_first = kept * blocks.count, own_end = own_first + blocks.count;
  double sum = own_first < first ? left[j] : 0;
  const T* partial = reinterpret_cast<const T*>(blocks.partial);
  for (int64_t b = own_first > first ? own_first : first; b < (own_end < end ? own_end : end); ++b)
    sum += static_cast<double>(partial[(b - first) * blocks.values + j]);
  if (own_end > end) {
    leaves[j] = sum;
    return;
  }
  int operand = 0;
  while (blocks.offset[operand + 1] <= j) ++operand;
  const OperandSpec spec = pass.operand[operand];
  const int64_t at = kept_offset(call, kept_rank, call.operand[operand], kept);
  int64_t column = j - blocks.offset[operand], row = 0;
  if (is_matrix(spec)) row = row_of_triangle(column), column -= row * (row + 1) / 2;
  write_entry(spec, call.operand[operand], at, row, column, static_cast<T>(sum));
}

// How many blocks a round takes.
inline int64_t round_of(const Part& part, const Blocks& blocks, bool is_double) {
  const int64_t total = product(part.call.shape, part.kept_rank) * blocks.count;
  const int64_t bytes = blocks.values * (is_double ? 8 : 4), most = kRoundBytesOnGpu / (bytes + 1) + 1;
  return total < most ? total : most;
}

}  // namespace reparam
