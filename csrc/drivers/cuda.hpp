// SPDX-License-Identifier: MIT
// What crosses between the CUDA module and the kernels of an op: plain structs.
#pragma once
#include <cuda_runtime_api.h>

#include "plan.hpp"

namespace reparam {

inline constexpr int kMostAttributes = 8;

// What a kernel is given, by value: a graph that has captured it owns all but the arrays.
struct CudaCall {
  Call call;
  double attributes[kMostAttributes] = {};
};

// Scratch of a launch: `bytes` for each of `threads` threads.
struct Workspace {
  char* data = nullptr;
  int64_t bytes = 0, threads = 0;
};

struct CudaKernels {
  const char* name;
  const char* signature;
  const char* attributes;
  int attribute_count;
  bool has_vjp, vjp_from_outputs;
  PassSpec pass[2];
  int64_t (*arena_bytes[2][2])(const Call& call);  // [forward, reverse][float32, float64]
  // Events [0, count), or where `blocks.partial` stands the blocks [0, count) of a reduction.
  cudaError_t (*launch[2][2])(const CudaCall& call, int64_t count, const Blocks& blocks, Workspace workspace,
                              cudaStream_t stream);
};

}  // namespace reparam
