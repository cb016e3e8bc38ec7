# SPDX-License-Identifier: MIT
"""The multivariate normal as a distribution of NumPyro."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import promote_shapes, validate_sample
from numpyro.util import is_prng_key

from .. import _check
from .. import jax as kernels

__all__ = ["MultivariateNormal", "is_ours"]


class MultivariateNormal(dist.MultivariateNormal):
    """N(loc, covariance_matrix), as ``numpyro.distributions.MultivariateNormal``.

    ``sample`` takes the same numbers from ``jax.random`` and gives the same values to rounding. Elements that are
    neither float32 nor float64 go NumPyro's own way.

    Parameters
    ----------
    loc : array, shape (..., d)
    covariance_matrix, precision_matrix, scale_tril : array, shape (..., d, d)
        One of them. Of the first two the lower triangle is read; where a matrix is not positive definite, results are
        NaN.
    validate_args : bool, optional
        As in NumPyro.

    Raises
    ------
    ValueError
        Unless exactly one matrix is given, and, with ``validate_args``, for what violates a constraint.
    """

    def __init__(
        self,
        loc: Any = 0.0,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix}
        matrices = {name: x for name, x in given.items() if x is not None}
        if scale_tril is not None or len(matrices) != 1 or not is_ours(*matrices.values()):
            super().__init__(loc, covariance_matrix, precision_matrix, scale_tril, validate_args=validate_args)
            return
        ((name, matrix),) = matrices.items()
        rows = jnp.expand_dims(loc, -1) if jnp.ndim(loc) else jnp.reshape(loc, (1, 1))
        _, promoted = promote_shapes(rows, matrix)
        setattr(self, name, promoted)  # before its constraint is checked, with those of the others
        (floating,) = _floating(promoted)
        factor = kernels.cholesky(floating) if name == "covariance_matrix" else _factor_of_inverse(floating)
        super().__init__(loc, scale_tril=factor, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws of shape ``sample_shape + batch_shape + (d,)``."""
        if not is_ours(self.loc, self.scale_tril):
            return super().sample(key, sample_shape)
        assert is_prng_key(key)  # as in NumPyro
        noise = random.normal(key, shape=sample_shape + self.batch_shape + self.event_shape)
        return kernels.normal_tril_transform(*_floating(noise, self._full_loc, self.scale_tril))

    @validate_sample
    def log_prob(self, value: Any) -> Any:
        """Log density at ``value``, whose batch dims broadcast with those of the distribution."""
        if not is_ours(value, self.loc, self.scale_tril):
            return super().log_prob(value)
        if jnp.shape(value)[-1:] not in ((), (1,), self.event_shape):
            raise ValueError(
                f"log_prob: value must have shape (..., d) with d = {self.event_shape[0]}, got {jnp.shape(value)}"
            )
        value = jnp.broadcast_to(value, (*jnp.shape(value)[:-1], *self.event_shape))
        return kernels.normal_tril_log_prob(*_floating(value, self._full_loc, self.scale_tril))

    def entropy(self) -> Any:
        """Differential entropy, of the batch shape of ``scale_tril``."""
        if not is_ours(self.scale_tril):
            return super().entropy()
        return kernels.normal_tril_entropy(*_floating(self.scale_tril))

    @property
    def _full_loc(self) -> Any:
        """``loc`` with all coordinates, where it was one number for all."""
        return jnp.broadcast_to(self.loc, (*self.loc.shape[:-1], *self.event_shape))


def is_ours(*arrays: Any) -> bool:
    """Whether the kernels have the type that these come to."""
    return jnp.result_type(*arrays, float) in _check.FLOATS


def _floating(*arrays: Any) -> list[Any]:
    """The arrays in the type that they come to, as in functions of ``jax.numpy``."""
    dtype = jnp.result_type(*arrays, float)
    return [jnp.asarray(x, dtype) for x in arrays]


def _factor_of_inverse(precision: Any) -> Any:
    """L with ``precision = (L L^T)^-1``: rows and columns reversed, its Cholesky factor is the transpose of L^-1."""
    reversed_factor = kernels.cholesky(precision[..., ::-1, ::-1])
    inverse = jnp.swapaxes(reversed_factor[..., ::-1, ::-1], -1, -2)
    columns = kernels.tril_solve(inverse[..., None, :, :], jnp.eye(precision.shape[-1], dtype=precision.dtype))
    return jnp.swapaxes(columns, -1, -2)


def _kl(p: Any, q: Any) -> Any:
    if not is_ours(p.loc, p.scale_tril, q.loc, q.scale_tril) or p.event_shape != q.event_shape:
        return _kl_of_numpyro(p, q)
    locs = [jnp.broadcast_to(x.loc, (*x.loc.shape[:-1], *x.event_shape)) for x in (p, q)]
    return kernels.normal_tril_kl(*_floating(locs[0], p.scale_tril, locs[1], q.scale_tril))


_THEIRS, _OURS = dist.MultivariateNormal, MultivariateNormal
_kl_of_numpyro = kl_divergence.dispatch(_THEIRS, _THEIRS)
for _pair in ((_OURS, _OURS), (_OURS, _THEIRS), (_THEIRS, _OURS)):
    kl_divergence.add(_pair, _kl)
