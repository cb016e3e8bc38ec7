// SPDX-License-Identifier: MIT
// One call of an op on the CPU: merges batch dims, plans reductions, cuts the events into chunks, runs the kernel.
#pragma once
#include "call.hpp"

namespace reparam {

// Throws std::bad_alloc only. `call` holds NumPy-broadcast strides; outputs whose batch stride is 0 along a dim longer
// than 1 are summed over it, in the fixed order: blocks of 64 terms, 8 partial sums in each, blocks added in float64.
void run_on_cpu(const OpKernels& op, bool vjp, bool is_double, Call call, int threads);

}  // namespace reparam
