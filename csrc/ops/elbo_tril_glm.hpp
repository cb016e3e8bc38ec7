// SPDX-License-Identifier: MIT
// The ELBO and its gradient for a generalized linear model, noise made in the kernel or given: see elbo_glm.hpp.
#pragma once
#include "elbo_glm.hpp"

namespace reparam::REPARAM_ARCH {

struct elbo_tril_glm : ElboGlm<TrilFamily> {
  static constexpr auto signature = "(s,d)~,(d),tril(d),(n,d),(n),(),()->(s),(),(),(d),tril(d)";
  static constexpr bool takes_team = true;
};

}  // namespace reparam::REPARAM_ARCH
