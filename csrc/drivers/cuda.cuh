// SPDX-License-Identifier: MIT
// The kernels of an op on a GPU.
#pragma once
#include "cuda.hpp"
#include "warp.hpp"

namespace reparam::REPARAM_ARCH {

// Blocks that an SM must have room for, by their registers: the ELBOs, which read rows, take all there are and spill
// with less.
template <class Op, bool kVjp>
consteval int blocks_of_sm() {
  const PassSpec pass = OpTraits<Op>::pass(kVjp);
  for (int i = 0; i < pass.count; ++i)
    if (pass.operand[i].kind == Kind::rows) return 2;
  return 3;
}

// Events [0, count), or blocks [0, count) of a reduction: one kernel, so that the body stands in the binary once.
template <class Op, class T, bool kVjp>
__global__ void __launch_bounds__(kMostWarps* kWarp, blocks_of_sm<Op, kVjp>())
    run_op(const __grid_constant__ CudaCall work, int64_t count, const __grid_constant__ Blocks blocks,
           const __grid_constant__ Workspace workspace) {
  extern __shared__ __align__(16) char shared[];
  const int warp_of_block = static_cast<int>(threadIdx.x / kWarp);
  const int64_t warp = blockIdx.x * int64_t{blockDim.x / kWarp} + warp_of_block;
  if (warp >= workspace.warps) return;
  char* const arena =
      workspace.data ? workspace.data + warp * workspace.bytes : shared + warp_of_block * workspace.bytes;
  run_warp<Op, T, kVjp, Dynamic>(work.call, work.attributes, count, blocks, warp, workspace.warps, arena);
}

template <class Op, class T, bool kVjp>
static cudaError_t launch(CudaCall call, int64_t count, const Blocks& blocks, const Workspace& workspace,
                          cudaStream_t stream) {
  const int64_t per_block = workspace.warps_per_block, shared = workspace.data ? 0 : per_block * workspace.bytes;
  const auto kernel = run_op<Op, T, kVjp>;
  const Attributes<Op> attributes(call.attributes);
  if (attributes.value != call.attributes)
    for (int k = 0; k < kMostAttributes; ++k) call.attributes[k] = attributes.value[k];
  if (shared > kSharedWithoutAsking) {
    // All there is, not what this launch needs: another thread may be between this line and its own launch.
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, workspace.shared_limit);
    if (error != cudaSuccess) {
      cudaGetLastError();  // or the next launch would report it
      return error;
    }
  }
  const auto grid = static_cast<unsigned>((workspace.warps + per_block - 1) / per_block);
  kernel<<<grid, static_cast<unsigned>(per_block * kWarp), static_cast<size_t>(shared), stream>>>(call, count, blocks,
                                                                                                  workspace);
  return cudaGetLastError();
}

}  // namespace reparam::REPARAM_ARCH
