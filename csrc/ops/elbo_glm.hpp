// SPDX-License-Identifier: MIT
// elbo_*_glm: regression coefficients z ~ N(0, prior_scale^2 I), eta = features z, y_k given eta_k by `family`:
//   logistic  y eta - softplus(eta)        slope y - sigmoid(eta)      y in {0, 1}
//   poisson   y eta - exp(eta)             slope y - exp(eta)          y = 0, 1, 2, ...
//   normal    -(y - eta)^2/2               slope y - eta
//   log p(y, z) = sum_k of these - |z|^2/(2 prior_scale^2) - d log prior_scale - d log(2 pi)/2 + log_normalizer
// log_normalizer: what depends on y alone, such as -sum log y_k!, made once by the caller. 4 n d flops per draw.
#pragma once
#include "elbo.hpp"
#include "elbo_tiles.hpp"

namespace reparam::REPARAM_ARCH {

enum class GlmFamily { logistic, poisson, normal };

template <class V, class Features>
struct GlmTarget {
  int64_t d, n;
  GlmFamily family;
  Features features;
  Vec<const V> y;
  Vec<V> odds;  // [kDrawBlock]
  V precision, constant_term;

  REPARAM_HD GlmTarget(int64_t d_, int64_t n_, double family_, Features features_, Vec<const V> y_, Vec<V> odds_,
                       V prior_scale, V log_normalizer)
      : d(d_),
        n(n_),
        family(static_cast<GlmFamily>(static_cast<int>(family_))),
        features(features_),
        y(y_),
        odds(odds_) {
    const V scale = positive(prior_scale);
    precision = constant<V>(1) / (scale * scale);
    constant_term =
        log_normalizer - mul_add(constant<V>(static_cast<double>(d)), log(scale), constant<V>(d * kHalfLog2Pi));
  }

  // log p(y_k | eta) and its slope; the logistic one keeps its digits where the answer is nearly certain. It leaves out
  // -log(1 + e), e = exp(-|eta|): 1 + odds_of_draw collects the product of the 1 + e, one logarithm for many rows.
  REPARAM_HD V log_likelihood(V yk, V eta, V& slope, V& odds_of_draw) const {
    const V one = constant<V>(1);
    if (family == GlmFamily::logistic) {
      const V e = exp(-absolute(eta)), miss = one - yk;
      const auto likely = eta > constant<V>(0);
      const V large = one / (one + e), small = e * large;
      slope = yk * select(likely, small, large) - miss * select(likely, large, small);
      odds_of_draw = mul_add(odds_of_draw, one + e, e);
      return -absolute(eta) * select(likely, miss, yk);
    }
    if (family == GlmFamily::poisson) {
      const V rate = exp(eta);
      slope = yk - rate;
      return mul_add(yk, eta, -rate);
    }
    slope = yk - eta;
    return constant<V>(-0.5) * slope * slope;
  }

  // Rows k .. k + M of the data for all draws.
  template <int M>
  REPARAM_HD void add_rows(int64_t k, int64_t count, Vec<const V> z, Vec<V> grad, Vec<V> log_prob,
                           bool wants_gradient) const {
    Ptr<const V> x[M];
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) x[m] = features.row(k + m).first;
    int64_t t = 0;
    for (; t + kTogether <= count; t += kTogether) add_draws<M, kTogether>(k, t, x, z, grad, log_prob, wants_gradient);
    for (; t < count; ++t) add_draws<M, 1>(k, t, x, z, grad, log_prob, wants_gradient);
  }

