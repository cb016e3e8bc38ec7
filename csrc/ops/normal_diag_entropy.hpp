// SPDX-License-Identifier: MIT
// Entropy of N(loc, diag(s^2)): sum_i log s_i + d (1 + log(2 pi))/2.   vjp: s: ct / s.
// Cost 15 d flops and a logarithm, d elements moved.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_entropy {
  static constexpr auto signature = "(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return 20.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> scale_diag,  // inputs
                                 Scalar<V> entropy) {           // outputs
    entropy() = log_det<V>(d, scale_diag) + constant<V>(d * (0.5 + kHalfLog2Pi));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> scale_diag,  // inputs
                             Scalar<const V> ct_entropy,    // output cotangents
                             Vec<V> ct_scale_diag) {        // input cotangents
    const V ct = ct_entropy() + poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) ct_scale_diag[i] = ct / scale_diag[i];
  }
};

}  // namespace reparam::REPARAM_ARCH
