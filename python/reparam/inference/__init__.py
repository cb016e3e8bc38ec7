# SPDX-License-Identifier: MIT
"""Variational inference."""

from .maximize_elbo import Step, maximize_elbo
from .refine import refine

__all__ = ["Step", "maximize_elbo", "refine"]
