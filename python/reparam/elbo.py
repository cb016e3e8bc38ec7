# SPDX-License-Identifier: MIT
"""The Monte Carlo evidence lower bound and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ops, targets
from . import random as rp_random
from ._arrays import copy_of, is_cupy, namespace_of, on_its_device, with_dims
from ._check import as_bool, as_choice, as_float_array, as_int, broadcast_batches, one_device, same_dtype
from .distributions import EncodedNormal, MultivariateNormal, MultivariateNormalDiag, Normal, matrix_cotangent
from .ops import _estimators

__all__ = ["ELBOEstimate", "elbo"]

Array = NDArray[Any]
Gaussian = Normal | MultivariateNormalDiag | MultivariateNormal
LogJoint = Callable[[Array], tuple[Array, Any]] | targets.Target
ESTIMATORS = _estimators.ESTIMATORS
IMPORTANCE = ("iwae", "dreg")


class ELBOEstimate(NamedTuple):
    """A Monte Carlo estimate of the ELBO of a batch of problems, or of the importance-weighted bound.

    Attributes
    ----------
    value : array, shape B
        The bound, higher is better: ``mean_s log p(x, z_s)`` plus the closed-form entropy (``pathwise``),
        ``mean_s log w_s`` (``stl``), ``logsumexp_s log w_s - log S`` (``iwae``, ``dreg``).
    standard_error : array, shape B
        Of ``value``: the standard deviation (ddof 1) of ``log p(x, z_s)`` (``pathwise``) or ``log w_s`` (``stl``) over
        sqrt(S), or by the delta method ``sqrt(S/(S-1) sum_s (weights_s - 1/S)^2)``; NaN for one draw.
    log_weights : array, shape (S, *B)
        ``log w_s = log p(x, z_s) - log q(z_s)``.
    weights : array, shape (S, *B)
        What a model's own parameter gradient is averaged with: 1/S, or ``softmax_s(log_weights)``.
    grad : namespace or None
        Gradient of ``value.sum()`` in q's own fields (``loc``; ``scale``, ``scale_diag`` or ``scale_tril``; and
        ``covariance_matrix`` or ``precision_matrix`` where q was made from one), summed over broadcast dims. An ascent
        direction.
    key : int
        The key that was used.
    """

    value: Array
    standard_error: Array
    log_weights: Array
    weights: Array
    grad: Any
    key: int


@on_its_device
def elbo(
    q: Gaussian | EncodedNormal,
    log_joint: LogJoint,
    *,
    key: Any,
    num_samples: int = 1,
    estimator: str = "pathwise",
    index: Any = None,
    grad: bool = True,
) -> ELBOEstimate:
    """Estimate the ELBO of ``q``, or the importance-weighted bound, and its gradient by reparameterization.

    Parameters
    ----------
    q : Normal, MultivariateNormalDiag or MultivariateNormal
        Batch shape ``B``, event shape ``()`` or ``(d,)``.
    log_joint : callable or target of reparam.targets
        A callable takes ``value`` of shape ``(S, *B, d)`` and returns ``(log_prob (S, *B), gradient (S, *B, d))``
        (without the ``d`` for a Normal); in place of the gradient it may return a function ``pullback(weights)`` that
        gives ``weights * gradient`` and is called once, when the weights ``(S, *B)`` are known. A built-in target runs
        fused in one kernel and its noise is never stored.
    key : key
        See :func:`reparam.random.as_key`.
    num_samples : int
        Draws S for each event.
    estimator : {"pathwise", "stl", "iwae", "dreg"}
        Gradients of the ELBO with its closed-form entropy (Kingma and Welling, arXiv 1312.6114) or without the score of
        q ("sticking the landing", Roeder et al., arXiv 1703.09194: zero for every draw where q is the posterior); of
        the importance-weighted bound (Burda et al., arXiv 1509.00519), plain or doubly reparameterized (Tucker et al.,
        arXiv 1810.04152).
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
    With ``z_s = loc + L noise_s``, ``g_s`` the gradient of ``log p(x, z)`` at ``z_s``, ``h_s = g_s + L^-T noise_s`` and
    ``w~ = softmax(log_weights)``, d loc is ``mean g_s``, ``mean h_s``, ``sum w~_s g_s``, ``sum w~_s^2 h_s``; d L is
    tril of the same sums of ``g_s noise_s^T`` or ``h_s noise_s^T``, plus ``diag(1/L_ii)`` where they are of g. The
    gradient of ``dreg`` is for q alone: a model's own parameters take ``weights``, the first power.
    """
    if not isinstance(q, Gaussian | EncodedNormal):
        names = "Normal, MultivariateNormalDiag or MultivariateNormal"
        raise TypeError(f"elbo: q must be a {names}, got {type(q).__name__}")
    as_choice("elbo: estimator", estimator, ESTIMATORS)
    draws = as_int("elbo: num_samples", num_samples, 1)
    grad = as_bool("elbo: grad", grad)
    used = rp_random.as_key(key, "elbo: key")
    streams = rp_random.draw_index(index, q.batch_shape, "elbo: index", q.loc)
    if isinstance(q, EncodedNormal):
        return _elbo_encoded(q, log_joint, rp_random.draw_once(used, streams), draws, estimator, grad)
    made = _Outputs(q, draws, estimator, grad)
    if isinstance(log_joint, targets.Target):
        weights = _fused(made, log_joint, rp_random.draw_once(used, streams))
    elif callable(log_joint):
        size = made.q.event_shape[0]
        noise = rp_random.event_normal(draws, streams, size, key=used, dtype=q.dtype, like=q.loc)
        weights = _combined(made, log_joint, noise)
    else:
        raise TypeError(
            f"elbo: log_joint must be callable or a target of reparam.targets, got {type(log_joint).__name__}"
        )
    value, standard_error = (x if x.ndim else x[()] for x in made.arrays[1:3])
    return ELBOEstimate(value, standard_error, made.log_weights, weights, made.gradient() if grad else None, used)


class _Outputs:
    """What the ELBO ops fill: log weights as ``(S, *B)`` in memory, and gradients of q's own shapes."""

    def __init__(self, q: Gaussian, draws: int, estimator: str, grad: bool) -> None:
        self.given, self.draws, self.estimator, self.grad = q, draws, estimator, grad
        self.q: Any = q
        if isinstance(q, Normal):  # as vectors of one coordinate
            self.q = MultivariateNormalDiag.trusted(q.loc[..., None], q.scale[..., None])
        xp = namespace_of(q.loc)
        self.log_weights = xp.empty((draws, *q.batch_shape), q.dtype)
        scalars = xp.empty((2, *q.batch_shape), q.dtype)
        self.arrays = (
            np.moveaxis(self.log_weights, 0, -1), scalars[0, ...], scalars[1, ...],
            np.empty_like(self.q.loc), np.empty_like(self.q._scale),
        )  # fmt: skip

    def run(self, name: str, *operands: Any, **keywords: Any) -> None:
        sums = self.arrays if self.grad else (*self.arrays[:3], None, None)
        if self.packed:
            keywords["packed"] = True
        run = getattr(ops, f"elbo_{self.q._family}_{name}")
        run(*operands, estimator=self.estimator, sums=sums, **keywords)

    @property
    def packed(self) -> bool:
        return bool(self.q._family == "tril" and self.q._packed)

    def equal_weights(self) -> Array:
        return _equal_weights(self.q, self.draws, self.log_weights.shape)

    def gradient(self) -> SimpleNamespace:
        ct_loc, ct_scale = self.arrays[3:]
        if isinstance(self.given, Normal):
            return SimpleNamespace(loc=ct_loc[..., 0], scale=ct_scale[..., 0])
        if self.q._family == "diag":
            return SimpleNamespace(loc=ct_loc, scale_diag=ct_scale)
        made = SimpleNamespace(loc=ct_loc, scale_tril=ct_scale)
        if self.q._made_from != "scale_tril":
            setattr(made, self.q._made_from, matrix_cotangent(self.q, ct_scale))
        return made


