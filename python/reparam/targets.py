# SPDX-License-Identifier: MIT
"""Built-in targets of :func:`reparam.elbo`: log densities that run fused in the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._check import as_float_array, as_weak_scalar, broadcast_batches, check_finite, is_weak, same_dtype

__all__ = ["LinearGaussian"]


@dataclass(frozen=True, eq=False, repr=False)
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

    Arrays are float32 or float64, of one dtype.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    x: Any
    weight: Any
    bias: Any
    noise_scale: Any

    def __post_init__(self) -> None:
        arrays = {n: as_float_array(f"LinearGaussian: {n}", getattr(self, n)) for n in ("x", "weight", "bias")}
        scale, dtype = self.noise_scale, arrays["x"].dtype
        if is_weak(scale):
            scale = as_weak_scalar("LinearGaussian: noise_scale", scale, dtype)
        arrays["noise_scale"] = as_float_array("LinearGaussian: noise_scale", scale, "a number or an array")
        for name, array in arrays.items():
            same_dtype("LinearGaussian", ("x", dtype), (name, array.dtype))
            object.__setattr__(self, name, array)
        self._check_shapes()
        for name in ("x", "weight", "bias"):
            check_finite(f"LinearGaussian: {name}", arrays[name])
        bad = ~((self.noise_scale > 0) & np.isfinite(self.noise_scale))
        if bad.any():
            raise ValueError(f"LinearGaussian: noise_scale must be finite and > 0, got {self.noise_scale[bad][0]}")

    def _check_shapes(self) -> None:
        shape = self.weight.shape
        if len(shape) < 2:
            raise ValueError(f"LinearGaussian: weight must have shape (..., data_dim, latent_dim), got {shape}")
        data_dim = shape[-2]
        for name in ("x", "bias"):
            shape = getattr(self, name).shape
            if shape[-1:] != (data_dim,):
                because = f"with data_dim = {data_dim} (from weight)"
                raise ValueError(f"LinearGaussian: {name} must have shape (..., data_dim) {because}, got {shape}")
        _ = self.batch_shape

    def __repr__(self) -> str:
        data_dim, latent_dim = self.weight.shape[-2:]
        sizes = f"batch_shape={self.batch_shape}, data_dim={data_dim}, latent_dim={latent_dim}"
        return f"LinearGaussian({sizes}, dtype={self.dtype})"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of problems."""
        shapes = [self.x.shape[:-1], self.weight.shape[:-2], self.bias.shape[:-1], self.noise_scale.shape]
        return broadcast_batches("LinearGaussian", ["x", "weight", "bias", "noise_scale"], shapes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        dtype: np.dtype[Any] = self.x.dtype
        return dtype

    @property
    def latent_dim(self) -> int:
        """Size of z."""
        return int(self.weight.shape[-1])
