// SPDX-License-Identifier: MIT
// log N(value | loc, L L^T), L = scale_tril:
//   y = L^-1 (value - loc);   log_prob = -|y|^2/2 - sum_i log L_ii - d log(2 pi)/2
// Cost d^2 + 15 d flops and a logarithm, d(d+5)/2 elements moved. |error| <= 8 d u max(1, |log_prob|) max(1,
// cond(L)/1e3). vjp: z = L^-T y;  value: -z,  loc: z,  L: tril(z y^T) - diag(1/L_ii), all times ct.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_log_prob {
  static constexpr auto signature = "(d),(d),tril(d)->()";
  static constexpr bool shares_factor = true, takes_team = true;
  static constexpr bool vjp_gives_values = true;                   // both need y
  static constexpr InPlace vjp_in_place{.input = 2, .output = 7};  // ct_scale_tril over scale_tril
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] + 20.0); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return n[0]; }

  template <class V, class L>
  REPARAM_HD static void whiten(int64_t d, Vec<const V> value, Vec<const V> loc, L scale_tril, Vec<V> y) {
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) y[i] = value[i] - loc[i] + poison;
    sync_team();
    solve_lower(d, scale_tril, y);
  }

  template <class V, class L>
  REPARAM_HD static V density(int64_t d, Vec<const V> y, L scale_tril) {
    return -(mul_add(constant<V>(0.5), square_norm<V>(d, y), log_det<V>(d, scale_tril)) + constant<V>(d * kHalfLog2Pi));
  }

  template <class V, class N, class L>
  REPARAM_HD static void forward(N d, Vec<V> y, Vec<const V> value, Vec<const V> loc, L scale_tril,  // inputs
                                 Scalar<V> log_prob) {                                               // outputs
    whiten<V>(d, value, loc, scale_tril, y);
    log_prob() = density<V>(d, as_const(y), scale_tril);
  }

  template <class V, class N, class L, class M>
  REPARAM_HD static void vjp(N d, Vec<V> y, Vec<const V> value, Vec<const V> loc, L scale_tril,  // inputs
                             Scalar<const V> ct_log_prob,                                        // output cotangents
                             Scalar<V> log_prob,                                                 // outputs
                             Vec<V> ct_value, Vec<V> ct_loc, M ct_scale_tril) {                  // input cotangents
    whiten<V>(d, value, loc, scale_tril, y);
    if (log_prob.wanted) log_prob() = density<V>(d, as_const(y), scale_tril);
    const V ct = ct_log_prob();
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_loc[i] = y[i];
    sync_team();
    solve_lower_transposed(d, scale_tril, ct_loc);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_loc[i] = ct * ct_loc[i], ct_value[i] = -ct_loc[i];
    sync_team();
    if (!ct_scale_tril.wanted) return;
    outer_lower(d, as_const(ct_loc), as_const(y), ct_scale_tril, [&](int64_t i) { return -ct / scale_tril(i, i); });
  }
};

}  // namespace reparam::REPARAM_ARCH
