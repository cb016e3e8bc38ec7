# SPDX-License-Identifier: MIT
"""Threads and processes of torch: its number of threads, workers that are forked, processes that are spawned."""

import subprocess
import sys
import threading

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


# A program of its own: this process may hold the threads of other frameworks, which no fork survives.
PROGRAM = """
import sys
import numpy as np
import torch
import reparam.torch as rt
from reparam._settings import get_num_threads

def density_and_gradients(seed):
    rng = np.random.default_rng(seed)
    factor = np.tril(0.1 * rng.standard_normal((20000, 8, 8))) + np.eye(8)
    given = [torch.from_numpy(x).requires_grad_() for x in (*rng.standard_normal((2, 20000, 8)), factor)]
    made = rt.normal_tril_log_prob(*given)
    return [x.detach().numpy() for x in (made, *torch.autograd.grad(made.sum(), given))]

def same(made, expected):
    return all((x.view("u8") == y.view("u8")).all() for x, y in zip(made, expected, strict=True))

class Densities(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        return [torch.from_numpy(x) for x in density_and_gradients(k)], get_num_threads()

def run(queue):
    queue.put(density_and_gradients(7))

def in_a_process(method):
    context = torch.multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=run, args=(queue,))
    process.start()
    made = queue.get()
    process.join()
    assert process.exitcode == 0
    assert same(made, density_and_gradients(7))

def in_workers_of_a_loader(method):
    loader = torch.utils.data.DataLoader(
        Densities(), batch_size=None, num_workers=2, multiprocessing_context=method, timeout=120
    )
    for k, (made, threads) in enumerate(loader):
        assert same([x.numpy() for x in made], density_and_gradients(k))
        assert threads == 1  # torch gives a worker one thread

if __name__ == "__main__":
    density_and_gradients(0)  # the pool of threads is there
    globals()[sys.argv[1]](sys.argv[2])
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("how", ["in_a_process", "in_workers_of_a_loader"])
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_processes_after_use_in_the_parent(how, method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, how, method]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
