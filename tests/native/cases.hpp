// SPDX-License-Identifier: MIT
// Calls of any op in any layout, for the programs here: every array ends where its last entry ends, and knows whether
// anything was written beside its entries.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "drivers/call.hpp"

namespace reparam {

using Shape = std::vector<int64_t>;

enum Layout { kDense, kReversed, kSpaced, kColumns, kGaps, kLayouts };
// What a planted bug says that is not so.
enum class Lie { none, short_input, short_output, misaligned };

struct Case {
  const OpKernels& op;
  bool vjp, is_double;
  Shape batch;
  int64_t size;
  int number;           // chooses layouts, attributes, threads and what is broadcast, drawn or not wanted
  unsigned summed = 0;  // dims that cotangents are summed over, as a bit set
  Lie lie = Lie::none;
};

[[noreturn]] inline void fail(const Case& c, int operand, const char* what) {
  std::fprintf(stderr, "%s %s %s size %ld number %d summed %u batch", c.op.name, c.vjp ? "vjp" : "forward",
               c.is_double ? "float64" : "float32", long{c.size}, c.number, c.summed);
  for (const int64_t n : c.batch) std::fprintf(stderr, " %ld", long{n});
  std::fprintf(stderr, ": operand %d %s\n", operand, what);
  std::_Exit(1);
}

inline int64_t extent(const Case& c, int symbol) { return c.size ? c.size + 2 * symbol : 0; }

inline Shape event_shape(const Case& c, const OperandSpec& spec, bool packed) {
  if (spec.kind == Kind::scalar) return {};
  const int64_t n = extent(c, spec.symbol[0]);
  if (packed || spec.kind == Kind::packed) return {n * (n + 1) / 2};
  if (spec.kind == Kind::vector) return {n};
  return {n, spec.kind == Kind::rows ? extent(c, spec.symbol[1]) : n};
}

// [elements]; dims of length 1 and those of `fixed` have none.
inline Shape strides_of(const Shape& shape, Layout layout, unsigned fixed) {
  const int rank = static_cast<int>(shape.size());
  Shape stride(shape.size());
  int64_t step = layout == kSpaced ? 3 : 1;
  for (int i = 0; i < rank; ++i) {
    const int k = layout == kColumns ? i : rank - 1 - i;
    const auto at = static_cast<size_t>(k);
    if (shape[at] == 1 || fixed >> k & 1) continue;
    stride[at] = layout == kReversed ? -step : step;
    step = step * shape[at] + (layout == kGaps);
  }
  return stride;
}

// Numbers around 1, and some bad ones.
template <class T>
std::vector<T> make_numbers() {
  using Limits = std::numeric_limits<T>;
  std::minstd_rand random(1);
  std::vector<T> numbers(4093);
  for (T& x : numbers) x = static_cast<T>(0.5 + std::ldexp(static_cast<double>(random()), -31));
  for (size_t i = 0; i < numbers.size(); i += 97) {
    constexpr T bad[] = {0, -1, Limits::infinity(), Limits::quiet_NaN(), Limits::max(), Limits::denorm_min()};
    numbers[i] = bad[i % std::size(bad)];
  }
  return numbers;
}

struct Array {
  std::vector<char> bytes, before;
  Shape shape, stride;
  int64_t item, origin = 0;
  bool packed = false;

  Array(Shape shape_, int64_t item_, Layout layout, unsigned fixed)
      : shape(std::move(shape_)), stride(strides_of(shape, layout, fixed)), item(item_) {
    int64_t span = 1;
    for (size_t k = 0; k < shape.size(); ++k) {
      const int64_t reach = (shape[k] - 1) * stride[k];
      span += std::abs(reach);
      if (reach < 0) origin -= reach;
    }
    for (const int64_t n : shape) span = n ? span : 0;
    bytes.resize(static_cast<size_t>(span * item));
  }

