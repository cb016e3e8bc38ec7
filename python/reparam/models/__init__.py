# SPDX-License-Identifier: MIT
"""Models with latent variables."""

from .gaussian_mixture import GaussianMixture
from .vae import VAE

__all__ = ["VAE", "GaussianMixture"]
