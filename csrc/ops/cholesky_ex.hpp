// SPDX-License-Identifier: MIT
// A = L L^T, L lower with positive diagonal. Reads the lower triangle of A only.
// Left-looking: L_ij = (A_ij - sum_{k<j} L_ik L_jk) / L_jj, two columns and four rows at a time, one reciprocal per
// pivot; no order of summation depends on the tile.
// info: 0, or the 1-based first leading minor whose pivot is not > 0 or not finite; L is then NaN in that event.
// Cost d^3/3 flops, d^2/2 + d^2 elements moved. Residual |L L^T - A|_1 <= 3 d u |A|_1.
// vjp (I. Murray, arXiv 1602.07527, the unblocked sweep), from L: A_bar = (S + S^T)/2, S = L^-T Phi(L^T L_bar) L^-1,
// Phi = lower triangle with halved diagonal. In place, 2 d^3/3 flops, no triangular solves.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct cholesky_ex {
  static constexpr auto signature = "sym(d)->tril(d),():i4";
  static constexpr bool vjp_from_outputs = true, takes_team = true;
  static constexpr InPlace forward_in_place{.input = 0, .output = 1};  // L over A
  static constexpr InPlace vjp_in_place{.input = 1, .output = 2};      // ct_a over ct_scale_tril
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * n[0] * (n[0] / 3.0 + 2); }

  // Columns j..j+C of L for rows i..i+R.
  template <int R, int C, class V>
  REPARAM_HD static void tile(Tril<const V> a, Tril<V> l, int64_t i, int64_t j, const V* inverse) {
    V sum[R][C];
    REPARAM_UNROLL
    for (int r = 0; r < R; ++r) REPARAM_UNROLL
    for (int c = 0; c < C; ++c) sum[r][c] = a(i + r, j + c);
    subtract_earlier<R, C>(sum, l, i, j);
    REPARAM_UNROLL
    for (int r = 0; r < R; ++r) REPARAM_UNROLL
    for (int c = 0; c < C; ++c) {
      REPARAM_UNROLL
      for (int k = 0; k < c; ++k) sum[r][c] = mul_add(sum[r][k], -l(j + c, j + k), sum[r][c]);
      sum[r][c] = sum[r][c] * inverse[c];
      l(i + r, j + c) = sum[r][c];
    }
  }

  // Takes off a tile of sums for rows i.. and columns j.. what the columns before j give.
  template <int R, int C, class V>
  REPARAM_HD static void subtract_earlier(V (&sum)[R][C], Tril<V> l, int64_t i, int64_t j) {
    Ptr<const V> column[C];
    REPARAM_UNROLL
    for (int c = 0; c < C; ++c) column[c] = l.row(j + c);
    subtract_products<R, C>(sum, Tril<const V>{l.first}, i, j, column);
  }

  // Columns j..j+C: their triangle on the diagonal first, then the rows below it.
  template <int C, class V>
  REPARAM_HD static void panel(int64_t d, Tril<const V> a, Tril<V> l, int64_t j, V& first_bad) {
    const V zero = constant<V>(0);
    V sum[C][C], inverse[C];
    REPARAM_UNROLL
    for (int r = 0; r < C; ++r) REPARAM_UNROLL
    for (int c = 0; c < C; ++c) sum[r][c] = c <= r ? a(j + r, j + c) : zero;
    subtract_earlier<C, C>(sum, l, j, j);
    sync_team();  // all have read the triangle, which L may lie over
    REPARAM_UNROLL
    for (int c = 0; c < C; ++c) {
      REPARAM_UNROLL
      for (int k = 0; k < c; ++k) sum[c][c] = mul_add(-sum[c][k], sum[c][k], sum[c][c]);
      const V pivot = sum[c][c];
      const auto good = (pivot > zero) & (pivot < constant<V>(__builtin_inf()));
      const V here = select(first_bad == zero, constant<V>(static_cast<double>(j + c + 1)), first_bad);
      first_bad = select(good, first_bad, here);
      const V root = square_root(pivot);
      if (rank_in_team() == 0) l(j + c, j + c) = root;
      inverse[c] = constant<V>(1) / root;
      REPARAM_UNROLL
      for (int r = c + 1; r < C; ++r) {
        REPARAM_UNROLL
        for (int k = 0; k < c; ++k) sum[r][c] = mul_add(sum[r][k], -sum[c][k], sum[r][c]);
        sum[r][c] = sum[r][c] * inverse[c];
        if (rank_in_team() == 0) l(j + r, j + c) = sum[r][c];
      }
    }
    sync_team();
    constexpr int R = kTeam > 1 ? 2 : 4;  // two rows for each of 32 threads: a column of d = 64 at once
    int64_t i = j + C + R * rank_in_team();
    for (; i + R <= d; i += R * kTeam) tile<R, C>(a, l, i, j, inverse);
    if (R > 2 && i + 2 <= d) tile<2, C>(a, l, i, j, inverse), i += 2;
    if (i < d) tile<1, C>(a, l, i, j, inverse);
    sync_team();
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Tril<const V> a,                  // inputs
                                 Tril<V> scale_tril, Scalar<V> info) {  // outputs
    V first_bad = constant<V>(0);
    int64_t j = 0;
    for (; j + 2 <= d; j += 2) panel<2>(d, a, scale_tril, j, first_bad);
    if (j < d) panel<1>(d, a, scale_tril, j, first_bad);
    info() = first_bad;
    const auto failed = first_bad > constant<V>(0);
    if (any(failed))
      for (int64_t k = rank_in_team(); k < triangle(d); k += kTeam)
        scale_tril.first[k] = select(failed, quiet_nan<V>(), scale_tril.first[k]);
  }

  // What column j below row j owes to the columns before it, for rows i..i+R.
  template <int R, class V>
  REPARAM_HD static void sweep_rows(Tril<const V> l, Tril<V> l_bar, int64_t i, int64_t j) {
    const Ptr<const V> r = l.row(j);
    const Ptr<V> r_bar = l_bar.row(j);
    Ptr<const V> b[R];
    Ptr<V> b_bar[R];
    V minus[R];
    REPARAM_UNROLL
    for (int m = 0; m < R; ++m) b[m] = l.row(i + m), b_bar[m] = l_bar.row(i + m), minus[m] = -b_bar[m][j];
    for (int64_t k = rank_in_team(); k < j; k += kTeam) {
      V along = r[k], sum = r_bar[k];
      REPARAM_UNROLL
      for (int m = 0; m < R; ++m) {
        sum = mul_add(minus[m], b[m][k], sum);
        b_bar[m][k] = mul_add(minus[m], along, b_bar[m][k]);
      }
      r_bar[k] = sum;
    }
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Tril<const V> scale_tril,  // outputs of forward
                             Tril<const V> ct_scale_tril,    // output cotangents
                             Tril<V> ct_a) {                 // input cotangents
    if (ct_a.first != ct_scale_tril.first)
      for (int64_t k = rank_in_team(); k < triangle(d); k += kTeam) ct_a.first[k] = ct_scale_tril.first[k];
    sync_team();
    for (int64_t j = d - 1; j >= 0; --j) {
      const V inverse = constant<V>(1) / scale_tril(j, j);
      V pivot_bar = rank_in_team() == 0 ? ct_a(j, j) : constant<V>(0);
      for (int64_t i = j + 1 + rank_in_team(); i < d; i += kTeam) {
        const V c_bar = ct_a(i, j) = ct_a(i, j) * inverse;
        pivot_bar = mul_add(-scale_tril(i, j), c_bar, pivot_bar);
      }
      pivot_bar = sum_of_team(pivot_bar) * inverse;
      sync_team();
      for (int64_t k = rank_in_team(); k < j; k += kTeam)
        ct_a(j, k) = mul_add(-pivot_bar, scale_tril(j, k), ct_a(j, k));
      int64_t i = j + 1;
      for (; i + 4 <= d; i += 4) sweep_rows<4>(scale_tril, ct_a, i, j);
      for (; i < d; ++i) sweep_rows<1>(scale_tril, ct_a, i, j);
      if (rank_in_team() == 0) ct_a(j, j) = pivot_bar * constant<V>(0.5);
      sync_team();
    }
    for (int64_t i = 1; i < d; ++i)  // each off-diagonal entry stands twice in a symmetric matrix
      for (int64_t j = rank_in_team(); j < i; j += kTeam) ct_a(i, j) = ct_a(i, j) * constant<V>(0.5);
  }
};

}  // namespace reparam::REPARAM_ARCH
