# SPDX-License-Identifier: MIT
"""The Monte Carlo evidence lower bound and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ops, targets
from . import random as rp_random
from ._check import as_bool, as_choice, as_float_array, as_int, broadcast_batches, same_dtype
from .distributions import MultivariateNormal, MultivariateNormalDiag

__all__ = ["ELBOEstimate", "elbo"]

Array = NDArray[Any]
LogJoint = Callable[[Array], tuple[Array, Any]] | targets.LinearGaussian
ESTIMATORS = ("pathwise",)


class ELBOEstimate(NamedTuple):
    """A Monte Carlo estimate of the ELBO of a batch of problems.

    Attributes
    ----------
    value : array, shape B
        The bound, higher is better: ``mean_s log p(x, z_s)`` plus the closed-form entropy.
    standard_error : array, shape B
        Of ``value``; NaN for one draw.
    log_weights : array, shape (S, *B)
        ``log p(x, z_s) - log q(z_s)``.
    weights : array, shape (S, *B)
        What a model's own parameter gradient is averaged with: 1/S.
    grad : namespace or None
        Gradient of ``value.sum()`` in q's own fields (``loc``; ``scale_tril`` or ``scale_diag``; ``covariance_matrix``
        where q was made from one), summed over broadcast dims. An ascent direction.
    key : int
        The key that was used.
    """

    value: Array
    standard_error: Array
    log_weights: Array
    weights: Array
    grad: Any
    key: int


def elbo(
    q: MultivariateNormal | MultivariateNormalDiag,
    log_joint: LogJoint,
    *,
    key: Any,
    num_samples: int = 1,
    estimator: str = "pathwise",
    index: Any = None,
    grad: bool = True,
) -> ELBOEstimate:
    """Estimate the ELBO of ``q`` and its gradient by reparameterization.

    Parameters
    ----------
    q : MultivariateNormal or MultivariateNormalDiag
        Batch shape ``B``, event shape ``(d,)``.
    log_joint : callable or targets.LinearGaussian
        A callable takes ``value`` of shape ``(S, *B, d)`` and returns ``(log_prob (S, *B), gradient (S, *B, d))``; in
        place of the gradient it may return a function ``pullback(weights (S, *B))`` that gives ``weights * gradient``.
        A built-in target runs fused in one kernel and its noise is never stored.
    key : key
        See :func:`reparam.random.as_key`.
    num_samples : int
        Draws S for each event.
    estimator : {"pathwise"}
        Closed-form entropy.
    index : int array of shape B, optional
        Event b takes noise stream ``index[b]``; 0, 1, 2, ... by default.
    grad : bool
        Whether to compute the gradient.

    Returns
    -------
    ELBOEstimate

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.

    Notes
    -----
    With ``z_s = loc + L noise_s`` and ``g_s`` the gradient of ``log p(x, z)`` at ``z_s``: d loc is ``mean g_s``, d L is
    ``tril(mean g_s noise_s^T) + diag(1/L_ii)`` (Kingma and Welling, arXiv 1312.6114; Kucukelbir et al., arXiv
    1603.00788).
    """
    if not isinstance(q, (MultivariateNormal, MultivariateNormalDiag)):
        raise TypeError(f"elbo: q must be a MultivariateNormal or MultivariateNormalDiag, got {type(q).__name__}")
    as_choice("elbo: estimator", estimator, ESTIMATORS)
    draws = as_int("elbo: num_samples", num_samples, 1)
    grad = as_bool("elbo: grad", grad)
    used = rp_random.as_key(key, "elbo: key")
    streams = rp_random.draw_index(index, q.batch_shape, "elbo: index")
    if isinstance(log_joint, targets.LinearGaussian):
        made = _fused(q, log_joint, rp_random.Draw(used, streams), draws, grad)
    elif callable(log_joint):
        made = _combined(
            q, log_joint, rp_random.event_normal(draws, streams, q.event_shape[0], key=used, dtype=q.dtype), grad
        )
    else:
        raise TypeError(
            f"elbo: log_joint must be callable or a target of reparam.targets, got {type(log_joint).__name__}"
        )
    log_weights, value, standard_error, ct_loc, ct_scale = made
    weights = np.broadcast_to(np.asarray(1 / draws, q.dtype), (draws, *q.batch_shape))
    gradient = _gradient(q, ct_loc, ct_scale) if grad else None
    return ELBOEstimate(value, standard_error, log_weights, weights, gradient, used)


def _outputs(q: Any, draws: int) -> tuple[Array, tuple[Any, ...]]:
    """Log weights as ``(S, *B)`` in memory, and the arrays that an elbo op fills; gradients have q's own shapes."""
    batch = q.batch_shape
    log_weights = np.empty((draws, *batch), q.dtype)
    scalars = np.empty((2, *batch), q.dtype)
    return log_weights, (
        np.moveaxis(log_weights, 0, -1), scalars[0, ...], scalars[1, ...], np.empty_like(q.loc), np.empty_like(q._scale)
    )  # fmt: skip


