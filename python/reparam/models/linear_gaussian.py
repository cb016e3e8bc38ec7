# SPDX-License-Identifier: MIT
"""The linear-Gaussian model, where posterior and evidence are exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import move, namespace_of, on_its_device, row_dot
from .._check import as_float, as_float_array, one_device
from ..distributions import MultivariateNormal
from ..inference.data import as_finite, as_mask, as_real, as_rows, own_dtype
from .linear_generation import LinearGeneration, Theta
from .stored import Stored

__all__ = ["LinearGaussianModel", "Theta"]

Array = NDArray[Any]
LOG_2PI = math.log(2 * math.pi)


class LinearGaussianModel(LinearGeneration, Stored):
    """``z ~ N(0, I)``, ``x | z ~ N(weight z + bias, noise_scale^2 I)``, with known parameters.

    All of inference is exact here: the posterior is N(loc, precision^-1) with ``precision = I + weight^T weight /
    noise_scale^2`` and ``loc = precision^-1 weight^T (x - bias) / noise_scale^2`` (Bishop, Pattern Recognition and
    Machine Learning, 2006, section 2.3.3). Where entries of a row are unobserved, their rows of ``weight`` drop out.

    Parameters
    ----------
    weight : array, shape (data_dim, latent_dim)
        Results are in float32 if it is, else in float64; all is computed in float64.
    bias : array, shape (data_dim,)
    noise_scale : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    def __init__(self, weight: Any, bias: Any, noise_scale: float) -> None:
        name = type(self).__name__
        array = as_real(f"{name}: weight", weight, "fiu")
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"{name}: weight must have shape (data_dim, latent_dim), got {array.shape}")
        dtype = own_dtype(array)
        self.weight = as_finite(f"{name}: weight", array, dtype)
        given = as_real(f"{name}: bias", bias, "fiu")
        if given.shape != array.shape[:1]:
            raise ValueError(
                f"{name}: bias must have shape (data_dim,) with data_dim = {array.shape[0]} (from weight), "
                f"got {given.shape}"
            )
        self.bias = move(as_finite(f"{name}: bias", given, dtype), self.weight)
        self.noise_scale = as_float(f"{name}: noise_scale", noise_scale, 0, above=True)

    def _theta(self) -> Theta:
        """The parameters, of a fitted model."""
        return Theta(self.weight, self.bias, self.noise_scale)

    def _check_fitted(self) -> None:
        self._theta()

    def _rows(self, x: Any, observed: Any) -> tuple[Array, Array | None]:
        """``x - bias`` in float64, 0 where it is unobserved, and the mask."""
        name, array = type(self).__name__, as_real(f"{type(self).__name__}: x", x)
        theta = self._theta_at(array)
        data_dim, dtype = len(theta.bias), theta.weight.dtype
        if observed is None:
            return as_rows(f"{name}: x", array, dtype, data_dim) - theta.bias.astype(np.float64), None
        mask = move(as_mask(f"{name}: observed", observed, array.shape, np.float64), array)
        seen = np.where(mask == 1, array, 0)  # an unobserved entry may hold anything, NaN too
        return (as_rows(f"{name}: x", seen, dtype, data_dim) - theta.bias.astype(np.float64)) * mask, mask

    def _posterior(self, x: Any, observed: Any) -> tuple[Array, Array, Array, Array | None]:
        """Loc (n, k), scale_tril (n, k, k) or (k, k) of all rows, centred rows and mask, in float64."""
        centred, mask = self._rows(x, observed)
        (weight, _, sigma), xp = self._theta_at(centred), namespace_of(centred)
        scaled = weight.astype(np.float64) / sigma
        eye, zero = xp.eye(scaled.shape[1]), xp.zeros(scaled.shape[1])
        if mask is None:
            precision = eye + scaled.T @ scaled
        else:
            products = (scaled[:, :, None] * scaled[:, None, :]).reshape(len(scaled), -1)
            precision = eye + (mask @ products).reshape(-1, *eye.shape)
        scale_tril = MultivariateNormal(zero, precision_matrix=precision).scale_tril
        half = (centred / sigma) @ scaled
        half = half @ scale_tril if mask is None else (half[:, None] @ scale_tril)[:, 0]
        return ops.normal_tril_transform(half, zero, scale_tril), scale_tril, centred, mask

    @on_its_device
    def posterior(self, x: Any, *, observed: Any = None) -> MultivariateNormal:
        """The exact posterior of z for each row.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, shape (n, data_dim), optional
            Which entries were seen; a row without any has the prior.

        Returns
        -------
        MultivariateNormal
            Batch shape ``(n,)``.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        loc, scale_tril, _, _ = self._posterior(x, observed)
        dtype, k = self._theta().weight.dtype, loc.shape[1]
        of_rows = np.broadcast_to(scale_tril.astype(dtype), (len(loc), k, k))
        made: MultivariateNormal = MultivariateNormal.trusted(loc.astype(dtype), of_rows)
        return made

    @on_its_device
    def log_evidence(self, x: Any, *, observed: Any = None) -> Array:
        """Exact log p(x) of each row, or of its observed entries.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, shape (n, data_dim), optional
            Which entries were seen; a row without any has evidence 1.

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        loc, scale_tril, centred, mask = self._posterior(x, observed)
        weight, bias, sigma = self._theta_at(centred)
        residual = centred - loc @ weight.T.astype(np.float64)
        if mask is not None:
            residual *= mask
        # (x - b)^T (W W^T + sigma^2 I)^-1 (x - b) as the least of |x - b - W z|^2/sigma^2 + |z|^2: nothing cancels
        squares = np.square(residual / sigma).sum(1) + np.square(loc).sum(1)
        count = len(bias) if mask is None else mask.sum(1)
        log_det = 2 * np.log(np.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)
        made = -0.5 * (squares + count * (LOG_2PI + 2 * math.log(sigma)) - log_det)
        result: Array = made.astype(weight.dtype)
        return result

    @on_its_device
    def map_estimate(self, x: Any, *, observed: Any = None) -> Array:
        """The most probable z of each row, which is the posterior mean.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, shape (n, data_dim), optional
            Which entries were seen.

        Returns
        -------
        ndarray, shape (n, latent_dim)

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        return self._posterior(x, observed)[0].astype(self._theta().weight.dtype)

    @on_its_device
    def log_joint(self, x: Any, observed: Any = None) -> Callable[[Array], tuple[Array, Array]]:
        """``log p(x, z)`` of these rows, as :func:`reparam.elbo` takes it.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, shape (n, data_dim), optional
            Entries that were not seen (0) drop out of ``log p(x | z)``.

        Returns
        -------
        callable
            ``value (S, n, latent_dim) -> (log_prob (S, n), gradient (S, n, latent_dim))``, in the model's dtype. It
            refuses values of another number of rows.

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        rows, mask = self._rows(x, observed)
        weight, bias, sigma = self._theta_at(rows)
        dtype, shape = weight.dtype, (len(rows), weight.shape[1])
        centred, scaled = (rows / sigma).astype(dtype), (weight / sigma).astype(dtype)
        seen = dtype.type(1) if mask is None else mask.astype(dtype)
        count = np.float64(len(bias)) if mask is None else mask.sum(1)
        constant = (-0.5 * ((count + shape[1]) * LOG_2PI) - count * math.log(sigma)).astype(dtype)
        name = f"{type(self).__name__}: log_joint: value"

        @on_its_device
        def log_joint(value: Array) -> tuple[Array, Array]:
            z = as_float_array(name, value)
            one_device(f"{type(self).__name__}: log_joint", [("value", z), ("x", centred)])
            if z.shape[-2:] != shape:
                raise ValueError(
                    f"{name} must have shape (S, {shape[0]}, latent_dim), got {z.shape} (latent_dim is {shape[1]})"
                )
            if z.dtype != dtype:
                raise TypeError(f"{name} must be {dtype} as the model is, got {z.dtype}; say dtype='{dtype}'")
            residual = (centred - z @ scaled.T) * seen
            squares = row_dot(residual, residual) + row_dot(z, z)
            return constant - dtype.type(0.5) * squares, residual @ scaled - z

        return log_joint

    def __repr__(self) -> str:
        data_dim, latent_dim = self.weight.shape
        shape = f"data_dim={data_dim}, latent_dim={latent_dim}, noise_scale={self.noise_scale:g}"
        return f"{type(self).__name__}({shape}, dtype={self.weight.dtype})"

    def _contents(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"noise_scale": self.noise_scale}, {"weight": self.weight, "bias": self.bias}

    @classmethod
    def _restored(cls, header: dict[str, Any], arrays: dict[str, Array]) -> Self:
        return cls(arrays["weight"], arrays["bias"], header["noise_scale"])
