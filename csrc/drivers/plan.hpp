// SPDX-License-Identifier: MIT
// What a call comes to before a kernel runs, on the CPU and on a GPU alike: batch dims merged, sums over broadcast dims
// planned, and where a sum is written.
#pragma once
#include <vector>

#include "call.hpp"

namespace reparam {

inline int64_t product(const int64_t* shape, int rank) {
  int64_t n = 1;
  for (int k = 0; k < rank; ++k) n *= shape[k];
  return n;
}

inline void set_dim(Call& to, int at, const Call& from, int dim, int operands) {
  to.shape[at] = from.shape[dim];
  for (int i = 0; i < operands; ++i) to.operand[i].batch_stride[at] = from.operand[i].batch_stride[dim];
}

// Drops dims of length 1 and joins neighbours that every operand walks as one.
inline void merge_dims(Call& call, int operands) {
  int rank = 0;
  for (int k = 0; k < call.rank; ++k) {
    if (call.shape[k] == 1) continue;
    bool joins = rank > 0;
    for (int i = 0; i < operands && joins; ++i) {
      const int64_t* stride = call.operand[i].batch_stride;
      joins = !call.operand[i].data || stride[rank - 1] == stride[k] * call.shape[k];
    }
    const int64_t outer = joins ? call.shape[rank - 1] : 1;
    if (!joins) ++rank;
    set_dim(call, rank - 1, call, k, operands);
    call.shape[rank - 1] *= outer;
  }
  call.rank = rank;
}

inline int64_t values_of(OperandSpec spec, const int64_t* extent) {
  const int64_t n = spec.symbol[0] < 0 ? 1 : extent[spec.symbol[0]];
  return spec.kind == Kind::scalar || spec.kind == Kind::vector ? n : n * (n + 1) / 2;
}

// Entry (row, column) of a sum to its place, of a vector (0, column): above the diagonal of a factor stands zero, of a
// symmetric matrix the same value.
template <class T>
REPARAM_HD void write_entry(OperandSpec spec, const OperandData& operand, int64_t at, int64_t row, int64_t column,
                            T value) {
  T* to = reinterpret_cast<T*>(operand.data) + at;
  const int64_t* stride = operand.event_stride;
  if (!is_matrix(spec) || operand.packed) {
    to[(row * (row + 1) / 2 + column) * stride[0]] = value;
    return;
  }
  to[column * stride[0] + row * stride[1]] = spec.kind == Kind::symmetric ? value : T(0);
  to[row * stride[0] + column * stride[1]] = value;
}

// One run over the events of a call; outputs that are `reduced` are summed over the dims from `kept_rank` on.
struct Part {
  Call call;
  int kept_rank = -1;  // -1: nothing is summed
};

// A part for each set of dims that outputs are summed over; the first one also stores the outputs that are not.
inline std::vector<Part> parts_of(const Call& call, const PassSpec& pass) {
  unsigned dims_of[kMaxOperands] = {}, groups[kMaxOperands] = {};  // as bit sets
  int group_count = 0;
  for (int i = 0; i < pass.count; ++i) {
    if (!pass.writes[i] || !call.operand[i].data) continue;
    for (int k = 0; k < call.rank; ++k)
      if (call.shape[k] != 1 && call.operand[i].batch_stride[k] == 0) dims_of[i] |= 1u << k;
    bool known = dims_of[i] == 0;
    for (int g = 0; g < group_count; ++g) known = known || groups[g] == dims_of[i];
    if (!known) groups[group_count++] = dims_of[i];
  }
  if (group_count == 0) return {Part{call}};
  std::vector<Part> parts;
  for (int g = 0; g < group_count; ++g) {
    Part part{call, 0};
    for (int k = 0; k < call.rank; ++k)
      if (!(groups[g] >> k & 1)) set_dim(part.call, part.kept_rank++, call, k, pass.count);
    for (int k = 0, at = part.kept_rank; k < call.rank; ++k)
      if (groups[g] >> k & 1) set_dim(part.call, at++, call, k, pass.count);
    for (int i = 0; i < pass.count; ++i) {
      if (!pass.writes[i]) continue;
      OperandData& operand = part.call.operand[i];
      operand.reduced = operand.data && dims_of[i] == groups[g];
      if (!operand.reduced && (g > 0 || dims_of[i] != 0)) operand.data = nullptr;
    }
    parts.push_back(part);
  }
  return parts;
}

// The blocks of a reduction: for each kept event the sums of `terms` events in blocks of 64.
struct Blocks {
  int64_t terms = 0, count = 0;           // terms and blocks of one kept event
  int64_t values = 0;                     // of one block
  int64_t offset[kMaxOperands + 1] = {};  // of each operand's values in a block
  int64_t first = 0;                      // number of the first block whose sums `partial` holds
  char* partial = nullptr;

  // Events [begin, end) of the call are the terms of a block.
  REPARAM_HD int64_t begin(int64_t block) const { return block / count * terms + block % count * kBlockTerms; }
  REPARAM_HD int64_t end(int64_t block) const {
    const int64_t end = begin(block) + kBlockTerms, last = (block / count + 1) * terms;
    return end < last ? end : last;
  }
  // Where the kernel puts the sums from a block on.
  template <class T>
  REPARAM_HD Partials sums(int64_t block) const {
    Partials sums{{}, values * static_cast<int64_t>(sizeof(T))};
    for (int i = 0; i < kMaxOperands; ++i)
      sums.first[i] = partial + ((block - first) * values + offset[i]) * static_cast<int64_t>(sizeof(T));
    return sums;
  }
};

inline Blocks blocks_of(const Part& part, const PassSpec& pass) {
  Blocks blocks;
  const Call& call = part.call;
  blocks.terms = product(call.shape + part.kept_rank, call.rank - part.kept_rank);
  blocks.count = (blocks.terms + kBlockTerms - 1) / kBlockTerms;
  for (int i = 0; i < kMaxOperands; ++i)
    blocks.offset[i + 1] = blocks.offset[i] + (call.operand[i].reduced ? values_of(pass.operand[i], call.extent) : 0);
  blocks.values = blocks.offset[kMaxOperands];
  return blocks;
}

// Where an operand has its values of a kept event, in elements.
REPARAM_HD int64_t kept_offset(const Call& call, int kept_rank, const OperandData& operand, int64_t event) {
  int64_t at = 0;
  for (int k = kept_rank - 1; k >= 0; --k) {
    at += event % call.shape[k] * operand.batch_stride[k];
    event /= call.shape[k];
  }
  return at;
}

}  // namespace reparam
