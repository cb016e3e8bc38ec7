// SPDX-License-Identifier: MIT
// The extension module reparam._xla: one handler of XLA's foreign function interface for each platform, which runs any
// pass of any op by the kernels of _core or _cuda. A handler never asks for the interpreter, throws nothing, and gives
// NaN for what has no result, as jax.numpy does.
#include <pybind11/pybind11.h>

#include <atomic>
#include <new>
#include <string>
#include <utility>

#include "xla_call.hpp"

// A handler loads where XLA's version is no older than that of its headers, and XLA goes on reading those of a year.
static_assert(XLA_FFI_API_MAJOR == 0 && XLA_FFI_API_MINOR == 1, "compile against the headers of jaxlib 0.8.0");

namespace py = pybind11;
using namespace reparam;
using namespace reparam::bind;

namespace {

std::atomic<const HostKernels*> host_kernels{nullptr};
std::atomic<const Arch*> arch{nullptr};
std::atomic<const GpuKernels*> gpu_kernels{nullptr};
std::atomic<int> num_threads{1};

const OpKernels& find_op(std::string_view name) {
  const HostKernels& host = *host_kernels.load();
  for (int i = 0; i < host.op_count; ++i)
    if (name == arch.load()->ops[i]->name) return *arch.load()->ops[i];
  throw ShapeError("there is no such op");
}

ffi::Error failed(std::string_view op, const char* what) {
  return ffi::Error::InvalidArgument("reparam." + std::string(op) + ": " + what);
}

// What `run` throws, as an error of XLA.
template <class Run>
ffi::Error guarded(std::string_view op, Run run) noexcept try {
  const char* what = run();
  return what ? ffi::Error::Internal("reparam." + std::string(op) + ": " + what) : ffi::Error::Success();
} catch (const ShapeError& error) {
  return failed(op, error.what());
} catch (const std::bad_alloc&) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");
}

uint64_t key_of(const uint32_t* words) { return uint64_t{words[0]} << 32 | words[1]; }

ffi::Error on_cpu(std::string_view op, bool reverse, bool packed, bool keyed, int64_t wanted,
                  ffi::Span<const double> numbers, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return guarded(op, [&] {
    const XlaSettings settings{op, reverse, packed, keyed, static_cast<uint64_t>(wanted), numbers};
    XlaCall request(find_op(op), settings, args, rets);
    const char* error = nullptr;
    request.for_each_key(key_of, [&](const Call& call) {
      if (!error) error = host_kernels.load()->run(request.op, reverse, request.is_double, call, num_threads);
    });
    return error;
  });
}

// A key lies on the GPU, and the kernels want it on the host: then alone the call waits for what is queued before it.
ffi::Error on_gpu(void* stream, ffi::ScratchAllocator memory, std::string_view op, bool reverse, bool packed,
                  bool keyed, int64_t wanted, ffi::Span<const double> numbers, ffi::RemainingArgs args,
                  ffi::RemainingRets rets) {
  return guarded(op, [&]() -> const char* {
    const GpuKernels& gpu = *gpu_kernels.load();
    const XlaSettings settings{op, reverse, packed, keyed, static_cast<uint64_t>(wanted), numbers};
    XlaCall request(find_op(op), settings, args, rets);
    const void* kernels = gpu.find(request.op.name);
    if (!kernels) return "the module for GPUs has no such op";
    const char* error = nullptr;
    void* scratch = nullptr;
    int64_t room = 0;
    const auto read = [&](const uint32_t* words) {
      uint32_t copy[2] = {};
      if (!error) error = gpu.read(copy, words, sizeof copy, stream);
      return key_of(copy);
    };
    request.for_each_key(read, [&](const Call& call) {
      if (error) return;
      const int64_t bytes = gpu.scratch(kernels, reverse, request.is_double, call);
      if (bytes < 0) throw std::bad_alloc();
      if (bytes > room) {
        const auto found = memory.Allocate(static_cast<size_t>(bytes), 256);
        if (!found) throw std::bad_alloc();
        scratch = *found, room = bytes;
      }
      error = gpu.run(kernels, reverse, request.is_double, call, static_cast<char*>(scratch), stream);
    });
    return error;
  });
}

auto with_settings = [](auto binding) {
  return std::move(binding)
      .template Attr<std::string_view>("op")
      .template Attr<bool>("reverse")
      .template Attr<bool>("packed")
      .template Attr<bool>("keyed")
      .template Attr<int64_t>("wanted")
      .template Attr<ffi::Span<const double>>("numbers")
      .RemainingArgs()
      .RemainingRets();
};

XLA_FFI_DEFINE_HANDLER(cpu_handler, on_cpu, with_settings(ffi::Ffi::Bind()));
XLA_FFI_DEFINE_HANDLER(gpu_handler, on_gpu,
                       with_settings(ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>().Ctx<ffi::ScratchAllocator>()));

template <class Kernels>
const Kernels* unwrap(const py::capsule& capsule) {
  auto* kernels = static_cast<const Kernels*>(PyCapsule_GetPointer(capsule.ptr(), Kernels::kName));
  if (!kernels) throw py::error_already_set();
  return kernels;
}

py::capsule use_core(const py::capsule& kernels, const std::string& isa) {
  const auto* host = unwrap<HostKernels>(kernels);
  for (int i = 0; i < host->arch_count; ++i)
    if (isa == host->archs[i].name && host->archs[i].usable()) {
      host_kernels = host;
      arch = &host->archs[i];
      return py::capsule(reinterpret_cast<void*>(+cpu_handler));
    }
  throw py::value_error("unknown or unusable ISA " + isa);
}

py::capsule use_cuda(const py::capsule& kernels) {
  gpu_kernels = unwrap<GpuKernels>(kernels);
  return py::capsule(reinterpret_cast<void*>(+gpu_handler));
}

}  // namespace

PYBIND11_MODULE(_xla, m) {
  m.def("use_core", &use_core);
  m.def("use_cuda", &use_cuda);
  m.def("set_num_threads", [](int n) { num_threads = n; });
}
