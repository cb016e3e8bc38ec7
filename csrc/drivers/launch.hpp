// SPDX-License-Identifier: MIT
// How a launch on a GPU is cut up: who runs it, into how many warps, and where their scratch lies. Numbers alone, so
// that a test without a GPU can ask about sizes that no machine has.
#pragma once
#include "blocks.hpp"

namespace reparam {

inline constexpr int kThreadsOfWarp = 32;
inline constexpr int kMostWarps = 4;                               // of a block
inline constexpr int64_t kMostWarpsInAll = int64_t{1} << 14;       // more than a large GPU runs at once
inline constexpr int64_t kScratchBytesOnGpu = int64_t{256} << 20;  // for all warps, unless one needs more

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t aligned_on_gpu(int64_t bytes) { return (bytes + 255) & ~int64_t{255}; }

// The warps of a launch, and `bytes` of scratch for each of them: in the device's memory, in shared memory where `data`
// is null.
struct Workspace {
  char* data = nullptr;
  int64_t bytes = 0, warps = 0;
  int warps_per_block = kMostWarps, shared_limit = 0;  // of a block, in bytes
};

// What a device has: bytes of shared memory of a block and of an SM, and SMs. 0 without a device.
struct Limits {
  int shared_of_block = 0, shared_of_sm = 0, processors = 0;
};

// How many warps make a block: as many as leave the fewest of an SM's idle, of which a block takes 1 KB for itself.
inline int warps_of_block(int64_t warp_bytes, const Limits& limits) {
  int best = 1;
  int64_t most = 0;
  for (int warps = 1; warps <= kMostWarps; warps *= 2) {
    const int64_t bytes = warps * warp_bytes, running = bytes ? limits.shared_of_sm / (bytes + 1024) * warps : warps;
    if (bytes <= limits.shared_of_block && running >= most) best = warps, most = running;
  }
  return best;
}

// The size of an event: of the last array that it gives, else of what it takes.
inline int64_t size_of_event(const Call& call, const PassSpec& pass) {
  for (int i = pass.count - 1; i >= 0; --i)
    if (pass.writes[i] && pass.operand[i].symbol[0] >= 0) return call.extent[pass.operand[i].symbol[0]];
  return call.extent[0];
}

// A warp shares an event where the scratch of 32 leaves an SM fewer warps than hide its waiting, from a size on that
// gives the threads of a team something to do.
inline constexpr int64_t kLeastTeam = 8, kWarpsToHide = 8;

using WarpBytes = int64_t (*)(const Call& call);  // of scratch

// One part of a call: who runs it, and how its scratch is cut up.
struct Launch {
  Part part;
  bool is_team = false;
  Blocks blocks;
  Workspace workspace;
  int64_t count = 0, round = 0;  // events, or blocks in all and in a round
  int64_t scratch = 0;           // of the warps, in the device's memory
  int64_t partial = 0, carried = 0;
  int64_t bytes() const { return scratch + partial + carried; }

  // `by_team` is null where the op takes none.
  Launch(const PassSpec& pass, bool is_double, const Part& planned, WarpBytes by_threads, WarpBytes by_team,
         const Limits& limits)
      : part(planned) {
    const Call& call = part.call;
    workspace.shared_limit = limits.shared_of_block;
    count = round = product(call.shape, call.rank);
    workspace.bytes = by_threads(call);
    is_team =
        by_team && size_of_event(call, pass) >= kLeastTeam && workspace.bytes > limits.shared_of_sm / kWarpsToHide;
    if (is_team) workspace.bytes = by_team(call);
    int64_t of_warp = is_team ? 1 : kThreadsOfWarp;  // events, or blocks, that a warp takes at once
    if (part.kept_rank >= 0) {
      blocks = blocks_of(part, pass);
      count = product(call.shape, part.kept_rank) * blocks.count;
      round = round_of(part, blocks, is_double);
      if (of_warp > 1) of_warp = kThreadsOfWarp / kSums;
      partial = aligned_on_gpu(round * blocks.values * (is_double ? 8 : 4));
      carried = 2 * aligned_on_gpu(8 * blocks.values);
    }
    workspace.warps = smaller((round + of_warp - 1) / of_warp, kMostWarpsInAll);
    if (workspace.bytes <= limits.shared_of_block) {
      workspace.warps_per_block = warps_of_block(workspace.bytes, limits);
    } else {
      workspace.bytes = aligned_on_gpu(workspace.bytes);
      const int64_t room = kScratchBytesOnGpu / workspace.bytes;
      workspace.warps = smaller(workspace.warps, room ? room : 1);
      scratch = workspace.warps * workspace.bytes;
    }
    while (workspace.warps_per_block > 1 && workspace.warps < int64_t{limits.processors} * workspace.warps_per_block)
      workspace.warps_per_block /= 2;  // each SM gets some
  }

  // A thread counts the values of its warp in 32 bits: up to d = 11,000 and 8 GB of scratch.
  bool fits(bool is_double) const { return is_team || workspace.bytes / (is_double ? 8 : 4) <= INT32_MAX; }
};

}  // namespace reparam
