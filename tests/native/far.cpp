// SPDX-License-Identifier: MIT
// Index arithmetic past 2^31 elements and bytes, with sizes that no memory has: pages are reserved and only those that
// hold an entry may be touched, so an address that is cut to 32 bits is a fault.
// - Every op on arrays whose entries lie 2^29 + 1 elements apart, on the CPU, by the loops of a GPU's warps and by its
//   teams: to the bit what it gives on small arrays.
// - The last events, and blocks of a sum, of a batch of 2^32.
// - How a launch is cut up, against arithmetic in 128 bits.
//     far [cut]        with a planted bug: offsets of 32 bits
#include <sys/mman.h>

#include <string>

#include "compiled.hpp"
#include "core/extent.hpp"
#include "drivers/launch.hpp"
#include "drivers/run.hpp"

namespace reparam {
namespace {

__extension__ using Wide = __int128;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("does not hold: %s\n", what);
  std::exit(1);
}

// An address space of `bytes`, of which the pages that were asked for exist.
class Reserved {
 public:
  explicit Reserved(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    void* const place = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(place != MAP_FAILED, "address space can be reserved");
    first = static_cast<char*>(place);
  }
  Reserved(const Reserved&) = delete;
  ~Reserved() { munmap(first, bytes_); }

  void open(int64_t at, int64_t bytes) const {
    const int64_t begin = at / kPage * kPage;
    check(mprotect(first + begin, static_cast<size_t>(at + bytes - begin), PROT_READ | PROT_WRITE) == 0, "pages open");
  }
  char* first;

 private:
  static constexpr int64_t kPage = 4096;
  size_t bytes_;
};

// The entries of an array, `kApart` times as far from each other.
struct FarArray {
  static constexpr int64_t kApart = (int64_t{1} << 29) + 1;
  Array& near;
  Reserved memory;

  explicit FarArray(Array& array)
      : near(array), memory(static_cast<int64_t>(array.bytes.size()) * kApart + array.item) {
    move(true);
  }
  void move(bool out, size_t dim = 0, int64_t at = 0) {
    if (dim == 0) at = near.origin;
    if (dim < near.shape.size()) {
      for (int64_t i = 0; i < near.shape[dim]; ++i) move(out, dim + 1, at + i * near.stride[dim]);
      return;
    }
    char *far = memory.first + at * kApart * near.item, *here = near.bytes.data() + at * near.item;
    if (out) memory.open(at * kApart * near.item, near.item);
    std::memcpy(out ? far : here, out ? here : far, static_cast<size_t>(near.item));
  }
  void describe(OperandData& operand) const {
    if (operand.data) operand.data = memory.first + near.origin * kApart * near.item;
    for (int64_t& stride : operand.batch_stride) stride *= kApart;
    for (int64_t& stride : operand.event_stride) stride *= kApart;
  }
};

using RunOn = std::function<void(Call)>;

void run_far(const Case& c, const RunOn& run) {
  Problem expected(c), found(c);
  run(expected.call);
  Call far_call = found.call;
  std::vector<std::unique_ptr<FarArray>> far;
  for (size_t i = 0; i < found.arrays.size(); ++i) {
    far.push_back(std::make_unique<FarArray>(found.arrays[i]));
    far.back()->describe(far_call.operand[i]);
  }
  run(far_call);
  for (size_t i = 0; i < far.size(); ++i) {
    far[i]->move(false);
    if (found.arrays[i].bytes != expected.arrays[i].bytes)
      fail(c, static_cast<int>(i), "differs where it lies far away");
  }
}

void run_far_arrays(Threads& threads, const Compiled& op, bool vjp, bool is_double) {
  for (int number = 0; number < 2 * kLayouts; ++number) {
    const Case c{*op.cpu, vjp, is_double, {2, 3}, 3, number, number * 5u / 3 & 3};
    run_far(c, [&](const Call& call) { run_on_cpu(*op.cpu, vjp, is_double, call, 1); });
    if (number > 1) continue;  // threads that wait for each other take their time
    run_far(c, [&](const Call& call) { run_in_warps(threads.warp, *op.gpu, c, call); });
    if (op.team[1]) run_far(c, [&](const Call& call) { run_in_warps(threads.team[1], *op.team[1], c, call); });
  }
}

// ---- the last events of a long batch

constexpr int64_t kFar = int64_t{1} << 32;  // events before those of the case, a multiple of 32

struct alignas(64) Line {
  char bytes[64];
};

// The events, or blocks of sums, at the end of dim 0, before which lie `before` more that nobody runs.
struct LastEvents {
  const Compiled& op;
  const Case& c;
  int64_t before;                           // 0 or kFar
  static inline bool cuts_offsets = false;  // the planted bug

