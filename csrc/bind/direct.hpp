// SPDX-License-Identifier: MIT
// The common call in one step: every operand an aligned NumPy array of one type, nothing left out, drawn or packed by
// keyword; what is written new, or arrays that share memory with nothing. Shapes are worked out and results made
// here. Where a call is anything else, mistakes included, nothing is done, and the front end goes its own way, which
// has the words for them.
#pragma once
#include <optional>

#include "arrays.hpp"

namespace reparam::bind {

class Direct {
 public:
  // `kind` is forward, vjp or value_and_vjp.
  Direct(const OpKernels& op, const std::string& kind)
      : op_(op), reverse_(kind != "forward"), pass_(op.pass[reverse_]) {
    while (inputs_ < pass_.count && pass_.reads[inputs_]) ++inputs_;
    first_result_ = inputs_ + (kind == "vjp" ? pass_.values : 0);
    for (int i = 0; i < pass_.count; ++i) possible_ = possible_ && pass_.operand[i].kind != Kind::packed;
  }

  // Runs with `run(op, reverse, is_double, call)`; the results in their order, or nothing.
  template <class Run>
  std::optional<py::tuple> call(const py::tuple& args, const std::optional<py::tuple>& out, const double* attributes,
                                Run run) const {
    Call call;
    call.attributes = attributes;
    for (int64_t& n : call.extent) n = -1;
    if (!possible_ || args.size() != static_cast<size_t>(inputs_) || inputs_ == 0) return {};
    if (out && out->size() != static_cast<size_t>(pass_.count - first_result_)) return {};
    for (int i = 0; i < inputs_; ++i)
      if (!is_plain(at(args, i)) || !read_shape(array_at(args, i), pass_.operand[i], call)) return {};
    int64_t events = 1;
    for (int k = 0; k < call.rank; ++k)
      if (call.shape[k] == 0 || __builtin_mul_overflow(events, call.shape[k], &events)) return {};
    if (events > int64_t{1} << 40) return {};  // the front end has words for what no memory holds
    for (int s = 0; s < pass_.symbols; ++s)
      if (call.extent[s] < 1) return {};
    for (int i = 0; i < inputs_; ++i)
      if (pass_.operand[i].in_place && !stands_alone(args, i, call)) return {};
    const bool is_double = array_at(args, 0).itemsize() == 8;
    py::tuple results(pass_.count - first_result_);
    try {
      for (int i = 0; i < inputs_; ++i)
        call.operand[i] = read_array(array_at(args, i), pass_.operand[i], call, is_double, pass_.writes[i], false);
      for (int i = first_result_; i < pass_.count; ++i) {
        std::vector<py::ssize_t> shape = batch_of(i, args, call);
        for (int k = 0; k < event_rank(pass_.operand[i], false); ++k)
          shape.push_back(event_size(pass_.operand[i], false, call.extent, k));
        const int k = i - first_result_;
        if (!out) results[static_cast<size_t>(k)] = make(pass_.operand[i].item, shape, is_double);
        else if (fits(*out, k, shape, args)) results[static_cast<size_t>(k)] = at(*out, k);
        else return {};
        call.operand[i] = read_array(array_at(results, k), pass_.operand[i], call, is_double, true, false);
      }
    } catch (const LayoutError&) {
      return {};
    } catch (const py::builtin_exception&) {
      return {};
    }
    run(op_, reverse_, is_double, call);
    return results;
  }

 private:
  static py::handle at(const py::tuple& items, int i) { return items[static_cast<size_t>(i)]; }
  static bool is_plain(py::handle x) { return Py_TYPE(x.ptr()) == py::detail::npy_api::get().PyArray_Type_; }
  static py::array array_at(const py::tuple& args, int i) { return py::reinterpret_borrow<py::array>(at(args, i)); }

  // Takes up an operand's event sizes and batch dims; false where they do not fit the others.
  static bool read_shape(const py::array& array, const OperandSpec& spec, Call& call) {
    const int events = event_rank(spec, false), batch = static_cast<int>(array.ndim()) - events;
    if (batch < 0 || batch > kMaxRank) return false;
    for (int k = 0; k < events; ++k) {
      int64_t& n = call.extent[spec.symbol[spec.kind == Kind::rows ? k : 0]];
      if (n < 0) n = array.shape(batch + k);
      if (n != array.shape(batch + k)) return false;
    }
    return broadcast_batch(call, array.shape(), batch);
  }

  // Whether an operand that is updated has the shape of the whole batch and shares memory with no other.
  bool stands_alone(const py::tuple& args, int i, const Call& call) const {
    const py::array array = array_at(args, i);
    if (array.ndim() - event_rank(pass_.operand[i], false) != call.rank) return false;
    for (int k = 0; k < call.rank; ++k)
      if (array.shape(k) != call.shape[k]) return false;
    const Span span = span_of(array);
    for (size_t j = 0; j < args.size(); ++j)
      if (j != static_cast<size_t>(i) && span.meets(span_of(array_at(args, static_cast<int>(j))))) return false;
    return true;
  }

  // The batch dims of a result: those of the call, or of a cotangent those of its own input.
  std::vector<py::ssize_t> batch_of(int result, const py::tuple& args, const Call& call) const {
    int k = result - inputs_ - pass_.values;  // which cotangent
    if (!reverse_ || k < 0 || op_.vjp_from_outputs) return {call.shape, call.shape + call.rank};
    int input = 0;
    for (; pass_.operand[input].item != Item::real || k-- > 0; ++input) {
    }
    const py::array array = array_at(args, input);
    return {array.shape(), array.shape() + array.ndim() - event_rank(pass_.operand[input], false)};
  }

  static py::array make(Item item, const std::vector<py::ssize_t>& shape, bool is_double) {
    switch (item) {
      case Item::i4: return py::array_t<int32_t>(shape);
      case Item::u4: return py::array_t<uint32_t>(shape);
      case Item::u8: return py::array_t<uint64_t>(shape);
      default: return is_double ? py::array(py::array_t<double>(shape)) : py::array(py::array_t<float>(shape));
    }
  }

  // Whether out[k] has this shape and lies apart from the operands and from the results before it.
  static bool fits(const py::tuple& out, int k, const std::vector<py::ssize_t>& shape, const py::tuple& args) {
    if (!is_plain(at(out, k))) return false;
    const py::array array = array_at(out, k);
    if (array.ndim() != static_cast<py::ssize_t>(shape.size())) return false;
    for (size_t j = 0; j < shape.size(); ++j)
      if (array.shape(static_cast<py::ssize_t>(j)) != shape[j]) return false;
    const Span span = span_of(array);
    for (size_t i = 0; i < args.size(); ++i)
      if (span.meets(span_of(array_at(args, static_cast<int>(i))))) return false;
    for (int j = 0; j < k; ++j)
      if (span.meets(span_of(array_at(out, j)))) return false;
    return true;
  }

  struct Span {  // the bytes from the first to the last of an array
    intptr_t low, high;
    bool meets(const Span& other) const { return low < other.high && other.low < high; }
  };
  static Span span_of(const py::array& array) {
    const auto data = reinterpret_cast<intptr_t>(array.data());
    Span span{data, data + array.itemsize()};
    for (int k = 0; k < array.ndim(); ++k) {
      const py::ssize_t reach = (array.shape(k) - 1) * array.strides(k);
      (reach < 0 ? span.low : span.high) += reach;
    }
    return span;
  }

  const OpKernels& op_;
  bool reverse_;
  const PassSpec& pass_;
  int inputs_ = 0, first_result_ = 0;
  bool possible_ = true;
};

}  // namespace reparam::bind
