# SPDX-License-Identifier: MIT
"""The pool of threads: at work, at rest, across fork, at exit. Then what belongs to process, context and caller."""

import asyncio
import ctypes
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import reparam as rp
from reparam import _core, _dispatch
from reparam._settings import current_backend, get_num_threads
from support import OPS, forward, same_bits, sample_cotangents, sample_inputs, vjp

ISA = _core.default_isa()
DEFAULT = current_backend()
PROLOGUE = """
import os, signal, sys, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import reparam as rp
from reparam import _core


def use_pool():  # 2 ms of work, enough for threads
    return rp.cholesky_ex(a)


def right():
    return all((x == y).all() for x, y in zip(use_pool(), expected))


def call_for_seconds():
    x = np.broadcast_to(np.zeros(64), (len(log_prob), 64))
    rp.normal_tril_log_prob(x, x[0], np.eye(64), out=log_prob)


a = np.eye(8) * (2 + 1e-3 * np.arange(4000)[:, None, None]) + 0.5
a[::2] *= 2.0**-1060  # subnormal
log_prob = np.ones(4_000_000)
rp.set_num_threads(1)
expected = use_pool()
rp.set_num_threads(3)
"""


def run(source, *arguments, expect=0, **environment):
    """A program or file in a process of its own ends in time, with the expected code, and says nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *(["-c"] if "\n" in source else []), source, *arguments],
        env={
            **os.environ,
            "REPARAM_BACKEND": "native",
            "OPENBLAS_NUM_THREADS": "1",  # no threads but ours
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (expect, ""), f"exit code {done.returncode}\n{done.stderr}"
    return done.stdout.strip()


def run_with_pool(program, *arguments, expect=0):
    return run(PROLOGUE + textwrap.dedent(program), *arguments, expect=expect)


# ---- at work and at rest


def test_a_large_call_is_shared_and_a_tiny_one_is_not():
    run_with_pool("""
        rp.cholesky_ex(a[:4])
        assert _core.thread_stats() == {"workers": 0, "jobs": 0, "max_threads_seen": 0}
        calls = 0
        while _core.thread_stats()["max_threads_seen"] < 2 and calls < 1000:  # till a worker comes in time for a chunk
            assert right()
            calls += 1
        assert _core.thread_stats()["max_threads_seen"] >= 2
        assert _core.thread_stats()["jobs"] == calls
        assert _core.thread_stats()["workers"] == 2
    """)


def test_with_one_thread_no_call_is_shared():
    before = _core.thread_stats()
    rp.set_num_threads(1)
    rp.cholesky_ex(np.broadcast_to(np.eye(8), (4000, 8, 8)))
    assert _core.thread_stats() == before


def test_parked_workers_use_no_cpu():
    run_with_pool("""
        use_pool()
        assert _core.thread_stats()["workers"] == 2
        begin = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - begin < 0.01
    """)


def test_many_callers_at_once_get_the_right_bits():
    stacks = [np.eye(8) * (2 + 1e-3 * np.arange(n)[:, None, None]) + 0.5 for n in (3, 700, 4000, 4001)]
    rp.set_num_threads(1)
    expected = [rp.cholesky_ex(a) for a in stacks]
    rp.set_num_threads(3)
    jobs = _core.thread_stats()["jobs"]

    def call_often(caller):
        for k in range(caller, caller + 20):
            same_bits(rp.cholesky_ex(stacks[k % 4]), expected[k % 4])

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(call_often, range(8)))
    assert _core.thread_stats()["jobs"] > jobs


def test_a_process_that_may_have_no_more_threads_computes_on_those_it_has():
    run_with_pool("""
        import resource

        result = np.empty_like(a), np.empty(len(a), np.int32)
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + 2**20  # no room for the stack of a thread
        usual = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit, usual[1]))
        rp.cholesky_ex(a, out=result)
        resource.setrlimit(resource.RLIMIT_AS, usual)
        assert _core.thread_stats()["workers"] == 0
        assert all((x == y).all() for x, y in zip(result, expected))
    """)


def test_workers_take_no_signal_from_the_program():
    """One that the program waits for stays pending; a worker that took it would end the process."""
    run_with_pool("""
        use_pool()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.sigtimedwait({signal.SIGUSR1}, 5).si_signo == signal.SIGUSR1
    """)


def test_an_interrupt_ends_a_call_between_chunks():
    run_with_pool("""
        def interrupt():
            while log_prob[0] == 1:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            call_for_seconds()
            raise SystemExit("nothing was raised")
        except KeyboardInterrupt:
            pass
        assert log_prob[0] != 1  # it had begun
        assert log_prob[-1] == 1  # and did not finish
        assert right()
    """)


def test_an_interrupt_ends_a_call_on_one_thread_between_large_events():
    """A chunk is what takes a millisecond, not a number of events: here one pack."""
    run_with_pool("""
        rp.set_num_threads(1)
        a = np.broadcast_to(2 * np.eye(384, dtype=np.float32), (160, 384, 384))
        out = np.ones(a.shape, np.float32)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            rp.cholesky(a, out=out)
            raise SystemExit("nothing was raised")
        except KeyboardInterrupt:
            pass
        assert out[0, 0, 0] != 1  # it had begun
        assert out[-1, 0, 0] == 1  # and did not finish
    """)


def test_a_signal_handler_may_call_ops_in_the_middle_of_a_call():
    run_with_pool("""
        seen = []

        def handler(*_):
            seen.append(log_prob[-1] == 1 and right())

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        call_for_seconds()
        assert seen == [True]
        assert (log_prob == log_prob[0]).all() and log_prob[0] < 0
    """)


def test_an_error_of_a_signal_handler_ends_the_call_and_passes_through():
    run_with_pool("""
        def handler(*_):
            raise LookupError("mine")

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            call_for_seconds()
            raise SystemExit("nothing was raised")
        except LookupError as error:
            assert str(error) == "mine"
        assert log_prob[-1] == 1
        assert right()
    """)


# ---- fork

FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, of any process with threads
forked = threading.Event()


def fork_and_compute():
    child = os.fork()
    if child == 0:
        fresh = _core.thread_stats() == {"workers": 0, "jobs": 0, "max_threads_seen": 0}
        os._exit(0 if fresh and right() and _core.thread_stats()["workers"] == 2 else 1)
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise TimeoutError("the child hangs")


def use_pool_and_fork():
    try:
        for _ in range(20):
            assert right()
            fork_and_compute()
    finally:
        forked.set()


def work_until_forked():
    while not forked.is_set():
        assert right()


fork_and_compute()  # before the first use
"""
FORKS = {
    "from the main thread": "use_pool_and_fork()",
    "from another thread": """
        with ThreadPoolExecutor(1) as thread:
            thread.submit(use_pool_and_fork).result()
    """,
    "while another thread is in a large job": """
        with ThreadPoolExecutor(1) as thread:
            working = thread.submit(work_until_forked)
            use_pool_and_fork()
            working.result()
    """,
}


