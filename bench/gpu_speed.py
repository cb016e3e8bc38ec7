# SPDX-License-Identifier: MIT
"""Ours on a GPU against torch, CuPy and JAX: the rows of the CPU, their events repeated to a GPU's size.

A row is one of the table's, made small: its inputs and the answers that hold every contestant are those. On the device
the events stand over and over, until inputs and outputs are ten times the last cache. Times are between events of the
stream, those of JAX, which has streams of its own, with the waiting of the host.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import reparam as rp

from . import answers, report, rivals, timing, work_cholesky, work_density, work_elbo, work_noise, work_training
from .gpu_device import Device, Report
from .row import Contestant, Row, Target, parts, recycled

EVENTS = 1009  # different events of a row, at most
BYTES = 512e6  # of inputs and outputs of a row: ten times the last cache of a large GPU
ELBO_EVENTS, PARAMETERS, NORMALS = 65536, (1_000_000, 50_000_000), 100_000_000
RIVALS = ("torch", "cupy", "jax")
SECONDS, KEY = 1.5, 5  # of a row; of its noise

#: By d: share of the copy rate, and times torch. Of the Cholesky factor in both types, and of its vjp.
CHOLESKY = {
    "float32": {4: (0.85, 20), 8: (0.85, 20), 16: (0.85, 20), 32: (0.65, 10), 64: (0.5, 6), 128: (0.3, 3)},
    "float64": {8: (0.75, 8), 32: (0.75, 8), 64: (0.55, 5), 128: (0.4, 3)},
}
PULL = {16: (0.6, 12), 32: (0.6, 12), 64: (0.45, 8), 128: (0.25, 4)}


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


# ---- rows


def repeated(row: Row, batch: int, targets: tuple[Target, ...], more: tuple[Contestant, ...] = ()) -> Row:
    """A small row of the table as one of ``batch`` events: what a GPU's library has no part in leaves."""
    times = batch / row.batch
    here = tuple(c for c in row.contestants if c.library in ("reparam", *RIVALS))
    words = [word for word in row.size.split() if not word.startswith("B=")]
    return dataclasses.replace(
        row, size=" ".join([*words, f"B={batch}"]), regime="-", batch=batch, roof="copy", targets=targets,
        flops=times * row.flops, bytes=times * row.bytes, contestants=(*here, *more),
    )  # fmt: skip


def batch_of(row: Row) -> int:
    """Events that move so many bytes."""
    return int(BYTES * row.batch / row.bytes)


def shares(share: float, times: float) -> tuple[Target, ...]:
    """Targets of a row: of the copy rate, and times torch as its users call it."""
    return (Target("copy", share), Target("torch", times))


def cupy_cholesky(a: Any) -> Callable[[], Any]:
    """As users write it."""
    import cupy

    return lambda: cupy.linalg.cholesky(a)


def torch_cholesky(a: Any) -> Callable[[], Any]:
    """The form that does not wait for the errors of the batch."""
    import torch

    (tensor,) = rivals.tensors([a])
    out = (torch.empty_like(tensor), torch.empty(len(tensor), dtype=torch.int32, device=tensor.device))
    return lambda: torch.linalg.cholesky_ex(tensor, out=out)[0]


def cholesky_rows() -> Iterator[Row]:
    """The factor, whose errors nobody waits for, and its vjp."""
    ours = Contestant("reparam", "ours", recycled(functools.partial(rp.cholesky, check=False)))
    torch, cupy = Contestant("torch", "library", torch_cholesky), Contestant("cupy", "library", cupy_cholesky)
    for dtype, sizes in CHOLESKY.items():
        for d, (share, times) in sizes.items():
            row = work_cholesky.forward(d, EVENTS, dtype, "M", False, EVENTS)
            jax = tuple(c for c in row.contestants if c.library == "jax")
            row = dataclasses.replace(row, contestants=(ours, torch, cupy, *jax))
            yield repeated(row, batch_of(row), shares(share, times))
    for d, (share, times) in PULL.items():
        row = work_cholesky.vjp(d, "float32", "M", EVENTS)
        yield repeated(row, batch_of(row), shares(share, times))


def density_rows() -> Iterator[Row]:
    """A density with its gradient, each event with its own factor."""
    for d in (8, 16, 32):
        row = work_density.own("log_prob+vjp", d, "float32", "M", EVENTS)
        yield repeated(row, batch_of(row), (Target("copy", 0.75),))


def elbo_rows() -> Iterator[Row]:
    """Fused, against torch's eager autograd and JAX under jit."""
    for kind, draws, d in (("linear-gaussian", 8, 8), ("linear-gaussian", 8, 16), ("glm", 8, 16), ("glm", 16, 32)):
        row = work_elbo.estimate(kind, (EVENTS, draws, d), "float32", "dense", EVENTS)
        yield repeated(row, ELBO_EVENTS, (Target("torch", 30), Target("jax", 10)))


def normals_row() -> Row:
    """Normals that are stored."""

    def in_cupy(like: Any) -> Callable[[], Any]:
        import cupy

        return lambda: cupy.random.standard_normal(like.shape, like.dtype)

    row = work_noise.normals("float32", EVENTS)
    return repeated(row, NORMALS, (Target("cupy", 1),), (Contestant("cupy", "library", in_cupy, work_noise.moments),))


def fused_noise_row(device: Device) -> Row:
    """Noise that the kernel draws, against the same call that reads the same noise from memory."""
    row = work_density.own("transform_and_log_prob", 16, "float32", "M", EVENTS)
    call = recycled(rp.normal_tril_transform_and_log_prob)

    def drawn(_: Any, loc: Any, factor: Any) -> Callable[[], Any]:
        return call(rp.random.Draw(KEY, np.arange(len(loc))), loc, factor)

    def stored(noise: Any, loc: Any, factor: Any) -> Callable[[], Any]:
        streams, offset = (device.xp.asarray(x) for x in (np.arange(len(loc), dtype=np.uint64), np.uint64(0)))
        settings = {"n": loc.shape[-1], "dtype": noise.dtype, "key_low": KEY, "key_high": 0}
        return call(rp.OPS["normal"](streams, offset, **settings), loc, factor)

    return dataclasses.replace(
        repeated(row, batch_of(row), (Target("noise in memory", 1),)),
        op="transform, noise fused",
        contestants=(Contestant("reparam", "ours", drawn), Contestant("noise in memory", "library", stored)),
    )


def rows(device: Device) -> Iterator[Row]:
    """Every row, the most important first."""
    yield from cholesky_rows()
    yield from elbo_rows()
    yield from density_rows()
    yield fused_noise_row(device)
    yield normals_row()
    for size in PARAMETERS:
        from_memory = (Target("copy", 0.92),) if size == max(PARAMETERS) else ()
        times = Target("torch fused", 1.05 if from_memory else 5)
        yield repeated(work_training.adam(size, EVENTS), size, (*from_memory, times))


# ---- measuring


def copy_rate(device: Device) -> float:
    """Bytes a second, read and written."""
    source = device.xp.ones(int(BYTES) // 4, np.float32)
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
        if contestant.library in RIVALS and contestant.library not in rivals_here:
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
    check_speed(device, found, usable_rivals(found), rows(device))
    return 1 if found.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
