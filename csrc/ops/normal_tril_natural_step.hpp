// SPDX-License-Identifier: MIT
// One ascent step along the natural gradient of N(loc, L L^T), in coordinates of the Cholesky factor:
//   u = a L^T g, |u| <= 1;   A = a Phi(tril(L^T G)), |A|_F <= 1/2;   Phi = lower triangle with halved diagonal
//   new_loc = loc + L u;   new_L_ij = (L + L A)_ij below the diagonal, L_ii exp(A_ii) on it
// a = step_size, g and G the gradient in loc and L; what is longer is clipped. To first order this moves by the inverse
// Fisher information times the gradient (L. Tan, arXiv 2109.00375, for its form in L). NaN unless every L_ii > 0 and
// the gradient is finite. Cost 2 d^3/3 flops, 2 d^2 + 4 d elements moved.
#pragma once
#include "natural_step.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_tril_natural_step {
  static constexpr auto signature = "(d),tril(d),(d),tril(d)->(d),tril(d)";
  static constexpr auto attributes = "step_size";
  static constexpr bool has_vjp = false;
  static constexpr bool takes_team = true;  // of whom one has columns rank, rank + kTeam, ... of every row
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * (n[0] * (n[0] * 0.7 + 4) + 30); }

  // out <- a Phi(tril(L^T G)): row k of G goes to rows i <= k with L_ki.
  template <class V>
  REPARAM_HD static void whiten(int64_t d, V a, Tril<const V> l, Tril<const V> g, Tril<V> out) {
    for (int64_t k = rank_in_team(); k < triangle(d); k += kTeam) out.first[k] = constant<V>(0);
    sync_team();
    for (int64_t k = 0; k < d; ++k)
      for (int64_t i = 0; i <= k; ++i) {
        const V factor = l(k, i);
        for (int64_t j = rank_in_team(); j <= i; j += kTeam) out(i, j) = mul_add(factor, g(k, j), out(i, j));
      }
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) out(i, j) = (j < i ? a : constant<V>(0.5) * a) * out(i, j);
    sync_team();
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, const double* attribute, Vec<const V> loc, Tril<const V> scale_tril,
                                 Vec<const V> grad_loc, Tril<const V> grad_scale_tril,  // inputs
                                 Vec<V> new_loc, Tril<V> new_scale_tril) {              // outputs
    const V a = constant<V>(attribute[0]), poison = poison_unless_positive<V>(d, scale_tril);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) new_loc[i] = constant<V>(0);
    multiply_lower_transposed(d, scale_tril, grad_loc, new_loc);
    for (int64_t i = rank_in_team(); i < d; i += kTeam) new_loc[i] = a * new_loc[i];
    V shorter = clip_factor<V>(d, new_loc.first, kLongestMove);
    whiten<V>(d, a, scale_tril, grad_scale_tril, new_scale_tril);
    V smaller = clip_factor<V>(triangle(d), new_scale_tril.first, kLongestChange);
    const V bad = poison + (shorter - shorter) + (smaller - smaller);
    shorter = shorter + bad, smaller = smaller + bad;  // clipped before they meet L again: a product may overflow
    for (int64_t i = rank_in_team(); i < d; i += kTeam) new_loc[i] = shorter * new_loc[i];
    for (int64_t k = rank_in_team(); k < triangle(d); k += kTeam)
      new_scale_tril.first[k] = smaller * new_scale_tril.first[k];
    sync_team();
    // From the last row up: row i needs u and A of the rows above it, and its own before it is written.
    for (int64_t i = d - 1; i >= 0; --i) {
      const Ptr<const V> l = scale_tril.row(i);
      const Ptr<V> row = new_scale_tril.row(i);
      V moved = constant<V>(0);
      for (int64_t j = rank_in_team(); j <= i; j += kTeam) moved = mul_add(l[j], new_loc[j], moved);
      moved = sum_of_team(moved);
      if (i % kTeam == rank_in_team()) new_loc[i] = loc[i] + moved;
      for (int64_t j = rank_in_team(); j < i; j += kTeam) row[j] = l[i] * row[j];
      for (int64_t k = 0; k < i; ++k)
        for (int64_t j = rank_in_team(); j <= k; j += kTeam) row[j] = mul_add(l[k], new_scale_tril(k, j), row[j]);
      for (int64_t j = rank_in_team(); j < i; j += kTeam) row[j] = l[j] + row[j];
      if (i % kTeam == rank_in_team()) row[i] = l[i] * exp(row[i]);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
