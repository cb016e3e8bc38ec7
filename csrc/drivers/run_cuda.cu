// SPDX-License-Identifier: MIT
#include "run_cuda.hpp"

#include <algorithm>
#include <climits>
#include <utility>

#include "blocks.hpp"

namespace reparam {
namespace {

constexpr int kThreads = 128;  // of a block that adds
constexpr int kWarp = 32;
constexpr int64_t kMostWarpsInAll = int64_t{1} << 14;  // more than a large GPU runs at once
constexpr int64_t kScratchBytes = int64_t{256} << 20;

int64_t aligned(int64_t bytes) { return (bytes + 255) & ~int64_t{255}; }

// What one round adds: blocks [blocks.first, end), which belong to the kept events [kept_first, kept_end).
struct RoundTask {
  PassSpec pass;
  Blocks blocks;
  int kept_rank;
  int64_t end, kept_first, kept_end;
  double *left, *leaves;  // from round to round
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_round(const __grid_constant__ Call call, const __grid_constant__ RoundTask task) {
  const int64_t values = task.blocks.values, count = (task.kept_end - task.kept_first) * values;
  for (int64_t k = blockIdx.x * int64_t{kThreads} + threadIdx.x; k < count; k += gridDim.x * int64_t{kThreads})
    add_blocks<T>(call, task.pass, task.kept_rank, task.blocks, task.kept_first + k / values, k % values, task.end,
                  task.left, task.leaves);
}

unsigned grid_of(int64_t count) {
  return static_cast<unsigned>((std::min(count, kMostWarpsInAll * kWarp) + kThreads - 1) / kThreads);
}

int ask(cudaDeviceAttr attribute) {  // 0 without a device
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess) {
    cudaGetLastError();  // it is the launch that reports it
    return 0;
  }
  return value;
}

// How many warps make a block: as many as leave the fewest of an SM's idle, of which a block takes 1 KB for itself.
int warps_of_block(int64_t warp_bytes, int64_t block_limit, int64_t sm_limit) {
  int best = 1;
  int64_t most = 0;
  for (int warps = 1; warps <= kMostWarps; warps *= 2) {
    const int64_t bytes = warps * warp_bytes, running = bytes ? sm_limit / (bytes + 1024) * warps : warps;
    if (bytes <= block_limit && running >= most) best = warps, most = running;
  }
  return best;
}

// A warp shares an event where the scratch of 32 leaves an SM fewer warps than hide its waiting, from a size on that
// gives the threads of a team something to do.
constexpr int64_t kLeastTeam = 8, kWarpsToHide = 8;

// One part of a call: who runs it, and how its scratch is cut up.
struct Launch {
  Part part;
  const CudaPasses* passes;
  Blocks blocks;
  Workspace workspace;
  int64_t count = 0, round = 0;  // events, or blocks in all and in a round
  int64_t scratch = 0;           // of the warps, in the device's memory
  int64_t partial = 0, carried = 0;
  int64_t bytes() const { return scratch + partial + carried; }

