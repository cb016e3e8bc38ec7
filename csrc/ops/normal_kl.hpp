// SPDX-License-Identifier: MIT
// KL(N(loc, s^2) || N(other_loc, t^2)) = h(s/t) + y^2/2, y = (other_loc - loc)/t, h(r) = (r^2 - 1)/2 - log r >= 0.
// Never negative; relative error as of normal_diag_kl. Cost 20 flops, 4 divisions and a logarithm, 5 elements moved.
// vjp, with c = (s/t)^2 - 1:  loc: -y/t,  s: c/s,  other_loc: y/t,  t: -(c + y^2)/t, all times ct.
#pragma once
#include "normal_diag_kl.hpp"
#include "normal_scalar.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_kl {
  static constexpr auto signature = "(),(),(),()->()";
  static REPARAM_HD double flops(const int64_t*) { return 45; }

  template <class V>
  REPARAM_HD static void forward(Scalar<const V> loc, Scalar<const V> scale, Scalar<const V> other_loc,
                                 Scalar<const V> other_scale,  // inputs
                                 Scalar<V> kl) {               // outputs
    normal_diag_kl::forward<V>(kOneCoordinate, as_vector(loc), as_vector(scale), as_vector(other_loc),
                               as_vector(other_scale), kl);
  }

  template <class V>
  REPARAM_HD static void vjp(Scalar<const V> loc, Scalar<const V> scale, Scalar<const V> other_loc,
                             Scalar<const V> other_scale,  // inputs
                             Scalar<const V> ct_kl,        // output cotangents
                             Scalar<V> ct_loc, Scalar<V> ct_scale, Scalar<V> ct_other_loc,
                             Scalar<V> ct_other_scale) {  // input cotangents
    normal_diag_kl::vjp<V>(kOneCoordinate, as_vector(loc), as_vector(scale), as_vector(other_loc),
                           as_vector(other_scale), ct_kl, as_vector(ct_loc), as_vector(ct_scale),
                           as_vector(ct_other_loc), as_vector(ct_other_scale));
  }
};

}  // namespace reparam::REPARAM_ARCH
