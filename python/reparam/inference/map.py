# SPDX-License-Identifier: MIT
"""Modes of a batch of log densities, and the Gaussians of Laplace at them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .._arrays import device_of, namespace_of, with_dims
from .._check import as_bool, as_float, as_float_array, as_int, broadcast_batches, check_finite, same_dtype
from ..distributions import MultivariateNormal
from ..elbo import evaluate, gradient_of
from ..targets import Target

__all__ = ["MAPResult", "map_estimate"]

Array = NDArray[Any]
TOLERANCES = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-8}
SUFFICIENT = 1e-4  # of the promised rise (Armijo)
RESTARTS = 4  # of an inverse Hessian, the first one among them
HALVINGS = 40  # of a step, until it counts as failed
ROUNDING = 16  # ulp of log_prob, which count as none
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class MAPResult(NamedTuple):
    """What :func:`map_estimate` found, by problem.

    Attributes
    ----------
    value : array, shape (*B, d)
        The mode, or the highest point that was reached.
    log_prob : array, shape B
        There.
    converged : array of bool, shape B
        Whether the gradient there is zero to ``tol``, which a saddle's is too; with ``laplace`` also whether there is a
        Gaussian.
    laplace : MultivariateNormal or None
        ``N(value, (-Hessian)^-1)``, NaN in a problem whose Hessian is not negative definite.
    """

    value: Any
    log_prob: Any
    converged: Any
    laplace: Any


def map_estimate(
    log_joint: Any, init: Any, *, max_steps: int = 500, tol: float | None = None, laplace: bool = False
) -> MAPResult:
    """Maximize each of a batch of log densities, such as log p(x, z) in z: the MAP estimate.

    A quasi-Newton method (BFGS) with an inverse Hessian and a line search for each problem: its result does not depend
    on the batch around it.

    Parameters
    ----------
    log_joint : callable or target of reparam.targets
        As :func:`reparam.elbo` takes it, with one draw: ``value (1, *B, d) -> (log_prob (1, *B), gradient
        (1, *B, d))``, or in place of the gradient a function ``pullback(weights)``.
    init : array, shape (*B, d)
        Where to start; float32 or float64, finite. Of CuPy, all runs on its GPU, for which the host waits once in each
        step and each halving of one.
    max_steps : int
    tol : float, optional
        A problem has converged when the largest entry of its gradient is at most ``tol`` times that at ``init``, or
        ``tol`` where that is less than 1, and the mode within ``sqrt(tol)`` standard deviations by the measured inverse
        Hessian; 1e-8 by default, and 1e-4 in float32.
    laplace : bool
        Whether to approximate the posterior by a Gaussian at the mode, with the Hessian by central differences of the
        gradient (4 d evaluations).

    Returns
    -------
    MAPResult

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected. What ``log_joint`` raises passes through.

    Notes
    -----
    Nocedal and Wright, Numerical Optimization, chapter 6. A step is halved until the density rises by 1e-4 of what the
    slope promises, or is as high to rounding and its slope no longer points back (Hager and Zhang, SIAM J. Optim. 16,
    2005). Where no step will do, the inverse Hessian starts again at a multiple of the identity; where that fails too,
    the problem stops. A step to where the density or its gradient is not finite is not taken, so that a problem that
    starts there stays there, not converged.
    """
    start = as_float_array("map_estimate: init", init)
    if start.ndim < 1 or start.shape[-1] < 1:
        raise ValueError(f"map_estimate: init must have shape (..., d) with d >= 1, got {start.shape}")
    check_finite("map_estimate: init", start)
    steps = as_int("map_estimate: max_steps", max_steps)
    tol = TOLERANCES[start.dtype] if tol is None else as_float("map_estimate: tol", tol, 0)
    with_laplace = as_bool("map_estimate: laplace", laplace)
    with device_of(start):
        search = _Search(_density(log_joint, start), start, tol)
        for _ in range(steps):
            if not search.running.any():
                break
            search.step()
        converged, approximation = search.converged(), None
        if with_laplace:
            precision = np.where(np.isfinite(search.log_prob)[..., None, None], _precision(search), np.nan)
            approximation, proper = _laplace(search.value, precision)
            converged = converged & proper
    return MAPResult(search.value, search.log_prob[()], converged[()], approximation)


def _density(log_joint: Any, start: Array) -> Callable[[Array], tuple[Array, Array]]:
    """The log density (*B) and its gradient (*B, d) at values (*B, d)."""
    batch_shape, d = start.shape[:-1], start.shape[-1]
    names = ("map_estimate", "init")
    if isinstance(log_joint, Target):
        if log_joint.latent_dim != d:
            raise ValueError(f"map_estimate: init must have shape (..., {log_joint.latent_dim}), got {start.shape}")
        same_dtype("map_estimate", ("log_joint", log_joint.dtype), ("init", start.dtype))
        batch = log_joint.batch_shape
        if broadcast_batches("map_estimate", ["init", "log_joint"], [batch_shape, batch]) != batch_shape:
            raise ValueError(f"map_estimate: init must hold the batch shape of log_joint, {batch}, got {start.shape}")
        op = getattr(ops, f"elbo_diag_{log_joint.op}")
        operands, attributes = log_joint.operands(packed=False)
        xp = namespace_of(start)
        no_noise, ones = xp.zeros((1, d), start.dtype), xp.ones(d, start.dtype)

        def at_the_mean(value: Array) -> tuple[Array, Array]:
            made = op(no_noise, value, ones, *operands, estimator="pathwise", **attributes)
            return made[0][..., 0] - start.dtype.type(d * HALF_LOG_2PI), made[3]  # log w = log p + d log(2 pi)/2 there

        return at_the_mean
    if not callable(log_joint):
        wanted = "callable or a target of reparam.targets"
        raise TypeError(f"map_estimate: log_joint must be {wanted}, got {type(log_joint).__name__}")

    def density(value: Array) -> tuple[Array, Array]:
        log_prob, given = evaluate(log_joint, value[None], (1, *batch_shape), names)
        return log_prob[0], gradient_of(given, np.ones_like(log_prob), (1, *start.shape), names)[0]

    return density


class _Search:
    """BFGS of each problem: the highest point so far, its gradient, and an inverse of minus the Hessian."""

    def __init__(self, density: Callable[[Array], tuple[Array, Array]], start: Array, tol: float) -> None:
        self.density, self.value, self.tol = density, start.copy(), tol
        xp = namespace_of(start)
        self.log_prob, self.grad = (xp.array(x) for x in density(start))
        good = np.isfinite(self.log_prob) & np.isfinite(self.grad).all(axis=-1)
        self.limit = tol * np.maximum(1, np.abs(self.grad).max(axis=-1))
        self.identity = xp.eye(start.shape[-1], dtype=start.dtype)
        self.inverse = xp.empty((*start.shape, start.shape[-1]), start.dtype)
        self.fresh, self.restarts = xp.zeros(good.shape, bool), xp.zeros(good.shape, int)
        with np.errstate(invalid="ignore", over="ignore"):
            self._restart(xp.ones(good.shape, bool))
            self.running = good & ~self._finished()

    def step(self) -> None:
        """One step of all problems that are running."""
        with np.errstate(all="ignore"):
            direction = _times(self.inverse, self.grad)
            direction = np.where(_dot(direction, self.grad)[..., None] > 0, direction, self.grad)
            value, log_prob, grad, found = self._line_search(direction)
            self._update(value - self.value, self.grad - grad, found)
            failed = self.running & ~found
            stops = failed & (self.fresh | (self.restarts >= RESTARTS))
            self.value, self.log_prob, self.grad = value, log_prob, grad
            self._restart(failed & ~stops)
            self.running = self.running & ~stops & ~self._finished()

    def converged(self, distance: Array | None = None) -> Array:
        """Whether the gradient is zero to tol, in a unit that the density itself has shown.

        A gradient is small where the density is wide, too: the mode must be near in units of the standard deviations
        that the inverse Hessian gives, and that must have been measured.
        """
        distance = self._distance() if distance is None else distance
        zero, known = (self.grad == 0).all(axis=-1), ~self.fresh & (distance <= math.sqrt(self.tol))
        small: Array = np.isfinite(self.log_prob) & (np.abs(self.grad).max(axis=-1) <= self.limit)
        return with_dims(small & (zero | known))

    def _distance(self) -> Array:
        with np.errstate(all="ignore"):
            result: Array = np.sqrt(np.abs(_dot(self.grad, _times(self.inverse, self.grad))))
        return result

    def _finished(self) -> Array:
        distance = self._distance()
        return self.converged(distance) & (distance <= self.tol)

    def _line_search(self, direction: Array) -> tuple[Array, Array, Array, Array]:
        """The first of the steps 1, 1/2, 1/4, ... that will do, by problem, and where there is one."""
        value, log_prob, grad = self.value.copy(), self.log_prob.copy(), self.grad.copy()
        slope, length = _dot(direction, self.grad), np.ones_like(self.log_prob)
        lowest = self.log_prob - ROUNDING * np.finfo(value.dtype).eps * (1 + np.abs(self.log_prob))
        pending = self.running.copy()
        for _ in range(HALVINGS):
            tried = np.where(pending[..., None], self.value + length[..., None] * direction, value)
            there, its_grad = self.density(tried)
            rises = there >= self.log_prob + SUFFICIENT * length * slope
            level = (there >= lowest) & (_dot(its_grad, direction) >= -0.8 * slope)
            good = pending & (rises | level) & np.isfinite(there) & np.isfinite(its_grad).all(axis=-1)
            value, grad = np.where(good[..., None], tried, value), np.where(good[..., None], its_grad, grad)
            log_prob, pending = np.where(good, there, log_prob), pending & ~good
            if not pending.any():
                break
            length = np.where(pending, length / 2, length)
        return value, log_prob, grad, self.running & ~pending

    def _update(self, move: Array, drop: Array, found: Array) -> None:
        """The BFGS formula; where the density bends upward, longer steps instead."""
        bend = _dot(move, drop)
        bends_down = found & (bend > np.finfo(move.dtype).eps * np.sqrt(_dot(move, move) * _dot(drop, drop)))
        scaled = (bend / _dot(drop, drop))[..., None, None] * self.identity
        inverse = np.where((self.fresh & bends_down)[..., None, None], scaled, self.inverse)
        rate, bent = (1 / bend)[..., None, None], _times(inverse, drop)
        cross = move[..., :, None] * bent[..., None, :]
        outer = move[..., :, None] * move[..., None, :]
        updated = inverse - rate * (cross + np.swapaxes(cross, -1, -2))
        updated += rate * (1 + rate * _dot(drop, bent)[..., None, None]) * outer
        inverse = np.where((found & ~bends_down)[..., None, None], 4 * inverse, inverse)
        self.inverse = np.where(bends_down[..., None, None], updated, inverse)
        self.fresh = self.fresh & ~bends_down

    def _restart(self, which: Array) -> None:
        """The identity, shortened so that the next step has at most length 1."""
        largest = np.maximum(np.abs(self.grad).max(axis=-1), 1)  # whose square may overflow
        share = self.grad / largest[..., None]
        size = np.maximum(1, largest * np.sqrt(_dot(share, share)))
        self.inverse = np.where(which[..., None, None], self.identity / size[..., None, None], self.inverse)
        self.fresh, self.restarts = self.fresh | which, self.restarts + which


def _dot(a: Array, b: Array) -> Array:
    result: Array = (a * b).sum(axis=-1)
    return result


def _times(matrix: Array, vector: Array) -> Array:
    return _dot(matrix, vector[..., None, :])


def _precision(search: _Search) -> Array:
    """Minus the Hessian by central differences, symmetrized, in steps of a small part of each coordinate's scale.

    That scale comes from the inverse Hessian of the search, and the second time from the first result: a search that
    ended after a few steps knows little of it.
    """
    value, dtype = search.value, search.value.dtype
    precision = np.empty_like(search.inverse)
    diagonal = namespace_of(value).arange(value.shape[-1])
    with np.errstate(all="ignore"):
        scale = np.sqrt(search.inverse[..., diagonal, diagonal])
        for _ in range(2):
            step = np.where(np.isfinite(scale), scale, 1) * np.finfo(dtype).eps ** 0.25
            for j in range(value.shape[-1]):
                above, below = value.copy(), value.copy()
                above[..., j] += step[..., j]
                below[..., j] -= step[..., j]
                drop = search.density(below)[1] - search.density(above)[1]
                precision[..., j, :] = drop / (above - below)[..., j, None]
            precision = (precision + np.swapaxes(precision, -1, -2)) / 2
            curvature = precision[..., diagonal, diagonal]
            scale = np.where(curvature > 0, 1 / np.sqrt(curvature), scale)
    result: Array = precision
    return result


def _laplace(value: Array, precision: Array) -> tuple[MultivariateNormal, Array]:
    """The Gaussians, and which of them there are; NaN in the others."""
    xp, finite = namespace_of(value), with_dims(np.isfinite(precision).all(axis=(-1, -2)))
    identity = xp.eye(value.shape[-1], dtype=value.dtype)
    precision = np.where(finite[..., None, None], precision, identity)
    backwards: Array = xp.ascontiguousarray(precision[..., ::-1, ::-1])  # the order in which its factor is made
    failed = with_dims(ops.cholesky_ex(backwards).info | ops.cholesky_ex(precision).info).astype(bool)
    proper = with_dims(finite & ~failed)
    made = MultivariateNormal(value, precision_matrix=np.where(proper[..., None, None], precision, identity))
    if np.all(proper):
        return made, proper
    loc = np.where(proper[..., None], made.loc, np.nan).astype(value.dtype)
    scale_tril = np.where(proper[..., None, None], made.scale_tril, np.nan).astype(value.dtype)
    return MultivariateNormal.trusted(loc, scale_tril), proper
