# SPDX-License-Identifier: MIT
"""Probabilistic principal component analysis: the linear-Gaussian model at maximum likelihood."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._arrays import move, on_its_device, to_numpy
from .._check import as_int
from ..inference.data import as_real, as_rows, own_dtype
from .linear_gaussian import LinearGaussianModel, Theta
from .saved import NotFittedError

__all__ = ["ProbabilisticPCA"]

Array = NDArray[Any]


class ProbabilisticPCA(LinearGaussianModel):
    """The linear-Gaussian model whose parameters have the greatest likelihood of given rows, in closed form.

    With the eigenvalues ``l_1 >= l_2 >= ...`` and eigenvectors ``u_j`` of the rows' covariance, ``noise_scale^2`` is
    the mean of those after the first ``latent_dim``, and column j of ``weight`` is ``sqrt(l_j - noise_scale^2) u_j``
    (Tipping and Bishop, Probabilistic principal component analysis, 1999). Columns are orthogonal, and the entry of
    each that is largest by size is positive: any rotation of z has the same likelihood.

    Parameters
    ----------
    latent_dim : int
        Size of z, below that of the rows.

    Attributes
    ----------
    weight_ : ndarray, shape (data_dim, latent_dim)
        float32 if the rows were, else float64; so are all results.
    bias_ : ndarray, shape (data_dim,)
        Mean of the rows.
    noise_scale_ : float

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    weight_: Array
    bias_: Array
    noise_scale_: float

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = as_int("ProbabilisticPCA: latent_dim", latent_dim, 1)

    @on_its_device
    def fit(self, x: Any, y: Any = None) -> Self:
        """Set the parameters to those of maximum likelihood.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        y : any
            Ignored, as in scikit-learn.

        Returns
        -------
        ProbabilisticPCA
            Itself.

        Raises
        ------
        TypeError, ValueError
            For bad data; where ``latent_dim`` components leave no variance, the likelihood has no maximum.
        """
        array = as_real("ProbabilisticPCA: x", x)
        dtype = own_dtype(array)
        rows = as_rows("ProbabilisticPCA: x", array, dtype)
        n, data_dim = rows.shape
        k = self.latent_dim
        if k >= data_dim:
            raise ValueError(f"ProbabilisticPCA: x must have more than latent_dim = {k} features, got {data_dim}")
        with np.errstate(over="ignore", invalid="ignore"):
            bias = rows.mean(0, dtype=np.float64)
            bias += (rows - bias).mean(0)  # of what the first sum rounded
            size = float(np.abs(rows - bias).max()) or 1.0
        if not math.isfinite(size):
            raise ValueError("ProbabilisticPCA: x must be of a scale whose sums float64 holds, got larger numbers")
        _, singular, directions = np.linalg.svd((rows - bias) / size, full_matrices=False)
        deviations = np.zeros(data_dim)
        deviations[: len(singular)] = to_numpy(singular) / math.sqrt(n)
        noise_scale = math.sqrt(np.square(deviations[k:]).mean())
        if noise_scale <= max(n, data_dim) * np.finfo(np.float64).eps * deviations[0]:
            raise ValueError(
                f"ProbabilisticPCA: x must vary in more than latent_dim = {k} directions, so that there is noise; its "
                f"{n} rows do not"
            )
        loading = np.sqrt((deviations[:k] - noise_scale) * (deviations[:k] + noise_scale))
        weight = to_numpy(directions[:k]).T * loading
        weight *= np.sign(np.take_along_axis(weight, np.abs(weight).argmax(0)[None], 0)) + (loading == 0)
        self.weight_, self.bias_ = move((size * weight).astype(dtype), rows), bias.astype(dtype)
        self.noise_scale_ = size * noise_scale
        return self

    def _theta(self) -> Theta:
        if not hasattr(self, "weight_"):
            raise NotFittedError("this ProbabilisticPCA is not fitted yet; call fit or load first")
        return Theta(self.weight_, self.bias_, self.noise_scale_)

    def __repr__(self) -> str:
        return f"ProbabilisticPCA({self.latent_dim}, {'fitted' if hasattr(self, 'weight_') else 'not fitted'})"

    def _contents(self) -> tuple[dict[str, Any], dict[str, Array]]:
        return {"noise_scale": self.noise_scale_}, {"weight": self.weight_, "bias": self.bias_}

    @classmethod
    def _restored(cls, header: dict[str, Any], arrays: dict[str, Array]) -> Self:
        theta = LinearGaussianModel(arrays["weight"], arrays["bias"], header["noise_scale"])
        model = cls(theta.weight.shape[1])
        model.weight_, model.bias_, model.noise_scale_ = theta.weight, theta.bias, theta.noise_scale
        return model
