// SPDX-License-Identifier: MIT
// The ELBO and its gradient for a generalized linear model, noise made in the kernel or given: see elbo_glm.hpp.
#pragma once
#include "elbo_glm.hpp"

namespace reparam::REPARAM_ARCH {

struct elbo_diag_glm : ElboGlm<DiagFamily> {
  static constexpr auto signature = "(s,d)~,(d),(d),(n,d),(n),(),()->(s),(),(),(d),(d)";
  static constexpr bool takes_team = true;
};

}  // namespace reparam::REPARAM_ARCH
