// SPDX-License-Identifier: MIT
// value = loc + L noise and its own log density under q = N(loc, L L^T), without a solve:
//   log_prob = -|noise|^2/2 - sum_i log L_ii - d log(2 pi)/2
// Cost d^2 + 15 d flops and a logarithm, d(d+7)/2 elements moved.
// vjp: noise: L^T ct_value - ct_log_prob noise;  loc: ct_value;  L: tril(ct_value noise^T) - ct_log_prob diag(1/L_ii).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_transform_and_log_prob {
  static constexpr auto signature = "(d)~,(d),tril(d)->(d),()";
  static constexpr bool shares_factor = true, takes_team = true;
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] + 20.0); }

  template <class V, class N, class L>
  REPARAM_HD static void forward(N d, Vec<const V> noise, Vec<const V> loc, L scale_tril,  // inputs
                                 Vec<V> value, Scalar<V> log_prob) {                       // outputs
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) value[i] = loc[i] + poison;
    sync_team();
    multiply_lower(d, scale_tril, noise, value);
    log_prob() = -(mul_add(constant<V>(0.5), square_norm<V>(d, noise), log_det<V>(d, scale_tril)) +
                   constant<V>(d * kHalfLog2Pi));
  }

  template <class V, class N, class L, class M>
  REPARAM_HD static void vjp(N d, Vec<const V> noise, Vec<const V> loc, L scale_tril,  // inputs
                             Vec<const V> ct_value, Scalar<const V> ct_log_prob,       // output cotangents
                             Vec<V> ct_noise, Vec<V> ct_loc, M ct_scale_tril) {        // input cotangents
    (void)loc;
    const V poison = poison_unless_positive<V>(d, scale_tril), minus = poison - ct_log_prob();
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      ct_noise[i] = minus * noise[i], ct_loc[i] = ct_value[i] + poison;
    sync_team();
    if (ct_noise.wanted) multiply_lower_transposed(d, scale_tril, as_const(ct_loc), ct_noise);
    if (!ct_scale_tril.wanted) return;
    outer_lower(d, as_const(ct_loc), noise, ct_scale_tril, [&](int64_t i) { return minus / scale_tril(i, i); });
  }
};

}  // namespace reparam::REPARAM_ARCH
