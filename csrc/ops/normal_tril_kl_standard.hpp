// SPDX-License-Identifier: MIT
// KL(N(loc, L L^T) || N(0, I)) = (|L|_F^2 + |loc|^2 - d)/2 - sum_i log L_ii
//   = sum_i h(L_ii) + sum_{i>j} L_ij^2/2 + |loc|^2/2,   h(r) = (r^2 - 1)/2 - log r >= 0 (normal_diag_kl)
// Never negative; relative error <= (16 + d^2) u, near N(0, I) too. vjp: loc: ct loc;  L: ct (L - diag(1/L_ii)).
// Cost d^2 + 20 d flops, d divisions and d logarithms, d(d+3)/2 elements moved.
#pragma once
#include "normal_diag_kl_standard.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_kl_standard {
  static constexpr auto signature = "(d),tril(d)->()";
  static constexpr bool takes_team = true;
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] + 45.0); }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> loc, Tril<const V> scale_tril,  // inputs
                                 Scalar<V> kl) {                                   // outputs
    V squares = first_of_team(square_norm<V>(d, loc)), terms = first_of_team(poison_unless_positive<V>(d, scale_tril));
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      const Ptr<const V> row = scale_tril.row(i);
      for (int64_t j = 0; j < i; ++j) squares = mul_add(row[j], row[j], squares);
      terms = terms + normal_diag_kl_standard::scale_term(row[i]);
    }
    kl() = sum_of_team(mul_add(constant<V>(0.5), squares, terms));
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> loc, Tril<const V> scale_tril,  // inputs
                             Scalar<const V> ct_kl,                            // output cotangents
                             Vec<V> ct_loc, Tril<V> ct_scale_tril) {           // input cotangents
    const V ct = ct_kl() + poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_loc[i] = ct * loc[i];
    if (!ct_scale_tril.wanted) return;
    for (int64_t k = rank_in_team(); k < triangle(d); k += kTeam) ct_scale_tril.first[k] = ct * scale_tril.first[k];
    sync_team();
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      ct_scale_tril(i, i) = ct * normal_diag_kl_standard::scale_slope(scale_tril(i, i));
  }
};

}  // namespace reparam::REPARAM_ARCH
