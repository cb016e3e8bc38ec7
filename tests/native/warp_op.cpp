// SPDX-License-Identifier: MIT
// What nvcc makes of an op, by the host's compiler: the same loops, packing and body, with the functions of a warp from
// emulated.hpp. Compiled once per op with the REPARAM_STRIDE of a thread's event, and with that of a team's, for each
// number of threads.
#include REPARAM_OP_HEADER
#include "drivers/warp.hpp"
#include "emulated.hpp"

#define REPARAM_JOIN_(a, b) a##b
#define REPARAM_JOIN(a, b) REPARAM_JOIN_(a, b)

namespace reparam::REPARAM_ARCH {

using Op = REPARAM_OP;

template <class T, bool kVjp>
static void run(const Call& call, int64_t count, const Blocks& blocks, int64_t warp, int64_t warps, char* arena) {
  const Attributes<Op> attributes(call.attributes);
  run_warp<Op, T, kVjp, Dynamic>(call, attributes.value, count, blocks, warp, warps, arena);
}

template <bool kVjp>
static constexpr void add_pass(WarpKernels& kernels) {
  if constexpr (!kVjp || OpTraits<Op>::has_vjp()) {
    kernels.run[kVjp][0] = run<float, kVjp>, kernels.run[kVjp][1] = run<double, kVjp>;
    kernels.warp_bytes[kVjp][0] = warp_bytes<Op, float, kVjp>;
    kernels.warp_bytes[kVjp][1] = warp_bytes<Op, double, kVjp>;
  }
}

static constexpr WarpKernels make_kernels() {
  WarpKernels kernels{};
  add_pass<false>(kernels), add_pass<true>(kernels);
  return kernels;
}

extern const WarpKernels REPARAM_JOIN(REPARAM_OP, _kernels);
constinit const WarpKernels REPARAM_JOIN(REPARAM_OP, _kernels) = make_kernels();

}  // namespace reparam::REPARAM_ARCH
