# SPDX-License-Identifier: MIT
"""Models with latent variables."""

from .evidence import Gaps
from .gaussian_mixture import GaussianMixture
from .linear_gaussian import LinearGaussianModel
from .probabilistic_pca import ProbabilisticPCA
from .vae import VAE

__all__ = ["VAE", "Gaps", "GaussianMixture", "LinearGaussianModel", "ProbabilisticPCA"]
