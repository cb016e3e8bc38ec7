// SPDX-License-Identifier: MIT
// XLA's buffers -> a call of the kernels. Python has checked shapes and types with worded errors; what is checked again
// here guards the memory.
#pragma once
#include <xla/ffi/api/ffi.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "arrays.hpp"
#include "xla_kernels.hpp"

namespace reparam::bind {

namespace ffi = xla::ffi;

struct ShapeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The attributes that a call carries beside its buffers.
struct XlaSettings {
  std::string_view op;
  bool reverse, packed, keyed;  // keyed: noise is the stream of each event, and a last argument is the key
  uint64_t wanted;              // bit i: operand i of the pass, an output, has a buffer
  ffi::Span<const double> numbers;
};

// A pass of an op with its buffers. Batch dims come first in each of them and are lined up on the right, by NumPy's
// rule: a dim of 1 beside longer ones has stride 0, and an output is summed over it. uint64 travels as two words of 32
// bits, the low one first, since JAX has no uint64 by default; a key as its high word and its low one.
class XlaCall {
 public:
  const OpKernels& op;
  const XlaSettings& settings;
  bool is_double = false;
  Call call;

  XlaCall(const OpKernels& kernels, const XlaSettings& given, ffi::RemainingArgs args, ffi::RemainingRets rets)
      : op(kernels), settings(given), pass_(kernels.pass[given.reverse]) {
    collect(args, rets);
    for (int64_t& n : call.extent) n = -1;
    for (int i = 0; i < pass_.count; ++i)
      if (buffer_[i]) read_shape(i);
    if (key_) broadcast(batch_of(*key_, 1));
    for (int s = 0; s < pass_.symbols; ++s) require(call.extent[s] >= 0, "an event size is not known");
    for (int i = 0; i < pass_.count; ++i)
      if (buffer_[i]) call.operand[i] = place(i);
    if (!op.kernel[settings.reverse][is_double].run) throw ShapeError("the op has no such pass");
    call.attributes = settings.numbers.begin();
  }

  // Calls run(call) once for each key, with the key as the number that read(words) has made of it.
  template <class Read, class Run>
  void for_each_key(Read read, Run run) {
    if (!key_) return run(call);
    double halves[2] = {};  // what the ops of raw noise take
    const Dims dims = batch_of(*key_, 1);
    const int offset = call.rank - dims.rank;
    Call part = call;
    for (int k = 0; k < dims.rank; ++k) {
      if (dims.size[k] == 1) continue;
      part.shape[offset + k] = 1;
      for (int i = 0; i < pass_.count; ++i)
        require(!(call.operand[i].data && pass_.writes[i] && call.operand[i].batch_stride[offset + k] == 0),
                "a result is summed over several keys");
    }
    const auto* words = static_cast<const uint32_t*>(key_->untyped_data());
    for (int64_t n = static_cast<int64_t>(key_->element_count()) / 2, at = 0; at < n; ++at, words += 2) {
      int64_t rest = at;
      for (int i = 0; i < pass_.count; ++i) part.operand[i].data = call.operand[i].data;
      for (int k = dims.rank - 1; k >= 0; rest /= dims.size[k], --k)
        for (int i = 0; i < pass_.count && dims.size[k] > 1; ++i)
          if (part.operand[i].data)
            part.operand[i].data += rest % dims.size[k] * call.operand[i].batch_stride[offset + k] * item_of(i);
      part.draw_key = read(words);
      halves[0] = static_cast<double>(part.draw_key & 0xffffffff), halves[1] = static_cast<double>(part.draw_key >> 32);
      if (std::string_view(op.attributes) == "key_low,key_high") part.attributes = halves;
      run(part);
    }
  }

 private:
  struct Dims {
    const int64_t* size;
    int rank;
  };

  static void require(bool good, const char* what) {
    if (!good) throw ShapeError(what);
  }

  void collect(ffi::RemainingArgs args, ffi::RemainingRets rets) {
    size_t argument = 0, result = 0;
    for (int i = 0; i < pass_.count; ++i) {
      require(!pass_.operand[i].in_place, "an op that updates its operands is not for XLA");
      if (pass_.reads[i]) buffer_[i] = argument_at(args, argument++);
      else if (settings.wanted >> i & 1) {
        auto found = rets.get<ffi::AnyBuffer>(result++);
        require(found.has_value(), "a result has no buffer");
        buffer_[i] = **found;
      }
    }
    if (settings.keyed) {
      key_ = argument_at(args, argument++);
      require(key_->element_type() == ffi::U32 && last_dim(*key_) == 2, "a key is two words of 32 bits");
    }
    require(argument == args.size() && result == rets.size(), "wrong number of operands");
    int numbers = *op.attributes != 0;
    for (const char* c = op.attributes; *c; ++c) numbers += *c == ',';
    require(settings.numbers.size() >= static_cast<size_t>(numbers), "wrong number of attributes");
  }

