# SPDX-License-Identifier: MIT
"""Good manners: what importing and using leave alone, how calls end that cannot go on, and life without kernels."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import reparam as rp

PROLOGUE = """
import os, signal, sys, time, warnings
import numpy as np
import reparam as rp

"""


def run(program, *arguments, **environment):
    """A program in a process of its own ends well and says nothing on stderr; returns what it prints."""
    source = textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source, *arguments],
        env={**os.environ, "REPARAM_BACKEND": "", "REPARAM_ISA": "", "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"exit code {done.returncode}\n{done.stderr}"
    return done.stdout


# ---- what importing and using leave alone


def test_importing_and_using_change_nothing_of_the_process_and_need_numpy_alone():
    run(
        """
        import ctypes, locale, os, random, signal, sys
        import numpy as np

        def float_environment():  # the control words of glibc's fenv_t, without the flags of what has happened
            words = (ctypes.c_uint32 * 8)()
            assert ctypes.CDLL("libm.so.6").fegetenv(words) == 0
            return words[0], words[7] & ~0x3F

        def state():
            handlers = [signal.getsignal(number) for number in signal.valid_signals()]
            with open("/proc/self/status") as file:
                threads_and_signals = [line for line in file if line.startswith(("Sig", "Threads", "Umask"))]
            name, keys, *rest = np.random.get_state()
            numpy_settings = np.geterr(), np.get_printoptions(), name, keys.tolist(), rest
            python_settings = random.getstate(), sys.flags, sys.path[:], sys.getrecursionlimit(), sys.excepthook
            own = dict(os.environ), os.getcwd(), locale.setlocale(locale.LC_ALL), float_environment()
            return own, handlers, threads_and_signals, numpy_settings, python_settings

        def use():
            draw = rp.MultivariateNormal(np.zeros(2), scale_tril=np.eye(2)).rsample((500,), key=1)
            target = rp.targets.LinearGaussian(draw, np.eye(2), bias=np.zeros(2), noise_scale=1.0)
            q = rp.MultivariateNormal(np.zeros((500, 2)), scale_tril=np.broadcast_to(np.eye(2), (500, 2, 2)))
            rp.elbo(q, target, key=2, num_samples=3)
            rp.VAE(1, hidden=(3,), epochs=1).fit(draw).sample(3, key=4)
            rp.cholesky(np.broadcast_to(np.eye(8), (4000, 8, 8)))

        os.environ.clear()  # the parent has imported reparam too, and its settings are inherited
        os.umask(0o22)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.environ["REPARAM_NUM_THREADS"] = "1"  # workers stay
        before, modules = state(), set(sys.modules)
        import reparam as rp
        assert state() == before, "importing"
        use()
        assert state() == before, "using"
        new = {name.partition(".")[0] for name in set(sys.modules) - modules} - set(sys.stdlib_module_names)
        assert {"reparam"} <= new <= {"reparam", "numpy"}, new
        """
    )


# ---- memory that is not there

B = np.broadcast_to
HUGE = 2**52  # events: no address space holds a byte for each
MORE_THAN_ALL_MEMORY = {
    "outputs": lambda: rp.cholesky_ex(B(np.eye(2), (HUGE, 2, 2))),
    "cotangents": lambda: rp.normal_tril_entropy.vjp(B(np.eye(2), (HUGE, 2, 2)), np.ones(())),
    "copies": lambda: rp.cholesky(B(np.eye(2, dtype=">f8"), (HUGE, 2, 2))),
    "words": lambda: rp.random.bits(HUGE, key=0),
    "normals": lambda: rp.random.normal((HUGE,), key=0),
    "draws": lambda: rp.MultivariateNormal(np.zeros(2), scale_tril=np.eye(2)).rsample((HUGE,), key=0),
    "a shape of too many": lambda: rp.random.normal((2**40, 2**40), key=0),
    "draws of too many": lambda: rp.Normal(0.0, 1.0).rsample((10**10, 10**9), key=0),
    "a batch of too many": lambda: rp.normal_log_prob(B(0.0, (2**31, 1)), B(0.0, (2**32,)), 1.0),
    "parameters": lambda: rp.nn.MLP((2**26, 2**26), key=0),
}


@pytest.mark.parametrize("what", MORE_THAN_ALL_MEMORY)
def test_arrays_that_cannot_be_allocated_are_a_memory_error(what):
    with pytest.raises(MemoryError):
        MORE_THAN_ALL_MEMORY[what]()


def test_scratch_that_cannot_be_allocated_is_a_memory_error_and_the_next_call_is_right():
    """Of large events that take no memory themselves; the last ones have more bytes than 63 bits can count."""
    run(
        PROLOGUE
        + """
