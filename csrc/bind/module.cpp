// SPDX-License-Identifier: MIT
// The extension module reparam._core: the table of native ops, and one entry that runs any of them.
#include <pybind11/stl.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "../arch/registry.hpp"
#include "../drivers/run.hpp"
#include "../drivers/threads.hpp"
#include "arrays.hpp"
#include "direct.hpp"
#include "xla_kernels.hpp"

namespace py = pybind11;
using namespace reparam;

namespace {

const Arch& find_arch(const std::string& name) {
  for (int i = 0; i < kArchCount; ++i)
    if (name == kArchs[i].name && kArchs[i].usable()) return kArchs[i];
  throw py::value_error("unknown or unusable ISA " + name);
}

const OpKernels& find_op(const Arch& arch, const std::string& name) {
  for (int i = 0; i < kOpCount; ++i)
    if (name == arch.ops[i]->name) return *arch.ops[i];
  throw py::value_error("no native op " + name);
}

void read_sizes(Call& call, const PassSpec& pass, const std::vector<int64_t>& batch_shape,
                const std::vector<int64_t>& extents) {
  if (batch_shape.size() > kMaxRank) throw py::value_error("more than " + std::to_string(kMaxRank) + " batch dims");
  if (extents.size() != static_cast<size_t>(pass.symbols)) throw py::value_error("wrong number of extents");
  call.rank = static_cast<int>(batch_shape.size());
  for (size_t k = 0; k < batch_shape.size(); ++k) call.shape[k] = batch_shape[k];
  for (size_t k = 0; k < extents.size(); ++k) call.extent[k] = extents[k];
}

// A Draw stands as (key, index): index holds the stream of each event.
OperandData read_draw(Call& call, const py::tuple& draw) {
  static constexpr OperandSpec stream{Kind::scalar, Item::u8, {-1, -1}, false, false};
  if (!py::isinstance<py::array>(draw[1])) throw py::type_error("the index of a draw is not an array");
  call.draw_key = draw[0].cast<uint64_t>();
  OperandData out = bind::read_array(py::reinterpret_borrow<py::array>(draw[1]), stream, call, false, false, false);
  out.drawn = true;
  return out;
}

using Clock = std::chrono::steady_clock;
constexpr auto kSignalInterval = std::chrono::milliseconds(50);
unsigned long main_thread = 0;  // in a forked child, the thread that forked
thread_local Clock::time_point signals_due;

void become_main_thread() { main_thread = PyThread_get_thread_ident(); }

// Ctrl-C: Python's handlers run in its main thread, and their exception ends the call. No other thread may ask for the
// interpreter here: it could be shutting down, and take the thread with it.
void check_signals() {
  if (PyThread_get_thread_ident() != main_thread || Clock::now() < signals_due) return;
  const py::gil_scoped_acquire gil;
  signals_due = Clock::now() + kSignalInterval;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// Other Python threads run while this stands. Before Python 3.14 a daemon thread that wants the interpreter back while
// it shuts down is unwound by pthread_exit, and unwinding out of C++ aborts the process: it waits for the end instead.
class WithoutInterpreter {
 public:
  WithoutInterpreter() : state_(PyEval_SaveThread()) {}
  WithoutInterpreter(const WithoutInterpreter&) = delete;
  WithoutInterpreter& operator=(const WithoutInterpreter&) = delete;
  ~WithoutInterpreter() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      for (;;) pause();
    }
  }

 private:
  PyThreadState* state_;
};

void run_released(const OpKernels& op, bool vjp, bool is_double, const Call& call, int num_threads) {
  signals_due = Clock::now() + kSignalInterval;
  const WithoutInterpreter released;
  run_on_cpu(op, vjp, is_double, call, num_threads);
}

