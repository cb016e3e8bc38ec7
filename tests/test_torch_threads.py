# SPDX-License-Identifier: MIT
"""Threads and processes of torch: its number of threads, workers that are forked, processes that are spawned."""

import sys
import threading
import warnings

import numpy as np
import pytest

import reparam as rp
import support
from reparam._settings import get_num_threads

torch = pytest.importorskip("torch", reason="needs torch")
rt = pytest.importorskip("reparam.torch", reason="needs torch")

BATCH, D = 20000, 8  # so large that threads share it


def problem(seed):
    rng = np.random.default_rng(seed)
    arrays = [*rng.standard_normal((2, BATCH, D)), support.factor(rng, (BATCH,), D)]
    return [torch.from_numpy(x).requires_grad_() for x in arrays]


def density_and_gradients(seed):
    """What every process must come to."""
    given = problem(seed)
    made = rt.normal_tril_log_prob(*given)
    return [made.detach(), *torch.autograd.grad(made.sum(), given)]


def assert_same(made, expected):
    for x, y in zip(made, expected, strict=True):
        assert torch.equal(x, y)


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_no_more_threads_than_torch_has(torch_threads, monkeypatch):
    monkeypatch.delenv("REPARAM_NUM_THREADS", raising=False)
    monkeypatch.setattr("reparam._settings._usable_cpus", lambda: 8)
    rp.set_num_threads(None)
    torch_threads(3)
    assert get_num_threads() == 3
    torch_threads(1)
    assert get_num_threads() == 1
    torch_threads(16)
    assert get_num_threads() == 8
    rp.set_num_threads(5)  # who says how many gets them
    torch_threads(1)
    assert get_num_threads() == 5


def test_results_do_not_depend_on_the_threads(torch_threads):
    expected = density_and_gradients(0)
    for n in (1, 2, 3):
        torch_threads(n)
        assert_same(density_and_gradients(0), expected)


def test_threads_of_the_caller_may_call_at_once():
    expected = [density_and_gradients(seed) for seed in range(4)]
    found = [None] * 4

    def run(seed):
        found[seed] = density_and_gradients(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for made, wanted in zip(found, expected, strict=True):
        assert_same(made, wanted)


class Densities(torch.utils.data.Dataset):
    """Item k is worked out in a worker."""

    def __len__(self):
        return 4

    def __getitem__(self, k):
        made = density_and_gradients(k)
        return [*made, torch.tensor(get_num_threads())]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader_after_use_in_the_parent(method):
    expected = [density_and_gradients(k) for k in range(4)]  # the pool of threads is there
    loader = torch.utils.data.DataLoader(
        Densities(), batch_size=None, num_workers=2, multiprocessing_context=method, timeout=120
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # of fork
        found = list(loader)
    for made, wanted in zip(found, expected, strict=True):
        assert_same(made[:-1], wanted)
        assert made[-1] == 1  # torch gives a worker one thread


def run_in_a_process(queue):
    queue.put([x.numpy() for x in density_and_gradients(7)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_process_after_use_in_the_parent(method):
    expected = density_and_gradients(7)
    context = torch.multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=run_in_a_process, args=(queue,))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    made = queue.get()
    process.join()
    assert process.exitcode == 0
    support.same_bits(made, [x.numpy() for x in expected])
