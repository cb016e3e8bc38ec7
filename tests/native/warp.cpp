// SPDX-License-Identifier: MIT
// The GPU's packing and loops on the host. With an event for each thread: to the bit what run_on_cpu gives on the
// scalar arch, for all layouts, sums and drawn noise. With one for a team of 32 or 8: the same to rounding, and where a
// pivot is bad; for a team of 1: to the bit. Nothing beside the entries of an output is written, nor past the scratch.
// ThreadSanitizer sees a barrier left out.
//     warp [full | race]        more sizes; or with a planted bug: threads do not wait for what others load
#include <algorithm>
#include <string>

#include "compiled.hpp"
#include "drivers/run.hpp"

namespace reparam {

namespace {

// Whether the entries are the same bits, or both NaN, or within `tolerance`.
template <class T>
bool close(const std::vector<char>& a, const std::vector<char>& b, double tolerance) {
  for (size_t at = 0; at < a.size(); at += sizeof(T)) {
    T x, y;
    std::memcpy(&x, &a[at], sizeof x), std::memcpy(&y, &b[at], sizeof y);
    if (std::memcmp(&x, &y, sizeof x) == 0 || (x != x && y != y)) continue;
    if (!(std::abs(static_cast<double>(x) - static_cast<double>(y)) <= tolerance * (1 + std::abs(y)))) return false;
  }
  return true;
}

void compare(const Case& c, Problem& found, const Problem& expected, double tolerance) {
  for (size_t i = 0; i < found.arrays.size(); ++i) {
    const Array &a = found.arrays[i], &b = expected.arrays[i];
    const bool is_real = c.op.pass[c.vjp].operand[i].item == Item::real;
    if (!(a.item == 8 ? close<double>(a.bytes, b.bytes, is_real ? tolerance : 0)
                      : close<float>(a.bytes, b.bytes, is_real ? tolerance : 0)))
      fail(c, static_cast<int>(i), "differs from the CPU's");
  }
  found.check_kept(c);
}

void run(Warp& threads, const WarpKernels& kernels, const Case& c) {
  Problem expected(c), found(c);
  run_on_cpu(c.op, c.vjp, c.is_double, expected.call, 1);
  run_in_warps(threads, kernels, c, found.call);
  compare(c, found, expected, 0);
}

// Gives the entries of an array numbers that round well: matrices near a multiple of the identity. One entry in a few
// thousand of a diagonal is below 0.
void set_entries(Array& array, OperandSpec spec, size_t dim, int64_t at, Shape& index, int& count) {
  if (dim < array.shape.size()) {
    for (index[dim] = 0; index[dim] < array.shape[dim]; ++index[dim])
      set_entries(array, spec, dim + 1, at + index[dim] * array.stride[dim], index, count);
    return;
  }
  const double part = (++count * 7919 % 1009) / 1009.0;
  double value = 0.5 + part;
  if (spec.kind == Kind::rows && !spec.drawable) value /= static_cast<double>(array.shape.back());
  if (spec.kind == Kind::tril || spec.kind == Kind::symmetric) {
    const int64_t last = index.back(), row = array.packed ? row_of_triangle(last) : index[index.size() - 2];
    const bool diagonal = last == (array.packed ? row * (row + 1) / 2 + row : row);
    value = diagonal ? (count % 2111 == 0 ? -1 : 1 + value) : 0.5 * part / static_cast<double>(row + 1);
  }
  if (array.item == 8) std::memcpy(array.bytes.data() + at * 8, &value, 8);
  const auto single = static_cast<float>(value);
  if (array.item == 4) std::memcpy(array.bytes.data() + at * 4, &single, 4);
}

void run_as_team(Warp& threads, const WarpKernels& kernels, const Case& c, double tolerance) {
  Problem expected(c), found(c);
  for (Problem* problem : {&expected, &found}) {
    int count = c.number;
    for (size_t i = 0; i < problem->arrays.size(); ++i) {
      Array& array = problem->arrays[i];
      array.packed = problem->call.operand[i].packed;
      Shape index(array.shape.size());
      if (c.op.pass[c.vjp].reads[i] && !problem->call.operand[i].drawn)
        set_entries(array, c.op.pass[c.vjp].operand[i], 0, array.origin, index, count);
      array.before = array.bytes;
    }
  }
  run_on_cpu(c.op, c.vjp, c.is_double, expected.call, 1);
  run_in_warps(threads, kernels, c, found.call);
  compare(c, found, expected, tolerance);
}

void run_op(Threads& threads, const Compiled& op, bool vjp, bool is_double, bool full) {
  using Shapes = std::vector<Shape>;
  int number = 0;
  for (const int64_t size : full ? Shape{0, 1, 2, 3, 5, 8, 17, 33} : Shape{3, 17})
    for (const Shape& batch :
         full ? Shapes{{}, {0}, {1}, {67}, {3, 70}, {70, 3}, {2, 1, 33}} : Shapes{{1}, {67}, {70, 3}})
      for (int k = 0; k < (size < 8 ? 2 : 1); ++k, ++number)
        run(threads.warp, *op.gpu,
            {*op.cpu, vjp, is_double, batch, size, number, number * 5u / 3 & ((1u << batch.size()) - 1)});
  for (int team = 0; team < 3 && op.team[0]; ++team)
    for (const int64_t size : full ? Shape{1, 2, 17, 32, 33, 70} : Shape{33})
      for (const Shape& batch : full ? Shapes{{}, {0}, {5}, {2, 3}, {70}} : Shapes{{2, 3}})
        for (int k = 0; k < (full ? 2 * kLayouts : 4); ++k, ++number)
          run_as_team(threads.team[team], *op.team[team],
                      {*op.cpu, vjp, is_double, batch, size, number, number * 5u / 3 & ((1u << batch.size()) - 1)},
                      kLanesOfTeam[team] == 1 ? 0
                      : is_double             ? 1e-12
                                              : 1e-4);
}

}  // namespace
}  // namespace reparam

int main(int argc, char** argv) {
  using namespace reparam;
  const std::string mode = argc > 1 ? argv[1] : "";
  Warp::forgets_to_wait = mode == "race";
  Threads threads;
  const int driven = for_each_pass(
      [&](const Compiled& op, bool vjp, bool is_double) { run_op(threads, op, vjp, is_double, mode == "full"); });
  std::printf("%d passes give what the CPU gives\n", driven);
}
