// SPDX-License-Identifier: MIT
// log N(value | loc, diag(s^2)), s = scale_diag:  y = (value - loc)/s;  log_prob = -|y|^2/2 - sum_i log s_i - d log(2
// pi)/2. Cost 20 d flops and a logarithm, 3 d elements moved.   vjp: value: -y/s,  loc: y/s,  s: (y^2 - 1)/s, all times
// ct.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_log_prob {
  static constexpr auto signature = "(d),(d),(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return 30.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> value, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                                 Scalar<V> log_prob) {                                                // outputs
    V squares = constant<V>(0);
    for (int64_t i = 0; i < d; ++i) {
      const V y = (value[i] - loc[i]) / scale_diag[i];
      squares = mul_add(y, y, squares);
    }
    log_prob() = -(mul_add(constant<V>(0.5), squares, log_det<V>(d, scale_diag)) + constant<V>(d * kHalfLog2Pi));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> value, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                             Scalar<const V> ct_log_prob,                                         // output cotangents
                             Vec<V> ct_value, Vec<V> ct_loc, Vec<V> ct_scale_diag) {              // input cotangents
    const V ct = ct_log_prob() + poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) {
      const V inverse = constant<V>(1) / scale_diag[i], y = (value[i] - loc[i]) * inverse, slope = ct * inverse;
      ct_loc[i] = slope * y;
      ct_value[i] = -ct_loc[i];
      ct_scale_diag[i] = slope * mul_add(y, y, constant<V>(-1));
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
