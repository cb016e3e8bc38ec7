// SPDX-License-Identifier: MIT
// elbo_*_gaussian: log p(z) = log N(z | target_loc, M M^T), M = target_scale_tril.
//   y = M^-1 (z - target_loc);   log p = -|y|^2/2 - sum_i log M_ii - d log(2 pi)/2;   g = -M^-T y.   2 d^2 flops per
//   draw.
#pragma once
#include "elbo.hpp"

namespace reparam::REPARAM_ARCH {

template <class V>
struct GaussianTarget {
  int64_t d;
  Vec<const V> loc;
  Tril<const V> scale_tril;
  V normalizer, poison;

  REPARAM_HD GaussianTarget(int64_t d_, Vec<const V> loc_, Tril<const V> scale_tril_)
      : d(d_),
        loc(loc_),
        scale_tril(scale_tril_),
        normalizer(log_det<V>(d_, scale_tril_) + constant<V>(d_ * kHalfLog2Pi)),
        poison(poison_unless_positive<V>(d_, scale_tril_)) {}

  REPARAM_HD void evaluate(int64_t count, Vec<const V> z, Vec<V> grad, Vec<V> log_prob, bool wants_gradient) const {
    for (int64_t t = 0; t < count; ++t) {
      const Vec<V> y{grad.first + t * d};
      for (int64_t i = rank_in_team(); i < d; i += kTeam) y[i] = loc[i] - z[t * d + i] + poison;
      sync_team();
      solve_lower(d, scale_tril, y);
      const V log_density = -mul_add(constant<V>(0.5), square_norm<V>(d, as_const(y)), normalizer);
      if (rank_in_team() == 0) log_prob[t] = log_density;
      if (wants_gradient) solve_lower_transposed(d, scale_tril, y);
    }
    sync_team();
  }
};

template <template <class> class Family>
struct ElboGaussian {
  static constexpr bool has_vjp = false;
  static constexpr auto attributes = "estimator";
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (4 * n[1] + 45); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return fused_values<Family>(n[0], n[1]); }

  template <class V, class N, class Noise>
  REPARAM_HD static void forward(N draws, N d, const double* attribute, Vec<V> scratch, Noise noise, Vec<const V> loc,
                                 typename Family<V>::Input scale, Vec<const V> target_loc,
                                 Tril<const V> target_scale_tril,                                // inputs
                                 Vec<V> log_weights, Scalar<V> value, Scalar<V> standard_error,  // outputs
                                 Vec<V> ct_loc, typename Family<V>::Output ct_scale) {
    const GaussianTarget<V> target(d, target_loc, target_scale_tril);
    const bool wants_gradient = ct_loc.wanted || ct_scale.wanted;
    run_elbo<V, Family>(draws, d, attribute, scratch, noise, loc, scale, target,
                        {log_weights, value, standard_error, ct_loc, ct_scale.first, wants_gradient});
  }
};

}  // namespace reparam::REPARAM_ARCH
