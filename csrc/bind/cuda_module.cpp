// SPDX-License-Identifier: MIT
// The extension module reparam._cuda: the table of ops, and one entry that runs any of them on arrays of a GPU, given
// as addresses and strides. It loads where there is no driver; `devices` says what is missing.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <vector>

#include "../arch/cuda_registry.hpp"
#include "../drivers/run_cuda.hpp"
#include "xla_kernels.hpp"

namespace py = pybind11;
using namespace reparam;

namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const std::string message =
      std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")";
  if (error == cudaErrorMemoryAllocation) {
    PyErr_SetString(PyExc_MemoryError, message.c_str());
    throw py::error_already_set();
  }
  throw std::runtime_error(message);
}

const CudaKernels& find_op(const std::string& name) {
  for (const CudaKernels& op : cuda_kernels())
    if (name == op.name) return op;
  throw py::value_error("no op " + name);
}

// (address, batch strides, event strides) in elements, with the key of a Draw as a fourth; None for an output that
// nobody wants.
OperandData read_operand(py::handle item, const OperandSpec& spec, int rank, bool packed, Call& call) {
  OperandData out;
  if (item.is_none()) return out;
  const auto given = item.cast<py::tuple>();
  out.data = reinterpret_cast<char*>(given[0].cast<uintptr_t>());
  const auto batch = given[1].cast<std::vector<int64_t>>(), event = given[2].cast<std::vector<int64_t>>();
  if (batch.size() != static_cast<size_t>(rank) || event.size() > 2) throw py::value_error("strides do not fit");
  for (size_t k = 0; k < batch.size(); ++k) out.batch_stride[k] = batch[k];
  for (size_t k = 0; k < event.size(); ++k) out.event_stride[k] = event[k];
  out.packed = packed && spec.kind == Kind::tril;
  out.drawn = given.size() == 4;
  if (out.drawn) call.draw_key = given[3].cast<uint64_t>();
  return out;
}

struct Request {
  const CudaKernels& op;
  bool vjp, is_double;
  Call call;
};

Request read_request(const std::string& name, bool vjp, const std::string& dtype, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& extents, const py::list& operands,
                     const std::vector<double>& attributes, bool packed) {
  const CudaKernels& op = find_op(name);
  Request request{op, vjp, dtype == "float64", {}};
  const PassSpec& pass = op.pass[vjp];
  if (!op.thread.launch[vjp][request.is_double]) throw py::value_error(name + " has no such pass");
  if (shape.size() > kMaxRank) throw py::value_error("more than " + std::to_string(kMaxRank) + " batch dims");
  if (extents.size() != static_cast<size_t>(pass.symbols)) throw py::value_error("wrong number of extents");
  if (operands.size() != static_cast<size_t>(pass.count)) throw py::value_error("wrong number of operands");
  if (attributes.size() != static_cast<size_t>(op.attribute_count)) throw py::value_error("wrong number of attributes");
  Call& call = request.call;
  call.rank = static_cast<int>(shape.size());
  for (size_t k = 0; k < shape.size(); ++k) call.shape[k] = shape[k];
  for (size_t k = 0; k < extents.size(); ++k) call.extent[k] = extents[k];
  call.attributes = attributes.data();
  for (int i = 0; i < pass.count; ++i)
    call.operand[i] = read_operand(operands[static_cast<size_t>(i)], pass.operand[i], call.rank, packed, call);
  return request;
}

int64_t scratch(const std::string& name, bool vjp, const std::string& dtype, const std::vector<int64_t>& shape,
                const std::vector<int64_t>& extents, const py::list& operands, const std::vector<double>& attributes,
                bool packed) {
  const Request request = read_request(name, vjp, dtype, shape, extents, operands, attributes, packed);
  return scratch_on_gpu(request.op, vjp, request.is_double, request.call);
}

void run(const std::string& name, bool vjp, const std::string& dtype, const std::vector<int64_t>& shape,
         const std::vector<int64_t>& extents, const py::list& operands, const std::vector<double>& attributes,
         bool packed, uintptr_t scratch_address, uintptr_t stream) {
  const Request request = read_request(name, vjp, dtype, shape, extents, operands, attributes, packed);
  cudaError_t error = cudaSuccess;
  {
    const py::gil_scoped_release released;
    error = run_on_gpu(request.op, vjp, request.is_double, request.call, reinterpret_cast<char*>(scratch_address),
                       reinterpret_cast<cudaStream_t>(stream));
  }
  check(error, name.c_str());
}

// For callers that hold no interpreter.
const CudaKernels& kernels_of(const void* op) { return *static_cast<const CudaKernels*>(op); }

const char* described(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

const void* find_without_python(const char* name) noexcept {
  for (const CudaKernels& op : cuda_kernels())
    if (std::string_view(name) == op.name) return &op;
  return nullptr;
}

int64_t scratch_without_python(const void* op, bool vjp, bool is_double, const Call& call) noexcept try {
  return scratch_on_gpu(kernels_of(op), vjp, is_double, call);
} catch (...) {
  return -1;
}

const char* run_without_python(const void* op, bool vjp, bool is_double, const Call& call, char* scratch,
                               void* stream) noexcept try {
  return described(run_on_gpu(kernels_of(op), vjp, is_double, call, scratch, static_cast<cudaStream_t>(stream)));
} catch (...) {
  return "out of memory";
}

const char* read_without_python(void* host, const void* device, int64_t bytes, void* stream) noexcept {
  const auto of = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, of);
  return described(error == cudaSuccess ? cudaStreamSynchronize(of) : error);
}

const bind::GpuKernels gpu_kernels{&find_without_python, &scratch_without_python, &run_without_python,
                                   &read_without_python};

py::list devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "no GPU can be used");
  py::list found;
  for (int k = 0; k < count; ++k) {
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, k), "cudaGetDeviceProperties");
    py::dict about;
    about["name"] = device.name;
    about["compute_capability"] = py::make_tuple(device.major, device.minor);
    about["memory"] = device.totalGlobalMem;
    found.append(about);
  }
  return found;
}

py::tuple versions() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");  // 0 without a driver
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return py::make_tuple(driver, runtime);
}

py::dict table() {
  py::dict out;
  for (const CudaKernels& op : cuda_kernels())
    out[op.name] = py::make_tuple(op.signature, op.attributes, op.has_vjp, op.vjp_from_outputs ? "outputs" : "inputs");
  return out;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.def("run", &run);
  m.def("scratch", &scratch);
  m.def("devices", &devices);
  m.def("versions", &versions);
  m.def("table", &table);
  m.attr("kernels") = py::capsule(&gpu_kernels, bind::GpuKernels::kName);
  m.attr("targets") = REPARAM_CUDA_TARGETS;
  m.attr("compiler") = REPARAM_CUDA_COMPILER;
}
