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
    V sum = constant<V>(0);
    for (int64_t j = 0; j < n; ++j) sum = sum + mul_add(successes[j], logits[j], -total_count[j] * softplus(logits[j]));
    log_likelihood() = sum;
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N n, Vec<const V> successes, Vec<const V> logits, Vec<const V> total_count,  // inputs
                             Scalar<const V> ct_log_likelihood,                               // output cotangents
                             Vec<V> ct_successes, Vec<V> ct_logits, Vec<V> ct_total_count) {  // input cotangents
    const V ct = ct_log_likelihood();
    for (int64_t j = 0; j < n; ++j) {
      ct_successes[j] = ct * logits[j];
      ct_logits[j] = ct * mul_add(-total_count[j], sigmoid(logits[j]), successes[j]);
      ct_total_count[j] = -ct * softplus(logits[j]);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
