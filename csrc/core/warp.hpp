// SPDX-License-Identifier: MIT
// The threads of a warp on a GPU, which pack together, and the team of threads that share an event. A body gives thread
// `rank_in_team()` the coordinates rank, rank + kTeam, ... of a loop, and says `sync_team()` before others read what
// was written; sums over all of them are `sum_of_team`, where what a sum starts from is `first_of_team`. On a CPU, and
// where each thread has an event, a team is one thread. A test on the CPU, compiled with a GPU's REPARAM_STRIDE, gives
// the functions of a warp bodies of its own.
#pragma once
#include "config.hpp"
#if defined(__CUDACC__)
#include <cuda_pipeline_primitives.h>
#endif

namespace reparam::REPARAM_ARCH {

inline constexpr bool kShare = REPARAM_STRIDE < 0;  // an event
inline constexpr int kWarp = kShare ? -REPARAM_STRIDE : 32;
inline constexpr int kTeam = kShare ? kWarp : 1;

#if defined(__CUDA_ARCH__)
REPARAM_HD int lane_of_warp() { return static_cast<int>(threadIdx.x % kWarp); }
REPARAM_HD void sync_warp() { __syncwarp(); }  // what threads wrote to their scratch, all of them see
REPARAM_HD uint32_t lanes_where(bool value) { return __ballot_sync(~0u, value); }  // as a bit set
template <class T>
REPARAM_HD T from_lane(T value, int lane) {
  return __shfl_sync(~0u, value, lane);
}
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
#elif REPARAM_STRIDE != 1
#if defined(__CUDACC__)  // the host's half of a kernel, which nobody calls
REPARAM_HD int lane_of_warp() { return 0; }
REPARAM_HD void sync_warp() {}
REPARAM_HD uint32_t lanes_where(bool value) { return value; }
template <class T>
REPARAM_HD T from_lane(T value, int) {
  return value;
}
#else
int lane_of_warp();
void sync_warp();
uint32_t lanes_where(bool value);
int64_t word_from_lane(int64_t value, int lane);
template <class T>
REPARAM_HD T from_lane(T value, int lane) {
  int64_t word = 0;
  __builtin_memcpy(&word, &value, sizeof value);
  word = word_from_lane(word, lane);
  __builtin_memcpy(&value, &word, sizeof value);
  return value;
}
#endif
template <class T>
REPARAM_HD void copy_ahead(T* to, const T* from) {
  *to = *from;
}
REPARAM_HD void finish_copies() { sync_warp(); }
#endif

#if REPARAM_STRIDE < 0
REPARAM_HD int rank_in_team() { return lane_of_warp(); }
REPARAM_HD void sync_team() { sync_warp(); }
template <class V, class F>
REPARAM_HD V join_team(V x, F join) {  // the same bits for all
  for (int apart = kWarp / 2; apart > 0; apart /= 2) x = join(x, from_lane(x, lane_of_warp() ^ apart));
  return x;
}
#else
REPARAM_HD constexpr int rank_in_team() { return 0; }
REPARAM_HD void sync_team() {}
template <class V, class F>
REPARAM_HD V join_team(V x, F) {
  return x;
}
#endif
template <class V>
REPARAM_HD V sum_of_team(V x) {
  return join_team(x, [](V a, V b) { return a + b; });
}
template <class V>
REPARAM_HD V first_of_team(V x) {  // 0 for the others
  return rank_in_team() == 0 ? x : V(0);
}

// The sums over the team of P values; one of a power of two of them for each thread, that of number rank % P.
template <int P, class V>
REPARAM_HD V one_sum_of_team(V (&x)[P]) {
  static_assert(P <= kTeam);
  REPARAM_UNROLL
  for (int n = P / 2; n > 0; n /= 2) {  // n apart: each keeps one half of its values and gives the other away
    const bool upper = rank_in_team() & n;
    REPARAM_UNROLL
    for (int k = 0; k < n; ++k) {
      const V kept = upper ? x[k + n] : x[k], given = upper ? x[k] : x[k + n];
      x[k] = kept + from_lane(given, rank_in_team() ^ n);
    }
  }
  for (int apart = P; apart < kTeam; apart *= 2) x[0] = x[0] + from_lane(x[0], rank_in_team() ^ apart);
  return x[0];
}

}  // namespace reparam::REPARAM_ARCH