@pytest.mark.parametrize("how", FORKS)
def test_a_forked_child_computes_and_exits(how):
    run_with_pool(FORK + textwrap.dedent(FORKS[how]))


def test_a_fork_in_a_signal_handler_leaves_a_child_that_says_so_and_computes():
    """The chunks of the parent's workers are lost to it."""
    run_with_pool("""
        warnings.simplefilter("ignore", DeprecationWarning)
        children = []
        parent = os.getpid()
        signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            call_for_seconds()
        except RuntimeError as error:
            os._exit(0 if os.getpid() != parent and "forked" in str(error) and right() else 1)
        assert os.getpid() == parent and (log_prob == log_prob[0]).all()
        assert os.waitpid(children[0], 0)[1] == 0
    """)


def test_an_interrupt_is_heard_in_a_child_that_another_thread_forked():
    run_with_pool("""
        warnings.simplefilter("ignore", DeprecationWarning)

        def fork_and_interrupt():
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
                return
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                call_for_seconds()
                os._exit(1)
            except KeyboardInterrupt:
                os._exit(0 if log_prob[-1] == 1 else 2)

        with ThreadPoolExecutor(1) as thread:
            thread.submit(fork_and_interrupt).result()
    """)


MULTIPROCESSING = """
import multiprocessing


def work(k):
    return right() and _core.thread_stats()["workers"] == 2


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    assert right()
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        assert pool.map(work, range(8), chunksize=1) == [True] * 8
    assert right()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROLOGUE + MULTIPROCESSING)
    run(str(file), method)


# ---- exit

DAEMONS = """
def forever():
    while True:
        {call}


