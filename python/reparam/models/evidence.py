# SPDX-License-Identifier: MIT
"""What a VAE can say about log p(x): bounds, the exact value for one or two latents, and what the bounds lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import device_of, move, namespace_of, to_numpy
from .._check import as_int, as_key
from ..distributions import MultivariateNormalDiag
from ..elbo import elbo, log_mean_exp
from ..inference.data import chunks
from ..inference.maximize_elbo import EVALUATION, purpose_key
from .likelihoods import Prepared
from .quadrature import log_integral, normal_nodes

__all__ = ["Evidence", "Gaps"]

Array = NDArray[Any]
REFINEMENT_DRAWS = 64  # measured: a diagonal q of 2 latents ends 1e-4 nats from its optimum, of 8 latents 1e-3
ROWS_AT_ONCE = 1024  # whose cells are in memory together
DRAWS_AT_ONCE = 32_768  # decoder rows of one evaluation
PRIOR_RADIUS, POSTERIOR_RADIUS, CELLS = 8.0, 10.0, 12  # of the box of the quadrature, and its cells along an axis
LARGEST_ROUNDING = 0.01  # nats by which a density's own rounding may be wrong where its integral is called exact
NEAR = np.array([-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0])  # edges more, in standard deviations about the posterior


@dataclass(frozen=True)
class Gaps:
    """Where the evidence of each row goes: ``log_evidence = elbo + approximation_gap + amortization_gap``.

    Attributes
    ----------
    log_evidence : ndarray, shape (n,)
        ``log p(x)``.
    elbo : ndarray, shape (n,)
        Of the encoder's q.
    approximation_gap : ndarray, shape (n,)
        What the best q of the family lacks: ``log_evidence`` less the ELBO of the row's refined q.
    amortization_gap : ndarray, shape (n,)
        What the encoder's q lacks against that one; never negative.
    exact : ndarray of bool, shape (n,)
        Whether ``log_evidence`` is the integral itself, and not a lower bound.
    """

    log_evidence: Array
    elbo: Array
    approximation_gap: Array
    amortization_gap: Array
    exact: Array


class Evidence:
    """The half of a model that estimates the evidence of rows."""

    # What the other halves provide.
    _encode: Any
    _estimates: Any
    _joint: Any
    _prepared: Any
    _refined: Any
    covariance_type: str
    dtype: str
    key: int
    latent_dim: int

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
        data, number = self._prepared(x), as_key(key, "VAE: key")
        with device_of(data.x):
            return np.concatenate([log_mean_exp(e.log_weights) for e in self._estimates(data, number, draws)])

    def gaps(self, x: Any, *, refine: int = 200, num_samples: int = 1000) -> Gaps:
        """Split the evidence of each row into the ELBO, the approximation gap and the amortization gap.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        refine : int
            Steps of natural-gradient ascent from the encoder's q to the best q of its family, 64 draws each.
        num_samples : int
            Draws per row for each quantity that is estimated.

        Returns
        -------
        Gaps
            Arrays of NumPy, shape (n,), float64. With one or two latents ``log_evidence`` is the integral of
            p(x | z) p(z) by adaptive cubature, over a box that holds the prior and the refined posterior, and ELBOs are
            expectations by Gauss-Hermite: no draw is made but in the refinement. A second mode that is narrower than a
            hundredth of the prior may be overlooked. With more latents, or in rows where ``exact`` is False, the
            cubature having not converged, it is the importance-weighted bound of ``num_samples`` draws from the refined
            full-covariance posterior. With more latents ELBOs are mean log weights of so many draws. Gaps are NaN in a
            row that the decoder cannot reach: no density is finite there.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.

        Notes
        -----
        Cremer, Li and Duvenaud, arXiv 1801.03558.
        """
        steps = as_int("VAE: refine", refine)
        draws = as_int("VAE: num_samples", num_samples, 1)
        data = self._prepared(x)
        with device_of(data.x):
            return self._gaps(data, steps, draws)

    def _gaps(self, data: Prepared, steps: int, draws: int) -> Gaps:
        encoded = self._refined(data, self.covariance_type, 0)
        best = self._refined(data, self.covariance_type, steps, REFINEMENT_DRAWS)
        full = best if self.covariance_type == "full" else self._refined(data, "full", steps, REFINEMENT_DRAWS)
        bound, refined = (to_numpy(self._elbos(q, data, draws)) for q in (encoded, best))
        refined = np.where(refined > bound, refined, bound)  # the encoder's q is of the family too
        evidence, exact = np.empty(len(bound)), np.zeros(len(bound), bool)
        if self.latent_dim <= 2:
            evidence, exact = self._integral(full, data)
        rest = np.flatnonzero(~exact)
        if len(rest):
            weighted = to_numpy(self._weighted_bound(full, data, draws, move(rest, full.loc)))  # both are lower bounds
            evidence[rest] = np.where(refined[rest] > weighted, refined[rest], weighted)
        with np.errstate(invalid="ignore"):  # rows of which no density is finite
            return Gaps(evidence, bound, evidence - refined, refined - bound, exact)

    def _elbos(self, q: Any, data: Prepared, draws: int) -> Array:
        """Of each row, in float64: by quadrature for one or two latents, else as the mean of log weights."""
        if self.latent_dim > 2:
            return np.concatenate([e.value.astype(np.float64) for e in self._weights(q, data, draws)])
        nodes, weights = (move(x, q.loc) for x in normal_nodes(self.latent_dim))
        values = []
        for rows, _ in chunks(len(data.x), max(1, DRAWS_AT_ONCE // len(nodes))):
            value = np.einsum("bij,sj->sbi", _factor(q)[rows], nodes) + q.loc[rows]
            log_prob, _ = self._joint(data.rows(rows))(value.astype(self.dtype))
            values.append(weights @ log_prob.astype(np.float64))
        result: Array = np.concatenate(values) + q.entropy()
        return result

    def _weights(self, q: Any, data: Prepared, draws: int) -> Any:
        """Estimates with log weights, of chunks of rows; every q has the same noise, so that they compare."""
        key = purpose_key(self.key, EVALUATION, 2**32 + 1)
        for rows, index in chunks(len(data.x), max(1, DRAWS_AT_ONCE // draws)):
            part, joint = type(q).trusted(q.loc[rows], q._scale[rows]), self._joint(data.rows(rows))
            yield elbo(part, joint, key=key, num_samples=draws, estimator="stl", index=index, grad=False)

    def _weighted_bound(self, q: Any, data: Prepared, draws: int, rows: Array) -> Array:
        part = type(q).trusted(q.loc[rows], q._scale[rows])
        estimates = self._weights(part, data.rows(rows), draws)
        return np.concatenate([log_mean_exp(e.log_weights.astype(np.float64)) for e in estimates])

    def _integral(self, q: Any, data: Prepared) -> tuple[Array, Array]:
        """Log p(x) and whether the cubature converged, row by row; q says where to look more closely."""
        loc, deviation = to_numpy(q.loc).astype(np.float64), to_numpy(q.stddev).astype(np.float64)
        low = np.minimum(-PRIOR_RADIUS, loc - POSTERIOR_RADIUS * deviation)
        high = np.maximum(PRIOR_RADIUS, loc + POSTERIOR_RADIUS * deviation)
        near = loc[..., None] + deviation[..., None] * NEAR
        edges = np.sort(np.concatenate([np.linspace(low, high, CELLS + 1, axis=-1), near], -1))

        rounding = float(np.finfo(self.dtype).eps)
        parts = []
        for rows, _ in chunks(len(data.x), ROWS_AT_ONCE):
            part = data.rows(rows)

            def log_density(k: Array, value: Array, part: Prepared = part) -> Array:
                at = (move(k, part.x), move(value.astype(self.dtype), part.x))
                return to_numpy(self._joint(part.rows(at[0]))(at[1])[0])

            parts.append(log_integral(log_density, edges[rows], max(1e-9, 8 * rounding)))
        value, converged = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return value, converged & (rounding * np.abs(value) < LARGEST_ROUNDING)


def _factor(q: Any) -> Array:
    """The lower factor in float64, dense."""
    if isinstance(q, MultivariateNormalDiag):
        result: Array = q.scale_diag[..., None] * namespace_of(q.loc).eye(q.event_shape[0])
    else:
        result = q.scale_tril.astype(np.float64)
    return result
