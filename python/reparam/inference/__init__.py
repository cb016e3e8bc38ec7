# SPDX-License-Identifier: MIT
"""Variational inference."""

from .diagnostics import psis_khat
from .maximize_elbo import Step, maximize_elbo
from .refine import refine
from .vi import VIResult, fit_vi

__all__ = ["Step", "VIResult", "fit_vi", "maximize_elbo", "psis_khat", "refine"]
