// SPDX-License-Identifier: MIT
// How operands travel between memory and the scratch of a warp: neighbouring threads take neighbouring elements, so
// that a line of memory is moved once and in one piece; where each thread has an event, the way into scratch is the
// transpose.
#pragma once
#include "../core/warp.hpp"
#include "operand.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr uint32_t kAll = ~uint32_t{0} >> (32 - kWarp);  // threads of a warp

// Row `row` of n normals of a stream: where a team shares it, each thread makes blocks of its own.
template <class V>
REPARAM_HD Ptr<const V> draw_row(Key key, uint64_t stream, int64_t row, int64_t n, Ptr<V> buffer) {
  if constexpr (kShare) {
    constexpr int per_block = normals_per_block<V>;
    const int64_t first = row * n, first_block = first / per_block;
    for (int64_t k = rank_in_team(); (first_block + k) * per_block < first + n; k += kTeam) {
      V normals[per_block];
      normal_block<V>(key, static_cast<uint64_t>(first_block + k), stream, normals);
      REPARAM_UNROLL
      for (int i = 0; i < per_block; ++i) buffer[k * per_block + i] = normals[i];
    }
    return buffer + (first - first_block * per_block);
  } else {
    return draw_row_loop<V>(key, stream, row, n, buffer);
  }
}
REPARAM_HD void draw_row(Key key, uint64_t stream, int64_t, int64_t, float* to) {  // one normal, of an op of scalars
  float normals[normals_per_block<float>];
  normal_block<float>(key, 0, stream, normals);
  *to = normals[0];
}
REPARAM_HD void draw_row(Key key, uint64_t stream, int64_t, int64_t, double* to) {
  double normals[normals_per_block<double>];
  normal_block<double>(key, 0, stream, normals);
  *to = normals[0];
}

// The threads of a warp over (event, row, column): as many columns as there are, then rows, then events.
struct Split {
  int columns, rows, events, column, row, event;

  REPARAM_HD Split(int64_t row_count, int64_t column_count) {
    const int lane = lane_of_warp();
    int c = 0, r = 0;  // all are powers of two
    while (1 << c < kWarp && 1 << c < column_count) ++c;
    while (1 << (r + c) < kWarp && 1 << r < row_count) ++r;
    columns = 1 << c, rows = 1 << r, events = kWarp >> (c + r);
    column = lane & (columns - 1), row = lane >> c & (rows - 1), event = lane >> (c + r);
  }
};

// f(thread, where its event begins, row, column) for all elements of the events of the threads `which` (a bit set),
// which begin at `at`.
template <class F>
REPARAM_HD void for_each_element(int64_t rows, int64_t columns, int64_t at, uint32_t which, F f) {
  const Split split(rows, columns);
  const int events = kShare ? 1 : kWarp;
  for (int event = split.event; event < events; event += split.events) {
    const int64_t begin = kShare ? at : from_lane(at, event);
    if (!(which >> event & 1)) continue;
    for (int64_t i = split.row; i < rows; i += split.rows)
      for (int64_t j = split.column; j < columns; j += split.columns) f(event, begin, i, j);
  }
}

// Value i of the event of another thread, which has it in the same place of its own scratch.
template <class V>
REPARAM_HD V& value_of(int thread, Alternating<V> own, int64_t i) {
  return own.first[static_cast<int>(i) * REPARAM_STRIDE + thread - lane_of_warp()];
}
template <class V>
REPARAM_HD V& value_of(int, V* shared, int64_t i) {
  return shared[i];
}

// Values 0 .. n - 1 of each event, `stride` apart in memory.
template <class Values, class T>
REPARAM_HD void load_values(Values to, const T* data, int64_t at, int64_t n, int64_t stride) {
  for_each_element(1, n, at, kAll, [&](int thread, int64_t begin, int64_t, int64_t j) {
    copy_ahead(&value_of(thread, to, j), data + begin + j * stride);
  });
}
template <class Stored, class Values>
REPARAM_HD void store_values(Stored* data, int64_t at, uint32_t which, Values from, int64_t n, int64_t stride) {
  for_each_element(1, n, at, which, [&](int thread, int64_t begin, int64_t, int64_t j) {
    data[begin + j * stride] = static_cast<Stored>(value_of(thread, from, j));
  });
}

// The lower triangle of a dense matrix.
template <class Values, class T>
REPARAM_HD void load_lower(Values to, const T* data, int64_t at, int64_t d, const int64_t* stride) {
  for_each_element(d, d, at, kAll, [&](int thread, int64_t begin, int64_t i, int64_t j) {
    if (j <= i) copy_ahead(&value_of(thread, to, triangle(i) + j), data + begin + i * stride[0] + j * stride[1]);
  });
}
// With zeros above the diagonal, or mirrored where `symmetric`.
template <class T, class Values>
REPARAM_HD void store_lower(T* data, int64_t at, uint32_t which, Values from, int64_t d, const int64_t* stride,
                            bool symmetric) {
  for_each_element(d, d, at, which, [&](int thread, int64_t begin, int64_t i, int64_t j) {
    const int64_t row = symmetric && j > i ? j : i, column = symmetric && j > i ? i : j;
    const T value = column <= row ? value_of(thread, from, triangle(row) + column) : T(0);
    data[begin + i * stride[0] + j * stride[1]] = value;
  });
}

// The rows of a `(m,n)` operand; the warp asks for them together, and a team has done with the last row but one.
template <class V>
struct RowsOfWarp {
  const V* data;
  int64_t at, stride[2], length;
  Ptr<V> buffer;
  bool drawn;
  Key key;
  uint64_t stream;
  REPARAM_HD Ptr<const V> row(int64_t i) const {
    const Ptr<V> to = buffer + (i & 1) * row_buffer_values(length);
    if (drawn) {
      sync_team();
      const Ptr<const V> from = draw_row<V>(key, stream, i, length, to);
      sync_team();
      return from;
    }
    sync_warp();  // others may still read what the buffer holds
    load_values(to, data + i * stride[0], at, length, stride[1]);
    finish_copies();
    return to;
  }
};

}  // namespace reparam::REPARAM_ARCH