  Call moved(Call call) const {
    const PassSpec& pass = op.cpu->pass[c.vjp];
    call.shape[0] += before;
    for (int i = 0; i < pass.count; ++i) {
      OperandData& operand = call.operand[i];
      const Item item = operand.drawn ? Item::u8 : pass.operand[i].item;
      const int64_t events = cuts_offsets ? static_cast<int32_t>(before) : before;
      if (operand.data) operand.data -= events * operand.batch_stride[0] * item_size(item, c.is_double);
    }
    return call;
  }

  template <class RunEvents, class RunBlocks>
  void run(const Call& call, RunEvents run_events, RunBlocks run_blocks) const {
    const PassSpec& pass = op.cpu->pass[c.vjp];
    for (const Part& part : parts_of(moved(call), pass)) {
      if (part.kept_rank < 0) {
        run_events(part.call, before * c.batch[1], (before + c.batch[0]) * c.batch[1]);
        continue;
      }
      check(part.kept_rank == 1, "the sums are those over the inner dim");
      Blocks blocks = blocks_of(part, pass);
      const int64_t count = c.batch[0] * blocks.count;
      std::vector<double> partial(static_cast<size_t>(count * blocks.values + 1));
      blocks.first = before * blocks.count, blocks.partial = reinterpret_cast<char*>(partial.data());
      run_blocks(part.call, blocks, count);
      for (int64_t kept = before; kept < before + c.batch[0]; ++kept)
        for (int64_t j = 0; j < blocks.values; ++j)
          if (c.is_double)
            add_blocks<double>(part.call, pass, 1, blocks, kept, j, blocks.first + count, nullptr, nullptr);
          else add_blocks<float>(part.call, pass, 1, blocks, kept, j, blocks.first + count, nullptr, nullptr);
    }
  }

  void on_cpu(const Call& call) const {
    const Kernel& kernel = op.cpu->kernel[c.vjp][c.is_double];
    const auto with_arena = [&](const Call& part, int64_t begin, int64_t end, const Partials* sums) {
      std::vector<Line> arena(static_cast<size_t>(kernel.arena_bytes(part)) / sizeof(Line) + 1);
      kernel.run(part, begin, end, arena[0].bytes, sums);
    };
    run(
        call, [&](const Call& part, int64_t begin, int64_t end) { with_arena(part, begin, end, nullptr); },
        [&](const Call& part, const Blocks& blocks, int64_t count) {
          for (int64_t block = blocks.first; block < blocks.first + count; block += blocks.count) {
            const Partials sums = c.is_double ? blocks.sums<double>(block) : blocks.sums<float>(block);
            with_arena(part, blocks.begin(block), blocks.end(block + blocks.count - 1), &sums);
          }
        });
  }

