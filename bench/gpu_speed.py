# SPDX-License-Identifier: MIT
"""Ours on a GPU against torch, CuPy and JAX: the rows of gpu_rows.py.

Times are between events of the stream, those of JAX, which has streams of its own, with the waiting of the host.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from . import answers, gpu_rows, report, timing
from .gpu_device import Device, Report
from .row import Contestant, Row, parts

SECONDS = 1.5  # of a row


class Runner:
    """A contestant on the device, as those of timing.py; ``events`` of its answer are looked at."""

    threads = 1

    def __init__(self, contestant: Contestant, run: Callable[[], Any], device: Device, events: int) -> None:
        self.contestant, self._run, self._device, self._events = contestant, run, device, events

    def answer(self) -> tuple[np.ndarray, ...]:
        """The first events of one round."""
        found = [to_host(x[: self._events]) for x in parts(self._run())]
        return self.contestant.arrays(found[0] if len(found) == 1 else tuple(found))

    def time(self, rounds: int) -> float:
        """Seconds of one round."""
        if rounds > 1:
            self._run()
        return self._device.seconds(self._run, rounds)


def to_host(x: Any) -> np.ndarray:
    """An array of any of the libraries, in NumPy's memory."""
    if hasattr(x, "get"):
        return np.asarray(x.get())
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


# ---- measuring


def copy_rate(device: Device) -> float:
    """Bytes a second, read and written."""
    source = device.xp.ones(int(gpu_rows.BYTES) // 4, np.float32)
    target = device.xp.empty_like(source)
    best = min(device.seconds(lambda: device.xp.copyto(target, source), 5) for _ in range(timing.ROUNDS))
    return 2 * source.nbytes / best


def on_device(device: Device, row: Row, few: tuple[np.ndarray, ...]) -> list[Any]:
    """The inputs of a row on the device: events over and over, what they share as it is."""
    events = len(few[0])
    return [device.repeated(x, row.batch) if len(x) == events else x for x in device.put(few, row.dtype)]


def held_runners(device: Device, found: Report, row: Row, rivals_here: tuple[str, ...]) -> list[Runner]:
    """The contestants whose answers agree, ours first; none where ours is wrong. Who fails is named."""
    few = row.inputs()
    inputs, held = on_device(device, row, few), answers.CHECKS[row.check](row, few)
    device.synchronize()  # JAX has streams of its own
    runners = []
    for contestant in row.contestants:
        ours = contestant.library == "reparam"
        if contestant.library in gpu_rows.RIVALS and contestant.library not in rivals_here:
            continue
        try:
            runner = Runner(contestant, contestant.build(*inputs), device, len(few[0]))
            held([runner.answer()], contestant.name)
        except Exception as error:
            said = f"{row.name}: {contestant.name}: {type(error).__name__}: {str(error)[:200]}"
            (found.fail if ours else found.skip)(said)
            if ours:
                return []
        else:
            runners.append(runner)
    return runners


def check_speed(
    device: Device, found: Report, rivals_here: tuple[str, ...], todo: Iterable[Row], seconds: float = SECONDS
) -> None:
    """Row after row, until the time is up."""
    copy = copy_rate(device)
    found.note(f"a copy reads and writes {copy / 1e9:.0f} GB/s")
    print(report.head())
    left = []
    for row in todo:
        if found.over:
            left.append(row.name)
            continue
        try:
            _one_row(device, found, row, rivals_here, copy, seconds)
        except Exception as error:
            found.fail(f"{row.name}: {type(error).__name__}: {str(error)[:200]}")
        give_back(device)
    if left:
        found.skip(f"the time was up before {', '.join(left)}")


def _one_row(
    device: Device, found: Report, row: Row, rivals_here: tuple[str, ...], copy: float, seconds: float
) -> None:
    runners = held_runners(device, found, row, rivals_here)
    if runners:
        timed = timing.measure(runners, seconds)
        result = report.result(row, timed, {"copy": {"1": copy, "all": copy}})
        print(report.line(result), flush=True)
        found.row(result)


def give_back(device: Device) -> None:
    """The memory that the libraries keep for later is that of the next row."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
    device.free_bytes()


def usable_rivals(found: Report) -> tuple[str, ...]:
    """Those that are installed and see the GPU."""
    usable = ["cupy"]
    for name in ("torch", "jax"):
        try:
            library = importlib.import_module(name)
            sees = library.cuda.is_available() if name == "torch" else library.default_backend() == "gpu"
        except Exception as error:
            found.skip(f"rival {name}: {type(error).__name__}: {str(error)[:200]}")
            continue
        if sees:
            usable.append(name)
            found.note(f"{name} {library.__version__}")
        else:
            found.skip(f"rival {name} {library.__version__} is a build without CUDA, or sees no GPU")
    return tuple(usable)


def main() -> int:
    """All rows in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--report", type=Path)
    asked = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take the memory of all others
    os.environ.setdefault("JAX_ENABLE_X64", "true")
    import cupy

    device, found = Device(cupy), Report(asked.report, asked.seconds)
    usable = usable_rivals(found)
    last = gpu_rows.jax_rows() if "jax" in usable else ()
    check_speed(device, found, usable, itertools.chain(gpu_rows.rows(device), last))
    return 1 if found.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
