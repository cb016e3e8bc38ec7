# SPDX-License-Identifier: MIT
"""Variational inference."""

from .amortized import AmortizedPosterior, fit_amortized
from .maximize_elbo import Step, maximize_elbo
from .refine import refine

__all__ = ["AmortizedPosterior", "Step", "fit_amortized", "maximize_elbo", "refine"]