use_pool()
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
"""
EXITS = {
    "without use": ("", 0),
    "after use": ("use_pool()", 0),
    "after use in another thread": ("with ThreadPoolExecutor(1) as thread: thread.submit(use_pool)", 0),
    "sys.exit": ("use_pool()\nsys.exit(2)", 2),
    "sys.exit in a thread": ("t = threading.Thread(target=lambda: (use_pool(), sys.exit(3)))\nt.start()\nt.join()", 0),
    "os._exit": ("use_pool()\nos._exit(4)", 4),
    "daemons in tiny calls": (DAEMONS.format(call="rp.cholesky_ex(a[:3])"), 0),
    "daemons in large calls": (DAEMONS.format(call="use_pool()"), 0),
    "daemons in calls of seconds": (DAEMONS.format(call="call_for_seconds()"), 0),
    "sys.exit, daemons in large calls": (DAEMONS.format(call="use_pool()") + "sys.exit(5)", 5),
    "os._exit, daemons in large calls": (DAEMONS.format(call="use_pool()") + "os._exit(6)", 6),
}


@pytest.mark.parametrize("how", EXITS)
def test_the_process_exits_cleanly(how):
    program, code = EXITS[how]
    for _ in range(2 if "daemons" in how else 1):
        run_with_pool(program, expect=code)


# ---- what belongs to the process


@pytest.mark.parametrize("n", [1, 2, 1024])
def test_none_goes_back_to_the_default_number_of_threads(n):
    default = get_num_threads()
    rp.set_num_threads(n)
    assert get_num_threads() == n
    rp.set_num_threads(None)
    assert get_num_threads() == default


@pytest.mark.parametrize("n", [0, -1, 1025, 2.5, 2.0, True, "2"])
def test_a_wrong_number_of_threads_is_refused_and_changes_nothing(n):
    rp.set_num_threads(5)
    with pytest.raises((TypeError, ValueError), match=rf"^set_num_threads: n must be .*in \[1, 1025\), got {n!r}$"):
        rp.set_num_threads(n)
    assert get_num_threads() == 5


REPORT = """
import numpy as np
import reparam as rp
from reparam._settings import current_backend, get_num_threads

try:
    rp.cholesky(np.eye(2))
    print(current_backend(), get_num_threads())
except ValueError as error:
    print(error)
