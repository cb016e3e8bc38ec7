# SPDX-License-Identifier: MIT
"""What a user gets wrong: the error names the op or class, the argument, what came and what was expected.

Loops over the table of ops first, then rows for everything else. A refused call writes nowhere, and warns of nothing
(the suite turns warnings into errors).
"""

import pickle
import re
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

import reparam as rp
from reparam.elbo import ESTIMATORS
from reparam.random import Draw, bits, fold_in, normal
from support import ATTRIBUTES, OPS, extents_of, keyword_extents, residuals, same_bits, sample_cotangents, sample_inputs

BATCH, D = 4, 3
PASSES = [p for op in OPS for p in (op.forward_pass, op.vjp_pass) if p is not None]
op_axis = pytest.mark.parametrize("p", PASSES, ids=lambda p: p.name)


@pytest.fixture(autouse=True, params=["reference", "native"])
def either_backend(request):
    """One set of rules: every case through both."""
    with rp.backend(request.param):
        yield request.param


def refused(error, message, call, *args, **keywords):
    """The call fails with exactly this message, and all arrays that it was given are as they were."""
    given = [x for a in (*args, *keywords.values()) for x in (a if isinstance(a, tuple) else (a,))]
    arrays = [x for x in given if isinstance(x, np.ndarray)]
    before = [x.tobytes() for x in arrays]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call(*args, **keywords)
    assert [x.tobytes() for x in arrays] == before


# ---- every op of the table, forward and vjp


@cache
def arguments(p):
    """Arrays and keywords that the pass accepts."""
    rng = np.random.default_rng(0)
    keywords = {n: ATTRIBUTES[n] for n, default in p.op.defaults.items() if default is None}
    inputs = sample_inputs(p.op, rng, (BATCH,), D)
    if p.vjp:
        return [*residuals(p.op, inputs), *sample_cotangents(p.op, rng, (BATCH,), D)], keywords
    return inputs, keywords | keyword_extents(p.op, extents_of(p.op, D))


def call(p, *args, **keywords):
    return (p.op.vjp if p.vjp else p.op)(*args, **keywords)


def with_operand(p, k, value):
    arrays, keywords = arguments(p)
    return [*arrays[:k], value, *arrays[k + 1 :]], keywords


def shape_of(operand, size=D):
    return (BATCH, *operand.event_shape(dict.fromkeys("dsn", size)))


@op_axis
def test_an_element_type_that_is_no_float_is_refused(p):
    for k, operand in enumerate(p.inputs):
        wanted = "float32 or float64" if operand.item == "real" else operand.item
        for dtype in map(np.dtype, ["i8", "u1", "?", "f2", "g", "c16", "O", "U3", "M8[s]"]):
            args, keywords = with_operand(p, k, np.zeros(shape_of(operand), dtype))
            hint = "; convert it with .astype" if dtype.kind in "biuf" else ""
            message = f"{p.name}: {operand.name} must be {wanted}, got {dtype}{hint}"
            refused(TypeError, message, call, p, *args, **keywords)


@op_axis
def test_what_is_no_array_is_refused(p):
    for k, operand in enumerate(p.inputs):
        takes_number = operand.kind == "scalar" and operand.item == "real" and not operand.in_place
        wanted = "an array or a number" if takes_number else "an array"
        for value in [None, [1.0], (1.0,), "1", b"1", True, 1j, {}, range(3), Fraction(1, 2), object()]:
            args, keywords = with_operand(p, k, value)
            message = f"{p.name}: {operand.name} must be {wanted}, got {type(value).__name__}"
            refused(TypeError, message, call, p, *args, **keywords)


@op_axis
def test_a_masked_array_is_refused(p):
    for k, operand in enumerate(p.inputs):
        masked = np.ma.masked_array(np.ones(shape_of(operand)), False)
        args, keywords = with_operand(p, k, masked)
        message = f"{p.name}: {operand.name} must be an array without a mask; fill the masked entries with .filled"
        refused(TypeError, message, call, p, *args, **keywords)


@op_axis
def test_too_few_dims_are_refused(p):
    for k, operand in enumerate(p.inputs):
        for rank in range(operand.event_rank):
            value = np.ones((D,) * rank)
            args, keywords = with_operand(p, k, value)
            with pytest.raises(
                ValueError, match=rf"^{p.name}: {operand.name} must have shape \(\.\.\., .*got"
            ) as caught:
                call(p, *args, **keywords)
            assert f"(..., {operand.event_text()})" in str(caught.value)
            assert str(caught.value).endswith(f", got {value.shape}")


@op_axis
def test_a_matrix_that_is_not_square_is_refused(p):
    for k, operand in enumerate(p.inputs):
        if operand.kind in {"tril", "sym"}:
            args, keywords = with_operand(p, k, np.ones((BATCH, D, D + 1)))
            with pytest.raises(ValueError, match=rf"^{p.name}: {operand.name} must have shape .*, got \(4, 3, 4\)$"):
                call(p, *args, **keywords)


@op_axis
def test_a_vector_that_is_no_triangle_is_refused(p):
    for k, operand in enumerate(p.inputs):
        if operand.kind == "vec":
            args, keywords = with_operand(p, k, np.ones((BATCH, 5)))
            message = f"{p.name}: {operand.name} must have shape (..., d(d+1)/2), got (4, 5)"
            refused(ValueError, message, call, p, *args, **keywords)


@op_axis
def test_event_sizes_that_differ_are_refused_with_their_source(p):
    arrays, keywords = arguments(p)
    for k, operand in enumerate(p.inputs):
        shown_before = {s: o.name for o in reversed(p.inputs[:k]) for s in o.symbols}
        for symbol in operand.symbols:
            if symbol not in shown_before or symbol in keywords:
                continue
            sizes = extents_of(p.op, D)
            known = [f"{s} = {sizes[s]} (from {shown_before[s]})" for s in operand.symbols if s in shown_before]
            larger = np.ones((BATCH, *operand.event_shape({**sizes, symbol: sizes[symbol] + 1})))
            message = (
                f"{p.name}: {operand.name} must have shape (..., {operand.event_text()}) "
                f"with {' and '.join(dict.fromkeys(known))}, got {larger.shape}"
            )
            refused(ValueError, message, call, p, *arrays[:k], larger, *arrays[k + 1 :], **keywords)


@op_axis
def test_batch_shapes_that_do_not_broadcast_are_refused(p):
    if len(p.inputs) == 1:
        return
    for k, operand in enumerate(p.inputs):
        args, keywords = with_operand(
            p, k, np.ones((BATCH + 1, *arguments(p)[0][k].shape[1:]), arguments(p)[0][k].dtype)
        )
        listed = ", ".join(f"{o.name} {(BATCH + (o is operand),)}" for o in p.inputs)
        message = f"{p.name}: batch shapes do not broadcast: {listed}"
        refused(ValueError, message, call, p, *args, **keywords)


@op_axis
def test_two_float_types_are_refused_with_their_arguments(p):
    real = [k for k, o in enumerate(p.inputs) if o.item == "real"]
    for k in real[1:]:
        args, keywords = with_operand(p, k, arguments(p)[0][k].astype(np.float32))
        first, other = p.inputs[real[0]].name, p.inputs[k].name
        message = f"{p.name}: {first} is float64 and {other} is float32; they must have one dtype"
        refused(TypeError, message, call, p, *args, **keywords)


@op_axis
def test_a_wrong_number_of_arrays_is_refused(p):
    args, keywords = arguments(p)
    count, plural = len(args), "" if len(args) == 1 else "s"
    takes = f"{p.name} takes {count} array{plural} ({', '.join(o.name for o in p.inputs)})"
    refused(TypeError, f"{takes}, got 0", call, p, **keywords)
    refused(TypeError, f"{takes}, got {count - 1}", call, p, *args[:-1], **keywords)
    refused(TypeError, f"{takes}, got {count + 1}", call, p, *args, args[0], **keywords)


@op_axis
def test_arrays_by_name_are_all_needed_once(p):
    args, keywords = arguments(p)
    named = {o.name: x for o, x in zip(p.inputs, args, strict=True)}
    for name in named if len(named) > 1 else ():
        rest = {n: x for n, x in named.items() if n != name}
        takes = f"{p.name} takes {len(named)} arrays ({', '.join(named)})"
        refused(TypeError, f"{takes}; {name} is missing", call, p, **rest, **keywords)
    refused(TypeError, f"{p.name} got two values for {p.inputs[0].name}", call, p, args[0], **named, **keywords)


@op_axis
def test_an_unknown_keyword_is_refused_with_those_there_are(p):
    args, keywords = arguments(p)
    known = [*(o.name for o in p.inputs), *keyword_extents(p.op, extents_of(p.op, D)), *p.op.attributes, "out"]
    for name in ("scale", "dtyp", "Out"):
        with pytest.raises(TypeError, match=rf"^{p.name} got an unexpected keyword '{name}'; it takes ") as caught:
            call(p, *args, **keywords, **{name: [1]})
        assert [n for n in known if n not in str(caught.value)] == []


@op_axis
def test_a_dtype_is_taken_only_where_no_array_shows_it(p):
    args, keywords = arguments(p)
    if any(o.item == "real" for o in p.inputs):
        with pytest.raises(TypeError, match=rf"^{p.name} got an unexpected keyword 'dtype'"):
            call(p, *args, **keywords, dtype="float64")


@op_axis
def test_too_many_batch_dims_are_refused(p):
    args, keywords = arguments(p)
    deep = [x[(0, *[None] * 17)] for x in args]
    refused(ValueError, f"{p.name}: arrays may have at most 16 batch dims, got 17", call, p, *deep, **keywords)


# ---- out=


def results(p):
    made = call(p, *arguments(p)[0], **arguments(p)[1])
    return tuple(np.full_like(x, 77) for x in (made if isinstance(made, tuple) else (made,)))


def out_of(arrays):
    return arrays if len(arrays) > 1 else arrays[0]


@pytest.mark.parametrize("p", [p for p in PASSES if p.outputs], ids=lambda p: p.name)
def test_an_out_that_does_not_fit_is_refused_and_none_is_written(p):
    args, keywords = arguments(p)
    good = results(p)
    for k, operand in enumerate(p.outputs):
        x = good[k]
        read_only = x.copy()
        read_only.flags.writeable = False
        name = f"{p.name}: out for {operand.name}"
        for bad, error, message in [
            (np.full((*x.shape, 1), 77, x.dtype), ValueError, f"{name} must have shape {x.shape}, got {(*x.shape, 1)}"),
            (x[1:], ValueError, f"{name} must have shape {x.shape}, got {x[1:].shape}"),
            (x.astype("f2"), TypeError, f"{name} must be {x.dtype}, got float16"),
            (
                x.astype(x.dtype.newbyteorder(">")),
                TypeError,
                f"{name} must be {x.dtype}, got {x.dtype.newbyteorder('>')}",
            ),
            (read_only, ValueError, f"{name} is read-only"),
            (x.tolist(), TypeError, f"{name} must be a NumPy array, got list"),
            (3.0, TypeError, f"{name} must be a NumPy array, got float"),
        ]:
            out = out_of((*good[:k], bad, *good[k + 1 :]))
            refused(error, message, call, p, *args, **keywords, out=out)
            assert all((x == 77).all() for x in good)


@op_axis
def test_a_wrong_number_of_outs_is_refused(p):
    args, keywords = arguments(p)
    count, names = len(p.outputs), ", ".join(o.name for o in p.outputs)
    one = np.full((BATCH, D), 77.0)
    wanted = f"a tuple of {count} arrays ({names})" if count > 1 else f"one array ({names})" if count else "left out"
    message = f"{p.name}: out must be {wanted}, got "
    refused(TypeError, f"{message}a tuple of {count + 1}", call, p, *args, **keywords, out=(one,) * (count + 1))
    if count != 1:
        refused(TypeError, f"{message}ndarray", call, p, *args, **keywords, out=one)
        refused(TypeError, f"{message}list", call, p, *args, **keywords, out=[one] * count)


