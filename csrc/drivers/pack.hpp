// SPDX-License-Identifier: MIT
// Packing: the vectors and matrices of W events <-> values of W lanes, a block after the other (block.hpp).
#pragma once
#include "../core/rows.hpp"
#include "block.hpp"

namespace reparam::REPARAM_ARCH {

template <class V, class T, class At>
REPARAM_HD void load_columns(V* to, const T* data, At at, int64_t n, int64_t readable) {
  constexpr int K = kBlock<V>;
  for (int64_t j = 0; j < n; j += K) {
    const int64_t first = j + K <= readable ? j : readable - K;
    if (first + K <= n) {
      load_block(to + first, data + first, at);
    } else {
      V block[K];
      load_block(block, data + first, at);
      for (int k = 0; first + k < n; ++k) to[first + k] = block[k];
    }
  }
}

template <class V, class T, class At>
REPARAM_HD void store_columns(T* data, At at, const V* from, int64_t n) {
  constexpr int K = kBlock<V>;
  int64_t j = 0;
  for (; j + 2 * K <= n; j += 2 * K) store_two_blocks(data + j, at, from + j);
  for (; j < n; j += K) {
    const int64_t first = j + K <= n ? j : n - K;
    store_block(data + first, at, from + first);
  }
}

// Packs elements 0..n-1 (spaced by `stride`) of each lane's event into to[0..n). `readable` >= n elements of the event
// may be touched, so that a short row can be loaded as one full vector; a tail is an overlapping load, never a mask
// (masked AVX2 accesses cost 12 cycles).
template <class V, class T>
REPARAM_HD void load_run_loop(V* to, const T* data, const Places& places, int64_t n, int64_t stride, int64_t readable) {
  constexpr int W = LaneTraits<V>::width;
  const int64_t* at = places.at;
  if (W == 1 || places.same_event()) {
    for (int64_t j = 0; j < n; ++j) to[j] = V(data[at[0] + j * stride]);
    return;
  }
  if constexpr (W > 1) {
    constexpr int K = kBlock<V>;
    if (stride != 1 || readable < K) {
      for (int64_t j = 0; j < n; ++j) to[j] = gather<V>(data + j * stride, at);
      return;
    }
    if (by_table<V>(places)) load_columns(to, data, at, n, readable);
    else load_columns(to, data, evenly<K>(places), n, readable);
  }
}

// The reverse.
template <class V, class T>
REPARAM_HD void store_run_loop(T* data, const Places& places, const V* from, int64_t n, int64_t stride) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W > 1 && sizeof(T) == sizeof(ElementOf<V>)) {
    constexpr int K = kBlock<V>;
    if (stride == 1 && n >= K) {
      if (by_table<V>(places)) store_columns(data, places.at, from, n);
      else store_columns(data, evenly<K>(places), from, n);
      return;
    }
  }
  for (int64_t j = 0; j < n; ++j) scatter(data + j * stride, places.at, from[j]);
}

#if REPARAM_STRIDE == 1
// The loops for the lanes of this arch are functions, compiled once (arch/pack.cpp): a call for each operand and pack
// is not seen in the time, and in every kernel object they were half of the build and four fifths of the code. So is
// the drawing of a row of noise.
using FloatLanes = NativeLanes<float>::type;
using DoubleLanes = NativeLanes<double>::type;
REPARAM_ONCE void load_run(FloatLanes* to, const float* data, const Places& places, int64_t n, int64_t stride,
                           int64_t readable);
REPARAM_ONCE void load_run(DoubleLanes* to, const double* data, const Places& places, int64_t n, int64_t stride,
                           int64_t readable);
REPARAM_ONCE void store_run(float* data, const Places& places, const FloatLanes* from, int64_t n, int64_t stride);
REPARAM_ONCE void store_run(double* data, const Places& places, const DoubleLanes* from, int64_t n, int64_t stride);
REPARAM_ONCE const FloatLanes* draw_row(Key key, const LanesWith<FloatLanes, uint64_t>& stream, int64_t row, int64_t n,
                                        FloatLanes* buffer);
REPARAM_ONCE const DoubleLanes* draw_row(Key key, const LanesWith<DoubleLanes, uint64_t>& stream, int64_t row,
                                         int64_t n, DoubleLanes* buffer);
