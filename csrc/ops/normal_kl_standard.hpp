// SPDX-License-Identifier: MIT
// KL(N(loc, scale^2) || N(0, 1)) = h(scale) + loc^2/2, h(r) = (r^2 - 1)/2 - log r >= 0.
// Never negative; relative error as of normal_diag_kl_standard. Cost 20 flops, a division and a logarithm, 3 elements
// moved. vjp: loc: ct loc;  scale: ct (scale - 1/scale).
#pragma once
#include "normal_diag_kl_standard.hpp"
#include "normal_scalar.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_kl_standard {
  static constexpr auto signature = "(),()->()";
  static REPARAM_HD double flops(const int64_t*) { return 45; }

  template <class V>
  REPARAM_HD static void forward(Scalar<const V> loc, Scalar<const V> scale,  // inputs
                                 Scalar<V> kl) {                              // outputs
    normal_diag_kl_standard::forward<V>(kOneCoordinate, as_vector(loc), as_vector(scale), kl);
  }

  template <class V>
  REPARAM_HD static void vjp(Scalar<const V> loc, Scalar<const V> scale,  // inputs
                             Scalar<const V> ct_kl,                       // output cotangents
                             Scalar<V> ct_loc, Scalar<V> ct_scale) {      // input cotangents
    normal_diag_kl_standard::vjp<V>(kOneCoordinate, as_vector(loc), as_vector(scale), ct_kl, as_vector(ct_loc),
                                    as_vector(ct_scale));
  }
};

}  // namespace reparam::REPARAM_ARCH
