// SPDX-License-Identifier: MIT
// elbo_*_linear_gaussian: prior N(0, I), x | z ~ N(weight z + bias, noise_scale^2 I).
//   log p(x, z) = -|z|^2/2 - |r|^2/2 - n log noise_scale - (n + d) log(2 pi)/2,  r = (x - weight z - bias)/noise_scale
//   g = -z + weight^T r / noise_scale.   4 n d flops per draw.
#pragma once
#include "elbo.hpp"

namespace reparam::REPARAM_ARCH {

template <class V, class Weight>
struct LinearGaussianTarget {
  int64_t d, n;
  Vec<const V> x, bias;
  Weight weight;
  V inverse, normalizer;

  REPARAM_HD LinearGaussianTarget(int64_t d_, int64_t n_, Vec<const V> x_, Weight weight_, Vec<const V> bias_,
                                  V noise_scale)
      : d(d_), n(n_), x(x_), bias(bias_), weight(weight_) {
    const V sigma = positive(noise_scale);
    inverse = constant<V>(1) / sigma;
    normalizer = mul_add(constant<V>(static_cast<double>(n)), log(sigma), constant<V>((n + d) * kHalfLog2Pi));
  }

  REPARAM_HD void evaluate(int64_t count, Vec<const V> z, Vec<V> grad, Vec<V> log_prob, bool wants_gradient) const {
    for (int64_t k = 0; k < count * d; ++k) grad[k] = -z[k];
    for (int64_t t = 0; t < count; ++t) log_prob[t] = square_norm<V>(d, Vec<const V>{z.first + t * d});
    for (int64_t k = 0; k < n; ++k) {
      const Vec<const V> w = weight.row(k);
      const V centred = x[k] - bias[k];
      for (int64_t t = 0; t < count; ++t) {
        const V* zt = z.first + t * d;
        V r = centred;
        for (int64_t i = 0; i < d; ++i) r = mul_add(-w[i], zt[i], r);
        r = r * inverse;
        log_prob[t] = mul_add(r, r, log_prob[t]);
        if (!wants_gradient) continue;
        const V pull = r * inverse;
        V* gt = grad.first + t * d;
        for (int64_t i = 0; i < d; ++i) gt[i] = mul_add(w[i], pull, gt[i]);
      }
    }
    for (int64_t t = 0; t < count; ++t) log_prob[t] = -mul_add(constant<V>(0.5), log_prob[t], normalizer);
  }
};

template <template <class> class Family>
struct ElboLinearGaussian {
  static constexpr bool has_vjp = false;
  static constexpr auto attributes = "estimator";
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (2 * n[1] + 4 * n[2] + 45); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return elbo_fused_values(n[0], n[1]); }

  template <class V, class N, class Noise, class Weight>
  REPARAM_HD static void forward(N draws, N d, N n, const double* attribute, Vec<V> scratch, Noise noise,
                                 Vec<const V> loc, typename Family<V>::Input scale, Vec<const V> x, Weight weight,
                                 Vec<const V> bias,
                                 Scalar<const V> noise_scale,                                    // inputs
                                 Vec<V> log_weights, Scalar<V> value, Scalar<V> standard_error,  // outputs
                                 Vec<V> ct_loc, typename Family<V>::Output ct_scale) {
    const LinearGaussianTarget<V, Weight> target(d, n, x, weight, bias, noise_scale());
    const bool wants_gradient = ct_loc.wanted || ct_scale.wanted;
    run_elbo<V, Family>(draws, d, attribute, scratch, noise, loc, scale, target,
                        {log_weights, value, standard_error, ct_loc, ct_scale.first, wants_gradient});
  }
};

}  // namespace reparam::REPARAM_ARCH
