// SPDX-License-Identifier: MIT
// Which instruction sets are compiled in and usable here, and their kernels.
#pragma once
#include "../drivers/call.hpp"

namespace reparam {

struct Arch {
  const char* name;
  const OpKernels* const* ops;                          // in the order of table.inc
  bool (*usable)();                                     // on this CPU
  int64_t (*fma_loop)(bool is_double, int64_t rounds);  // multiply-adds at the peak rate of one core; the flops done
  bool chosen_by_itself;                                // false: only when named (wide is for tests)
};

extern const Arch* const kArchs;  // best last
extern const int kArchCount;
extern const int kOpCount;

}  // namespace reparam
