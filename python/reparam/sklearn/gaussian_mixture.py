# SPDX-License-Identifier: MIT
"""The mixture of Gaussians as an estimator of scikit-learn."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import cluster, config_context, mixture
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ..inference.data import own_dtype
from ..models import GaussianMixture as Mixture
from ..models.mixture_em import EM, Assign, NoInverseError
from ..models.mixture_fit import GIVEN, Start, check_given
from ..models.mixture_start import at_rows, of_labels

__all__ = ["GaussianMixture"]

Array = NDArray[Any]
_checks = inspect.signature(mixture.GaussianMixture._check_parameters).parameters
NAMESPACE = {"xp": np} if "xp" in _checks else {}  # which releases before array API dispatch do not take


class SameStart(Start):
    """The starts that scikit-learn makes of a ``random_state``: so a fit is the one that it would have been there."""

    def responsibilities(self, em: EM, x: Array, rng: Any) -> Assign:
        """Of the first M-step."""
        k = self.n_components
        if self.method == "kmeans":
            return of_labels(cluster.KMeans(n_clusters=k, n_init=1, random_state=rng).fit(x).labels_, k)
        if self.method == "k-means++":
            return at_rows(cluster.kmeans_plusplus(x, k, random_state=rng)[1], x)
        if self.method == "random_from_data":
            return at_rows(rng.choice(len(x), size=k, replace=False), x)
        shares = np.asarray(rng.uniform(size=(len(x), k)), x.dtype)
        shares /= shares.sum(1, keepdims=True)
        return lambda at, *_: (shares[at].T, 0.0)


class GaussianMixture(Mixture, mixture.GaussianMixture):
    """:class:`sklearn.mixture.GaussianMixture`, with EM and the densities computed by :class:`reparam.GaussianMixture`.

    Arguments, defaults, errors, warnings and attributes are scikit-learn's, and so are its random numbers: with the
    same ``random_state`` a fit has the same components in the same order and the same number of iterations, with
    parameters equal to rounding. What differs:

    - "tied" with "k-means++" or "random_from_data" starts from ``reg_covar``, as all others do, and not from squares
      of rows that belong to no component. Weights of both starts sum to one, so that the first lower bound is higher.
    - Rows in float32 are summed in float64, and results do not depend on the offset of the data. A variance that is
      nothing but rounding is an ill-defined covariance, as zero is; scikit-learn may go on with it.
    - ``lower_bounds_`` is an array. A fit that fails leaves the fitted attributes as they were.
    - Arrays of other libraries are made NumPy's, under array API dispatch too.

    :meth:`elbo`, :meth:`save` and :meth:`load` are ours; a file can be read as either class, and has no
    ``feature_names_in_``.

    Parameters
    ----------
    n_components, covariance_type, tol, reg_covar, max_iter, n_init, init_params
        See :class:`sklearn.mixture.GaussianMixture`, as for all others.
    weights_init, means_init, precisions_init, random_state, warm_start, verbose, verbose_interval
        Checked by ``fit``.

    Raises
    ------
    InvalidParameterError, ValueError, TypeError, NotFittedError
        By ``fit`` and the methods of a fitted model, in scikit-learn's words.
    """

    bic = mixture.GaussianMixture.bic
    aic = mixture.GaussianMixture.aic
    score = mixture.GaussianMixture.score
    sample = mixture.GaussianMixture.sample
    __repr__ = mixture.GaussianMixture.__repr__

    def _check_arguments(self) -> None:
        """Not when the estimator is made, which must hold whatever it is given; ``_fit_context`` does it."""

    def _check_fitted(self) -> None:
        check_is_fitted(self)

    def _generator(self) -> Any:
        return check_random_state(self.random_state)

    def _rows(self, x: Any) -> Array:
        self._check_fitted()
        rows = self._validated(x, reset=False)
        return np.ascontiguousarray(rows, own_dtype(rows))

    def _validated(self, X: Any, **how: Any) -> Array:
        with config_context(array_api_dispatch=False):  # arrays of NumPy come out, whatever goes in
            rows: Array = validate_data(self, X, **how)
            return rows

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> GaussianMixture:
        """Fit the mixture to rows by EM.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows in float32 give attributes in float32, all else float64.
        y : any
            Ignored.

        Returns
        -------
        GaussianMixture
            Itself. A ConvergenceWarning says if it has not converged.

        Raises
        ------
        InvalidParameterError, ValueError, TypeError
            For bad arguments or data, or if a covariance has no inverse.
        """
        self._fit(X)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_predict(self, X: Any, y: Any = None) -> Array:
        """Fit the mixture, and give the most probable component of each row.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : any
            Ignored.

        Returns
        -------
        ndarray of int64, shape (n_samples,)
            As :meth:`predict` of the fitted model.

        Raises
        ------
        InvalidParameterError, ValueError, TypeError
            See :meth:`fit`.
        """
        return self._labels(self._fit(X))

    def _fit(self, X: Any) -> Array:
        """The rows that were fitted."""
        rows = self._validated(X, dtype=[np.float64, np.float32], order="C", ensure_min_samples=2)
        (n, d), k = rows.shape, self.n_components
        if n < k:
            raise ValueError(f"Expected n_samples >= n_components but got n_components = {k}, n_samples = {n}")
        with config_context(array_api_dispatch=False):
            self._check_parameters(rows, **NAMESPACE)
        given = {name: getattr(self, name) for name in GIVEN if getattr(self, name) is not None}
        given = check_given(given, k, d, self.covariance_type)
        try:
            self._ascend(rows, SameStart(self.init_params, k, given))
        except NoInverseError as error:
            raise ValueError(
                "Fitting the mixture model failed because some components have ill-defined empirical covariance (for "
                "instance caused by singleton or collapsed samples). Try to decrease the number of components, "
                "increase reg_covar, or scale the input data."
            ) from error
        if not self.converged_ and self.max_iter:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase max_iter, "
                "tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=4,  # the line that calls fit
            )
        return rows

    def score_samples(self, X: Any) -> Array:
        """Log density of each row.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples,)
            float32 for rows in float32, else float64.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            If the model is not fitted, or for bad data.
        """
        return super().score_samples(X)

    def predict(self, X: Any) -> Array:
        """The most probable component of each row.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray of int64, shape (n_samples,)

        Raises
        ------
        NotFittedError, ValueError, TypeError
            If the model is not fitted, or for bad data.
        """
        return super().predict(X)

    def predict_proba(self, X: Any) -> Array:
        """Responsibilities: the posterior of each row's component.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_components)

        Raises
        ------
        NotFittedError, ValueError, TypeError
            If the model is not fitted, or for bad data.
        """
        return super().predict_proba(X)

    def __sklearn_tags__(self) -> Any:
        """What ``parametrize_with_checks`` and meta-estimators ask: arrays of NumPy alone."""
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags
