# SPDX-License-Identifier: MIT
"""The posterior of every row by one net, as amortized variational inference leaves it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import targets
from .._arrays import device_of, move, on_its_device
from .._check import CheckpointError, as_choice, as_int, as_key
from ..elbo import elbo
from ..nn import MLP, GaussianHead
from .checkpoint import as_path, read, take, write
from .data import as_dtype, as_rows, as_widths, chunks
from .maximize_elbo import INIT, purpose_key

__all__ = ["HISTORY", "AmortizedPosterior", "as_log_joint"]

Array = NDArray[Any]
ROWS_AT_ONCE = 1024  # rows of one evaluation
HISTORY = ("step", "epoch", "elbo")
CONFIG = ("data_dim", "latent_dim", "hidden", "covariance_type", "num_samples", "dtype")


def as_log_joint(owner: str, log_joint: Any) -> Any:
    """What gives the density of rows."""
    if not callable(log_joint):
        raise TypeError(f"{owner}: log_joint must be callable, got {type(log_joint).__name__}")
    return log_joint


class AmortizedPosterior:
    """``q(z | x)`` for any row x by one encoder net; :func:`fit_amortized` and :meth:`load` make it.

    Attributes
    ----------
    history_ : dict of ndarray
        ``step`` (steps done at its end), ``epoch`` (from 0) and ``elbo`` (what was maximized, mean per row over its
        minibatches), one float64 entry an epoch.
    data_dim, latent_dim, hidden, covariance_type, num_samples, dtype
        As of :func:`fit_amortized`; ``data_dim`` is the width of its ``x``.

    Notes
    -----
    The net goes to where the rows are: to the GPU of CuPy arrays, and back.
    """

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        *,
        hidden: Any = (256,),
        covariance_type: str = "full",
        num_samples: int = 1,
        dtype: Any = "float32",
        key: Any = 0,
        log_joint: Any = None,
    ) -> None:
        self.data_dim = data_dim
        self.latent_dim = as_int("fit_amortized: latent_dim", latent_dim, 1)
        self.hidden = as_widths("fit_amortized: hidden", hidden)
        self.covariance_type = as_choice("fit_amortized: covariance_type", covariance_type, ("full", "diag"))
        self.num_samples = as_int("fit_amortized: num_samples", num_samples, 1)
        self.dtype = as_dtype("fit_amortized: dtype", dtype)
        self._log_joint = log_joint
        self._head = GaussianHead(self.latent_dim, self.covariance_type)
        key = purpose_key(as_key(key, "fit_amortized: key"), INIT, 0)
        self._encoder = MLP((data_dim, *self.hidden, self._head.features), key=key, dtype=self.dtype)
        self._head.start_at_identity(self._encoder)
        self._center, self._scale = np.zeros((2, data_dim), self.dtype)
        self.history_ = {name: np.empty(0) for name in HISTORY}

    def __repr__(self) -> str:
        """The sizes, the family, the element type."""
        return f"AmortizedPosterior({', '.join(f'{name}={getattr(self, name)!r}' for name in CONFIG)})"

    def _rows(self, x: Any) -> Array:
        """Checked rows; the net follows them."""
        array = as_rows("AmortizedPosterior: x", x, self.dtype, self.data_dim)
        self._follow(array)
        return array

    def _follow(self, x: Array) -> None:
        self._encoder._follow(x)
        self._center, self._scale = move(self._center, x), move(self._scale, x)

    @on_its_device
    def _standardize(self, x: Array) -> None:
        """The net sees columns of mean 0 and variance 1 (0 where a column is constant): lr then fits any units."""
        self._follow(x)
        scale, rounding = x.std(0, dtype=np.float64), np.finfo(self.dtype).eps * np.abs(x).max(0)
        self._center[...], self._scale[...] = x.mean(0, dtype=np.float64), np.where(scale > rounding, scale, 1)

    @on_its_device
    def _encode(self, x: Array, grads: Array | None = None) -> tuple[Any, Callable[[Any], object]]:
        """q(z | x), and the pullback of its gradient into ``grads``."""
        features, backprop = self._encoder((x - self._center) / self._scale, grads)
        q, pullback = self._head.encode(features)
        return q, lambda grad: backprop(pullback(grad), input_gradient=False)

    def _joint(self, x: Array) -> Any:
        """The density of these rows, as elbo takes it."""
        joint = self._log_joint(x)
        if not callable(joint) and not isinstance(joint, targets.Target):
            kind = type(joint).__name__
            raise TypeError(f"fit_amortized: log_joint(rows) must return a function of z or a target, got {kind}")
        return joint

    def posterior(self, x: Any) -> Any:
        """The approximate posterior of z for each row.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        MultivariateNormal or MultivariateNormalDiag
            Batch shape ``(n,)``, in the posterior's dtype.

        Raises
        ------
        TypeError, ValueError
            For bad data.
        """
        return self._encode(self._rows(x))[0].distribution()

    def elbo(self, x: Any, *, key: Any, num_samples: int | None = None) -> Array:
        """Estimate the ELBO of each row: ``mean_s log p(x, z_s)`` plus the entropy of q.

        Parameters
        ----------
        x : array, shape (n, data_dim)
            Rows of the fit or others; ``log_joint`` is called with them.
        key : key
            Row i draws from its noise stream i.
        num_samples : int, optional
            Draws per row; those of the fit by default.

        Returns
        -------
        ndarray, shape (n,)
            NaN where ``log_joint`` is.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if :func:`reparam.elbo` refuses what ``log_joint`` returns; ValueError also if the
            file was loaded without one.
        """
        if self._log_joint is None:
            raise ValueError("AmortizedPosterior: elbo needs the density: load it with log_joint=")
        array, number = self._rows(x), as_key(key, "AmortizedPosterior: key")
        draws = self.num_samples if num_samples is None else num_samples
        as_int("AmortizedPosterior: num_samples", draws, 1)
        settings: dict[str, Any] = {"key": number, "num_samples": draws, "grad": False}
        values = []
        with device_of(array):
            for rows, index in chunks(len(array), ROWS_AT_ONCE):
                q, joint = self._encode(array[rows])[0].distribution(), self._joint(array[rows])
                values.append(elbo(q, joint, index=index, **settings).value)
            return np.concatenate(values)

    def save(self, path: Any) -> None:
        """Write the posterior to one file, without pickle and without ``log_joint``; :meth:`load` reads it.

        Parameters
        ----------
        path : path
            Of a regular file or none yet, in a folder that exists. It is replaced at once when the new one is complete.

        Raises
        ------
        TypeError, ValueError
            If ``path`` is none, is a folder or no regular file.
        OSError
            If the file cannot be written, naming ``path``; a previous file stays as it was.
        """
        header = {
            "kind": "AmortizedPosterior",
            "config": {name: getattr(self, name) for name in CONFIG},
            "history": {name: entries.tolist() for name, entries in self.history_.items()},
        }
        arrays = {"params": self._encoder.params, "center": self._center, "scale": self._scale}
        write(as_path("AmortizedPosterior: path", path), header, arrays)

    @classmethod
    def load(cls, path: Any, log_joint: Any = None) -> AmortizedPosterior:
        """Read a posterior that :meth:`save` wrote.

        Parameters
        ----------
        path : path
            Of the file.
        log_joint : callable, optional
            As of :func:`fit_amortized`; :meth:`elbo` alone needs it.

        Returns
        -------
        AmortizedPosterior

        Raises
        ------
        TypeError, ValueError
            If ``path`` is none or no regular file, or ``log_joint`` is not callable.
        OSError
            If there is no such file (FileNotFoundError), or it cannot be read.
        CheckpointError
            If the file is corrupt, truncated or of something else.
        """
        if log_joint is not None:
            as_log_joint("AmortizedPosterior", log_joint)
        name = as_path("AmortizedPosterior: path", path, new=False)
        header, arrays = read(name, cls.__name__)
        try:
            made = cls(**header["config"], log_joint=log_joint)
            made.history_ = {n: np.array([float(entry) for entry in header["history"][n]]) for n in HISTORY}
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError(f"{name}: the file does not describe an AmortizedPosterior: {error!r}") from error
        for n, array in {"params": made._encoder.params, "center": made._center, "scale": made._scale}.items():
            array[...] = take(name, arrays, n, array)
        return made
