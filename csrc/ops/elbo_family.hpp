// SPDX-License-Identifier: MIT
// What the ELBO ops give, and their two families: how many gradient entries a scale has, and how R draws are made and
// add to them. Row r of a block of draws begins at r * d. One value of the scale, or of its gradient, serves R draws:
// alone, each multiply-add would wait for a load or two. The order of a sum is that of its draws, whatever R is.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

enum class Estimator { pathwise, stl, iwae, dreg };

template <class V>
struct ElboOutputs {
  Vec<V> log_weights;  // [draws]
  Scalar<V> value, standard_error;
  Vec<V> ct_loc;    // [d]
  Ptr<V> ct_scale;  // [values]
  bool wants_gradient;
};

inline constexpr int kTogether = 4;  // draws

template <class V>
struct TrilFamily {
  using Input = Tril<const V>;
  using Output = Tril<V>;
  static REPARAM_HD int64_t values(int64_t d) { return triangle(d); }
  static REPARAM_HD int64_t diagonal(int64_t i) { return triangle(i) + i; }

  template <int M, int R>
  REPARAM_HD static void multiply_rows(int64_t d, Input scale, int64_t i, Ptr<const V> noise,
                                       Ptr<V> z) {  // M rows of L
    V sum[M][R];
    Ptr<const V> rows[M];
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) {
      rows[m] = scale.row(i + m);
      REPARAM_UNROLL
      for (int r = 0; r < R; ++r) sum[m][r] = z[r * d + i + m];
    }
    for (int64_t j = 0; j <= i; ++j) {
      V e[R];
      REPARAM_UNROLL
      for (int r = 0; r < R; ++r) e[r] = noise[r * d + j];
      REPARAM_UNROLL
      for (int m = 0; m < M; ++m) REPARAM_UNROLL
      for (int r = 0; r < R; ++r) sum[m][r] = mul_add(rows[m][j], e[r], sum[m][r]);
    }
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) {
      REPARAM_UNROLL
      for (int k = 1; k <= m; ++k) sum[m][r] = mul_add(rows[m][i + k], noise[r * d + i + k], sum[m][r]);
      z[r * d + i + m] = sum[m][r];
    }
  }

  template <int R>
  REPARAM_HD static void transform(int64_t d, Input scale, Ptr<const V> noise, Ptr<V> z) {  // z <- L noise + z
    constexpr int M = kTeam > 1 ? 1 : 2;
    int64_t i = M * rank_in_team();
    for (; i + M <= d; i += M * kTeam) multiply_rows<M, R>(d, scale, i, noise, z);
    if (M > 1 && i < d) multiply_rows<1, R>(d, scale, i, noise, z);
  }

  static REPARAM_HD void solve_transposed(int64_t d, Input scale, Vec<V> x) { solve_lower_transposed(d, scale, x); }

  // Rows i .. i + M of sum <- sum + tril(g noise^T); of a team one has columns rank, rank + kTeam, ...
  template <int M, int R>
  REPARAM_HD static void add_rows(int64_t d, int64_t i, Ptr<const V> g, Ptr<const V> noise, Ptr<V> sum) {
    V gi[M][R];
    Ptr<V> rows[M];
    REPARAM_UNROLL
    for (int m = 0; m < M; ++m) {
      rows[m] = sum + triangle(i + m);
      REPARAM_UNROLL
      for (int r = 0; r < R; ++r) gi[m][r] = g[r * d + i + m];
    }
    for (int64_t j = rank_in_team(); j <= i; j += kTeam) {
      V total[M];
      REPARAM_UNROLL
      for (int m = 0; m < M; ++m) total[m] = rows[m][j];
      REPARAM_UNROLL
      for (int r = 0; r < R; ++r) {
        const V e = noise[r * d + j];
        REPARAM_UNROLL
        for (int m = 0; m < M; ++m) total[m] = mul_add(gi[m][r], e, total[m]);
      }
      REPARAM_UNROLL
      for (int m = 0; m < M; ++m) rows[m][j] = total[m];
    }
    if (rank_in_team() != 0) return;
    REPARAM_UNROLL
    for (int m = 1; m < M; ++m) REPARAM_UNROLL
    for (int k = 1; k <= m; ++k) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) rows[m][i + k] = mul_add(gi[m][r], noise[r * d + i + k], rows[m][i + k]);
  }

  template <int R>
  REPARAM_HD static void add_outer(int64_t d, Ptr<const V> g, Ptr<const V> noise, Ptr<V> sum) {
    int64_t i = 0;
    for (; i + 2 <= d; i += 2) add_rows<2, R>(d, i, g, noise, sum);
    if (i < d) add_rows<1, R>(d, i, g, noise, sum);
  }
};

template <class V>
struct DiagFamily {
  using Input = Vec<const V>;
  using Output = Vec<V>;
  static REPARAM_HD int64_t values(int64_t d) { return d; }
  static REPARAM_HD int64_t diagonal(int64_t i) { return i; }
  template <int R>
  REPARAM_HD static void transform(int64_t d, Input scale, Ptr<const V> noise, Ptr<V> z) {
    for (int64_t i = rank_in_team(); i < d; i += kTeam) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) z[r * d + i] = mul_add(scale[i], noise[r * d + i], z[r * d + i]);
  }
  static REPARAM_HD void solve_transposed(int64_t d, Input scale, Vec<V> x) {
    for (int64_t i = rank_in_team(); i < d; i += kTeam) x[i] = x[i] / scale[i];
  }
  template <int R>
  REPARAM_HD static void add_outer(int64_t d, Ptr<const V> g, Ptr<const V> noise, Ptr<V> sum) {
    for (int64_t i = rank_in_team(); i < d; i += kTeam) REPARAM_UNROLL
    for (int r = 0; r < R; ++r) sum[i] = mul_add(g[r * d + i], noise[r * d + i], sum[i]);
  }
};

}  // namespace reparam::REPARAM_ARCH
