// SPDX-License-Identifier: MIT
// The GPU's packing and loops on the host: 32 threads with a barrier are a warp, and run what a GPU's threads run. To
// the bit what run_on_cpu gives on the scalar arch, for all layouts, sums and drawn noise; nothing beside the entries
// of an output is written, nor past the scratch. ThreadSanitizer sees a barrier that is missing.
//     warp [full | race]        more sizes; or with a planted bug: threads do not wait for what others load
#include <algorithm>
#include <barrier>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "cases.hpp"
#include "drivers/blocks.hpp"
#include "drivers/run.hpp"
#include "warp.hpp"

namespace reparam {

#define REPARAM_OP(name)                                       \
  namespace scalar {                                           \
  extern const OpKernels name##_kernels __attribute__((weak)); \
  }                                                            \
  namespace warp {                                             \
  extern const WarpKernels name##_warp __attribute__((weak));  \
  }
#include "ops/table.inc"
#undef REPARAM_OP
struct Pair {
  const OpKernels* cpu;
  const WarpKernels* gpu;  // null where it was left out
};
#define REPARAM_OP(name) {&scalar::name##_kernels, &warp::name##_warp},
static const Pair kOps[] = {
#include "ops/table.inc"
};

namespace {

constexpr int kLanes = 32;
constexpr int64_t kStride = 33, kWarps = 2;

thread_local int lane;
std::barrier<> gate(kLanes);
int64_t given[kLanes];
bool flags[kLanes];
bool forgets_to_wait = false;

// The 32 threads, kept from call to call.
class Warp {
 public:
  Warp() {
    for (int k = 0; k < kLanes; ++k) threads_.emplace_back([this, k] { serve(k); });
  }
  ~Warp() {
    work_ = nullptr;
    start_.arrive_and_wait();
    for (std::thread& thread : threads_) thread.join();
  }
  void run(const std::function<void()>& work) {
    work_ = &work;
    start_.arrive_and_wait();
    end_.arrive_and_wait();
  }

 private:
  void serve(int own) {
    lane = own;
    for (;;) {
      start_.arrive_and_wait();
      if (!work_) return;
      (*work_)();
      end_.arrive_and_wait();
    }
  }
  std::barrier<> start_{kLanes + 1}, end_{kLanes + 1};
  const std::function<void()>* work_ = nullptr;
  std::vector<std::thread> threads_;
};

void run_in_warps(Warp& threads, const Pair& op, const Case& c, Call call) {
  const PassSpec& pass = op.cpu->pass[c.vjp];
  merge_dims(call, pass.count);
  for (const Part& part : parts_of(call, pass)) {
    int64_t count = product(part.call.shape, part.call.rank);
    Blocks blocks;
    std::vector<double> partial, carried;
    if (part.kept_rank >= 0) {
      blocks = blocks_of(part, pass);
      count = product(part.call.shape, part.kept_rank) * blocks.count;
      partial.resize(static_cast<size_t>(count * blocks.values + 1));
      blocks.partial = reinterpret_cast<char*>(partial.data());
      carried.resize(static_cast<size_t>(blocks.values));
    }
    const int64_t bytes = kStride * op.gpu->thread_bytes[c.vjp][c.is_double](part.call);
    for (int64_t warp = 0; warp < kWarps && count; ++warp) {
      const std::unique_ptr<char[]> arena(new char[static_cast<size_t>(bytes)]);
      std::memset(arena.get(), 0xff, static_cast<size_t>(bytes));  // NaN, whatever the type
      threads.run([&] { op.gpu->run[c.vjp][c.is_double](part.call, count, blocks, warp, kWarps, arena.get()); });
    }
    if (part.kept_rank < 0) continue;
    for (int64_t kept = 0; kept < product(part.call.shape, part.kept_rank); ++kept)
      for (int64_t j = 0; j < blocks.values; ++j)
        if (c.is_double) add_blocks<double>(part.call, pass, part.kept_rank, blocks, kept, j, count, carried.data());
        else add_blocks<float>(part.call, pass, part.kept_rank, blocks, kept, j, count, carried.data());
  }
}

// Whether the entries are the same bits, or both NaN.
template <class T>
bool same(const std::vector<char>& a, const std::vector<char>& b) {
  for (size_t at = 0; at < a.size(); at += sizeof(T)) {
    T x, y;
    std::memcpy(&x, &a[at], sizeof x), std::memcpy(&y, &b[at], sizeof y);
    if (std::memcmp(&x, &y, sizeof x) != 0 && (x == x || y == y)) return false;
  }
  return true;
}

void run(Warp& threads, const Pair& op, const Case& c) {
  Problem expected(c), found(c);
  run_on_cpu(*op.cpu, c.vjp, c.is_double, expected.call, 1);
  run_in_warps(threads, op, c, found.call);
  for (size_t i = 0; i < found.arrays.size(); ++i) {
    const Array &a = found.arrays[i], &b = expected.arrays[i];
    if (!(a.item == 8 ? same<double>(a.bytes, b.bytes) : same<float>(a.bytes, b.bytes)))
      fail(c, static_cast<int>(i), "differs from the CPU's");
  }
  found.check_kept(c);
}

void run_op(Warp& threads, const Pair& op, bool vjp, bool is_double, const Shape& sizes) {
  int number = 0;
  for (const int64_t size : sizes)
    for (const Shape& batch : {Shape{}, Shape{0}, Shape{1}, Shape{67}, Shape{3, 70}, Shape{70, 3}, Shape{2, 1, 33}})
      for (int k = 0; k < (size < 8 ? 2 : 1); ++k, ++number)
        run(threads, op, {*op.cpu, vjp, is_double, batch, size, number, number * 5u / 3 & ((1u << batch.size()) - 1)});
}

}  // namespace

namespace warp {
int lane_of_warp() { return lane; }
void sync_warp() {
  if (!forgets_to_wait) gate.arrive_and_wait();
}
uint32_t lanes_where(bool value) {
  flags[lane] = value;
  gate.arrive_and_wait();
  uint32_t found = 0;
  for (int k = 0; k < kLanes; ++k) found |= uint32_t{flags[k]} << k;
  gate.arrive_and_wait();
  return found;
}
int64_t from_lane(int64_t value, int from) {
  given[lane] = value;
  gate.arrive_and_wait();
  const int64_t found = given[from];
  gate.arrive_and_wait();
  return found;
}
}  // namespace warp
}  // namespace reparam

int main(int argc, char** argv) {
  using namespace reparam;
  const std::string mode = argc > 1 ? argv[1] : "";
  forgets_to_wait = mode == "race";
  const Shape sizes = mode == "full" ? Shape{0, 1, 2, 3, 5, 8, 17, 33} : Shape{3, 17};
  Warp threads;
  int driven = 0;
  for (const Pair& op : kOps)
    for (const bool vjp : {false, true})
      for (const bool is_double : {false, true}) {
        if (!op.cpu || !op.gpu || !op.gpu->run[vjp][is_double]) continue;
        run_op(threads, op, vjp, is_double, sizes);
        ++driven;
      }
  std::printf("%d passes: to the bit what the CPU gives\n", driven);
}
