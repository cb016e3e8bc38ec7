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

extern const Arch* const kArchs;  // best last
extern const int kArchCount;
extern const int kOpCount;

}  // namespace reparam
