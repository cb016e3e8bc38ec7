// SPDX-License-Identifier: MIT
// A GPU's warp on the host: threads with a barrier, which run what a GPU's threads run. Teams may have fewer than 32.
#pragma once
#include <barrier>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "cases.hpp"
#include "drivers/blocks.hpp"

namespace reparam {

// One pass of an op by these threads: events [0, count), or the blocks [0, count) of a reduction.
struct WarpKernels {
  void (*run[2][2])(const Call& call, int64_t count, const Blocks& blocks, int64_t warp, int64_t warps, char* arena);
  int64_t (*warp_bytes[2][2])(const Call& call);  // of scratch; [forward, reverse][float32, float64]
};

class Warp {
 public:
  static inline thread_local int lane;
  static inline bool forgets_to_wait = false;  // the planted bug

  explicit Warp(int lanes) : gate_(lanes), words_(static_cast<size_t>(lanes)), start_(lanes + 1), end_(lanes + 1) {
    for (int k = 0; k < lanes; ++k) threads_.emplace_back([this, k] { serve(k); });
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

  // The warp of the thread that asks.
  static Warp& own() { return *own_; }
  void sync() {
    if (!forgets_to_wait) gate_.arrive_and_wait();
  }
  int64_t word_from(int64_t word, int from) {
    words_[static_cast<size_t>(lane)] = word;
    gate_.arrive_and_wait();
    const int64_t found = words_[static_cast<size_t>(from)];
    gate_.arrive_and_wait();
    return found;
  }
  uint32_t lanes_where(bool value) {
    words_[static_cast<size_t>(lane)] = value;
    gate_.arrive_and_wait();
    uint32_t found = 0;
    for (size_t k = 0; k < words_.size(); ++k) found |= static_cast<uint32_t>(words_[k]) << k;
    gate_.arrive_and_wait();
    return found;
  }

 private:
  void serve(int number) {
    lane = number, own_ = this;
    for (;;) {
      start_.arrive_and_wait();
      if (!work_) return;
      (*work_)();
      end_.arrive_and_wait();
    }
  }
  static inline thread_local Warp* own_;
  std::barrier<> gate_;
  std::vector<int64_t> words_;
  std::barrier<> start_, end_;
  const std::function<void()>* work_ = nullptr;
  std::vector<std::thread> threads_;
};

// A call by two warps, one after the other, each with scratch of its own that holds NaN.
inline void run_in_warps(Warp& threads, const WarpKernels& kernels, const Case& c, Call call) {
  constexpr int64_t kWarps = 2;
  const PassSpec& pass = c.op.pass[c.vjp];
  merge_dims(call, pass.count);
  for (const Part& part : parts_of(call, pass)) {
    int64_t count = product(part.call.shape, part.call.rank);
    Blocks blocks;
    std::vector<double> partial;
    if (part.kept_rank >= 0) {
      blocks = blocks_of(part, pass);
      count = product(part.call.shape, part.kept_rank) * blocks.count;
      partial.resize(static_cast<size_t>(count * blocks.values + 1));
      blocks.partial = reinterpret_cast<char*>(partial.data());
    }
    const auto bytes = static_cast<size_t>(kernels.warp_bytes[c.vjp][c.is_double](part.call));
    for (int64_t warp = 0; warp < kWarps && count; ++warp) {
      const std::unique_ptr<char[]> arena(new char[bytes]);
      std::memset(arena.get(), 0xff, bytes);
      threads.run([&] { kernels.run[c.vjp][c.is_double](part.call, count, blocks, warp, kWarps, arena.get()); });
    }
    if (part.kept_rank < 0) continue;
    for (int64_t kept = 0; kept < product(part.call.shape, part.kept_rank); ++kept)
      for (int64_t j = 0; j < blocks.values; ++j)
        if (c.is_double) add_blocks<double>(part.call, pass, part.kept_rank, blocks, kept, j, count, nullptr, nullptr);
        else add_blocks<float>(part.call, pass, part.kept_rank, blocks, kept, j, count, nullptr, nullptr);
  }
}

}  // namespace reparam