# ---- keywords that are numbers, words or flags

KEYWORDS = [(p, name) for p in PASSES for name in p.op.attributes]


@pytest.mark.parametrize(("p", "name"), KEYWORDS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_a_keyword_of_a_wrong_kind_is_refused(p, name):
    default, hostile = p.op.defaults[name], ["cubic", None, 3j, [0.5], np.zeros(2), "1"]
    (args, keywords), before = arguments(p), f"{p.name}: {name} must be "
    low, high = p.op.limits.get(name, (-np.inf, np.inf))
    number = "a number" + (f" in [{low:g}, {high:g})" if high < np.inf else f" >= {low:g}" if low > -np.inf else "")
    if name in p.op.choices:
        error, wanted = ValueError, f"one of {', '.join(map(repr, p.op.choices[name]))}"
    else:
        error, wanted = TypeError, "True or False" if isinstance(default, bool) else number
    for value in [*hostile, 1 if isinstance(default, bool) else True]:
        refused(error, f"{before}{wanted}, got {value!r}", call, p, *args, **{**keywords, name: value})


@pytest.mark.parametrize(
    ("p", "name"), [x for x in KEYWORDS if x[1] in x[0].op.limits], ids=lambda x: getattr(x, "name", x)
)
def test_a_number_out_of_range_is_refused(p, name):
    args, keywords = arguments(p)
    low, high = p.op.limits[name]
    wanted = f"a finite number in [{low:g}, {high:g})" if high < np.inf else f"a finite number >= {low:g}"
    for value in [np.nextafter(low, -np.inf), low - 1, high, -np.inf, np.nan]:
        refused(
            ValueError, f"{p.name}: {name} must be {wanted}, got {value!r}", call, p, *args, **{**keywords, name: value}
        )
    refused(ValueError, f"{p.name}: {name} must be {wanted}, got int", call, p, *args, **{**keywords, name: -(10**400)})


@pytest.mark.parametrize("op", [op for op in OPS if None in op.defaults.values()], ids=lambda op: op.name)
def test_a_keyword_without_a_default_is_needed(op):
    args, keywords = arguments(op.forward_pass)
    needed = [name for name, default in op.defaults.items() if default is None]
    for name in needed:
        rest = {n: v for n, v in keywords.items() if n != name}
        refused(TypeError, f"{op.name} needs the keyword {name}", op, *args, **rest)
    rest = {n: v for n, v in keywords.items() if n not in needed}
    refused(TypeError, f"{op.name} needs the keywords {', '.join(needed)}", op, *args, **rest)


@pytest.mark.parametrize("op", [op for op in OPS if keyword_extents(op, extents_of(op, D))], ids=lambda op: op.name)
def test_a_size_that_no_array_shows_is_an_integer_by_keyword(op):
    args, keywords = arguments(op.forward_pass)
    for name in keyword_extents(op, extents_of(op, D)):
        op(*args, **{**keywords, name: 1})  # so that there is a plan for 1, which is equal to 1.0 and to True
        for value in (1.0, True, 1.5, None, "1"):
            message = f"{op.name}: {name} must be an integer >= 0, got {value!r}"
            refused(TypeError, message, op, *args, **{**keywords, name: value})
        refused(ValueError, f"{op.name}: {name} must be >= 0, got -1", op, *args, **{**keywords, name: -1})
        rest = {n: v for n, v in keywords.items() if n != name}
        refused(TypeError, f"{op.name} needs the keyword {name}", op, *args, **rest)


# ---- what is accepted: weak scalars, foreign arrays


def test_python_numbers_are_weak_and_numpy_scalars_are_not(dtype):
    x = np.linspace(-1, 1, 5).astype(dtype)
    op = rp.OPS["bias_activation"]
    for number in (1, 0.1, -3, 2**60, np.inf):
        same_bits(op(x, number), op(x, np.asarray(number, dtype)))
        same_bits(op(number, x), op(np.asarray(number, dtype), x))
    assert op(1, 2).dtype == np.float64
    other = {"float32": np.float64, "float64": np.float32}[dtype]
    message = f"bias_activation: x is {dtype} and bias is {np.dtype(other)}; they must have one dtype"
    refused(TypeError, message, op, x, other(0.5))


@pytest.mark.parametrize("number", [1e39, -1e39, 10**400, -(10**400)], ids=str)
def test_a_number_beyond_the_range_of_the_arrays_is_refused(number):
    came = repr(number) if isinstance(number, float) else "int"
    message = f"bias_activation: bias must be within the range of float32, got {came}"
    refused(ValueError, message, rp.OPS["bias_activation"], np.zeros(3, np.float32), number)


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


def test_a_tensor_of_torch_is_read_and_the_result_is_numpy():
    torch = pytest.importorskip("torch")
    value, loc, scale_diag = np.ones((2, 3)), np.zeros(3), np.ones(3)
    result = rp.normal_diag_log_prob(torch.tensor(value), loc, torch.tensor(scale_diag))
    assert type(result) is np.ndarray
    same_bits(result, rp.normal_diag_log_prob(value, loc, scale_diag))
    q = rp.MultivariateNormalDiag(torch.tensor(loc), torch.tensor(scale_diag))
    same_bits(q.log_prob(torch.tensor(value)), result)
    with pytest.raises(TypeError, match=r"^normal_diag_log_prob: value is float32 and loc is float64"):
        rp.normal_diag_log_prob(torch.tensor(value).float(), loc, scale_diag)
    with pytest.raises(TypeError, match=r"^normal_diag_log_prob: loc cannot be read as an array: .*detach"):
        rp.normal_diag_log_prob(value, torch.tensor(loc, requires_grad=True), scale_diag)
    with pytest.raises(TypeError, match=r"^normal_diag_log_prob: loc cannot be read as an array: .*BFloat16"):
        rp.normal_diag_log_prob(value, torch.zeros(3, dtype=torch.bfloat16), scale_diag)
    with pytest.raises(TypeError, match=r"^normal_diag_log_prob: out for log_prob must be a NumPy array, got Tensor$"):
        rp.normal_diag_log_prob(value, loc, scale_diag, out=torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("error", [RuntimeError("mine"), ValueError("mine"), TypeError("mine"), BufferError("mine")])
def test_an_object_that_cannot_give_its_array_is_named(error):
    with pytest.raises(TypeError, match=r"^tril_solve: b cannot be read as an array: mine$") as caught:
        rp.tril_solve(np.eye(2), WithArray(error))
    assert caught.value.__cause__ is error


# ---- operands that are updated in place

HYPER = {name: ATTRIBUTES[name] for name in rp.OPS["adam_step"].defaults}


@pytest.mark.parametrize("name", ["param", "m", "v"])
@pytest.mark.parametrize("seen", ["first", "again"])
def test_what_is_updated_in_place_must_be_writeable_and_whole(name, seen):
    fields = {n: np.ones(3) for n in ("param", "grad", "m", "v")}
    if seen == "again":  # the plan of this call is known
        rp.adam_step(**{n: x.copy() for n, x in fields.items()}, **HYPER)
    prefix = f"adam_step: {name} is updated in place"
    for value, error, message in [
        (np.broadcast_to(1.0, 3), ValueError, ", but it is read-only"),
        (np.ones(1), ValueError, " and must have the full shape (3,), got (1,)"),
        (1.0, TypeError, " and must be a NumPy array, got float"),
        (WithArray(np.ones(3)), TypeError, " and must be a NumPy array, got WithArray"),
    ]:
        refused(error, prefix + message, rp.adam_step, **{**fields, name: value}, **HYPER)


def test_what_is_updated_in_place_is_updated_in_any_byte_order():
    native = [np.linspace(1, 2, 3) for _ in range(4)]
    swapped = [x.astype(x.dtype.newbyteorder(">")) for x in native]
    rp.adam_step(*native, **HYPER)
    rp.adam_step(*swapped, **HYPER)
    for x, y in zip(native, swapped, strict=True):
        np.testing.assert_array_equal(x, y)
    assert native[0][0] != 1


# ---- cholesky

A = np.array([[4.0, 2.0], [2.0, 3.0]])


@pytest.mark.parametrize(("args", "keywords", "error", "message"), [
    ((np.ones((2, 3)),), {}, ValueError, r"a must have shape \(\.\.\., d, d\), got \(2, 3\)"),
    ((np.ones(2),), {}, ValueError, r"a must have shape \(\.\.\., d, d\), got \(2,\)"),
    ((4.0,), {}, ValueError, r"a must have shape \(\.\.\., d, d\), got \(\)"),
    (([[1.0]],), {}, TypeError, r"a must be an array, got list"),
    ((A.astype(int),), {}, TypeError, r"a must be float32 or float64, got int64; convert it with .astype"),
    ((A,), {"out": np.full((2, 2), 7, "f4")}, TypeError, r"out for scale_tril must be float64, got float32"),
    ((A,), {"out": np.full((2, 3), 7.0)}, ValueError, r"out for scale_tril must have shape \(2, 2\), got \(2, 3\)"),
    ((A,), {"out": [A]}, TypeError, r"out for scale_tril must be a NumPy array, got list"),
    ((A,), {"check": "no"}, TypeError, r"check must be True or False, got 'no'"),
    ((A,), {"check": None}, TypeError, r"check must be True or False, got None"),
])  # fmt: skip
def test_cholesky_refuses(args, keywords, error, message):
    with pytest.raises(error, match=rf"^cholesky: {message}$"):
        rp.cholesky(*args, **keywords)
    assert "out" not in keywords or not isinstance(keywords["out"], np.ndarray) or (keywords["out"] == 7).all()


def test_the_error_of_a_matrix_that_is_not_positive_definite_comes_whole_from_another_process():
    with pytest.raises(
        rp.NotPositiveDefiniteError, match=r"^cholesky: a is not positive definite in 1 of 2 events"
    ) as caught:
        rp.cholesky(np.stack([A, -A]))
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == str(caught.value)
    np.testing.assert_array_equal(error.info, [0, 1])
    np.testing.assert_array_equal(error.indices, [[1]])


# ---- random numbers

KEY_FORMS = "an int in [0, 2**64), a JAX key, a numpy.random.Generator or a SeedSequence"
KEY_OWNERS = {
    "normal": lambda key: normal(2, key=key),
    "bits": lambda key: bits(2, key=key),
    "fold_in": lambda key: fold_in(key, 0),
    "Draw": lambda key: Draw(key, 0),
    "elbo": lambda key: rp.elbo(Q, log_joint, key=key),
    "MultivariateNormal": lambda key: Q.rsample((2,), key=key),
    "MultivariateNormalDiag": lambda key: Q_DIAG.rsample_and_log_prob(key=key),
}


@pytest.mark.parametrize("owner", KEY_OWNERS)
def test_what_is_no_key_is_refused(owner):
    for key in [1.0, np.float64(3), True, None, "5", b"5", [1, 2], np.array([1, 2]), np.zeros(3, np.uint32), {}]:
        message = f"{owner}: key must be {KEY_FORMS}, got {type(key).__name__}"
        refused(TypeError, message, KEY_OWNERS[owner], key)
    for key in [-1, 2**64, np.int64(-3)]:
        refused(ValueError, f"{owner}: key must be in [0, 2**64), got {key}", KEY_OWNERS[owner], key)


@pytest.mark.parametrize(("function", "name", "limits", "beyond"), [
    (lambda x: bits(x, key=0), "bits: n", ">= 0", [-1]),
    (lambda x: bits(2, key=0, stream=x), "bits: stream", "in [0, 2**64 - 1)", [-1, 2**64 - 1, 2**64]),
    (lambda x: bits(2, key=0, offset=x), "bits: offset", "in [0, 2**63)", [-1, 2**63]),
    (lambda x: normal(2, key=0, stream=x), "normal: stream", "in [0, 2**64 - 1)", [-1, 2**64 - 1]),
    (lambda x: normal(2, key=0, offset=x), "normal: offset", "in [0, 2**63)", [-1, 2**63]),
    (lambda x: fold_in(0, x), "fold_in: data", "in [0, 2**64 - 1)", [-1, 2**64 - 1, 2**70]),
    (lambda x: rp.elbo(Q, log_joint, key=0, num_samples=x), "elbo: num_samples", ">= 1", [0, -1]),
], ids=lambda x: x if isinstance(x, str) else "")  # fmt: skip
def test_what_is_no_such_integer_is_refused(function, name, limits, beyond):
    for value in (1.5, 1.0, True, None, "1", [1], np.zeros(2, int)):
        refused(TypeError, f"{name} must be an integer {limits}, got {value!r}", function, value)
    for value in beyond:
        refused(ValueError, f"{name} must be {limits}, got {value}", function, value)


@pytest.mark.parametrize(("function", "name"), [
    (lambda shape: normal(shape, key=0), "normal: shape"),
    (lambda shape: Q.rsample(shape, key=0), "MultivariateNormal: sample_shape"),
    (lambda shape: Q_DIAG.rsample_and_log_prob(shape, key=0), "MultivariateNormalDiag: sample_shape"),
], ids=["normal", "full", "diag"])  # fmt: skip
def test_what_is_no_shape_is_refused(function, name):
    for shape in (2.0, None, "32", (2, 1.5), (True,), True, ((1,),), [None]):
        message = f"{name} must be an integer or a tuple of integers, got {shape!r}"
        refused(TypeError, message, function, shape)
    for shape in (-1, (2, -1)):
        refused(ValueError, f"{name} must be >= 0, got -1", function, shape)


@pytest.mark.parametrize(("keywords", "message"), [
    ({"dtype": "float16"}, "dtype must be float32 or float64, got float16"),
    ({"dtype": int}, "dtype must be float32 or float64, got int64"),
    ({"dtype": ">f8"}, "dtype must be float32 or float64, got >f8"),
    ({"dtype": "real"}, "dtype must be float32 or float64, got 'real'"),
    ({"dtype": 3}, "dtype must be float32 or float64, got 3"),
    ({"like": np.zeros(2, int)}, "the dtype of like must be float32 or float64, got int64"),
    ({"like": [1.0]}, "like must be an array, got list"),
    ({"like": object()}, "like must be an array, got object"),
])  # fmt: skip
def test_normals_of_another_dtype_are_refused(keywords, message):
    refused(TypeError, f"normal: {message}", normal, 2, key=0, **keywords)


INDEX_OWNERS = {
    "Draw": lambda index: Draw(0, index),
    "MultivariateNormal": lambda index: Q.rsample(key=0, index=index),
    "MultivariateNormalDiag": lambda index: Q_DIAG.rsample_and_log_prob((2,), key=0, index=index),
    "elbo": lambda index: rp.elbo(Q, log_joint, key=0, index=index),
}


@pytest.mark.parametrize("owner", INDEX_OWNERS)
def test_what_is_no_index_is_refused(owner):
    call, name = INDEX_OWNERS[owner], f"{owner}: index"
    for index in ([0.0, 1.0], [True, False], "01", [None, 1], [1j, 2], [[1, 2], [3]]):
        refused(TypeError, f"{name} must hold integers, got {index!r}", call, index)
    for array in (np.zeros(2), np.zeros(2, bool), np.zeros(2, "m8[s]"), np.array([0.0, 1], object)):
        refused(TypeError, f"{name} must hold integers, got {array.dtype}", call, array)
    refused(ValueError, f"{name} must be >= 0, got -1", call, [0, -1])
    for big in (2**64 - 1, 2**64, 2**70):
        refused(ValueError, f"{name} must be < 2**64 - 1, the stream that fold_in uses, got {big}", call, [0, big])


@pytest.mark.parametrize(
    "index", [[0, 2**64 - 2], (np.int64(0), np.uint64(2**64 - 2)), np.array([0, 2**64 - 2], object)]
)
def test_an_index_may_hold_small_and_large_integers(index):
    """NumPy alone makes floats of such a list."""
    same_bits(Draw(0, index).index, np.array([0, 2**64 - 2], np.uint64))


@pytest.mark.parametrize("owner", [owner for owner in INDEX_OWNERS if owner != "Draw"])
def test_an_index_of_another_shape_than_the_batch_is_refused(owner):
    for index in (np.int64(0), np.zeros(3, int), np.zeros((2, 1), int), np.zeros((1, 2), int)):
        message = f"{owner}: index must have the batch shape (2,), got {index.shape}"
        refused(ValueError, message, INDEX_OWNERS[owner], index)


@pytest.mark.parametrize(("op", "args", "name"), [
    (rp.normal_tril_transform, (Draw(0, 0), np.zeros(2), np.eye(2)), "noise"),
    (rp.normal_tril_transform, (np.zeros(2), Draw(0, 0), np.eye(2)), "loc"),
    (rp.OPS["elbo_tril_combine"], (np.zeros((1, 2)), Draw(0, 0), np.zeros((1, 2)), np.eye(2)), "log_prob"),
], ids=["noise", "loc", "log_prob"])  # fmt: skip
def test_a_draw_is_refused_where_noise_is_not_made(op, args, name):
    refused(TypeError, f"{op.name}: {name} must be an array, got a Draw", op, *args)


def test_a_draw_needs_the_number_of_draws():
    op = rp.OPS["elbo_diag_linear_gaussian"]
    args = Draw(0, 0), np.zeros(2), np.ones(2), np.zeros(3), np.zeros((3, 2)), np.zeros(3), 1.0
    refused(TypeError, f"{op.name} needs the keyword s", op, *args)
    refused(ValueError, f"{op.name}: s must be >= 0, got -1", op, *args, s=-1)


# ---- distributions

LOC, ONES, EYE = np.zeros((2, 3)), np.ones(3), np.eye(3)
Q, Q_DIAG = rp.MultivariateNormal(LOC, scale_tril=EYE), rp.MultivariateNormalDiag(LOC, ONES)
MATRICES = ("scale_tril", "covariance_matrix", "precision_matrix")


def log_joint(z):
    return -0.5 * (z * z).sum(-1), -z


def full(loc, **matrix):
    return rp.MultivariateNormal(loc, **matrix)


BAD_LOCS = [  # for both families
    (None, TypeError, "loc must be an array, got NoneType"),
    ([0.0, 0.0, 0.0], TypeError, "loc must be an array, got list"),
    (0.0, TypeError, "loc must be an array, got float"),
    (np.zeros(3, int), TypeError, "loc must be float32 or float64, got int64; convert it with .astype"),
    (np.zeros(3, complex), TypeError, "loc must be float32 or float64, got complex128"),
    (np.float64(0), ValueError, "loc must have shape (..., d), got ()"),
    (np.array([0, np.nan, 0]), ValueError, "loc must be finite, got nan at [1]"),
    (np.array([[0, 0, 0], [0, 0, -np.inf]]), ValueError, "loc must be finite, got -inf at [1, 2]"),
]


@pytest.mark.parametrize(("loc", "error", "message"), BAD_LOCS, ids=[message for *_, message in BAD_LOCS])
def test_a_location_that_does_not_fit_is_refused(loc, error, message):
    refused(error, f"MultivariateNormalDiag: {message}", rp.MultivariateNormalDiag, loc, ONES)
    for name in MATRICES:
        refused(error, f"MultivariateNormal: {message}", rp.MultivariateNormal, loc, **{name: EYE})


@pytest.mark.parametrize(("scale_diag", "error", "message"), [
    (None, TypeError, "scale_diag must be an array, got NoneType"),
    (1.0, TypeError, "scale_diag must be an array, got float"),
    ([1.0, 1.0, 1.0], TypeError, "scale_diag must be an array, got list"),
    (np.ones(3, "f2"), TypeError, "scale_diag must be float32 or float64, got float16; convert it with .astype"),
    (np.ones(3, "f4"), TypeError, "loc is float64 and scale_diag is float32; they must have one dtype"),
    (np.float64(1), ValueError, "scale_diag must have shape (..., d) with d = 3 (from loc), got ()"),
    (np.ones(4), ValueError, "scale_diag must have shape (..., d) with d = 3 (from loc), got (4,)"),
    (np.ones((5, 3)), ValueError, "batch shapes do not broadcast: loc (2,), scale_diag (5,)"),
    (np.array([1, 0.0, 1]), ValueError, "scale_diag must be > 0, got 0.0 at [1]"),
    (-np.ones((2, 3)), ValueError, "scale_diag must be > 0, got -1.0 at [0, 0]"),
    (np.array([1, 1, np.nan]), ValueError, "scale_diag must be finite, got nan at [2]"),
    (np.array([1, 1, np.inf]), ValueError, "scale_diag must be finite, got inf at [2]"),
], ids=str)  # fmt: skip
def test_a_diagonal_scale_that_does_not_fit_is_refused(scale_diag, error, message):
    refused(error, f"MultivariateNormalDiag: {message}", rp.MultivariateNormalDiag, LOC, scale_diag)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize(("matrix", "error", "message"), [
    (EYE.tolist(), TypeError, "{} must be an array, got list"),
    (np.eye(3, dtype=int), TypeError, "{} must be float32 or float64, got int64; convert it with .astype"),
    (np.eye(3, dtype="f4"), TypeError, "loc is float64 and {} is float32; they must have one dtype"),
    (ONES, ValueError, "{} must have shape (..., d, d) with d = 3 (from loc), got (3,)"),
    (np.ones((3, 4)), ValueError, "{} must have shape (..., d, d) with d = 3 (from loc), got (3, 4)"),
    (np.eye(4), ValueError, "{} must have shape (..., d, d) with d = 3 (from loc), got (4, 4)"),
    (np.stack([EYE] * 5), ValueError, "batch shapes do not broadcast: loc (2,), {} (5,)"),
    (np.where(EYE == 1, 1.0, np.nan), ValueError, "{} must be finite, got nan at [1, 0]"),
    (np.stack([EYE, np.where(EYE == 1, np.inf, 0.0)]), ValueError, "{} must be finite, got inf at [1, 0, 0]"),
], ids=["list", "int", "float32", "vector", "not square", "size", "batch", "nan", "inf"])  # fmt: skip
def test_a_matrix_that_does_not_fit_is_refused(name, matrix, error, message):
    refused(error, f"MultivariateNormal: {message.format(name)}", rp.MultivariateNormal, LOC, **{name: matrix})


@pytest.mark.parametrize(("given", "came"), [
    ((), "none"),
    (("scale_tril", "covariance_matrix"), "scale_tril, covariance_matrix"),
    (("covariance_matrix", "precision_matrix"), "covariance_matrix, precision_matrix"),
    (MATRICES, "scale_tril, covariance_matrix, precision_matrix"),
])  # fmt: skip
def test_exactly_one_matrix_is_taken(given, came):
    message = f"MultivariateNormal takes exactly one of {', '.join(MATRICES)}, got {came}"
    refused(TypeError, message, rp.MultivariateNormal, LOC, **dict.fromkeys(given, EYE))


def test_a_scale_tril_needs_a_positive_diagonal():
    for matrix, came in [(np.diag([1, 0.0, 1]), "0.0 at [1]"), (np.stack([EYE, -EYE]), "-1.0 at [1, 0]")]:
        message = f"MultivariateNormal: the diagonal of scale_tril must be > 0, got {came}"
        refused(ValueError, message, rp.MultivariateNormal, LOC, scale_tril=matrix)


@pytest.mark.parametrize("name", ["covariance_matrix", "precision_matrix"])
def test_a_matrix_that_is_not_positive_definite_is_refused_with_its_minor(name):
    bad = np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
    prefix = f"MultivariateNormal: {name} is not positive definite"
    error = rp.NotPositiveDefiniteError
    refused(error, f"{prefix} (leading minor 2)", rp.MultivariateNormal, LOC, **{name: bad})
    message = f"{prefix} in 1 of 2 events: [1] (leading minor 2)"
    refused(error, message, rp.MultivariateNormal, LOC, **{name: np.stack([EYE, bad])})


def test_what_stands_above_the_diagonal_is_not_looked_at():
    spoiled = EYE + np.triu(np.full((3, 3), np.nan), 1)
    for name in MATRICES:
        same_bits(rp.MultivariateNormal(LOC, **{name: spoiled}).log_prob(LOC), Q.log_prob(LOC))


@pytest.mark.parametrize("q", [Q, Q_DIAG], ids=["full", "diag"])
def test_a_value_that_does_not_fit_is_refused(q):
    owner = type(q).__name__
    for value, error, message in [
        (None, TypeError, "value must be an array, got NoneType"),
        ([0.0] * 3, TypeError, "value must be an array, got list"),
        (0.0, TypeError, "value must be an array, got float"),
        (np.zeros(3, int), TypeError, "value must be float32 or float64, got int64; convert it with .astype"),
        (np.zeros(3, "f4"), TypeError, "value is float32 and loc is float64; they must have one dtype"),
        (np.zeros(4), ValueError, "value must have shape (..., d) with d = 3, got (4,)"),
        (np.float64(0), ValueError, "value must have shape (..., d) with d = 3, got ()"),
    ]:
        refused(error, f"{owner}: {message}", q.log_prob, value)
    with pytest.raises(ValueError, match=r"batch shapes do not broadcast: value \(5,\), loc \(2,\), scale"):
        q.log_prob(np.zeros((5, 3)))


@pytest.mark.parametrize("q", [Q, Q_DIAG], ids=["full", "diag"])
def test_a_distribution_is_frozen(q):
    owner, loc = type(q).__name__, q.loc
    refused(AttributeError, f"{owner} is frozen; make a new one to change loc", setattr, q, "loc", ONES)
    refused(AttributeError, f"{owner} is frozen; make a new one to change other", setattr, q, "other", 1)
    refused(AttributeError, f"{owner} is frozen; loc stays", delattr, q, "loc")
    assert q.loc is loc


SINGLE = rp.MultivariateNormalDiag(np.zeros(3, "f4"), np.ones(3, "f4"))


@pytest.mark.parametrize(("q", "p", "error", "message"), [
    (3, Q, TypeError, "q must be a Gaussian of this package, got int"),
    (Q, None, TypeError, "p must be a Gaussian of this package, got NoneType"),
    (Q, rp.MultivariateNormal, TypeError, "p must be a Gaussian of this package, got type"),
    (Q, rp.MultivariateNormalDiag(np.zeros(4), np.ones(4)), ValueError, "event shapes differ: q has (3,), p has (4,)"),
    (Q, rp.MultivariateNormalDiag(np.zeros((5, 3)), ONES), ValueError, "batch shapes do not broadcast: q (2,), p (5,)"),
    (Q, SINGLE, TypeError, "q is float64 and p is float32; they must have one dtype"),
    (SINGLE, Q_DIAG, TypeError, "q is float32 and p is float64; they must have one dtype"),
])  # fmt: skip
def test_kl_divergence_refuses(q, p, error, message):
    refused(error, f"kl_divergence: {message}", rp.kl_divergence, q, p)


# ---- targets and the ELBO

X, WEIGHT, BIAS = np.zeros((2, 5)), np.zeros((5, 3)), np.zeros(5)
DATA_DIM = "must have shape (..., data_dim) with data_dim = 5 (from weight)"


@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"x": None}, TypeError, "x must be an array, got NoneType"),
    ({"x": X.tolist()}, TypeError, "x must be an array, got list"),
    ({"x": X.astype(int)}, TypeError, "x must be float32 or float64, got int64; convert it with .astype"),
    ({"x": X.astype(complex)}, TypeError, "x must be float32 or float64, got complex128"),
    ({"weight": WEIGHT.astype("f4")}, TypeError, "x is float64 and weight is float32; they must have one dtype"),
    ({"bias": BIAS.astype("f4")}, TypeError, "x is float64 and bias is float32; they must have one dtype"),
    ({"noise_scale": np.float32(1)}, TypeError, "x is float64 and noise_scale is float32; they must have one dtype"),
    ({"weight": BIAS}, ValueError, "weight must have shape (..., data_dim, latent_dim), got (5,)"),
    ({"x": np.zeros((2, 4))}, ValueError, f"x {DATA_DIM}, got (2, 4)"),
    ({"bias": np.zeros(4)}, ValueError, f"bias {DATA_DIM}, got (4,)"),
    ({"bias": np.float64(0)}, ValueError, f"bias {DATA_DIM}, got ()"),
    ({"noise_scale": np.ones(3)}, ValueError,
     "batch shapes do not broadcast: x (2,), weight (), bias (), noise_scale (3,)"),
    ({"noise_scale": None}, TypeError, "noise_scale must be a number or an array, got NoneType"),
    ({"noise_scale": "1"}, TypeError, "noise_scale must be a number or an array, got str"),
    ({"noise_scale": True}, TypeError, "noise_scale must be a number or an array, got bool"),
    ({"noise_scale": 0}, ValueError, "noise_scale must be finite and > 0, got 0.0"),
    ({"noise_scale": -1.5}, ValueError, "noise_scale must be finite and > 0, got -1.5"),
    ({"noise_scale": np.nan}, ValueError, "noise_scale must be finite and > 0, got nan"),
    ({"noise_scale": np.array([1, np.inf])}, ValueError, "noise_scale must be finite and > 0, got inf"),
], ids=str)  # fmt: skip
def test_a_linear_gaussian_target_that_does_not_fit_is_refused(changed, error, message):
    fields = {"x": X, "weight": WEIGHT, "bias": BIAS, "noise_scale": 1.0, **changed}
    refused(error, f"LinearGaussian: {message}", rp.targets.LinearGaussian, **fields)


