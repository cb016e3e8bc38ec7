// SPDX-License-Identifier: MIT
// value = loc + s noise and its own log density: log_prob = -|noise|^2/2 - sum_i log s_i - d log(2 pi)/2.
// Cost 20 d flops and a logarithm, 4 d elements moved.
// vjp: noise: s ct_value - ct_log_prob noise;  loc: ct_value;  s: ct_value noise - ct_log_prob / s.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_transform_and_log_prob {
  static constexpr auto signature = "(d)~,(d),(d)->(d),()";
  static REPARAM_HD double flops(const int64_t* n) { return 24.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> noise, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                                 Vec<V> value, Scalar<V> log_prob) {                                  // outputs
    const V poison = poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) value[i] = mul_add(scale_diag[i], noise[i], loc[i]) + poison;
    log_prob() = -(mul_add(constant<V>(0.5), square_norm<V>(d, noise), log_det<V>(d, scale_diag)) +
                   constant<V>(d * kHalfLog2Pi));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> noise, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                             Vec<const V> ct_value, Scalar<const V> ct_log_prob,                  // output cotangents
                             Vec<V> ct_noise, Vec<V> ct_loc, Vec<V> ct_scale_diag) {              // input cotangents
    (void)loc;
    const V poison = poison_unless_positive<V>(d, scale_diag), minus = poison - ct_log_prob();
    for (int64_t i = 0; i < d; ++i) {
      const V ct = ct_value[i] + poison;
      ct_noise[i] = mul_add(ct, scale_diag[i], minus * noise[i]);
      ct_loc[i] = ct;
      ct_scale_diag[i] = mul_add(ct, noise[i], minus / scale_diag[i]);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