def _finish(log_weights: Array, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    value, standard_error = (x if x.ndim else x[()] for x in outputs[1:3])
    return log_weights, value, standard_error, outputs[3], outputs[4]


def _fused(q: Any, target: targets.LinearGaussian, draw: rp_random.Draw, draws: int, grad: bool) -> tuple[Any, ...]:
    if target.latent_dim != q.event_shape[0]:
        raise ValueError(f"elbo: the target's latent_dim is {target.latent_dim}, but q has event shape {q.event_shape}")
    same_dtype("elbo", ("the target", target.dtype), ("q", q.dtype))
    batches = [q.batch_shape, target.batch_shape]
    if broadcast_batches("elbo", ["q", "the target"], batches) != q.batch_shape:
        raise ValueError(
            f"elbo: the target's batch shape must broadcast to q's, {q.batch_shape}, got {target.batch_shape}"
        )
    operands = target.x, target.weight, target.bias, target.noise_scale
    run = getattr(ops, f"elbo_{q._family}_linear_gaussian")
    log_weights, outputs = _outputs(q, draws)
    run(draw, q.loc, q._scale, *operands, s=draws, sums=outputs if grad else (*outputs[:3], None, None))
    return _finish(log_weights, outputs)


def _combined(q: Any, log_joint: Any, noise: Array, grad: bool) -> tuple[Any, ...]:
    draws, batch = noise.shape[0], q.batch_shape
    value = getattr(ops, f"normal_{q._family}_transform")(noise, q.loc, q._scale)
    returned = log_joint(value)
    if not isinstance(returned, tuple) or len(returned) != 2:
        count = f" of {len(returned)}" if isinstance(returned, tuple) else ""
        raise TypeError(f"elbo: log_joint must return (log_prob, gradient), got {type(returned).__name__}{count}")
    log_prob = _returned("log_joint's log_prob", returned[0], (draws, *batch), q.dtype)
    if not grad:
        gradient = np.zeros((), q.dtype)
    elif callable(returned[1]):  # the pullback gets the weights 1/S, and gives the gradients times them
        weights = np.full((draws, *batch), 1 / draws, q.dtype)
        gradient = _returned("the pullback's result", returned[1](weights), noise.shape, q.dtype) * draws
    else:
        gradient = _returned("log_joint's gradient", returned[1], noise.shape, q.dtype, "an array or a function")
    run = getattr(ops, f"elbo_{q._family}_combine")
    log_weights, outputs = _outputs(q, draws)
    run(
        np.moveaxis(noise, 0, -2), np.moveaxis(log_prob, 0, -1),
        np.moveaxis(np.broadcast_to(gradient, noise.shape), 0, -2), q._scale,
        sums=outputs if grad else (*outputs[:3], None, None),
    )  # fmt: skip
    return _finish(log_weights, outputs)


def _returned(name: str, value: Any, shape: tuple[int, ...], dtype: Any, wanted: str = "an array") -> Array:
    array = as_float_array(f"elbo: {name}", value, wanted)
    if array.shape != shape:
        raise ValueError(f"elbo: {name} must have shape {shape}, got {array.shape}")
    same_dtype("elbo", (name, array.dtype), ("q", dtype))
    return array


def _gradient(q: Any, ct_loc: Array, ct_scale: Array) -> SimpleNamespace:
    if q._family == "diag":
        return SimpleNamespace(loc=ct_loc, scale_diag=ct_scale)
    grad = SimpleNamespace(loc=ct_loc, scale_tril=ct_scale)
    if q._made_from == "covariance_matrix":
        grad.covariance_matrix = ops.cholesky.vjp(q._scale, ct_scale)
    return grad
