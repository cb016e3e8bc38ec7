// SPDX-License-Identifier: MIT
// One operand of a pass: its type in memory and in lanes, the room it takes, and rows that are packed when they are
// read.
#pragma once
#include "elementwise.hpp"

namespace reparam::REPARAM_ARCH {

template <class Op, bool kVjp>
struct PassOf {
  static consteval PassSpec spec() { return OpTraits<Op>::pass(kVjp); }
  static consteval int count() { return spec().count; }
  static consteval OperandSpec operand(int i) { return spec().operand[i]; }
  static consteval bool can_reduce(int i) { return spec().writes[i] && operand(i).item == Item::real; }
};

// The C++ type of one element in memory and of one lane value, per operand.
template <class T, Item kItem>
struct ItemType {
  using type = T;
};
template <class T>
struct ItemType<T, Item::i4> {
  using type = int32_t;
};
template <class T>
struct ItemType<T, Item::u4> {
  using type = uint32_t;
};
template <class T>
struct ItemType<T, Item::u8> {
  using type = uint64_t;
};
template <class V, Item kItem>
struct LaneItem {
  using type = V;
};  // an int32 output is computed in V and converted when it is stored
template <class V>
struct LaneItem<V, Item::u4> {
  using type = LanesWith<V, uint32_t>;
};
template <class V>
struct LaneItem<V, Item::u8> {
  using type = LanesWith<V, uint64_t>;
};

inline constexpr int64_t kNotLoaded = INT64_MIN;  // no offset; -1 is one, of a view that runs backwards

REPARAM_HD constexpr int64_t packed_values(OperandSpec spec, const int64_t* extent) {
  switch (spec.kind) {
    case Kind::scalar: return spec.drawable ? row_buffer_values(1) : 1;
    case Kind::vector: return spec.drawable ? row_buffer_values(extent[spec.symbol[0]]) : extent[spec.symbol[0]];
    case Kind::rows: return 2 * row_buffer_values(extent[spec.symbol[1]]);
    default: return triangle(extent[spec.symbol[0]]);
  }
}

REPARAM_HD constexpr int64_t aligned(int64_t bytes) { return (bytes + 63) & ~int64_t{63}; }

template <class V, bool kDrawable>
struct RowSource {
  const ElementOf<V>* data;
  Places places;
  int64_t stride[2];
  int64_t length;
  V* buffer;
  bool drawn;
  Key key;
  LanesWith<V, uint64_t> stream;
  REPARAM_HD const V* row(int64_t i) const {
    V* to = buffer + (i & 1) * row_buffer_values(length);
    if constexpr (kDrawable)
      if (drawn) return draw_row(key, stream, i, length, to);
    load_run(to, data + i * stride[0], places, length, stride[1], length);
    return to;
  }
};

}  // namespace reparam::REPARAM_ARCH
