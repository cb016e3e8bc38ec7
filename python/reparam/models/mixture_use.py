# SPDX-License-Identifier: MIT
"""What a fitted Gaussian mixture is asked: densities, labels, criteria, draws, its bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import move, namespace_of, on_its_device, to_numpy
from .._check import as_int
from ..inference.data import as_real, as_rows, own_dtype
from .mixture_em import Components, for_each, log_normalize
from .saved import NotFittedError

__all__ = ["MixtureUse", "as_data"]

Array = NDArray[Any]
NUMBERS_AT_ONCE = 1 << 18  # of a block of rows, times the components
SUM_TOLERANCE = 1e-6  # of responsibilities, which may come in float32


def as_data(x: Any, data_dim: int | None = None) -> Array:
    """Rows as float32, if they are, else as float64."""
    array = as_real("GaussianMixture: x", x)
    return as_rows("GaussianMixture: x", array, own_dtype(array), data_dim)


class MixtureUse:
    """The half of a mixture that reads its parameters."""

    covariance_type: str
    n_components: int
    random_state: Any
    weights_: Array
    means_: Array
    precisions_cholesky_: Array
    _generator: Any

    def _check_fitted(self) -> None:
        if not hasattr(self, "means_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit or load first")

    def _components(self) -> Components:
        """The fitted parameters in float64, one factor for each component."""
        k, d = self.means_.shape
        arrays = (self.weights_, self.means_, self.precisions_cholesky_)
        weights, means, factors = (to_numpy(array).astype(np.float64) for array in arrays)
        return Components(weights, means, for_each(factors, self.covariance_type, k, d))

    def _log_probs(self, x: Array) -> Iterator[tuple[slice, Array]]:
        """Blocks of rows with the log densities of the weighted components, shape (K, b)."""
        components = self._components()
        size = max(1, NUMBERS_AT_ONCE // components.means.size)
        for begin in range(0, len(x), size):
            at = slice(begin, min(begin + size, len(x)))
            yield at, components.log_probs(namespace_of(x).ascontiguousarray(x[at].T, np.float64))

    def _rows(self, x: Any) -> Array:
        self._check_fitted()
        return as_data(x, self.means_.shape[1])

    @on_its_device
    def score_samples(self, x: Any) -> Array:
        """Log density of each row.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        ndarray, shape (n,)
            float32 for rows in float32, else float64; so are all results. Computed in float64.

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        rows = self._rows(x)
        made: Array = namespace_of(rows).empty(len(rows), rows.dtype)
        for at, log_probs in self._log_probs(rows):
            made[at] = log_normalize(log_probs)[1]
        return made

    @on_its_device
    def score(self, x: Any, y: Any = None) -> float:
        """Mean log density of the rows.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        y : any
            Ignored, as in scikit-learn.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        rows = self._rows(x)
        return sum(float(log_normalize(part)[1].sum()) for _, part in self._log_probs(rows)) / len(rows)

    @on_its_device
    def predict(self, x: Any) -> Array:
        """The most probable component of each row.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        ndarray of int64, shape (n,)

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        return self._labels(self._rows(x))

    def _labels(self, rows: Array) -> Array:
        made: Array = namespace_of(rows).empty(len(rows), np.int64)
        for at, log_probs in self._log_probs(rows):
            made[at] = log_probs.argmax(0)
        return made

    @on_its_device
    def predict_proba(self, x: Any) -> Array:
        """Responsibilities: the posterior of each row's component.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        ndarray, shape (n, n_components)

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        rows = self._rows(x)
        made: Array = namespace_of(rows).empty((len(rows), len(self.weights_)), rows.dtype)
        for at, log_probs in self._log_probs(rows):
            made[at] = log_normalize(log_probs)[0].T
        return made

    @on_its_device
    def elbo(self, x: Any, resp: Any = None) -> Array:
        """Evidence lower bound of each row for a posterior of its component.

        ``sum_k resp_k (log(weight_k N(x | k)) - log resp_k)``: variational inference with a discrete z. The E-step of
        EM makes it equal to the log density, the M-step raises its mean with ``resp`` fixed (Neal and Hinton, 1998).

        Parameters
        ----------
        x : array, shape (n, data_dim)
        resp : array, shape (n, n_components), optional
            Not negative, with rows that sum to one; :meth:`predict_proba` by default, where the bound is tight.

        Returns
        -------
        ndarray, shape (n,)

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        rows = self._rows(x)
        shares = None if resp is None else self._responsibilities(resp, len(rows))
        made: Array = namespace_of(rows).empty(len(rows), rows.dtype)
        for at, log_probs in self._log_probs(rows):
            share = log_normalize(log_probs.copy())[0] if shares is None else shares[at].T
            with np.errstate(divide="ignore", invalid="ignore"):
                terms = np.where(share > 0, share * (log_probs - np.log(share)), 0)
            made[at] = terms.sum(0)
        return made

    def _responsibilities(self, resp: Any, n: int) -> Array:
        name, wanted = "GaussianMixture: resp", (n, len(self.weights_))
        array = as_real(name, resp)
        if array.shape != wanted:
            raise ValueError(f"{name} must have shape (n, n_components) = {wanted}, got {array.shape}")
        shares = as_rows(name, array, "float64")
        if (shares < 0).any():
            at = tuple(int(k) for k in np.argwhere(shares < 0)[0])
            raise ValueError(f"{name} must be >= 0, got {shares[at]} at {list(at)}")
        sums = shares.sum(1)
        if (np.abs(sums - 1) > SUM_TOLERANCE).any():
            row = int(np.abs(sums - 1).argmax())
            raise ValueError(f"{name} must have rows that sum to 1, got {sums[row]} in row {row}")
        return shares

    def _n_parameters(self) -> int:
        k, d = (int(size) for size in self.means_.shape)
        matrix = d * (d + 1) // 2
        of_covariances = {"full": k * matrix, "tied": matrix, "diag": k * d, "spherical": k}
        return of_covariances[self.covariance_type] + k * d + k - 1

    def bic(self, x: Any) -> float:
        """Bayesian information criterion, the lower the better: ``log(n) parameters - 2 log likelihood``.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        float
            Schwarz, 1978.

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        n = len(self._rows(x))
        return -2 * self.score(x) * n + self._n_parameters() * math.log(n)

    def aic(self, x: Any) -> float:
        """Akaike information criterion, the lower the better: ``2 parameters - 2 log likelihood``.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        float
            Akaike, 1974.

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        return -2 * self.score(x) * len(self._rows(x)) + 2 * self._n_parameters()

    def sample(self, n_samples: int = 1, *, component: int | None = None) -> tuple[Array, Array]:
        """Draw rows, from the mixture or from one component.

        Parameters
        ----------
        n_samples : int
            How many.
        component : int, optional
            All rows come from this one; else their numbers are multinomial with the weights.

        Returns
        -------
        x : ndarray, shape (n_samples, data_dim)
            Component after component, in the dtype of the fitted data. An integer ``random_state`` gives the same rows
            each time.
        labels : ndarray of int64, shape (n_samples,)
            Their components.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        self._check_fitted()
        n, parts = as_int("GaussianMixture: n_samples", n_samples, 1), self._components()
        k, d = parts.means.shape
        rng = self._generator()
        if component is None:
            counts = rng.multinomial(n, parts.weights / parts.weights.sum())
        else:
            counts = n * (np.arange(k) == as_int("GaussianMixture: component", component, 0, k))
        noise = rng.standard_normal((n, d))
        ends = np.cumsum(counts)
        for each in np.flatnonzero(counts):
            at, factor = slice(ends[each] - counts[each], ends[each]), parts.factors[each]
            lower = None if factor.ndim == 1 else np.ascontiguousarray(factor.T)
            noise[at] = parts.means[each] + (noise[at] / factor if lower is None else ops.tril_solve(lower, noise[at]))
        labels = np.repeat(np.arange(k), counts)
        return move(noise.astype(self.means_.dtype), self.means_), move(labels, self.means_)