def linear_gaussian(x=X, weight=WEIGHT, dtype=np.float64):
    return rp.targets.LinearGaussian(x.astype(dtype), weight.astype(dtype), BIAS.astype(dtype), 1.0)


NO_TARGET = "log_joint must be callable or a target of reparam.targets"


@pytest.mark.parametrize(("changed", "error", "message"), [
    ({"q": 3}, TypeError, "q must be a MultivariateNormal or MultivariateNormalDiag, got int"),
    ({"q": rp.MultivariateNormal}, TypeError, "q must be a MultivariateNormal or MultivariateNormalDiag, got type"),
    ({"log_joint": None}, TypeError, f"{NO_TARGET}, got NoneType"),
    ({"log_joint": X}, TypeError, f"{NO_TARGET}, got ndarray"),
    ({"estimator": "score"}, ValueError, f"estimator must be one of {', '.join(map(repr, ESTIMATORS))}, got 'score'"),
    ({"estimator": None}, ValueError, f"estimator must be one of {', '.join(map(repr, ESTIMATORS))}, got None"),
    ({"grad": "no"}, TypeError, "grad must be True or False, got 'no'"),
    ({"grad": None}, TypeError, "grad must be True or False, got None"),
    ({"log_joint": linear_gaussian(weight=np.zeros((5, 4)))}, ValueError,
     "the target's latent_dim is 4, but q has event shape (3,)"),
    ({"log_joint": linear_gaussian(x=np.zeros((7, 5)))}, ValueError,
     "batch shapes do not broadcast: q (2,), the target (7,)"),
    ({"log_joint": linear_gaussian(x=np.zeros((4, 2, 5)))}, ValueError,
     "the target's batch shape must broadcast to q's, (2,), got (4, 2)"),
    ({"log_joint": linear_gaussian(dtype=np.float32)}, TypeError,
     "the target is float32 and q is float64; they must have one dtype"),
], ids=str)  # fmt: skip
def test_the_elbo_refuses(changed, error, message):
    refused(error, f"elbo: {message}", rp.elbo, **{"q": Q, "log_joint": log_joint, "key": 0, **changed})


