# SPDX-License-Identifier: MIT
"""``reparam selftest``: numbers worked out beforehand, against every backend and instruction set of this machine."""

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reparam as rp

__all__ = ["GOLDEN", "run"]

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
    (0, 0, 0), (0, 0, 4), (0, 0, 4 << 32), (0, 0, 4 * 0xFFFFFFFF), (0, 1, 0), (0, 1 << 32, 0), (1, 0, 0), (1 << 32, 0, 0),
]  # fmt: skip

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
    target = rp.targets.LinearGaussian(
        np.array(X, real), np.array(WEIGHT, real), np.array(BIAS, real), NOISE_SCALE
    )
    return np.asarray(rp.elbo(q, target, key=0, num_samples=4).log_weights)


#: Float checks by name: a function of the element type.
CHECKS: dict[str, Callable[[type], Any]] = {
    "Cholesky factor": _scale_tril,
    "Cholesky vjp": lambda real: rp.cholesky.vjp(_scale_tril(real), np.array(CT_SCALE_TRIL, real)),
    "log density": lambda real: rp.normal_tril_log_prob(
        np.array(VALUE, real), np.array(LOC, real), _scale_tril(real)
    ),
    "entropy": lambda real: rp.normal_tril_entropy(_scale_tril(real)),
    "KL to N(0, I)": lambda real: rp.normal_tril_kl_standard(np.array(LOC, real), _scale_tril(real)),
    "ELBO at the posterior": _elbo_at_posterior,
}
LIMITS = {np.float32: 4e-6, np.float64: 1e-13}


def _words() -> Array:
    return np.stack(
        [rp.random.bits(4, key=key, stream=stream, offset=offset) for key, stream, offset in BLOCKS]
    )


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
    backend: str
    reason: str


def _compare(
    check: str, backend: str, compute: Callable[[], Any], expected: Any, limit: float
) -> list[Failure]:
    try:
        reason = _difference(compute(), expected, limit)
    except Exception as error:
        reason = traceback.format_exception_only(error)[-1].strip()
    return [] if reason is None else [Failure(check, backend, reason)]


def _check_backend(backend: str) -> list[Failure]:
    failures: list[Failure] = []
    for check, function in CHECKS.items():
        for real, limit in LIMITS.items():
            found = _compare(check, backend, lambda f=function, r=real: f(r), np.array(GOLDEN[check]), limit)  # type: ignore[misc]
            failures += [Failure(f"{f.check}, {real.__name__}", f.backend, f.reason) for f in found]
    failures += _compare("Philox words", backend, _words, np.array(GOLDEN["Philox words"], np.uint32), 0)
    for real in LIMITS:
        check = f"noise, {real.__name__}"
        expected = np.array([float.fromhex(h) for h in GOLDEN[check]], real)
        failures += _compare(check, backend, lambda r=real: rp.random.normal(4, key=5, dtype=r), expected, 0)  # type: ignore[misc]
    return failures


def run() -> int:
    """Compare every golden number on every backend and print a table.

    Returns
    -------
    int
        0 if all agree, else 1; then every number that differs is named.
    """
    begin = time.perf_counter()
    names = [name for name in rp.backends() if name != "native"]  # `native` is one of the `native:<isa>`
    failures: list[Failure] = []
    for name in names:
        with rp.backend(name):
            failures += _check_backend(name)
    width = max(len(check) for check in GOLDEN) + 2
    print("".ljust(width) + "  ".join(names))
    for check in GOLDEN:
        row = []
        for name in names:
            wrong = any(f.backend == name and f.check.startswith(check) for f in failures)
            row.append(("FAILED" if wrong else "ok").ljust(len(name)))
        print(check.ljust(width) + "  ".join(row).rstrip())
    for f in failures:
        print(f"FAILED: {f.check} on {f.backend}: {f.reason}", file=sys.stderr)
    seconds = time.perf_counter() - begin
    if "reference" in names and len(names) == 1:
        print("no compiled kernels here: only the reference backend was checked")
    print(f"{len(GOLDEN)} checks on {len(names)} backends in {seconds:.1f} s: {len(failures)} differences")
    return 1 if failures else 0
