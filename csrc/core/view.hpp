// SPDX-License-Identifier: MIT
// What a body sees of its operands: values of V (one event per lane), already packed by the driver.
#pragma once
#include "extent.hpp"
#include "lanes.hpp"

namespace reparam::REPARAM_ARCH {

// Where the values of an event lie: side by side in the lanes of a CPU. On a GPU the 32 threads of a warp have an event
// each and their values alternate, value i of thread t at 33 i + t: threads that read one value each, of their own
// events, and threads that read the values of one event side by side, both meet 32 different banks of shared memory.
template <class V>
struct Alternating {
  V* first;
  REPARAM_HD V& operator[](int64_t i) const { return first[static_cast<int>(i) * REPARAM_STRIDE]; }
  REPARAM_HD V& operator*() const { return *first; }
  REPARAM_HD Alternating operator+(int64_t n) const { return {first + static_cast<int>(n) * REPARAM_STRIDE}; }
  template <class U>
    requires requires(V* from, U*& to) { to = from; }
  REPARAM_HD operator Alternating<U>() const {
    return {first};
  }
  friend REPARAM_HD bool operator!=(Alternating a, Alternating<const V> b) { return a.first != b.first; }
};
template <class V, bool kAlternates>
struct PtrType {
  using type = V*;
};
template <class V>
struct PtrType<V, true> {
  using type = Alternating<V>;
};
template <class V>
using Ptr = typename PtrType<V, (REPARAM_STRIDE > 1)>::type;

template <class V>
struct Scalar {  // []
  V* value;
  bool wanted = true;  // of an output: whether anyone reads it, so that a body may leave it out
  REPARAM_HD V& operator()() const { return *value; }
};

template <class V>
struct Vec {  // [n]
  Ptr<V> first;
  bool wanted = true;  // as of a Scalar
  REPARAM_HD V& operator[](int64_t i) const { return first[i]; }
};

template <class V>
struct Tril {  // [d, d] below and on the diagonal, row-major packed (the order of numpy.tril_indices)
  using Row = Ptr<V>;
  Ptr<V> first;
  bool wanted = true;  // as of a Scalar
  REPARAM_HD V& operator()(int64_t i, int64_t j) const { return first[triangle(i) + j]; }
  REPARAM_HD Row row(int64_t i) const { return first + triangle(i); }
};

// One lower factor for all lanes, spread over them as it is read: a W-th of the memory (d = 64 on 16 lanes: 8 KB for
// 133), and the load is part of the multiply-add. What follows from the factor alone is worked out once (`share`).
template <class V>
struct SharedTril {
  struct Row {
    const ElementOf<V>* first;
    REPARAM_HD V operator[](int64_t j) const { return V(first[j]); }
  };
  const ElementOf<V>* first;
  V poison, log_det;
  REPARAM_HD V operator()(int64_t i, int64_t j) const { return V(first[triangle(i) + j]); }
  REPARAM_HD Row row(int64_t i) const { return {first + triangle(i)}; }
};

// An output tril(a b^T) + diag(diagonal) that is summed over events: the body gives the three vectors, whose values lie
// `stride` apart.
template <class V>
struct OuterProduct {
  V *a, *b, *diagonal;
  int64_t stride;
  bool wanted = true;  // as of a Scalar
  REPARAM_HD void set(int64_t i, V a_i, V b_i, V diagonal_i) const {
    a[i * stride] = a_i, b[i * stride] = b_i, diagonal[i * stride] = diagonal_i;
  }
};

// [m, n], read row by row: `row(i)` packs row i on demand into one of two buffers, so that rows i and i + 1 can be read
// side by side. A source that is made rather than stored (the noise of a Draw) has the same interface, so a body cannot
// tell them apart.
template <class V, class Source>
struct Rows {
  Source* source;
  REPARAM_HD Vec<const V> row(int64_t i) const { return {source->row(i)}; }
};

// Two operands of a pass, by number, that may be one: the body reads each value of the input before it writes the
// output's.
struct InPlace {
  int input = -1, output = -1;
};

}  // namespace reparam::REPARAM_ARCH