def _fused(made: _Outputs, target: targets.Target, draw: rp_random.Draw) -> Array:
    q = made.q
    if target.latent_dim != q.event_shape[0]:
        shape = made.given.event_shape
        raise ValueError(f"elbo: the target's latent_dim is {target.latent_dim}, but q has event shape {shape}")
    same_dtype("elbo", ("the target", target.dtype), ("q", q.dtype))
    if broadcast_batches("elbo", ["q", "the target"], [q.batch_shape, target.batch_shape]) != q.batch_shape:
        raise ValueError(
            f"elbo: the target's batch shape must broadcast to q's, {q.batch_shape}, got {target.batch_shape}"
        )
    operands, attributes = target.operands(packed=made.packed)
    made.run(target.op, draw, q.loc, q._scale, *operands, s=made.draws, **attributes)
    return _softmax(made.log_weights) if made.estimator in IMPORTANCE else made.equal_weights()


def _combined(made: _Outputs, log_joint: Any, noise: Array) -> Array:
    q, given_shape = made.q, noise.shape[:-1] if isinstance(made.given, Normal) else noise.shape
    transform = getattr(ops, f"normal_{q._family}_transform_and_log_prob")
    value, log_q = transform(noise, q.loc, q._scale, **({"packed": True} if made.packed else {}))
    log_prob, given = evaluate(log_joint, value.reshape(given_shape), noise.shape[:-1])
    weights = _softmax(log_prob - log_q) if made.estimator in IMPORTANCE else made.equal_weights()
    weighted = callable(given)
    gradient = gradient_of(given, weights, given_shape) if made.grad else namespace_of(q.loc).zeros((), q.dtype)
    gradient = gradient.reshape(noise.shape) if gradient.ndim else np.broadcast_to(gradient, noise.shape)
    made.run(
        "combine", np.moveaxis(noise, 0, -2), np.moveaxis(log_prob, 0, -1), np.moveaxis(gradient, 0, -2), q._scale,
        weighted=weighted,
    )  # fmt: skip
    return weights


