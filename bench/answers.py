# SPDX-License-Identifier: MIT
"""Whether the answers of a row agree: to rounding, as estimates of one expectation, or by where training leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .row import Row
from .timing import Local

Array = np.ndarray[Any, Any]
STEPS = 20  # after which training must have helped
SAME_END = {"training": 0.08, "progress": 0.1}  # of the rise of ours: for one optimizer from one start, or two methods
MEAN_GAP = 0.2  # nats between the ELBOs of two whole runs to the same accuracy
STANDARD_ERRORS = 6.0  # of a mean over the batch
HEAVY_TAILS = 4.0  # over sqrt(n), by which that grows: products of normals are far from normal in a small batch


class AnswerError(Exception):
    """Two contestants disagree; the message names the row and who."""


def check(row: Row, inputs: tuple[Any, ...], runners: Sequence[Any]) -> None:
    """Raise :class:`AnswerError` unless ours agrees with the reference, and all others with ours or with that."""
    held = CHECKS[row.check](row, inputs)
    seen: set[int] = set()
    for runner in runners:
        if isinstance(runner, Local) and id(runner.contestant) in seen:
            continue  # one that keeps a state, such as Adam's moments, is at its second step now
        seen.add(id(runner.contestant))
        if row.check in SAME_END:  # copies, for a contestant may write into its last answer
            steps = [tuple(map(np.array, runner.answer())) for _ in range(STEPS)]
        else:
            steps = [runner.answer()]
        held(steps, f"{row.name}: {runner.contestant.name} ({runner.threads} threads)")


Held = Callable[[Sequence[Sequence[Array]], str], None]  # (answers of one contestant, who), ours first


# ---- deterministic answers


def _equal(row: Row, inputs: tuple[Any, ...]) -> Held:
    first: list[Sequence[Array]] = []

    def held(steps: Sequence[Sequence[Array]], who: str) -> None:
        (answer,) = steps
        if not first:
            first.append(answer)
            if row.reference is not None:
                expected = row.reference(*inputs)
                part = tuple(x[: len(y)] for x, y in zip(answer, expected, strict=True))
                _close(row, part, expected, f"{who} and the float64 answer")
        _close(row, answer, first[0], f"{who} and ours")

    return held


def _close(row: Row, answer: Sequence[Array], expected: Sequence[Array], who: str) -> None:
    tolerance = row.tolerance(row.d)
    _same_shapes(answer, expected, who)
    for k, (x, y) in enumerate(zip(answer, expected, strict=True)):
        error = float(np.max(np.abs(x - y), initial=0))
        size = float(np.max(np.abs(y), initial=0))
        if not error <= tolerance * max(size, 1e-30):
            raise AnswerError(f"{who} differ by {error:.2g} of {size:.2g} in result {k}, allowed are {tolerance:.1g}")


def _same_shapes(answer: Sequence[Array], expected: Sequence[Array], who: str) -> None:
    shapes = [[np.shape(x) for x in given] for given in (answer, expected)]
    if shapes[0] != shapes[1]:
        raise AnswerError(f"{who} have shapes {shapes[0]} and {shapes[1]}")


# ---- random ones


def _random(row: Row, inputs: tuple[Any, ...]) -> Held:
    expected, samples = row.reference(*inputs) if row.reference is not None else ((), ())

    def held(steps: Sequence[Sequence[Array]], who: str) -> None:
        _estimates(row, steps[0], expected, samples, who)

    return held


def _estimates(
    row: Row, answer: Sequence[Array], expected: Sequence[Array], samples: Sequence[Sequence[Array]], who: str
) -> None:
    """Hold an answer against its expectation, and its errors against those of trusted answers.

    Over the events, the error must have mean zero, be uncorrelated with the expectation (the slope of the answer on it
    is one: right events, right signs, right size) and have the trusted size. What chance allows is read off the
    trusted samples, so that no noise of the answer's own widens it.
    """
    _same_shapes(answer, expected, f"{who} and the expectation")
    for k, (x, e) in enumerate(zip(answer, expected, strict=True)):
        wide = [np.asarray(given, np.float64) for given in (x, e, *(sample[k] for sample in samples))]
        for entries in _groups(e.shape):
            answered, mean, *trusted = (given.reshape(len(e), -1)[:, entries] for given in wide)
            for what, excess in _excess(row.tolerance(row.d), answered, mean, np.stack(trusted)).items():
                if not excess <= 1:
                    raise AnswerError(f"{who}: {what} of result {k} is off by {excess:.1f} times what chance allows")


def _groups(shape: tuple[int, ...]) -> list[Array]:
    """Flat places of the entries of an event that are alike; what stands above a diagonal is no estimate."""
    places = np.arange(int(np.prod(shape[1:]))).reshape(shape[1:])
    if len(shape) != 3:
        return [places.reshape(-1)]
    d = shape[1]
    groups = [np.diagonal(places), places[np.tril_indices(d, -1)], places[np.triu_indices(d, 1)]]
    return [group for group in groups if group.size]


def _excess(tolerance: float, answer: Array, expected: Array, trusted: Array) -> dict[str, float]:
    """By how much each statistic leaves its band, 1 at its edge: of each entry, and of all together."""
    n = len(expected)
    centred, size = expected - expected.mean(0), float(np.max(np.abs(expected)))
    errors, fair = answer - expected, trusted - expected
    noise = float(np.sqrt(np.mean(fair**2)))
    statistics = {
        "the mean": (errors, fair, 0.0, size),
        "the slope on its expectation": (centred * errors, centred * fair, 0.0, size * float(np.max(np.abs(centred)))),
        "the spread": (errors**2, fair**2, 1.0, size * max(noise, tolerance * size)),
    }
    bands = STANDARD_ERRORS * (1 + HEAVY_TAILS / np.sqrt(n)) / np.sqrt(n)
    worst = {}
    for what, (found, usual, about, rounding) in statistics.items():
        each, of_trusted = (np.append(u, u.mean(-1, keepdims=True), axis=-1) for u in (found, usual))
        centre = about * of_trusted.mean((0, 1))
        # The centre of the spread is itself an estimate, from about as many events.
        allowed = bands * (1 + 0.5 * about) * of_trusted.std((0, 1)) + tolerance * rounding + 1e-300
        worst[what] = float(np.max(np.abs(each.mean(0) - centre) / allowed))
    return worst


# ---- training


def _training(row: Row, inputs: tuple[Any, ...]) -> Held:
    """Steps that say the ELBO of each row: it is what the reference makes of their state, and rises as ours does."""
    ours: list[float] = []

    def held(steps: Sequence[Sequence[Array]], who: str) -> None:
        assert row.reference is not None
        (before, _), (after, samples) = (row.reference(*inputs, *step[1:]) for step in (steps[0], steps[-1]))
        _estimates(row, steps[-1][:1], after, samples, who)
        _as_far(row, ours, float(before[0].mean()), float(after[0].mean()), who)

    return held


def _progress(row: Row, inputs: tuple[Any, ...]) -> Held:
    """Steps of different methods: the reference says how good the state after the first and the last is."""
    ours: list[float] = []

    def held(steps: Sequence[Sequence[Array]], who: str) -> None:
        assert row.reference is not None
        before, after = (float(np.mean(row.reference(*inputs, *step))) for step in (steps[0], steps[-1]))
        _as_far(row, ours, before, after, who)

    return held


def _as_far(row: Row, ours: list[float], before: float, after: float, who: str) -> None:
    """``ours`` is where the first contestant began and ended."""
    if not ours:
        ours += [before, after]
    gap = abs(after - ours[1]) / (ours[1] - ours[0]) if ours[1] > ours[0] else np.inf
    if not (after > before and gap <= SAME_END[row.check]):
        raise AnswerError(f"{who}: the ELBO went from {before:.4g} to {after:.4g}, that of ours to {ours[1]:.4g}")


def _accurate(row: Row, inputs: tuple[Any, ...]) -> Held:
    """Whole runs, by the mean of what the reference says of their states."""
    means: list[float] = []

    def held(steps: Sequence[Sequence[Array]], who: str) -> None:
        assert row.reference is not None
        means.append(float(np.mean(row.reference(*inputs, *steps[0]))))
        if not abs(means[-1] - means[0]) <= MEAN_GAP:
            raise AnswerError(f"{who}: the ELBO is {means[-1]:.4g}, that of ours {means[0]:.4g}")

    return held


CHECKS: dict[str, Callable[[Row, tuple[Any, ...]], Held]] = {
    "equal": _equal,
    "random": _random,
    "training": _training,
    "progress": _progress,
    "accurate": _accurate,
}
