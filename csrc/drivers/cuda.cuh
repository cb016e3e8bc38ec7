// SPDX-License-Identifier: MIT
// The kernels of an op on a GPU: each thread runs events, or blocks of a reduction, through the loops of the scalar
// arch.
#pragma once
#include "cuda.hpp"
#include "events.hpp"
#include "pack_once.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr int kThreads = 128;  // of a block

__device__ inline int64_t thread_number() { return blockIdx.x * int64_t{kThreads} + threadIdx.x; }

// Events [0, count), or blocks [0, count) of a reduction: one kernel, so that the body stands in the binary once.
template <class Op, class T, bool kVjp>
__global__ void __launch_bounds__(kThreads)
    run_op(const __grid_constant__ CudaCall work, int64_t count, const __grid_constant__ Blocks blocks,
           const __grid_constant__ Workspace workspace) {
  const int64_t thread = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (thread >= workspace.threads) return;
  for (int64_t number = thread; number < count; number += workspace.threads) {
    int64_t begin = number, end = number + 1;
    Partials partials;
    if (blocks.partial) {
      const int64_t block = blocks.first + number;
      const int64_t base = block / blocks.count * blocks.terms, first = block % blocks.count * kBlockTerms;
      begin = base + first, end = base + (first + kBlockTerms < blocks.terms ? first + kBlockTerms : blocks.terms);
      char* values = blocks.partial + number * blocks.values * static_cast<int64_t>(sizeof(T));
      for (int i = 0; i < kMaxOperands; ++i)
        partials.first[i] = values + blocks.offset[i] * static_cast<int64_t>(sizeof(T));
    }
    run_events<Op, T, kVjp, Dynamic>(work.call, work.attributes, begin, end, workspace.data + thread * workspace.bytes,
                                     blocks.partial ? &partials : nullptr);
  }
}

template <class Op, class T, bool kVjp>
static cudaError_t launch(const CudaCall& call, int64_t count, const Blocks& blocks, Workspace workspace,
                          cudaStream_t stream) {
  const auto grid = static_cast<unsigned>((workspace.threads + kThreads - 1) / kThreads);
  run_op<Op, T, kVjp><<<grid, kThreads, 0, stream>>>(call, count, blocks, workspace);
  return cudaGetLastError();
}

template <class Op, class T, bool kVjp>
static int64_t cuda_arena_bytes(const Call& call) {
  return events_arena<Op, T, kVjp>(call);
}

}  // namespace reparam::REPARAM_ARCH
