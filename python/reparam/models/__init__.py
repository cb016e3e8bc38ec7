# SPDX-License-Identifier: MIT
"""Models with latent variables."""

from .vae import VAE

__all__ = ["VAE"]
