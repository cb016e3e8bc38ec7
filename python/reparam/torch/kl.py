# SPDX-License-Identifier: MIT
"""The Kullback-Leibler divergence between the Gaussians of this package and those of PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import Independent, Normal
from torch.distributions.kl import register_kl

from ._functions import FUNCTIONS
from .multivariate_normal import MultivariateNormal

__all__: list[str] = []

_Theirs = torch.distributions.MultivariateNormal


@register_kl(MultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, _Theirs)
@register_kl(_Theirs, MultivariateNormal)
def _kl_of_two_factors(p: Any, q: Any) -> Any:
    _check_events(p, q)
    fields = (p.loc, p._unbroadcasted_scale_tril, q.loc, q._unbroadcasted_scale_tril)
    return FUNCTIONS["normal_tril_kl"](*fields)


@register_kl(MultivariateNormal, Independent)
def _kl_to_independent(p: Any, q: Any) -> Any:
    """In units of q it is the KL to a standard normal, of d^2 operations an event in place of d^3 / 3."""
    normal = _normal_of(p, q)
    return p._kl_standard((p.loc - normal.loc) / normal.scale, normal.scale)


@register_kl(Independent, MultivariateNormal)
def _kl_of_independent(p: Any, q: Any) -> Any:
    normal = _normal_of(q, p)
    factor = torch.diag_embed(normal.scale)
    return FUNCTIONS["normal_tril_kl"](normal.loc, factor, q.loc, q._unbroadcasted_scale_tril)


def _normal_of(ours: Any, independent: Any) -> Any:
    """The Normal over whose last batch dim a vector event lies."""
    normal = independent.base_dist
    if not isinstance(normal, Normal) or independent.reinterpreted_batch_ndims != 1:
        came = f"Independent({type(normal).__name__}, {independent.reinterpreted_batch_ndims})"
        raise NotImplementedError(f"KL with a MultivariateNormal is there for Independent(Normal, 1), not for {came}")
    _check_events(ours, independent)
    return normal


def _check_events(p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        shapes = f"{tuple(p.event_shape)} and {tuple(q.event_shape)}"
        raise ValueError(
            f"KL-divergence between two Multivariate Normals with different event shapes cannot be computed: {shapes}"
        )
