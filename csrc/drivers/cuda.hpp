// SPDX-License-Identifier: MIT
// What crosses between the CUDA module and the kernels of an op: plain structs.
#pragma once
#include <cuda_runtime_api.h>

#include "launch.hpp"

namespace reparam {

inline constexpr int kMostAttributes = 8;

// What a kernel is given, by value: a graph that has captured it owns all but the arrays.
struct CudaCall {
  Call call;
  double attributes[kMostAttributes] = {};
};

inline constexpr int64_t kSharedWithoutAsking = 48 * 1024;  // bytes of shared memory of a block

// How events meet threads: an event each, or one for the 32 of a warp, a team.
struct CudaPasses {
  WarpBytes warp_bytes[2][2] = {};  // [forward, reverse][float32, float64]
  // Events [0, count), or where there are `blocks.terms` the blocks [0, count) of a reduction.
  cudaError_t (*launch[2][2])(CudaCall call, int64_t count, const Blocks& blocks, const Workspace& workspace,
                              cudaStream_t stream) = {};
};

struct CudaKernels {
  const char* name;
  const char* signature;
  const char* attributes;
  int attribute_count;
  bool has_vjp, vjp_from_outputs;
  PassSpec pass[2];
  CudaPasses thread, team;  // no launch where the op takes no team
};

}  // namespace reparam
