// SPDX-License-Identifier: MIT
// KL(N(loc, diag(s^2)) || N(0, I)) = (|s|^2 + |loc|^2 - d)/2 - sum_i log s_i.   vjp: loc: ct loc;  s: ct (s - 1/s).
// Cost 4 d flops and d logarithms, 2 d elements moved.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_kl_standard {
  static constexpr auto signature = "(d),(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return 24.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                                 Scalar<V> kl) {                                  // outputs
    const V squares = square_norm<V>(d, scale_diag) + square_norm<V>(d, loc);
    kl() = mul_add(constant<V>(0.5), squares - constant<V>(static_cast<double>(d)), -log_det<V>(d, scale_diag));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                             Scalar<const V> ct_kl,                           // output cotangents
                             Vec<V> ct_loc, Vec<V> ct_scale_diag) {           // input cotangents
    const V ct = ct_kl() + poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) {
      ct_loc[i] = ct * loc[i];
      ct_scale_diag[i] = ct * (scale_diag[i] - constant<V>(1) / scale_diag[i]);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
