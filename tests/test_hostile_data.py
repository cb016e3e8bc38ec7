# SPDX-License-Identifier: MIT
"""What is hostile but no mistake: NaN and infinities, which are data of their own event; arrays at memory's edge."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reparam as rp
from hostile import PASSES, D, arguments, call, flat
from support import lanes, same_bits

BACKENDS = [name for name in rp.backends() if name not in {"native", "numba"}]
FLOATING = [p for p in PASSES if p.unpacked is p and any(o.item == "real" for o in p.inputs)]


# ---- numbers


def run(p, arrays, keywords, backend):
    """The results, or what was updated in place; not even a flag of the processor is an error."""
    arrays = [x.copy() for x in arrays]
    with rp.backend(backend), np.errstate(all="raise"):
        made = flat(call(p, *arrays, **keywords))
    return made if p.outputs else [x for o, x in zip(p.inputs, arrays, strict=True) if o.in_place]


def check_hostile_values(p, dtype, backends):
    """Each value in an event of its own, whose neighbours keep their bits, in one operand after the other."""
    info, width = np.finfo(dtype), max(lanes(name, dtype) for name in backends)
    values = [np.nan, np.inf, -np.inf, info.max, -info.max, info.smallest_subnormal, -info.tiny, -0.0]
    batch, events = 3 * len(values) + width, 3 * np.arange(len(values)) + 1
    arrays, keywords = arguments(p, batch, dtype=dtype)
    others = np.setdiff1d(np.arange(batch), events)
    clean = {name: run(p, arrays, keywords, name) for name in backends}
    for k, operand in enumerate(p.inputs):
        if operand.item == "real":
            spoiled = arrays[k].copy()
            spoiled[events] = np.reshape(values, (-1, *[1] * operand.event_rank))
            given = [*arrays[:k], spoiled, *arrays[k + 1 :]]
            made = {name: run(p, given, keywords, name) for name in backends}
            for name in backends:
                same_bits([x[others] for x in made[name]], [x[others] for x in clean[name]])
            check_not_finite(p, operand, made, events[:3])


def check_not_finite(p, operand, made, events):
    """A NaN leaves a trace, if an output depends on it; NaN and infinities spoil the same entries everywhere."""
    first, *others = made.values()
    if p.kind != "vjp" or p.op.vjp_from == "outputs":
        assert any(not np.isfinite(x[events[0]]).all() for x in first), f"NaN in {operand.name} left no trace"
    for other in others:
        for x, y in zip(first, other, strict=True):
            np.testing.assert_array_equal(np.isfinite(x[events]), np.isfinite(y[events]))


@pytest.mark.parametrize("p", FLOATING, ids=lambda p: p.name)
def test_no_number_is_an_error_and_none_leaves_its_event(p, dtype):
    check_hostile_values(p, dtype, BACKENDS)


@pytest.mark.skipif("numba" not in rp.backends(), reason="needs numba")
@pytest.mark.parametrize("name", ["cholesky_ex", "normal_log_prob"])
def test_no_number_is_an_error_for_numba(name):
    """Of two ops, since each pass takes a second to compile."""
    for p in (rp.OPS[name].forward_pass, rp.OPS[name].vjp_pass):
        check_hostile_values(p, "float64", ["reference", "numba"])


@pytest.mark.parametrize("where", [*BACKENDS, *({"numba"} & {*rp.backends()})])
def test_info_is_exact(where):
    """One bad entry on or below the diagonal in each event: its row fails, whatever stands after it."""
    places = [(i, j, x) for i in range(D) for j in range(i + 1) for x in (np.nan, np.inf, -np.inf, -1e300)]
    a = np.tile(np.eye(D), (len(places), 1, 1))
    for event, (i, j, x) in enumerate(places):
        a[event, i, j] = x
    with rp.backend(where), np.errstate(all="raise"):
        scale_tril, info = rp.cholesky_ex(a)
    np.testing.assert_array_equal(info, [i + 1 for i, _, _ in places])
    assert np.isnan(scale_tril[(..., *np.tril_indices(D))]).all()


# ---- memory

GUARDED = """
import ctypes, faulthandler, itertools, mmap, sys
import numpy as np
from hostile import PASSES, arguments, call, flat
from support import same_bits
import reparam as rp

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
regions, kept = [], []


def region(pages=4):
    '''Pages between two that nobody may touch.'''
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
    kept.append(memory)
    return np.frombuffer(memory, np.uint8, pages * PAGE, PAGE)


def place(x, inside, at_end, backwards):
    '''The array in the first or the last bytes of a region, in one direction or the other.'''
    first = len(inside) - x.nbytes if at_end else 0
    y = inside[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    y = y[(slice(None, None, -1),) * y.ndim] if backwards else y
    y[...] = x
    return y


faulthandler.enable()
regions = [region() for _ in range(24)]
if sys.argv[1] == "planted":
    beyond = place(np.zeros(3), regions[0], True, False)
    np.lib.stride_tricks.as_strided(beyond, (4,))[3]
layouts = list(itertools.product((False, True), repeat=2))
sizes = [("float32", 1, 1), ("float32", 9, 17), ("float64", 3, 17), ("float64", 9, 0)]
for isa in [name for name in rp.backends() if ":" in name]:
    for p, (dtype, d, batch) in itertools.product(PASSES, sizes):
        arrays, keywords = arguments(p, batch, d, dtype)
        if not p.in_place:
            print(isa, p.name, dtype, d, batch, flush=True)
            with rp.backend(isa):
                expected = flat(call(p, *arrays, **keywords))
                for layout in layouts:
                    here = iter(regions)
                    given = [place(x, next(here), *layout) for x in arrays]
                    out = tuple(place(x, next(here), *layout) for x in expected)
                    call(p, *given, **keywords, out=out if len(out) > 1 else out[0])
                    same_bits(out, expected)
"""


def guarded(how):
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", GUARDED, how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_nothing_before_or_after_an_array_is_touched():
    """Forwards, and backwards by negative strides, with a page on either side that ends the process."""
    done = guarded("all")
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}\n{done.stderr}"


def test_the_page_beside_an_array_ends_the_process():
    assert guarded("planted").returncode == -signal.SIGSEGV
