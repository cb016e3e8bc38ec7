// SPDX-License-Identifier: MIT
// The ELBO and its gradient for a linear-Gaussian target, noise made in the kernel or given: see
// elbo_linear_gaussian.hpp.
#pragma once
#include "elbo_linear_gaussian.hpp"

namespace reparam::REPARAM_ARCH {

struct elbo_diag_linear_gaussian : ElboLinearGaussian<DiagFamily> {
  static constexpr auto signature = "(s,d)~,(d),(d),(n),(n,d),(n),()->(s),(),(),(d),(d)";
  static constexpr bool takes_team = true;
};

}  // namespace reparam::REPARAM_ARCH
