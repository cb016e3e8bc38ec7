// SPDX-License-Identifier: MIT
// The head of an encoder with a diagonal scale: value = loc + s noise, s_i = f(vector_i) + floor, f = exp or softplus,
// and its own log density: log_prob = -|noise|^2/2 - sum_i log s_i - d log(2 pi)/2. NaN in the event unless every s_i >
// 0. Where s = exp(vector), log s is the entry itself. Cost 5 d flops and d or 2 d transcendental functions, 4 d
// elements moved. vjp: noise: s ct_value - ct_log_prob noise;  loc: ct_value;  vector: ct_value noise f' - ct_log_prob
// f'/s.
#pragma once
#include "normal_diag_transform.hpp"
#include "scale_map.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_vector_transform_and_log_prob {
  static constexpr auto signature = "(d)~,(d),(d)->(d),()";
  static constexpr auto attributes = "diagonal,floor";
  static REPARAM_HD double flops(const int64_t* n) { return 45.0 * n[0]; }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, const double* attribute, Vec<V> scale, Vec<const V> noise, Vec<const V> loc,
                                 Vec<const V> vector,                 // inputs
                                 Vec<V> value, Scalar<V> log_prob) {  // outputs
    V log_det = constant<V>(d * kHalfLog2Pi);
    for (int64_t i = 0; i < d; ++i) {
      scale[i] = scale_of(attribute, vector[i]);
      log_det = log_det + log_scale_of(attribute, vector[i], scale[i]);
    }
    normal_diag_transform::forward<V>(d, noise, loc, as_const(scale), value);
    log_prob() =
        poison_unless_positive<V>(d, as_const(scale)) - mul_add(constant<V>(0.5), square_norm<V>(d, noise), log_det);
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, const double* attribute, Vec<V> scale, Vec<const V> noise, Vec<const V> loc,
                             Vec<const V> vector,                                 // inputs
                             Vec<const V> ct_value, Scalar<const V> ct_log_prob,  // output cotangents
                             Vec<V> ct_noise, Vec<V> ct_loc, Vec<V> ct_vector) {  // input cotangents
    for (int64_t i = 0; i < d; ++i) scale[i] = scale_of(attribute, vector[i]);
    normal_diag_transform::vjp<V>(d, noise, loc, as_const(scale), ct_value, ct_noise, ct_loc, ct_vector);
    const V minus = -ct_log_prob();
    for (int64_t i = 0; i < d; ++i) {
      ct_noise[i] = mul_add(minus, noise[i], ct_noise[i]);
      ct_vector[i] =
          mul_add(ct_vector[i], slope_of(attribute, vector[i]), minus * log_slope_of(attribute, vector[i], scale[i]));
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
