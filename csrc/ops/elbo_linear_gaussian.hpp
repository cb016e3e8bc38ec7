// SPDX-License-Identifier: MIT
// elbo_*_linear_gaussian: prior N(0, I), x | z ~ N(weight z + bias, noise_scale^2 I).
//   log p(x, z) = -|z|^2/2 - |r|^2/2 - n log noise_scale - (n + d) log(2 pi)/2,  r = (x - weight z - bias)/noise_scale
//   g = -z + weight^T r / noise_scale.   4 n d flops per draw.
#pragma once
#include "elbo.hpp"
#include "elbo_tiles.hpp"

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

  // Rows k .. k + M of the data for all draws.
  template <int M>
  REPARAM_HD void add_rows(int64_t k, int64_t count, Vec<const V> z, Vec<V> grad, Vec<V> log_prob,
                           bool wants_gradient) const {
    Ptr<const V> w[M];
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) w[m] = weight.row(k + m).first;
    int64_t t = 0;
    for (; t + kTogether <= count; t += kTogether) add_draws<M, kTogether>(k, t, w, z, grad, log_prob, wants_gradient);
    for (; t < count; ++t) add_draws<M, 1>(k, t, w, z, grad, log_prob, wants_gradient);
  }

  template <int M, int R>
  REPARAM_HD void add_draws(int64_t k, int64_t t, const Ptr<const V> (&w)[M], Vec<const V> z, Vec<V> grad,
                            Vec<V> log_prob, bool wants_gradient) const {
    V eta[M][R];  // w . z + bias - x, then what it pulls at
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) eta[m][r] = first_of_team(bias[k + m] - x[k + m]);
    add_products<M, R>(d, w, z.first + t * d, eta);
    if constexpr (kTeam > 1) {
      meet_in_team<M, R>(eta, log_prob.first + t, [&](int, int, V& pull) {
        const V residual = pull * inverse;
        pull = -residual * inverse;
        return residual * residual;
      });
    } else {
      REPARAM_UNROLL
      for (int m = 0; m < M; ++m) REPARAM_UNROLL
      for (int r = 0; r < R; ++r) {
        const V residual = eta[m][r] * inverse;
        log_prob[t + r] = mul_add(residual, residual, log_prob[t + r]);
        eta[m][r] = -residual * inverse;
      }
    }
    if (wants_gradient) add_gradients<M, R>(d, w, eta, grad.first + t * d);
  }

  REPARAM_HD void evaluate(int64_t count, Vec<const V> z, Vec<V> grad, Vec<V> log_prob, bool wants_gradient) const {
    for (int64_t k = rank_in_team(); k < count * d; k += kTeam) grad[k] = -z[k];
    for (int64_t t = 0; t < count; ++t) {
      const V squares = square_norm<V>(d, Vec<const V>{z.first + t * d});
      if (rank_in_team() == 0) log_prob[t] = squares;
    }
    sync_team();
    int64_t k = 0;
    for (; k + 2 <= n; k += 2) add_rows<2>(k, count, z, grad, log_prob, wants_gradient);
    if (k < n) add_rows<1>(k, count, z, grad, log_prob, wants_gradient);
    sync_team();
    for (int64_t t = rank_in_team(); t < count; t += kTeam)
      log_prob[t] = -mul_add(constant<V>(0.5), log_prob[t], normalizer);
    sync_team();
  }
};

template <template <class> class Family>
struct ElboLinearGaussian {
  static constexpr bool has_vjp = false;
  static constexpr auto attributes = "estimator";
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (2 * n[1] + 4 * n[2] + 45); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return fused_values<Family>(n[0], n[1]); }

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
