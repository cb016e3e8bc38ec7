// SPDX-License-Identifier: MIT
// Entropy of N(loc, L L^T): sum_i log L_ii + d (1 + log(2 pi))/2.
// Cost 15 d flops and a logarithm, d(d+1)/2 elements moved.   vjp: L: ct diag(1/L_ii).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_entropy {
  static constexpr auto signature = "tril(d)->()";
  static constexpr bool takes_team = true;
  static REPARAM_HD double flops(const int64_t* n) { return 20.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Tril<const V> scale_tril,  // inputs
                                 Scalar<V> entropy) {            // outputs
    entropy() = log_det<V>(d, scale_tril) + constant<V>(d * (0.5 + kHalfLog2Pi));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Tril<const V> scale_tril,  // inputs
                             Scalar<const V> ct_entropy,     // output cotangents
                             Tril<V> ct_scale_tril) {        // input cotangents
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t k = rank_in_team(); k < triangle(d); k += kTeam) ct_scale_tril.first[k] = poison;
    sync_team();
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      ct_scale_tril(i, i) = (ct_entropy() + poison) / scale_tril(i, i);
  }
};

}  // namespace reparam::REPARAM_ARCH
