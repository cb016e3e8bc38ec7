// SPDX-License-Identifier: MIT
// One call of an op on a GPU: merges batch dims, plans reductions, launches on the caller's stream. Nothing is
// allocated and nothing waits: the scratch is the caller's, so that a graph may capture the call.
#pragma once
#include "cuda.hpp"

namespace reparam {

// Bytes of scratch that `run_on_gpu` needs for this call.
int64_t scratch_on_gpu(const CudaKernels& op, bool vjp, bool is_double, const Call& call);

// `call` as for run_on_cpu, with pointers of the device; its attributes are on the host. Returns the first error.
cudaError_t run_on_gpu(const CudaKernels& op, bool vjp, bool is_double, const Call& call, char* scratch,
                       cudaStream_t stream);

}  // namespace reparam
