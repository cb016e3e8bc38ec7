# SPDX-License-Identifier: MIT
"""Every op on a GPU against the kernels of the CPU, in stages, of which STAGES is the list.

``sizes`` holds small batches of every d against the CPU in float64, by the tolerances of the tests. ``batches`` fills
large ones with the same events over and over: by the laws of the library each result must have the bits of its event,
wherever that stands, so every element is checked on the device. Fresh memory, results and scratch, holds NaN.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import reparam as rp

from .._op import Op
from ..selftest import problems, tolerances
from .gpu_device import Device, Report
from .gpu_problems import NOISE, OPS, Arrays, Problem, differences, guarded, problem, run, sizes_of, ways
from .row import DTYPES

SIZES = tuple(sorted(range(1, 131), key=lambda d: 83 * d % 131))  # mixed: where the time is up, large d are in
FEW_SIZES, TEAM_SIZES = (1, 3, 16, 33), (33,)
EVENTS = 31  # of a small batch
PERIOD = 1009  # different events of a large batch: a prime, so that each stands in many places
BATCHES = (0, 1, 31, 65535, 65536, 524281, 2**20 + 3)
SIZES_OF_BATCHES = (3, 8, 16, 33, 64)
REPEATS, REPEATED_EVENTS, SIZES_OF_REPEATS = 100, 4099, (8, 33)
MOST_MEMORY = 0.8  # of what is free
SCRATCH = 512 * 2**20  # bytes that a call takes beside its arrays, at most
KEY = 2**40 + 17


# ---- every d


def check_sizes(device: Device, report: Report, sizes: Sequence[int] = SIZES) -> None:
    """Small batches of every size, all ops, passes and types; attributes in turn."""
    done = 0
    for k, d in enumerate(sizes):
        for op in (op for op in OPS if d in sizes_of(op, sizes)):
            if report.over:
                rest = ", ".join(map(str, sorted(sizes[k + 1 :])))
                report.skip(f"d = {d} from {op.name} on, d = {rest}: the stage's time was up, or too much failed")
                return
            p = problem(op, d, EVENTS, d)
            for dtype in DTYPES:
                for way in ways(op):
                    guarded(report, f"{op.name} {way} {dtype} d={d}", partial(_one_size, device, p, way, dtype))
                    done += 1
    report.note(f"{done} passes of {len(OPS)} ops with d = {min(sizes)} to {max(sizes)}, held against the CPU")


def _one_size(device: Device, p: Problem, way: str, dtype: str) -> Iterator[str]:
    given = (device.put(p.inputs, dtype), device.put(p.cotangents, dtype))
    yield from differences(p, way, dtype, tuple(map(device.host, run(p, way, *given))))


# ---- every batch


class Plan(NamedTuple):
    """One op at one size: what an event takes in memory says how long it takes, and how large a batch can be."""

    event_bytes: int
    op: Op
    d: int
    dtype: str


def plans(sizes: Sequence[int] = SIZES_OF_BATCHES) -> list[Plan]:
    """Small events first: where the time is up, the fewest are left."""
    made = []
    for op in OPS:
        for d in sizes_of(op, sizes):
            extents = problems.extents_of(op, d)
            operands = [*op.inputs, *op.outputs] * (2 if op.vjp is not None else 1)
            for dtype in DTYPES:
                numbers = sum(int(np.prod(o.event_shape(extents))) for o in operands)
                made.append(Plan(numbers * np.dtype(dtype).itemsize, op, d, dtype))
    return sorted(made, key=lambda plan: plan.event_bytes)


def check_batches(
    device: Device, report: Report, batches: Sequence[int] = BATCHES, sizes: Sequence[int] = SIZES_OF_BATCHES
) -> None:
    """All batches of all ops at a few sizes, both passes and types: every element is that of its event."""
    room = MOST_MEMORY * device.free_bytes() - SCRATCH
    cut: list[str] = []
    todo = plans(sizes)
    for done, plan in enumerate(todo):
        if report.over:
            left = [f"{p.op.name} d={p.d} {p.dtype}" for p in todo[done:]]
            report.skip(f"{len(left)} of {len(todo)} ops and sizes in large batches, from {left[0]} to {left[-1]}")
            break
        most = int(room / plan.event_bytes)
        if most < max(batches):
            cut.append(f"{plan.op.name} d={plan.d} {plan.dtype}")
        name = f"{plan.op.name} {plan.dtype} d={plan.d}"
        guarded(report, name, partial(_all_batches, device, plan, sorted({min(n, most) for n in batches})))
    if cut:
        report.skip(f"the largest batches of {', '.join(cut)}: cut to what fits into {room / 2**30:.0f} GiB")
    report.note(f"batches of {', '.join(map(str, batches))} at d = {', '.join(map(str, sizes))}, every element")


def _all_batches(device: Device, plan: Plan, batches: list[int]) -> Iterator[str]:
    p = problem(plan.op, plan.d, PERIOD, 0)
    events = (device.put(p.inputs, plan.dtype), device.put(p.cotangents, plan.dtype))
    for way in ways(plan.op):
        base = run(p, way, *events)
        wrong = list(differences(p, way, plan.dtype, tuple(map(device.host, base))))
        yield from (f"{way}: {text}" for text in wrong)
        for batch in batches:
            given = [[device.repeated(x, batch) for x in arrays] for arrays in events]
            found = run(p, way, *given)
            for k, (x, of_event) in enumerate(zip(found, base, strict=True)):
                if x.shape != (batch, *of_event.shape[1:]):
                    yield f"{way}, batch {batch}: result {k} has shape {x.shape}"
                elif not bool(device.repeats(x, of_event)):
                    yield f"{way}, batch {batch}: result {k} has other bits than that of {PERIOD} events"
            del given, found


# ---- again and again


def check_repeats(
    device: Device, report: Report, repeats: int = REPEATS, sizes: Sequence[int] = SIZES_OF_REPEATS
) -> None:
    """The same call gives the same bits, with full operands and with one factor that all events share."""
    for d in sizes:
        for op in (op for op in OPS if d in sizes_of(op, sizes)):
            for dtype in DTYPES:
                if report.over:
                    report.skip(f"repeats from {op.name} d={d} {dtype} on: the stage's time was up, or too much failed")
                    return
                p = problem(op, d, PERIOD, 0)
                guarded(report, f"{op.name} {dtype} d={d}", partial(_again, device, p, dtype, repeats))
    report.note(f"{repeats} repeats of {len(OPS)} ops at d = {', '.join(map(str, sizes))}, sums over events included")


def _again(device: Device, p: Problem, dtype: str, repeats: int) -> Iterator[str]:
    events = (device.put(p.inputs, dtype), device.put(p.cotangents, dtype))
    full = [[device.repeated(x, REPEATED_EVENTS) for x in arrays] for arrays in events]
    shared = [x if k == 0 else x[:1] for k, x in enumerate(full[0])]
    summed = len(shared) > 1 and p.op.vjp is not None and p.op.vjp_from == "inputs"
    calls = [(way, full[0]) for way in ways(p.op)] + ([("vjp", shared)] if summed else [])
    for way, inputs in calls:
        what = f"{way}, inputs shared" if inputs is shared else way
        first = run(p, way, inputs, full[1])
        same = [device.xp.ones((), bool) for _ in first]
        for _ in range(repeats - 1):
            again = run(p, way, inputs, full[1])
            same = [device.xp.logical_and(s, device.repeats(x, y)) for s, x, y in zip(same, again, first, strict=True)]
        for k, equal in enumerate(same):
            if not bool(equal):
                yield f"{what}: result {k} is not the same in {repeats} calls"
    if summed:
        yield from _sums(device, p, dtype, shared, full[1])


def _sums(device: Device, p: Problem, dtype: str, inputs: Arrays, cotangents: Arrays) -> Iterator[str]:
    """Cotangents summed over events, against the CPU's terms: what each term may be off adds up."""
    found = [device.host(x) for x in run(p, "vjp", inputs, cotangents)]
    given = [_wide(np.repeat(device.host(x), REPEATED_EVENTS // len(x), 0)) for x in inputs]
    cts = [_wide(device.host(x)) for x in cotangents]
    terms = problems.vjp(p.op, given, cts, **p.attributes)
    condition = tolerances.condition_of_problem(
        p.op, given, p.attributes, problems.forward(p.op, given, **p.attributes)
    )
    allowed = tolerances.limit(p.op, p.d, dtype, condition * tolerances.largest_entry(cts))
    for k, (x, exact) in enumerate(zip(found, terms, strict=True)):
        if len(x) > 1:
            good = bool((tolerances.event_error(x, exact) <= allowed).all())
        else:
            good = bool(np.max(np.abs(x[0] - exact.sum(0))) <= (allowed * tolerances.largest_entry([exact])).sum())
        if not good:
            yield f"vjp, inputs shared: result {k} is not the CPU's"


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if x.dtype.kind == "f" else x


# ---- noise


def check_noise(device: Device, report: Report, sizes: Sequence[int] = (1, 31, 4099, 2**20 + 3)) -> None:
    """Words and normals have the bits of the CPU, alone and made in a kernel that uses them."""
    for n in sizes:
        for dtype in DTYPES:
            guarded(report, f"normals {dtype} n={n}", partial(_normals, device, n, dtype))
    for d in FEW_SIZES:
        for dtype in DTYPES:
            guarded(report, f"noise in a kernel {dtype} d={d}", partial(_fused, device, d, dtype))
    shown = ", ".join(map(str, sizes))
    report.note(f"words and normals, n = {shown}, bit for bit those of the CPU; drawn in kernels too")


def _normals(device: Device, n: int, dtype: str) -> Iterator[str]:
    streams = np.arange(7, dtype=np.uint64) * np.uint64(2**61 + 1)
    offsets = np.array(4 * 2**32 - 8, np.uint64)  # the number of a block carries into its high word
    settings = {"n": max(1, n // 7), "key_low": KEY & 0xFFFFFFFF, "key_high": KEY >> 32, "dtype": dtype}
    given = device.put([streams, offsets], dtype)
    for name in NOISE:
        wanted, found = rp.OPS[name](streams, offsets, **settings), rp.OPS[name](*given, **settings)
        if not np.array_equal(device.host(found), wanted):
            yield f"{name} differs from the CPU's in {np.count_nonzero(device.host(found) != wanted)} of {wanted.size}"
    wanted = rp.random.normal(n, key=KEY, stream=3, offset=5, dtype=dtype)
    (like,) = device.put([np.zeros(1)], dtype)
    if not np.array_equal(device.host(rp.random.normal(n, key=KEY, stream=3, offset=5, like=like)), wanted):
        yield "rp.random.normal differs from the CPU's"


def _fused(device: Device, d: int, dtype: str) -> Iterator[str]:
    rng = np.random.default_rng(d)
    index = rng.integers(0, 2**63, PERIOD)
    noise = rp.OPS["normal"](
        index.astype(np.uint64), np.zeros((), np.uint64), n=d, dtype=dtype, key_low=KEY & 0xFFFFFFFF, key_high=KEY >> 32
    )
    loc, factor = device.put([rng.standard_normal((PERIOD, d)), problems.factor(rng, (PERIOD,), d)], dtype)
    drawn = rp.normal_tril_transform_and_log_prob(rp.random.Draw(KEY, index), loc, factor)
    stored = rp.normal_tril_transform_and_log_prob(device.put([noise], dtype)[0], loc, factor)
    for k, (x, y) in enumerate(zip(drawn, stored, strict=True)):
        if not bool(device.repeats(x, y)):
            yield f"result {k} of noise made in the kernel differs from that of the same noise in memory"


def check_few(device: Device, report: Report) -> None:
    """A little of everything, for a tool that watches every access; each array has its own allocation."""
    check_sizes(device, report, FEW_SIZES)
    check_noise(device, report, (31,))


def check_races(device: Device, report: Report) -> None:
    """Where the threads of a team work in one shared memory, for a tool that watches who reads before whom."""
    check_sizes(device, report, TEAM_SIZES)


STAGES: dict[str, Callable[[Device, Report], None]] = {
    "sizes": check_sizes, "batches": check_batches, "repeats": check_repeats, "noise": check_noise, "few": check_few,
    "races": check_races,
}  # fmt: skip


def main() -> int:
    """One stage in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--report", type=Path)
    asked = parser.parse_args()
    import cupy

    device, report = Device(cupy), Report(asked.report, asked.seconds)
    if asked.stage in ("few", "races"):
        cupy.cuda.set_allocator(None)  # a tool that watches memory sees no bounds inside a pool's block
    else:
        device.poison()
    STAGES[asked.stage](device, report)
    device.synchronize()
    return 1 if report.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
