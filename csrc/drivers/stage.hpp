// SPDX-License-Identifier: MIT
// How matrices travel between memory and their packing, where the plain way costs too much:
// - events a multiple of 2048 bytes apart fall into the same few sets of an L1 cache (8 ways, 4096 bytes a way). Walked
//   side by side on 16 lanes, a line is gone before its next 16 bytes are asked for, and d = 32 took 2.2 times as long
//   as d = 33: they are walked a few lanes at a time;
// - a result larger than the cache costs a read of every line that is written: it is put together in L1 and whole lines
//   are streamed past the cache;
// - the lanes' events are too many streams for the hardware to see ahead: the next pack is asked for by hand.
#pragma once
#include "call.hpp"
#include "operand.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr int64_t kLine = 64;   // bytes
inline constexpr int64_t kWay = 4096;  // bytes of one way of L1, of which there are 8

// Whether more of W events this many bytes apart fall into one set of L1 than it has ways.
template <int W>
REPARAM_HD bool crowded(int64_t bytes) {
  const int64_t apart = bytes & -bytes;  // the largest power of two in it
  return bytes != 0 && W > 8 * (apart >= kWay ? 1 : kWay / apart);
}

// How the matrices of one operand travel.
struct Route {
  int64_t pitch = 0;  // of streamed results: elements from event to event in L1; 0: stored where they go
  bool crowded = false, fetched_ahead = false;
};

template <class V, class T>
REPARAM_HD Route route(const Call& call, const OperandData& operand, int64_t d, bool writes) {
  constexpr int W = LaneTraits<V>::width;
  constexpr int64_t size = sizeof(T);
  Route found;
  if (W == 1 || operand.packed || !operand.data || operand.reduced || call.rank == 0) return found;
  const int64_t step = operand.batch_stride[call.rank - 1];
  if (operand.event_stride[1] != 1) return found;
  found.crowded = d >= kBlock<V> && crowded<W>(step * size);
  const bool dense = operand.event_stride[0] == d && step == d * d;
  found.fetched_ahead = !writes && dense;
  if (writes && operand.large && dense) found.pitch = d * d + (crowded<W>(d * d * size) ? kLine / size : 0);
  return found;
}

// n elements to memory. A line that they share with others is written through the cache, by both.
template <class T>
REPARAM_HD void stream(T* to, const T* from, int64_t n) {
  constexpr int64_t line = kLine / sizeof(T);
  int64_t k = 0;
  for (; k < n && reinterpret_cast<uintptr_t>(to + k) % kLine; ++k) to[k] = from[k];
  for (; k + line <= n; k += line) stream_line(to + k, from + k);
  for (; k < n; ++k) to[k] = from[k];
}

// Asks for a line of memory, into L1 or L2.
template <bool kFar>
REPARAM_HD void fetch(const void* from) {
#if !defined(__CUDA_ARCH__)
  __builtin_prefetch(from, 0, kFar ? 2 : 3);
#endif
}

inline constexpr int64_t kNear = 4096;  // bytes of a pack that L1 has room for beside the one in work

// Asks for n elements that lie together, vectors of the next pack, into L1.
template <class T>
REPARAM_HD void fetch_run_ahead(const T* data, int64_t n) {
  constexpr int64_t line = kLine / sizeof(T);
  for (int64_t k = 0; k < n; k += line) fetch<false>(data + k);
}

// Asks for the lower triangles of the next W matrices, which begin at `data`; large ones into L2.
template <int W, class T>
REPARAM_HD void fetch_ahead(const T* data, int64_t d) {
  constexpr int64_t line = kLine / sizeof(T);
  if (W * d * d * sizeof(T) <= kNear) {
    for (int64_t k = 0; k < W * d * d; k += line) fetch<false>(data + k);
    return;
  }
  for (int lane = 0; lane < W; ++lane)
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j <= i; j += line) fetch<true>(data + (lane * d + i) * d + j);
}

}  // namespace reparam::REPARAM_ARCH
