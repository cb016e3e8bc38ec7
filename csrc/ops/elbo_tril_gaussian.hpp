// SPDX-License-Identifier: MIT
// The ELBO and its gradient for a Gaussian target, noise made in the kernel or given: see elbo_gaussian.hpp.
#pragma once
#include "elbo_gaussian.hpp"

namespace reparam::REPARAM_ARCH {

struct elbo_tril_gaussian : ElboGaussian<TrilFamily> {
  static constexpr auto signature = "(s,d)~,(d),tril(d),(d),tril(d)->(s),(),(),(d),tril(d)";
  static constexpr bool takes_team = true;
};

}  // namespace reparam::REPARAM_ARCH
