// SPDX-License-Identifier: MIT
// The kernels of an op on a GPU: each thread runs events, or blocks of a reduction, through the loops of the scalar
// arch.
#pragma once
#include "cuda.hpp"
#include "events.hpp"
#include "pack_once.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr int kThreads = 128;  // of a block

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
      begin = blocks.begin(block), end = blocks.end(block), partials = blocks.sums<T>(block);
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

}  // namespace reparam::REPARAM_ARCH
