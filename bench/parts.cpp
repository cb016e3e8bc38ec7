// SPDX-License-Identifier: MIT
// What an event costs one core, in two parts: its packing (the kernel with an empty body: operands into lanes, results
// back) and its arithmetic (the rest), from the caches, outputs kept. From the root of the tree:
//   g++ -std=c++20 -O2 -fno-math-errno -fno-trapping-math -ffp-contract=off -Wno-psabi -march=x86-64-v4
//     -mprefer-vector-width=512 -DREPARAM_LANE_BYTES=64 -Icsrc bench/parts.cpp -o parts && ./parts
// for AVX-512, with -march=x86-64-v3 -DREPARAM_LANE_BYTES=32 for AVX2; `./parts log_prob` runs the rows whose names
// have that.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include "drivers/cpu.hpp"
#include "drivers/pack_once.hpp"
#include "ops/cholesky_ex.hpp"
#include "ops/normal_diag_log_prob.hpp"
#include "ops/normal_diag_transform.hpp"
#include "ops/normal_diag_transform_and_log_prob.hpp"
#include "ops/normal_tril_log_prob.hpp"
#include "ops/normal_tril_transform.hpp"
#include "ops/normal_tril_transform_and_log_prob.hpp"
#include "ops/tril_solve.hpp"

namespace reparam::REPARAM_ARCH {
namespace {

constexpr double kWorkingBytes = 512e3;  // half of L2
constexpr int kTries = 40;
constexpr double kLeastSeconds = 200e-6;

// The op without its arithmetic.
template <class Op>
struct Bare : Op {
  static constexpr bool shares_factor = false;
  template <class V, class... Operands>
  REPARAM_HD static void forward(const Operands&...) {}
  template <class V, class... Operands>
  REPARAM_HD static void vjp(const Operands&...) {}
};

struct Arrays {
  Call call;
  std::vector<std::vector<char>> memory;
};

// Own operands of `events` events, side by side: factors of small entries under a diagonal of one and a half, and
// everything else between a half and one and a half.
template <class Op, class T, bool kVjp>
void fill(Arrays& to, int64_t d, int64_t events) {
  const PassSpec pass = OpTraits<Op>::pass(kVjp);
  Call& call = to.call;
  static const double none[8] = {};  // of an op with attributes
  call.attributes = none;
  call.rank = 1, call.shape[0] = events, call.extent[0] = d;
  to.memory.resize(static_cast<size_t>(pass.count));
  uint64_t random = 1;
  for (int i = 0; i < pass.count; ++i) {
    const OperandSpec spec = pass.operand[i];
    const bool matrix = is_matrix(spec);
    const int64_t n = matrix ? d * d : spec.kind == Kind::scalar ? 1 : d;
    std::vector<char>& memory = to.memory[static_cast<size_t>(i)];
    memory.resize(static_cast<size_t>(n * events) * sizeof(T) + 64);
    OperandData& operand = call.operand[i];
    operand.data = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
    operand.batch_stride[0] = n;
    operand.event_stride[0] = matrix ? d : 1, operand.event_stride[1] = 1;
    T* entry = reinterpret_cast<T*>(operand.data);
    if (spec.item != Item::real || pass.writes[i]) continue;
    for (int64_t k = 0; k < n * events; ++k) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      const T unit = static_cast<T>(static_cast<double>(random >> 40) / 16777216.0);
      const bool diagonal = matrix && k % n / d == k % n % d;
      entry[k] = diagonal ? T(1.5) : matrix ? unit / static_cast<T>(4 * d) : unit + T(0.5);
    }
  }
}

template <class Op, class T, bool kVjp>
double best_of_one(Arrays& arrays, int64_t events) {
  static std::vector<char> arena;
  arena.resize(static_cast<size_t>(arena_bytes<Op, T, kVjp>(arrays.call)) + 64);
  char* aligned_arena = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(arena.data()) + 63) / 64 * 64);
  const auto begin = std::chrono::steady_clock::now();
  int rounds = 0;
  double seconds = 0;
  do {
    run_kernel<Op, T, kVjp, Dynamic>(arrays.call, 0, events, aligned_arena, nullptr);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  } while (++rounds, seconds < kLeastSeconds);
  return seconds / rounds;
}

template <class Op, class T, bool kVjp>
void row(const char* name, const char* wanted, int64_t d) {
  char title[80];
  std::snprintf(title, sizeof title, "%s%s %s d=%d", name, kVjp ? "+vjp" : "", sizeof(T) == 4 ? "float32" : "float64",
                static_cast<int>(d));
  if (wanted && !std::strstr(title, wanted)) return;
  const PassSpec pass = OpTraits<Op>::pass(kVjp);
  int64_t values = 0;
  for (int i = 0; i < pass.count; ++i)
    values += is_matrix(pass.operand[i]) ? d * d : pass.operand[i].kind == Kind::scalar ? 1 : d;
  const int64_t most = static_cast<int64_t>(kWorkingBytes / static_cast<double>(values * sizeof(T)));
  const int64_t events = std::max<int64_t>(most / 64 * 64, 64);
  Arrays arrays;
  fill<Op, T, kVjp>(arrays, d, events);
  double whole = 1e9, bare = 1e9;
  for (int k = 0; k < kTries; ++k) {
    bare = std::min(bare, best_of_one<Bare<Op>, T, kVjp>(arrays, events));
    whole = std::min(whole, best_of_one<Op, T, kVjp>(arrays, events));
  }
  const double nano = 1e9 / static_cast<double>(events);
  std::printf("%-44s %8.2f ns = packing %8.2f + arithmetic %8.2f\n", title, whole * nano, bare * nano,
              (whole - bare) * nano);
}

template <class Op, bool kVjp>
void rows(const char* name, const char* wanted) {
  for (int64_t d : {2, 4, 8, 16, 32}) row<Op, float, kVjp>(name, wanted, d), row<Op, double, kVjp>(name, wanted, d);
}

}  // namespace
}  // namespace reparam::REPARAM_ARCH

int main(int count, char** arguments) {
  using namespace reparam::REPARAM_ARCH;
  const char* wanted = count > 1 ? arguments[1] : nullptr;
  rows<cholesky_ex, false>("cholesky", wanted);
  rows<cholesky_ex, true>("cholesky", wanted);
  rows<normal_tril_log_prob, false>("tril log_prob", wanted);
  rows<normal_tril_log_prob, true>("tril log_prob", wanted);
  rows<normal_tril_transform, false>("tril transform", wanted);
  rows<normal_tril_transform_and_log_prob, false>("tril transform_and_log_prob", wanted);
  rows<tril_solve, false>("tril_solve", wanted);
  rows<normal_diag_log_prob, true>("diag log_prob", wanted);
  rows<normal_diag_transform, false>("diag transform", wanted);
  rows<normal_diag_transform_and_log_prob, false>("diag transform_and_log_prob", wanted);
  return 0;
}
