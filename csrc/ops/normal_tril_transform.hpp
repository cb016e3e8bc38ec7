// SPDX-License-Identifier: MIT
// value = loc + L noise, L = scale_tril. NaN in the event unless every L_ii > 0.
// Cost d^2 flops, d(d+7)/2 elements moved.
// vjp: noise: L^T ct;  loc: ct;  L: tril(ct noise^T).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_transform {
  static constexpr auto signature = "(d)~,(d),tril(d)->(d)";
  static constexpr bool shares_factor = true, takes_team = true;
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[0]; }

  template <class V, class N, class L>
  REPARAM_HD static void forward(N d, Vec<const V> noise, Vec<const V> loc, L scale_tril,  // inputs
                                 Vec<V> value) {                                           // outputs
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) value[i] = loc[i] + poison;
    sync_team();
    multiply_lower(d, scale_tril, noise, value);
  }

  template <class V, class N, class L, class M>
  REPARAM_HD static void vjp(N d, Vec<const V> noise, Vec<const V> loc, L scale_tril,  // inputs
                             Vec<const V> ct_value,                                    // output cotangents
                             Vec<V> ct_noise, Vec<V> ct_loc, M ct_scale_tril) {        // input cotangents
    (void)loc;
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_noise[i] = poison, ct_loc[i] = ct_value[i] + poison;
    sync_team();
    if (ct_noise.wanted) multiply_lower_transposed(d, scale_tril, as_const(ct_loc), ct_noise);
    if (!ct_scale_tril.wanted) return;
    outer_lower(d, as_const(ct_loc), noise, ct_scale_tril);
  }
};

}  // namespace reparam::REPARAM_ARCH
