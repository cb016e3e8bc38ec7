// SPDX-License-Identifier: MIT
// elbo_*_linear_gaussian: prior N(0, I), x | z ~ N(weight z + bias, noise_scale^2 I).
//   log p(x, z) = -|z|^2/2 - |r|^2/2 - n log noise_scale - (n + d) log(2 pi)/2,  r = (x - weight z - bias)/noise_scale
//   g = -z + weight^T r / noise_scale.   4 n d flops per draw.
#pragma once
#include "elbo.hpp"

namespace reparam::REPARAM_ARCH {

template <template <class> class Family>
struct ElboLinearGaussian {
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (2 * n[1] + 4 * n[2] + 45); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return n[0] + 2 * n[1] + 2 * (n[1] + triangle(n[1])); }

  template <class V, class N, class Noise, class Weight>
  REPARAM_HD static void forward(N draws, N d, N n, Vec<V> scratch, Noise noise, Vec<const V> loc,
                                 typename Family<V>::Input scale, Vec<const V> x, Weight weight, Vec<const V> bias,
                                 Scalar<const V> noise_scale,                                    // inputs
                                 Vec<V> log_weights, Scalar<V> value, Scalar<V> standard_error,  // outputs
                                 Vec<V> ct_loc, typename Family<V>::Output ct_scale) {
    const Vec<V> log_prob = scratch, z{scratch.first + draws}, grad{z.first + d};
    ElboSums<V, Family> sums(draws, d, scale, grad.first + d,
                             {log_weights, value, standard_error, ct_loc, ct_scale.first});
    const V sigma = positive(noise_scale()), inverse = constant<V>(1) / sigma, half = constant<V>(0.5);
    const V normalizer = mul_add(constant<V>(static_cast<double>(n)), log(sigma), constant<V>((n + d) * kHalfLog2Pi));
    for (int64_t s = 0; s < draws; ++s) {
      const Vec<const V> e = noise.row(s);
      for (int64_t i = 0; i < d; ++i) z[i] = loc[i];
      Family<V>::transform(d, scale, e, z);
      for (int64_t i = 0; i < d; ++i) grad[i] = -z[i];
      V squares = square_norm<V>(d, as_const(z));
      for (int64_t k = 0; k < n; ++k) {
        const Vec<const V> w = weight.row(k);
        V r = x[k] - bias[k];
        for (int64_t i = 0; i < d; ++i) r = mul_add(-w[i], z[i], r);
        r = r * inverse;
        squares = mul_add(r, r, squares);
        const V pull = r * inverse;
        for (int64_t i = 0; i < d; ++i) grad[i] = mul_add(w[i], pull, grad[i]);
      }
      log_prob[s] = -mul_add(half, squares, normalizer);
      sums.add(s, e, log_prob[s], as_const(grad));
    }
    sums.finish(scale, as_const(log_prob));
  }
};

}  // namespace reparam::REPARAM_ARCH
