# SPDX-License-Identifier: MIT
"""The printed table, JSON, CSV, and the comparison with an earlier run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..demo import UsageError
from .roofs import Roofs
from .row import ROOFS, Row, Target
from .timing import Timed

SCHEMA = 1
Result = dict[str, Any]
COLUMNS = (
    ("row", 54), ("ours ms", 9), ("thr", 4), ("rate", 14), ("of floor", 17), ("fastest rival", 20), ("thr", 4),
    ("ms", 9), ("ratio", 8), ("target", 16), ("met", 6),
)  # fmt: skip
#: "floor": not even the least time that the machine allows would meet it.
MARKS = {True: "yes", False: "no", None: "-", "floor": "floor"}


def result(row: Row, timed: Sequence[Timed], roofs: Roofs) -> Result:
    """What a row's times come to. Ratios are of medians of one run."""
    ours = min((t for t in timed if t.ours), key=lambda t: t.median)
    rivals = [t for t in timed if not t.ours]
    best = min(rivals, key=lambda t: t.median) if rivals else None
    ratio = best.median / ours.median if best else None
    by_flops = row.roof == "fma"
    work = row.flops if by_flops else row.bytes
    used = "1" if ours.runner.threads == 1 else "all"
    share = None
    if row.roof:
        share = work / ours.median / roofs[f"fma {row.dtype}" if by_flops else row.roof][used]
    floor = _floor(row, roofs, used)
    targets = []
    for target in row.targets:
        value, possible = _reached(target, ours.median, rivals, share), True
        if floor and value is not None:
            quicker = ours.median / floor["seconds"]
            at_floor = _reached(target, floor["seconds"], rivals, share and share * quicker)
            possible = at_floor is None or _met(target, at_floor)
        met = None if value is None else _met(target, value)
        targets.append({"text": str(target), "value": value, "met": met, "possible": possible})
    return {
        "name": row.name,
        "op": row.op,
        "size": row.size,
        "dtype": row.dtype,
        "regime": row.regime,
        "batch": row.batch,
        "counts": row.counts,
        "flops": row.flops,
        "bytes": row.bytes,
        "seconds": ours.median,
        "threads": ours.runner.threads,
        "rate": work / ours.median / 1e9,
        "unit": "" if not work else "GFLOP/s" if by_flops else "GB/s",
        "roof": row.roof,
        "share": share,
        "floor": floor,
        "rival": best and {"name": best.contestant.name, "threads": best.runner.threads, "seconds": best.median},
        "ratio": ratio,
        "ratio_target": next((t.value for t in row.targets if t.kind == "ratio"), None),
        "targets": targets,
        "contestants": [
            {
                "library": t.contestant.library,
                "form": t.contestant.form,
                "threads": t.runner.threads,
                "median": t.median,
                "least": t.least,
                "rounds": len(t.seconds),
            }
            for t in timed
        ],
    }


def _floor(row: Row, roofs: Roofs, used: str) -> Result | None:
    """The least seconds that the limits of the machine allow, and which of them binds; None for work without any."""
    seconds = {name: least / roofs[name][used] for name, least in row.least.items() if least and name in roofs}
    if not seconds:
        return None
    limit = max(seconds, key=seconds.__getitem__)
    return {"seconds": seconds[limit], "limit": limit}


def _reached(target: Target, seconds: float, rivals: Sequence[Timed], share: float | None) -> float | None:
    """What the target speaks of; None where it cannot be told, such as without the rival that it names."""
    if target.kind == "seconds":
        return seconds
    if target.kind in ROOFS:
        return share
    fits = {"ratio": lambda _: True, "library": lambda who: who.form == "library"}
    chosen = fits.get(target.kind, lambda who: who.name == target.kind)
    times = [t.median for t in rivals if chosen(t.contestant)]
    return min(times) / seconds if times else None


def _met(target: Target, value: float) -> bool:
    return value <= target.value if target.kind == "seconds" else value >= target.value


def head() -> str:
    """The line of columns."""
    return _columns(name for name, _ in COLUMNS)


def line(result: Result) -> str:
    """One row of the table."""
    rival = result["rival"] or {"name": "none", "threads": "", "seconds": math.nan}
    floor, ratio = result["floor"], result["ratio"]
    return _columns(
        [
            result["name"],
            f"{1e3 * result['seconds']:.4g}",
            result["threads"],
            f"{result['rate']:.3g} {result['unit']}" if result["unit"] else "",
            "" if floor is None else f"{100 * floor['seconds'] / result['seconds']:.0f}% {floor['limit']}",
            rival["name"],
            rival["threads"],
            "" if result["rival"] is None else f"{1e3 * rival['seconds']:.4g}",
            "" if ratio is None else f"{ratio:.2f}x",
            ", ".join(t["text"] for t in result["targets"]),
            ", ".join(MARKS["floor" if _out_of_reach(t) else t["met"]] for t in result["targets"]),
        ]
    )


