// SPDX-License-Identifier: MIT
// Compiled by nvcc once per op, as cpu.cpp is for each arch of a CPU; and again where the op takes a team, with the
// REPARAM_STRIDE of one.
#include REPARAM_OP_HEADER
#include "../drivers/cuda.cuh"

#define REPARAM_JOIN_(a, b) a##b
#define REPARAM_JOIN(a, b) REPARAM_JOIN_(a, b)
#define REPARAM_TEXT_(a) #a
#define REPARAM_TEXT(a) REPARAM_TEXT_(a)

#if REPARAM_STRIDE > 0
namespace reparam::team {
CudaPasses REPARAM_JOIN(REPARAM_OP, _passes)();
}
#endif

namespace reparam::REPARAM_ARCH {

using Op = REPARAM_OP;

// One pass in one precision.
template <bool kVjp, class T>
static void add_pass(CudaPasses& passes) {
  if constexpr (!kVjp || OpTraits<Op>::has_vjp()) {
    passes.warp_bytes[kVjp][sizeof(T) == 8] = warp_bytes<Op, T, kVjp>;
    passes.launch[kVjp][sizeof(T) == 8] = launch<Op, T, kVjp>;
  }
}

CudaPasses REPARAM_JOIN(REPARAM_OP, _passes)() {
  CudaPasses passes;
  add_pass<false, float>(passes), add_pass<false, double>(passes);
  add_pass<true, float>(passes), add_pass<true, double>(passes);
  return passes;
}

#if REPARAM_STRIDE > 0
// Of names with commas between them.
static constexpr int count_of(const char* names) {
  int count = *names ? 1 : 0;
  for (; *names; ++names) count += *names == ',';
  return count;
}

template <class O>
static CudaPasses team_passes() {
  if constexpr (OpTraits<O>::takes_team()) return team::REPARAM_JOIN(REPARAM_OP, _passes)();
  else return {};
}

CudaKernels REPARAM_JOIN(REPARAM_OP, _kernels)() {
  return {REPARAM_TEXT(REPARAM_OP),
          Op::signature,
          OpTraits<Op>::attributes(),
          count_of(OpTraits<Op>::attributes()),
          OpTraits<Op>::has_vjp(),
          OpTraits<Op>::vjp_from_outputs(),
          {OpTraits<Op>::pass(false), OpTraits<Op>::pass(true)},
          REPARAM_JOIN(REPARAM_OP, _passes)(),
          team_passes<Op>()};
}
#endif

}  // namespace reparam::REPARAM_ARCH
