// SPDX-License-Identifier: MIT
// Which instruction sets are compiled in and usable here, and their kernels.
#pragma once
#include "../drivers/call.hpp"

namespace reparam {

struct Arch {
  const char* name;
  const OpKernels* const* ops;  // in the order of table.inc
  bool (*usable)();             // on this CPU
  bool chosen_by_itself;        // false: only when named (wide is for tests, avx512 has not been proved on a CPU)
};

inline constexpr int kOpCount = 0
#define REPARAM_OP(name) +1
#include "../ops/table.inc"
#undef REPARAM_OP
    ;

extern const Arch* const kArchs;  // best last
extern const int kArchCount;

}  // namespace reparam
