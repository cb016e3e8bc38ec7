// SPDX-License-Identifier: MIT
// KL(N(loc, L L^T) || N(0, I)) = (|L|_F^2 + |loc|^2 - d)/2 - sum_i log L_ii.
// Cost d^2 flops and d logarithms, d(d+3)/2 elements moved.   vjp: loc: ct loc;  L: ct (L - diag(1/L_ii)).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_kl_standard {
  static constexpr auto signature = "(d),tril(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] + 20.0); }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> loc, Tril<const V> scale_tril,  // inputs
                                 Scalar<V> kl) {                                   // outputs
    const V squares = square_norm<V>(triangle(d), Vec<const V>{scale_tril.first}) + square_norm<V>(d, loc);
    kl() = mul_add(constant<V>(0.5), squares - constant<V>(static_cast<double>(d)), -log_det<V>(d, scale_tril));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> loc, Tril<const V> scale_tril,  // inputs
                             Scalar<const V> ct_kl,                            // output cotangents
                             Vec<V> ct_loc, Tril<V> ct_scale_tril) {           // input cotangents
    const V ct = ct_kl() + poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = 0; i < d; ++i) ct_loc[i] = ct * loc[i];
    if (!ct_scale_tril.wanted) return;
    for (int64_t k = 0; k < triangle(d); ++k) ct_scale_tril.first[k] = ct * scale_tril.first[k];
    for (int64_t i = 0; i < d; ++i) ct_scale_tril(i, i) = ct_scale_tril(i, i) - ct / scale_tril(i, i);
  }
};

}  // namespace reparam::REPARAM_ARCH
