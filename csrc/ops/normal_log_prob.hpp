// SPDX-License-Identifier: MIT
// log N(value | loc, scale^2):  y = (value - loc)/scale;  log_prob = -y^2/2 - log scale - log(2 pi)/2.
// Cost 4 flops and a logarithm, 4 elements moved.
// vjp: value: -y/scale,  loc: y/scale,  scale: (y^2 - 1)/scale, all times ct.
#pragma once
#include "normal_diag_log_prob.hpp"
#include "normal_scalar.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_log_prob {
  static constexpr auto signature = "(),(),()->()";
  static REPARAM_HD double flops(const int64_t*) { return 30; }

  template <class V>
  REPARAM_HD static void forward(Scalar<const V> value, Scalar<const V> loc, Scalar<const V> scale,  // inputs
                                 Scalar<V> log_prob) {                                               // outputs
    normal_diag_log_prob::forward<V>(kOneCoordinate, as_vector(value), as_vector(loc), as_vector(scale), log_prob);
  }

  template <class V>
  REPARAM_HD static void vjp(Scalar<const V> value, Scalar<const V> loc, Scalar<const V> scale,  // inputs
                             Scalar<const V> ct_log_prob,                                        // output cotangents
                             Scalar<V> ct_value, Scalar<V> ct_loc, Scalar<V> ct_scale) {         // input cotangents
    normal_diag_log_prob::vjp<V>(kOneCoordinate, as_vector(value), as_vector(loc), as_vector(scale), ct_log_prob,
                                 as_vector(ct_value), as_vector(ct_loc), as_vector(ct_scale));
  }
};

}  // namespace reparam::REPARAM_ARCH
