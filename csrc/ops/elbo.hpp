// SPDX-License-Identifier: MIT
// The loops of the ELBO ops: over draws that come with log p(x, z_s) and its gradient from outside, or over blocks of
// draws of a target that is computed here. The formulas of the estimators stand in elbo_sums.hpp.
#pragma once
#include "elbo_sums.hpp"

namespace reparam::REPARAM_ARCH {

template <template <class> class Family>
REPARAM_HD int64_t elbo_sums_values(int64_t d) {
  return 4 * d + 2 * Family<float>::values(d);
}

// elbo_*_combine: log p(x, z_s) and its gradients come from outside; with `weighted`, times weights that the caller
// knows.
template <template <class> class Family>
struct ElboCombine {
  static constexpr bool has_vjp = false;
  static constexpr auto attributes = "estimator,weighted";
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (n[1] + 4); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return elbo_sums_values<Family>(n[1]); }

  template <class V, class N, class Noise, class Grad>
  REPARAM_HD static void forward(N draws, N d, const double* attribute, Vec<V> scratch, Noise noise,
                                 Vec<const V> log_prob, Grad grad,
                                 typename Family<V>::Input scale,                                // inputs
                                 Vec<V> log_weights, Scalar<V> value, Scalar<V> standard_error,  // outputs
                                 Vec<V> ct_loc, typename Family<V>::Output ct_scale) {
    const bool wants_gradient = ct_loc.wanted || ct_scale.wanted;
    ElboSums<V, Family> sums(draws, d, attribute, attribute[1] != 0, scale, scratch.first,
                             {log_weights, value, standard_error, ct_loc, ct_scale.first, wants_gradient});
    const bool together = !sums.importance();
    for (int64_t s = 0; s < draws; ++s) {
      const Vec<const V> e = noise.row(s);
      sums.weigh(s, e, log_prob[s]);
      if (together && wants_gradient) add_draw(sums, s, e, grad.row(s));
    }
    if (!together) sums.normalize();
    for (int64_t s = 0; s < draws && !together && wants_gradient; ++s) add_draw(sums, s, noise.row(s), grad.row(s));
    sums.finish(log_prob);
  }

 private:
  template <class Sums, class V>
  REPARAM_HD static void add_draw(Sums& sums, int64_t s, Vec<const V> noise, Vec<const V> grad) {
    sums.make_term(s, noise.first, grad.first, sums.term.first);
    sums.template add<1>(s, noise.first, sums.term.first);
  }
};

// A target takes a block of draws at once, so that each row of its data is loaded once a block.
inline constexpr int64_t kDrawBlock = 8;
template <template <class> class Family>
REPARAM_HD int64_t fused_values(int64_t draws, int64_t d) {
  return draws + 3 * kDrawBlock * d + elbo_sums_values<Family>(d);
}

// `target.evaluate(count, z, grad, log_prob, wants_gradient)` fills log p(x, z_t) and its gradients for t < count; draw
// t of z and grad begins at t * d.
template <class V, template <class> class Family, class Noise, class Target>
REPARAM_HD void run_elbo(int64_t draws, int64_t d, const double* attribute, Vec<V> scratch, Noise noise,
                         Vec<const V> loc, typename Family<V>::Input scale, const Target& target,
                         ElboOutputs<V> outputs) {
  const Vec<V> log_prob = scratch, e{log_prob.first + draws}, z{e.first + kDrawBlock * d},
               grad{z.first + kDrawBlock * d};
  ElboSums<V, Family> sums(draws, d, attribute, false, scale, grad.first + kDrawBlock * d, outputs);
  const int passes =
      sums.importance() && outputs.wants_gradient ? 2 : 1;  // the weights first, where a gradient needs them
  for (int pass = 0; pass < passes; ++pass) {
    const bool gradient = outputs.wants_gradient && pass == passes - 1;
    for (int64_t first = 0; first < draws; first += kDrawBlock) {
      const int64_t count = draws - first < kDrawBlock ? draws - first : kDrawBlock;
      for (int64_t t = 0; t < count; ++t) {
        const Vec<const V> row = noise.row(first + t);
        for (int64_t i = rank_in_team(); i < d; i += kTeam) e[t * d + i] = row[i], z[t * d + i] = loc[i];
      }
      sync_team();
      int64_t t = 0;
      for (; t + kTogether <= count; t += kTogether)
        Family<V>::template transform<kTogether>(d, scale, e.first + t * d, z.first + t * d);
      for (; t < count; ++t) Family<V>::template transform<1>(d, scale, e.first + t * d, z.first + t * d);
      sync_team();
      target.evaluate(count, as_const(z), grad, Vec<V>{log_prob.first + first}, gradient);
      for (t = 0; t < count && pass == 0; ++t)
        sums.weigh(first + t, Vec<const V>{e.first + t * d}, log_prob[first + t]);
      if (!gradient) continue;
      for (t = 0; t < count; ++t) sums.make_term(first + t, e.first + t * d, grad.first + t * d, grad.first + t * d);
      for (t = 0; t + kTogether <= count; t += kTogether)
        sums.template add<kTogether>(first + t, e.first + t * d, grad.first + t * d);
      for (; t < count; ++t) sums.template add<1>(first + t, e.first + t * d, grad.first + t * d);
    }
    if (pass == 0 && sums.importance()) sums.normalize();
  }
  sums.finish(as_const(log_prob));
}

}  // namespace reparam::REPARAM_ARCH
