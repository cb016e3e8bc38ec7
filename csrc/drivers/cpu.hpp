// SPDX-License-Identifier: MIT
// The kernels of an op on the CPU: a range of events, one thread.
#pragma once
#include "events.hpp"

namespace reparam::REPARAM_ARCH {

template <class Op, class T, bool kVjp, class N>
static void run_kernel(const Call& call, int64_t begin, int64_t end, char* arena, const Partials* partials) {
  run_events<Op, T, kVjp, N>(call, call.attributes, begin, end, arena, partials);
}

}  // namespace reparam::REPARAM_ARCH
