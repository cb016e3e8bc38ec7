// SPDX-License-Identifier: MIT
// value = loc + s noise, s = scale_diag. NaN in the event unless every s_i > 0.
// Cost 2 d flops, 4 d elements moved.   vjp: noise: s ct;  loc: ct;  s: ct noise.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct normal_diag_transform {
  static constexpr auto signature = "(d)~,(d),(d)->(d)";
  static REPARAM_HD double flops(const int64_t* n) { return 2.0 * n[0]; }

  template <class V, class N>
  REPARAM_HD static void forward(N d, Vec<const V> noise, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                                 Vec<V> value) {                                                      // outputs
    const V poison = poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) value[i] = mul_add(scale_diag[i], noise[i], loc[i]) + poison;
  }

  template <class V, class N>
  REPARAM_HD static void vjp(N d, Vec<const V> noise, Vec<const V> loc, Vec<const V> scale_diag,  // inputs
                             Vec<const V> ct_value,                                               // output cotangents
                             Vec<V> ct_noise, Vec<V> ct_loc, Vec<V> ct_scale_diag) {              // input cotangents
    (void)loc;
    const V poison = poison_unless_positive<V>(d, scale_diag);
    for (int64_t i = 0; i < d; ++i) {
      const V ct = ct_value[i] + poison;
      ct_noise[i] = ct * scale_diag[i], ct_loc[i] = ct, ct_scale_diag[i] = ct * noise[i];
    }
  }
};

}  // namespace reparam::REPARAM_ARCH
