// SPDX-License-Identifier: MIT
// The loops of the ELBO ops: over draws that come with log p(x, z_s) and its gradient from outside, or over blocks of
// draws of a target that is computed here. The formulas of the estimators stand in elbo_sums.hpp.
#pragma once
#include "elbo_sums.hpp"

namespace reparam::REPARAM_ARCH {

// The two families: how many gradient entries a scale has, and how a draw adds to them.
template <class V>
struct TrilFamily {
  using Input = Tril<const V>;
  using Output = Tril<V>;
  static REPARAM_HD int64_t values(int64_t d) { return triangle(d); }
  static REPARAM_HD int64_t diagonal(int64_t i) { return triangle(i) + i; }
  static REPARAM_HD void transform(int64_t d, Input scale, Vec<const V> noise, Vec<V> z) {
    multiply_lower(d, scale, noise, z);
  }
  static REPARAM_HD void solve_transposed(int64_t d, Input scale, Vec<V> x) { solve_lower_transposed(d, scale, x); }
  static REPARAM_HD void add_outer(int64_t d, Vec<const V> g, Vec<const V> noise, V* sum) {
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j <= i; ++j) sum[triangle(i) + j] = mul_add(g[i], noise[j], sum[triangle(i) + j]);
  }
};
template <class V>
struct DiagFamily {
  using Input = Vec<const V>;
  using Output = Vec<V>;
  static REPARAM_HD int64_t values(int64_t d) { return d; }
  static REPARAM_HD int64_t diagonal(int64_t i) { return i; }
  static REPARAM_HD void transform(int64_t d, Input scale, Vec<const V> noise, Vec<V> z) {
    for (int64_t i = 0; i < d; ++i) z[i] = mul_add(scale[i], noise[i], z[i]);
  }
  static REPARAM_HD void solve_transposed(int64_t d, Input scale, Vec<V> x) {
    for (int64_t i = 0; i < d; ++i) x[i] = x[i] / scale[i];
  }
  static REPARAM_HD void add_outer(int64_t d, Vec<const V> g, Vec<const V> noise, V* sum) {
    for (int64_t i = 0; i < d; ++i) sum[i] = mul_add(g[i], noise[i], sum[i]);
  }
};

REPARAM_HD int64_t elbo_sums_values(int64_t d) { return 3 * d + 2 * triangle(d); }  // of either family

// elbo_*_combine: log p(x, z_s) and its gradients come from outside; with `weighted`, times weights that the caller
// knows.
template <template <class> class Family>
struct ElboCombine {
  static constexpr bool has_vjp = false;
  static constexpr auto attributes = "estimator,weighted";
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (n[1] + 4); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return elbo_sums_values(n[1]); }

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
      if (together && wants_gradient) sums.add(s, e, grad.row(s));
    }
    if (!together) sums.normalize();
    for (int64_t s = 0; s < draws && !together && wants_gradient; ++s) sums.add(s, noise.row(s), grad.row(s));
    sums.finish(log_prob);
  }
};

// A target takes a block of draws at once, so that each row of its data is loaded once a block.
inline constexpr int64_t kDrawBlock = 8;
REPARAM_HD int64_t elbo_fused_values(int64_t draws, int64_t d) {
  return draws + 3 * kDrawBlock * d + elbo_sums_values(d);
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
        const Vec<V> zt{z.first + t * d};
        for (int64_t i = 0; i < d; ++i) e[t * d + i] = row[i], zt[i] = loc[i];
        Family<V>::transform(d, scale, row, zt);
      }
      target.evaluate(count, as_const(z), grad, Vec<V>{log_prob.first + first}, gradient);
      for (int64_t t = 0; t < count; ++t) {
        const Vec<const V> noise_t{e.first + t * d};
        if (pass == 0) sums.weigh(first + t, noise_t, log_prob[first + t]);
        if (gradient) sums.add(first + t, noise_t, Vec<const V>{grad.first + t * d});
      }
    }
    if (pass == 0 && sums.importance()) sums.normalize();
  }
  sums.finish(as_const(log_prob));
}

}  // namespace reparam::REPARAM_ARCH
