// SPDX-License-Identifier: MIT
// KL(N(loc, diag(s^2)) || N(0, I)) = sum_i h(s_i) + |loc|^2/2, h(r) = (r^2 - 1)/2 - log r >= 0 (normal_diag_kl).
// Never negative; relative error <= (16 + d) u, near N(0, I) too. vjp: loc: ct loc;  s: ct (s - 1/s).
// Cost 20 d flops, d divisions and d logarithms, 2 d elements moved.
#pragma once
#include "normal_diag_kl.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_kl_standard {
  static constexpr auto signature = "(d),(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return 45.0 * n[0]; }

  template <class V>
  REPARAM_HD static V scale_term(V scale) {
    return normal_diag_kl::scale_term(scale, constant<V>(1));
  }

  template <class V>
  REPARAM_HD static V scale_slope(V scale) {  // s - 1/s, which cancel near 1; no product that overflows before it
    const V e = scale - constant<V>(1);
    return e / scale * (constant<V>(2) + e);
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                                 Scalar<V> kl) {                                  // outputs
    V sum = poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) sum = sum + mul_add(constant<V>(0.5) * loc[i], loc[i], scale_term(scale_diag[i]));
    kl() = sum;
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                             Scalar<const V> ct_kl,                           // output cotangents
                             Vec<V> ct_loc, Vec<V> ct_scale_diag) {           // input cotangents
    const V ct = ct_kl() + poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) {
      ct_loc[i] = ct * loc[i];
      ct_scale_diag[i] = ct * scale_slope(scale_diag[i]);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
