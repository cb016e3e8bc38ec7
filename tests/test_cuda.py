# SPDX-License-Identifier: MIT
"""The module for GPUs, as far as a machine without one shows it."""

import json

import numpy as np
import pytest

import reparam as rp
from reparam import _core, cli
from reparam._backends import cuda
from test_threads import run

_cuda = pytest.importorskip("reparam._cuda", reason="needs a build with nvcc")
HAS_GPU = _cuda.versions()[0] > 0
without_gpu = pytest.mark.skipif(HAS_GPU, reason="needs a machine without a GPU")


def test_it_has_every_op_of_the_table():
    assert _cuda.table() == _core.table()


def dense(*shape, address=64):
    """An operand of a call: its address, and the strides of batch and event, in elements."""
    strides = [int(np.prod(shape[k + 1 :])) for k in range(len(shape))]
    return address, strides[:1], strides[1:]


def scratch(batch, d, dtype="float32", reduced=False):
    factor = (64, [0], [d, 1]) if reduced else dense(batch, d, d)
    operands = [dense(batch, d), dense(batch, d), factor, dense(batch), dense(batch)]
    operands += [dense(batch, d), dense(batch, d), factor]
    return _cuda.scratch("normal_tril_log_prob", True, dtype, [batch], [d], operands, [], False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 16, 128])
def test_scratch_is_bounded_whatever_the_batch(d, dtype):
    """Past 2^31 events and 2^31 bytes, too."""
    one = scratch(1, d, dtype)
    assert 0 < one <= scratch(1000, d, dtype) <= 1000 * one
    for batch in (2**20 + 3, 2**31 + 1, 2**40):
        assert scratch(batch, d, dtype) == scratch(2**42, d, dtype) < 2**30
        assert scratch(batch, d, dtype, reduced=True) < 2**30


@without_gpu
def test_a_machine_without_a_gpu_says_so():
    assert rp.normal_entropy(np.ones(3)).shape == (3,)
    with pytest.raises(RuntimeError, match=r"^no GPU can be used: .*\(cudaError\w+\)$"):
        _cuda.devices()
    assert cuda.describe()["devices"].startswith("no GPU can be used: ")
    assert cuda.describe()["driver"] == "none"


@without_gpu
def test_a_call_without_a_gpu_is_an_error_and_the_process_goes_on():
    run("""
import numpy as np
import reparam as rp
from reparam import _cuda

operands = [(4096, [1], []), (4096, [1], [])]
for _ in range(2):
    try:
        _cuda.run("normal_entropy", False, "float32", [5], [], operands, [], False, 0, 0)
        raise SystemExit("it ran")
    except RuntimeError as error:
        assert str(error).startswith("normal_entropy: "), error
assert rp.normal_entropy(np.ones(3, "float32")).dtype == np.float32
""")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "nothing"}, "no op nothing"),
        ({"batch_shape": [1] * 17}, "more than 16 batch dims"),
        ({"extents": [3]}, "wrong number of extents"),
        ({"operands": []}, "wrong number of operands"),
        ({"attributes": [1.0]}, "wrong number of attributes"),
        ({"operands": [(64, [1, 1], []), None]}, "strides do not fit"),
    ],
)
def test_a_call_that_cannot_be_read_is_refused(change, message):
    given = {
        "op": "normal_entropy", "vjp": False, "dtype": "float32", "batch_shape": [5], "extents": [],
        "operands": [(64, [1], []), (64, [1], [])], "attributes": [], "packed": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        _cuda.scratch(*{**given, **change}.values())


def test_info_says_what_is_compiled_and_what_is_there(capsys):
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpu"] == cuda.describe()
    rp.show_config()
    assert f"kernels for {_cuda.targets} by nvcc" in capsys.readouterr().out
