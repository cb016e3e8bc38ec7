// SPDX-License-Identifier: MIT
// The ops of the CUDA module.
#pragma once
#include <vector>

#include "../drivers/cuda.hpp"

namespace reparam {

const std::vector<CudaKernels>& cuda_kernels();  // in the order of table.inc

}  // namespace reparam
