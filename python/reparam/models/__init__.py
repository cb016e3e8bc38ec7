# SPDX-License-Identifier: MIT
"""Models with latent variables."""

from .evidence import Gaps
from .vae import VAE

__all__ = ["VAE", "Gaps"]
