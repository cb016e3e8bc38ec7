# SPDX-License-Identifier: MIT
"""``reparam selftest``: the kernels of this machine, held against numbers worked out beforehand.

Then every op and vjp is held against its definition, on vectors of events and a tail. ``report`` is the long form.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reparam as rp

from . import problems

__all__ = ["GOLDEN", "run", "words"]

Array = NDArray[Any]

SIGMA = [[4.0, 2.0, 0.6], [2.0, 3.0, 0.4], [0.6, 0.4, 2.0]]
CT_SCALE_TRIL = [[1.0, 0.0, 0.0], [2.0, 3.0, 0.0], [4.0, 5.0, 6.0]]
LOC, VALUE = [0.5, -1.0, 2.0], [1.0, -2.0, 0.5]
# x | z ~ N(weight z + bias, 0.75^2), z ~ N(0, I): its posterior and evidence are below.
WEIGHT, BIAS, NOISE_SCALE, X = [[1.0, 0.5], [0.0, 2.0], [-1.0, 0.25]], [0.5, -1.0, 0.0], 0.75, [1.0, 0.0, 2.0]
POSTERIOR_LOC = [-0.643620364550597109, 0.597108736643620365]
POSTERIOR_SCALE_TRIL = [[0.469697737701610943, 0.0], [-0.0240870634718774842, 0.339683110243378725]]
# (key, stream, first word) of four consecutive words
BLOCKS = [
    (0, 0, 0), (0, 0, 4), (0, 0, 4 << 32), (0, 0, 4 * 0xFFFFFFFF),
    (0, 1, 0), (0, 1 << 32, 0), (1, 0, 0), (1 << 32, 0, 0),
]  # fmt: skip
# For the ops against their definitions: events (two vectors of 16 and a tail) and sizes.
EVENTS, SIZES = 37, {"d": 5, "s": 3, "n": 4}

#: What each check must give: computed in 40 digits, and for the noise from the definition of its transform.
GOLDEN: dict[str, Any] = {
    "Cholesky factor": [
        [2.0, 0.0, 0.0],
        [1.0, 1.4142135623730951, 0.0],
        [0.3, 0.0707106781186548, 1.380217374184226],
    ],
    "Cholesky vjp": [
        [0.392195040665435, -0.237716138335665, -0.155579809984016],
        [-0.237716138335665, 0.977705750801519, 1.659088419566036],
        [-0.155579809984016, 1.659088419566036, 2.173570668006655],
    ],
    "log density": -5.141087086029358,
    "entropy": 5.618777374743269,
    "KL to N(0, I)": 4.263038224870749,
    "ELBO at the posterior": [-6.07808445595278733] * 4,
    "Philox words": [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0xF8E4CCA4, 0x5CB200DB, 0xB1A574EB, 0x097EFF67],
        [0x6AD0C5EC, 0xEA236249, 0x73A459F5, 0x074944B3],
        [0xC5B20A9D, 0x4434EC4E, 0x11BBE4FB, 0x2A1EF7A5],
        [0x844515E1, 0xF08D6EAA, 0x0F19C053, 0x83F875F0],
        [0x2DCE73E5, 0x1348E23F, 0xFCF8E0EC, 0xA287AADB],
        [0xE3E80670, 0xE50A0EBC, 0x95F222C0, 0xB615AA27],
        [0xFDDE3E0B, 0xFA7E58B6, 0x3380EC46, 0xD8D55C4F],
    ],
    "noise, float32": ["0x1.5292d2p-1", "0x1.3d1eb4p-2", "0x1.6a4ed6p-3", "-0x1.3cff82p-5"],
    "noise, float64": [
        "0x1.209a10621f613p+1",
        "-0x1.f904e2f3e431bp-2",
        "0x1.68c9c93a5315fp+0",
        "0x1.507882db615ebp+0",
    ],
}


def _scale_tril(real: type) -> Array:
    return np.asarray(rp.cholesky(np.array(SIGMA, real)))


def _elbo_at_posterior(real: type) -> Array:
    """Each log weight is the log evidence when q is the posterior."""
    q = rp.MultivariateNormal(np.array(POSTERIOR_LOC, real), scale_tril=np.array(POSTERIOR_SCALE_TRIL, real))
    target = rp.targets.LinearGaussian(np.array(X, real), np.array(WEIGHT, real), np.array(BIAS, real), NOISE_SCALE)
    return np.asarray(rp.elbo(q, target, key=0, num_samples=4).log_weights)


#: Float checks by name: a function of the element type.
CHECKS: dict[str, Callable[[type], Any]] = {
    "Cholesky factor": _scale_tril,
    "Cholesky vjp": lambda real: rp.cholesky.vjp(_scale_tril(real), np.array(CT_SCALE_TRIL, real)),
    "log density": lambda real: rp.normal_tril_log_prob(np.array(VALUE, real), np.array(LOC, real), _scale_tril(real)),
    "entropy": lambda real: rp.normal_tril_entropy(_scale_tril(real)),
    "KL to N(0, I)": lambda real: rp.normal_tril_kl_standard(np.array(LOC, real), _scale_tril(real)),
    "ELBO at the posterior": _elbo_at_posterior,
}
LIMITS: dict[type, float] = {np.float32: 1e-5, np.float64: 1e-13}


def words() -> Array:
    """The words whose known answers stand in :data:`GOLDEN`."""
    return np.stack([rp.random.bits(4, key=key, stream=stream, offset=offset) for key, stream, offset in BLOCKS])


def _difference(actual: Any, expected: Any, limit: float) -> str | None:
    """What is wrong in words, or None. A limit of 0 asks for equal bits."""
    got, wanted = np.asarray(actual), np.asarray(expected)
    if got.shape != wanted.shape:
        return f"shape {got.shape}, expected {wanted.shape}"
    error = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    allowed = limit * np.maximum(1.0, np.abs(wanted.astype(np.float64)))
    bad = np.argwhere(~(error <= allowed))
    if not len(bad):
        return None
    k = tuple(int(i) for i in bad[0])
    where = f" at {list(k)}" if k else ""
    return f"got {got[k]!r}{where}, expected {wanted[k]!r}, limit {limit:g}"


@dataclass(frozen=True)
class Failure:
    """A number that differs, or a check that could not run."""

    check: str
    detail: str
    backend: str
    reason: str

    def __str__(self) -> str:
        return f"FAILED: {self.check}{self.detail} on {self.backend}: {self.reason}"


def _inputs(op: Any, extents: dict[str, int]) -> list[Array]:
    """Operands exact in float32, and well enough conditioned for its limit, as those of ``problems`` are not."""
    rng = np.random.default_rng(0)
    if op.samples:
        made = op.samples(rng, (EVENTS,), extents)
    else:
        made = [_operand(o, rng, (EVENTS, *o.event_shape(extents))) for o in op.inputs]
    return [np.asarray(x, np.float32 if o.item == "real" else o.item) for o, x in zip(op.inputs, made, strict=True)]


def _operand(operand: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    if operand.item != "real":
        return rng.integers(0, 2**40, shape) * 4
    if operand.kind in {"tril", "sym"}:
        lower = np.tril(rng.uniform(-0.3, 0.3, shape), -1) + rng.uniform(1, 1.5, shape) * np.eye(shape[-1])
        return lower if operand.kind == "tril" else lower @ lower.swapaxes(-1, -2)
    return rng.uniform(0.5, 1.5, shape) if "scale" in operand.name else rng.standard_normal(shape)


def _run_op(op: Any, attributes: dict[str, Any], real: type, *, vjp: bool) -> list[Array]:
    """All that one pass gives, for one set of inputs; of an op without outputs, what it has updated."""
    extents = {symbol: SIZES.get(symbol, 4) for symbol in op.forward_pass.symbols}
    inputs = [x.astype(real) if o.item == "real" else x for o, x in zip(op.inputs, _inputs(op, extents), strict=True)]
    if vjp:
        rng = np.random.default_rng(1)
        shapes = [(EVENTS, *o.event_shape(extents)) for o in op.real(op.outputs)]
        cotangents: list[Array] = [rng.standard_normal(shape).astype(np.float32).astype(real) for shape in shapes]
        return list(problems.vjp(op, inputs, cotangents, **attributes))
    if not op.real(op.inputs):
        attributes = {**attributes, **problems.keyword_extents(op, extents), "dtype": real}
    return list(problems.forward(op, inputs, **attributes))


def _op_calls() -> Iterator[tuple[str, Any, Callable[[type], list[Array]]]]:
    """Name, op, and function of the element type, for each op, its vjp, and each of its choices."""
    for op in rp.OPS.values():
        for choice in [{k: value} for k, values in op.choices.items() for value in values] or [{}]:
            for vjp in (False, True) if op.vjp is not None else (False,):
                name = " ".join([op.name, *choice.values(), *(["vjp"] if vjp else [])])
                yield name, op, partial(_run_op, op, choice, vjp=vjp)


def _op_difference(op: Any, call: Callable[[type], list[Array]], real: type) -> str | None:
    """Against the definition in float64; noise and words against the same element type, bit for bit."""
    exact = not op.real(op.inputs)
    with rp.backend("reference"):
        expected = call(real if exact else np.float64)
    reasons = (_difference(a, e, 0 if exact else LIMITS[real]) for a, e in zip(call(real), expected, strict=True))
    return next((reason for reason in reasons if reason), None)


def _checks() -> Iterator[tuple[str, str, Callable[[], str | None]]]:
    """Row of the table, the rest of the name, and a function that says what is wrong."""
    for check, function in CHECKS.items():
        for real, limit in LIMITS.items():
            wrong = partial(lambda f, r, c, n: _difference(f(r), np.array(GOLDEN[c]), n), function, real, check, limit)
            yield check, f", {real.__name__}", wrong
    yield "Philox words", "", lambda: _difference(words(), np.array(GOLDEN["Philox words"], np.uint32), 0)
    for real in LIMITS:
        yield f"noise, {real.__name__}", "", partial(lambda name: _difference(*first_normals(name), 0), real.__name__)
    for name, op, call in _op_calls():
        for real in LIMITS:
            yield "ops and vjps", f", {name}, {real.__name__}", partial(_op_difference, op, call, real)


def first_normals(dtype: str) -> tuple[Array, Array]:
    """Four normals, and those that :data:`GOLDEN` has for them."""
    return rp.random.normal(4, key=5, dtype=dtype), np.array([*map(float.fromhex, GOLDEN[f"noise, {dtype}"])], dtype)


def checked_backends() -> list[str]:
    """Who is checked: where there are compiled kernels not Numba, whose own take minutes to compile."""
    without = {"native", "numba"} if "native" in rp.backends() else set()  # `native` is one of the `native:<isa>`
    return [name for name in rp.backends() if name not in without]


def _remark(names: list[str]) -> str:
    """What is to be said of the backends that are not checked, or not there."""
    if "native" not in rp.backends():
        return f"no compiled kernels here: only {' and '.join(names)} {'was' if len(names) == 1 else 'were'} checked"
    if "numba" in rp.backends():
        return "numba is left to `reparam selftest --full`: its kernels take minutes to compile"
    return ""


def run() -> int:
    """Compare every number on every backend and print a table.

    Returns
    -------
    int
        0 if all agree, else 1; then every number that differs is named.
    """
    begin = time.perf_counter()
    names = checked_backends()
    failures: list[Failure] = []
    count = 0
    for name in names:
        with rp.backend(name):
            for check, detail, wrong in _checks():
                count += 1
                try:
                    reason = wrong()
                except Exception as error:
                    reason = traceback.format_exception_only(error)[-1].strip()
                if reason is not None:
                    failures.append(Failure(check, detail, name, reason))
    rows = [*GOLDEN, "ops and vjps"]
    width = max(len(row) for row in rows) + 2
    print("".ljust(width) + "  ".join(names))
    for row in rows:
        failed = {f.backend for f in failures if f.check == row}
        print(row.ljust(width) + "  ".join(("FAILED" if n in failed else "ok").ljust(len(n)) for n in names).rstrip())
    if remark := _remark(names):
        print(remark)
    seconds = time.perf_counter() - begin
    print(f"{count} checks on {len(names)} backends in {seconds:.1f} s, {len(failures)} failed")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0