  static ffi::AnyBuffer argument_at(ffi::RemainingArgs args, size_t k) {
    const auto found = args.get<ffi::AnyBuffer>(k);
    require(found.has_value(), "an operand has no buffer");
    return *found;
  }

  static int64_t last_dim(const ffi::AnyBuffer& buffer) {
    return buffer.dimensions().size() ? buffer.dimensions().back() : 0;
  }

  bool is_drawn(int i) const { return settings.keyed && pass_.operand[i].drawable; }
  bool is_packed(int i) const { return settings.packed && pass_.operand[i].kind == Kind::tril; }
  bool has_words(int i) const { return is_drawn(i) || pass_.operand[i].item == Item::u8; }  // two for each element
  int event_dims(int i) const { return is_drawn(i) ? 1 : event_rank(pass_.operand[i], is_packed(i)) + has_words(i); }
  int64_t item_of(int i) const { return has_words(i) ? 8 : item_size(pass_.operand[i].item, is_double); }

  static Dims batch_of(const ffi::AnyBuffer& buffer, int events) {
    const auto dims = buffer.dimensions();
    const int rank = static_cast<int>(dims.size()) - events;
    require(rank >= 0, "an operand has too few dims");
    require(rank <= kMaxRank, "more than 16 batch dims");
    return {dims.begin(), rank};
  }

  void broadcast(Dims batch) { require(broadcast_batch(call, batch.size, batch.rank), "batch dims do not broadcast"); }

  void set_extent(int symbol, int64_t n) {
    int64_t& known = call.extent[symbol];
    if (known < 0) known = n;
    require(known == n, "event dims do not fit");
  }

  static int64_t triangle_root(int64_t entries) {
    int64_t n = 0;
    while (n * (n + 1) / 2 < entries) ++n;
    require(n * (n + 1) / 2 == entries, "a packed factor has no whole number of rows");
    return n;
  }

  // Element type, event sizes and batch dims of one operand.
  void read_shape(int i) {
    const OperandSpec& spec = pass_.operand[i];
    const ffi::AnyBuffer& buffer = *buffer_[i];
    const ffi::DataType type = buffer.element_type();
    if (has_words(i)) require(type == ffi::U32 && last_dim(buffer) == 2, "a stream is two words of 32 bits");
    else if (spec.item == Item::i4) require(type == ffi::S32, "an operand must be int32");
    else if (spec.item == Item::u4) require(type == ffi::U32, "an operand must be uint32");
    else {
      require(type == ffi::F32 || type == ffi::F64, "an operand must be float32 or float64");
      require(!real_ || *real_ == type, "operands of two floating types");
      real_ = type;
      is_double = type == ffi::F64;
    }
    const int events = event_dims(i);
    const Dims batch = batch_of(buffer, events);
    broadcast(batch);
    if (is_drawn(i) || events == 0) return;
    const int64_t* event = batch.size + batch.rank;
    if (spec.kind == Kind::packed || is_packed(i)) return set_extent(spec.symbol[0], triangle_root(event[0]));
    if (spec.kind == Kind::scalar) return;
    set_extent(spec.symbol[0], event[0]);
    if (events == 2) set_extent(spec.symbol[spec.kind == Kind::rows], event[1]);
  }

  OperandData place(int i) const {
    OperandData out;
    const ffi::AnyBuffer& buffer = *buffer_[i];
    const auto dims = buffer.dimensions();
    const int words = has_words(i), events = event_dims(i) - words;
    const int batch = static_cast<int>(dims.size()) - event_dims(i);
    int64_t stride = 1;
    for (int k = static_cast<int>(dims.size()) - 1 - words; k >= 0; --k) {
      const int64_t n = dims[static_cast<size_t>(k)];
      if (k >= batch) out.event_stride[k - batch] = events && n > 1 ? stride : 0;
      else out.batch_stride[call.rank - batch + k] = n > 1 ? stride : 0;
      stride *= n;
    }
    out.packed = is_packed(i);
    out.drawn = is_drawn(i);
    if (!(pass_.writes[i] && stride == 0)) out.data = static_cast<char*>(buffer.untyped_data());
    return out;
  }

  const PassSpec& pass_;
  std::optional<ffi::AnyBuffer> buffer_[kMaxOperands], key_;
  std::optional<ffi::DataType> real_;
};

}  // namespace reparam::bind
