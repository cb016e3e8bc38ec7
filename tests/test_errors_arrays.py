# SPDX-License-Identifier: MIT
"""What stands for an array: numbers, foreign arrays, arrays that are updated in place; and errors that travel."""

import pickle

import numpy as np
import pytest

import reparam as rp
from hostile import refused
from reparam.random import Draw
from support import ATTRIBUTES, same_bits

# ---- numbers


def test_python_numbers_are_weak_and_numpy_scalars_are_not(dtype):
    x, op = np.linspace(-1, 1, 5).astype(dtype), rp.bias_activation
    for number in (1, 0.1, -3, 2**60, np.inf):
        same_bits(op(x, number), op(x, np.asarray(number, dtype)))
        same_bits(op(number, x), op(np.asarray(number, dtype), x))
    assert op(1, 2).dtype == np.float64
    other = {"float32": np.float64, "float64": np.float32}[dtype]
    message = f"bias_activation: x is {dtype} and bias is {np.dtype(other)}; they must have one dtype"
    refused(TypeError, message, op, x, other(0.5))


@pytest.mark.parametrize("number", [1e39, -1e39, 10**400, -(10**400), 10**5000], ids=lambda x: f"{x > 0}-{type(x)}")
def test_a_number_beyond_the_range_of_the_arrays_is_refused(number):
    came = repr(number) if isinstance(number, float) else "int"
    message = f"bias_activation: bias must be within the range of float32, got {came}"
    refused(ValueError, message, rp.bias_activation, np.zeros(3, np.float32), number)


# ---- foreign arrays


class WithArray:
    """What has ``__array__`` only."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


class WithDLPack:
    """What has DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize(
    "wrap", [WithArray, WithDLPack, lambda x: x.view(np.matrix)], ids=["array", "dlpack", "matrix"]
)
def test_foreign_arrays_are_read_and_the_result_is_numpy(wrap):
    scale_tril, b = np.array([[2.0, 0.0], [1.0, 3.0]]), np.array([[1.0, 2.0]])
    result = rp.tril_solve(wrap(scale_tril), wrap(b))
    assert type(result) is np.ndarray
    same_bits(result, rp.tril_solve(scale_tril, b))


def test_what_a_foreign_array_holds_is_refused_as_that_of_any_other():
    solve, eye = rp.tril_solve, np.eye(2)
    for b, error, message in [
        (WithArray(np.zeros(3)), ValueError, "must have shape (..., d) with d = 2 (from scale_tril), got (3,)"),
        (WithArray(np.zeros(2, int)), TypeError, "must be float32 or float64, got int64; convert it with .astype"),
        (WithDLPack(np.zeros(2, bool)), TypeError, "must be float32 or float64, got bool; convert it with .astype"),
        (WithArray(np.array(["a", "b"])), TypeError, "must be float32 or float64, got <U1"),
    ]:
        refused(error, f"tril_solve: b {message}", solve, eye, b)
    mixed = "tril_solve: scale_tril is float64 and b is float32; they must have one dtype"
    refused(TypeError, mixed, solve, eye, WithDLPack(np.zeros(2, "f4")))


@pytest.mark.parametrize("error", [RuntimeError("mine"), ValueError("mine"), TypeError("mine"), BufferError("mine")])
def test_an_object_that_cannot_give_its_array_is_named(error):
    with pytest.raises(TypeError, match=r"^tril_solve: b cannot be read as an array: mine$") as caught:
        rp.tril_solve(np.eye(2), WithArray(error))
    assert caught.value.__cause__ is error


def test_a_tensor_of_torch_is_read_and_the_result_is_numpy():
    torch = pytest.importorskip("torch")
    value, loc, scale_diag = np.ones((2, 3)), np.zeros(3), np.ones(3)
    result = rp.normal_diag_log_prob(torch.tensor(value), loc, torch.tensor(scale_diag))
    assert type(result) is np.ndarray
    same_bits(result, rp.normal_diag_log_prob(value, loc, scale_diag))
    q = rp.MultivariateNormalDiag(torch.tensor(loc), torch.tensor(scale_diag))
    same_bits(q.log_prob(torch.tensor(value)), result)
    for tensor, message in [
        (torch.zeros(3), "normal_diag_log_prob: value is float64 and loc is float32; they must have one dtype"),
        (torch.zeros(3, requires_grad=True), "normal_diag_log_prob: loc cannot be read as an array: .*detach"),
        (torch.zeros(3, dtype=torch.bfloat16), "normal_diag_log_prob: loc cannot be read as an array: .*BFloat16"),
    ]:
        with pytest.raises(TypeError, match=message):
            rp.normal_diag_log_prob(value, tensor, scale_diag)
    message = "normal_diag_log_prob: out for log_prob must be a NumPy array, got Tensor"
    refused(TypeError, message, rp.normal_diag_log_prob, value, loc, scale_diag, out=torch.zeros(2).double())


