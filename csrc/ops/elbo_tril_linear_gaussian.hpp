// SPDX-License-Identifier: MIT
// The ELBO and its gradient for a linear-Gaussian target, noise made in the kernel or given: see
// elbo_linear_gaussian.hpp.
#pragma once
#include "elbo_linear_gaussian.hpp"

namespace reparam::REPARAM_ARCH {

struct elbo_tril_linear_gaussian : ElboLinearGaussian<TrilFamily> {
  static constexpr auto signature = "(s,d)~,(d),tril(d),(n),(n,d),(n),()->(s),(),(),(d),tril(d)";
  static constexpr bool takes_team = true;
};

}  // namespace reparam::REPARAM_ARCH
