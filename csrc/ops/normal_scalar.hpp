// SPDX-License-Identifier: MIT
// A scalar event is a vector event of one coordinate: the ops of scalar events run the bodies of normal_diag_*.
#pragma once
#include "../core/linear.hpp"

namespace reparam::REPARAM_ARCH {

inline constexpr Dynamic kOneCoordinate{1};

template <class V>
REPARAM_HD Vec<V> as_vector(Scalar<V> x) {
  return {x.value, x.wanted};
}

}  // namespace reparam::REPARAM_ARCH
