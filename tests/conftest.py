# SPDX-License-Identifier: MIT
"""Axes of the tests as fixtures: backend, element type; and a header that says what was tested."""

import os
import platform
import signal
import sys
from pathlib import Path

# Products of these nets are too small to share: beside a busy neighbour, two OpenBLAS threads take 100 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import reparam as rp
import support
from reparam import _core
from reparam._backends import cuda

# A shell starts its background jobs with Ctrl-C ignored, and what is ignored here stays so in every process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    gpu = cuda.describe()
    return [
        f"reparam {rp.__version__}: ISAs {', '.join(_core.isas())} (default {_core.default_isa()}), {_core.compiler}",
        f"numpy {np.__version__}, {platform.platform()}, {len(os.sched_getaffinity(0))} CPUs",
        f"GPU: {gpu.get('devices', gpu['kernels'])}",
    ]


# These run on every backend; what stands on the ops runs wherever they do, and is tested on two.
OP_TESTS = {
    "test_accuracy", "test_calls", "test_estimators", "test_failures", "test_golden", "test_invariance", "test_kl",
    "test_ops", "test_random", "test_vector",
}  # fmt: skip


def pytest_generate_tests(metafunc):
    named = any("backend" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not named:
        of_ops = metafunc.module.__name__.rpartition(".")[2] in OP_TESTS
        axis = support.backend_axis() if of_ops else support.short_backend_axis()
        metafunc.parametrize("backend", axis, indirect=True)


@pytest.fixture
def backend(request):
    """Runs the test on one backend, and fails it if any op of it ran elsewhere."""
    with rp.backend(request.param), support.only_ran_on(request.param):
        yield request.param


@pytest.fixture(params=support.DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    rp.set_num_threads(None)
