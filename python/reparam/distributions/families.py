# SPDX-License-Identifier: MIT
"""The families: scalar events, independent coordinates, a full covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import device_of, is_cupy, namespace_of, on_its_device, triangle, with_dims
from .._check import NotPositiveDefiniteError, as_bool
from .._signature import Operand
from .gaussian import Gaussian, check_positive

__all__ = ["MultivariateNormal", "MultivariateNormalDiag", "Normal", "dense_scale", "matrix_cotangent"]

Array = NDArray[Any]
_PACKED = Operand("scale_tril", "vec", ("d",))


class Normal(Gaussian):
    """Gaussian of scalar events, ``N(loc, scale^2)``.

    Parameters
    ----------
    loc, scale : array or number, shape (...)
        float32 or float64, finite, scales positive. Python numbers take the other's dtype; two of them are float64.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    _family, _ops, _form, _made_from = "scalar", "normal", Operand("scale", "scalar", ()), "scale"
    scale: Array

    def __init__(self, loc: Any, scale: Any) -> None:
        loc, scale = self._fields(loc, "scale", scale)
        check_positive(f"{type(self).__name__}: scale", scale)
        self._set(loc=loc, scale=scale, _scale=scale)

    @property
    def covariance_matrix(self) -> Array:
        """Variances as matrices, shape ``batch_shape + (1, 1)``."""
        return with_dims(self.variance)[..., None, None]


class MultivariateNormalDiag(Gaussian):
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

    _family, _ops = "diag", "normal_diag"
    _form, _made_from = Operand("scale_diag", "vector", ("d",)), "scale_diag"
    scale_diag: Array

    def __init__(self, loc: Any, scale_diag: Any) -> None:
        loc, scale = self._fields(loc, "scale_diag", scale_diag)
        check_positive(f"{type(self).__name__}: scale_diag", scale)
        self._set(loc=loc, scale_diag=scale, _scale=scale)

    @property
    @on_its_device
    def covariance_matrix(self) -> Array:
        """Diagonal covariance matrices, shape ``batch_shape + (d, d)``."""
        return self._over_batch(dense_scale(self) ** 2, self.event_shape * 2)