def _columns(cells: Iterable[Any]) -> str:
    padded = [str(cell).ljust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)]
    return " ".join(padded).rstrip()


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def means(results: Sequence[Result]) -> list[str]:
    """Lines with the geometric mean of the ratios, by op and in all, and how many targets are met."""
    groups: dict[str, list[float]] = {}
    for each in results:
        if each["ratio"] is not None and each["counts"]:
            groups.setdefault(each["op"], []).append(each["ratio"])
    lines = [f"  {op:34} {geometric_mean(ratios):7.2f}x of {len(ratios)}" for op, ratios in groups.items()]
    every = [ratio for ratios in groups.values() for ratio in ratios]
    if every:
        lines.append(f"  {'all':34} {geometric_mean(every):7.2f}x of {len(every)}")
    lines += _pairs(results)
    lines += _floors(results)
    marks = [t["met"] for each in results for t in each["targets"] if t["met"] is not None]
    out = sum(_out_of_reach(t) for each in results for t in each["targets"])
    met = f"targets met: {sum(marks)} of {len(marks)}; the floor would miss {out} too"
    return ["geometric mean of the ratios to the fastest rival:", *lines, met]


def _out_of_reach(target: Result) -> bool:
    return target["met"] is False and not target["possible"]


def _pairs(results: Sequence[Result]) -> list[str]:
    """What a full covariance costs in a training step."""
    seconds = {each["name"]: each["seconds"] for each in results if each["op"] == "vae-step"}
    found = [(name, name.replace(" full ", " diagonal ")) for name in seconds if " full " in name]
    return [
        f"  {full}: {seconds[full] / seconds[diagonal]:.3f} of the time with a diagonal one, target 1.15"
        for full, diagonal in found
        if diagonal in seconds
    ]


def _floors(results: Sequence[Result]) -> list[str]:
    """How far rows are from the limit that binds them, and how often each does."""
    shares: dict[str, list[float]] = {}
    for each in results:
        if each["floor"] and each["counts"]:
            shares.setdefault(each["floor"]["limit"], []).append(each["floor"]["seconds"] / each["seconds"])
    return [
        f"  bound by {limit}: {100 * geometric_mean(found):.0f}% of it reached in the mean of {len(found)}, "
        f"{100 * min(found):.0f} to {100 * max(found):.0f}%"
        for limit, found in shares.items()
    ]


def write(folder: Path, results: Sequence[Result], about: dict[str, Any], roofs: Roofs, scaling: Any) -> None:
    """``bench.json`` holds everything, ``bench.csv`` a line for each contestant."""
    whole = {"schema": SCHEMA, "machine": about, "roofs": roofs, "rows": list(results), "scaling": scaling}
    (folder / "bench.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    with (folder / "bench.csv").open("w", encoding="utf-8", newline="") as file:
        names = ("library", "form", "threads", "median", "least", "rounds")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["row", "batch", "flops", "bytes", *names])
        for each in results:
            for who in each["contestants"]:
                fields = [each[name] for name in ("name", "batch", "flops", "bytes")]
                table.writerow([*fields, *(who[name] for name in names)])


def read(path: Path) -> dict[str, Result]:
    """The rows of an earlier ``bench.json`` by name.

    Raises
    ------
    UsageError
        If the file is not one, or has a time that cannot be compared with.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["schema"] != SCHEMA:
            raise ValueError(f"schema {whole['schema']}")
        rows = {row["name"]: {**row, "seconds": float(row["seconds"])} for row in whole["rows"]}
        for name, row in rows.items():
            if not 0 < row["seconds"] < math.inf:
                raise ValueError(f"row '{name}' has {row['seconds']:g} seconds, which must be positive and finite")
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--compare: cannot read '{path}' as the bench.json of an earlier run: {error}") from error


def comparison(results: Sequence[Result], old: dict[str, Result]) -> list[str]:
    """Lines with the time of ours now over then, row by row, and the geometric mean."""
    lines, ratios = [], []
    for each in results:
        before = old.get(each["name"])
        if before is None:
            lines.append(f"  {each['name']:54} not in the earlier run")
            continue
        ratios.append(each["seconds"] / before["seconds"])
        times = f"{1e3 * each['seconds']:.4g} ms, was {1e3 * before['seconds']:.4g}"
        lines.append(f"  {each['name']:54} {ratios[-1]:6.3f}  ({times})")
    if ratios:
        lines.append(f"  {'geometric mean':54} {geometric_mean(ratios):6.3f}")
    return ["our time, new over old:", *lines]
