// SPDX-License-Identifier: MIT
// What crosses between the driver of a call (compiled once) and a kernel (compiled once per arch): plain structs.
#pragma once
#include "../core/signature.hpp"

namespace reparam {

inline constexpr int kMaxRank = 16;     // batch dims of a call
inline constexpr int kBlockTerms = 64;  // terms of one block of a reduction (the fixed order of sums),
inline constexpr int kSums = 8;         // of which term t goes into partial sum t % 8

struct OperandData {
  char* data = nullptr;                 // null: an output that is not wanted
  int64_t batch_stride[kMaxRank] = {};  // [elements]
  int64_t event_stride[2] = {};         // [elements]
  bool reduced = false;                 // an output summed over the inner `terms` of the call
  bool drawn = false;                   // noise to be made: data is the uint64 stream of each event
  bool packed = false;                  // a lower factor as its triangle, row after row
  bool large = false;                   // an output of the call that a cache does not hold
};

struct Call {
  int rank = 0;
  int64_t shape[kMaxRank] = {};      // batch dims, the last one innermost
  int64_t extent[kMaxSymbols] = {};  // event sizes in the order of the signature's symbols
  const double* attributes = nullptr;
  uint64_t draw_key = 0;
  OperandData operand[kMaxOperands] = {};
};

// Where the sums of a reduction go: those of reduced output operand i over the first 64 events of a range to first[i]
// (packed values of the element type), over the next 64 to `block_bytes` further on.
struct Partials {
  char* first[kMaxOperands] = {};
  int64_t block_bytes = 0;
};

// Runs events [begin, end) of the call in C order. With `partials`, each block of 64 of them is summed there instead of
// being stored.
using KernelFunction = void (*)(const Call& call, int64_t begin, int64_t end, char* arena, const Partials* partials);

struct Kernel {
  KernelFunction run = nullptr;
  int64_t (*arena_bytes)(const Call& call) = nullptr;
};

struct OpKernels {
  const char* name;
  const char* signature;
  const char* attributes;  // comma separated names
  bool has_vjp, vjp_from_outputs;
  PassSpec pass[2];                        // forward, reverse
  double (*flops)(const int64_t* extent);  // of one event, forward
  int lanes[2];                            // events that a kernel takes at once: float32, float64
  Kernel kernel[2][2];                     // [forward, reverse][float32, float64]
};

}  // namespace reparam
