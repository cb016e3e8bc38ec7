// SPDX-License-Identifier: MIT
// Unconstrained vector (lower triangle, row-major) to a scale_tril:
//   L_ii = s_i = f(v_ii) + floor, f = exp or softplus;   L_ij = v_ij, or s_i v_ij with `row_scaled` (diag(s) times unit
//   lower)
// Cost d transcendental functions, d(d+1)/2 + d^2 elements moved.
// vjp: v_ij: ct_ij (s_i ct_ij);   v_ii: f'(v_ii) (ct_ii + [row_scaled] sum_j ct_ij v_ij).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct tril_from_vector {
  static constexpr auto signature = "vec(d)->tril(d)";
  static constexpr auto attributes = "diagonal,floor,row_scaled";
  static constexpr bool takes_team = true;  // of whom one has rows rank, rank + kTeam, ...
  static REPARAM_HD double flops(const int64_t* n) { return 30.0 * n[0] + n[0] * n[0]; }

  template <class V>
  REPARAM_HD static V scale_of(const double* attribute, V v) {
    return (attribute[0] == 0 ? exp(v) : softplus(v)) + constant<V>(attribute[1]);
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, const double* attribute, Tril<const V> vector,  // inputs
                                 Tril<V> scale_tril) {                                // outputs
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      const V scale = scale_of(attribute, vector(i, i)), factor = attribute[2] != 0 ? scale : constant<V>(1);
      for (int64_t j = 0; j < i; ++j) scale_tril(i, j) = vector(i, j) * factor;
      scale_tril(i, i) = scale;
    }
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, const double* attribute, Tril<const V> vector,  // inputs
                             Tril<const V> ct_scale_tril,                         // output cotangents
                             Tril<V> ct_vector) {                                 // input cotangents
    for (int64_t i = rank_in_team(); i < d; i += kTeam) {
      const V v = vector(i, i), slope = attribute[0] == 0 ? exp(v) : sigmoid(v);
      V ct_scale = ct_scale_tril(i, i), factor = constant<V>(1);
      if (attribute[2] != 0) {
        factor = scale_of(attribute, v);
        for (int64_t j = 0; j < i; ++j) ct_scale = mul_add(ct_scale_tril(i, j), vector(i, j), ct_scale);
      }
      for (int64_t j = 0; j < i; ++j) ct_vector(i, j) = ct_scale_tril(i, j) * factor;
      ct_vector(i, i) = ct_scale * slope;
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
