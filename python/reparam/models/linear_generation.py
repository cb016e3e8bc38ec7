# SPDX-License-Identifier: MIT
"""The generative half of a linear-Gaussian model: z from its prior, x given z."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from .. import random as rp_random
from .._arrays import move, on_its_device
from .._check import as_int, as_key
from ..inference.data import as_latent

__all__ = ["LinearGeneration", "Theta"]

Array = NDArray[Any]


class Theta(NamedTuple):
    """The parameters."""

    weight: Array
    bias: Array
    noise_scale: float


class LinearGeneration:
    """What a model can do with its parameters alone."""

    _theta: Any  # what the other half provides

    def _theta_at(self, like: Array) -> Theta:
        """The parameters where an array lies."""
        weight, bias, noise_scale = self._theta()
        return Theta(move(weight, like), move(bias, like), noise_scale)

    @on_its_device
    def decode(self, z: Any) -> Array:
        """Mean of x given z.

        Parameters
        ----------
        z : array, shape (..., latent_dim)

        Returns
        -------
        ndarray, shape (..., data_dim)

        Raises
        ------
        TypeError, ValueError
            For a bad z, or if the model is not fitted.
        """
        weight = self._theta().weight
        latent = as_latent(f"{type(self).__name__}: z", z, weight.dtype, weight.shape[1])
        weight, bias, _ = self._theta_at(latent)
        result: Array = latent @ weight.T + bias
        return result

    @on_its_device
    def generate(self, z: Any, *, key: Any) -> Array:
        """A draw of x given z.

        Parameters
        ----------
        z : array, shape (..., latent_dim)
        key : key
            See :func:`reparam.random.as_key`.

        Returns
        -------
        ndarray, shape (..., data_dim)

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        mean, number = self.decode(z), as_key(key, f"{type(self).__name__}: key")
        noise = rp_random.normal(mean.shape, key=number, like=mean)
        result: Array = mean + mean.dtype.type(self._theta().noise_scale) * noise
        return result

    def sample(self, n: int, *, key: Any) -> Array:
        """Draw rows from the model: z from N(0, I), then x given z.

        Parameters
        ----------
        n : int
            Number of rows.
        key : key
            Of z; ``fold_in(key, 0)`` draws x as :meth:`generate` does.

        Returns
        -------
        ndarray, shape (n, data_dim)

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        weight, name = self._theta().weight, type(self).__name__
        number = as_key(key, f"{name}: key")
        z = rp_random.normal((as_int(f"{name}: n", n), weight.shape[1]), key=number, like=weight)
        return self.generate(z, key=rp_random.fold_in(number, 0))
