// SPDX-License-Identifier: MIT
// A = L L^T, L lower with positive diagonal. Reads the lower triangle of A only.
// Left-looking by columns: L_ij = (A_ij - sum_{k<j} L_ik L_jk) / L_jj, four rows at a time, one reciprocal per pivot.
// info: 0, or the 1-based first leading minor whose pivot is not > 0 or not finite; L is then NaN in that event.
// Cost d^3/3 flops, d^2/2 + d^2 elements moved. Residual |L L^T - A|_1 <= 3 d u |A|_1.
// vjp (I. Murray, arXiv 1602.07527, the unblocked sweep), from L: A_bar = (S + S^T)/2, S = L^-T Phi(L^T L_bar) L^-1,
// Phi = lower triangle with halved diagonal. In place, 2 d^3/3 flops, no triangular solves.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct cholesky_ex {
  static constexpr auto signature = "sym(d)->tril(d),():i4";
  static constexpr bool vjp_from_outputs = true;
  static REPARAM_HD double flops(const int64_t* n) { return n[0] * n[0] * (n[0] / 3.0 + 2); }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Tril<const V> a,                  // inputs
                                 Tril<V> scale_tril, Scalar<V> info) {  // outputs
    const V zero = constant<V>(0);
    V first_bad = zero;
    for (int64_t j = 0; j < d; ++j) {
      const V* lj = scale_tril.row(j);
      V pivot = a(j, j);
      for (int64_t k = 0; k < j; ++k) pivot = mul_add(-lj[k], lj[k], pivot);
      const auto good = (pivot > zero) & (pivot < constant<V>(__builtin_inf()));
      const V here = select(first_bad == zero, constant<V>(static_cast<double>(j + 1)), first_bad);
      first_bad = select(good, first_bad, here);
      const V root = square_root(pivot), inverse = constant<V>(1) / root;
      scale_tril(j, j) = root;
      int64_t i = j + 1;
      for (; i + 4 <= d; i += 4) {
        V *r0 = scale_tril.row(i), *r1 = scale_tril.row(i + 1), *r2 = scale_tril.row(i + 2),
          *r3 = scale_tril.row(i + 3);
        V s0 = a(i, j), s1 = a(i + 1, j), s2 = a(i + 2, j), s3 = a(i + 3, j);
        for (int64_t k = 0; k < j; ++k) {
          const V minus = -lj[k];
          s0 = mul_add(r0[k], minus, s0);
          s1 = mul_add(r1[k], minus, s1);
          s2 = mul_add(r2[k], minus, s2);
          s3 = mul_add(r3[k], minus, s3);
        }
        r0[j] = s0 * inverse, r1[j] = s1 * inverse, r2[j] = s2 * inverse, r3[j] = s3 * inverse;
      }
      for (; i < d; ++i) {
        V sum = a(i, j), *li = scale_tril.row(i);
        for (int64_t k = 0; k < j; ++k) sum = mul_add(-lj[k], li[k], sum);
        li[j] = sum * inverse;
      }
    }
    info() = first_bad;
    const auto failed = first_bad > zero;
    for (int64_t k = 0; k < triangle(d); ++k) scale_tril.first[k] = select(failed, quiet_nan<V>(), scale_tril.first[k]);
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Tril<const V> scale_tril,  // outputs of forward
                             Tril<const V> ct_scale_tril,    // output cotangents
                             Tril<V> ct_a) {                 // input cotangents
    for (int64_t k = 0; k < triangle(d); ++k) ct_a.first[k] = ct_scale_tril.first[k];
    for (int64_t j = d - 1; j >= 0; --j) {
      const V *r = scale_tril.row(j), inverse = constant<V>(1) / scale_tril(j, j);
      V *r_bar = ct_a.row(j), pivot_bar = ct_a(j, j);
      for (int64_t i = j + 1; i < d; ++i) {
        V& c_bar = ct_a(i, j);
        c_bar = c_bar * inverse;
        pivot_bar = mul_add(-scale_tril(i, j), c_bar, pivot_bar);
      }
      pivot_bar = pivot_bar * inverse;
      for (int64_t k = 0; k < j; ++k) r_bar[k] = mul_add(-pivot_bar, r[k], r_bar[k]);
      for (int64_t i = j + 1; i < d; ++i) {
        const V minus = -ct_a(i, j), *b = scale_tril.row(i);
        V* b_bar = ct_a.row(i);
        for (int64_t k = 0; k < j; ++k) {
          r_bar[k] = mul_add(minus, b[k], r_bar[k]);
          b_bar[k] = mul_add(minus, r[k], b_bar[k]);
        }
      }
      ct_a(j, j) = pivot_bar * constant<V>(0.5);
    }
    for (int64_t i = 1; i < d; ++i)  // each off-diagonal entry stands twice in a symmetric matrix
      for (int64_t j = 0; j < i; ++j) ct_a(i, j) = ct_a(i, j) * constant<V>(0.5);
  }
};

}  // namespace reparam::REPARAM_ARCH