def _elbo_encoded(
    q: EncodedNormal, log_joint: Any, draw: rp_random.Draw, draws: int, estimator: str, grad: bool
) -> ELBOEstimate:
    """For a q whose scale is not in memory: noise, transform and its vjp in the kernel of the encoder's head."""
    if estimator not in ("pathwise", "iwae") or not callable(log_joint):  # those need the scale itself, for a solve
        settings: dict[str, Any] = {"num_samples": draws, "estimator": estimator, "index": draw.index, "grad": grad}
        estimate = elbo(q.distribution(), log_joint, key=draw.key, **settings)
        return estimate._replace(grad=q.pull(estimate.grad) if grad else None)
    (d,), shape = q.event_shape, (draws, *q.batch_shape)
    noise: Any = draw[None]
    if draws > 1:
        noise = rp_random.event_normal(draws, draw.index, d, key=draw.key, dtype=q.dtype, like=q.loc)
    value, log_q = q.transform_and_log_prob(noise, q.loc, q.vector)
    log_prob, given = evaluate(log_joint, value, shape)
    log_weights = log_prob - log_q
    if estimator == "iwae":
        weights = _softmax(log_weights)
        bound, deviation = log_mean_exp(log_weights), (weights - 1 / draws) * draws
    else:
        weights = _equal_weights(q, draws, shape)
        mean = log_prob.mean(0, dtype=np.float64)
        bound = (mean + q.log_det() + d / 2 * (1 + math.log(2 * math.pi))).astype(q.dtype)
        deviation = mean if draws == 1 else log_prob - mean  # of one draw the error is NaN, whatever it was
    gradient = None
    if grad:
        weighted = gradient_of(given, weights, value.shape)
        weighted = weighted if callable(given) else weights[..., None] * weighted
        _, *cotangents = q.transform_and_log_prob.vjp(noise, q.loc, q.vector, weighted, -weights)
        gradient = SimpleNamespace(loc=cotangents[0], vector=cotangents[1])
    if draws == 1:
        error = bound * np.nan
    else:
        squares = (deviation**2).sum(0, dtype=np.float64)
        error = np.sqrt(squares / np.float64(draws * (draws - 1))).astype(q.dtype)
    return ELBOEstimate(bound, error, log_weights, weights, gradient, draw.key)


def _equal_weights(q: Any, draws: int, shape: tuple[int, ...]) -> Array:
    """1/S for each draw."""
    weight = namespace_of(q.loc).full((), 1 / draws, q.dtype) if is_cupy(q.loc) else np.asarray(1 / draws, q.dtype)
    return np.broadcast_to(weight, shape)


def log_mean_exp(log_weights: Array) -> Array:
    """Over the draws, in float64."""
    most = log_weights.max(0)
    shift = np.where(np.isfinite(most), most, 0)
    with np.errstate(divide="ignore"):
        result: Array = (shift + np.log(np.exp(log_weights - shift, dtype=np.float64).mean(0))).astype(most.dtype)
    return result


def _softmax(log_weights: Array) -> Array:
    """Over the draws; NaN where no draw has a finite weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        most = log_weights.max(0)
        made: Array = np.exp(log_weights - np.where(np.isfinite(most), most, 0), dtype=log_weights.dtype)
        made /= made.sum(0, dtype=np.float64).astype(made.dtype)
    return made


def evaluate(
    log_joint: Any, value: Array, shape: tuple[int, ...], names: tuple[str, str] = ("elbo", "q")
) -> tuple[Array, Any]:
    """Log p(x, z) of this shape, and what stands for its gradient; ``names``: who asks, and whose the dtype is."""
    returned = log_joint(value)
    if not isinstance(returned, tuple) or len(returned) != 2:
        count = f" of {len(returned)}" if isinstance(returned, tuple) else ""
        raise TypeError(f"{names[0]}: log_joint must return (log_prob, gradient), got {type(returned).__name__}{count}")
    return _returned("log_joint's log_prob", returned[0], shape, value, names), returned[1]


def gradient_of(given: Any, weights: Array, shape: tuple[int, ...], names: tuple[str, str] = ("elbo", "q")) -> Array:
    """The gradient in z, times the weights where it comes by a pullback."""
    if callable(given):
        own = copy_of(with_dims(weights))
        return _returned("the pullback's result", given(own), shape, weights, names)
    return _returned("log_joint's gradient", given, shape, weights, names, "an array or a function")


def _returned(
    name: str, value: Any, shape: tuple[int, ...], like: Array, names: tuple[str, str], wanted: str = "an array"
) -> Array:
    """What a density has returned, as an array of this shape; dtype and place must be those of ``like``."""
    array = as_float_array(f"{names[0]}: {name}", value, wanted)
    if array.shape != shape:
        raise ValueError(f"{names[0]}: {name} must have shape {shape}, got {array.shape}")
    same_dtype(names[0], (name, array.dtype), (names[1], like.dtype))
    one_device(names[0], [(name, array), (names[1], like)])
    return array
