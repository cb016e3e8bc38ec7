// SPDX-License-Identifier: MIT
// The Monte Carlo ELBO of q = N(loc, S S^T) and its gradient, estimator "pathwise" (closed-form entropy), S a lower
// factor or a diagonal. With z_s = loc + S noise_s and g_s = grad_z log p(x, z_s), over draws s = 1..n:
//   value = mean log p(x, z_s) + sum_i log S_ii + d (1 + log 2 pi)/2
//   d loc = mean g_s;   d S = tril(mean g_s noise_s^T) + diag(1/S_ii)
//   log_weights_s = log p(x, z_s) - log q(z_s),   standard_error = sd(log p(x, z_s), ddof 1)/sqrt(n), NaN for one draw
// Sums over draws: in order in blocks of 64, the blocks joined with their rounding errors kept (Knuth's two-sum), so
// that rounding does not grow with n. (Eight partial sums a block, as sums over a batch have, would take eight times
// the scratch.) Scratch: one block's sums and the errors. Nothing of the size of the noise is stored. Cost per draw 2
// d^2 flops beside the target's.
#pragma once
#include "../core/linear.hpp"

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
  static REPARAM_HD void add_outer(int64_t d, Vec<const V> g, Vec<const V> noise, V* sum) {
    for (int64_t i = 0; i < d; ++i) sum[i] = mul_add(g[i], noise[i], sum[i]);
  }
};

template <class V>
struct ElboOutputs {
  Vec<V> log_weights;  // [draws]
  Scalar<V> value, standard_error;
  Vec<V> ct_loc;  // [d]
  V* ct_scale;    // [values]
};

template <class V, template <class> class Family>
struct ElboSums {
  using F = Family<V>;
  static constexpr int64_t kBlock = 64;

  int64_t d, draws;
  V log_det;
  ElboOutputs<V> out;
  V *block_loc, *block_scale, *error_loc, *error_scale;
  V block_log_prob, log_prob_sum, log_prob_error;

  REPARAM_HD ElboSums(int64_t draws_, int64_t d_, typename F::Input scale, V* scratch, ElboOutputs<V> outputs)
      : d(d_),
        draws(draws_),
        log_det(reparam::REPARAM_ARCH::log_det<V>(d_, scale)),
        out(outputs),
        block_loc(scratch),
        block_scale(scratch + d_),
        error_loc(block_scale + F::values(d_)),
        error_scale(error_loc + d_),
        block_log_prob(constant<V>(0)),
        log_prob_sum(constant<V>(0)),
        log_prob_error(constant<V>(0)) {
    for (int64_t k = 0; k < 2 * (d + F::values(d)); ++k) scratch[k] = constant<V>(0);
    for (int64_t i = 0; i < d; ++i) out.ct_loc[i] = constant<V>(0);
    for (int64_t k = 0; k < F::values(d); ++k) out.ct_scale[k] = constant<V>(0);
  }

  // Draw s: its log p(x, z_s) and g_s.
  REPARAM_HD void add(int64_t s, Vec<const V> noise, V log_prob, Vec<const V> grad) {
    const V log_q = -(mul_add(constant<V>(0.5), square_norm<V>(d, noise), log_det) + constant<V>(d * kHalfLog2Pi));
    out.log_weights[s] = log_prob - log_q;
    block_log_prob = block_log_prob + log_prob;
    for (int64_t i = 0; i < d; ++i) block_loc[i] = block_loc[i] + grad[i];
    F::add_outer(d, grad, noise, block_scale);
    if ((s + 1) % kBlock == 0 || s + 1 == draws) close_block();
  }

  REPARAM_HD void close_block() {
    const V zero = constant<V>(0);
    add_with_error(log_prob_sum, log_prob_error, block_log_prob);
    block_log_prob = zero;
    for (int64_t i = 0; i < d; ++i) add_with_error(out.ct_loc[i], error_loc[i], block_loc[i]), block_loc[i] = zero;
    for (int64_t k = 0; k < F::values(d); ++k)
      add_with_error(out.ct_scale[k], error_scale[k], block_scale[k]), block_scale[k] = zero;
  }

  REPARAM_HD void finish(typename F::Input scale, Vec<const V> log_prob) {
    const double n = static_cast<double>(draws);
    const V mean = rounded(log_prob_sum, log_prob_error) / constant<V>(n),
            poison = log_det - log_det;  // NaN where a scale is not > 0
    out.value() = mean + log_det + constant<V>(d * (0.5 + kHalfLog2Pi));
    V total = constant<V>(0), error = total, block = total;
    for (int64_t s = 0; s < draws; ++s) {
      const V deviation = log_prob[s] - mean;
      block = mul_add(deviation, deviation, block);
      if ((s + 1) % kBlock == 0 || s + 1 == draws) add_with_error(total, error, block), block = constant<V>(0);
    }
    total = rounded(total, error);
    out.standard_error() = draws > 1 ? square_root(total / constant<V>((n - 1) * n)) + poison : quiet_nan<V>();
    for (int64_t i = 0; i < d; ++i) out.ct_loc[i] = rounded(out.ct_loc[i], error_loc[i]) / constant<V>(n) + poison;
    for (int64_t k = 0; k < F::values(d); ++k)
      out.ct_scale[k] = rounded(out.ct_scale[k], error_scale[k]) / constant<V>(n) + poison;
    const V* s = scale.first;
    for (int64_t i = 0; i < d; ++i) {
      const int64_t k = F::diagonal(i);
      out.ct_scale[k] = out.ct_scale[k] + constant<V>(1) / s[k];
    }
  }
};

// elbo_*_combine: log p(x, z_s) and its gradients come from outside.
template <template <class> class Family>
struct ElboCombine {
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t* n) { return 1.0 * n[0] * n[1] * (n[1] + 4); }

  template <class V, class N, class Noise, class Grad>
  REPARAM_HD static void forward(N draws, N d, Vec<V> scratch, Noise noise, Vec<const V> log_prob, Grad grad,
                                 typename Family<V>::Input scale,                                // inputs
                                 Vec<V> log_weights, Scalar<V> value, Scalar<V> standard_error,  // outputs
                                 Vec<V> ct_loc, typename Family<V>::Output ct_scale) {
    ElboSums<V, Family> sums(draws, d, scale, scratch.first,
                             {log_weights, value, standard_error, ct_loc, ct_scale.first});
    for (int64_t s = 0; s < draws; ++s) sums.add(s, noise.row(s), log_prob[s], grad.row(s));
    sums.finish(scale, log_prob);
  }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return 2 * (n[1] + triangle(n[1])); }
};

}  // namespace reparam::REPARAM_ARCH
