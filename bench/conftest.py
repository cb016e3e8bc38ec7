# SPDX-License-Identifier: MIT
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import reparam as rp
import rivals


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def torch_threads(request):
    """Runs a torch rival at the number of threads that the test asks for."""
    if rivals.torch is None:
        pytest.skip("torch is not installed")
    before = rivals.torch.get_num_threads()
    rivals.torch.set_num_threads(request.param)
    yield request.param
    rivals.torch.set_num_threads(before)


@pytest.fixture
def our_threads(request):
    rp.set_num_threads(request.param)
    yield request.param
    rp.set_num_threads(None)


def pytest_report_header():
    torch = "none" if rivals.torch is None else rivals.torch.__version__
    return f"numpy {np.__version__}, torch {torch}, threads {rivals.ALL_THREADS}, backends {rp.backends()}"
