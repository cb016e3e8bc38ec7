// SPDX-License-Identifier: MIT
// NumPy arrays -> pointers and element strides. The front end has checked shapes and types with its own, worded errors;
// what is checked again here guards the memory.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "../drivers/call.hpp"

namespace reparam::bind {

namespace py = pybind11;

// An array that the kernels cannot walk as it lies: the front end puts a copy in its place.
struct LayoutError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline int event_rank(const OperandSpec& spec, bool packed) {
  if (packed) return 1;
  switch (spec.kind) {
    case Kind::scalar: return 0;
    case Kind::vector:
    case Kind::packed: return 1;
    default: return 2;
  }
}

inline int64_t event_size(const OperandSpec& spec, bool packed, const int64_t* extent, int dim) {
  const int64_t n = extent[spec.symbol[0]];
  if (packed || spec.kind == Kind::packed) return n * (n + 1) / 2;
  return spec.kind == Kind::rows && dim == 1 ? extent[spec.symbol[1]] : n;
}

// Takes up the batch dims of an operand, lined up on the right with those of the call; false where they do not fit.
inline bool broadcast_batch(Call& call, const int64_t* sizes, int rank) {
  for (; call.rank < rank; ++call.rank) {  // a new leading dim
    for (int k = call.rank; k > 0; --k) call.shape[k] = call.shape[k - 1];
    call.shape[0] = 1;
  }
  for (int k = 0; k < rank; ++k) {
    int64_t& n = call.shape[call.rank - rank + k];
    if (n == 1) n = sizes[k];
    if (sizes[k] != 1 && sizes[k] != n) return false;
  }
  return true;
}

// In elements. NumPy leaves what it likes in the stride of a dim that is never walked.
inline int64_t stride_of(const py::array& array, int dim, int64_t item, bool writes) {
  if (array.shape(dim) <= 1) return 0;
  const int64_t stride = array.strides(dim);
  if (stride % item != 0) throw LayoutError("strides must be whole elements");
  if (writes && stride == 0) throw py::value_error("an operand that is written has a stride of 0");
  return stride / item;
}

// Batch dims are lined up on the right by NumPy's rule; a dim of length 1 or a missing one has stride 0, and an output
// is summed over it.
inline void read_batch(const py::array& array, int batch_rank, const Call& call, int64_t item, bool writes,
                       OperandData& out) {
  for (int k = 0; k < batch_rank; ++k) {
    const int at = call.rank - batch_rank + k;
    if (at < 0) throw py::value_error("operand has more batch dims than the call");
    const int64_t size = array.shape(k);
    if (size != 1 && size != call.shape[at]) throw py::value_error("batch dims do not broadcast");
    out.batch_stride[at] = stride_of(array, k, item, writes);
  }
}

// `packed`: lower factors lie as their triangle, row after row.
inline OperandData read_array(const py::array& array, const OperandSpec& spec, const Call& call, bool is_double,
                              bool writes, bool packed) {
  OperandData out;
  out.packed = packed && spec.kind == Kind::tril;
  const int64_t item = item_size(spec.item, is_double);
  const char kind = array.dtype().kind();
  const bool right_kind = spec.item == Item::real ? kind == 'f' : spec.item == Item::i4 ? kind == 'i' : kind == 'u';
  if (!right_kind || array.itemsize() != item) throw py::type_error("operand has the wrong element type");
  if (array.dtype().byteorder() == '>') throw py::type_error("operand is not in native byte order");
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) throw LayoutError("operand is not aligned");
  if (writes && !array.writeable()) throw py::value_error("operand is read-only, but it is written");
  const int events = event_rank(spec, out.packed), batch = static_cast<int>(array.ndim()) - events;
  if (batch < 0) throw py::value_error("operand has too few dims");
  const bool nothing_to_write = writes && array.size() == 0;  // then its strides of 0 are no sum over a dim
  read_batch(array, batch, call, item, writes && !nothing_to_write, out);
  for (int k = 0; k < events; ++k) {
    if (array.shape(batch + k) != event_size(spec, out.packed, call.extent, k))
      throw py::value_error("event dims do not fit");
    out.event_stride[k] = stride_of(array, batch + k, item, writes && !nothing_to_write);
  }
  if (nothing_to_write) return out;
  out.data = static_cast<char*>(const_cast<void*>(array.data()));
  return out;
}

}  // namespace reparam::bind
