// SPDX-License-Identifier: MIT
// Packing: events as they lie in memory <-> one event per lane. The only place where data crosses lanes.
// `at[lane]` is where each lane's event begins, in elements.
#pragma once
#include "../core/lanes.hpp"
#include "../core/rows.hpp"
#include "../core/view.hpp"

namespace reparam::REPARAM_ARCH {

template <int... I>
struct Indices {};
template <int N, int... I>
struct IndicesUpTo : IndicesUpTo<N - 1, N - 1, I...> {};
template <int... I>
struct IndicesUpTo<0, I...> {
  using type = Indices<I...>;
};
template <int N>
using indices = typename IndicesUpTo<N>::type;

template <bool kFirst, class A, class B>
struct SelectType {
  using type = A;
};
template <class A, class B>
struct SelectType<false, A, B> {
  using type = B;
};

// Swaps bit H of the row number with bit H of the lane number in a pair of rows.
template <int H, class T, int W, int... I>
REPARAM_HD void exchange(Lanes<T, W>& a, Lanes<T, W>& b, Indices<I...>) {
  const auto low = __builtin_shufflevector(a.raw, b.raw, ((I & H) ? I - H + W : I)...);
  const auto high = __builtin_shufflevector(a.raw, b.raw, ((I & H) ? I + W : I + H)...);
  a.raw = low;
  b.raw = high;
}

template <int H, class T, int W>
REPARAM_HD void transpose_stages(Lanes<T, W>* rows) {
  if constexpr (H > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i)
      if (!(i & H)) exchange<H>(rows[i], rows[i + H], indices<W>{});
    transpose_stages<H / 2>(rows);
  }
}

// W x W transpose in registers.
template <class T, int W>
REPARAM_HD void transpose(Lanes<T, W>* rows) {
  transpose_stages<W / 2>(rows);
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
REPARAM_HD void scatter(T* data, const int64_t* at, int count, V v) {
  if constexpr (LaneTraits<V>::width == 1) {
    data[at[0]] = static_cast<T>(v);
  } else {
    for (int lane = 0; lane < count; ++lane) data[at[lane]] = static_cast<T>(v[lane]);
  }
}

// W elements of each lane's event <-> W values, by a transpose.
template <class V, class T>
REPARAM_HD void load_block(V* to, const T* data, const int64_t* at) {
  constexpr int W = LaneTraits<V>::width;
  V block[W];
#pragma GCC unroll 16
  for (int lane = 0; lane < W; ++lane) block[lane] = load_unaligned<V>(data + at[lane]);
  transpose(block);
#pragma GCC unroll 16
  for (int k = 0; k < W; ++k) to[k] = block[k];
}

template <class V, class T>
REPARAM_HD void store_rows(T* data, const int64_t* at, int count, const V* row) {  // row[lane] to each lane's event
  constexpr int W = LaneTraits<V>::width;
  if (count == W) {
#pragma GCC unroll 16
    for (int lane = 0; lane < W; ++lane) __builtin_memcpy(data + at[lane], &row[lane], sizeof(V));
  } else {
    for (int lane = 0; lane < count; ++lane) __builtin_memcpy(data + at[lane], &row[lane], sizeof(V));
  }
}

template <class V, class T>
REPARAM_HD void store_block(T* data, const int64_t* at, int count, const V* from) {
  constexpr int W = LaneTraits<V>::width;
  V block[W];
#pragma GCC unroll 16
  for (int k = 0; k < W; ++k) block[k] = from[k];
  transpose(block);
  store_rows(data, at, count, block);
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
    if (stride == 1 && readable >= W) {
      for (int64_t j = 0; j < n; j += W) {
        const int64_t first = j + W <= readable ? j : readable - W;
        if (first + W <= n) {
          load_block(to + first, data + first, at);
        } else {
          V block[W];
          load_block(block, data + first, at);
          for (int k = 0; first + k < n; ++k) to[first + k] = block[k];
        }
      }
      return;
    }
    for (int64_t j = 0; j < n; ++j) to[j] = gather<V>(data + j * stride, at);
  }
}

// The reverse for the first `count` lanes.
template <class V, class T>
REPARAM_HD void store_run_loop(T* data, const int64_t* at, int count, const V* from, int64_t n, int64_t stride) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W > 1 && sizeof(T) == sizeof(ElementOf<V>)) {
    if (stride == 1 && n >= W) {
      for (int64_t j = 0; j < n; j += W) {
        const int64_t first = j + W <= n ? j : n - W;
        store_block(data + first, at, count, from + first);
      }
      return;
    }
  }
  for (int64_t j = 0; j < n; ++j) scatter(data + j * stride, at, count, from[j]);
}

// The loops for the lanes of this arch are functions, compiled once (arch/pack.cpp): a call for each operand and pack
// is not seen in the time, and in every kernel object they were half of the build and four fifths of the code. So is
// the drawing of a row of noise.
using FloatLanes = NativeLanes<float>::type;
using DoubleLanes = NativeLanes<double>::type;
void load_run(FloatLanes* to, const float* data, const int64_t* at, bool same_event, int64_t n, int64_t stride,
              int64_t readable);