#endif
template <class W>  // raw words, of one op
REPARAM_HD void store_run(uint32_t* data, const Places& places, const W* from, int64_t n, int64_t stride) {
  store_run_loop(data, places, from, n, stride);
}

// One row of lower triangles, [0, n) of d, for K lanes at a time: a line of memory is used up before the next lanes
// come.
template <class V, class T, class At>
REPARAM_HD void load_row_of_few(V* packed, const T* data, At at, int64_t n, int64_t d) {
  constexpr int W = LaneTraits<V>::width, K = kBlock<V>;
  for (int lane = 0; lane < W; lane += K)
    for (int64_t j = 0; j < n; j += K) {
      const int64_t first = j + K <= d ? j : d - K;
      Lanes<T, K> block[K];
      load_block(block, data + first, at + lane);
      REPARAM_UNROLL
      for (int k = 0; k < K; ++k)
        __builtin_memcpy(reinterpret_cast<T*>(packed + first + k) + lane, &block[k], sizeof block[k]);
    }
}

// The reverse, with zeros from n on.
template <class V, class T, class At>
REPARAM_HD void store_row_of_few(T* data, At at, const V* packed, int64_t n, int64_t d) {
  constexpr int W = LaneTraits<V>::width, K = kBlock<V>;
  for (int lane = 0; lane < W; lane += K)
    for (int64_t j = 0; j < d; j += K) {
      const int64_t first = j + K <= d ? j : d - K;
      Lanes<T, K> block[K];
      REPARAM_UNROLL
      for (int k = 0; k < K; ++k) {
        block[k] = Lanes<T, K>(T(0));
        if (first + k < n)
          __builtin_memcpy(&block[k], reinterpret_cast<const T*>(packed + first + k) + lane, sizeof block[k]);
      }
      store_block(data + first, at + lane, block);
    }
}

// Rows of lower triangles, in whole blocks: what one writes past the diagonal lies inside the triangle and is written
// over by later rows.
template <class V, class T, class At>
REPARAM_HD void load_lower_rows(Tril<V> to, const T* data, At at, bool crowded, int64_t d, int64_t pitch) {
  constexpr int W = LaneTraits<V>::width, K = kBlock<V>;
  if constexpr (W > 8)
    if (crowded) {
      for (int64_t i = 0; i < d; ++i) load_row_of_few(to.row(i), data + i * pitch, at, i + 1, d);
      return;
    }
  for (int64_t i = 0; i < d; ++i) {
    const T* row = data + i * pitch;
    V* packed = to.row(i);
    int64_t j = 0;
    for (; j <= i && j + K <= d; j += K) load_block(packed + j, row + j, at);
    if (j <= i) load_block(packed + d - K, row + d - K, at);
  }
}

// Lower triangle of a dense matrix [d, d] with strides (row, column) into packed rows. A matrix narrower than a block
// is loaded as one run of d * d elements where its entries lie together.
template <class V, class T>
REPARAM_HD void load_lower_loop(Tril<V> to, V* dense, const T* data, const Places& places, bool crowded, int64_t d,
                                const int64_t* stride) {
  constexpr int W = LaneTraits<V>::width, K = W > 1 ? kBlock<V> : 1;
  if constexpr (W > 1) {
    if (stride[1] == 1 && d >= K && !places.same_event()) {
      if (by_table<V>(places)) load_lower_rows(to, data, places.at, crowded, d, stride[0]);
      else load_lower_rows(to, data, evenly<K>(places), crowded, d, stride[0]);
      return;
    }
    if (d < K && stride[1] == 1 && stride[0] == d && !places.same_event()) {
      load_run(dense, data, places, d * d, 1, d * d);
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j <= i; ++j) to(i, j) = dense[i * d + j];
      return;
    }
  }
  for (int64_t i = 0; i < d; ++i) load_run(to.row(i), data + i * stride[0], places, i + 1, stride[1], d);
}

// Columns [j, j + kCount) of a row of a lower triangle whose diagonal stands in column i. What is read past it lies
// inside the triangle.
template <int kCount, class V>
REPARAM_HD void row_with_zeros(V* block, const V* row, int64_t i, int64_t j) {
  const V zero = V(ElementOf<V>(0));
  REPARAM_UNROLL
  for (int k = 0; k < kCount; ++k) block[k] = j + k <= i ? row[j + k] : zero;
}

