// SPDX-License-Identifier: MIT
// value = loc + scale noise. NaN in the event unless scale > 0.
// Cost 2 flops, 4 elements moved.   vjp: noise: scale ct;  loc: ct;  scale: ct noise.
#pragma once
#include "normal_diag_transform.hpp"
#include "normal_scalar.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_transform {
  static constexpr auto signature = "()~,(),()->()";
  static REPARAM_HD double flops(const int64_t*) { return 2; }

  template <class V>
  REPARAM_HD static void forward(Scalar<const V> noise, Scalar<const V> loc, Scalar<const V> scale,  // inputs
                                 Scalar<V> value) {                                                  // outputs
    normal_diag_transform::forward<V>(kOneCoordinate, as_vector(noise), as_vector(loc), as_vector(scale),
                                      as_vector(value));
  }

  template <class V>
  REPARAM_HD static void vjp(Scalar<const V> noise, Scalar<const V> loc, Scalar<const V> scale,  // inputs
                             Scalar<const V> ct_value,                                           // output cotangents
                             Scalar<V> ct_noise, Scalar<V> ct_loc, Scalar<V> ct_scale) {         // input cotangents
    normal_diag_transform::vjp<V>(kOneCoordinate, as_vector(noise), as_vector(loc), as_vector(scale),
                                  as_vector(ct_value), as_vector(ct_noise), as_vector(ct_loc), as_vector(ct_scale));
  }
};

}  // namespace reparam::REPARAM_ARCH
