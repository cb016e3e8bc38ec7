# SPDX-License-Identifier: MIT
"""The loop of :func:`reparam.fit_vi`: a batch of problems, each of which slows down and stops by its own ELBO."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random
from .._arrays import is_cupy, move, namespace_of, to_numpy
from ..elbo import ELBOEstimate, elbo
from ..targets import Target
from .ascent import Ascent

__all__ = ["FIRST_LOOK", "Run", "mean_bound", "where"]

Array = NDArray[Any]
ROUNDING = 100  # ulp of the ELBO, which count as none
FIRST_LOOK = 24
GROWTH = 4 / 3  # of the number of steps, from one look at the ELBO to the next


class Window:
    """Running means since the last look (Welford), by problem: of the ELBO of each step, of q's own fields and
    of the gradient in loc.
    """

    def __init__(self, before: Any = np.nan) -> None:
        self.before, self.count = before, 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.finite: Any = False  # whether any value was
        self.fields: list[Array] = []

    def add(self, value: Array, *fields: Array) -> None:
        self.count += 1
        with np.errstate(invalid="ignore", over="ignore"):  # an ELBO may be infinite
            off = value - self.mean
            self.mean = self.mean + off / self.count
            self.squares = self.squares + off * (value - self.mean)
        self.finite = self.finite | np.isfinite(value)
        self.fields = self.fields or [np.zeros_like(x) for x in fields]
        for mean, x in zip(self.fields, fields, strict=True):
            np.add(mean, (x - mean) / self.count, out=mean)

    def growth(self) -> tuple[Array, Array]:
        """How much the mean rose over that of the window before, and its standard error."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.mean - self.before, np.sqrt(self.squares / np.float64(self.count * (self.count - 1)))


class Run:
    """A batch of problems on their way; those of a target leave the batch when they have stopped.

    Who runs, how many steps each has taken and who has converged is NumPy's, whatever the arrays of the problems are:
    so the host waits for a GPU at each look at the ELBO, and not at each step.
    """

    def __init__(
        self, log_joint: Any, ascent: Ascent, start: Any, streams: Array, tol: float, settled: float = np.inf
    ) -> None:
        self.log_joint, self.ascent, self.start, self.tol = log_joint, ascent, start, tol
        self.all_streams, count = streams, streams.size
        self.fields = [x.reshape(count, *x.shape[streams.ndim :]).copy() for x in (start.loc, start._scale)]
        self.n_steps, self.converged = np.zeros(count, np.int64), np.zeros(count, bool)
        self._told: list[tuple[Array, Array, Array]] = []  # of each step: which problems, their ELBO, its error
        self._waiting = 0  # of these, from which on they are still where the arrays are
        self.target, self.streams, self.state = log_joint, streams, ascent.start(start)
        self.rows = np.arange(count)
        self._set_running(np.ones(streams.shape, bool))
        self.window, self.next_look = Window(), FIRST_LOOK
        self.settled = move(np.full(streams.shape, settled), start.loc)  # the step at which the ELBO no longer grew

    def _set_running(self, running: Any) -> None:
        self.running = np.asarray(running)
        self.is_running = move(self.running, self.start.loc)  # where the arrays are
        self._rows = np.where(self.running.reshape(-1), self.rows, -1)  # -1: it has stopped

    def go(self, steps: int, key: int, num_samples: int, estimator: str) -> Any:
        """Take at most so many steps; gives q."""
        for t in range(steps):
            if not self.running.any():
                break
            draw = {"key": rp_random.fold_in(key, t), "num_samples": num_samples, "estimator": estimator}
            self._step(t, draw, last=t + 1 == steps)
        return self.q()

    def _step(self, t: int, draw: dict[str, Any], last: bool) -> None:
        """Step t of all problems that are running."""
        with np.errstate(over="ignore"):
            q = self.ascent.q(self.state)
        estimate = elbo(q, self.target, index=self.streams, **draw)
        value, error = _bound(estimate, draw["estimator"])
        self._remember(value, error)
        self.window.add(value, q.loc, q._scale, estimate.grad.loc)
        pace = np.minimum(1, self.settled / (t + 1)).astype(q.dtype)
        good = self.is_running & np.isfinite(value)
        with np.errstate(over="ignore", invalid="ignore"):
            new = self.ascent.step(self.state, estimate.grad, t, pace)
            for array in new:
                good &= np.isfinite(array.sum(tuple(range(good.ndim, array.ndim))))
        self.state = new if not is_cupy(good) and good.all() else tuple(map(where, [good] * len(new), new, self.state))
        if last or t + 1 == self.next_look:
            self._look(t + 1, last)
            self.next_look = math.ceil(self.next_look * GROWTH)

    def _remember(self, value: Array, error: Array) -> None:
        value, error = (x.reshape(-1).astype(self.start.dtype, copy=False) for x in (value, error))
        self._told.append((self._rows, value, error))

    def history(self) -> list[Array]:
        """The ELBO and its standard error at each step, shape (2, problems); NaN of a problem that has stopped."""
        made = []
        for rows, *values in self._told:
            at = rows >= 0
            told = np.full((2, len(self.n_steps)), np.nan, self.start.dtype)
            told[:, rows[at]] = [x[at] for x in values]
            made.append(told)
        return made

    def _look(self, steps: int, last: bool) -> None:
        """Stop problems whose ELBO is known to tol and does not grow by more, and those that were never finite."""
        window = self.window
        growth, error = window.growth()
        limit = self.tol + ROUNDING * np.finfo(self.start.dtype).eps * (1 + np.abs(window.mean))
        q = self.ascent.q(self.state)
        done = (growth <= limit) & (error <= limit) & (_ahead(q, window.fields[2]) <= limit)
        done, finite = to_numpy(done), to_numpy(window.finite)
        waiting = self._told[self._waiting :]
        told = to_numpy(np.stack([x for _, *both in waiting for x in both])).reshape(len(waiting), 2, -1)
        self._told[self._waiting :] = [(rows, *both) for (rows, *_), both in zip(waiting, told, strict=True)]
        self._waiting = len(self._told)
        stops = np.asarray(self.running & (done | ~finite | last))
        at = np.flatnonzero(stops.reshape(-1))
        rows, count = self.rows[at], stops.size
        of_all, of_these = move(rows, q.loc), move(at, q.loc)
        self.settled = np.where(growth <= np.maximum(limit, error), np.minimum(self.settled, steps), self.settled)
        for field, mean, newest in zip(self.fields, window.fields[:2], (q.loc, q._scale), strict=True):
            ended = where(np.isfinite(self.settled), mean, newest).reshape(count, *field.shape[1:])
            field[of_all] = ended[of_these]
        self.n_steps[rows], self.converged[rows] = steps, done.reshape(-1)[at]
        self._set_running(self.running & ~stops)
        self.window = Window(window.mean)
        if isinstance(self.log_joint, Target) and 0 < self.running.sum() <= self.running.size / 2:
            self._compact()

    def _compact(self) -> None:
        """Go on with the running problems alone; by halves, so that all the copies together cost two of the whole."""
        numbers, rank, size = np.flatnonzero(self.running), self.running.ndim, self.running.size
        at = move(numbers, self.start.loc)
        self.state = tuple(x.reshape(size, *x.shape[rank:])[at] for x in self.state)
        self.rows, self.window = self.rows[numbers], Window(self.window.before.reshape(-1)[at])
        self.settled, self.streams = self.settled.reshape(-1)[at], self.streams.reshape(-1)[at]
        self._set_running(np.ones(len(self.rows), bool))
        self.target = self.log_joint.take(self.rows, self.all_streams.shape)

    def q(self) -> Any:
        """What was found."""
        shape = self.all_streams.shape
        return type(self.start).trusted(*(x.reshape(*shape, *x.shape[1:]) for x in self.fields))


