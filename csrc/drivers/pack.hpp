// SPDX-License-Identifier: MIT
// Packing: events as they lie in memory <-> one event per lane. The only place where data crosses lanes.
// `at[lane]` is where each lane's event begins, in elements. In the last pack of a range the lanes past its end repeat
// the last event: they load, compute and store the same values in the same place.
#pragma once
#include "../core/lanes.hpp"
#include "../core/rows.hpp"
#include "../core/view.hpp"

namespace reparam::REPARAM_ARCH {

template <bool kFirst, class A, class B>
struct SelectType {
  using type = A;
};
template <class A, class B>
struct SelectType<false, A, B> {
  using type = B;
};

// A block is as many columns as 16 bytes hold, 4 floats or 2 doubles, of each lane's event: small enough that a lower
// triangle is few whole blocks, and its transpose takes two stages of shuffles inside 16 bytes (or one), the cheap
// ones. Row r of a block holds the columns of lanes r, r + K, r + 2 K ..., one after the other in K = kBlock<V> values.
template <class V>
constexpr int kBlock =
    LaneTraits<V>::width < int{16 / sizeof(ElementOf<V>)} ? LaneTraits<V>::width : int{16 / sizeof(ElementOf<V>)};

// Units of kUnit values, from a and b in turn: those of the low half, or of the high half, of every 16 bytes.
template <int kUnit, bool kHigh, class T, int W, int... I>
REPARAM_HD Lanes<T, W> interleave(Lanes<T, W> a, Lanes<T, W> b, Indices<I...>) {
  constexpr int K = kBlock<Lanes<T, W>>;
  return REPARAM_SHUFFLE(
      a.raw, b.raw,
      ((I % K / kUnit & 1 ? W : 0) + I / K * K + (kHigh ? K / 2 : 0) + I % K / kUnit / 2 * kUnit + I % kUnit)...);
}

// K rows of a block <-> K columns of W lanes; its own inverse.
template <class T, int W>
REPARAM_HD void transpose(Lanes<T, W>* rows) {
  using V = Lanes<T, W>;
  constexpr int K = kBlock<V>;
  constexpr indices<W> all;
  if constexpr (wider_than_hardware<V>) {
    Lanes<T, W / 2> low[K], high[K];
    for (int r = 0; r < K; ++r) low[r] = low_half(rows[r]), high[r] = high_half(rows[r]);
    transpose(low), transpose(high);
    for (int r = 0; r < K; ++r) rows[r] = join(low[r], high[r]);
  } else if constexpr (K == 2) {
    const V a = rows[0], b = rows[1];
    rows[0] = interleave<1, false>(a, b, all), rows[1] = interleave<1, true>(a, b, all);
  } else {
    static_assert(K == 4);
    const V a = interleave<1, false>(rows[0], rows[1], all), b = interleave<1, true>(rows[0], rows[1], all);
    const V c = interleave<1, false>(rows[2], rows[3], all), d = interleave<1, true>(rows[2], rows[3], all);
    rows[0] = interleave<2, false>(a, c, all), rows[1] = interleave<2, true>(a, c, all);
    rows[2] = interleave<2, false>(b, d, all), rows[3] = interleave<2, true>(b, d, all);
  }
}

template <class V, class T>
REPARAM_HD V load_unaligned(const T* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class T>
REPARAM_HD V gather(const T* data, const int64_t* at) {
  if constexpr (LaneTraits<V>::width == 1) {
    return data[at[0]];
  } else {
    V v;
    for (int lane = 0; lane < LaneTraits<V>::width; ++lane) v.set(lane, data[at[lane]]);
    return v;
  }
}

template <class V, class T>
REPARAM_HD void scatter(T* data, const int64_t* at, V v) {
  if constexpr (LaneTraits<V>::width == 1) {
    data[at[0]] = static_cast<T>(v);
  } else {
    for (int lane = 0; lane < LaneTraits<V>::width; ++lane) data[at[lane]] = static_cast<T>(v[lane]);
  }
}

// Row r of a block from events at[r], at[r + K] ...; `at` stands at lane r.
template <class V, class T>
REPARAM_HD V load_row(const T* data, const int64_t* at) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W == kBlock<V>) {
    return load_unaligned<V>(data + at[0]);
  } else {
    using Half = Lanes<ElementOf<V>, W / 2>;
    return join(load_row<Half>(data, at), load_row<Half>(data, at + W / 2));
  }
}

// K columns of each lane's event to K values.
template <class V, class T>
REPARAM_HD void load_block(V* to, const T* data, const int64_t* at) {
  constexpr int K = kBlock<V>;
  V rows[K];
  REPARAM_UNROLL
  for (int r = 0; r < K; ++r) rows[r] = load_row<V>(data, at + r);
  transpose(rows);
  REPARAM_UNROLL
  for (int k = 0; k < K; ++k) to[k] = rows[k];
}

