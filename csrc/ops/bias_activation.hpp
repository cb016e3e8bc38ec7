// SPDX-License-Identifier: MIT
// y = f(x + bias), f one of identity, tanh, relu, gelu (exact, by erf), silu, softplus (attribute 0..5).
// gelu has an absolute error of 2 u |x| in its lower tail, where 1 + erf cancels, as torch's has.
// Cost up to one transcendental function, 3 elements moved.   vjp: x and bias: ct f'(x + bias).
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

struct bias_activation {
  static constexpr auto signature = "(),()->()";
  static constexpr auto attributes = "activation";
  static REPARAM_HD double flops(const int64_t*) { return 40; }
  enum Activation { identity, tanh_, relu, gelu, silu, softplus_ };

  template <class V>
  REPARAM_HD static void forward(const double* attribute, Scalar<const V> x, Scalar<const V> bias,  // inputs
                                 Scalar<V> y) {                                                     // outputs
    const V h = x() + bias(), zero = constant<V>(0), half = constant<V>(0.5);
    switch (static_cast<int>(attribute[0])) {
      case tanh_: y() = tanh(h); break;
      case relu: y() = select(h < zero, zero, h); break;  // a NaN passes
      case gelu: y() = half * h * (constant<V>(1) + erf(h * constant<V>(0.70710678118654752440))); break;
      case silu: y() = h * sigmoid(h); break;
      case softplus_: y() = softplus(h); break;
      default: y() = h;
    }
  }

  template <class V>
  REPARAM_HD static void vjp(const double* attribute, Scalar<const V> x, Scalar<const V> bias,  // inputs
                             Scalar<const V> ct_y,                                              // output cotangents
                             Scalar<V> ct_x, Scalar<V> ct_bias) {                               // input cotangents
    const V h = x() + bias(), zero = constant<V>(0), one = constant<V>(1), half = constant<V>(0.5);
    V slope = one;
    switch (static_cast<int>(attribute[0])) {
      case tanh_: {  // 1 - tanh^2 without cancellation
        const V e = exp(constant<V>(-2) * absolute(h)), sum = one + e;
        slope = constant<V>(4) * e / (sum * sum);
        break;
      }
      case relu: slope = select(h > zero, one, zero); break;
      case gelu: {
        const V density = constant<V>(0.39894228040143267794) * exp(-half * h * h);
        slope = mul_add(h, density, half * (one + erf(h * constant<V>(0.70710678118654752440))));
        break;
      }
      case silu: {
        const V s = sigmoid(h);
        slope = s * mul_add(h, one - s, one);
        break;
      }
      case softplus_: slope = sigmoid(h); break;
    }
    ct_x() = ct_y() * slope;
    ct_bias() = ct_x();
  }
};

}  // namespace reparam::REPARAM_ARCH
