# SPDX-License-Identifier: MIT
"""Classical variational inference: one Gaussian for each problem of a batch, theta fixed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random
from .._arrays import device_of, is_cupy, move, namespace_of, to_numpy
from .._check import as_choice, as_dtype, as_float, as_int, as_shape, broadcast_batches, same_dtype
from ..distributions import MultivariateNormal, MultivariateNormalDiag
from ..distributions.families import dense_scale
from ..elbo import elbo
from ..ops._estimators import ESTIMATORS
from ..targets import Target
from .ascent import Adam, Natural
from .diagnostics import psis_khat
from .maximize_elbo import EVALUATION, INIT, purpose_key
from .refine import convert, own_fields
from .run import FIRST_LOOK, Run, mean_bound, where

__all__ = ["VIResult", "fit_vi"]

Array = NDArray[Any]
OPTIMIZERS: dict[str, Any] = {"natural": Natural, "adam": Adam}
RATES = {"natural": 0.5, "adam": 0.05}
# Fewer draws than this take shorter natural steps: with one draw, eight schools are unstable at 0.5 and above 0.06.
FULL_RATE_DRAWS = 16
IMPORTANCE_RATE = 0.1  # over S: eight schools and the diabetes regression are unstable at 0.5/S, slower at 0.05/S
EVALUATION_DRAWS, EVALUATION_GROUPS, CHUNK = 1000, 20, 125


class VIResult(NamedTuple):
    """What :func:`fit_vi` found, by problem.

    Attributes
    ----------
    q : MultivariateNormal or MultivariateNormalDiag
        Batch shape B, event shape (dim,).
    elbo, standard_error : array, shape B
        Of q, from draws of a key of its own: the ELBO (``pathwise``, ``stl``) from 1000 draws, or the bound of
        ``num_samples`` draws (``iwae``, ``dreg``) as a mean over at least 20 groups of them.
    khat : array, shape B
        :func:`reparam.inference.psis_khat` of these draws.
    converged : ndarray of bool, shape B
        Whether the problem stopped by its own rule; False where it ran out of steps or is not finite.
    n_steps : ndarray of int, shape B
        Steps taken; of iwae and dreg those that maximize the bound.
    history : dict
        ``elbo`` (or the bound) and ``standard_error`` of each of these steps, shape (steps, *B); NaN after a problem
        has stopped.
    key : int
        The key that was used.
    """

    q: Any
    elbo: Any
    standard_error: Any
    khat: Any
    converged: Any
    n_steps: Any
    history: dict[str, Array]
    key: int


def fit_vi(  # noqa: PLR0913
    log_joint: Any,
    dim: int,
    *,
    batch_shape: Any = (),
    covariance_type: str = "full",
    optimizer: str = "natural",
    estimator: str = "stl",
    num_samples: int = 16,
    lr: float | None = None,
    max_steps: int = 2000,
    tol: float = 0.02,
    init: Any = None,
    init_scale: float = 0.1,
    dtype: Any = "float64",
    key: Any = 0,
    index: Any = None,
) -> VIResult:
    """Fit a Gaussian to each of a batch of log densities: classical variational inference.

    Each problem climbs its own ELBO, slows down when that no longer grows, and stops by itself: its result depends on
    its own density, start and number alone, not on the batch around it.

    Parameters
    ----------
    log_joint : callable or target of reparam.targets
        As :func:`reparam.elbo` takes it: ``value (S, *B, d) -> (log_prob (S, *B), gradient (S, *B, d))``, for all
        problems at each step. Problems of a target leave the batch when they have stopped. Of a target of CuPy arrays,
        or with such an ``init``, all runs on their GPU.
    dim : int
        Size d of z, at least 1.
    batch_shape : int or tuple of int
        B, one q for each.
    covariance_type : {"full", "diag"}
    optimizer : {"natural", "adam"}
        Natural gradient in coordinates of the Cholesky factor (:func:`reparam.normal_tril_natural_step`), or Adam on
        loc and the logarithms of the scales, with a full factor as diag(scale) times unit lower. An entry moves by at
        most about ``lr`` in a step of Adam: scale the problem to unit size.
    estimator : {"pathwise", "stl", "iwae", "dreg"}
        As in :func:`reparam.elbo`. ``stl`` has no noise at a Gaussian posterior, which is so reached to rounding.
        ``iwae`` and ``dreg`` maximize the bound of ``num_samples`` draws from where ``stl`` ends, in at most
        ``max_steps`` further steps: far from the posterior all weight is on one draw, whose gradient leads nowhere.
        Where the bound ends up lower than it began, q is that of the beginning, not converged if by more than ``tol``.
    num_samples : int
        Draws S of each step.
    lr : float, optional
        First rate. By default 0.05 (adam); 0.5 (natural), or S/32 with fewer than 16 draws, or 0.1/S to maximize the
        bound of iwae and dreg.
    max_steps : int
    tol : float
        In nats. Zero goes on until nothing but rounding is left.
    init : MultivariateNormal or MultivariateNormalDiag, optional
        The first q, of batch shape B or one that broadcasts to it; ``N(0, init_scale^2 I)`` by default.
        A start many standard deviations from the posterior takes as many steps: there the ``laplace`` of
        :func:`reparam.map_estimate` is a better one.
    init_scale : float
    dtype : {"float64", "float32"}
    key : key
        Step t draws with ``fold_in(key, t)``; see :func:`reparam.random.as_key`.
    index : int array of shape B, optional
        Numbers of the problems, which address their draws; 0, 1, 2, ... by default.

    Returns
    -------
    VIResult

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected. What ``log_joint`` raises passes through.

    Notes
    -----
    A problem looks at its ELBO after 24, 32, 43, 58, ... steps, each time 4/3 as many. Where its mean since the last
    look is not above the mean of the window before by more than one standard error, it has settled: from that step t0
    on its rate is ``lr t0 / t``. It stops where that mean has a standard error of at most ``tol`` and has not grown by
    more than ``tol``; q is then the mean of loc and of the scale since the last look, which is several times nearer to
    the optimum than the last step's (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992). Windows in geometric
    progression suit steps of 1/t: each covers the same way. A step whose ELBO or gradient is not finite is not taken;
    a window that has one stops nothing, and a window of nothing else ends the problem, not converged.

    Ranganath, Gerrish and Blei, arXiv 1401.0118 (black box VI); Khan and Lin, arXiv 1703.04265, and L. Tan, arXiv
    2109.00375 (natural gradients); Roeder et al., arXiv 1703.09194 (stl); Welandawe et al., arXiv 2203.15945
    (stopping, averaging).
    """
    full = as_choice("fit_vi: covariance_type", covariance_type, ("full", "diag")) == "full"
    make = OPTIMIZERS[as_choice("fit_vi: optimizer", optimizer, tuple(OPTIMIZERS))]
    importance = as_choice("fit_vi: estimator", estimator, ESTIMATORS) in ("iwae", "dreg")
    draws = as_int("fit_vi: num_samples", num_samples, 1)
    first_rate = rate = RATES[optimizer]
    if optimizer == "natural":
        first_rate *= min(1, draws / FULL_RATE_DRAWS)
        rate = IMPORTANCE_RATE / draws if importance else first_rate
    if lr is not None:
        rate = as_float("fit_vi: lr", lr, 0, above=True)
        first_rate = first_rate if importance else rate
    steps, tol = as_int("fit_vi: max_steps", max_steps, 1), as_float("fit_vi: tol", tol, 0)
    shape, d = as_shape("fit_vi: batch_shape", batch_shape), as_int("fit_vi: dim", dim, 1)
    width = as_float("fit_vi: init_scale", init_scale, 0, above=True)
    real, like = as_dtype("fit_vi: dtype", dtype), log_joint._array if isinstance(log_joint, Target) else None
    used = rp_random.as_key(key, "fit_vi: key")
    with device_of(getattr(init, "loc", None), like):
        start = _start(init, d, shape, width, real, full, like)
        _check_density(log_joint, start)
        streams = move(rp_random.draw_index(index, shape, "fit_vi: index", start.loc), start.loc)
        run = Run(log_joint, make(first_rate, full), start, streams, tol)
        if not importance:
            q = run.go(steps, used, draws, estimator)
            return _result(q, run, _evaluation(q, log_joint, used, streams, 1), 1, used)
        q = run.go(steps, purpose_key(used, INIT, 0), draws, "stl")
        run = Run(log_joint, make(rate, full), q, streams, tol, settled=FIRST_LOOK)
        end = run.go(steps, used, draws, estimator)
        before, after = (_evaluation(each, log_joint, used, streams, draws) for each in (q, end))
        first, last = (mean_bound(x, draws)[0] for x in (before, after))
        worse = ~(last >= first)
        run.converged &= to_numpy(last >= first - tol).reshape(-1)
        chosen = type(q).trusted(where(worse, q.loc, end.loc), where(worse, q._scale, end._scale))
        return _result(chosen, run, np.where(worse, before, after), draws, used)


def _result(q: Any, run: Run, log_weights: Array, group: int, key: int) -> VIResult:
    shape, dtype = q.batch_shape, q.dtype
    value, error = mean_bound(log_weights, group)
    with np.errstate(over="ignore"):
        found = (value, error, psis_khat(log_weights))
        bound, its_error, khat = (x.astype(dtype) if is_cupy(x) else np.asarray(x, dtype)[()] for x in found)
    told = run.history()
    history = np.array(told, dtype).reshape(len(told), 2, *shape)
    by_step = {"elbo": history[:, 0], "standard_error": history[:, 1]}
    converged = np.asarray(run.converged.reshape(shape) & np.isfinite(to_numpy(value)))
    return VIResult(q, bound, its_error, khat, converged[()], run.n_steps.reshape(shape)[()], by_step, key)


def _start(init: Any, d: int, shape: tuple[int, ...], width: float, dtype: np.dtype[Any], full: bool, like: Any) -> Any:
    """The first q, of the wanted family, batch shape and dtype, with arrays of its own, where ``like`` is."""
    if init is None:
        loc = namespace_of(like).zeros((*shape, d), dtype)
        q: Any = MultivariateNormalDiag.trusted(loc, np.full_like(loc, width))
    elif isinstance(init, (MultivariateNormal, MultivariateNormalDiag)):
        if init.event_shape != (d,):
            raise ValueError(f"fit_vi: init must have event shape {(d,)}, got {init.event_shape}")
        same_dtype("fit_vi", ("init", init.dtype), ("dtype", dtype))
        if broadcast_batches("fit_vi", ["init", "batch_shape"], [init.batch_shape, shape]) != shape:
            raise ValueError(f"fit_vi: init must have a batch shape that broadcasts to {shape}, got {init.batch_shape}")
        q = init
        if isinstance(q, MultivariateNormal):
            q = MultivariateNormal.trusted(q.loc, dense_scale(q))
    else:
        names = "a MultivariateNormal or MultivariateNormalDiag"
        raise TypeError(f"fit_vi: init must be {names}, or None, got {type(init).__name__}")
    q = convert(q, "full" if full else "diag")
    return own_fields(type(q).trusted(np.broadcast_to(q.loc, (*shape, d)), q._scale))


def _check_density(log_joint: Any, q: Any) -> None:
    if isinstance(log_joint, Target):
        if log_joint.latent_dim != q.event_shape[0]:
            raise ValueError(f"fit_vi: dim must be that of log_joint, {log_joint.latent_dim}, got {q.event_shape[0]}")
        same_dtype("fit_vi", ("log_joint", log_joint.dtype), ("dtype", q.dtype))
        shapes = [q.batch_shape, log_joint.batch_shape]
        if broadcast_batches("fit_vi", ["batch_shape", "log_joint"], shapes) != q.batch_shape:
            batch = log_joint.batch_shape
            raise ValueError(f"fit_vi: batch_shape must hold that of log_joint, {batch}, got {q.batch_shape}")
    elif not callable(log_joint):
        wanted = "callable or a target of reparam.targets"
        raise TypeError(f"fit_vi: log_joint must be {wanted}, got {type(log_joint).__name__}")


def _evaluation(q: Any, log_joint: Any, key: int, streams: Array, group: int) -> Array:
    """Log weights (draws, *B) in float64, drawn in chunks so that a callable's arrays stay small."""
    left = group * max(-(-EVALUATION_DRAWS // group), EVALUATION_GROUPS)
    parts: list[Array] = []
    while left:
        size = min(left, CHUNK)
        chunk_key = purpose_key(key, EVALUATION, len(parts))
        estimate = elbo(q, log_joint, key=chunk_key, num_samples=size, estimator="stl", index=streams, grad=False)
        parts.append(estimate.log_weights.astype(np.float64))
        left -= size
    return np.concatenate(parts)
