// SPDX-License-Identifier: MIT
// The head of an encoder: L = tril_from_vector(vector), value = loc + L noise, and its own log density
//   log_prob = -|noise|^2/2 - sum_i log L_ii - d log(2 pi)/2
// L lives in the scratch alone. NaN in the event unless every L_ii > 0. Where L_ii = exp(v_ii), log L_ii is the entry
// itself. Cost 3 d^2/2 flops and d or 2 d transcendental functions, d(d+7)/2 elements moved.
// vjp: noise: L^T ct_value - ct_log_prob noise;  loc: ct_value;  vector: that of tril_from_vector at
//   tril(ct_value noise^T), less ct_log_prob d log L_ii/dv_ii.
#pragma once
#include "normal_tril_transform.hpp"
#include "scale_map.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_vector_transform_and_log_prob {
  static constexpr auto signature = "(d)~,(d),vec(d)->(d),()";
  static constexpr auto attributes = tril_from_vector::attributes;
  static constexpr bool vjp_gives_values = true;  // both need L
  static constexpr bool takes_team = true;
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (1.5 * n[0] + 40); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return triangle(n[0]); }

  template <class V>
  REPARAM_HD static Tril<const V> make_scale_tril(int64_t d, const double* attribute, Tril<const V> vector,
                                                  Vec<V> scratch) {
    tril_from_vector::forward<V>(d, attribute, vector, Tril<V>{scratch.first});
    sync_team();
    return {scratch.first};
  }

  template <class V>
  REPARAM_HD static void values(int64_t d, const double* attribute, Vec<const V> noise, Vec<const V> loc,
                                Tril<const V> vector, Tril<const V> scale_tril, Vec<V> value, Scalar<V> log_prob) {
    normal_tril_transform::forward<V>(d, noise, loc, scale_tril, value);
    V log_det = first_of_team(poison_unless_positive<V>(d, scale_tril) + constant<V>(d * kHalfLog2Pi));
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      log_det = log_det + log_scale_of(attribute, vector(i, i), scale_tril(i, i));
    log_prob() = -mul_add(constant<V>(0.5), square_norm<V>(d, noise), sum_of_team(log_det));
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, const double* attribute, Vec<V> scratch, Vec<const V> noise, Vec<const V> loc,
                                 Tril<const V> vector,                // inputs
                                 Vec<V> value, Scalar<V> log_prob) {  // outputs
    const auto scale_tril = make_scale_tril<V>(d, attribute, vector, scratch);
    values<V>(d, attribute, noise, loc, vector, scale_tril, value, log_prob);
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, const double* attribute, Vec<V> scratch, Vec<const V> noise, Vec<const V> loc,
                             Tril<const V> vector,                                 // inputs
                             Vec<const V> ct_value, Scalar<const V> ct_log_prob,   // output cotangents
                             Vec<V> value, Scalar<V> log_prob,                     // outputs
                             Vec<V> ct_noise, Vec<V> ct_loc, Tril<V> ct_vector) {  // input cotangents
    const auto scale_tril = make_scale_tril<V>(d, attribute, vector, scratch);
    if (value.wanted || log_prob.wanted) values<V>(d, attribute, noise, loc, vector, scale_tril, value, log_prob);
    normal_tril_transform::vjp<V>(d, noise, loc, scale_tril, ct_value, ct_noise, ct_loc, ct_vector);
    const V minus = -ct_log_prob();
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_noise[i] = mul_add(minus, noise[i], ct_noise[i]);
    if (!ct_vector.wanted) return;
    tril_from_vector::vjp<V>(d, attribute, vector, Tril<const V>{ct_vector.first}, ct_vector);  // row by row, in place
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      ct_vector(i, i) = mul_add(minus, log_slope_of(attribute, vector(i, i), scale_tril(i, i)), ct_vector(i, i));
  }
};

}  // namespace reparam::REPARAM_ARCH
