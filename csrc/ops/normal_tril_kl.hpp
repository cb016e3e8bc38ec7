// SPDX-License-Identifier: MIT
// KL(N(loc, L L^T) || N(other_loc, M M^T)), L = scale_tril, M = other_scale_tril:
//   (|A|_F^2 + |y|^2 - d)/2 + log det M - log det L,   A = M^-1 L,  y = M^-1 (other_loc - loc)
// with A = I + E, E = M^-1 (L - M), so that close factors do not cancel:
//   sum_i h(L_ii/M_ii) + sum_{i>j} E_ij^2/2 + |y|^2/2,   h(r) = (r^2 - 1)/2 - log r >= 0 (normal_diag_kl)
// Never negative, 0 where the arguments are equal; relative error <= (16 + d) u cond(M).
// Cost d^3/3 + 3 d^2 flops and d logarithms, d(d+3) elements moved.
// vjp, with w = M^-T y and G = tril(M^-T E):  loc: -w,  other_loc: w,  L: G + diag(E_ii/L_ii),
//   M: -tril(G + G E^T + w y^T) - diag(E_ii/M_ii), all times ct.
//   (From L: tril(M^-T A) - diag(1/L_ii),  M: diag(1/M_ii) - tril(M^-T A A^T + w y^T), where M^-T is upper.)
// Cost 4 times the forward.
#pragma once
#include "normal_diag_kl.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_kl {
  static constexpr auto signature = "(d),tril(d),(d),tril(d)->()";
  static constexpr bool vjp_gives_values = true;  // both need E and y
  static constexpr bool takes_team = true;        // of whom one has columns rank, rank + kTeam, ... of every row
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] * (n[0] / 3.0 + 3) + 40); }
  static REPARAM_HD int64_t scratch_values(const int64_t* n) { return triangle(n[0]) + n[0]; }

  template <class V>
  struct Whitened {
    Tril<const V> e;
    Vec<const V> y;
    V poison;  // 0, NaN unless every scale is > 0
  };

  // to_j <- to_j + sum_k factor(k) rows_kj for j < columns: two rows at a time, for half the loads and stores of `to`.
  template <class V, class Factor>
  REPARAM_HD static void add_rows(int64_t k, int64_t end, int64_t columns, Factor factor, Tril<const V> rows,
                                  Vec<V> to) {
    for (; k + 2 <= end; k += 2) {
      const V a = factor(k), b = factor(k + 1);
      const Ptr<const V> upper = rows.row(k), lower = rows.row(k + 1);
      const int64_t both = k + 1 < columns ? k + 1 : columns;
      for (int64_t j = rank_in_team(); j < both; j += kTeam) to[j] = mul_add(b, lower[j], mul_add(a, upper[j], to[j]));
      if (both < columns && both % kTeam == rank_in_team()) to[both] = mul_add(b, lower[both], to[both]);
    }
    for (; k < end; ++k) {
      const V a = factor(k);
      const Ptr<const V> last = rows.row(k);
      for (int64_t j = rank_in_team(); j <= k && j < columns; j += kTeam) to[j] = mul_add(a, last[j], to[j]);
    }
  }

  template <class V>
  REPARAM_HD static Whitened<V> whiten(int64_t d, Vec<V> scratch, Vec<const V> loc, Tril<const V> scale_tril,
                                       Vec<const V> other_loc, Tril<const V> other_scale_tril) {
    const V poison = poison_unless_positive<V>(d, scale_tril) + poison_unless_positive<V>(d, other_scale_tril);
    const Tril<V> e{scratch.first};
    const Vec<V> y{scratch.first + triangle(d)};
    for (int64_t i = 0; i < d; ++i) {
      const V minus = constant<V>(-1) / other_scale_tril(i, i);
      const Vec<V> row{e.row(i)};
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) row[j] = other_scale_tril(i, j) - scale_tril(i, j);
      add_rows<V>(0, i, i, [&](int64_t k) { return other_scale_tril(i, k); }, Tril<const V>{e.first}, row);
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) row[j] = row[j] * minus;
    }
    for (int64_t i = rank_in_team(); i < d; i += kTeam) y[i] = other_loc[i] - loc[i] + poison;
    sync_team();
    solve_lower(d, other_scale_tril, y);
    return {{e.first}, as_const(y), poison};
  }

  template <class V>
  REPARAM_HD static V divergence(int64_t d, Whitened<V> w, Tril<const V> scale_tril, Tril<const V> other_scale_tril) {
    V squares = square_norm<V>(d, w.y), terms = constant<V>(0);
    for (int64_t i = 0; i < d; ++i) squares = squares + square_norm<V>(i, Vec<const V>{w.e.row(i)});
    for (int64_t i = rank_in_team(); i < d; i += kTeam)
      terms = terms + normal_diag_kl::scale_term(scale_tril(i, i), other_scale_tril(i, i));
    return mul_add(constant<V>(0.5), squares, sum_of_team(terms));
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<V> scratch, Vec<const V> loc, Tril<const V> scale_tril,
                                 Vec<const V> other_loc, Tril<const V> other_scale_tril,  // inputs
                                 Scalar<V> kl) {                                          // outputs
    const auto w = whiten<V>(d, scratch, loc, scale_tril, other_loc, other_scale_tril);
    kl() = divergence<V>(d, w, scale_tril, other_scale_tril);
  }

  template <class V>  // g <- tril(M^-T g)
  REPARAM_HD static void solve_transposed(int64_t d, Tril<const V> m, Tril<V> g) {
    for (int64_t i = d - 1; i >= 0; --i) {
      const V inverse = constant<V>(1) / m(i, i);
      const Vec<V> row{g.row(i)};
      add_rows<V>(i + 1, d, i + 1, [&](int64_t k) { return -m(k, i); }, Tril<const V>{g.first}, row);
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) row[j] = row[j] * inverse;
    }
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<V> scratch, Vec<const V> loc, Tril<const V> scale_tril, Vec<const V> other_loc,
                             Tril<const V> other_scale_tril,  // inputs
                             Scalar<const V> ct_kl,           // output cotangents
                             Scalar<V> kl,                    // outputs
                             Vec<V> ct_loc, Tril<V> ct_scale_tril, Vec<V> ct_other_loc,
                             Tril<V> ct_other_scale_tril) {  // input cotangents
    const auto w = whiten<V>(d, scratch, loc, scale_tril, other_loc, other_scale_tril);
    if (kl.wanted) kl() = divergence<V>(d, w, scale_tril, other_scale_tril);
    const V ct = ct_kl() + w.poison;
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_other_loc[i] = ct * w.y[i];
    sync_team();
    solve_lower_transposed(d, other_scale_tril, ct_other_loc);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) ct_loc[i] = -ct_other_loc[i];
    if (!ct_scale_tril.wanted && !ct_other_scale_tril.wanted) return;
    const Tril<V> g = ct_scale_tril;
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) g(i, j) = ct * w.e(i, j);
    solve_transposed<V>(d, other_scale_tril, g);
    sync_team();
    for (int64_t i = 0; i < d && ct_other_scale_tril.wanted; ++i) {
      const Vec<V> row{ct_other_scale_tril.row(i)};
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) row[j] = mul_add(ct_other_loc[i], w.y[j], g(i, j));
      multiply_lower(i + 1, w.e, Vec<const V>{g.row(i)}, row);
      if (i % kTeam == rank_in_team()) row[i] = mul_add(ct, w.e(i, i) / other_scale_tril(i, i), row[i]);
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) row[j] = -row[j];
    }
    sync_team();
    for (int64_t i = rank_in_team(); i < d; i += kTeam) g(i, i) = g(i, i) + ct * w.e(i, i) / scale_tril(i, i);
  }
};

}  // namespace reparam::REPARAM_ARCH
