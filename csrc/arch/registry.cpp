// SPDX-License-Identifier: MIT
#include "registry.hpp"

namespace reparam {

#define REPARAM_OP(name) extern const OpKernels name##_kernels;
#if defined(__x86_64__)
namespace avx2 {
#include "../ops/table.inc"
int64_t fma_loop(bool, int64_t);
}  // namespace avx2
namespace avx512 {
#include "../ops/table.inc"
int64_t fma_loop(bool, int64_t);
}  // namespace avx512
#if defined(REPARAM_WIDE)
namespace wide {
#include "../ops/table.inc"
int64_t fma_loop(bool, int64_t);
}  // namespace wide
#endif
#elif defined(__aarch64__)
namespace neon {
#include "../ops/table.inc"
int64_t fma_loop(bool, int64_t);
}  // namespace neon
#endif
namespace scalar {
#include "../ops/table.inc"
int64_t fma_loop(bool, int64_t);
}  // namespace scalar
#undef REPARAM_OP

namespace {

bool always() { return true; }

#define REPARAM_OP(name) &REPARAM_ARCH::name##_kernels,
#define REPARAM_ARCH scalar
const OpKernels* const scalar_ops[] = {
#include "../ops/table.inc"
};
#undef REPARAM_ARCH
#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() { return __builtin_cpu_supports("x86-64-v4"); }
#define REPARAM_ARCH avx2
const OpKernels* const avx2_ops[] = {
#include "../ops/table.inc"
};
#undef REPARAM_ARCH
#define REPARAM_ARCH avx512
const OpKernels* const avx512_ops[] = {
#include "../ops/table.inc"
};
#undef REPARAM_ARCH
#if defined(REPARAM_WIDE)
#define REPARAM_ARCH wide
const OpKernels* const wide_ops[] = {
#include "../ops/table.inc"
};
#undef REPARAM_ARCH
#endif
#elif defined(__aarch64__)
#define REPARAM_ARCH neon
const OpKernels* const neon_ops[] = {
#include "../ops/table.inc"
};
#undef REPARAM_ARCH
#endif
#undef REPARAM_OP

const Arch archs[] = {
    {"scalar", scalar_ops, always, scalar::fma_loop, true},
#if defined(__x86_64__)
    {"avx2", avx2_ops, has_avx2, avx2::fma_loop, true},
    {"avx512", avx512_ops, has_avx512, avx512::fma_loop, true},
#if defined(REPARAM_WIDE)
    {"wide", wide_ops, has_avx2, wide::fma_loop, false},
#endif
#elif defined(__aarch64__)
    {"neon", neon_ops, always, neon::fma_loop, true},
#endif
};

}  // namespace

const Arch* const kArchs = archs;
const int kArchCount = static_cast<int>(sizeof archs / sizeof archs[0]);
const int kOpCount = static_cast<int>(sizeof scalar_ops / sizeof scalar_ops[0]);

}  // namespace reparam
