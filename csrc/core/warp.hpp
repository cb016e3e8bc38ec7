// SPDX-License-Identifier: MIT
// The threads that pack together on a GPU: the 32 of a warp. A test on the CPU, compiled with the GPU's REPARAM_STRIDE,
// gives the first four functions bodies of its own.
#pragma once
#include "config.hpp"
#if defined(__CUDACC__)
#include <cuda_pipeline_primitives.h>
#endif

namespace reparam::REPARAM_ARCH {

inline constexpr int kWarp = 32;

#if defined(__CUDA_ARCH__)
REPARAM_HD int lane_of_warp() { return static_cast<int>(threadIdx.x % kWarp); }
REPARAM_HD void sync_warp() { __syncwarp(); }  // what threads wrote to their scratch, all of them see
REPARAM_HD uint32_t lanes_where(bool value) { return __ballot_sync(~0u, value); }  // as a bit set
REPARAM_HD int64_t from_lane(int64_t value, int lane) { return __shfl_sync(~0u, value, lane); }
// A value from the device's memory to scratch: to shared memory it travels by itself until `finish_copies`.
template <class T>
REPARAM_HD void copy_ahead(T* to, const T* from) {
  if (__isShared(to)) __pipeline_memcpy_async(to, from, sizeof(T));
  else *to = *from;
}
REPARAM_HD void finish_copies() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncwarp();
}
#else
#if defined(__CUDACC__)  // the host's half of a kernel, which nobody calls
REPARAM_HD int lane_of_warp() { return 0; }
REPARAM_HD void sync_warp() {}
REPARAM_HD uint32_t lanes_where(bool value) { return value; }
REPARAM_HD int64_t from_lane(int64_t value, int) { return value; }
#else
int lane_of_warp();
void sync_warp();
uint32_t lanes_where(bool value);
int64_t from_lane(int64_t value, int lane);
#endif
template <class T>
REPARAM_HD void copy_ahead(T* to, const T* from) {
  *to = *from;
}
REPARAM_HD void finish_copies() { sync_warp(); }
#endif

}  // namespace reparam::REPARAM_ARCH
