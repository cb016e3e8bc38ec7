// SPDX-License-Identifier: MIT
#include "cuda_registry.hpp"

namespace reparam {

namespace cuda {
#define REPARAM_OP(name) CudaKernels name##_kernels();
#include "../ops/table.inc"
#undef REPARAM_OP
}  // namespace cuda

const std::vector<CudaKernels>& cuda_kernels() {
#define REPARAM_OP(name) cuda::name##_kernels(),
  static const std::vector<CudaKernels> ops{
#include "../ops/table.inc"
  };
#undef REPARAM_OP
  return ops;
}

}  // namespace reparam
