# SPDX-License-Identifier: MIT
"""The rows of speed on a GPU: those of the CPU's table, their events repeated to a GPU's size.

A row is one of the table's, made small: its inputs and the answers that hold every contestant are those. On the device
the events stand over and over, until inputs and outputs are ten times the last cache. One row of each kind comes first,
and JAX, which compiles each of them, last, but where a target names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import reparam as rp

from . import rivals, work_cholesky, work_density, work_elbo, work_noise, work_training
from .gpu_device import Device
from .row import Contestant, Row, Target, recycled

EVENTS = 1009  # different events of a row, at most
BYTES = 512e6  # of inputs and outputs of a row: ten times the last cache of a large GPU
ELBO_EVENTS, PARAMETERS, NORMALS = 65536, (1_000_000, 50_000_000), 100_000_000
RIVALS = ("torch", "cupy", "jax")
KEY = 5  # of the noise of a row

#: By d: share of the copy rate, and times torch. Of the Cholesky factor in both types, and of its vjp.
CHOLESKY = {
    "float32": {4: (0.85, 20), 8: (0.85, 20), 16: (0.85, 20), 32: (0.65, 10), 64: (0.5, 6), 128: (0.3, 3)},
    "float64": {8: (0.75, 8), 32: (0.75, 8), 64: (0.55, 5), 128: (0.4, 3)},
}
PULL = {16: (0.6, 12), 32: (0.6, 12), 64: (0.45, 8), 128: (0.25, 4)}


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


def factor_rows() -> Iterator[Row]:
    """The Cholesky factor, whose errors nobody waits for."""
    ours = Contestant("reparam", "ours", recycled(functools.partial(rp.cholesky, check=False)))
    torch, cupy = Contestant("torch", "library", torch_cholesky), Contestant("cupy", "library", cupy_cholesky)
    for dtype, sizes in CHOLESKY.items():
        for d, (share, times) in sizes.items():
            row = work_cholesky.forward(d, EVENTS, dtype, "M", False, EVENTS)
            jax = tuple(c for c in row.contestants if c.library == "jax")
            row = dataclasses.replace(row, contestants=(ours, torch, cupy, *jax))
            yield repeated(row, batch_of(row), shares(share, times))


def pull_rows() -> Iterator[Row]:
    """Its vjp."""
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


def adam_rows() -> Iterator[Row]:
    """A step on many parameters, by one kernel."""
    for size in PARAMETERS:
        from_memory = (Target("copy", 0.92),) if size == max(PARAMETERS) else ()
        times = Target("torch fused", 1.05 if from_memory else 5)
        yield repeated(work_training.adam(size, EVENTS), size, (*from_memory, times))


def rows(device: Device) -> Iterator[Row]:
    """Every row, one of each kind first; without JAX except where a target names it."""
    kinds = [factor_rows(), pull_rows(), elbo_rows(), density_rows()]
    kinds += [iter([fused_noise_row(device)]), iter([normals_row()]), adam_rows()]
    first = [next(kind) for kind in kinds]
    for row in (*first, *(row for kind in kinds for row in kind)):
        yield row if names_jax(row) else of_libraries(row, *(c.library for c in row.contestants if c.library != "jax"))


def jax_rows() -> Iterator[Row]:
    """Ours and JAX alone, where no target named it."""
    for row in (*factor_rows(), *pull_rows(), *elbo_rows(), *density_rows(), *adam_rows(), normals_row()):
        if not names_jax(row) and any(c.library == "jax" for c in row.contestants):
            yield dataclasses.replace(of_libraries(row, "reparam", "jax"), op=f"{row.op}, JAX", targets=())


def names_jax(row: Row) -> bool:
    """Whether a target of the row is a multiple of JAX's time."""
    return any(target.kind.startswith("jax") for target in row.targets)


def of_libraries(row: Row, *names: str) -> Row:
    """The row with the contestants of some libraries."""
    return dataclasses.replace(row, contestants=tuple(c for c in row.contestants if c.library in names))
