# SPDX-License-Identifier: MIT
"""What a VAE can say about log p(x)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import as_int, as_key
from ..elbo import log_mean_exp

__all__ = ["Evidence"]

Array = NDArray[Any]


class Evidence:
    """The half of a model that estimates the evidence of rows."""

    # What the other halves provide.
    _estimates: Any
    _prepared: Any

    def log_likelihood(self, x: Any, *, num_samples: int = 1000, key: Any) -> Array:
        """Estimate log p(x) of each row by importance sampling from q: ``log mean_s p(x, z_s)/q(z_s)``.

        A lower bound in the mean, which is tight as ``num_samples`` grows.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        num_samples : int
            Draws per row.
        key : key
            Row i draws from its noise stream i.

        Returns
        -------
        ndarray, shape (n,)
            In the model's dtype. Burda, Grosse and Salakhutdinov, arXiv 1509.00519.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        draws = as_int("VAE: num_samples", num_samples, 1)
        estimates = self._estimates(self._prepared(x), as_key(key, "VAE: key"), draws)
        return np.concatenate([log_mean_exp(e.log_weights) for e in estimates])
