# SPDX-License-Identifier: MIT
"""Gaussian distributions: thin, frozen, no mathematics of their own (the ops have it)."""

from __future__ import annotations

from .encoded import EncodedNormal
from .families import MultivariateNormal, MultivariateNormalDiag, Normal, matrix_cotangent
from .kl import kl_divergence

__all__ = [
    "EncodedNormal",
    "MultivariateNormal",
    "MultivariateNormalDiag",
    "Normal",
    "kl_divergence",
    "matrix_cotangent",
]
