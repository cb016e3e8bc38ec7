# SPDX-License-Identifier: MIT
"""Gaussian mixtures, fitted by expectation-maximization."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import move, on_its_device, to_numpy
from .._check import FLOATS, as_bool, as_choice, as_float, as_int, as_key
from ..inference.data import as_real
from .mixture_em import EM, Components
from .mixture_fit import GIVEN, Ascent, Start, ascend, check_given, stored_shape
from .mixture_start import STARTS
from .mixture_use import MixtureUse, as_data
from .stored import Stored

__all__ = ["GaussianMixture"]

Array = NDArray[Any]
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
FITTED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "lower_bounds_")
NUMBERS = ("converged_", "n_iter_", "lower_bound_")


class GaussianMixture(MixtureUse, Stored):
    """Mixture of Gaussians with the arguments, methods and attributes of scikit-learn's, but for its ``get_params``.

    EM on centred and whitened rows, two matrix products over their features an iteration; results do not depend on
    offset and scale of the data, and rows in float32 are summed in float64 (Dempster, Laird and Rubin, 1977). The
    likelihood never decreases, but for what ``reg_covar`` takes from it. z is discrete, so there is no ``log_joint``.

    Parameters
    ----------
    n_components : int
        Number K of Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}
        A matrix each, one for all, variances of the features, or one variance each.
    tol : float
        EM stops when the mean log likelihood of a row changes by less.
    reg_covar : float
        Added to the variances.
    max_iter : int
        Of EM; with 0 the start is what is fitted.
    n_init : int
        Starts, of which the best result is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        Responsibilities of the first M-step: the clusters of Lloyd's k-means, or random ones; or components that stand
        at rows far from each other, or at any rows, with nothing but ``reg_covar`` for their variances.
    weights_init : array, shape (K,), optional
        In place of those of the first M-step.
    means_init : array, shape (K, data_dim), optional
    precisions_init : array, optional
        Shaped as ``precisions_``.
    random_state : int, key or numpy.random.RandomState, optional
        See :func:`reparam.random.as_key`; a generator is moved on. Fresh randomness if None.
    warm_start : bool
        Whether a further fit goes on from the last one.
    verbose : int
        1 prints starts and some iterations, 2 the change of the bound and the time, too.
    verbose_interval : int
        Iterations from one that is printed to the next.

    Attributes
    ----------
    weights_ : ndarray, shape (K,)
    means_ : ndarray, shape (K, data_dim)
    covariances_ : ndarray
        Shape (K, data_dim, data_dim) of "full", (data_dim, data_dim) of "tied", (K, data_dim) of "diag" and (K,) of
        "spherical".
    precisions_, precisions_cholesky_ : ndarray
        Of the same shape: inverses, and their upper triangular factors U (``precision = U U^T``) or square roots.
    converged_ : bool
    n_iter_ : int
    lower_bound_ : float
        Mean log likelihood of a row in the last E-step, that is of the parameters before the last M-step; :meth:`score`
        gives that of the fitted ones.
    lower_bounds_ : ndarray of float64, shape (n_iter_,)
        One an iteration.
    n_features_in_ : int
        ``data_dim``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    lower_bound_: float
    lower_bounds_: Array
    converged_: bool
    n_iter_: int

    def __init__(  # noqa: PLR0913
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self.n_components, self.covariance_type = n_components, covariance_type
        self.tol, self.reg_covar, self.max_iter = tol, reg_covar, max_iter
        self.n_init, self.init_params = n_init, init_params
        self.weights_init, self.means_init, self.precisions_init = weights_init, means_init, precisions_init
        self.random_state, self.warm_start = random_state, warm_start
        self.verbose, self.verbose_interval = verbose, verbose_interval
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Arguments may be set later, as in scikit-learn, so a fit asks again."""
        as_int("GaussianMixture: n_components", self.n_components, 1)
        as_choice("GaussianMixture: covariance_type", self.covariance_type, COVARIANCE_TYPES)
        as_float("GaussianMixture: tol", self.tol, 0)
        as_float("GaussianMixture: reg_covar", self.reg_covar, 0)
        as_int("GaussianMixture: max_iter", self.max_iter)
        as_int("GaussianMixture: n_init", self.n_init, 1)
        as_choice("GaussianMixture: init_params", self.init_params, STARTS)
        for name in GIVEN:
            if getattr(self, name) is not None:
                as_real(f"GaussianMixture: {name}", getattr(self, name), "fiu")
        if self.random_state is not None and not isinstance(
            self.random_state, np.random.RandomState | np.random.Generator
        ):
            as_key(self.random_state, "GaussianMixture: random_state")
        as_bool("GaussianMixture: warm_start", self.warm_start)
        as_int("GaussianMixture: verbose", self.verbose)
        as_int("GaussianMixture: verbose_interval", self.verbose_interval, 1)

    def _generator(self) -> np.random.Generator:
        """What draws: the same each time for a ``random_state`` that is a number."""
        state = self.random_state
        if isinstance(state, np.random.RandomState):
            return np.random.default_rng(state.randint(0, 2**32, 2, dtype=np.uint64))
        return np.random.default_rng(None if state is None else as_key(state, "GaussianMixture: random_state"))

    @on_its_device
    def fit(self, x: Any, y: Any = None) -> GaussianMixture:
        """Fit the mixture to rows by EM.

        Parameters
        ----------
        x : array, shape (n, data_dim)
            At least ``n_components`` rows of real numbers; float32 gives attributes in float32, else float64. Rows of
            CuPy give attributes of CuPy; each iteration waits for their GPU once, for sums of a few numbers.
        y : any
            Ignored, as in scikit-learn.

        Returns
        -------
        GaussianMixture
            Itself. A RuntimeWarning says if it has not converged.

        Raises
        ------
        TypeError, ValueError
            For bad data or arguments, or if a covariance has no inverse; the model stays as it was.
        """
        self._check_arguments()
        rows = as_data(x)
        n, d = rows.shape
        if n < self.n_components:
            raise ValueError(f"GaussianMixture: x must have at least n_components = {self.n_components} rows, got {n}")
        given = {name: getattr(self, name) for name in GIVEN if getattr(self, name) is not None}
        given = check_given(given, self.n_components, d, self.covariance_type)
        self._ascend(rows, Start(self.init_params, self.n_components, given))
        if not self.converged_ and self.max_iter:
            warnings.warn(
                f"GaussianMixture did not converge in max_iter = {self.max_iter} iterations: the bound still changes "
                "by more than tol",
                RuntimeWarning,
                stacklevel=3,  # the line that calls fit
            )
        return self

    def _ascend(self, rows: Array, begin: Start) -> None:
        """EM on rows and arguments that were checked: set the fitted attributes."""
        warm = self.warm_start and hasattr(self, "means_")
        last = self._last(rows.shape[1]) if warm else None
        em = EM(rows, self.n_components, self.covariance_type, float(self.reg_covar))
        rng, found = self._generator(), []
        verbose = (int(self.verbose), self.verbose_interval)
        for init in range(1 if warm else self.n_init):
            if self.verbose:
                print(f"Initialization {init}")
            first = begin(em, rows, rng) if last is None else em.enter(last)
            before = -math.inf if last is None else self.lower_bound_
            found.append(ascend(em, first, before, tol=self.tol, max_iter=self.max_iter, verbose=verbose))
        self._publish(em, rows, max(found, key=lambda ascent: ascent.bound))

    def fit_predict(self, x: Any, y: Any = None) -> Array:
        """Fit the mixture, and give the most probable component of each row.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        y : any
            Ignored, as in scikit-learn.

        Returns
        -------
        ndarray of int64, shape (n,)
            As :meth:`predict` of the fitted model.

        Raises
        ------
        TypeError, ValueError
            See :meth:`fit`.
        """
        return self.fit(x).predict(x)

    def _last(self, d: int) -> Components:
        """Where the last fit ended."""
        last = self._components()
        if last.means.shape != (self.n_components, d) or self.precisions_cholesky_.shape != self._shape(d):
            raise ValueError(
                f"GaussianMixture: warm_start must go on with {self.n_components} components of {d} features, got "
                f"{last.means.shape[0]} of {last.means.shape[1]} from the last fit"
            )
        return last

    def _shape(self, d: int) -> tuple[int, ...]:
        return stored_shape(self.covariance_type, self.n_components, d)

    def _publish(self, em: EM, rows: Array, best: Ascent) -> None:
        """Set the fitted attributes, in the dtype of the rows and where they are."""
        dtype = rows.dtype
        own: Any = {"full": ..., "tied": 0, "diag": ..., "spherical": (slice(None), 0)}[self.covariance_type]
        with np.errstate(over="ignore", invalid="ignore"):
            weights, means, factors, covariances = em.leave(best.components)
            factors, matrices = factors[own], self.covariance_type in {"full", "tied"}
            made = {
                "weights_": weights, "means_": means, "covariances_": covariances[own],
                "precisions_": factors @ factors.swapaxes(-1, -2) if matrices else factors**2,
                "precisions_cholesky_": factors,
            }  # fmt: skip
            made = {name: np.array(array, dtype, order="C") for name, array in made.items()}
        for name, array in made.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"GaussianMixture: x must be of a scale whose squares and their inverses {np.dtype(dtype)} holds; "
                    f"{name} is not finite"
                )
        made = {name: move(array, rows) for name, array in made.items()}
        vars(self).update(made, lower_bounds_=np.array(best.bounds), lower_bound_=best.bound)
        self.converged_, self.n_iter_, self.n_features_in_ = best.converged, len(best.bounds), means.shape[1]

    def __repr__(self) -> str:
        """The arguments that are not the defaults, and whether it is fitted."""
        shown = [f"n_components={self.n_components!r}"]
        for name, parameter in list(inspect.signature(type(self)).parameters.items())[1:]:
            value = getattr(self, name)
            if value is not parameter.default:
                shown.append(f"{name}=..." if name in GIVEN else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)}, {'fitted' if hasattr(self, 'means_') else 'not fitted'})"

    def _contents(self) -> tuple[dict[str, Any], dict[str, Array]]:
        names = [n for n in inspect.signature(type(self)).parameters if n not in GIVEN]
        config = {name: getattr(self, name) for name in names}
        config = {n: value.item() if isinstance(value, np.generic) else value for n, value in config.items()}
        if not isinstance(self.random_state, int | np.integer):  # what is moved on by its use cannot be stored
            config["random_state"] = None
        arrays = {name: to_numpy(getattr(self, name)) for name in (*FITTED, *GIVEN) if getattr(self, name) is not None}
        return config | {name: getattr(self, name) for name in NUMBERS}, arrays

    @classmethod
    def _restored(cls, header: dict[str, Any], arrays: dict[str, Array]) -> GaussianMixture:
        numbers = {name: header.pop(name) for name in NUMBERS}
        given: dict[str, Any] = {name: arrays.get(name) for name in GIVEN}
        model = cls(**header, **given)
        k, d = arrays["means_"].shape
        shape = stored_shape(model.covariance_type, k, d)
        shapes = {"weights_": (k,), "means_": (model.n_components, d), "lower_bounds_": (numbers["n_iter_"],)}
        for name in FITTED:
            array = arrays[name]
            if array.shape != shapes.get(name, shape) or array.dtype not in FLOATS or not np.isfinite(array).all():
                raise ValueError(f"its {name} is {array.dtype} of shape {array.shape}")
            setattr(model, name, array)
        vars(model).update(numbers, n_features_in_=d)
        return model
