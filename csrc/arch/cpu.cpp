// SPDX-License-Identifier: MIT
// Compiled once per (op, arch): the build defines REPARAM_OP, REPARAM_OP_HEADER, REPARAM_ARCH, REPARAM_LANE_BYTES and
// the instruction set. Everything but the one table below has internal linkage or is inlined, so that the linker can
// never hand code of one arch to another.
#include REPARAM_OP_HEADER
#include "../drivers/cpu.hpp"

#define REPARAM_JOIN_(a, b) a##b
#define REPARAM_JOIN(a, b) REPARAM_JOIN_(a, b)
#define REPARAM_TEXT_(a) #a
#define REPARAM_TEXT(a) REPARAM_TEXT_(a)

namespace reparam::REPARAM_ARCH {

using Op = REPARAM_OP;

static double op_flops(const int64_t* extent) { return Op::flops(extent); }

template <class O, class T, bool kVjp>
static consteval Kernel kernel() {
  Kernel k;
  if constexpr (!kVjp || OpTraits<O>::has_vjp()) {
    k.arena_bytes = arena_bytes<O, T, kVjp>;
    k.run = run_kernel<O, T, kVjp, Dynamic>;
  }
  return k;
}

extern const OpKernels REPARAM_JOIN(REPARAM_OP, _kernels);
constinit const OpKernels REPARAM_JOIN(REPARAM_OP, _kernels) = {
    REPARAM_TEXT(REPARAM_OP),
    Op::signature,
    OpTraits<Op>::attributes(),
    OpTraits<Op>::has_vjp(),
    OpTraits<Op>::vjp_from_outputs(),
    {OpTraits<Op>::pass(false), OpTraits<Op>::pass(true)},
    op_flops,
    {LaneTraits<FloatLanes>::width, LaneTraits<DoubleLanes>::width},
    {{kernel<Op, float, false>(), kernel<Op, double, false>()},
     {kernel<Op, float, true>(), kernel<Op, double, true>()}}};

}  // namespace reparam::REPARAM_ARCH