class MultivariateNormal(Gaussian):
    """Gaussian with a full covariance, ``N(loc, L L^T)``.

    Parameters
    ----------
    loc : array, shape (..., d)
    scale_tril, covariance_matrix, precision_matrix : array, shape (..., d, d)
        Exactly one. ``scale_tril`` is lower with a positive diagonal (what stands above is not read); the others are
        symmetric positive definite, of which the lower triangle is read.
    packed : bool
        Whether ``scale_tril`` is packed, shape (..., d (d + 1) / 2): its lower triangle row after row, in the order of
        ``np.tril_indices(d)``.

    Attributes
    ----------
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d), or (..., d (d + 1) / 2) if packed

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    NotPositiveDefiniteError
        If a covariance or precision matrix has no Cholesky factor.

    Notes
    -----
    Of CuPy arrays, here and in the other families, shapes and types are checked, and not the values: a scale that is
    not positive gives NaN in its event. Only a covariance or precision matrix makes the host wait for the GPU.
    """

    _family, _ops = "tril", "normal_tril"
    _form, _made_from = Operand("scale_tril", "tril", ("d",)), "scale_tril"
    scale_tril: Array

    def __init__(
        self,
        loc: Any,
        *,
        scale_tril: Any = None,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        packed: bool = False,
    ) -> None:
        owner = type(self).__name__
        given = {"scale_tril": scale_tril, "covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix}
        named = [(name, value) for name, value in given.items() if value is not None]
        if len(named) != 1:
            came = ", ".join(name for name, _ in named) or "none"
            raise TypeError(f"{owner} takes exactly one of {', '.join(given)}, got {came}")
        name, value = named[0]
        if as_bool(f"{owner}: packed", packed):
            if name != "scale_tril":
                raise TypeError(f"{owner}: packed=True goes with scale_tril alone, got {name}")
            self._set(_form=_PACKED)
        loc, scale = self._fields(loc, name, value)
        if name != "scale_tril":
            with device_of(scale):
                scale = _factor(f"{owner}: {name}", scale, inverse=name == "precision_matrix")
        elif not is_cupy(scale):
            i = np.arange(loc.shape[-1])
            diagonal = scale[..., i * (i + 3) // 2] if packed else scale[..., i, i]
            check_positive(f"{owner}: the diagonal of scale_tril", diagonal)
        self._set(loc=loc, scale_tril=scale, _scale=scale, _made_from=name)

    @classmethod
    def trusted(cls, loc: Array, scale: Array, *, packed: bool = False) -> Any:
        """Make one of fields that are known to be right, without the checks (inside loops)."""
        made = super().trusted(loc, scale)
        if packed:
            made._set(_form=_PACKED)
        return made

    @property
    @on_its_device
    def variance(self) -> Array:
        """Variance of each coordinate, shape ``batch_shape + (d,)``."""
        return self._over_batch((np.tril(dense_scale(self)) ** 2).sum(-1), self.event_shape)

    @property
    @on_its_device
    def stddev(self) -> Array:
        """Standard deviation of each coordinate, shape ``batch_shape + (d,)``."""
        result: Array = np.sqrt(self.variance)
        return result

    @property
    @on_its_device
    def covariance_matrix(self) -> Array:
        """Covariance matrices, shape ``batch_shape + (d, d)``."""
        return self._over_batch(_gram(np.tril(dense_scale(self))), self.event_shape * 2)

    @property
    @on_its_device
    def precision_matrix(self) -> Array:
        """Inverses of the covariance matrices, shape ``batch_shape + (d, d)``."""
        return self._over_batch(_gram(_inverse_transpose(dense_scale(self))), self.event_shape * 2)


def dense_scale(q: Any) -> Array:
    """The scale of vector events as a matrix (..., d, d), of which the lower triangle counts."""
    if isinstance(q, MultivariateNormal) and not q._packed:
        return q._scale
    d, xp = q.event_shape[0], namespace_of(q._scale)
    with device_of(q._scale):
        dense: Array = xp.zeros((*q._scale.shape[:-1], d, d), q.dtype)
        places: Any = triangle(d, q._scale) if q._packed else (xp.arange(d),) * 2
        dense[(..., *places)] = q._scale
    return dense


def _gram(factor: Array) -> Array:
    """``F F^T``."""
    result: Array = factor @ np.swapaxes(factor, -1, -2)
    return result


def _inverse_transpose(scale_tril: Array) -> Array:
    """``L^-T``, upper."""
    d, xp = scale_tril.shape[-1], namespace_of(scale_tril)
    columns = np.broadcast_to(xp.eye(d, dtype=scale_tril.dtype), scale_tril.shape)
    result: Array = ops.tril_solve(scale_tril[..., None, :, :], columns)  # row k is L^-1 e_k
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
    result: Array = namespace_of(factor).ascontiguousarray(np.tril(_inverse_transpose(factor)[..., ::-1, ::-1]))
    return result


def matrix_cotangent(q: MultivariateNormal, ct_scale_tril: Array) -> Array:
    """Symmetric cotangent of the covariance or precision matrix that q was made from, given that of ``scale_tril``.

    Of a covariance S that of Cholesky, ``ct_S``. Of a precision P = S^-1, ``-S ct_S S``, where
    ``L^T ct_S L = sym(Phi(L^T ct_L))`` (Murray, arXiv 1602.07527): ``-L sym(Phi(L^T ct_L)) L^T`` needs no solve.
    """
    if q._made_from == "covariance_matrix":
        covariance: Array = ops.cholesky.vjp(q._scale, ct_scale_tril)
        return covariance
    product = np.tril(np.swapaxes(q._scale, -1, -2) @ np.tril(ct_scale_tril))
    middle = product + np.swapaxes(np.tril(product, -1), -1, -2)
    half = -0.25 * (q._scale @ middle @ np.swapaxes(q._scale, -1, -2))
    result: Array = half + np.swapaxes(half, -1, -2)  # symmetric to the bit
    return result
