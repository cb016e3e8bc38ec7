// SPDX-License-Identifier: MIT
// The inverse of tril_from_vector: lower factor to unconstrained vector (lower triangle, row-major),
//   v_ii = f^-1(L_ii - floor), f = exp or softplus;   v_ij = L_ij, or L_ij/L_ii with `row_scaled`.
// NaN in the event unless every L_ii > floor. |error| of v_ii <= 2 u (1 + |v_ii|), of its slope 2 u relative.
// Cost d logarithms (softplus: and exponentials), d(d+1)/2 + d^2 elements moved.
// vjp: L_ij: ct_ij (ct_ij/L_ii);   L_ii: ct_ii / f'(v_ii) - [row_scaled] sum_j ct_ij L_ij/L_ii^2.
#pragma once
#include "scale_map.hpp"

namespace reparam::REPARAM_ARCH {

struct vector_from_tril {
  static constexpr auto signature = "tril(d)->vec(d)";
  static constexpr auto attributes = tril_from_vector::attributes;
  static constexpr bool takes_team = true;  // of whom one has rows rank, rank + kTeam, ...
  static REPARAM_HD double flops(const int64_t* n) { return 50.0 * n[0] + n[0] * n[0]; }

  template <class V>
  REPARAM_HD static V above_floor(const double* attribute, V scale) {
    return scale - constant<V>(attribute[1]);
  }

  template <class V>
  REPARAM_HD static V poison(int64_t d, const double* attribute, Tril<const V> scale_tril) {
    V sum = constant<V>(0);
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      sum = select(above_floor(attribute, scale_tril(i, i)) > constant<V>(0), sum, quiet_nan<V>());
    return sum_of_team(sum);
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, const double* attribute, Tril<const V> scale_tril,  // inputs
                                 Tril<V> vector) {                                        // outputs
    const V bad = poison<V>(d, attribute, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      const V scale = scale_tril(i, i), factor = attribute[2] != 0 ? scale : constant<V>(1);
      for (int64_t j = 0; j < i; ++j) vector(i, j) = scale_tril(i, j) / factor + bad;
      vector(i, i) = entry_of(attribute, above_floor(attribute, scale)) + bad;
    }
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, const double* attribute, Tril<const V> scale_tril,  // inputs
                             Tril<const V> ct_vector,                                 // output cotangents
                             Tril<V> ct_scale_tril) {                                 // input cotangents
    const V bad = poison<V>(d, attribute, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      const V scale = scale_tril(i, i), factor = attribute[2] != 0 ? scale : constant<V>(1);
      V ct = ct_vector(i, i) * entry_slope_of(attribute, above_floor(attribute, scale));
      for (int64_t j = 0; j < i; ++j) {
        ct_scale_tril(i, j) = ct_vector(i, j) / factor + bad;
        if (attribute[2] != 0) ct = ct - ct_scale_tril(i, j) * scale_tril(i, j) / scale;
      }
      ct_scale_tril(i, i) = ct + bad;
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
