// SPDX-License-Identifier: MIT
// The reductions of a GPU, run on the host: blocks of terms by the kernels of the scalar arch, one at a time and in any
// order, their sums by the function that a GPU's threads run. To the bit what run_on_cpu gives, in rounds of any
// length.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "drivers/blocks.hpp"
#include "drivers/run.hpp"

namespace reparam {
namespace scalar {
extern const OpKernels normal_tril_log_prob_kernels;
}

namespace {

constexpr int64_t kSize = 5;
using Shape = std::vector<int64_t>;

struct Problem {
  Call call;
  std::vector<std::vector<double>> arrays;
};

int64_t values_in(OperandSpec spec) { return is_matrix(spec) ? kSize * kSize : values_of(spec, &kSize); }

// The vjp of normal_tril_log_prob on a batch, with the dims of `summed` (a bit set) missing from loc and scale_tril.
Problem make_problem(const PassSpec& pass, const Shape& batch, unsigned summed) {
  Problem made;
  Call& call = made.call;
  call.rank = static_cast<int>(batch.size());
  call.extent[0] = kSize;
  for (int k = 0; k < call.rank; ++k) call.shape[k] = batch[static_cast<size_t>(k)];
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  for (int i = 0; i < pass.count; ++i) {
    const OperandSpec spec = pass.operand[i];
    const bool broadcast = i == 1 || i == 2 || i == 6 || i == 7;  // loc, scale_tril and their cotangents
    int64_t count = values_in(spec);
    for (int k = call.rank - 1; k >= 0; --k) {
      if (broadcast && summed >> k & 1) continue;
      call.operand[i].batch_stride[k] = count;
      count *= call.shape[k];
    }
    call.operand[i].event_stride[0] = is_matrix(spec) ? kSize : 1, call.operand[i].event_stride[1] = 1;
    std::vector<double> array(static_cast<size_t>(count), -1);
    if (pass.reads[i])
      for (size_t k = 0; k < array.size(); ++k) array[k] = is_matrix(spec) ? 2 + 0.1 * normal(random) : normal(random);
    made.arrays.push_back(array);
  }
  for (int i = 0; i < pass.count; ++i)
    call.operand[i].data = reinterpret_cast<char*>(made.arrays[static_cast<size_t>(i)].data());
  return made;
}

void run_in_blocks(const OpKernels& op, Call call, int64_t round) {
  const PassSpec& pass = op.pass[true];
  const Kernel& kernel = op.kernel[true][true];
  merge_dims(call, pass.count);
  for (const Part& part : parts_of(call, pass)) {
    std::vector<double> arena(static_cast<size_t>(kernel.arena_bytes(part.call)) / 8 + 8);
    char* room = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(arena.data()) + 63) & ~uintptr_t{63});
    if (part.kept_rank < 0) {
      for (int64_t event = product(part.call.shape, part.call.rank) - 1; event >= 0; --event)
        kernel.run(part.call, event, event + 1, room, nullptr);
      continue;
    }
    Blocks blocks = blocks_of(part, pass);
    const int64_t total = product(part.call.shape, part.kept_rank) * blocks.count;
    std::vector<double> partial(static_cast<size_t>(round * blocks.values)), left(static_cast<size_t>(blocks.values)),
        leaves(left);
    blocks.partial = reinterpret_cast<char*>(partial.data());
    for (; blocks.first < total; blocks.first += round) {
      const int64_t end = blocks.first + round < total ? blocks.first + round : total;
      for (int64_t block = end - 1; block >= blocks.first; --block) {
        const Partials sums = blocks.sums<double>(block);
        kernel.run(part.call, blocks.begin(block), blocks.end(block), room, &sums);
      }
      for (int64_t kept = (end - 1) / blocks.count; kept >= blocks.first / blocks.count; --kept)
        for (int64_t j = 0; j < blocks.values; ++j)
          add_blocks<double>(part.call, pass, part.kept_rank, blocks, kept, j, end, left.data(), leaves.data());
      left.swap(leaves);
    }
  }
}

void check(const Shape& batch, unsigned summed, int64_t round) {
  const OpKernels& op = scalar::normal_tril_log_prob_kernels;
  Problem expected = make_problem(op.pass[true], batch, summed), found = make_problem(op.pass[true], batch, summed);
  run_on_cpu(op, true, true, expected.call, 2);
  run_in_blocks(op, found.call, round);
  for (size_t i = 0; i < found.arrays.size(); ++i)
    if (std::memcmp(found.arrays[i].data(), expected.arrays[i].data(), found.arrays[i].size() * sizeof(double)) != 0) {
      std::fprintf(stderr, "operand %zu differs, summed %u, rounds of %ld blocks\n", i, summed, long{round});
      std::exit(1);
    }
}

}  // namespace
}  // namespace reparam

int main() {
  using namespace reparam;
  for (int64_t j = 0; j < 10000; ++j) {
    const int64_t row = row_of_triangle(j);
    if (row * (row + 1) / 2 > j || (row + 1) * (row + 2) / 2 <= j) return 1;
  }
  const int64_t far = int64_t{1} << 60;  // values of a triangle whose rows 32 bits do not number
  if (row_of_triangle(far) * (row_of_triangle(far) + 1) / 2 > far) return 1;
  for (const Shape& batch : {Shape{300}, Shape{3, 130}, Shape{70, 4, 3}, Shape{1}, Shape{64}})
    for (unsigned summed = 0; summed < 1u << batch.size(); ++summed)
      for (const int64_t round : {1, 2, 5, 1000}) check(batch, summed, round);
  std::puts("ok");
}