// Row i of lower triangles, with zeros above the diagonal.
template <class V, class T, class At>
REPARAM_HD void store_lower_row(T* data, At at, const V* row, int64_t i, int64_t d) {
  constexpr int W = LaneTraits<V>::width, K = kBlock<V>;
  V block[2 * K];
  int64_t j = 0;
  for (; j + 2 * K <= i + 1; j += 2 * K) store_two_blocks(data + j, at, row + j);
  if (j <= i && j + 2 * K <= d) {
    row_with_zeros<2 * K>(block, row, i, j);
    store_two_blocks(data + j, at, block);
    j += 2 * K;
  }
  for (; j + 2 * K <= d; j += 2 * K) REPARAM_UNROLL
  for (int lane = 0; lane < W; ++lane) __builtin_memset(data + at[lane] + j, 0, 2 * K * sizeof(T));
  for (; j < d; j += K) {
    const int64_t first = j + K <= d ? j : d - K;
    row_with_zeros<K>(block, row, i, first);
    store_block(data + first, at, block);
  }
}

template <class V, class T, class At>
REPARAM_HD void store_lower_rows(T* data, At at, Tril<V> from, int64_t d, int64_t pitch) {
  constexpr int K = kBlock<V>;
  if (d == K && pitch == d) {  // two rows lie together
    REPARAM_UNROLL
    for (int i = 0; i < K; i += 2) {
      V block[2 * K];
      row_with_zeros<K>(block, from.row(i), i, 0);
      row_with_zeros<K>(block + K, from.row(i + 1), i + 1, 0);
      store_two_blocks(data + i * K, at, block);
    }
    return;
  }
  for (int64_t i = 0; i < d; ++i) store_lower_row(data + i * pitch, at, from.row(i), i, d);
}

// Packed rows to a dense matrix [d, d]: zeros above the diagonal, or mirrored where `symmetric`. `dense` is a buffer
// of one row, or of the whole matrix where it is narrower than a block.
template <class V, class T>
REPARAM_HD void store_lower_loop(T* data, const Places& places, V* dense, Tril<V> from, bool crowded, int64_t d,
                                 const int64_t* stride, bool symmetric) {
  constexpr int W = LaneTraits<V>::width, K = W > 1 ? kBlock<V> : 1;
  const V zero = V(ElementOf<V>(0));
  if constexpr (W > 8)
    if (crowded) {
      for (int64_t i = 0; i < d; ++i) {
        const V* row = from.row(i);
        if (symmetric) {
          for (int64_t j = 0; j < d; ++j) dense[j] = j <= i ? row[j] : from(j, i);
          row = dense;
        }
        store_row_of_few(data + i * stride[0], places.at, row, symmetric ? d : i + 1, d);
      }
      return;
    }
  if constexpr (W > 1) {
    if (stride[1] == 1 && d >= K && !symmetric) {
      if (by_table<V>(places)) store_lower_rows(data, places.at, from, d, stride[0]);
      else store_lower_rows(data, evenly<K>(places), from, d, stride[0]);
      return;
    }
  }
  const bool whole = W > 1 && d < K && stride[1] == 1 && stride[0] == d;
  for (int64_t i = 0; i < d; ++i) {
    V* row = whole ? dense + i * d : dense;
    for (int64_t j = 0; j <= i; ++j) row[j] = from(i, j);
    for (int64_t j = i + 1; j < d; ++j) row[j] = symmetric ? from(j, i) : zero;
    if (!whole) store_run(data + i * stride[0], places, row, d, stride[1]);
  }
  if (whole) store_run(data, places, dense, d * d, 1);
}

#if REPARAM_STRIDE == 1
REPARAM_ONCE void load_lower(Tril<FloatLanes> to, FloatLanes* dense, const float* data, const Places& places,
                             bool crowded, int64_t d, const int64_t* stride);
REPARAM_ONCE void load_lower(Tril<DoubleLanes> to, DoubleLanes* dense, const double* data, const Places& places,
                             bool crowded, int64_t d, const int64_t* stride);
REPARAM_ONCE void store_lower(float* data, const Places& places, FloatLanes* dense, Tril<FloatLanes> from, bool crowded,
                              int64_t d, const int64_t* stride, bool symmetric);
REPARAM_ONCE void store_lower(double* data, const Places& places, DoubleLanes* dense, Tril<DoubleLanes> from,
                              bool crowded, int64_t d, const int64_t* stride, bool symmetric);
#endif

}  // namespace reparam::REPARAM_ARCH