def _ahead(q: Any, grad: Array) -> Array:
    """Nats that moving loc would still bring, |L^T g|^2 / 2: a slow climb looks like a plateau."""
    with np.errstate(over="ignore", invalid="ignore"):
        dense = q._scale.ndim > grad.ndim
        white = np.einsum("...ij,...i->...j", q._scale, grad) if dense else q._scale * grad
        result: Array = 0.5 * (white.astype(np.float64) ** 2).sum(-1)
    return result


def where(good: Array, new: Array, old: Array) -> Array:
    """By problem."""
    result: Array = np.where(good.reshape(good.shape + (1,) * (new.ndim - good.ndim)), new, old)
    return result


def _bound(estimate: ELBOEstimate, estimator: str) -> tuple[Array, Array]:
    """The bound of a step and its standard error, in float64.

    That of ``pathwise`` is also taken from the log weights: near the posterior they vary less than log p(x, z) does.
    """
    if estimator == "pathwise":
        return mean_bound(estimate.log_weights.astype(np.float64), 1)
    return estimate.value.astype(np.float64), estimate.standard_error.astype(np.float64)


def mean_bound(log_weights: Array, group: int) -> tuple[Array, Array]:
    """Mean over groups of draws of ``logsumexp(log_weights) - log(group)``, and its standard error.

    Over rows of one problem each: NumPy adds a column of a batch in another order than the draws of one problem alone.
    """
    draws, shape = len(log_weights), log_weights.shape[1:]
    rows = namespace_of(log_weights).ascontiguousarray(log_weights.reshape(draws, math.prod(shape)).T)
    rows = rows.reshape(len(rows), draws // group, group)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        most = rows.max(axis=-1)
        shift = np.where(np.isfinite(most), most, 0)
        bounds = shift + np.log(np.exp(rows - shift[..., None]).mean(axis=-1)) if group > 1 else most
        value, pairs = bounds.mean(axis=-1), np.float64(bounds.shape[-1] * (bounds.shape[-1] - 1))
        error = np.sqrt(((bounds - value[:, None]) ** 2).sum(axis=-1) / pairs)
    return value.reshape(shape), error.reshape(shape)