  // Integers get the bits of the numbers.
  void fill(int number) {
    static const std::vector<float> floats = make_numbers<float>();
    static const std::vector<double> doubles = make_numbers<double>();
    const auto tile = [&](const auto& numbers) {
      const size_t all = numbers.size() * static_cast<size_t>(item);
      size_t from = static_cast<size_t>(number * 31 * item) % all;
      for (size_t at = 0; at < bytes.size(); from = 0) {
        const size_t count = std::min(all - from, bytes.size() - at);
        std::memcpy(bytes.data() + at, reinterpret_cast<const char*>(numbers.data()) + from, count);
        at += count;
      }
    };
    if (item == 8) tile(doubles);
    else tile(floats);
    before = bytes;
  }

  void take_entries(size_t dim, int64_t at) {
    if (dim == shape.size())
      std::memcpy(before.data() + at * item, bytes.data() + at * item, static_cast<size_t>(item));
    else
      for (int64_t i = 0; i < shape[dim]; ++i) take_entries(dim + 1, at + i * stride[dim]);
  }

  // Whether nothing was written but entries, and these only where `writes`.
  bool kept(bool writes) {
    if (writes) take_entries(0, origin);
    return bytes == before;
  }

  void describe(OperandData& operand, size_t batch_rank) {
    operand.data = bytes.empty() ? nullptr : bytes.data() + origin * item;
    for (size_t k = 0; k < shape.size(); ++k)
      (k < batch_rank ? operand.batch_stride[k] : operand.event_stride[k - batch_rank]) = stride[k];
  }
};

inline Array make_array(const Case& c, int i, OperandData& operand) {
  const PassSpec& pass = c.op.pass[c.vjp];
  OperandSpec spec = pass.operand[i];
  operand.drawn = spec.drawable && c.number % 2;
  if (operand.drawn) spec = {.item = Item::u8};  // a scalar: the stream of each event
  operand.packed = spec.kind == Kind::tril && c.number % 3 == 0;
  unsigned fixed = (c.number / kLayouts + i) & ((1u << c.batch.size()) - 1);  // dims that an input is broadcast along
  if (pass.writes[i]) fixed = c.vjp && i >= pass.primals + pass.cotangents + pass.values ? c.summed : 0;
  Shape shape = c.batch;
  for (const int64_t n : event_shape(c, spec, operand.packed)) shape.push_back(n);
  Array array(shape, item_size(spec.item, c.is_double), static_cast<Layout>((c.number + i) % kLayouts), fixed);
  array.fill(c.number + i);
  if (c.lie == (pass.writes[i] ? Lie::short_output : Lie::short_input))
    array.bytes.resize(array.bytes.size() - array.item);
  array.bytes.shrink_to_fit();
  array.describe(operand, c.batch.size());
  return array;
}

// One call on arrays of its own.
struct Problem {
  std::vector<double> attributes;
  Call call;
  std::vector<Array> arrays;

  explicit Problem(const Case& c) : attributes(16, c.number / 2 % 4) {
    const PassSpec& pass = c.op.pass[c.vjp];
    call.attributes = attributes.data();
    call.draw_key = 0x123456789abcdef;
    call.rank = static_cast<int>(c.batch.size());
    for (size_t k = 0; k < c.batch.size(); ++k) call.shape[k] = c.batch[k];
    for (int k = 0; k < pass.symbols; ++k) call.extent[k] = extent(c, k);
    for (int i = 0; i < pass.count; ++i) {
      OperandData& operand = call.operand[i];
      arrays.push_back(make_array(c, i, operand));
      if (c.lie == Lie::misaligned && i == pass.count - 1) ++operand.data;
      if (c.vjp && pass.writes[i] && (c.number + i) % 7 == 0) operand.data = nullptr;  // not wanted
    }
  }
  Problem(const Problem&) = delete;

  void check_kept(const Case& c) {
    const PassSpec& pass = c.op.pass[c.vjp];
    for (int i = 0; i < pass.count; ++i)
      if (!arrays[static_cast<size_t>(i)].kept(pass.writes[i] && call.operand[i].data))
        fail(c, i, pass.writes[i] ? "was written beside its entries" : "was written");
  }
};

}  // namespace reparam
