# SPDX-License-Identifier: MIT
"""Built-in targets of :func:`reparam.elbo`: log densities that run fused in the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LinearGaussian"]


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """``z ~ N(0, I)``, ``x | z ~ N(weight z + bias, noise_scale^2 I)``.

    Parameters
    ----------
    x : array, shape (..., data_dim)
        The observed row of each event.
    weight : array, shape (data_dim, latent_dim), or with batch dims in front
    bias : array, shape (data_dim,), or with batch dims in front
    noise_scale : float or array, shape (...)
        Positive.

    Raises
    ------
    ValueError
        For shapes that do not fit, or a noise scale that is not positive.
    """

    x: Any
    weight: Any
    bias: Any
    noise_scale: Any

    def __post_init__(self) -> None:
        x, weight, bias = np.shape(self.x), np.shape(self.weight), np.shape(self.bias)
        if len(weight) < 2:
            raise ValueError(f"weight must have shape (..., data_dim, latent_dim), got {weight}")
        for name, shape in (("x", x), ("bias", bias)):
            if not shape or shape[-1] != weight[-2]:
                raise ValueError(
                    f"{name} must have shape (..., data_dim) with data_dim = {weight[-2]} (from weight), got {shape}"
                )
        if not np.all(np.asarray(self.noise_scale) > 0):
            raise ValueError(f"noise_scale must be > 0, got {self.noise_scale!r}")

    @property
    def latent_dim(self) -> int:
        """Size of z."""
        return int(np.shape(self.weight)[-1])
