// SPDX-License-Identifier: MIT
// Blocks: a few columns of W events as they lie in memory <-> one event per lane. The only place where data crosses
// lanes. `at[lane]` is where each lane's event begins, in elements. In the last pack of a range the lanes past its end
// repeat the last event: they load, compute and store the same values in the same place.
//
// Packing is two thirds of a kernel in the caches (bench/parts.cpp), and what binds it is not bandwidth: a core takes
// in 64 bytes a cycle and gives out 32, but two loads, one store and 1.5 shuffles at most, 12 cycles for a block of
// 16 x 4 floats. In a loop of its own a block took 18 to load by a table of 16 addresses and 12 by computed ones, 19 to
// store by 16 bytes an event and 14 by 32 (12 by 64). Kernels store in 10 to 50% less time; their loads gain nothing.
#pragma once
#include "../core/lanes.hpp"
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

// Where the events of a pack begin: at at[lane], which are `step` apart, or anywhere.
inline constexpr int64_t kAnywhere = INT64_MIN;
struct Places {
  const int64_t* at;
  int64_t step;
  REPARAM_HD bool same_event() const { return step == 0; }
};

// A number that the compiler takes for any: written as 4 steps, it would keep 16 addresses in place of 4 and a step.
REPARAM_HD int64_t opaque(int64_t x) {
#if REPARAM_STRIDE == 1
  asm("" : "+r"(x));
#endif
  return x;
}

// Those that are evenly apart: their addresses need no table, which would take a load each.
template <int K>
struct Evenly {
  int64_t first, step, steps;  // of one lane and of K
  REPARAM_HD int64_t operator[](int64_t lane) const { return first + lane % K * step + lane / K * steps; }
  REPARAM_HD Evenly operator+(int64_t lanes) const { return {(*this)[lanes], step, steps}; }
};

// Whether to take addresses from the table all the same: 8 of them stay in registers, and loads were 5% slower without.
template <class V>
REPARAM_HD bool by_table(const Places& places) {
  return LaneTraits<V>::width <= 8 || places.step == kAnywhere;
}

template <int K>
REPARAM_HD Evenly<K> evenly(const Places& places) {
  return {places.at[0], places.step, opaque(K * places.step)};
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
template <class V, class T, class At>
REPARAM_HD V load_row(const T* data, At at) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W == kBlock<V>) {
    return load_unaligned<V>(data + at[0]);
  } else {
    using Half = Lanes<ElementOf<V>, W / 2>;
    return join(load_row<Half>(data, at), load_row<Half>(data, at + W / 2));
  }
}

// K columns of each lane's event to K values.
template <class V, class T, class At>
REPARAM_HD void load_block(V* to, const T* data, At at) {
  constexpr int K = kBlock<V>;
  V rows[K];
  REPARAM_UNROLL
  for (int r = 0; r < K; ++r) rows[r] = load_row<V>(data, at + r);
  transpose(rows);
  REPARAM_UNROLL
  for (int k = 0; k < K; ++k) to[k] = rows[k];
}

// kCount values for each of events at[0], at[K] ...
template <int kCount, class T, int W, class At>
REPARAM_HD void store_events(T* data, At at, Lanes<T, W> values) {
  if constexpr (W == kCount) {
    __builtin_memcpy(data + at[0], &values, sizeof values);
  } else {
    store_events<kCount>(data, at, low_half(values));
    store_events<kCount>(data, at + W / kCount / 2 * kBlock<Lanes<T, W>>, high_half(values));
  }
}

// The reverse of load_row.
template <class V, class T, class At>
REPARAM_HD void store_row(T* data, At at, V row) {
  constexpr int W = LaneTraits<V>::width;
  if constexpr (W == kBlock<V>) {
    __builtin_memcpy(data + at[0], &row, sizeof row);
  } else {
    store_row(data, at, low_half(row));
    store_row(data, at + W / 2, high_half(row));
  }
}

// K columns of W lanes to each lane's event.
template <class V, class T, class At>
REPARAM_HD void store_block(T* data, At at, const V* from) {
  constexpr int K = kBlock<V>;
  V rows[K];
  REPARAM_UNROLL
  for (int k = 0; k < K; ++k) rows[k] = from[k];
  transpose(rows);
  REPARAM_UNROLL
  for (int r = 0; r < K; ++r) store_row(data, at + r, rows[r]);
}

// The runs of K values in the low half, or the high half, of a and b, from a and b in turn.
template <bool kHigh, class T, int W, int... I>
REPARAM_HD Lanes<T, W> pair_runs(Lanes<T, W> a, Lanes<T, W> b, Indices<I...>) {
  constexpr int K = kBlock<Lanes<T, W>>;
  return REPARAM_SHUFFLE(a.raw, b.raw, ((I / K & 1 ? W : 0) + (kHigh ? W / 2 : 0) + I / (2 * K) * K + I % K)...);
}

// 2 K columns of W lanes, which lie together in each lane's event.
template <class T, int W, class At>
REPARAM_HD void store_two_blocks(T* data, At at, const Lanes<T, W>* from) {
  using V = Lanes<T, W>;
  constexpr int K = kBlock<V>;
  if constexpr (wider_than_hardware<V>) {
    Lanes<T, W / 2> low[2 * K], high[2 * K];
    REPARAM_UNROLL
    for (int k = 0; k < 2 * K; ++k) low[k] = low_half(from[k]), high[k] = high_half(from[k]);
    store_two_blocks(data, at, low);
    store_two_blocks(data, at + W / 2, high);
  } else if constexpr (W == K) {
    store_block(data, at, from);
    store_block(data + K, at, from + K);
  } else {
    V first[K], second[K];
    REPARAM_UNROLL
    for (int k = 0; k < K; ++k) first[k] = from[k], second[k] = from[k + K];
    transpose(first), transpose(second);
    REPARAM_UNROLL
    for (int r = 0; r < K; ++r) {
      const V low = pair_runs<false>(first[r], second[r], indices<W>{});
      const V high = pair_runs<true>(first[r], second[r], indices<W>{});
      store_events<2 * K>(data, at + r, low);
      store_events<2 * K>(data, at + (r + W / 2), high);
    }
  }
}

}  // namespace reparam::REPARAM_ARCH
