# SPDX-License-Identifier: MIT
"""Who takes part in a row; nobody is timed before the answers agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import answers, libraries, machine
from .row import NO_LIMIT, Contestant, Row
from .timing import Local
from .worker import Remote, Worker


class Contest:
    """Builds the contestants of a row, here and in workers."""

    def __init__(self, rivals: Sequence[str], limit: int = NO_LIMIT, *, workers: bool = True) -> None:
        self.rivals, self._limit, self._may_work = tuple(rivals), limit, workers
        self._everyone = machine.all_threads()
        self._workers: dict[int, Worker] = {}

    def takes_part(self, contestant: Contestant) -> bool:
        """Whether it is installed and wanted."""
        if contestant.home in libraries.IN_WORKERS and not self._may_work:
            return False
        return contestant.library == "reparam" or (
            contestant.library in self.rivals and libraries.installed(contestant.library)
        )

    def runners(self, row: Row) -> list[Any]:
        """Every contestant at one thread and at all, with the answers held against each other."""
        made: list[Any] = []
        inputs = row.inputs()
        for contestant in filter(self.takes_part, row.contestants):
            counts = libraries.counts(contestant.library, self._everyone) if contestant.scales else [1]
            if contestant.home in libraries.IN_WORKERS:
                made += [Remote(self._worker(n), row, contestant, n) for n in counts]
            else:
                libraries.set_threads(counts[-1])
                run = contestant.build(*inputs)
                made += [Local(contestant, n, run) for n in counts]
        answers.check(row, inputs, made)
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
