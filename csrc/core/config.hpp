// SPDX-License-Identifier: MIT
// The attribute macros of the kernels, and nothing else. No other file but drivers/cuda.cuh may look at __CUDACC__.
#pragma once
#include <cstddef>
#include <cstdint>

// The build names the namespace of each copy of the kernels (scalar, avx2, avx512, wide, neon), so that code
// compiled for one instruction set can never be picked by the linker for another.
#ifndef REPARAM_ARCH
#define REPARAM_ARCH scalar
#endif

// REPARAM_ONCE: functions of the driver that one object of each CPU arch holds, and every CUDA kernel for itself.
// REPARAM_STRIDE: how far apart the values of one event lie in its packing (core/view.hpp), 1 for the lanes of a CPU,
// 33 for the threads of a warp; -n where the n threads of a warp, 32 but in tests, share one event (core/warp.hpp),
// whose values lie side by side.
//
// REPARAM_SHUFFLE: vectors are the CPU's; nvcc, which never instantiates them, loses the dots of a pack in the builtin.
#ifdef __CUDACC__
#define REPARAM_HD __host__ __device__ __forceinline__
#define REPARAM_ONCE __host__ __device__ __forceinline__
#define REPARAM_UNROLL _Pragma("unroll")
#define REPARAM_SHUFFLE(a, b, ...) (a)
#else
#define REPARAM_HD inline __attribute__((always_inline))
#define REPARAM_ONCE
#define REPARAM_UNROLL _Pragma("GCC unroll 8")
#define REPARAM_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#ifndef REPARAM_STRIDE
#ifdef __CUDACC__
#define REPARAM_STRIDE 33
#else
#define REPARAM_STRIDE 1
#endif
#endif
