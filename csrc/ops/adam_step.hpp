// SPDX-License-Identifier: MIT
// Adam (Kingma and Ba, arXiv 1412.6980) with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), in
// place:
//   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
//   param -= lr (weight_decay param + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)),   t = step, from 1
// What does not depend on the element is prepared once a call, in float64: in float32, 1 - 0.999 has 4 digits.
// Cost 15 flops, 7 elements moved.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct adam_step {
  static constexpr auto signature = "()!,(),()!,()!->";
  static constexpr auto attributes = "step,lr,beta1,beta2,eps,weight_decay";
  static constexpr bool has_vjp = false;
  static REPARAM_HD double flops(const int64_t*) { return 15; }

  // 1 - beta^t without cancellation.
  static REPARAM_HD double bias(double beta, double t) { return -expm1(t * log(beta)); }

  enum Prepared { keep, gain1, beta2, gain2, root_scale, eps, rate };
  static REPARAM_HD void prepare(const double* attribute, double* to) {
    const double t = attribute[0], lr = attribute[1], b1 = attribute[2], b2 = attribute[3];
    to[keep] = 1 - lr * attribute[5];
    to[gain1] = 1 - b1;
    to[beta2] = b2;
    to[gain2] = 1 - b2;
    to[root_scale] = 1 / square_root(bias(b2, t));
    to[eps] = attribute[4];
    to[rate] = -lr / bias(b1, t);
  }

  template <class V>
  REPARAM_HD static void forward(const double* prepared, Scalar<V> param, Scalar<const V> grad, Scalar<V> m,
                                 Scalar<V> v) {
    const auto of = [prepared](Prepared name) { return constant<V>(prepared[name]); };
    const V g = grad();
    m() = mul_add(of(gain1), g - m(), m());
    v() = mul_add(of(beta2), v(), of(gain2) * (g * g));
    const V scale = mul_add(square_root(v()), of(root_scale), of(eps));
    param() = mul_add(of(rate), m() / scale, param() * of(keep));
  }
};

}  // namespace reparam::REPARAM_ARCH
