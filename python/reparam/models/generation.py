# SPDX-License-Identifier: MIT
"""The generative half of a VAE: z from its prior, x given z, and their joint density."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random
from .._arrays import device_of, move, on_its_device, row_dot, to_numpy
from .._check import as_bool, as_float_array, as_int, as_key
from ..inference.data import as_latent
from .likelihoods import Gaussian, Likelihood, Prepared

__all__ = ["Generation"]

Array = NDArray[Any]


class Generation:
    """What a model can do with its decoder alone."""

    # What the other halves provide.
    _check_fitted: Any
    _follow: Any
    _params: Array
    _prepared: Any
    _decoder: Any
    _decoder_grads: Array
    _likelihood: Likelihood
    _theta: Array
    _theta_grads: Array
    latent_dim: int
    transform: Any
    likelihood: str
    dtype: str

    def _joint(self, data: Prepared, *, kl_weight: float = 1.0, learn: bool = False) -> Any:
        """``log p(x | z)/kl_weight + log p(z)`` for :func:`reparam.elbo`; ``learn`` collects theta's gradient too."""
        real = np.dtype(self.dtype).type
        weight = real(1 / kl_weight)
        scaled = kl_weight != 1

        @on_its_device
        def log_joint(value: Array) -> tuple[Array, Any]:
            output, backprop = self._decoder(value, self._decoder_grads if learn else None)
            log_likelihood, pullback = self._likelihood.log_prob(output, data, self._theta)
            prior = real(-0.5) * (row_dot(value, value) + real(value.shape[-1] * np.log(2 * np.pi)))

            @on_its_device
            def pull(weights: Array) -> Array:
                ct_output, ct_theta = pullback(weights * weight if scaled else weights)
                if learn and self._likelihood.theta_size:
                    self._theta_grads[...] = ct_theta
                ct_value, _ = backprop(ct_output, parameter_gradient=learn)
                result: Array = ct_value - weights[..., None] * value
                return result

            return (log_likelihood * weight if scaled else log_likelihood) + prior, pull

        return log_joint

    def log_joint(self, x: Any, observed: Any = None) -> Any:
        """``log p(x, z)`` of these rows with theta fixed, as :func:`reparam.elbo` takes it.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, shape (n, data_dim), optional
            Entries that were not seen (0) drop out of ``log p(x | z)``.

        Returns
        -------
        callable
            ``value (S, n, latent_dim) -> (log_prob (S, n), pullback)``, in the model's dtype. It refuses values of
            another number of rows.

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        data = self._prepared(x, observed)
        joint, shape = self._joint(data), (len(data.x), self.latent_dim)

        def log_joint(value: Any) -> tuple[Array, Any]:
            array = as_float_array("VAE: log_joint: value", value)
            if array.shape[-2:] != shape:
                raise ValueError(
                    f"VAE: log_joint: value must have shape (S, {shape[0]}, latent_dim), got {array.shape} "
                    f"(latent_dim is {shape[1]})"
                )
            if array.dtype != self.dtype:
                raise TypeError(f"VAE: log_joint: value must be {self.dtype} as the model is, got {array.dtype}")
            result: tuple[Array, Any] = joint(array)
            return result

        return log_joint

    def _output(self, z: Any) -> Array:
        self._check_fitted()
        latent = as_latent("VAE: z", z, self.dtype, self.latent_dim)
        self._follow(latent)
        result: Array = self._decoder(latent)[0]
        return result

    def decode(self, z: Any) -> Array:
        """Mean of x given z.

        Parameters
        ----------
        z : array, shape (..., latent_dim)

        Returns
        -------
        ndarray, shape (..., data_dim)
            Of the binomial, the mean count.

        Raises
        ------
        TypeError, ValueError
            For a bad z, or if the model is not fitted.
        """
        output = self._output(z)
        with device_of(output):
            return self._likelihood.mean(output)

    def generate(self, z: Any, *, key: Any) -> Array:
        """A draw of x given z.

        Parameters
        ----------
        z : array, shape (..., latent_dim)
        key : key
            The whole array is one stream of NumPy's Philox generator; for a z of CuPy it is drawn by the host, too.

        Returns
        -------
        ndarray, shape (..., data_dim)

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        rng = np.random.Generator(np.random.Philox(key=as_key(key, "VAE: key")))
        output = self._output(z)
        with device_of(output):
            drawn: Array = move(self._likelihood.draw(to_numpy(output), self._theta, rng), output)
        return drawn

    def sample(self, n: int, *, key: Any, return_latent: bool = False) -> Any:
        """Draw rows from the model: z from N(0, I), then x given z.

        Parameters
        ----------
        n : int
            Number of rows.
        key : key
            Of z; ``fold_in(key, 0)`` draws x as :meth:`generate` does.
        return_latent : bool
            Whether to give z too.

        Returns
        -------
        ndarray, shape (n, data_dim)
            With ``return_latent`` the pair (x, z), z of shape (n, latent_dim).

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        number, with_latent = as_key(key, "VAE: key"), as_bool("VAE: return_latent", return_latent)
        self._check_fitted()
        z = rp_random.normal((as_int("VAE: n", n), self.latent_dim), key=number, like=self._params)
        x = self.generate(z, key=rp_random.fold_in(number, 0))
        return (x, z) if with_latent else x

    def reconstruct(self, x: Any) -> Array:
        """Mean of x given the posterior mean of z: ``decode(transform(x))``.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        ndarray, shape (n, data_dim)

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        return self.decode(self.transform(x))

    @property
    def noise_scale_(self) -> float:
        """Noise scale of the Gaussian likelihood.

        Raises
        ------
        AttributeError
            If the model is not fitted (a ValueError too), or has another likelihood.
        """
        self._check_fitted()
        if not isinstance(self._likelihood, Gaussian):
            raise AttributeError(f"noise_scale_ belongs to likelihood='gaussian', this model has {self.likelihood!r}")
        return self._likelihood.sigma(self._theta)
