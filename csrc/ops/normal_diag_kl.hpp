// SPDX-License-Identifier: MIT
// KL(N(loc, diag(s^2)) || N(other_loc, diag(t^2))) = sum_i h(s_i/t_i) + |y|^2/2, y = (other_loc - loc)/t,
//   h(r) = (r^2 - 1)/2 - log r >= 0.
// A sum of terms that are never negative, each within 16 u of itself: relative error <= (16 + d) u at any arguments, 0
// where they are equal. Cost 20 d flops, 4 d divisions and d logarithms, 4 d elements moved.
// vjp, with c = (s/t)^2 - 1:  loc: -y/t,  s: c/s,  other_loc: y/t,  t: -(c + y^2)/t, all times ct.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_kl {
  static constexpr auto signature = "(d),(d),(d),(d)->()";
  static REPARAM_HD double flops(const int64_t* n) { return 45.0 * n[0]; }

  template <class V>
  REPARAM_HD static V excess(V scale, V other) {  // scale/other - 1: the difference of close numbers is exact
    return (scale - other) / other;
  }

  // h(scale/other). Near 1 the two terms cancel: there e - log(1 + e) = e^2/2 - s (e^2/2 + z R(z)), s = e/(2 + e),
  // z = s^2, with the series of core/math.hpp, whose leading term e is left out.
  template <class V>
  REPARAM_HD static V scale_term(V scale, V other) {
    const V e = excess(scale, other), half = constant<V>(0.5) * e * e;
    const V s = e / (constant<V>(2) + e), z = s * s;
    const V series = mul_add(z, LogSeries<ElementOf<V>>::template at<Fused>(z), half);
    return select(z < constant<V>(0.029), half + mul_add(-s, series, half), e + half - log(scale / other));
  }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> loc, Vec<const V> scale_diag, Vec<const V> other_loc,
                                 Vec<const V> other_scale_diag,  // inputs
                                 Scalar<V> kl) {                 // outputs
    V sum = poison_unless_positive<V>(d, scale_diag) + poison_unless_positive<V>(d, other_scale_diag);
    for (int64_t i = 0; i < d; ++i) {
      const V y = (other_loc[i] - loc[i]) / other_scale_diag[i];
      sum = sum + mul_add(constant<V>(0.5) * y, y, scale_term(scale_diag[i], other_scale_diag[i]));
    }
    kl() = sum;
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> loc, Vec<const V> scale_diag, Vec<const V> other_loc,
                             Vec<const V> other_scale_diag,  // inputs
                             Scalar<const V> ct_kl,          // output cotangents
                             Vec<V> ct_loc, Vec<V> ct_scale_diag, Vec<V> ct_other_loc,
                             Vec<V> ct_other_scale_diag) {  // input cotangents
    const V ct = ct_kl() + poison_unless_positive<V>(d, scale_diag) + poison_unless_positive<V>(d, other_scale_diag);
    for (int64_t i = 0; i < d; ++i) {
      const V slope = ct / other_scale_diag[i], y = (other_loc[i] - loc[i]) / other_scale_diag[i];
      const V e = excess(scale_diag[i], other_scale_diag[i]), c = e * (constant<V>(2) + e);
      ct_other_loc[i] = slope * y;
      ct_loc[i] = -ct_other_loc[i];
      ct_scale_diag[i] = ct * c / scale_diag[i];
      ct_other_scale_diag[i] = -slope * mul_add(y, y, c);
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
