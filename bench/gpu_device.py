# SPDX-License-Identifier: MIT
"""Arrays of a GPU, as the checks need them: put there, repeated, compared in place, timed by events; and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_FAILURES = 20  # of a stage, after which it ends: an error of CUDA spoils every later call of its process


class Device:
    """One GPU through CuPy; with NumPy in its place the same checks run on the CPU."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def put(self, arrays: Sequence[np.ndarray], dtype: str) -> list[Any]:
        """Copies on the device, floating ones in this type."""
        return [self.xp.asarray(x.astype(dtype) if x.dtype.kind == "f" else x) for x in arrays]

    def repeated(self, x: Any, batch: int) -> Any:
        """The events over and over: event b is event ``b % len(x)``."""
        out = self.xp.empty((batch, *x.shape[1:]), x.dtype)
        whole = batch // len(x)
        if whole:
            self._periods(out, len(x), whole)[...] = x
        out[whole * len(x) :] = x[: batch - whole * len(x)]
        return out

    def repeats(self, found: Any, events: Any) -> Any:
        """Whether the bits of an array are those of the events over and over, as a number on the device."""
        found, events = self._bits(found), self._bits(events)
        whole = len(found) // len(events)
        rest = len(found) - whole * len(events)
        equal = self.xp.all(found[len(found) - rest :] == events[:rest])
        if whole:
            equal = self.xp.logical_and(equal, self.xp.all(self._periods(found, len(events), whole) == events))
        return equal

    @staticmethod
    def _periods(x: Any, length: int, whole: int) -> Any:
        return x[: whole * length].reshape(whole, length, *x.shape[1:])

    @staticmethod
    def _bits(x: Any) -> Any:
        return x.view(f"u{x.dtype.itemsize}") if x.dtype.kind == "f" else x

    def host(self, x: Any) -> np.ndarray:
        """The numbers in NumPy's memory."""
        return np.asarray(x.get() if hasattr(x, "get") else x)

    def poison(self) -> None:
        """From now on fresh memory, of results and of scratch, holds bytes of 0xFF, which are NaN as a real number."""
        pool = self.xp.get_default_memory_pool()

        def poisoned(size: int) -> Any:
            memory = pool.malloc(size)
            if size:
                memory.memset_async(0xFF, size)
            return memory

        self.xp.cuda.set_allocator(poisoned)

    def free_bytes(self) -> int:
        """What can still be allocated, after the blocks that nobody uses have been given back."""
        self.xp.get_default_memory_pool().free_all_blocks()
        return int(self.xp.cuda.runtime.memGetInfo()[0])

    def seconds(self, run: Callable[[], Any], rounds: int) -> float:
        """Seconds of one round, between two events of the current stream."""
        begin, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        begin.record()
        for _ in range(rounds):
            run()
        end.record()
        end.synchronize()
        return float(self.xp.cuda.get_elapsed_time(begin, end)) / 1e3 / rounds

    def synchronize(self) -> None:
        """Wait for all that was asked of the device."""
        self.xp.cuda.runtime.deviceSynchronize()


class Report:
    """What a stage has found, line by line: printed, and kept in a file that outlives a stage which is killed."""

    def __init__(self, file: Path | None, seconds: float) -> None:
        self._file, self._end = file, time.monotonic() + seconds
        self.failures = 0

    @property
    def over(self) -> bool:
        """Whether the stage must end: its time is up, or too much has failed."""
        return time.monotonic() > self._end or self.failures >= MOST_FAILURES

    def fail(self, text: str) -> None:
        """A check did not hold."""
        self.failures += 1
        self._say("failed", text)

    def skip(self, text: str) -> None:
        """Something could not be run, and why."""
        self._say("skipped", text)

    def note(self, text: str) -> None:
        """What was done."""
        self._say("done", text)

    def row(self, result: dict[str, Any]) -> None:
        """A line of the table, as the conductor prints it last."""
        self._keep("row", result)

    def _say(self, kind: str, text: str) -> None:
        print(f"  {kind}: {text}", flush=True)
        self._keep(kind, text)

    def _keep(self, kind: str, what: Any) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([kind, what]) + "\n")