// The reverse of load_row.
template <class V, class T>
REPARAM_HD void store_row(T* data, const int64_t* at, V row) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W == kBlock<V>) {
    __builtin_memcpy(data + at[0], &row, sizeof row);
  } else {
    store_row(data, at, low_half(row));
    store_row(data, at + W / 2, high_half(row));
  }
}

// K columns of W lanes to each lane's event.
template <class V, class T>
REPARAM_HD void store_block(T* data, const int64_t* at, const V* from) {
  constexpr int K = kBlock<V>;
  V rows[K];
  REPARAM_UNROLL
  for (int k = 0; k < K; ++k) rows[k] = from[k];
  transpose(rows);
  REPARAM_UNROLL
  for (int r = 0; r < K; ++r) store_row(data, at + r, rows[r]);
}

// Packs elements 0..n-1 (spaced by `stride`) of each lane's event into to[0..n). `readable` >= n elements of the event
// may be touched, so that a short row can be loaded as one full vector; a tail is an overlapping load, never a mask
// (masked AVX2 accesses cost 12 cycles).
template <class V, class T>
REPARAM_HD void load_run_loop(V* to, const T* data, const int64_t* at, bool same_event, int64_t n, int64_t stride,
                              int64_t readable) {
  constexpr int W = LaneTraits<V>::width;
  if (W == 1 || same_event) {
    for (int64_t j = 0; j < n; ++j) to[j] = V(data[at[0] + j * stride]);
    return;
  }
  if constexpr (W > 1) {
    constexpr int K = kBlock<V>;
    if (stride == 1 && readable >= K) {
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
      return;
    }
    for (int64_t j = 0; j < n; ++j) to[j] = gather<V>(data + j * stride, at);
  }
}

// The reverse.
template <class V, class T>
REPARAM_HD void store_run_loop(T* data, const int64_t* at, const V* from, int64_t n, int64_t stride) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W > 1 && sizeof(T) == sizeof(ElementOf<V>)) {
    constexpr int K = kBlock<V>;
    if (stride == 1 && n >= K) {
      for (int64_t j = 0; j < n; j += K) {
        const int64_t first = j + K <= n ? j : n - K;
        store_block(data + first, at, from + first);
      }
      return;
    }
  }
  for (int64_t j = 0; j < n; ++j) scatter(data + j * stride, at, from[j]);
}

#if REPARAM_STRIDE == 1
// The loops for the lanes of this arch are functions, compiled once (arch/pack.cpp): a call for each operand and pack
// is not seen in the time, and in every kernel object they were half of the build and four fifths of the code. So is
// the drawing of a row of noise.
using FloatLanes = NativeLanes<float>::type;
using DoubleLanes = NativeLanes<double>::type;
REPARAM_ONCE void load_run(FloatLanes* to, const float* data, const int64_t* at, bool same_event, int64_t n,
                           int64_t stride, int64_t readable);
REPARAM_ONCE void load_run(DoubleLanes* to, const double* data, const int64_t* at, bool same_event, int64_t n,
                           int64_t stride, int64_t readable);
REPARAM_ONCE void store_run(float* data, const int64_t* at, const FloatLanes* from, int64_t n, int64_t stride);
REPARAM_ONCE void store_run(double* data, const int64_t* at, const DoubleLanes* from, int64_t n, int64_t stride);
REPARAM_ONCE const FloatLanes* draw_row(Key key, const LanesWith<FloatLanes, uint64_t>& stream, int64_t row, int64_t n,
                                        FloatLanes* buffer);
REPARAM_ONCE const DoubleLanes* draw_row(Key key, const LanesWith<DoubleLanes, uint64_t>& stream, int64_t row,
                                         int64_t n, DoubleLanes* buffer);
#endif
template <class W>  // raw words, of one op
REPARAM_HD void store_run(uint32_t* data, const int64_t* at, const W* from, int64_t n, int64_t stride) {
  store_run_loop(data, at, from, n, stride);
}

