# SPDX-License-Identifier: MIT
"""Processes for contestants whose number of threads is fixed at their library's import.

A worker gets the name of a row and of a contestant, builds the same problem from the same seed, and answers one request
at a time, so that it takes its turns among the contestants of this process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any

from . import timing
from .row import NO_LIMIT, Contestant, Row


class WorkerError(Exception):
    """A contestant failed in its process; the message says what it said."""


class Worker:
    """One process, on one CPU or on all."""

    def __init__(self, alone: bool, limit: int = NO_LIMIT) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, alone, limit), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, *request: Any) -> Any:
        """Send a request and wait for what it gives."""
        try:
            self._pipe.send(request)
            good, given = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"the worker process of {' '.join(request[1:3])} ended") from error
        if not good:
            raise WorkerError(f"{request[1]}: {request[2]}: {given}")
        return given

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(("end",))
        self._process.join(3)
        if self._process.is_alive():
            self._process.terminate()


class Remote:
    """A contestant that runs in a worker; as :class:`reparam._bench.timing.Local`."""

    def __init__(self, worker: Worker, row: Row, contestant: Contestant, threads: int) -> None:
        self.contestant, self.threads, self._worker = contestant, threads, worker
        self._name = (row.name, contestant.name)
        worker.ask("build", *self._name)

    def answer(self) -> Any:
        """The arrays of one round."""
        return self._worker.ask("answer", *self._name)

    def time(self, rounds: int) -> float:
        """Seconds of one round, as those of :class:`reparam._bench.timing.Local`."""
        seconds: float = self._worker.ask("time", *self._name, rounds)
        return seconds


def _serve(pipe: Connection, alone: bool, limit: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    if alone and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from . import table

    jax.config.update("jax_enable_x64", True)
    rows = {row.name: row for row in table.rows(limit)}
    built: dict[tuple[str, str], timing.Local] = {}
    inputs: dict[str, Any] = {}
    while True:
        command, *rest = pipe.recv()
        if command == "end":
            return
        name = (rest[0], rest[1])
        try:
            given: Any = None
            if command == "build":
                if rest[0] not in inputs:  # one row at a time: the last one's arrays go
                    built.clear()
                    inputs.clear()
                    inputs[rest[0]] = rows[rest[0]].inputs()
                contestant = next(c for c in rows[rest[0]].contestants if c.name == rest[1])
                built[name] = timing.Local(contestant, None, contestant.build(*inputs[rest[0]]))
            elif command == "answer":
                given = built[name].answer()
            else:
                given = built[name].time(rest[2])
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))
        else:
            pipe.send((True, given))
