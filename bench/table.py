# SPDX-License-Identifier: MIT
"""All rows, and the choice among them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ..demo import UsageError
from . import (
    libraries,
    work_cholesky,
    work_density,
    work_elbo,
    work_inside,
    work_mixture,
    work_noise,
    work_overhead,
    work_shared,
    work_training,
)
from .row import NO_LIMIT, Row

MODULES = (
    work_cholesky, work_density, work_shared, work_elbo, work_noise, work_training, work_mixture, work_overhead,
    work_inside,
)  # fmt: skip


@functools.cache
def rows(limit: int = NO_LIMIT) -> tuple[Row, ...]:
    """Every row, with at most ``limit`` events each: few of them make the shrunk form that tests run."""
    return tuple(row for module in MODULES for row in module.rows(limit))


def known_ops() -> list[str]:
    """What ``--op`` takes."""
    return list(dict.fromkeys(row.op for row in rows()))


def known_sizes() -> list[str]:
    """Words that ``--size`` takes."""
    return sorted({word for row in rows() for word in row.words}, key=_natural)


def _natural(word: str) -> tuple[str, float, str]:
    head, _, number = word.partition("=")
    return head, float(number) if number.replace(".", "").isdigit() else 0.0, word


def choose(
    ops: Sequence[str] = (), sizes: Sequence[str] = (), *, quick: bool = False, limit: int = NO_LIMIT
) -> list[Row]:
    """Rows of any of the ops, with all words of any of the sizes.

    Raises
    ------
    UsageError
        For a name that no row has; the message lists those that are known.
    """
    _refuse("--op", ops, known_ops())
    _refuse("--size", [word for size in sizes for word in size.split() or [""]], known_sizes())
    wanted = [set(size.split()) for size in sizes]
    found = [
        row
        for row, named in zip(rows(limit), rows(), strict=True)
        if (not ops or row.op in ops) and (not wanted or any(words <= named.words for words in wanted))
    ]
    if not found:
        asked = f"no row of {', '.join(ops) or 'any op'} has size {' or '.join(map(repr, sizes))}"
        known = dict.fromkeys(row.sized for row in rows() if row.op in ops)
        raise UsageError(asked + (f", known are {', '.join(known)}" if known else ""))
    if quick:
        few = [row for row in found if row.quick]
        return few or found  # what was asked for by name runs, quick or not
    return found


def rivals(names: Sequence[str]) -> tuple[str, ...]:
    """The rivals of these names, all by default.

    Raises
    ------
    UsageError
        For an unknown one; the message lists those that are known.
    """
    _refuse("--rival", names, list(libraries.RIVALS))
    return tuple(names) or libraries.RIVALS


def _refuse(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(f"{option}: unknown {name!r}, known are {', '.join(known)}")
