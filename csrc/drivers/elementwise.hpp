// SPDX-License-Identifier: MIT
// Ops whose operands are all scalars: rows of the innermost dim are walked by pointer, with whole vector loads where an
// operand lies together. (Through the general pack, addresses cost 8 times the arithmetic: Adam took 8 ns a parameter.)
#pragma once
#include "call.hpp"
#include "pack.hpp"

namespace reparam::REPARAM_ARCH {

// What an op states about itself, with defaults for what it leaves out.
template <class Op>
struct OpTraits {
  static consteval bool has_vjp() {
    if constexpr (requires { Op::has_vjp; }) return Op::has_vjp;
    else return true;
  }
  static consteval bool vjp_from_outputs() {
    if constexpr (requires { Op::vjp_from_outputs; }) return Op::vjp_from_outputs;
    else return false;
  }
  static consteval const char* attributes() {
    if constexpr (requires { Op::attributes; }) return Op::attributes;
    else return "";
  }
  static consteval InPlace in_place(bool vjp) {
    if constexpr (requires { Op::forward_in_place; })
      if (!vjp) return Op::forward_in_place;
    if constexpr (requires { Op::vjp_in_place; })
      if (vjp) return Op::vjp_in_place;
    return {};
  }
  // Whether the body takes a factor that all lanes share as such (SharedTril), and its cotangent as an OuterProduct.
  static consteval bool shares_factor() {
    if constexpr (requires { Op::shares_factor; }) return Op::shares_factor;
    else return false;
  }
  // Whether the body shares its loops among the threads of a team.
  static consteval bool takes_team() {
    if constexpr (requires { Op::takes_team; }) return Op::takes_team;
    else return false;
  }
  static consteval PassSpec pass(bool vjp) {
    return vjp && !has_vjp() ? PassSpec{} : make_pass(Op::signature, vjp, vjp_from_outputs());
  }
};

// The attributes as the body takes them: an op may prepare them once for all events of a run.
template <class Op>
struct Attributes {
  const double* value;
  double prepared[8];
  REPARAM_HD explicit Attributes(const double* given) : value(given) {
    if constexpr (requires { Op::prepare(value, prepared); }) {
      Op::prepare(value, prepared);
      value = prepared;
    }
  }
};

template <int kFirst, class List>
struct Shift;
template <int kFirst, int... I>
struct Shift<kFirst, Indices<I...>> {
  using type = Indices<(kFirst + I)...>;
};
template <int kFirst, int kCount>
using range = typename Shift<kFirst, indices<kCount>>::type;

template <class First, class Second>
struct Join;
template <int... I, int... J>
struct Join<Indices<I...>, Indices<J...>> {
  using type = Indices<I..., J...>;
};

// Which operands of a pass a body takes. In a reverse pass `vjp` takes all but the outputs, which come from `forward`
// if anyone wants them; or, where an op says `vjp_gives_values`, all of them, because they fall out of the same work.
template <class Op, bool kVjp>
struct BodyOperands {
  static constexpr PassSpec kPass = OpTraits<Op>::pass(kVjp);
  static constexpr int kBefore = kPass.primals + kPass.cotangents, kAfter = kBefore + kPass.values;
  static consteval bool vjp_gives_values() {
    if constexpr (requires { Op::vjp_gives_values; }) return Op::vjp_gives_values;
    else return false;
  }
  static constexpr bool separate_values = kVjp && kPass.values > 0 && !vjp_gives_values();
  using Forward = typename Join<range<0, kPass.primals>, range<kBefore, kPass.values>>::type;
  using WithoutValues = typename Join<range<0, kBefore>, range<kAfter, kPass.count - kAfter>>::type;
  using Own = typename SelectType<separate_values, WithoutValues, indices<kPass.count>>::type;
};

template <class Op, bool kVjp>
REPARAM_HD bool any_value_wanted(const Call& call) {
  using Plan = BodyOperands<Op, kVjp>;
  for (int i = Plan::kBefore; i < Plan::kAfter; ++i)
    if (call.operand[i].data) return true;
  return false;
}

REPARAM_HD Key draw_key(const Call& call) {
  return {static_cast<uint32_t>(call.draw_key), static_cast<uint32_t>(call.draw_key >> 32)};
}

template <class Op, bool kVjp>
consteval bool is_elementwise() {
  const PassSpec pass = OpTraits<Op>::pass(kVjp);
  for (int i = 0; i < pass.count; ++i)
    if (pass.operand[i].kind != Kind::scalar || pass.operand[i].item != Item::real) return false;
  return true;
}

template <class Op, class T, bool kVjp>
struct Elementwise {
  using V = typename NativeLanes<T>::type;
  static constexpr int W = LaneTraits<V>::width;
  static constexpr PassSpec kPass = OpTraits<Op>::pass(kVjp);
  static constexpr int kCount = kPass.count;

