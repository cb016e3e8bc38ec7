// SPDX-License-Identifier: MIT
// x = L^-1 b, or L^-T b with `transpose`. NaN in the event unless every L_ii > 0.
// Cost d^2 flops, d(d+5)/2 elements moved. Residual |b - L x| <= 3 d u |L| |x|.
// vjp: b: w = L^-T ct (L^-1 ct); L: -tril(w x^T) (-tril(x w^T)).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct tril_solve {
  static constexpr auto signature = "tril(d),(d)->(d)";
  static constexpr bool shares_factor = true, takes_team = true;
  static constexpr auto attributes = "transpose";
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[0]; }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return n[0]; }

  template <class V, class N, class L>
  REPARAM_HD static void forward(N d, const double* attribute, Vec<V>, L scale_tril,
                                 Vec<const V> b,  // inputs
                                 Vec<V> x) {      // outputs
    const V poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) x[i] = b[i] + poison;
    sync_team();
    if (attribute[0] != 0) solve_lower_transposed(d, scale_tril, x);
    else solve_lower(d, scale_tril, x);
  }

  template <class V, class N, class L, class M>
  REPARAM_HD static void vjp(N d, const double* attribute, Vec<V> x, L scale_tril,
                             Vec<const V> b,                  // inputs
                             Vec<const V> ct_x,               // output cotangents
                             M ct_scale_tril, Vec<V> ct_b) {  // input cotangents
    const V poison = poison_unless_positive<V>(d, scale_tril);
    const bool transpose = attribute[0] != 0;
    for (int64_t i = rank_in_team(); i < d; i += kTeam) x[i] = -b[i] + poison, ct_b[i] = ct_x[i] + poison;
    sync_team();
    if (transpose) solve_lower(d, scale_tril, ct_b);
    else solve_lower_transposed(d, scale_tril, ct_b);
    if (!ct_scale_tril.wanted) return;
    if (transpose) {
      solve_lower_transposed(d, scale_tril, x);
      outer_lower(d, as_const(x), as_const(ct_b), ct_scale_tril);
    } else {
      solve_lower(d, scale_tril, x);
      outer_lower(d, as_const(ct_b), as_const(x), ct_scale_tril);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