void load_run(DoubleLanes* to, const double* data, const int64_t* at, bool same_event, int64_t n, int64_t stride,
              int64_t readable);
void store_run(float* data, const int64_t* at, int count, const FloatLanes* from, int64_t n, int64_t stride);
void store_run(double* data, const int64_t* at, int count, const DoubleLanes* from, int64_t n, int64_t stride);
const FloatLanes* draw_row(Key key, const LanesWith<FloatLanes, uint64_t>& stream, int64_t row, int64_t n,
                           FloatLanes* buffer);
const DoubleLanes* draw_row(Key key, const LanesWith<DoubleLanes, uint64_t>& stream, int64_t row, int64_t n,
                            DoubleLanes* buffer);
template <class W>  // raw words, of one op
REPARAM_HD void store_run(uint32_t* data, const int64_t* at, int count, const W* from, int64_t n, int64_t stride) {
  store_run_loop(data, at, count, from, n, stride);
}

// Lower triangle of a dense matrix [d, d] with strides (row, column) into packed rows. A matrix narrower than a vector
// is loaded as one run of d * d elements where its entries lie together.
template <class V, class T>
REPARAM_HD void load_lower_loop(Tril<V> to, V* dense, const T* data, const int64_t* at, bool same_event, int64_t d,
                                const int64_t* stride) {
  constexpr int W = LaneTraits<V>::width;
  const bool contiguous = stride[1] == 1 && stride[0] == d;
  if (W > 1 && d < W && contiguous && !same_event) {
    load_run(dense, data, at, false, d * d, 1, d * d);
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j <= i; ++j) to(i, j) = dense[i * d + j];
    return;
  }
  if constexpr (W > 1) {
    if (stride[1] == 1 && d >= W && !same_event) {
      // A whole block each: what it writes past the diagonal lies inside the triangle and is written over by later
      // rows.
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j <= i; j += W) {
          const int64_t first = j + W <= d ? j : d - W;
          load_block(to.row(i) + first, data + i * stride[0] + first, at);
        }
      return;
    }
  }
  for (int64_t i = 0; i < d; ++i) load_run(to.row(i), data + i * stride[0], at, same_event, i + 1, stride[1], d);
}

// Packed rows to a dense matrix [d, d]: zeros above the diagonal, or mirrored where `symmetric`. `dense` is a buffer
// of one row, or of the whole matrix when d < W.
template <class V, class T>
REPARAM_HD void store_lower_loop(T* data, const int64_t* at, int count, V* dense, Tril<V> from, int64_t d,
                                 const int64_t* stride, bool symmetric) {
  constexpr int W = LaneTraits<V>::width;
  const V zero = V(ElementOf<V>(0));
  if constexpr (W > 1) {
    if (stride[1] == 1 && d >= W) {
      V zeros[W];
      for (int k = 0; k < W; ++k) zeros[k] = zero;
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; j += W) {
          const int64_t first = j + W <= d ? j : d - W,
                        below = i + 1 - first;  // entries of the block up to the diagonal
          T* to = data + i * stride[0] + first;
          if (below >= W) {
            store_block(to, at, count, from.row(i) + first);
          } else if (below <= 0 && !symmetric) {
            store_rows(to, at, count, zeros);
          } else {
            V block[W];
            for (int64_t k = 0; k < W; ++k)
              block[k] = k < below ? from(i, first + k) : symmetric ? from(first + k, i) : zero;
            store_block(to, at, count, block);
          }
        }
      return;
    }
  }
  const bool whole = W > 1 && d < W && stride[1] == 1 && stride[0] == d;
  for (int64_t i = 0; i < d; ++i) {
    V* row = whole ? dense + i * d : dense;
    for (int64_t j = 0; j <= i; ++j) row[j] = from(i, j);
    for (int64_t j = i + 1; j < d; ++j) row[j] = symmetric ? from(j, i) : zero;
    if (!whole) store_run(data + i * stride[0], at, count, row, d, stride[1]);
  }
  if (whole) store_run(data, at, count, dense, d * d, 1);
}

void load_lower(Tril<FloatLanes> to, FloatLanes* dense, const float* data, const int64_t* at, bool same_event,
                int64_t d, const int64_t* stride);
void load_lower(Tril<DoubleLanes> to, DoubleLanes* dense, const double* data, const int64_t* at, bool same_event,
                int64_t d, const int64_t* stride);
void store_lower(float* data, const int64_t* at, int count, FloatLanes* dense, Tril<FloatLanes> from, int64_t d,
                 const int64_t* stride, bool symmetric);
void store_lower(double* data, const int64_t* at, int count, DoubleLanes* dense, Tril<DoubleLanes> from, int64_t d,
                 const int64_t* stride, bool symmetric);

}  // namespace reparam::REPARAM_ARCH