  // Warps before those of the first event are left out, and there are none behind.
  void in_warps(Warp& threads, const WarpKernels& kernels, int64_t together, const Call& call) const {
    const auto run_warps = [&](const Call& part, const Blocks& blocks, int64_t first, int64_t count, int64_t warps) {
      const auto bytes = static_cast<size_t>(kernels.warp_bytes[c.vjp][c.is_double](part));
      const std::unique_ptr<char[]> arena(new char[bytes]);
      for (int64_t warp = first; warp < warps; ++warp)
        threads.run([&] { kernels.run[c.vjp][c.is_double](part, count, blocks, warp, warps, arena.get()); });
    };
    run(
        call,
        [&](const Call& part, int64_t begin, int64_t end) {
          run_warps(part, {}, begin / together, end, (end + together - 1) / together);
        },
        [&](const Call& part, const Blocks& blocks, int64_t count) { run_warps(part, blocks, 0, count, 1); });
  }
};

void run_last_events(Threads& threads, const Compiled& op, bool vjp, bool is_double) {
  for (const unsigned summed : {0u, 2u}) {
    const Case c{*op.cpu, vjp, is_double, {2, 66}, 3, static_cast<int>(summed / 2), summed};
    const auto compare = [&](const auto& run) {
      Problem near(c), far(c);
      run(LastEvents{op, c, 0}, near.call), run(LastEvents{op, c, kFar}, far.call);
      for (size_t i = 0; i < far.arrays.size(); ++i)
        if (near.arrays[i].bytes != far.arrays[i].bytes) fail(c, static_cast<int>(i), "differs at the end of a batch");
    };
    compare([](const LastEvents& last, const Call& call) { last.on_cpu(call); });
    compare([&](const LastEvents& last, const Call& call) { last.in_warps(threads.warp, *op.gpu, 32, call); });
    if (op.team[2])
      compare([&](const LastEvents& last, const Call& call) { last.in_warps(threads.team[2], *op.team[2], 1, call); });
  }
}

// ---- how a launch is cut up

// Of a factor: dense values, and a scratch as the thread kernels have it.
int64_t factor_bytes(const Call& call) { return (call.extent[0] + 1) * call.extent[0] / 2 * 8 * 33; }
int64_t team_bytes(const Call& call) { return (call.extent[0] + 1) * call.extent[0] / 2 * 8; }

void check_launch(int64_t kept, int64_t terms, int64_t d, const Limits& limits) {
  constexpr PassSpec pass = make_pass("tril(d)->tril(d)", false, false);
  Part part;
  part.call.extent[0] = d, part.call.rank = 2, part.call.shape[0] = kept, part.call.shape[1] = terms;
  const bool sums = terms > 1;
  part.kept_rank = sums ? 1 : -1, part.call.operand[1].reduced = sums;
  const Launch launch(pass, true, part, factor_bytes, team_bytes, limits);
  const Wide triangle = Wide{d} * (d + 1) / 2, blocks = sums ? Wide{kept} * ((Wide{terms} + 63) / 64) : Wide{kept};
  const Wide bytes = triangle * 8 * (launch.is_team ? 1 : 33);
  const Workspace& space = launch.workspace;
  check(launch.count == blocks, "events, or blocks");
  check(launch.round > 0 && launch.round <= launch.count, "a round is a part of them");
  check(space.warps > 0 && space.warps <= kMostWarpsInAll, "warps");
  check(space.bytes >= bytes && space.bytes < bytes + 256, "scratch of a warp");
  check((launch.scratch != 0) == (bytes > limits.shared_of_block), "scratch in the device's memory");
  check(!launch.scratch || launch.scratch == Wide{space.bytes} * space.warps, "scratch");
  check(launch.scratch <= std::max(Wide{kScratchBytesOnGpu}, Wide{space.bytes}), "scratch is bounded");
  check(launch.scratch || Wide{space.bytes} * space.warps_per_block <= limits.shared_of_block, "scratch of a block");
  check(launch.fits(true) == (launch.is_team || Wide{space.bytes} / 8 <= INT32_MAX), "a thread's 32 bits");
  if (!sums) return;
  const Wide partial = Wide{launch.round} * triangle * 8;
  check(launch.partial >= partial && launch.partial < partial + 256, "sums of a round");
  check(launch.round == 1 || partial <= kRoundBytesOnGpu + triangle * 8, "sums are bounded");
  const int64_t last = launch.count - 1;
  check(launch.blocks.begin(last) == Wide{kept - 1} * terms + (Wide{terms} - 1) / 64 * 64, "first term of a block");
  check(launch.blocks.end(last) == Wide{kept} * terms, "last term of a block");
  check(launch.carried >= 2 * triangle * 8, "sums that are carried on");
}

void check_launches() {
  for (const Limits limits : {Limits{}, Limits{232448, 233472, 132}})
    for (const int64_t d : {1, 3, 17, 64, 128, 1000, 46341, 65536, 100000})
      for (const int64_t kept : {int64_t{1}, int64_t{524281}, (int64_t{1} << 31) - 1, (int64_t{1} << 32) + 1})
        for (const int64_t terms : {int64_t{1}, int64_t{65}, (int64_t{1} << 31) - 1})
          if (Wide{kept} * terms < Wide{1} << 62) check_launch(kept, terms, d, limits);
}

// Entry j of a triangle, for sizes whose triangle has more entries than 32 bits count.
void check_triangles() {
  for (const Wide row : {Wide{0}, Wide{1}, Wide{46340}, Wide{46341}, Wide{65535}, Wide{65536}, Wide{1} << 29}) {
    const Wide first = row * (row + 1) / 2;
    check(row_of_triangle(static_cast<int64_t>(first)) == row, "row of an entry");
    check(row_of_triangle(static_cast<int64_t>(first + row)) == row, "row of a last entry");
    check(scalar::triangle(static_cast<int64_t>(row)) == first, "size of a triangle");
  }
}

}  // namespace
}  // namespace reparam

int main(int argc, char** argv) {
  using namespace reparam;
  LastEvents::cuts_offsets = argc > 1 && std::string(argv[1]) == "cut";
  check_triangles();
  check_launches();
  Threads threads;
  const int driven = for_each_pass([&](const Compiled& op, bool vjp, bool is_double) {
    run_far_arrays(threads, op, vjp, is_double);
    run_last_events(threads, op, vjp, is_double);
  });
  std::printf("%d passes hold past 2^31 elements\n", driven);
}
