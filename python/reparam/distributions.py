# SPDX-License-Identifier: MIT
"""Gaussian distributions: thin, frozen, no mathematics of their own (the ops have it)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from . import random as rp_random
from ._check import FLOATS, as_int

__all__ = ["MultivariateNormal", "MultivariateNormalDiag", "kl_divergence"]

Array = NDArray[Any]


def _float_array(owner: str, name: str, value: Any, event_rank: int) -> Array:
    if not isinstance(value, np.ndarray):
        value = np.asarray(value)
    if value.dtype not in FLOATS:
        raise TypeError(f"{owner}: {name} must be float32 or float64, got {value.dtype}; convert it with .astype")
    if value.ndim < event_rank:
        raise ValueError(f"{owner}: {name} must have at least {event_rank} dims, got shape {value.shape}")
    return value


def _check_finite(owner: str, name: str, value: Array) -> None:
    if not np.isfinite(value).all():
        at = tuple(int(k) for k in np.argwhere(~np.isfinite(value))[0])
        raise ValueError(f"{owner}: {name} must be finite, got {value[at]} at {list(at)}")


def _check_positive(owner: str, name: str, scale: Array) -> None:
    good = scale > 0
    if not good.all():
        at = tuple(int(k) for k in np.argwhere(~good)[0])
        raise ValueError(f"{owner}: {name} must be > 0, got {scale[at]} at {list(at)}")


class _Gaussian:
    """What the families share: shapes, sampling, freezing."""

    _family: str  # "diag" or "tril"
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

    def _check_sizes(self, loc: Array, scale: Array, name: str) -> None:
        owner, d = type(self).__name__, loc.shape[-1]
        event_rank = 1 if self._family == "diag" else 2
        if scale.shape[scale.ndim - event_rank :] != (d,) * event_rank:
            wanted = ", ".join(["d"] * event_rank)
            raise ValueError(
                f"{owner}: {name} must have shape (..., {wanted}) with d = {d} (from loc), got {scale.shape}"
            )
        if loc.dtype != scale.dtype:
            raise TypeError(f"{owner}: loc is {loc.dtype} and {name} is {scale.dtype}; they must have one dtype")
        try:
            np.broadcast_shapes(loc.shape[:-1], scale.shape[: scale.ndim - event_rank])
        except ValueError:
            raise ValueError(
                f"{owner}: batch shapes of loc {loc.shape[:-1]} and {name} {scale.shape[: scale.ndim - event_rank]} "
                "do not broadcast"
            ) from None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return np.broadcast_shapes(
            self.loc.shape[:-1], self._scale.shape[: self._scale.ndim - (1 if self._family == "diag" else 2)]
        )

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
        sizes = tuple(as_int("sample_shape", s) for s in (sample_shape if np.iterable(sample_shape) else (sample_shape,)))
        streams = rp_random.draw_index(index, self.batch_shape)
        count = int(np.prod(sizes, dtype=np.int64))
        made = rp_random.event_normal(count, streams, self.event_shape[0], key=rp_random.as_key(key), dtype=self.dtype)
        return made.reshape(*sizes, *self.batch_shape, *self.event_shape)

    def rsample(self, sample_shape: Any = (), *, key: Any, index: Any = None) -> Array:
        """Draws ``loc + scale noise``.

        Parameters
        ----------
        sample_shape : tuple of int
        key : key
            See :func:`reparam.random.as_key`.
        index : int array of the batch shape, optional
            Event b takes noise stream ``index[b]``; 0, 1, 2, ... by default. So a data point's draws depend on the key and
            its number alone.

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
        result: Array = getattr(ops, f"normal_{self._family}_log_prob")(value, self.loc, self._scale)
        return result

    def entropy(self) -> Array:
        """Entropy, of the batch shape."""
        made = getattr(ops, f"normal_{self._family}_entropy")(self._scale)
        result: Array = np.broadcast_to(made, self.batch_shape)
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch_shape={self.batch_shape}, event_shape={self.event_shape}, dtype={self.dtype})"


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

    _family = "diag"
    scale_diag: Array

    def __init__(self, loc: Any, scale_diag: Any) -> None:
        owner = type(self).__name__
        loc, scale = _float_array(owner, "loc", loc, 1), _float_array(owner, "scale_diag", scale_diag, 1)
        self._check_sizes(loc, scale, "scale_diag")
        _check_finite(owner, "loc", loc)
        _check_finite(owner, "scale_diag", scale)
        _check_positive(owner, "scale_diag", scale)
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

    _family = "tril"
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
        loc, matrix = _float_array(owner, "loc", loc, 1), _float_array(owner, name, value, 2)
        self._check_sizes(loc, matrix, name)
        _check_finite(owner, "loc", loc)
        _check_finite(owner, name, np.tril(matrix))
        if name == "scale_tril":
            _check_positive(owner, "the diagonal of scale_tril", np.diagonal(matrix, axis1=-2, axis2=-1))
            factor = matrix
        else:
            factor = ops.cholesky(matrix) if name == "covariance_matrix" else _from_precision(matrix)
        self._set(loc=loc, scale_tril=factor, _scale=factor, _made_from=name)

    @property
    def covariance_matrix(self) -> Array:
        """Covariance matrices (..., d, d)."""
        lower = np.tril(self.scale_tril)
        d = self.event_shape
        result: Array = np.broadcast_to(lower @ np.swapaxes(lower, -1, -2), self.batch_shape + d + d)
        return result


def _from_precision(precision: Array) -> Array:
    """L with L L^T = P^-1: P reversed has the factor C, and L is the reverse of C^-T, lower again."""
    factor = ops.cholesky(np.tril(precision).swapaxes(-1, -2)[..., ::-1, ::-1])
    columns = np.broadcast_to(np.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    inverse = ops.tril_solve(factor[..., None, :, :], columns)  # row k is C^-1 e_k, so this is C^-T
    result: Array = np.ascontiguousarray(np.tril(inverse[..., ::-1, ::-1]))
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
    difference = q.loc - p.loc
    if p._family == "diag":
        y = difference / p._scale
        ratio = q.variance / p._scale**2
        squares = ratio.sum(-1)
    else:
        y = ops.tril_solve(p._scale, difference)
        dense = np.tril(q._scale) if q._family == "tril" else q._scale[..., None] * np.eye(len(q._scale.T), dtype=q.dtype)
        squares = (ops.tril_solve(p._scale[..., None, :, :], np.swapaxes(dense, -1, -2)) ** 2).sum((-1, -2))
    result: Array = 0.5 * (squares + (y**2).sum(-1) - q.event_shape[0]) + p.entropy() - q.entropy()
    return result