void run(const std::string& op_name, bool vjp, const std::string& isa, const std::string& dtype,
         const std::vector<int64_t>& batch_shape, const std::vector<int64_t>& extents, const py::list& operands,
         const std::vector<double>& attributes, int num_threads, bool packed) {
  const OpKernels& op = find_op(find_arch(isa), op_name);
  const bool is_double = dtype == "float64";
  if (!is_double && dtype != "float32") throw py::type_error("dtype must be float32 or float64");
  const PassSpec& pass = op.pass[vjp];
  if (!op.kernel[vjp][is_double].run) throw py::value_error(op_name + " has no such pass");
  if (operands.size() != static_cast<size_t>(pass.count)) throw py::value_error("wrong number of operands");
  Call call;
  read_sizes(call, pass, batch_shape, extents);
  call.attributes = attributes.data();
  for (int i = 0; i < pass.count; ++i) {
    const py::handle item = operands[static_cast<size_t>(i)];
    if (item.is_none() && pass.writes[i]) continue;
    if (py::isinstance<py::tuple>(item) && pass.operand[i].drawable)
      call.operand[i] = read_draw(call, py::reinterpret_borrow<py::tuple>(item));
    else if (py::isinstance<py::array>(item))
      call.operand[i] = bind::read_array(py::reinterpret_borrow<py::array>(item), pass.operand[i], call, is_double,
                                         pass.writes[i], packed);
    else throw py::type_error("operand " + std::to_string(i) + " of " + op_name + " is not an array");
  }
  run_released(op, vjp, is_double, call, num_threads);
}

bind::Direct make_direct(const std::string& op, const std::string& kind, const std::string& isa) {
  return {find_op(find_arch(isa), op), kind};
}

std::optional<py::tuple> run_direct(const bind::Direct& direct, const py::tuple& args,
                                    const std::optional<py::tuple>& out, const std::vector<double>& attributes,
                                    int num_threads) {
  const auto run = [num_threads](const OpKernels& op, bool reverse, bool is_double, const Call& call) {
    run_released(op, reverse, is_double, call, num_threads);
  };
  return direct.call(args, out, attributes.data(), run);
}

py::dict table() {
  py::dict out;
  for (int i = 0; i < kOpCount; ++i) {
    const OpKernels& op = *kArchs[0].ops[i];
    out[op.name] = py::make_tuple(op.signature, op.attributes, op.has_vjp, op.vjp_from_outputs ? "outputs" : "inputs");
  }
  return out;
}

py::tuple isas() {
  py::list names;
  for (int i = 0; i < kArchCount; ++i)
    if (kArchs[i].usable()) names.append(kArchs[i].name);
  return py::tuple(names);
}

std::string default_isa() {
  std::string best;
  for (int i = 0; i < kArchCount; ++i)
    if (kArchs[i].chosen_by_itself && kArchs[i].usable()) best = kArchs[i].name;
  return best;
}

// For callers that hold no interpreter and may be on any thread, its main one too: no signal is asked for, whose
// handler would be Python's.
const char* run_without_python(const OpKernels& op, bool vjp, bool is_double, const Call& call, int threads) noexcept {
  struct NoSignals {
    Clock::time_point before = signals_due;
    NoSignals() { signals_due = Clock::time_point::max(); }
    ~NoSignals() { signals_due = before; }
  } const no_signals;
  try {
    run_on_cpu(op, vjp, is_double, call, threads);
    return nullptr;
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (...) {
    return "the kernel failed";
  }
}

const bind::HostKernels host_kernels{kArchs, kArchCount, kOpCount, &run_without_python};

int64_t fma_loop(const std::string& isa, const std::string& dtype, int64_t rounds) {
  const Arch& arch = find_arch(isa);
  const WithoutInterpreter released;
  return arch.fma_loop(dtype == "float64", rounds);
}

py::dict stats() {
  const ThreadStats s = thread_stats();
  py::dict out;
  out["workers"] = s.workers;
  out["jobs"] = s.jobs;
  out["max_threads_seen"] = s.most_threads_seen;
  return out;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  pthread_atfork(nullptr, nullptr, become_main_thread);
  call_before_chunks(check_signals);
  py::register_exception<bind::LayoutError>(m, "LayoutError");
  m.def("run", &run);
  py::class_<bind::Direct>(m, "Direct").def(py::init(&make_direct)).def("__call__", &run_direct);
  m.def("table", &table);
  m.def("isas", &isas);
  m.def("default_isa", &default_isa);
  m.def("thread_stats", &stats);
  m.def("fma_loop", &fma_loop);
  m.attr("kernels") = py::capsule(&host_kernels, bind::HostKernels::kName);
  m.attr("compiler") = REPARAM_COMPILER;
  m.attr("version") = REPARAM_VERSION;
}
