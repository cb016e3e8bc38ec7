// SPDX-License-Identifier: MIT
// The ELBO and its gradient from the noise, log p(x, z_s) and its gradients of an external target: see elbo.hpp.
#pragma once
#include "elbo.hpp"

namespace reparam::REPARAM_ARCH {

struct elbo_diag_combine : ElboCombine<DiagFamily> {
  static constexpr auto signature = "(s,d)~,(s),(s,d),(d)->(s),(),(),(d),(d)";
  static constexpr bool takes_team = true;
};

}  // namespace reparam::REPARAM_ARCH