LOG_PROB, GRADIENT = np.zeros((4, 2)), np.zeros((4, 2, 3))
RETURN = "log_joint must return (log_prob, gradient), got "


@pytest.mark.parametrize(("returned", "error", "message"), [
    (None, TypeError, f"{RETURN}NoneType"),
    (LOG_PROB, TypeError, f"{RETURN}ndarray"),
    ([LOG_PROB, GRADIENT], TypeError, f"{RETURN}list"),
    ((LOG_PROB,), TypeError, f"{RETURN}tuple of 1"),
    ((LOG_PROB, GRADIENT, None), TypeError, f"{RETURN}tuple of 3"),
    ((None, GRADIENT), TypeError, "log_joint's log_prob must be an array, got NoneType"),
    ((0.0, GRADIENT), TypeError, "log_joint's log_prob must be an array, got float"),
    ((LOG_PROB.astype(int), GRADIENT), TypeError,
     "log_joint's log_prob must be float32 or float64, got int64; convert it with .astype"),
    ((LOG_PROB.astype("f4"), GRADIENT), TypeError,
     "log_joint's log_prob is float32 and q is float64; they must have one dtype"),
    ((LOG_PROB[0], GRADIENT), ValueError, "log_joint's log_prob must have shape (4, 2), got (2,)"),
    ((GRADIENT, LOG_PROB), ValueError, "log_joint's log_prob must have shape (4, 2), got (4, 2, 3)"),
    ((LOG_PROB, None), TypeError, "log_joint's gradient must be an array or a function, got NoneType"),
    ((LOG_PROB, "z"), TypeError, "log_joint's gradient must be an array or a function, got str"),
    ((LOG_PROB, LOG_PROB), ValueError, "log_joint's gradient must have shape (4, 2, 3), got (4, 2)"),
    ((LOG_PROB, GRADIENT.astype("f4")), TypeError,
     "log_joint's gradient is float32 and q is float64; they must have one dtype"),
    ((LOG_PROB, lambda weights: None), TypeError, "the pullback's result must be an array, got NoneType"),
    ((LOG_PROB, lambda weights: weights), ValueError, "the pullback's result must have shape (4, 2, 3), got (4, 2)"),
    ((LOG_PROB, lambda weights: GRADIENT.astype("f4")), TypeError,
     "the pullback's result is float32 and q is float64; they must have one dtype"),
], ids=[str(k) for k in range(18)])  # fmt: skip
@pytest.mark.parametrize("q", [Q, Q_DIAG], ids=["full", "diag"])
def test_a_log_joint_that_returns_something_else_is_refused(returned, error, message, q):
    refused(error, f"elbo: {message}", rp.elbo, q, lambda _: returned, key=0, num_samples=4)


def test_an_error_of_the_log_joint_or_its_pullback_passes_through():
    error = KeyError("mine")

    def fail(_):
        raise error

    for function in (fail, lambda z: (z.sum(-1), fail)):
        with pytest.raises(KeyError) as caught:
            rp.elbo(Q, function, key=0)
        assert caught.value is error


def test_after_a_refused_call_the_next_one_is_right():
    expected = rp.tril_solve(EYE, ONES)
    for bad in (np.zeros(4), np.zeros(3, int), None):
        with pytest.raises((TypeError, ValueError)):
            rp.tril_solve(EYE, bad)
        same_bits(rp.tril_solve(EYE, ONES), expected)
