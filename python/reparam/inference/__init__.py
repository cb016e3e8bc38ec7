# SPDX-License-Identifier: MIT
"""Variational inference."""

from .amortized import AmortizedPosterior, fit_amortized
from .diagnostics import psis_khat
from .maximize_elbo import Step, maximize_elbo
from .refine import refine
from .vi import VIResult, fit_vi

__all__ = [
    "AmortizedPosterior",
    "Step",
    "VIResult",
    "fit_amortized",
    "fit_vi",
    "maximize_elbo",
    "psis_khat",
    "refine",
]