  Launch(const CudaKernels& op, bool vjp, bool is_double, const Part& planned) : part(planned), passes(&op.thread) {
    const Call& call = part.call;
    const int64_t block_limit = workspace.shared_limit = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    count = round = product(call.shape, call.rank);
    const int64_t sm_limit = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    if (op.team.launch[vjp][is_double] && call.extent[0] >= kLeastTeam &&
        op.thread.warp_bytes[vjp][is_double](call) * kWarpsToHide > sm_limit)
      passes = &op.team;
    int64_t of_warp = passes == &op.team ? 1 : kWarp;  // events, or blocks, that a warp takes at once
    if (part.kept_rank >= 0) {
      blocks = blocks_of(part, op.pass[vjp]);
      count = product(call.shape, part.kept_rank) * blocks.count;
      round = round_of(part, blocks, is_double);
      if (of_warp > 1) of_warp = kWarp / kSums;
      partial = aligned(round * blocks.values * (is_double ? 8 : 4)), carried = 2 * aligned(8 * blocks.values);
    }
    workspace.bytes = passes->warp_bytes[vjp][is_double](call);
    workspace.warps = std::min((round + of_warp - 1) / of_warp, kMostWarpsInAll);
    if (workspace.bytes <= block_limit) {
      workspace.warps_per_block = warps_of_block(workspace.bytes, block_limit, sm_limit);
    } else {
      workspace.bytes = aligned(workspace.bytes);
      workspace.warps = std::min(workspace.warps, std::max<int64_t>(kScratchBytes / workspace.bytes, 1));
      scratch = workspace.warps * workspace.bytes;
    }
    const int64_t processors = ask(cudaDevAttrMultiProcessorCount);
    while (workspace.warps_per_block > 1 && workspace.warps < workspace.warps_per_block * processors)
      workspace.warps_per_block /= 2;  // each SM gets some
  }
};

Call merged(Call call, const PassSpec& pass) {
  merge_dims(call, pass.count);
  return call;
}

template <class T>
cudaError_t add(const Call& call, const RoundTask& task, cudaStream_t stream) {
  const int64_t count = (task.kept_end - task.kept_first) * task.blocks.values;
  if (count) add_round<T><<<grid_of(count), kThreads, 0, stream>>>(call, task);
  return cudaGetLastError();
}

template <class T>
cudaError_t reduce(const PassSpec& pass, bool vjp, const Launch& launch, const CudaCall& work, char* scratch,
                   cudaStream_t stream) {
  const Call& call = launch.part.call;
  RoundTask task{pass, launch.blocks, launch.part.kept_rank, 0, 0, product(call.shape, launch.part.kept_rank), nullptr};
  if (launch.blocks.terms == 0) return add<T>(call, task, stream);
  Blocks& blocks = task.blocks;
  blocks.partial = scratch + launch.scratch;
  task.left = reinterpret_cast<double*>(blocks.partial + launch.partial);
  task.leaves = task.left + launch.carried / 16;
  for (; blocks.first < launch.count; blocks.first = task.end) {
    task.end = std::min(blocks.first + launch.round, launch.count);
    task.kept_first = blocks.first / blocks.count, task.kept_end = (task.end - 1) / blocks.count + 1;
    cudaError_t error =
        launch.passes->launch[vjp][sizeof(T) == 8](work, task.end - blocks.first, blocks, launch.workspace, stream);
    if (error == cudaSuccess) error = add<T>(call, task, stream);
    if (error != cudaSuccess) return error;
    std::swap(task.left, task.leaves);
  }
  return cudaSuccess;
}

}  // namespace

int64_t scratch_on_gpu(const CudaKernels& op, bool vjp, bool is_double, const Call& call) {
  int64_t most = 0;
  for (const Part& part : parts_of(merged(call, op.pass[vjp]), op.pass[vjp]))
    most = std::max(most, Launch(op, vjp, is_double, part).bytes());
  return most;
}

cudaError_t run_on_gpu(const CudaKernels& op, bool vjp, bool is_double, const Call& call, char* scratch,
                       cudaStream_t stream) {
  for (const Part& part : parts_of(merged(call, op.pass[vjp]), op.pass[vjp])) {
    Launch launch(op, vjp, is_double, part);
    launch.workspace.data = launch.scratch ? scratch : nullptr;
    if (launch.passes == &op.thread && launch.workspace.bytes / (is_double ? 8 : 4) > INT_MAX)
      return cudaErrorInvalidValue;  // a thread counts the values of its warp in 32 bits: d = 11,000, 8 GB of scratch
    CudaCall work{part.call, {}};
    std::copy_n(call.attributes, op.attribute_count, work.attributes);
    work.call.attributes = nullptr;
    cudaError_t error = cudaSuccess;
    if (part.kept_rank >= 0)
      error = is_double ? reduce<double>(op.pass[vjp], vjp, launch, work, scratch, stream)
                        : reduce<float>(op.pass[vjp], vjp, launch, work, scratch, stream);
    else if (launch.count)
      error = launch.passes->launch[vjp][is_double](work, launch.count, {}, launch.workspace, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace reparam
