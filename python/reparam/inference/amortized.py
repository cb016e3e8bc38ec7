# SPDX-License-Identifier: MIT
"""Amortized variational inference with theta fixed: one net gives the posterior of every row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import device_of
from .._check import as_choice, as_float, as_int, as_key
from ..elbo import ESTIMATORS
from ..optim import Adam
from .amortized_posterior import HISTORY, AmortizedPosterior, as_log_joint
from .data import as_dtype, as_rows
from .maximize_elbo import maximize_elbo

__all__ = ["AmortizedPosterior", "fit_amortized"]

Array = NDArray[Any]


def fit_amortized(  # noqa: PLR0913
    log_joint: Callable[[Array], Any],
    x: Any,
    latent_dim: int,
    *,
    hidden: Any = (256,),
    covariance_type: str = "full",
    estimator: str = "pathwise",
    num_samples: int = 1,
    lr: Any = 1e-3,
    batch_size: int = 128,
    epochs: int = 200,
    dtype: Any = "float32",
    key: Any = 0,
) -> AmortizedPosterior:
    """Fit one encoder ``q(z | x)`` to the posteriors of all rows, the model's theta fixed.

    Parameters
    ----------
    log_joint : callable
        ``log_joint(rows)``, with ``rows`` some rows of ``x``, an array (m, data_dim) of this dtype (the rows themselves
        and not their numbers, so that it serves rows that come later too), gives ``log p(rows, z)`` as
        :func:`reparam.elbo` takes it: a function ``z (S, m, latent_dim) -> (log_prob (S, m), gradient or pullback)``,
        or a target of ``reparam.targets``. The bound method of any model will do: ``model.log_joint``.
    x : array, shape (n, data_dim)
        Real numbers; converted to ``dtype``. The encoder sees them standardized by column. Of CuPy, all runs on their
        GPU, and each step waits for it once.
    latent_dim : int
        Size of z.
    hidden : sequence of int
        Widths of the encoder's hidden layers, of tanh; with ``()`` q's ``loc`` and scale are linear in x.
    covariance_type : {"full", "diag"}
        Of q, which starts at N(loc, I).
    estimator : {"pathwise", "stl", "iwae", "dreg"}
        Of the gradient, see :func:`reparam.elbo`.
    num_samples : int
        Draws per row and step.
    lr : float or callable
        Learning rate of Adam, or a function of the step.
    batch_size, epochs : int
        Rows of a step, at most n; passes over the data, each in an order of its own.
    dtype : {"float32", "float64"}
        Of the encoder, of ``rows`` and of z.
    key : key
        Everything random follows from it; see :func:`reparam.random.as_key`.

    Returns
    -------
    AmortizedPosterior
        With ``posterior(x)``, ``elbo(x, key=)``, ``history_``, ``save`` and ``load``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected, where ``log_joint`` returns another shape too; ValueError
        also where an ELBO or its gradient is not finite, naming the rows. What ``log_joint`` raises passes through.

    Notes
    -----
    Kingma and Welling, arXiv 1312.6114; what one encoder loses against a q of each row's own is the amortization gap
    (Cremer, Li and Duvenaud, arXiv 1801.03558).
    """
    joint = as_log_joint("fit_amortized", log_joint)
    array = as_rows("fit_amortized: x", x, as_dtype("fit_amortized: dtype", dtype))
    number, (n, data_dim) = as_key(key, "fit_amortized: key"), array.shape
    settings: dict[str, Any] = {"covariance_type": covariance_type, "num_samples": num_samples, "dtype": dtype}
    made = AmortizedPosterior(data_dim, latent_dim, hidden=hidden, key=number, log_joint=joint, **settings)
    if as_int("fit_amortized: batch_size", batch_size, 1) > n:
        raise ValueError(f"fit_amortized: batch_size must be <= n = {n}, got {batch_size}")
    made._standardize(array)
    optimizer = Adam(made._encoder.params, lr=lr if callable(lr) else as_float("fit_amortized: lr", lr, 0))
    told: list[Any] = []
    with (
        np.errstate(over="ignore", invalid="ignore"),
        device_of(array),
    ):  # an overflow is told by the error of what is not finite
        grads = np.zeros_like(made._encoder.params)
        maximize_elbo(
            lambda rows: made._encode(array[rows], grads),
            lambda rows: made._joint(array[rows]),
            optimizer,
            grads,
            num_rows=n,
            key=number,
            batch_size=batch_size,
            epochs=range(as_int("fit_amortized: epochs", epochs, 1)),
            num_samples=made.num_samples,
            estimator=as_choice("fit_amortized: estimator", estimator, ESTIMATORS),
            on_epoch=lambda *entries: told.append(entries),
        )
        finite = np.isfinite(made._encoder.params).all()
    if not finite:
        raise ValueError("fit_amortized: training diverged in the last step; lower lr, or scale the data")
    made.history_ = dict(zip(HISTORY, np.array(told, np.float64).T.copy(), strict=True))
    return made
