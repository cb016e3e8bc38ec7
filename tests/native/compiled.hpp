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

struct Threads {
  Warp warp{32}, team[3]{Warp(kLanesOfTeam[0]), Warp(kLanesOfTeam[1]), Warp(kLanesOfTeam[2])};
};

}  // namespace reparam
