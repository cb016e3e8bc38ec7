// SPDX-License-Identifier: MIT
// What _core and _cuda hand to the module for XLA, each in a capsule: their kernels are called there and linked once.
// The functions need no interpreter and throw nothing; they return null, or what went wrong.
#pragma once
#include <cstdint>

#include "../arch/registry.hpp"

namespace reparam::bind {

struct HostKernels {
  static constexpr const char* kName = "reparam._core.kernels";
  const Arch* archs;
  int arch_count, op_count;
  const char* (*run)(const OpKernels& op, bool vjp, bool is_double, const Call& call, int threads) noexcept;
};

// An op is what `find` gives, null where there is none. Pointers of the calls are the device's, the scratch too.
struct GpuKernels {
  static constexpr const char* kName = "reparam._cuda.kernels";
  const void* (*find)(const char* name) noexcept;
  int64_t (*scratch)(const void* op, bool vjp, bool is_double, const Call& call) noexcept;  // -1: no memory holds it
  const char* (*run)(const void* op, bool vjp, bool is_double, const Call& call, char* scratch, void* stream) noexcept;
  const char* (*read)(void* host, const void* device, int64_t bytes, void* stream) noexcept;  // waits for the stream
};

}  // namespace reparam::bind