def full(dtype, batch, d):
    vector = np.broadcast_to(dtype(1), (*batch, d))
    rp.normal_tril_log_prob(vector, vector, np.broadcast_to(dtype(1), (*batch, d, d)))


def diag(dtype, batch, d):
    rp.normal_diag_log_prob(*[np.broadcast_to(dtype(1), (*batch, d))] * 3)


calls = [
    (full, np.float64, (), 2**24),
    (diag, np.float64, (), 2**46),
    (diag, np.float64, (50,), 2**46),  # in the workers too
    (full, np.float32, (), 2**29),
    (full, np.float32, (), 2**30),
    (diag, np.float32, (), 2**58),
    (diag, np.float64, (), 2**59),
]
a = np.eye(8) * (2 + 1e-3 * np.arange(4000)[:, None, None]) + 0.5
for isa in [name for name in rp.backends() if ":" in name]:
    with rp.backend(isa):
        expected = rp.cholesky(a)
        for call, *size in calls:
            try:
                call(*size)
                raise SystemExit(f"{isa}: {call.__name__} {size} raised nothing")
            except MemoryError:
                assert (rp.cholesky(a) == expected).all()
""",
        REPARAM_NUM_THREADS="3",
    )


# ---- Ctrl-C

INTERRUPTED = (
    PROLOGUE
    + """
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
events = np.broadcast_to(1.0, (2**30,))  # hours of work, and no memory
rows = rp.random.normal((1000, 8), key=0, dtype="float32")
target = rp.targets.LinearGaussian(rows, np.eye(8, dtype="f4"), bias=np.zeros(8, "f4"), noise_scale=1.0)
q = rp.MultivariateNormal(0 * rows, scale_tril=np.broadcast_to(np.eye(8, dtype="f4"), (1000, 8, 8)))


def log_joint(z):
    return -0.5 * (z * z).sum(-1), -z


calls = {
    "sum": lambda: rp.normal_tril_entropy.vjp(2 * np.eye(64), events),
    "refine": lambda: rp.inference.refine(q, target, steps=10**6, key=0),
    "vi": lambda: [rp.fit_vi(target, 8, batch_shape=1000, dtype="float32", key=k) for k in range(10**6)],
    "map": lambda: [rp.map_estimate(target, rows) for _ in range(10**6)],
    "elbo": lambda: [rp.elbo(q, log_joint, key=k, num_samples=100) for k in range(10**6)],
    "fit": lambda: rp.VAE(2, epochs=10**6).fit(rows),
}
begin = time.perf_counter()
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    calls[sys.argv[1]]()
    raise SystemExit("nothing was raised")
except KeyboardInterrupt:
    print(time.perf_counter() - begin - 0.3)
"""
)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("what", ["sum", "refine", "vi", "map", "elbo", "fit"])
def test_an_interrupt_is_heard_within_two_seconds(what, threads):
    assert float(run(INTERRUPTED, what, REPARAM_BACKEND="native", REPARAM_NUM_THREADS=str(threads))) < 2


# ---- a wheel of the definitions alone

WITHOUT_NUMBA = """
import sys, warnings
import numpy as np

sys.modules["numba"] = None
"""


@pytest.fixture(scope="module")
def pure_python(tmp_path_factory):
    """A folder with the package as REPARAM_PURE_PYTHON=1 installs it."""
    folder = tmp_path_factory.mktemp("pure")
    ignored = shutil.ignore_patterns("__pycache__", "_core*.so")
    shutil.copytree(Path(rp.__file__).parent, folder / "reparam", ignore=ignored)
    return str(folder)


def test_without_kernels_one_warning_says_how_slow_that_is_and_what_to_install(pure_python):
    run(
        WITHOUT_NUMBA
        + """
import reparam as rp

assert rp.backends() == ("reference",)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        assert rp.cholesky(np.array([[4.0]])) == 2
        assert rp.random.normal((2,), key=1).shape == (2,)
(warning,) = caught
assert warning.category is RuntimeWarning
assert "times slower" in str(warning.message)
assert "install" in str(warning.message)
""",
        PYTHONPATH=pure_python,
    )


def test_without_kernels_the_selftest_passes_and_says_so(pure_python):
    program = "from reparam.cli import main\nsys.exit(main(['selftest']))\n"
    said = run(WITHOUT_NUMBA + 'warnings.simplefilter("ignore")\n' + program, PYTHONPATH=pure_python)
    assert "no compiled kernels here" in said