// One row of lower triangles, [0, n) of d, for K lanes at a time: a line of memory is used up before the next lanes
// come.
template <class V, class T>
REPARAM_HD void load_row_of_few(V* packed, const T* data, const int64_t* at, int64_t n, int64_t d) {
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
template <class V, class T>
REPARAM_HD void store_row_of_few(T* data, const int64_t* at, const V* packed, int64_t n, int64_t d) {
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

// Lower triangle of a dense matrix [d, d] with strides (row, column) into packed rows. A matrix narrower than a block
// is loaded as one run of d * d elements where its entries lie together.
template <class V, class T>
REPARAM_HD void load_lower_loop(Tril<V> to, V* dense, const T* data, const int64_t* at, bool same_event, bool crowded,
                                int64_t d, const int64_t* stride) {
  constexpr int W = LaneTraits<V>::width, K = W > 1 ? kBlock<V> : 1;
  if constexpr (W > 8)
    if (crowded && !same_event) {
      for (int64_t i = 0; i < d; ++i) load_row_of_few(to.row(i), data + i * stride[0], at, i + 1, d);
      return;
    }
  if (W > 1 && d < K && stride[1] == 1 && stride[0] == d && !same_event) {
    load_run(dense, data, at, false, d * d, 1, d * d);
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j <= i; ++j) to(i, j) = dense[i * d + j];
    return;
  }
  if constexpr (W > 1) {
    if (stride[1] == 1 && d >= K && !same_event) {
      // Whole blocks: what one writes past the diagonal lies inside the triangle and is written over by later rows.
      for (int64_t i = 0; i < d; ++i) {
        const T* row = data + i * stride[0];
        V* packed = to.row(i);
        int64_t j = 0;
        for (; j <= i && j + K <= d; j += K) load_block(packed + j, row + j, at);
        if (j <= i) load_block(packed + d - K, row + d - K, at);
      }
      return;
    }
  }
  for (int64_t i = 0; i < d; ++i) load_run(to.row(i), data + i * stride[0], at, same_event, i + 1, stride[1], d);
}

// Packed rows to a dense matrix [d, d]: zeros above the diagonal, or mirrored where `symmetric`. `dense` is a buffer
// of one row, or of the whole matrix where it is narrower than a block.
template <class V, class T>
REPARAM_HD void store_lower_loop(T* data, const int64_t* at, V* dense, Tril<V> from, bool crowded, int64_t d,
                                 const int64_t* stride, bool symmetric) {
  constexpr int W = LaneTraits<V>::width, K = W > 1 ? kBlock<V> : 1;
  if constexpr (W > 8)
    if (crowded) {
      for (int64_t i = 0; i < d; ++i) {
        const V* row = from.row(i);
        if (symmetric) {
          for (int64_t j = 0; j < d; ++j) dense[j] = j <= i ? row[j] : from(j, i);
          row = dense;
        }
        store_row_of_few(data + i * stride[0], at, row, symmetric ? d : i + 1, d);
      }
      return;
    }
  const V zero = V(ElementOf<V>(0));
  if constexpr (W > 1) {
    if (stride[1] == 1 && d >= K && !symmetric) {
      for (int64_t i = 0; i < d; ++i) {
        T* row = data + i * stride[0];
        const V* packed = from.row(i);
        for (int64_t j = 0; j < d; j += K) {
          const int64_t first = j + K <= d ? j : d - K, below = i + 1 - first;  // columns up to the diagonal
          if (below >= K) {
            store_block(row + first, at, packed + first);
          } else if (below <= 0) {
            REPARAM_UNROLL
            for (int r = 0; r < K; ++r) store_row(row + first, at + r, zero);
          } else {  // across the diagonal; what is read past it lies inside the triangle
            V block[K];
            REPARAM_UNROLL
            for (int k = 0; k < K; ++k) block[k] = k == 0 || k < below ? packed[first + k] : zero;
            store_block(row + first, at, block);
          }
        }
      }
      return;
    }
  }
  const bool whole = W > 1 && d < K && stride[1] == 1 && stride[0] == d;
  for (int64_t i = 0; i < d; ++i) {
    V* row = whole ? dense + i * d : dense;
    for (int64_t j = 0; j <= i; ++j) row[j] = from(i, j);
    for (int64_t j = i + 1; j < d; ++j) row[j] = symmetric ? from(j, i) : zero;
    if (!whole) store_run(data + i * stride[0], at, row, d, stride[1]);
  }
  if (whole) store_run(data, at, dense, d * d, 1);
}

#if REPARAM_STRIDE == 1
REPARAM_ONCE void load_lower(Tril<FloatLanes> to, FloatLanes* dense, const float* data, const int64_t* at,
                             bool same_event, bool crowded, int64_t d, const int64_t* stride);
REPARAM_ONCE void load_lower(Tril<DoubleLanes> to, DoubleLanes* dense, const double* data, const int64_t* at,
                             bool same_event, bool crowded, int64_t d, const int64_t* stride);
REPARAM_ONCE void store_lower(float* data, const int64_t* at, FloatLanes* dense, Tril<FloatLanes> from, bool crowded,
                              int64_t d, const int64_t* stride, bool symmetric);
REPARAM_ONCE void store_lower(double* data, const int64_t* at, DoubleLanes* dense, Tril<DoubleLanes> from, bool crowded,
                              int64_t d, const int64_t* stride, bool symmetric);
#endif

}  // namespace reparam::REPARAM_ARCH
