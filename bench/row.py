# SPDX-License-Identifier: MIT
"""What a row of the table is: one piece of work, those who do it, what it costs at least, and its target."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import machine

DTYPES = ("float32", "float64")
ROOFS = ("fma", "copy", "update", "read")
#: Regimes: R stays in the caches, M comes from memory; "-" is a size that the published tables name.
CACHED_BYTES = 8_000_000
LINE = 64  # bytes of a cache line, the least that memory hands out
NO_LIMIT = sys.maxsize


@dataclass(frozen=True)
class Contestant:
    """One library's way to do a row's work.

    ``build(*inputs)`` gives the function of one round, which returns the answer in the library's own arrays, its
    outputs recycled where the library allows it; ``answer`` turns that into NumPy arrays in the order of ours.
    ``scales`` says whether the number of threads matters to it, ``blas`` whether ours calls NumPy's BLAS, ``inside``
    the framework that ours is called from.
    """

    library: str
    form: str
    build: Callable[..., Callable[[], Any]]
    answer: Callable[[Any], tuple[np.ndarray, ...]] | None = None
    scales: bool = True
    blas: bool = False
    inside: str = ""

    @property
    def home(self) -> str:
        """The library in whose process it has to run, and which must be installed."""
        return self.inside or self.library

    @property
    def name(self) -> str:
        """As the table prints it."""
        return self.library if self.form == "library" else f"{self.library} {self.form}"

    def arrays(self, result: Any) -> tuple[np.ndarray, ...]:
        """The answer of one round as NumPy arrays."""
        return self.answer(result) if self.answer else flat(result)


@dataclass(frozen=True)
class Target:
    """What a row is held against.

    ``kind`` is "ratio" to the fastest rival, "library" for the fastest of those that call their library, the name of
    one rival, "seconds", or a roof, of which ``value`` is the share.
    """

    kind: str
    value: float

    def __str__(self) -> str:
        if self.kind == "seconds":
            return f"{1e6 * self.value:g} us"
        if self.kind in ROOFS:
            return f"{100 * self.value:.0f}% {self.kind}"
        return f"{self.value:g}x" if self.kind == "ratio" else f"{self.value:g}x {self.kind}"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes
    ----------
    op, size, dtype, regime : str
        Together the row's name; ``--op`` and ``--size`` choose by them.
    batch : int
        Events, or parameters, or numbers.
    make : callable
        ``make(rng)`` gives the inputs of every contestant's ``build``.
    contestants : tuple of Contestant
        Ours first.
    flops, bytes : float
        The least that the work takes, of the whole batch.
    roof : {"fma", "copy", "update", "read", None}
        The limit that its targets speak of, and the unit of its rate.
    moves : {"copy", "update", "read"}
        How its bytes travel, for the least time that they take.
    targets : tuple of Target
    check : {"equal", "random", "training", "progress", "accurate"}
        How answers are compared: to rounding; as estimates of one expectation; by the ELBO that steps say and reach; by
        the ELBO that steps of different methods reach; by that of whole runs. See answers.py.
    condition : float
        Of the problem, for the tolerance.
    reference : callable, optional
        What the answers are held to, in float64. "equal": ``reference(*inputs)`` is the answer for the first events.
        "random": ``(expected, samples)``, the expectation of the answer and trusted answers. The others:
        ``reference(*inputs, *state)`` is the ELBO of each event; "training", whose answers are ``(elbos, *state)``,
        has expectation and samples of those.
    quick : bool
        Whether ``--quick`` runs it.
    needs : str, optional
        A library that ours runs on.
    counts : bool
        Whether its ratio enters the geometric mean: not where a rival does less than ours.
    """

    op: str
    size: str
    dtype: str
    regime: str
    batch: int
    make: Callable[[np.random.Generator], tuple[Any, ...]]
    contestants: tuple[Contestant, ...]
    flops: float = 0.0
    bytes: float = 0.0
    roof: str | None = None
    moves: str = "copy"
    targets: tuple[Target, ...] = ()
    check: str = "equal"
    condition: float = 10.0
    reference: Callable[..., Any] | None = None
    quick: bool = False
    needs: str | None = None
    counts: bool = True

    @property
    def name(self) -> str:
        """The row's name, equal from run to run and from machine to machine."""
        return f"{self.op} {self.sized}"

    @property
    def sized(self) -> str:
        """The name without the op."""
        return " ".join([self.dtype, self.size, *([self.regime] if self.regime != "-" else [])])

    @property
    def d(self) -> int:
        """Size of an event; 1 where the work has none."""
        return next((int(word[2:]) for word in self.size.split() if word.startswith("d=")), 1)

    @property
    def words(self) -> set[str]:
        """What ``--size`` may ask for."""
        return {*self.size.split(), self.dtype, self.regime}

    @property
    def least(self) -> dict[str, float]:
        """What it takes of each of the machine's limits, by their names in roofs.py."""
        cached = " cached" if self.bytes <= CACHED_BYTES else ""
        return {f"fma {self.dtype}": self.flops, self.moves + cached: self.bytes}

    @property
    def memory(self) -> float:
        """Bytes that the row needs, about: inputs and outputs of ours, and copies of the rivals."""
        return 2 * self.bytes + len(self.contestants) * self.bytes

    def inputs(self) -> tuple[Any, ...]:
        """The inputs, the same in every process."""
        return self.make(np.random.default_rng(20260101))

    def tolerance(self, d: int) -> float:
        """Of an answer, relative to its largest entry."""
        return 8 * max(d, 4) * self.condition * float(np.finfo(self.dtype).eps)


