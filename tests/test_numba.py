# SPDX-License-Identifier: MIT
"""The Numba backend beside its answers: what is compiled, when, how often, and from which file of its cache."""

import itertools
import os
import shutil
import subprocess
import sys
import textwrap
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

import reparam as rp
from reparam._backends import numba as backend
from support import forward, same_bits, sample_cotangents, sample_inputs, vjp

pytest.importorskip("numba", reason="needs numba")

PACKAGE = Path(rp.__file__).parent
PROLOGUE = """
import os, signal, sys, threading, time
import numpy as np
import reparam as rp


def entropies():
    return rp.normal_tril_entropy(np.broadcast_to(2 * np.eye(2), (3, 2, 2)))


right = np.full(3, 2 * np.log(2) + 1 + np.log(2 * np.pi))
"""


def run(program, cache, **environment):
    """A program in a process of its own ends in time and well; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROLOGUE + textwrap.dedent(program)],
        env={**os.environ, "REPARAM_BACKEND": "numba", "NUMBA_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"exit code {done.returncode}\n{done.stderr}"
    return done.stdout


# ---- answers


@pytest.mark.parametrize("d", [1, 2, 3, 4, 8, 16, 32])
@pytest.mark.parametrize("batch", [1, 63, 64, 65, 200])
def test_the_lane_loop_has_the_bits_of_the_definition(d, batch, dtype, rng):
    p, real = rp.OPS["cholesky_ex"].forward_pass, np.dtype(dtype)
    (a,) = sample_inputs(rp.OPS["cholesky_ex"], rng, (batch,), d, dtype)
    a[::7, d // 2, d // 2] = -1
    a[3::7, d - 1, 0] = np.nan
    a[5::7, 0, 0] = np.inf
    results = []
    for make in (backend._lane_loop, backend._gufunc):
        scale_tril, info = np.zeros_like(a), np.empty(batch, np.int32)
        with np.errstate(all="ignore"):
            backend._kernel(p, real, make)(a, scale_tril, info)
        results.append((scale_tril, info))
    assert (results[0][1] != 0).any()
    same_bits(*results)


@pytest.mark.parametrize("d", [4, 16, 40])
def test_the_lane_loop_runs_where_it_is_the_faster_one(d, monkeypatch):
    made = []
    monkeypatch.setattr(backend, "_kernel", lambda p, real, make: made.append(make) or (lambda *_: None))
    with rp.backend("numba"):
        rp.cholesky_ex(np.eye(d))
    assert made == [backend._lane_loop if d == 16 else backend._gufunc]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 257])
def test_noise_has_the_bits_of_the_other_backends(n, dtype):
    index, key = np.array([0, 7, 2**63]), {"key_low": 2**32 - 1, "key_high": 5}
    made = {}
    for name in ("reference", "native", "numba"):
        with rp.backend(name):
            normals = rp.OPS["normal"](index.astype(np.uint64), np.uint64(2**34), n=n, dtype=dtype, **key)
            made[name] = normals, rp.random.bits(n, key=2**64 - 1, stream=3, offset=5)
    same_bits(made["numba"], made["reference"])
    same_bits(made["numba"], made["native"])


@pytest.mark.parametrize("name", ["cholesky_ex", "normal_tril_log_prob", "adam_step", "tril_from_vector", "normal"])
def test_a_large_batch_in_pieces_has_the_bits_of_the_whole(name, rng, monkeypatch):
    op = rp.OPS[name]
    inputs = sample_inputs(op, rng, (3, 2, 5), 3)
    if not op.forward_pass.in_place and len(inputs) > 1:
        inputs[0], inputs[-1] = inputs[0][:1], inputs[-1][0]
    attributes = {"n": 6} if name == "normal" else {}

    def results():
        found = forward(op, inputs, **attributes)
        cotangents = sample_cotangents(op, np.random.default_rng(0), (3, 2, 5), 3)
        return (*found, *(vjp(op, inputs, cotangents) if op.vjp and len(inputs) > 1 else ()))

    with rp.backend("numba"):
        whole = results()
        for events in (1, 2, 5, 7):
            monkeypatch.setattr(backend, "_most_events", lambda *_, events=events: events)
            same_bits(results(), whole)


@pytest.mark.parametrize("events", [1, 64, 65, 200, 10**6])
@pytest.mark.parametrize("batch", [(700,), (3, 130), (130, 3), (5, 70, 4), (0, 3)])
def test_sums_of_pieces_have_the_bits_of_the_definition(batch, events, dtype, rng, monkeypatch):
    """Of inputs that lack dims of their own, in whole blocks or not, in the order of the batch or not."""
    monkeypatch.setattr(backend, "_most_events", lambda *_: events)
    op = rp.normal_tril_log_prob
    inputs, cotangents = sample_inputs(op, rng, batch, 3, dtype), sample_cotangents(op, rng, batch, 3, dtype)
    shapes = list(itertools.product(*((1, n) for n in batch)))
    for of_loc, of_scale in itertools.product(shapes, shapes):
        loc, scale_tril = sample_inputs(op, rng, of_loc, 3, dtype)[1], sample_inputs(op, rng, of_scale, 3, dtype)[2]
        results = []
        for name in ("numba", "reference"):
            with rp.backend(name):
                results.append(op.vjp(inputs[0], loc, scale_tril, *cotangents))
        same_bits(*results)


@pytest.mark.parametrize("own", [(), (2,)])
def test_a_sum_over_the_batch_does_not_hold_its_terms(own):
    d, batch = 16, (20_000, 2)
    value, scale_tril, ct = np.ones((*batch, d)), np.broadcast_to(np.eye(d), (*own, d, d)), np.ones(batch)
    with rp.backend("numba"):
        rp.normal_tril_log_prob.vjp(value[0], np.zeros(d), scale_tril, ct[0])
        tracemalloc.start()
        ct_value, *_ = rp.normal_tril_log_prob.vjp(value, np.zeros(d), scale_tril, ct)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < ct_value.nbytes + 2**24  # the terms are 82 MB


# ---- when it compiles


def test_importing_the_package_does_not_import_numba(tmp_path):
    run("assert 'numba' in rp.backends() and 'numba' not in sys.modules", tmp_path)


def test_without_compiled_kernels_it_is_the_default(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "reparam", ignore=shutil.ignore_patterns("__pycache__", "_core*.so"))
    program = """
        from reparam._settings import current_backend
        assert current_backend() == "numba" and "numba" not in sys.modules
    """
    run(program, tmp_path, PYTHONPATH=str(tmp_path), REPARAM_BACKEND="")


def test_threads_that_call_first_share_one_compilation(monkeypatch):
    made, gate = [], Barrier(4)
    monkeypatch.setattr(backend, "_kernels", {})
    compile_ = backend._gufunc
    monkeypatch.setattr(backend, "_gufunc", lambda *args, **keywords: made.append(args) or compile_(*args, **keywords))

    def call(_):
        gate.wait()
        with rp.backend("numba"):
            return rp.normal_diag_entropy(np.full((7, 3), 2.0))

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(call, range(4)))
    assert len(made) == 1
    same_bits(results, [results[0]] * 4)


def test_a_second_process_compiles_nothing(tmp_path):
    program = """
        rp.cholesky_ex(np.eye(3))
        assert (entropies() == right).all()
    """
    first, second = (run(program, tmp_path, NUMBA_DEBUG_CACHE="1") for _ in range(2))
    assert "data saved to" in first
    assert "data loaded from" in second
    assert "saved" not in second


def test_a_change_in_the_file_of_a_helper_is_seen(tmp_path):
    """Numba itself looks at the file of the kernel alone."""
    copy = tmp_path / "reparam"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    run("assert (entropies() == right).all()", tmp_path / "cache", PYTHONPATH=str(tmp_path))
    helper = copy / "ops" / "tril.py"
    text = helper.read_text()
    changed = text.replace("select(real_positive(scale), scale, np.nan)", "scale * scale")
    assert changed != text
    helper.write_text(changed)
    program = "assert np.allclose(entropies() - right, 2 * np.log(2))"
    run(program, tmp_path / "cache", PYTHONPATH=str(tmp_path))


def test_a_damaged_cache_is_gone_round(tmp_path):
    program = "assert (entropies() == right).all()"
    run(program, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.nb?")}
    assert files
    for damage in (lambda data: data[: len(data) // 2], lambda _: b"", lambda data: b"x" * len(data)):
        for path, data in files.items():
            path.write_bytes(damage(data))
        run(program, tmp_path)


def test_without_a_place_for_the_cache_each_process_compiles_for_itself(tmp_path):
    file = tmp_path / "file"
    file.touch()
    locators = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    run("assert (entropies() == right).all()", file / "folder", **locators)


# ---- fork, Ctrl-C


def test_a_forked_child_computes_and_compiles(tmp_path):
    """Also one that was forked while another thread compiled: its lock is not held for ever."""
    run(
        """
        import warnings
        from reparam._backends import numba as backend
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of any process with threads
        entropies()
        thread = threading.Thread(target=rp.tril_solve, args=(np.eye(2), np.ones(2)))
        thread.start()
        while backend._lock.acquire(blocking=False):  # till it compiles
            backend._lock.release()
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            good = (entropies() == right).all() and rp.normal_diag_entropy(np.ones(0)) == 0
            os._exit(0 if good else 1)
        for _ in range(6000):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.01)
        thread.join()
        assert done, "the child hangs"
        assert status == 0
        """,
        tmp_path,
    )


def test_an_interrupt_ends_a_call_between_pieces(tmp_path):
    run(
        """
        x, log_prob = np.broadcast_to(np.zeros(64), (1_000_000, 64)), np.ones(1_000_000)
        rp.normal_tril_log_prob(x[:1], x[0], np.eye(64))
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            rp.normal_tril_log_prob(x, x[0], np.eye(64), out=log_prob)
            raise SystemExit("nothing was raised")
        except KeyboardInterrupt:
            pass
        assert log_prob[0] != 1
        assert log_prob[-1] == 1
        """,
        tmp_path,
    )
