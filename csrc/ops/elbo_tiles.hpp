// SPDX-License-Identifier: MIT
// How the data of a target meet its draws: in tiles of M rows and R draws, so that what is loaded serves several sums.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

// eta[m][r] <- eta[m][r] + x_m . z_r, of which each of a team has the share of its own coordinates ...
template <int M, int R, class V>
REPARAM_HD void add_products(int64_t d, const Ptr<const V> (&x)[M], Ptr<const V> z, V (&eta)[M][R]) {
  for (int64_t i = rank_in_team(); i < d; i += kTeam) {
    V zi[R];
    REPARAM_UNROLL
    for (int r = 0; r < R; ++r) zi[r] = z[r * d + i];
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) eta[m][r] = mul_add(x[m][i], zi[r], eta[m][r]);
  }
}

// ... and grad_r <- grad_r + sum_m slope[m][r] x_m, in the order of the rows.
template <int M, int R, class V>
REPARAM_HD void add_gradients(int64_t d, const Ptr<const V> (&x)[M], const V (&slope)[M][R], Ptr<V> grad) {
  for (int64_t i = rank_in_team(); i < d; i += kTeam) REPARAM_UNROLL
  for (int r = 0; r < R; ++r) {
    V sum = grad[r * d + i];
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) sum = mul_add(x[m][i], slope[m][r], sum);
    grad[r * d + i] = sum;
  }
}

// Between the two, in a team: each has the sums of one row m and draw r, of which f(m, r, eta) makes what is added to
// log_prob[r] and leaves the slope.
template <int M, int R, class V, class F>
REPARAM_HD void meet_in_team(V (&eta)[M][R], Ptr<V> log_prob, F f) {
  constexpr int P = M * R;
  const int pair = rank_in_team() % P;
  V sums[P];
  REPARAM_UNROLL
  for (int p = 0; p < P; ++p) sums[p] = eta[p / R][p % R];
  V own = one_sum_of_team<P>(sums), term = f(pair / R, pair % R, own);
  for (int apart = R; apart < P; apart *= 2) term = term + from_lane(term, rank_in_team() ^ apart);
  if (rank_in_team() < R) log_prob[pair] = log_prob[pair] + term;
  REPARAM_UNROLL
  for (int p = 0; p < P; ++p) eta[p / R][p % R] = from_lane(own, p);
}

}  // namespace reparam::REPARAM_ARCH
