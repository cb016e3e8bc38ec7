// SPDX-License-Identifier: MIT
// Compiled once per op by nvcc, as cpu.cpp is for each arch of a CPU.
#include REPARAM_OP_HEADER
#include "../drivers/cuda.cuh"

#define REPARAM_JOIN_(a, b) a##b
#define REPARAM_JOIN(a, b) REPARAM_JOIN_(a, b)
#define REPARAM_TEXT_(a) #a
#define REPARAM_TEXT(a) REPARAM_TEXT_(a)

namespace reparam::REPARAM_ARCH {

using Op = REPARAM_OP;

// Of names with commas between them.
static constexpr int count_of(const char* names) {
  int count = *names ? 1 : 0;
  for (; *names; ++names) count += *names == ',';
  return count;
}

// One pass in one precision.
template <bool kVjp, class T>
static void add_pass(CudaKernels& kernels) {
  constexpr bool is_double = sizeof(T) == 8;
  if constexpr (!kVjp || OpTraits<Op>::has_vjp()) {
    kernels.thread_bytes[kVjp][is_double] = bytes_of_thread<Op, T, kVjp>;
    kernels.launch[kVjp][is_double] = launch<Op, T, kVjp>;
  }
}

CudaKernels REPARAM_JOIN(REPARAM_OP, _kernels)() {
  CudaKernels kernels{REPARAM_TEXT(REPARAM_OP),
                      Op::signature,
                      OpTraits<Op>::attributes(),
                      count_of(OpTraits<Op>::attributes()),
                      OpTraits<Op>::has_vjp(),
                      OpTraits<Op>::vjp_from_outputs(),
                      {OpTraits<Op>::pass(false), OpTraits<Op>::pass(true)},
                      {},
                      {}};
  add_pass<false, float>(kernels), add_pass<false, double>(kernels);
  add_pass<true, float>(kernels), add_pass<true, double>(kernels);
  return kernels;
}

}  // namespace reparam::REPARAM_ARCH
