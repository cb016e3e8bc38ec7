# SPDX-License-Identifier: MIT
"""The guides of NumPyro whose posterior is a multivariate normal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import ScaledUnitLowerCholeskyTransform
from numpyro.infer import autoguide

from .. import jax as kernels
from ._distribution import MultivariateNormal, is_ours

__all__ = ["AutoBatchedMultivariateNormal", "AutoMultivariateNormal"]


class _ScaledUnitLowerCholesky(type(constraints.scaled_unit_lower_cholesky)):  # type: ignore[misc]
    """The constraint of NumPyro's guides, by whose class a transform is looked up."""


class _Transform(ScaledUnitLowerCholeskyTransform):
    """From the vector of NumPyro's, the entries below the diagonal row after row, then the diagonal, in one op."""

    codomain = _ScaledUnitLowerCholesky()

    def __call__(self, x: Any) -> Any:
        if not is_ours(x):
            return super().__call__(x)
        entries = x.shape[-1]
        d = (math.isqrt(1 + 8 * entries) - 1) // 2
        row, column = np.tril_indices(d)
        place = np.where(row == column, entries - d + row, row * (row - 1) // 2 + column)
        return kernels.tril_from_vector(x[..., place], diagonal="softplus", row_scaled=True)


biject_to.register(_ScaledUnitLowerCholesky, lambda _: _Transform())


class AutoMultivariateNormal(autoguide.AutoMultivariateNormal):
    """``numpyro.infer.autoguide.AutoMultivariateNormal`` on the kernels of ``reparam``; same parameters, same draws."""

    scale_tril_constraint = _Transform.codomain

    def _get_posterior(self) -> Any:
        return _on_kernels(super()._get_posterior())

    def get_posterior(self, params: Any) -> Any:
        """The posterior over the unconstrained latents."""
        return _on_kernels(super().get_posterior(params))


class AutoBatchedMultivariateNormal(autoguide.AutoBatchedMultivariateNormal):
    """``numpyro.infer.autoguide.AutoBatchedMultivariateNormal``: one factor for each element of the batch dims.

    Same parameters, same draws.
    """

    scale_tril_constraint = _Transform.codomain

    def _get_batched_posterior(self) -> Any:
        return _on_kernels(super()._get_batched_posterior())


def _on_kernels(posterior: Any) -> MultivariateNormal:
    return MultivariateNormal(posterior.loc, scale_tril=posterior.scale_tril)
