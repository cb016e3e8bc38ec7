// SPDX-License-Identifier: MIT
#include "run_cuda.hpp"

#include <algorithm>
#include <utility>

#include "launch.hpp"

namespace reparam {
namespace {

constexpr int kThreads = 128;  // of a block that adds

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
  return static_cast<unsigned>((std::min(count, kMostWarpsInAll * kThreadsOfWarp) + kThreads - 1) / kThreads);
}

int ask(cudaDeviceAttr attribute) {  // 0 without a device
  int device = 0, value = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess) {
    cudaGetLastError();  // it is the launch that reports it
    return 0;
  }
  return value;
}

Launch plan(const CudaKernels& op, bool vjp, bool is_double, const Part& part) {
  const Limits limits{ask(cudaDevAttrMaxSharedMemoryPerBlockOptin), ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
                      ask(cudaDevAttrMultiProcessorCount)};
  return {op.pass[vjp], is_double, part, op.thread.warp_bytes[vjp][is_double], op.team.warp_bytes[vjp][is_double],
          limits};
}

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
cudaError_t reduce(const PassSpec& pass, const CudaPasses& passes, bool vjp, const Launch& launch, const CudaCall& work,
                   char* scratch, cudaStream_t stream) {
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
        passes.launch[vjp][sizeof(T) == 8](work, task.end - blocks.first, blocks, launch.workspace, stream);
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
    most = std::max(most, plan(op, vjp, is_double, part).bytes());
  return most;
}

cudaError_t run_on_gpu(const CudaKernels& op, bool vjp, bool is_double, const Call& call, char* scratch,
                       cudaStream_t stream) {
  for (const Part& part : parts_of(merged(call, op.pass[vjp]), op.pass[vjp])) {
    Launch launch = plan(op, vjp, is_double, part);
    launch.workspace.data = launch.scratch ? scratch : nullptr;
    if (!launch.fits(is_double)) return cudaErrorInvalidValue;
    const CudaPasses& passes = launch.is_team ? op.team : op.thread;
    CudaCall work{part.call, {}};
    std::copy_n(call.attributes, op.attribute_count, work.attributes);
    work.call.attributes = nullptr;
    cudaError_t error = cudaSuccess;
    if (part.kept_rank >= 0)
      error = is_double ? reduce<double>(op.pass[vjp], passes, vjp, launch, work, scratch, stream)
                        : reduce<float>(op.pass[vjp], passes, vjp, launch, work, scratch, stream);
    else if (launch.count) error = passes.launch[vjp][is_double](work, launch.count, {}, launch.workspace, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace reparam