  const Call& call;
  const double* attributes;
  T* data[kCount];
  int64_t step[kCount];
  V value[kCount];

  static REPARAM_HD void place(int64_t* lanes, int64_t step, int64_t at, int count) {
    for (int lane = 0; lane < W; ++lane) lanes[lane] = step * (at + (lane < count ? lane : count - 1));
  }

  template <int I>
  REPARAM_HD void load(int64_t at, int count) {
    if constexpr (!OpTraits<Op>::pass(kVjp).reads[I]) return;
    if constexpr (OpTraits<Op>::pass(kVjp).operand[I].drawable)
      if (call.operand[I].drawn) {
        int64_t lanes[W];
        place(lanes, step[I], at, count);
        V block[row_buffer_values(1)];
        const auto* streams = reinterpret_cast<const uint64_t*>(data[I]);
        draw_row(draw_key(call), gather<LanesWith<V, uint64_t>>(streams, lanes), 0, 1, block);
        value[I] = block[0];
        return;
      }
    if constexpr (W == 1) {  // nvcc would copy byte by byte
      value[I] = data[I][at * step[I]];
    } else if (step[I] == 1 && count == W) {
      value[I] = load_unaligned<V>(data[I] + at);
    } else if (step[I] == 0) {
      value[I] = V(*data[I]);
    } else {
      int64_t lanes[W];
      place(lanes, step[I], at, count);
      value[I] = gather<V>(data[I], lanes);
    }
  }

  template <int I>
  REPARAM_HD void store(int64_t at, int count) {
    if constexpr (!OpTraits<Op>::pass(kVjp).writes[I]) return;
    if (!data[I]) return;
    if constexpr (W == 1) {
      data[I][at * step[I]] = value[I];
    } else if (step[I] == 1 && count == W) {
      __builtin_memcpy(data[I] + at, &value[I], sizeof(V));
    } else {
      int64_t lanes[W];
      place(lanes, step[I], at, count);
      scatter(data[I], lanes, value[I]);
    }
  }

  template <int I>
  REPARAM_HD auto view() {
    if constexpr (OpTraits<Op>::pass(kVjp).writes[I]) return Scalar<V>{&value[I], data[I] != nullptr};
    else return Scalar<const V>{&value[I]};
  }

  template <bool kReverse, int... I>
  REPARAM_HD void run_body(Indices<I...>) {
    if constexpr (requires { Op::attributes; }) {
      if constexpr (kReverse) Op::template vjp<V>(attributes, view<I>()...);
      else Op::template forward<V>(attributes, view<I>()...);
    } else {
      if constexpr (kReverse) Op::template vjp<V>(view<I>()...);
      else Op::template forward<V>(view<I>()...);
    }
  }

  REPARAM_HD void compute(bool wants_values) {
    using Plan = BodyOperands<Op, kVjp>;
    if constexpr (Plan::separate_values)
      if (wants_values) run_body<false>(typename Plan::Forward{});
    run_body<kVjp>(typename Plan::Own{});
  }

  template <int... I>
  REPARAM_HD void row(int64_t length, bool wants_values, Indices<I...>) {
    for (int64_t at = 0; at < length; at += W) {
      const int count = static_cast<int>(length - at < W ? length - at : W);
      (load<I>(at, count), ...);
      compute(wants_values);
      (store<I>(at, count), ...);
    }
  }

  REPARAM_HD void run(int64_t first, int64_t end) {
    const int last = call.rank - 1;
    const bool wants_values = any_value_wanted<Op, kVjp>(call);
    for (int64_t event = first; event < end;) {
      int64_t length = end - event, offset[kCount] = {}, rest = event;
      for (int k = last; k >= 0; --k) {
        const int64_t outer = k ? rest / call.shape[k] : 0, index = rest - outer * call.shape[k];
        if (k == last && call.shape[k] - index < length) length = call.shape[k] - index;
        for (int i = 0; i < kCount; ++i) offset[i] += index * call.operand[i].batch_stride[k];
        rest = outer;
      }
      for (int i = 0; i < kCount; ++i) {
        const OperandData& operand = call.operand[i];
        const int64_t size = operand.drawn ? sizeof(uint64_t) : sizeof(T);
        data[i] = operand.data ? reinterpret_cast<T*>(operand.data + offset[i] * size) : nullptr;
        step[i] = last < 0 ? 0 : call.operand[i].batch_stride[last];
      }
      row(length, wants_values, indices<kCount>{});
      event += length;
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
