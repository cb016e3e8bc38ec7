# SPDX-License-Identifier: MIT
"""What the demo writes down: means with their errors, times, the table, files that are replaced as a whole."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clock", "StepTimer", "mean_and_error", "replacing", "table", "timings", "write_json"]

Array = NDArray[Any]


@dataclass
class Clock:
    """Seconds of each part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time one part."""
        begin = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - begin


class StepTimer:
    """A callback of ``fit``: seconds from step to step in an epoch, without what the fit does between epochs."""

    def __init__(self) -> None:
        self.seconds, self.steps = 0.0, 0
        self._epoch, self._last = -1, 0.0

    def __call__(self, info: Any) -> None:
        """Called after each step."""
        now = time.perf_counter()
        if info.epoch == self._epoch:
            self.seconds += now - self._last
            self.steps += 1
        self._epoch, self._last = info.epoch, now

    @property
    def seconds_per_step(self) -> float:
        """Their mean."""
        return self.seconds / max(1, self.steps)


def mean_and_error(x: Array) -> dict[str, float]:
    """Mean over images, and its standard error."""
    x = np.asarray(x, dtype=np.float64)
    return {"mean": float(x.mean()), "standard_error": float(x.std(ddof=1) / np.sqrt(x.size))}


def timings(clock: Clock, steps: Mapping[str, tuple[int, float, float]]) -> dict[str, Any]:
    """Seconds by part, and microseconds of one step and of one image in it.

    Parameters
    ----------
    clock : Clock
    steps : dict
        For each part that makes steps: how many, seconds of one, images in one.
    """
    return {
        "seconds": {**clock.seconds, "total": sum(clock.seconds.values())},
        "steps": {part: count for part, (count, _, _) in steps.items()},
        "microseconds_per_step": {part: 1e6 * seconds for part, (_, seconds, _) in steps.items()},
        "microseconds_per_step_and_image": {
            part: 1e6 * seconds / images for part, (_, seconds, images) in steps.items()
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The summary for people."""
    bound, half, times = summary["held_out_log_likelihood"], summary["half_hidden_elbo"], summary["timings"]
    importance = (
        f"importance-weighted, {bound['num_samples']} draws: Monte Carlo error {bound['monte_carlo_error']:.3f}"
    )
    rows = [
        ("training ELBO", summary["train_elbo"], ""),
        ("held-out ELBO", summary["held_out_elbo"], ""),
        ("held-out log-likelihood", bound, importance),
        ("half-hidden ELBO, diagonal", half["diag"], f"{half['num_images']} held-out digits, lower half hidden"),
        ("half-hidden ELBO, full", half["full"], "the same digits, full covariance"),
        ("full minus diagonal", half["full_minus_diag"], "digit by digit"),
    ]
    lines = [f"{'nats per image':28}{'mean':>9}{'s.e.':>8}"]
    for name, value, remark in rows:
        lines.append(f"{name:28}{value['mean']:9.2f}{value['standard_error']:8.2f}  {remark}".rstrip())
    lines += ["", f"{'time':28}{'seconds':>9}{'steps':>8}{'us/step':>10}{'us/step/image':>15}"]
    for part, seconds in times["seconds"].items():
        line = f"{part:28}{seconds:9.2f}"
        if part in times["steps"]:
            line += f"{times['steps'][part]:8d}{times['microseconds_per_step'][part]:10.0f}"
            line += f"{times['microseconds_per_step_and_image'][part]:15.1f}"
        if part == "training":
            between = seconds - 1e-6 * times["steps"][part] * times["microseconds_per_step"][part]
            line += f"  {between:.1f} s between epochs: held-out ELBO, checkpoint"
        lines.append(line)
    return "\n".join(lines)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place at the end: a broken run leaves the previous one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, replacing the file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
