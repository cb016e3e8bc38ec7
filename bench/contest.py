# SPDX-License-Identifier: MIT
"""Who takes part in a row, and whether their answers agree; nobody is timed before that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import libraries, machine
from .row import NO_LIMIT, Contestant, Row
from .timing import Local
from .worker import Remote, Worker

Array = np.ndarray[Any, Any]
STEPS = 20  # after which training must have helped
MEAN_GAP = 0.2  # nats between the ELBOs of two whole runs to the same accuracy
STANDARD_ERRORS = 7.0  # of a mean over the batch, entry by entry of a gradient


class AnswerError(Exception):
    """Two contestants disagree; the message names the row and who."""


class Contest:
    """Builds the contestants of a row, here and in workers."""

    def __init__(self, rivals: Sequence[str], limit: int = NO_LIMIT, *, workers: bool = True) -> None:
        self.rivals, self._limit, self._may_work = tuple(rivals), limit, workers
        self._everyone = machine.all_threads()
        self._workers: dict[int, Worker] = {}

    def takes_part(self, contestant: Contestant) -> bool:
        """Whether it is installed and wanted."""
        name = contestant.library
        if name in libraries.IN_WORKERS and not self._may_work:
            return False
        return name == "reparam" or (name in self.rivals and libraries.installed(name))

    def runners(self, row: Row) -> list[Any]:
        """Every contestant at one thread and at all, with the answers held against each other."""
        made: list[Any] = []
        inputs = row.inputs()
        for contestant in filter(self.takes_part, row.contestants):
            counts = libraries.counts(contestant.library, self._everyone) if contestant.scales else [1]
            if contestant.library in libraries.IN_WORKERS:
                made += [Remote(self._worker(n), row, contestant, n) for n in counts]
            else:
                libraries.set_threads(counts[-1])
                run = contestant.build(*inputs)
                made += [Local(contestant, n, run) for n in counts]
        check(row, inputs, made)
        return made

    def _worker(self, threads: int) -> Worker:
        if threads not in self._workers or not self._workers[threads].alive:
            self._workers[threads] = Worker(alone=threads == 1, limit=self._limit)
        return self._workers[threads]

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


def check(row: Row, inputs: tuple[Any, ...], runners: Sequence[Any]) -> None:
    """Raise :class:`AnswerError` unless all runners agree with the first, ours, and that with the reference."""
    compare = COMPARISONS[row.check]
    first: Any = None
    seen: set[int] = set()
    for runner in runners:
        if isinstance(runner, Local) and id(runner.contestant) in seen:
            continue  # one that keeps a state, such as Adam's moments, is at its second step now
        seen.add(id(runner.contestant))
        answer = [runner.answer() for _ in range(STEPS)] if row.check == "progress" else runner.answer()
        who = f"{row.name}: {runner.contestant.name} ({runner.threads} threads)"
        if first is None:
            first = answer
            if row.reference is not None:
                expected = row.reference(*inputs)
                part = tuple(x[: len(y)] for x, y in zip(first, expected, strict=True))
                _equal(row, part, expected, f"{who} and the float64 answer")
        compare(row, answer, first, f"{who} and ours")


def _equal(row: Row, answer: Sequence[Array], expected: Sequence[Array], who: str) -> None:
    tolerance = row.tolerance(row.d)
    _same_shapes(answer, expected, who)
    for k, (x, y) in enumerate(zip(answer, expected, strict=True)):
        error = float(np.max(np.abs(x - y), initial=0))
        size = float(np.max(np.abs(y), initial=0))
        if not error <= tolerance * max(size, 1e-30):
            raise AnswerError(f"{who} differ by {error:.2g} of {size:.2g} in result {k}, allowed are {tolerance:.1g}")


def _random(row: Row, answer: Sequence[Array], expected: Sequence[Array], who: str) -> None:
    _same_shapes(answer, expected, who)
    for k, (x, y) in enumerate(zip(answer, expected, strict=True)):
        difference = (x.astype(np.float64) - y).reshape(len(x), -1)
        allowed = STANDARD_ERRORS * difference.std(0) / np.sqrt(len(x)) + row.tolerance(row.d)
        worst = float(np.max(np.abs(difference.mean(0)) / allowed, initial=0))
        if not worst <= 1:
            raise AnswerError(f"{who} differ in the mean of result {k} by {worst:.1f} times what chance allows")


def _progress(row: Row, answer: Sequence[Sequence[Array]], expected: Sequence[Sequence[Array]], who: str) -> None:
    """Means of the ELBO, step by step: they rise, and end where ours end, within a quarter of the rise."""
    steps, ours = ([float(np.mean(step[0])) for step in given] for given in (answer, expected))
    if not (steps[-1] > steps[0] and abs(steps[-1] - ours[-1]) <= 0.25 * abs(ours[-1])):
        raise AnswerError(f"{who}: the ELBO went from {steps[0]:.4g} to {steps[-1]:.4g}, ours to {ours[-1]:.4g}")


def _accurate(row: Row, answer: Sequence[Array], expected: Sequence[Array], who: str) -> None:
    means = [float(np.mean(given[0])) for given in (answer, expected)]
    if not abs(means[0] - means[1]) <= MEAN_GAP:
        raise AnswerError(f"{who} reach {means[0]:.4g} and {means[1]:.4g}")


def _same_shapes(answer: Sequence[Array], expected: Sequence[Array], who: str) -> None:
    shapes = [[x.shape for x in given] for given in (answer, expected)]
    if shapes[0] != shapes[1]:
        raise AnswerError(f"{who} have shapes {shapes[0]} and {shapes[1]}")


COMPARISONS: dict[str, Callable[..., None]] = {
    "equal": _equal,
    "random": _random,
    "progress": _progress,
    "accurate": _accurate,
}