# ---- operands that are updated in place

HYPER = {name: ATTRIBUTES[name] for name in rp.OPS["adam_step"].defaults}


@pytest.mark.parametrize("name", ["param", "m", "v"])
@pytest.mark.parametrize("plan", ["first", "again"])
def test_what_is_updated_in_place_must_be_writeable_and_whole(name, plan):
    fields = {n: np.ones(3) for n in ("param", "grad", "m", "v")}
    if plan == "again":
        rp.adam_step(**{n: x.copy() for n, x in fields.items()}, **HYPER)
    prefix = f"adam_step: {name} is updated in place"
    once = np.lib.stride_tricks.as_strided(np.ones(3), (3,), (0,))
    for value, error, message in [
        (np.broadcast_to(1.0, 3), ValueError, ", but it is read-only"),
        (once, ValueError, ", but entries of it share memory (a stride of 0)"),
        (np.ones(1), ValueError, " and must have the full shape (3,), got (1,)"),
        (1.0, TypeError, " and must be a NumPy array, got float"),
        (WithArray(np.ones(3)), TypeError, " and must be a NumPy array, got WithArray"),
    ]:
        refused(error, prefix + message, rp.adam_step, **{**fields, name: value}, **HYPER)


def test_two_that_are_updated_in_place_share_no_entry_but_may_share_a_buffer():
    x, grad = np.ones(4), np.ones(3)
    message = "adam_step: param and v are updated in place, but share memory"
    refused(ValueError, message, rp.adam_step, x[1:], grad, np.ones(3), x[:3], **HYPER)
    columns = np.ones((3, 3))
    apart = [np.ones(3) for _ in range(3)]
    rp.adam_step(columns[:, 0], grad, columns[:, 1], columns[:, 2], **HYPER)
    rp.adam_step(apart[0], grad, apart[1], apart[2], **HYPER)
    same_bits(columns, np.stack(apart, axis=1))


def test_what_is_updated_in_place_is_updated_in_any_byte_order():
    native = [np.linspace(1, 2, 3) for _ in range(4)]
    swapped = [x.astype(x.dtype.newbyteorder(">")) for x in native]
    rp.adam_step(*native, **HYPER)
    rp.adam_step(*swapped, **HYPER)
    for x, y in zip(native, swapped, strict=True):
        np.testing.assert_array_equal(x, y)
    assert native[0][0] != 1


# ---- noise that is drawn


def test_a_draw_that_does_not_fit_is_refused():
    op, rest = rp.elbo_diag_linear_gaussian, (np.zeros(2), np.ones(2), np.zeros(3), np.zeros((3, 2)), np.zeros(3), 1.0)
    refused(TypeError, f"{op.name} needs the keyword s", op, Draw(0, 0), *rest)
    refused(ValueError, f"{op.name}: s must be >= 0, got -1", op, Draw(0, 0), *rest, s=-1)
    message = f"{op.name}: noise may have at most 16 batch dims, got 17"
    refused(ValueError, message, op, Draw(0, np.zeros([1] * 17, int)), *rest, s=1)


@pytest.mark.parametrize(
    "index", [[0, 2**64 - 2], (np.int64(0), np.uint64(2**64 - 2)), np.array([0, 2**64 - 2], object)]
)
def test_an_index_may_hold_small_and_large_integers(index):
    """NumPy alone makes floats of such a list."""
    same_bits(Draw(0, index).index, np.array([0, 2**64 - 2], np.uint64))


# ---- errors


def test_the_error_of_a_matrix_that_is_not_positive_definite_comes_whole_from_another_process():
    a = np.array([[4.0, 2.0], [2.0, 3.0]])
    with pytest.raises(rp.NotPositiveDefiniteError) as caught:
        rp.cholesky(np.stack([a, -a]))
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == "cholesky: a is not positive definite in 1 of 2 events: [1] (leading minor 1)"
    np.testing.assert_array_equal(error.info, [0, 1])
    np.testing.assert_array_equal(error.indices, [[1]])


def test_after_a_refused_call_the_next_one_is_right():
    expected = rp.tril_solve(np.eye(3), np.ones(3))
    for bad in (np.zeros(4), np.zeros(3, int), None):
        with pytest.raises((TypeError, ValueError)):
            rp.tril_solve(np.eye(3), bad)
        same_bits(rp.tril_solve(np.eye(3), np.ones(3)), expected)
