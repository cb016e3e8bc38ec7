// SPDX-License-Identifier: MIT
// One ascent step along the natural gradient of N(loc, diag(scale)^2), the diagonal of normal_tril_natural_step:
//   u = a scale g, |u| <= 1;   A = a scale G / 2, |A| <= 1/2;   new_loc = loc + scale u;   new_scale = scale exp(A)
// a = step_size, g and G the gradient in loc and scale. NaN unless every scale > 0 and the gradient is finite.
#pragma once
#include "natural_step.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_natural_step {
  static constexpr auto signature = "(d),(d),(d),(d)->(d),(d)";
  static constexpr auto attributes = "step_size";
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t* n) { return 50.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, const double* attribute, Vec<const V> loc, Vec<const V> scale_diag,
                                 Vec<const V> grad_loc, Vec<const V> grad_scale_diag,  // inputs
                                 Vec<V> new_loc, Vec<V> new_scale_diag) {              // outputs
    const V a = constant<V>(attribute[0]), half = constant<V>(0.5), poison = poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) new_loc[i] = a * (scale_diag[i] * grad_loc[i]);
    for (int64_t i = 0; i < d; ++i) new_scale_diag[i] = a * (half * (scale_diag[i] * grad_scale_diag[i]));
    V shorter = clip_factor<V>(d, new_loc.first, kLongestMove);
    V smaller = clip_factor<V>(d, new_scale_diag.first, kLongestChange);
    const V bad = poison + (shorter - shorter) + (smaller - smaller);
    shorter = shorter + bad, smaller = smaller + bad;
    for (int64_t i = 0; i < d; ++i) {
      new_loc[i] = mul_add(scale_diag[i], shorter * new_loc[i], loc[i]);
      new_scale_diag[i] = scale_diag[i] * exp(smaller * new_scale_diag[i]);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
