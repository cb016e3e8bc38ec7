# SPDX-License-Identifier: MIT
"""The guides of NumPyro whose posterior is a multivariate normal."""

from __future__ import annotations

from typing import Any

from numpyro.infer import autoguide

from ._distribution import MultivariateNormal

__all__ = ["AutoBatchedMultivariateNormal", "AutoMultivariateNormal"]


class AutoMultivariateNormal(autoguide.AutoMultivariateNormal):
    """``numpyro.infer.autoguide.AutoMultivariateNormal`` on the kernels of ``reparam``; same parameters, same draws."""

    def _get_posterior(self) -> Any:
        return _on_kernels(super()._get_posterior())

    def get_posterior(self, params: Any) -> Any:
        """The posterior over the unconstrained latents."""
        return _on_kernels(super().get_posterior(params))


class AutoBatchedMultivariateNormal(autoguide.AutoBatchedMultivariateNormal):
    """``numpyro.infer.autoguide.AutoBatchedMultivariateNormal``: one factor for each element of the batch dims.

    Same parameters, same draws.
    """

    def _get_batched_posterior(self) -> Any:
        return _on_kernels(super()._get_batched_posterior())


def _on_kernels(posterior: Any) -> MultivariateNormal:
    return MultivariateNormal(posterior.loc, scale_tril=posterior.scale_tril)
