// SPDX-License-Identifier: MIT
// How a packing calls the body of an op: extents, then attributes and scratch where the op has them, then its operands.
#pragma once
#include "call.hpp"
#include "operand.hpp"

namespace reparam::REPARAM_ARCH {

// `Packing` has `call`, `attributes`, `scratch` and `view<I>()`, which gives operand I as the body sees it.
template <class Packing, class Op, class V, bool kVjp, class N>
struct Body {
  using Pass = PassOf<Op, kVjp>;
  static constexpr int kCount = Pass::count();

  static REPARAM_HD int64_t scratch_values(const Call& call) {
    if constexpr (requires { Op::scratch_values(call.extent); }) return Op::scratch_values(call.extent);
    else return 0;
  }

  REPARAM_HD void compute(bool wants_values) {
    using Plan = BodyOperands<Op, kVjp>;
    if constexpr (Plan::separate_values)
      if (wants_values) run<false>(typename Plan::Forward{});
    run<kVjp>(typename Plan::Own{});
  }

 private:
  REPARAM_HD Packing& packing() { return static_cast<Packing&>(*this); }

  template <bool kReverse, int... S, class... Rest>
  REPARAM_HD void call_body(Indices<S...>, Rest... rest) {
    const int64_t* extent = packing().call.extent;
    if constexpr (kReverse) Op::template vjp<V>(N(extent[S])..., rest...);
    else Op::template forward<V>(N(extent[S])..., rest...);
  }

  template <bool kReverse, int... I>
  REPARAM_HD void run(Indices<I...>) {
    constexpr indices<Pass::spec().symbols> extents;
    constexpr bool has_attributes = requires { Op::attributes; };
    constexpr bool has_scratch = requires(const int64_t* n) { Op::scratch_values(n); };
    Packing& p = packing();
    if constexpr (has_attributes && has_scratch)
      call_body<kReverse>(extents, p.attributes, Vec<V>{p.scratch}, p.template view<I>()...);
    else if constexpr (has_attributes) call_body<kReverse>(extents, p.attributes, p.template view<I>()...);
    else if constexpr (has_scratch) call_body<kReverse>(extents, Vec<V>{p.scratch}, p.template view<I>()...);
    else call_body<kReverse>(extents, p.template view<I>()...);
  }
};

// An operand that is not read in rows, at `p`.
template <OperandSpec kSpec, bool kWritten, class Value, class P>
REPARAM_HD auto view_of(P p, bool wanted) {
  if constexpr (kWritten) {
    if constexpr (kSpec.kind == Kind::scalar) return Scalar<Value>{&*p, wanted};
    else if constexpr (kSpec.kind == Kind::vector) return Vec<Value>{p, wanted};
    else return Tril<Value>{p, wanted};
  } else {
    if constexpr (kSpec.kind == Kind::scalar) return Scalar<const Value>{&*p};
    else if constexpr (kSpec.kind == Kind::vector) return Vec<const Value>{p};
    else return Tril<const Value>{p};
  }
}

}  // namespace reparam::REPARAM_ARCH
