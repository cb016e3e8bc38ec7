// SPDX-License-Identifier: MIT
// sum_j k_j l_j - N_j softplus(l_j): the log likelihood of k successes in N trials with log odds l, without the
// binomial coefficient (which no parameter moves). N_j = k_j = 0 leaves entry j out; N = 1 is the Bernoulli. Cost n
// softplus, 3 n elements moved.   vjp: k: l;  l: k - N sigmoid(l);  N: -softplus(l), all times ct.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct binomial_log_likelihood {
  static constexpr auto signature = "(n),(n),(n)->()";
  static REPARAM_HD double flops(const int64_t* n) { return 50.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N n, Vec<const V> successes, Vec<const V> logits, Vec<const V> total_count,  // inputs
                                 Scalar<V> log_likelihood) {                                                  // outputs
    const V zero = constant<V>(0);
    V sum = zero;
    for (int64_t j = 0; j < n; ++j) {
      const V l = logits[j], k = successes[j], misses = total_count[j] - k, size = absolute(l);
      const V linear = size * select(l > zero, misses, k);
      sum = sum - mul_add(total_count[j], log1p(exp(-size)), linear);
    }
    log_likelihood() = sum;
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N n, Vec<const V> successes, Vec<const V> logits, Vec<const V> total_count,  // inputs
                             Scalar<const V> ct_log_likelihood,                               // output cotangents
                             Vec<V> ct_successes, Vec<V> ct_logits, Vec<V> ct_total_count) {  // input cotangents
    const V ct = ct_log_likelihood(), zero = constant<V>(0), one = constant<V>(1);
    for (int64_t j = 0; j < n; ++j) {
      const V l = logits[j], k = successes[j], misses = total_count[j] - k, e = exp(-absolute(l));
      const V unlikely = e / (one + e), likely = one / (one + e);  // the smaller and the larger of the two odds
      const auto positive = l > zero;
      const V slope = mul_add(k, select(positive, unlikely, likely), -misses * select(positive, likely, unlikely));
      if (ct_successes.wanted) ct_successes[j] = ct * l;
      ct_logits[j] = ct * slope;
      if (ct_total_count.wanted) ct_total_count[j] = -ct * (select(positive, l, zero) + log1p(e));
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