"""
THREADS_ERROR = "REPARAM_NUM_THREADS must be an integer in [1, 1025), got "
BACKEND_ERROR = f"REPARAM_BACKEND must be one of {', '.join(rp.backends())}, got "
ISA_ERROR = f"REPARAM_ISA must be one of {', '.join(_core.isas())}, got "


@pytest.mark.parametrize(("backend", "isa", "num_threads", "expected"), [
    ("native", "", "5", f"native:{ISA} 5"),
    ("", "", "1024", f"native:{ISA} 1024"),
    ("", "scalar", "1", "native:scalar 1"),
    ("native", "scalar", "1", "native:scalar 1"),
    ("native:scalar", ISA, "1", "native:scalar 1"),
    ("reference", "scalar", "1", "reference 1"),
    ("cuda", "", "1", BACKEND_ERROR + "'cuda'"),
    ("Native", "", "1", BACKEND_ERROR + "'Native'"),
    ("native:sse2", "", "1", BACKEND_ERROR + "'native:sse2'"),
    ("", "sse2", "1", ISA_ERROR + "'sse2'"),
    ("", "", "0", THREADS_ERROR + "'0'"),
    ("", "", "-2", THREADS_ERROR + "'-2'"),
    ("", "", "2.5", THREADS_ERROR + "'2.5'"),
    ("", "", "many", THREADS_ERROR + "'many'"),
    ("", "", "1025", THREADS_ERROR + "'1025'"),
])  # fmt: skip
def test_environment_variables_choose_or_are_refused_with_the_choices(backend, isa, num_threads, expected):
    assert run(REPORT, REPARAM_BACKEND=backend, REPARAM_ISA=isa, REPARAM_NUM_THREADS=num_threads) == expected


def test_by_default_threads_are_the_cpus_that_the_process_may_use():
    one_cpu = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    assert run(one_cpu + REPORT, REPARAM_BACKEND="", REPARAM_ISA="", REPARAM_NUM_THREADS="") == f"native:{ISA} 1"


# ---- what belongs to the context


def ran_on(call):
    """The backend that a call ran on, by the counter of the dispatch."""
    before = _dispatch.counts.copy()
    call()
    (name,) = _dispatch.counts - before
    return name


@pytest.mark.parametrize("name", rp.backends())
def test_a_backend_runs_the_calls_of_its_block(name):
    with rp.backend(name):
        assert current_backend().startswith(name)
        assert ran_on(lambda: rp.cholesky(np.eye(2))) == current_backend()
    assert current_backend() == DEFAULT


def test_backends_nest_and_come_back_after_an_error():
    def fail():
        with rp.backend("reference"):
            assert current_backend() == "reference"
            raise KeyError

    with rp.backend("native:scalar"):
        with pytest.raises(KeyError):
            fail()
        assert current_backend() == "native:scalar"
        with rp.backend("reference"), rp.backend(f"native:{ISA}"):
            assert current_backend() == f"native:{ISA}"
        assert current_backend() == "native:scalar"


@pytest.mark.parametrize("name", ["cuda", "Reference", "native:sse2", "", None, 3])
def test_an_unknown_backend_is_refused_with_the_list_and_changes_nothing(name):
    with rp.backend("reference"):
        with pytest.raises(ValueError, match=rf"^backend must be one of {', '.join(rp.backends())}, got {name!r}$"):
            rp.backend(name).__enter__()
        assert current_backend() == "reference"


def test_a_backend_is_not_seen_by_another_thread():
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(current_backend).result() == DEFAULT
        with rp.backend("reference"):
            assert thread.submit(current_backend).result() == DEFAULT
            assert current_backend() == "reference"


def test_a_backend_is_not_seen_by_another_task():
    async def task(name, barrier):
        with rp.backend(name):
            await barrier.wait()  # both are inside
            assert current_backend() == name
            await barrier.wait()
        assert current_backend() == DEFAULT

    async def both():
        barrier = asyncio.Barrier(2)
        await asyncio.gather(task("reference", barrier), task("native:scalar", barrier))

    asyncio.run(both())


# ---- what belongs to the caller: the floating-point environment

FLOAT_ENVIRONMENT = """
#ifdef __x86_64__
#include <immintrin.h>
unsigned long get(void) { return _mm_getcsr() & ~0x3ful; }  // without the flags of what has happened
void set(unsigned long word) { _mm_setcsr((unsigned)word); }
const unsigned long standard = 0x1f80, up = 0x5f80, down = 0x3f80, to_zero = 0x7f80, flush = 0x9fc0;
#else
unsigned long get(void) { unsigned long word; __asm__ volatile("mrs %0, fpcr" : "=r"(word)); return word; }
void set(unsigned long word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
const unsigned long standard = 0, up = 1ul << 22, down = 2ul << 22, to_zero = 3ul << 22, flush = 1ul << 24;
#endif
"""
MODES = ["up", "down", "to_zero", "flush"]


@pytest.fixture(scope="session")
def library_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("float_environment")
    (folder / "source.c").write_text(FLOAT_ENVIRONMENT)
    subprocess.run(["gcc", "-shared", "-fPIC", folder / "source.c", "-o", folder / "library.so"], check=True)
    return str(folder / "library.so")


def witness():
    """Numbers of which some rounding mode changes each."""
    tiny = np.finfo(np.float64).smallest_normal
    return [x / y for x, y in zip(np.array([1, -1, 1, tiny]), np.array([3, 3, 10, 2]), strict=True)]


@pytest.fixture(params=MODES)
def under_another_mode(request, library_file):
    """Runs a function in another rounding mode, or with subnormals flushed to zero, which it must leave as it was."""
    library = ctypes.CDLL(library_file)
    library.get.restype, library.set.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    word, standard = (ctypes.c_ulong.in_dll(library, name).value for name in (request.param, "standard"))

    def call(function):
        usual = witness()
        library.set(word)
        unusual, result, word_after = witness(), function(), library.get()
        library.set(standard)
        assert unusual != usual
        assert word_after == word
        return result

    yield call
    library.set(standard)


@pytest.mark.parametrize("op", [op for op in OPS if all(o.item == "real" for o in op.inputs)], ids=lambda op: op.name)
def test_the_callers_float_environment_has_no_effect_and_stays(op, under_another_mode, rng, dtype):
    """Inputs of the first events are so small that their results would be flushed."""
    inputs, cotangents = sample_inputs(op, rng, (34,), 5, dtype), sample_cotangents(op, rng, (34,), 5, dtype)
    for operand, x in zip(op.inputs, inputs, strict=True):
        if operand.kind in {"scalar", "vector"} and "scale" not in operand.name:
            x[:17] *= np.finfo(dtype).smallest_normal

    def both_passes():
        return [*forward(op, inputs), *(vjp(op, inputs, cotangents) if op.vjp is not None else ())]

    expected = both_passes()
    same_bits(under_another_mode(both_passes), expected)


def test_noise_and_sums_do_not_depend_on_the_callers_float_environment(under_another_mode, dtype):
    draw, cotangent = rp.random.Draw(5, np.arange(700)), np.full(700, 0.1, dtype)
    loc, scale_tril = np.linspace(-1, 1, 3, dtype=dtype), np.eye(3, dtype=dtype) / 3

    def noise_and_sums():
        value = rp.normal_tril_transform(draw, loc, scale_tril)
        cotangents = rp.normal_tril_log_prob.vjp(value, loc, scale_tril, cotangent)
        return rp.random.normal((67,), key=5, dtype=dtype), value, *cotangents

    expected = noise_and_sums()
    same_bits(under_another_mode(noise_and_sums), expected)


@pytest.mark.parametrize("mode", MODES)
def test_workers_started_in_another_mode_compute_in_the_standard_one(mode, library_file):
    run_with_pool(
        """
        import ctypes

        library = ctypes.CDLL(sys.argv[1])
        library.set.argtypes = [ctypes.c_ulong]
        word, standard = (ctypes.c_ulong.in_dll(library, name).value for name in (sys.argv[2], "standard"))
        library.set(word)
        results = [use_pool() for _ in range(50)]
        library.set(standard)
        assert _core.thread_stats()["workers"] == 2
        assert all((x == y).all() for result in results for x, y in zip(result, expected))
        """,
        library_file,
        mode,
    )
