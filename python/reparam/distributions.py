# SPDX-License-Identifier: MIT
"""Gaussian distributions: thin, frozen, no mathematics of their own (the ops have it)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from . import random as rp_random
from ._check import NotPositiveDefiniteError, as_float_array, as_shape, broadcast_batches, check_finite, same_dtype

__all__ = ["MultivariateNormal", "MultivariateNormalDiag", "kl_divergence"]

Array = NDArray[Any]


def _check_positive(owner: str, name: str, scale: Array) -> None:
    good = scale > 0
    if not good.all():
        at = tuple(int(k) for k in np.argwhere(~good)[0])
        raise ValueError(f"{owner}: {name} must be > 0, got {scale[at]} at {list(at)}")


class _Gaussian:
    """What the families share: shapes, sampling, freezing."""

    _family: str  # "diag" or "tril"
    _event_rank: int  # of the scale
    loc: Array
    _scale: Array

    def _set(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def trusted(cls, loc: Array, scale: Array) -> Any:
        """Make one of fields that are known to be right, without the checks (inside loops)."""
        made = cls.__new__(cls)
        made._set(**{"loc": loc, f"scale_{cls._family}": scale, "_scale": scale, "_made_from": f"scale_{cls._family}"})
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; make a new one to change {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; {name} stays")

    def _fields(self, loc: Any, name: str, scale: Any) -> tuple[Array, Array]:
        """Both arrays, of shapes and dtypes that fit."""
        owner, rank = type(self).__name__, self._event_rank
        loc, scale = as_float_array(f"{owner}: loc", loc), as_float_array(f"{owner}: {name}", scale)
        if not loc.ndim:
            raise ValueError(f"{owner}: loc must have shape (..., d), got ()")
        d = loc.shape[-1]
        if scale.ndim < rank or scale.shape[scale.ndim - rank :] != (d,) * rank:
            wanted = ", ".join(["d"] * rank)
            raise ValueError(
                f"{owner}: {name} must have shape (..., {wanted}) with d = {d} (from loc), got {scale.shape}"
            )
        same_dtype(owner, ("loc", loc.dtype), (name, scale.dtype))
        broadcast_batches(owner, ["loc", name], [loc.shape[:-1], scale.shape[: scale.ndim - rank]])
        check_finite(f"{owner}: loc", loc)
        check_finite(f"{owner}: {name}", np.tril(scale) if rank == 2 else scale)
        return loc, scale

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return np.broadcast_shapes(self.loc.shape[:-1], self._scale.shape[: self._scale.ndim - self._event_rank])

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``(d,)``."""
        return self.loc.shape[-1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.loc.dtype

    @property
    def mean(self) -> Array:
        """Mean, shape ``batch_shape + (d,)``."""
        return np.broadcast_to(self.loc, self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Array:
        """Variance of each coordinate."""
        squares = self._scale**2
        per_event = squares if self._family == "diag" else np.tril(squares).sum(-1)
        return np.broadcast_to(per_event, self.batch_shape + self.event_shape)

    @property
    def stddev(self) -> Array:
        """Standard deviation of each coordinate."""
        result: Array = np.sqrt(self.variance)
        return result

    def noise(self, sample_shape: Any, key: Any, index: Any) -> Array:
        """Standard normals ``sample_shape + batch_shape + (d,)``, addressed by event."""
        owner = type(self).__name__
        sizes = as_shape(f"{owner}: sample_shape", sample_shape)
        streams = rp_random.draw_index(index, self.batch_shape, f"{owner}: index")
        used = rp_random.as_key(key, f"{owner}: key")
        made = rp_random.event_normal(math.prod(sizes), streams, self.event_shape[0], key=used, dtype=self.dtype)
        return made.reshape(*sizes, *self.batch_shape, *self.event_shape)

    def rsample(self, sample_shape: Any = (), *, key: Any, index: Any = None) -> Array:
        """Draws ``loc + scale noise``.

        Parameters
        ----------
        sample_shape : tuple of int
        key : key
            See :func:`reparam.random.as_key`.
        index : int array of the batch shape, optional
            Event b takes noise stream ``index[b]``; 0, 1, 2, ... by default. So a data point's draws depend on the key
            and its number alone.

        Returns
        -------
        array, shape sample_shape + batch_shape + (d,)
        """
        transform = getattr(ops, f"normal_{self._family}_transform")
        result: Array = transform(self.noise(sample_shape, key, index), self.loc, self._scale)
        return result

    def rsample_and_log_prob(self, sample_shape: Any = (), *, key: Any, index: Any = None) -> tuple[Array, Array]:
        """Draws and their own log density, without a triangular solve; arguments as :meth:`rsample`."""
        transform = getattr(ops, f"normal_{self._family}_transform_and_log_prob")
        value, log_prob = transform(self.noise(sample_shape, key, index), self.loc, self._scale)
        return value, log_prob

    def log_prob(self, value: Any) -> Array:
        """Log density at ``value``, shape (..., d)."""
        owner, d = type(self).__name__, self.event_shape[0]
        value = as_float_array(f"{owner}: value", value)
        if value.shape[-1:] != (d,):
            raise ValueError(f"{owner}: value must have shape (..., d) with d = {d}, got {value.shape}")
        same_dtype(owner, ("value", value.dtype), ("loc", self.dtype))
        result: Array = getattr(ops, f"normal_{self._family}_log_prob")(value, self.loc, self._scale)
        return result

    def entropy(self) -> Array:
        """Entropy, of the batch shape."""
        made = getattr(ops, f"normal_{self._family}_entropy")(self._scale)
        result: Array = made if np.shape(made) == self.batch_shape else np.broadcast_to(made, self.batch_shape).copy()
        return result

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(batch_shape={self.batch_shape}, event_shape={self.event_shape}, dtype={self.dtype})"
        )


class MultivariateNormalDiag(_Gaussian):
    """Gaussian with independent coordinates, ``N(loc, diag(scale_diag^2))``.

    Parameters
    ----------
    loc, scale_diag : array, shape (..., d)
        float32 or float64, finite, scales positive.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    _family, _event_rank = "diag", 1
    scale_diag: Array

    def __init__(self, loc: Any, scale_diag: Any) -> None:
        loc, scale = self._fields(loc, "scale_diag", scale_diag)
        _check_positive(type(self).__name__, "scale_diag", scale)
        self._set(loc=loc, scale_diag=scale, _scale=scale)

    @property
    def covariance_matrix(self) -> Array:
        """Diagonal covariance matrices (..., d, d)."""
        result: Array = self.variance[..., None] * np.eye(self.event_shape[0], dtype=self.dtype)
        return result


class MultivariateNormal(_Gaussian):
    """Gaussian with a full covariance, ``N(loc, L L^T)``.

    Parameters
    ----------
    loc : array, shape (..., d)
    scale_tril, covariance_matrix, precision_matrix : array, shape (..., d, d)
        Exactly one. ``scale_tril`` is lower with a positive diagonal (what stands above is not read); the others are
        symmetric positive definite, of which the lower triangle is read.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    NotPositiveDefiniteError
        If a covariance or precision matrix has no Cholesky factor.
    """

    _family, _event_rank = "tril", 2
    scale_tril: Array

    def __init__(
        self, loc: Any, *, scale_tril: Any = None, covariance_matrix: Any = None, precision_matrix: Any = None
    ) -> None:
        owner = type(self).__name__
        given = {"scale_tril": scale_tril, "covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix}
        named = [(name, value) for name, value in given.items() if value is not None]
        if len(named) != 1:
            came = ", ".join(name for name, _ in named) or "none"
            raise TypeError(f"{owner} takes exactly one of {', '.join(given)}, got {came}")
        name, value = named[0]
        loc, matrix = self._fields(loc, name, value)
        if name == "scale_tril":
            _check_positive(owner, "the diagonal of scale_tril", np.diagonal(matrix, axis1=-2, axis2=-1))
        factor = (
            matrix if name == "scale_tril" else _factor(f"{owner}: {name}", matrix, inverse=name == "precision_matrix")
        )
        self._set(loc=loc, scale_tril=factor, _scale=factor, _made_from=name)

    @property
    def covariance_matrix(self) -> Array:
        """Covariance matrices (..., d, d)."""
        lower = np.tril(self.scale_tril)
        d = self.event_shape
        result: Array = np.broadcast_to(lower @ np.swapaxes(lower, -1, -2), self.batch_shape + d + d)
        return result


def _factor(name: str, matrix: Array, *, inverse: bool) -> Array:
    """L with L L^T = A, or = A^-1: A reversed has the factor C, and L is the reverse of C^-T, lower again."""
    given = np.tril(matrix).swapaxes(-1, -2)[..., ::-1, ::-1] if inverse else matrix
    made = ops.cholesky_ex(given)
    factor: Array = made.scale_tril
    if np.any(made.info):
        first = ops.cholesky_ex(matrix).info  # the minors of A itself
        raise NotPositiveDefiniteError(np.where(first, first, made.info), name)
    if not inverse:
        return factor
    columns = np.broadcast_to(np.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    solved = ops.tril_solve(factor[..., None, :, :], columns)  # row k is C^-1 e_k, so this is C^-T
    result: Array = np.ascontiguousarray(np.tril(solved[..., ::-1, ::-1]))
    return result


def kl_divergence(q: _Gaussian, p: _Gaussian) -> Array:
    """KL(q || p) in closed form.

    Parameters
    ----------
    q, p : MultivariateNormal or MultivariateNormalDiag
        Of one event shape; batch shapes broadcast.

    Returns
    -------
    array
        ``(|A|_F^2 + |y|^2 - d)/2 + log det L_p - log det L_q`` with ``A = L_p^-1 L_q``, ``y = L_p^-1 (loc_q - loc_p)``.

    Raises
    ------
    TypeError, ValueError
        For other types, or event shapes that differ.
    """
    for name, value in (("q", q), ("p", p)):
        if not isinstance(value, _Gaussian):
            raise TypeError(f"kl_divergence: {name} must be a Gaussian of this package, got {type(value).__name__}")
    if q.event_shape != p.event_shape:
        raise ValueError(f"kl_divergence: event shapes differ: q has {q.event_shape}, p has {p.event_shape}")
    same_dtype("kl_divergence", ("q", q.dtype), ("p", p.dtype))
    broadcast_batches("kl_divergence", ["q", "p"], [q.batch_shape, p.batch_shape])
    difference = q.loc - p.loc
    if p._family == "diag":
        y = difference / p._scale
        ratio = q.variance / p._scale**2
        squares = ratio.sum(-1)
    else:
        y = ops.tril_solve(p._scale, difference)
        dense = (
            np.tril(q._scale) if q._family == "tril" else q._scale[..., None] * np.eye(len(q._scale.T), dtype=q.dtype)
        )
        squares = (ops.tril_solve(p._scale[..., None, :, :], np.swapaxes(dense, -1, -2)) ** 2).sum((-1, -2))
    result: Array = 0.5 * (squares + (y**2).sum(-1) - q.event_shape[0]) + p.entropy() - q.entropy()
    return result
