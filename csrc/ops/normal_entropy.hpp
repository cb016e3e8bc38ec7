// SPDX-License-Identifier: MIT
// Entropy of N(loc, scale^2): log scale + (1 + log(2 pi))/2.   vjp: scale: ct / scale.
// Cost a logarithm, 2 elements moved.
#pragma once
#include "normal_diag_entropy.hpp"
#include "normal_scalar.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_entropy {
  static constexpr auto signature = "()->()";
  static REPARAM_HD double flops(const int64_t*) { return 20; }

  template <class V>
  REPARAM_HD static void forward(Scalar<const V> scale,  // inputs
                                 Scalar<V> entropy) {    // outputs
    normal_diag_entropy::forward<V>(kOneCoordinate, as_vector(scale), entropy);
  }

  template <class V>
  REPARAM_HD static void vjp(Scalar<const V> scale,       // inputs
                             Scalar<const V> ct_entropy,  // output cotangents
                             Scalar<V> ct_scale) {        // input cotangents
    normal_diag_entropy::vjp<V>(kOneCoordinate, as_vector(scale), ct_entropy, as_vector(ct_scale));
  }
};

}  // namespace reparam::REPARAM_ARCH
