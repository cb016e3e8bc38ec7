// SPDX-License-Identifier: MIT
#include "compiled.hpp"

namespace reparam {

// Null where an op was left out, or takes no team.
#define REPARAM_OP(name)                                         \
  namespace scalar {                                             \
  extern const OpKernels name##_kernels __attribute__((weak));   \
  }                                                              \
  namespace warp {                                               \
  extern const WarpKernels name##_kernels __attribute__((weak)); \
  }                                                              \
  namespace team32 {                                             \
  extern const WarpKernels name##_kernels __attribute__((weak)); \
  }                                                              \
  namespace team8 {                                              \
  extern const WarpKernels name##_kernels __attribute__((weak)); \
  }                                                              \
  namespace team1 {                                              \
  extern const WarpKernels name##_kernels __attribute__((weak)); \
  }
#include "ops/table.inc"
#undef REPARAM_OP
#define REPARAM_OP(name)    \
  {&scalar::name##_kernels, \
   &warp::name##_kernels,   \
   {&team32::name##_kernels, &team8::name##_kernels, &team1::name##_kernels}},
const std::vector<Compiled>& compiled_ops() {
  static const std::vector<Compiled> ops{
#include "ops/table.inc"
  };
  return ops;
}

#define REPARAM_FUNCTIONS_OF_WARP(name)                                                        \
  namespace name {                                                                             \
  int lane_of_warp() { return Warp::lane; }                                                    \
  void sync_warp() { Warp::own().sync(); }                                                     \
  uint32_t lanes_where(bool value) { return Warp::own().lanes_where(value); }                  \
  int64_t word_from_lane(int64_t word, int from) { return Warp::own().word_from(word, from); } \
  }
REPARAM_FUNCTIONS_OF_WARP(warp)
REPARAM_FUNCTIONS_OF_WARP(team32)
REPARAM_FUNCTIONS_OF_WARP(team8)
REPARAM_FUNCTIONS_OF_WARP(team1)
#undef REPARAM_FUNCTIONS_OF_WARP

}  // namespace reparam
