# SPDX-License-Identifier: MIT
"""A Gaussian for each row as an encoder gives it, without its lower factor in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import diagonal_of_triangle, on_its_device
from .families import MultivariateNormal, MultivariateNormalDiag

__all__ = ["EncodedNormal"]

Array = NDArray[Any]


class EncodedNormal:
    """``N(loc, L L^T)`` with ``L = tril_from_vector(vector)``, or ``N(loc, diag(exp(vector))^2)``.

    Parameters
    ----------
    loc : array, shape (..., d)
    vector : array, shape (..., d (d + 1) / 2), or (..., d) where not ``full``
    full : bool
    """

    def __init__(self, loc: Array, vector: Array, full: bool) -> None:
        self.loc, self.vector, self.full = loc, vector, full
        self.transform_and_log_prob = (
            ops.normal_vector_transform_and_log_prob if full else ops.normal_diag_vector_transform_and_log_prob
        )

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``(d,)``."""
        return self.loc.shape[-1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.loc.dtype

    def log_det(self) -> Array:
        """Sum of the logarithms of the scales, which are entries of the vector."""
        d = self.loc.shape[-1]
        logarithms = self.vector[..., diagonal_of_triangle(d, self.vector)] if self.full else self.vector
        result: Array = logarithms.sum(-1)
        return result

    @on_its_device
    def distribution(self) -> MultivariateNormal | MultivariateNormalDiag:
        """The same with its scale in memory."""
        if self.full:
            full: MultivariateNormal = MultivariateNormal.trusted(self.loc, ops.tril_from_vector(self.vector))
            return full
        with np.errstate(over="ignore"):  # an infinite scale is data, as it is from tril_from_vector
            diag: MultivariateNormalDiag = MultivariateNormalDiag.trusted(self.loc, np.exp(self.vector))
        return diag

    @on_its_device
    def pull(self, grad: Any) -> SimpleNamespace:
        """The gradient in ``loc`` and ``vector`` of one in the fields of :meth:`distribution`."""
        if self.full:
            return SimpleNamespace(loc=grad.loc, vector=ops.tril_from_vector.vjp(self.vector, grad.scale_tril))
        return SimpleNamespace(loc=grad.loc, vector=grad.scale_diag * np.exp(self.vector))
