// SPDX-License-Identifier: MIT
// The map from an unconstrained entry v to a scale and back, with its slopes:
//   s = f(v) + floor, f = exp or softplus (attributes 0 and 1 of the ops on vectors; tril_from_vector has the map).
// Where s = exp(v) its logarithm is v: exact, and finite where s overflows.
#pragma once
#include "tril_from_vector.hpp"

namespace reparam::REPARAM_ARCH {

template <class V>
REPARAM_HD V scale_of(const double* attribute, V v) {
  return tril_from_vector::scale_of(attribute, v);
}

template <class V>
REPARAM_HD V slope_of(const double* attribute, V v) {  // ds/dv
  return attribute[0] == 0 ? exp(v) : sigmoid(v);
}

REPARAM_HD bool is_plain_exp(const double* attribute) { return attribute[0] == 0 && attribute[1] == 0; }

template <class V>
REPARAM_HD V log_scale_of(const double* attribute, V v, V scale) {  // log s
  return is_plain_exp(attribute) ? v : log(scale);
}

template <class V>
REPARAM_HD V log_slope_of(const double* attribute, V v, V scale) {  // d log s / dv
  return is_plain_exp(attribute) ? constant<V>(1) : slope_of(attribute, v) / scale;
}

// v of a scale, given as s - floor; softplus^-1(y) = y + log(1 - exp(-y)) neither overflows nor cancels.
template <class V>
REPARAM_HD V entry_of(const double* attribute, V above_floor) {
  return attribute[0] == 0 ? log(above_floor) : above_floor + log(-expm1(-above_floor));
}

template <class V>
REPARAM_HD V entry_slope_of(const double* attribute, V above_floor) {  // dv/ds
  return constant<V>(1) / (attribute[0] == 0 ? above_floor : -expm1(-above_floor));
}

}  // namespace reparam::REPARAM_ARCH
