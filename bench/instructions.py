# SPDX-License-Identifier: MIT
"""Instructions of an event, which repeat where times do not: ``python -m reparam._bench.instructions``.

Each piece of work runs once in a process of its own, under callgrind, which counts inside the kernels alone. They are
those of AVX2, since valgrind knows no AVX-512.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

import reparam as rp

from .row import covariances, factors

ISA = "native:avx2"
EVENTS = 4096
TOTAL = re.compile(r"Collected : (\d+)")


def _cholesky(d: int) -> Callable[[], Any]:
    a = covariances(np.random.default_rng(0), EVENTS, d, "float32")
    return lambda: rp.cholesky_ex(a)


def _log_prob(d: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    value, loc = rng.standard_normal((2, EVENTS, d), dtype="float32")
    operands = (value, loc, factors(rng, EVENTS, d, "float32"), np.ones(EVENTS, "float32"))
    return lambda: rp.normal_tril_log_prob.value_and_vjp(*operands)


def _elbo(d: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    loc, x = rng.standard_normal((EVENTS, d), dtype="float32"), rng.standard_normal((EVENTS, 32), dtype="float32")
    q = rp.MultivariateNormal(loc, scale_tril=factors(rng, EVENTS, d, "float32"))
    target = rp.targets.LinearGaussian(x, rng.standard_normal((32, d), dtype="float32"), x[0], noise_scale=0.5)
    return lambda: rp.elbo(q, target, key=1, num_samples=8)


def _normals(d: int) -> Callable[[], Any]:
    return lambda: rp.random.normal((EVENTS, d), key=1)


WORK = {
    "cholesky": (_cholesky, (4, 8, 16, 32)),
    "log_prob with its gradient": (_log_prob, (8, 16, 32)),
    "elbo of a linear Gaussian, 8 draws, 32 observations": (_elbo, (8, 16)),
    "normals": (_normals, (16,)),
}
PIECES = [(name, make, d) for name, (make, sizes) in WORK.items() for d in sizes]


def main() -> int:
    """Print a line for each piece of work."""
    if shutil.which("valgrind") is None or ISA not in rp.backends():
        print(f"needs valgrind and {ISA}", file=sys.stderr)
        return 2
    for k, (name, _, d) in enumerate(PIECES):
        print(f"{name}, float32, d = {d}: {_count(k) / EVENTS:.0f} instructions an event", flush=True)
    return 0


def _count(piece: int) -> int:
    """Instructions of the kernels in a process that runs one piece."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        command = [
            "valgrind",
            "--tool=callgrind",
            "--toggle-collect=*run_kernel*",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-m",
            __spec__.name,
        ]
        done = subprocess.run([*command, str(piece)], env=environment, capture_output=True, text=True, check=False)
        found = TOTAL.search(done.stderr)
        if done.returncode or found is None:
            raise RuntimeError(f"valgrind failed: {done.stderr[-2000:]}")
        return int(found[1])


def _run(piece: int) -> None:
    rp.set_num_threads(1)
    _, make, d = PIECES[piece]
    with rp.backend(ISA):
        make(d)()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _run(int(sys.argv[1]))
    else:
        sys.exit(main())
