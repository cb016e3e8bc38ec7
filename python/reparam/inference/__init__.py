# SPDX-License-Identifier: MIT
"""Variational inference."""

from .amortized import AmortizedPosterior, fit_amortized
from .diagnostics import psis_khat
from .map import MAPResult, map_estimate
from .maximize_elbo import Step, maximize_elbo
from .refine import refine
from .vi import VIResult, fit_vi

__all__ = [
    "AmortizedPosterior",
    "MAPResult",
    "Step",
    "VIResult",
    "fit_amortized",
    "fit_vi",
    "map_estimate",
    "maximize_elbo",
    "psis_khat",
    "refine",
]
