# SPDX-License-Identifier: MIT
"""Per-row improvement of a Gaussian posterior with theta fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .. import random as rp_random
from .._arrays import namespace_of, on_its_device
from .._check import as_choice, as_int
from ..distributions import MultivariateNormal, MultivariateNormalDiag
from ..elbo import elbo

__all__ = ["convert", "refine"]

Array = NDArray[Any]
DRAWS = 16
# Measured on half-hidden digits: with 10 in place of 30, a diagonal q needs three times the steps for the same ELBO.
FIRST_STEP, HALF_LIFE = 0.5, 30.0


@on_its_device
def convert(q: Any, covariance_type: str) -> Any:
    """The member of the other family nearest to q.

    Diagonal of a full one: ``1/sqrt`` of the precision's diagonal, the optimum of KL(diagonal || q) (Bishop, PRML,
    10.1.2).
    """
    xp = namespace_of(q.loc)
    if as_choice("convert: covariance_type", covariance_type, ("full", "diag")) == "full":
        if isinstance(q, MultivariateNormal):
            return q
        return MultivariateNormal.trusted(q.loc, q.scale_diag[..., None] * xp.eye(q.event_shape[0], dtype=q.dtype))
    if isinstance(q, MultivariateNormalDiag):
        return q
    identity = xp.eye(q.event_shape[0], dtype=q.dtype)
    columns = ops.tril_solve(q.scale_tril[..., None, :, :], np.broadcast_to(identity, q.scale_tril.shape))
    return MultivariateNormalDiag.trusted(q.loc, 1 / np.sqrt((columns**2).sum(-1)))


@on_its_device
def refine(q: Any, log_joint: Any, *, steps: int, key: Any, num_samples: int = DRAWS, index: Any = None) -> Any:
    """Ascend each row's own ELBO from ``q``, theta fixed.

    Natural gradient in Cholesky coordinates with decreasing steps a_t = 0.5/(1 + t/30), 16 draws a step by default:
    ``u = a L^T g`` clipped to norm 1 and ``A = a Phi(tril(L^T G))`` clipped to norm 0.5, with g and G the ELBO's
    gradient in loc and L and Phi halving the diagonal; ``loc += L u``, ``L += L A`` off the diagonal,
    ``L_ii *= exp(A_ii)``. The gradient is that of sticking the landing (Roeder et al., arXiv 1703.09194),
    h_s = g_s + L^-T noise_s in place of g_s: it has no noise at the posterior, so a Gaussian posterior is reached to
    rounding, and not to the error of 16 draws.

    Parameters
    ----------
    q : MultivariateNormal or MultivariateNormalDiag
        Where to start; a batch of rows.
    log_joint : callable or target
        As :func:`reparam.elbo` takes it.
    steps : int
        None of them gives ``q`` itself.
    key : key
        Step t draws with ``fold_in(key, t)``.
    num_samples : int
        Draws of each step.
    index : int array of q's batch shape, optional
        Numbers of the rows in the data, which address their draws; 0, 1, 2, ... by default.

    Returns
    -------
    MultivariateNormal or MultivariateNormalDiag
        Of q's family. A row's result depends on its own density, start and number alone.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """
    if not isinstance(q, (MultivariateNormal, MultivariateNormalDiag)):
        raise TypeError(f"refine: q must be a MultivariateNormal or MultivariateNormalDiag, got {type(q).__name__}")
    number = rp_random.as_key(key, "refine: key")
    if as_int("refine: steps", steps) == 0:
        return q
    q = own_fields(q)
    for t in range(steps):
        draws = {"key": rp_random.fold_in(number, t), "num_samples": num_samples, "index": index}
        grad = elbo(q, log_joint, estimator="stl", **draws).grad
        q = natural_step(q, grad, FIRST_STEP / (1 + t / HALF_LIFE))
    return q


def natural_step(q: Any, grad: Any, step_size: float) -> Any:
    """Q after one step along the natural gradient; NaN in a row whose gradient is not finite."""
    if isinstance(q, MultivariateNormal):
        operands = (q.loc, q.scale_tril, grad.loc, grad.scale_tril)
        return MultivariateNormal.trusted(*ops.normal_tril_natural_step(*operands, step_size=step_size))
    operands = (q.loc, q.scale_diag, grad.loc, grad.scale_diag)
    return MultivariateNormalDiag.trusted(*ops.normal_diag_natural_step(*operands, step_size=step_size))


def own_fields(q: Any) -> Any:
    """Q with a loc and a scale for each row, zero above the diagonal."""
    loc = np.broadcast_to(q.loc, q.batch_shape + q.event_shape)
    if isinstance(q, MultivariateNormal):
        return MultivariateNormal.trusted(loc, np.tril(np.broadcast_to(q.scale_tril, loc.shape + q.event_shape)))
    return MultivariateNormalDiag.trusted(loc, np.broadcast_to(q.scale_diag, loc.shape))
