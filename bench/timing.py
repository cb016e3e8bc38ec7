# SPDX-License-Identifier: MIT
"""Interleaved timing: all contestants of a row in turn, round after round, so that a neighbour hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import libraries
from .row import Contestant

ROUNDS = 20
LEAST_SECONDS = 0.005  # of one measurement; shorter work is repeated, and the mean taken
FEW = 3  # rounds of those that are too slow to matter
PATIENCE = 4  # times the seconds that a row has: then one round must do
HOPELESS = 2.5  # times the fastest rival's median
WARM_ROUNDS = 4  # at most, before those that are timed: caches, and CPUs that have slept
WARMING = 0.005  # seconds: longer work than this runs once a turn, without rounds that warm


class Local:
    """A contestant in this process at one number of threads; None leaves that as it is."""

    def __init__(self, contestant: Contestant, threads: int | None, run: Callable[[], Any]) -> None:
        self.contestant, self.threads, self._run = contestant, threads, run

    def _set(self) -> None:
        if self.threads is not None:
            who = self.contestant
            libraries.set_threads(self.threads, blas=who.blas or who.library in libraries.BY_BLAS)

    def answer(self) -> Any:
        """The arrays of one round."""
        self._set()
        return self.contestant.arrays(self._run())

    def time(self, rounds: int) -> float:
        """Seconds of one round, of so many in a row; where that is more than one, after up to ``WARM_ROUNDS``."""
        self._set()
        run = self._run
        for _ in range(min(rounds - 1, WARM_ROUNDS)):
            run()
        begin = time.perf_counter()
        for _ in range(rounds):
            run()
        return (time.perf_counter() - begin) / rounds


@dataclass
class Timed:
    """The times of one contestant at one number of threads."""

    runner: Any
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of its rounds."""
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """Of its rounds."""
        return min(self.seconds)

    @property
    def contestant(self) -> Contestant:
        """Whose times they are."""
        found: Contestant = self.runner.contestant
        return found

    @property
    def ours(self) -> bool:
        """Whether it is no rival."""
        return self.contestant.library == "reparam"


def measure(runners: list[Any], most_seconds: float, rounds: int = ROUNDS) -> list[Timed]:
    """Take turns until each has its rounds or the time is up.

    A rival that is far behind after a few rounds cannot be the fastest and leaves, so that the time goes to those whose
    ratio is printed. Ours stays at every number of threads, and at least ``FEW`` rounds are taken where one does not
    take seconds.
    """
    timed = [Timed(runner) for runner in runners]
    begin = time.perf_counter()
    for each in timed:
        once = each.runner.time(1)
        each.repeats = max(1, min(10_000, round(LEAST_SECONDS / max(once, 1e-9))))
        if once < WARMING:
            each.repeats = max(each.repeats, 2)
    for done in range(rounds):
        spent = time.perf_counter() - begin
        if (done >= FEW and spent > most_seconds) or (done > 0 and spent > PATIENCE * most_seconds):
            break
        for each in timed if done < FEW else _hopeful(timed):
            each.seconds.append(each.runner.time(each.repeats))
            if each.runner.threads != 1:
                libraries.outlast_spinning(each.contestant.library)
    return timed


def _hopeful(timed: list[Timed]) -> list[Timed]:
    best = min((each.least for each in timed if not each.ours), default=0.0)
    return [each for each in timed if each.ours or each.least <= HOPELESS * best]