def parts(result: Any) -> tuple[Any, ...]:
    """Nested results as one tuple of the library's own arrays, in order."""
    if isinstance(result, tuple | list):
        return tuple(x for part in result for x in parts(part))
    return (result,)


def flat(result: Any) -> tuple[np.ndarray, ...]:
    """Nested results as one tuple of NumPy arrays, in order."""
    return tuple(np.asarray(x.detach() if hasattr(x, "detach") else x) for x in parts(result))


def batch_for(regime: str, event_bytes: float, limit: int = NO_LIMIT) -> int:
    """Events of the regime, 8 at least: R holds 8 MB of inputs and outputs, M four times the last-level cache."""
    wanted = CACHED_BYTES if regime == "R" else 4 * machine.cache_bytes()
    batch = math.floor(wanted / event_bytes) if regime == "R" else math.ceil(wanted / event_bytes)
    return min(max(batch, 8), limit)


def lower_bytes(d: int, dtype: str) -> float:
    """Bytes of the cache lines that hold the lower triangle of a dense matrix, in a batch that starts with a line.

    Kernels read no more; what they write they write in full. (Rows of the Cholesky factor count both matrices in full,
    as the published target does.)
    """
    size = d * d * items(dtype)
    period = LINE // math.gcd(LINE, size)  # matrices after which a start of a line is a start of a matrix again
    places = np.flatnonzero(np.tile(np.tri(d, dtype=bool).reshape(-1), period))
    return len(np.unique(places * items(dtype) // LINE)) * LINE / period


def recycled(call: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """The ``build`` of ours: ``call(*inputs, out=...)`` writes into the results of its first call."""

    def build(*inputs: Any) -> Callable[[], Any]:
        first = parts(call(*inputs, out=None))
        out = first if len(first) > 1 else first[0]
        return lambda: call(*inputs, out=out)

    return build


def ratio(value: float) -> tuple[Target, ...]:
    """A target against the fastest rival."""
    return (Target("ratio", value),)


def items(dtype: str) -> int:
    """Bytes of one element."""
    return int(np.dtype(dtype).itemsize)


def factors(rng: np.random.Generator, batch: int, d: int, dtype: str) -> np.ndarray:
    """Lower factors of condition near 2: unit-scale diagonals, small entries below, exact zeros above."""
    factor = np.tril(rng.standard_normal((batch, d, d), dtype=dtype) * np.asarray(0.3 / math.sqrt(d), dtype))
    i = np.arange(d)
    factor[:, i, i] = 1 + 0.5 * rng.random((batch, d), dtype=dtype)
    return factor


def covariances(rng: np.random.Generator, batch: int, d: int, dtype: str) -> np.ndarray:
    """Symmetric positive definite matrices, each its own."""
    factor = factors(rng, batch, d, dtype)
    return factor @ factor.swapaxes(-1, -2)
