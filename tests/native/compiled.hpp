// SPDX-License-Identifier: MIT
// Every op as the host's compiler has made it: for the scalar arch of a CPU, and as a GPU runs it, with an event for
// each thread of a warp or one for a team.
#pragma once
#include "emulated.hpp"

namespace reparam {

inline constexpr int kLanesOfTeam[3] = {32, 8, 1};

struct Compiled {  // null where an op was left out, or takes no team
  const OpKernels* cpu;
  const WarpKernels *gpu, *team[3];
};
const std::vector<Compiled>& compiled_ops();

// Calls run(op, vjp, is_double) for every pass that was compiled; how many there are.
template <class Run>
int for_each_pass(Run run) {
  int driven = 0;
  for (const Compiled& op : compiled_ops())
    for (const bool vjp : {false, true})
      for (const bool is_double : {false, true}) {
        if (!op.cpu || !op.gpu || !op.gpu->run[vjp][is_double]) continue;
        run(op, vjp, is_double);
        ++driven;
      }
  return driven;
}

struct Threads {
  Warp warp{32}, team[3]{Warp(kLanesOfTeam[0]), Warp(kLanesOfTeam[1]), Warp(kLanesOfTeam[2])};
};

}  // namespace reparam
