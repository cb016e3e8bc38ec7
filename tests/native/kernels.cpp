// SPDX-License-Identifier: MIT
// Drives every op of the table, without Python, for a sanitizer to watch: both passes and types, sizes around the lane
// counts, all layouts, sums, drawn noise. What lies between the entries of an output, and every input, must be as it
// was.
//     kernels [read | write | undefined]        with a planted bug that the sanitizer must find
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "cases.hpp"
#include "drivers/run.hpp"

namespace reparam {

#define REPARAM_OP(name) extern const OpKernels name##_kernels __attribute__((weak));  // null where it was left out
namespace REPARAM_ARCH {
#include "ops/table.inc"
}
#undef REPARAM_OP
#define REPARAM_OP(name) &REPARAM_ARCH::name##_kernels,
static const OpKernels* const kOps[] = {
#include "ops/table.inc"
};

namespace {

void run(const Case& c) {
  Problem problem(c);
  run_on_cpu(c.op, c.vjp, c.is_double, problem.call, 1 + c.number / 3 % 3);
  problem.check_kept(c);
}

void run_shapes(const OpKernels& op, bool vjp, bool is_double, int64_t size) {
  const int64_t lanes = op.lanes[is_double];
  std::vector<Shape> shapes{{}, {0}, {1}, {lanes - 1}, {lanes}, {lanes + 1}, {3, lanes + 2}, {2, 1, lanes}, {3, 0, 2}};
  if (size < 16) shapes.insert(shapes.end(), {{3, 70}, {70, 3}, {130}});  // sums of more than one block
  int number = 0;
  for (const Shape& batch : shapes)
    for (int k = 0; k < 4 * kLayouts; ++k, ++number)
      run({op, vjp, is_double, batch, size, number, number * 5u / 3 & ((1u << batch.size()) - 1)});
}

int plant(const std::string& bug) {
  Case c{*kOps[0], false, true, {3}, 5, 0};
  c.lie = bug == "read" ? Lie::short_input : bug == "write" ? Lie::short_output : Lie::misaligned;
  run(c);
  std::printf("the planted bug was not found: %s\n", bug.c_str());
  return 0;
}

}  // namespace
}  // namespace reparam

int main(int argc, char** argv) {
  using namespace reparam;
  if (argc > 1) return plant(argv[1]);
  for (const OpKernels* op : kOps)
    for (const bool vjp : {false, true})
      for (const bool is_double : {false, true}) {
        if (!op || !op->kernel[vjp][is_double].run) continue;
        // Scratch is kept by thread and only grows: in a new one, what is written behind it is seen.
        for (const int64_t size : {0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 33})
          std::thread(run_shapes, std::cref(*op), vjp, is_double, size).join();
      }
  const auto driven = std::size(kOps) - static_cast<size_t>(std::count(std::begin(kOps), std::end(kOps), nullptr));
  std::printf("%zu ops: nothing found\n", driven);
}
