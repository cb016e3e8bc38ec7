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

inline constexpr int kMostWarps = 4;                        // of a block
inline constexpr int64_t kSharedWithoutAsking = 48 * 1024;  // bytes of shared memory of a block

// The warps of a launch, and `bytes` of scratch for each of them: in the device's memory, in shared memory where `data`
// is null.
struct Workspace {
  char* data = nullptr;
  int64_t bytes = 0, warps = 0;
  int warps_per_block = kMostWarps, shared_limit = 0;  // of a block, in bytes
};

// How events meet threads: an event each, or one for the 32 of a warp, a team.
struct CudaPasses {
  int64_t (*warp_bytes[2][2])(const Call& call) = {};  // of scratch; [forward, reverse][float32, float64]
  // Events [0, count), or where there are `blocks.terms` the blocks [0, count) of a reduction, which a team does not
  // take.
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
