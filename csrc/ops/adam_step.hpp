// SPDX-License-Identifier: MIT
// Adam (Kingma and Ba, arXiv 1412.6980) with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in
// place:
//   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2;   param -= lr (weight_decay param + (m / bias1) / (sqrt(v /
//   bias2) + eps))
// bias1 = 1 - b1^t and bias2 = 1 - b2^t come from the caller, in float64. Cost 15 flops, 7 elements moved.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct adam_step {
  static constexpr auto signature = "()!,(),()!,()!->";
  static constexpr auto attributes = "step_size,beta1,beta2,eps,weight_decay,bias1,bias2";
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t*) { return 15; }

  template <class V>
  REPARAM_HD static void forward(const double* attribute, Scalar<V> param, Scalar<const V> grad, Scalar<V> m,
                                 Scalar<V> v) {
    const double beta1 = attribute[1], beta2 = attribute[2];
    const V g = grad(), keep = constant<V>(1 - attribute[0] * attribute[4]);
    m() = mul_add(constant<V>(1 - beta1), g - m(), m());
    v() = mul_add(constant<V>(beta2), v(), constant<V>(1 - beta2) * (g * g));
    const V scale = mul_add(square_root(v()), constant<V>(1 / __builtin_sqrt(attribute[6])), constant<V>(attribute[3]));
    param() = mul_add(constant<V>(-attribute[0] / attribute[5]), m() / scale, param() * keep);
  }
};

}  // namespace reparam::REPARAM_ARCH