  template <int M, int R>
  REPARAM_HD void add_draws(int64_t k, int64_t t, const Ptr<const V> (&x)[M], Vec<const V> z, Vec<V> grad,
                            Vec<V> log_prob, bool wants_gradient) const {
    V eta[M][R];  // then the slope
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) eta[m][r] = constant<V>(0);
    add_products<M, R>(d, x, z.first + t * d, eta);
    if constexpr (kTeam > 1) {
      meet_in_team<M, R>(eta, log_prob.first + t, [&](int m, int, V& slope) {
        V miss = constant<V>(0);
        const V likelihood = log_likelihood(y[k + m], slope, slope, miss);
        return family == GlmFamily::logistic ? likelihood - log1p(miss) : likelihood;
      });
    } else {
      for (int m = 0; m < M; ++m) {  // a loop: the code of 2 R exponentials would be long. Row m stands first in turn
        V row[R];
        REPARAM_UNROLL
        for (int r = 0; r < R; ++r) {
          row[r] = eta[0][r];
          log_prob[t + r] = log_prob[t + r] + log_likelihood(y[k + m], row[r], row[r], odds[t + r]);
        }
        REPARAM_UNROLL
        for (int r = 0; r < R; ++r) {
          REPARAM_UNROLL
          for (int next = 1; next < M; ++next) eta[next - 1][r] = eta[next][r];
          eta[M - 1][r] = row[r];
        }
      }
    }
    if (wants_gradient) add_gradients<M, R>(d, x, eta, grad.first + t * d);
  }

  REPARAM_HD void evaluate(int64_t count, Vec<const V> z, Vec<V> grad, Vec<V> log_prob, bool wants_gradient) const {
    constexpr int64_t kRows = 64;  // whose odds are below 2^64
    for (int64_t k = rank_in_team(); k < count * d; k += kTeam) grad[k] = -z[k] * precision;
    const V half = constant<V>(-0.5) * precision;
    for (int64_t t = 0; t < count; ++t) {
      const V prior = mul_add(half, square_norm<V>(d, Vec<const V>{z.first + t * d}), constant_term);
      if (rank_in_team() == 0) log_prob[t] = prior, odds[t] = constant<V>(0);
    }
    sync_team();
    for (int64_t first = 0; first < n; first += kRows) {
      const int64_t end = first + kRows < n ? first + kRows : n;
      int64_t k = first;
      for (; k + 2 <= end; k += 2) add_rows<2>(k, count, z, grad, log_prob, wants_gradient);
      if (k < end) add_rows<1>(k, count, z, grad, log_prob, wants_gradient);
      if (family != GlmFamily::logistic || kTeam > 1) continue;
      for (int64_t t = 0; t < count; ++t) log_prob[t] = log_prob[t] - log1p(odds[t]), odds[t] = constant<V>(0);
    }
    sync_team();
  }
};

template <template <class> class Family>
struct ElboGlm {
  static constexpr bool has_vjp = false;
  static constexpr auto attributes = "estimator,family";
  static REPARAM_HD double flops(const int64_t* n) {
    return 1.0 * n[0] * (n[1] * (2 * n[1] + 45) + n[2] * (4 * n[1] + 40));
  }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return fused_values<Family>(n[0] + kDrawBlock, n[1]); }

  template <class V, class N, class Noise, class Features>
  REPARAM_HD static void forward(N draws, N d, N n, const double* attribute, Vec<V> scratch, Noise noise,
                                 Vec<const V> loc, typename Family<V>::Input scale, Features features, Vec<const V> y,
                                 Scalar<const V> prior_scale,
                                 Scalar<const V> log_normalizer,                                 // inputs
                                 Vec<V> log_weights, Scalar<V> value, Scalar<V> standard_error,  // outputs
                                 Vec<V> ct_loc, typename Family<V>::Output ct_scale) {
    const GlmTarget<V, Features> target(d, n, attribute[1], features, y, scratch, prior_scale(), log_normalizer());
    const bool wants_gradient = ct_loc.wanted || ct_scale.wanted;
    run_elbo<V, Family>(draws, d, attribute, Vec<V>{scratch.first + kDrawBlock}, noise, loc, scale, target,
                        {log_weights, value, standard_error, ct_loc, ct_scale.first, wants_gradient});
  }
};

}  // namespace reparam::REPARAM_ARCH
