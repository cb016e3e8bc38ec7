# SPDX-License-Identifier: MIT
"""Bad calls of every pass of every op, made from the signatures: each operand and each keyword, mistake by mistake.

The error has its type, and a message that names the op, the operand, what came and what was expected, in a first call
and where the plan of such a call is known. What was given and what was to be filled stays as it was.
"""

import numpy as np
import pytest

import reparam as rp
from hostile import BATCH, PASSES, D, arguments, call, refused, results
from reparam import _dispatch
from reparam.random import Draw
from support import extents_of


def instead(p, k, value):
    """The good arrays, but for operand k."""
    arrays = arguments(p)[0]
    return [*arrays[:k], value, *arrays[k + 1 :]]


def larger(p, operand, symbol, batch=BATCH):
    """Ones of its shape, but for one size."""
    sizes = extents_of(p.op, D)
    return np.ones((batch, *operand.event_shape({**sizes, symbol: sizes[symbol] + 1})))


LEFT_OUT = object()


# ---- mistakes: each gives (arrays, keywords beside the good ones, error, message) for a pass


def element_types(p):
    for k, operand in enumerate(p.inputs):
        wanted = "float32 or float64" if operand.item == "real" else operand.item
        for dtype in map(np.dtype, ["i8", "?", "f2", "c16", "O", "U3"]):
            hint = "; convert it with .astype" if dtype.kind in "biuf" else ""
            message = f"{operand.name} must be {wanted}, got {dtype}{hint}"
            yield instead(p, k, np.zeros(arguments(p)[0][k].shape, dtype)), {}, TypeError, message


def no_arrays(p):
    for k, operand in enumerate(p.inputs):
        others = ["a number"] * operand.takes_number + ["a Draw"] * operand.drawable + ["None"] * (k >= p.primals)
        wanted = {0: "an array", 1: "an array or {}", 2: "an array, {} or {}"}[len(others)].format(*others)
        for value in [None, [1.0], "1", True, 1j, object()]:
            if value is not None or k < p.primals:
                message = f"{operand.name} must be {wanted}, got {type(value).__name__}"
                yield instead(p, k, value), {}, TypeError, message
        if not operand.drawable:
            draw = Draw(0, np.arange(BATCH))
            yield instead(p, k, draw), {}, TypeError, f"{operand.name} must be {wanted}, got a Draw"


def masked_arrays(p):
    for k, operand in enumerate(p.inputs):
        masked = np.ma.masked_array(np.ones(arguments(p)[0][k].shape), False)
        message = f"{operand.name} must be an array without a mask; fill the masked entries with .filled"
        yield instead(p, k, masked), {}, TypeError, message


def shape_message(operand, known, came):
    because = f" with {' and '.join(dict.fromkeys(known))}" if known else ""
    return f"{operand.name} must have shape (..., {operand.event_text()}){because}, got {came}"


def known_sizes(p, k):
    """Sizes of operand k that others before it have shown, as the message tells them."""
    sizes, shown = extents_of(p.op, D), {s: o.name for o in reversed(p.inputs[:k]) for s in o.symbols}
    return [f"{s} = {sizes[s]} (from {shown[s]})" for s in p.inputs[k].symbols if s in shown]


def too_few_dims(p):
    for k, operand in enumerate(p.inputs):
        for rank in range(operand.event_rank):
            value = np.ones((D,) * rank)
            yield instead(p, k, value), {}, ValueError, shape_message(operand, known_sizes(p, k), value.shape)


def shapes_of_no_matrix_or_triangle(p):
    for k, operand in enumerate(p.inputs):
        for batch in (BATCH, 0):
            event = {"tril": (D, D + 1), "sym": (D, D + 1), "vec": (5,)}.get(operand.kind)
            if event is not None:
                message = shape_message(operand, known_sizes(p, k), (batch, *event))
                yield instead(p, k, np.ones((batch, *event))), {}, ValueError, message


def sizes_that_differ(p):
    for k, operand in enumerate(p.inputs):
        for symbol in operand.symbols:
            if any(symbol in o.symbols for o in p.inputs[:k]):
                for value in (larger(p, operand, symbol), larger(p, operand, symbol, batch=0)):
                    yield instead(p, k, value), {}, ValueError, shape_message(operand, known_sizes(p, k), value.shape)


def batches_that_do_not_broadcast(p):
    for k, operand in enumerate(p.inputs if len(p.inputs) > 1 else ()):
        given = arguments(p)[0][k]
        listed = ", ".join(f"{o.name} {(BATCH + (o is operand),)}" for o in p.inputs)
        message = f"batch shapes do not broadcast: {listed}"
        yield instead(p, k, np.ones((BATCH + 1, *given.shape[1:]), given.dtype)), {}, ValueError, message
        if operand.drawable:
            sizes = {s: extents_of(p.op, D)[s] for s in p.free_symbols}
            yield instead(p, k, Draw(0, np.arange(BATCH + 1))), sizes, ValueError, message


def too_many_batch_dims(p):
    for k, operand in enumerate(p.inputs):
        for dims in (17, 40):  # NumPy broadcasts 32
            value = arguments(p)[0][k][(0, *[None] * dims)]
            message = f"{operand.name} may have at most 16 batch dims, got {dims}"
            yield instead(p, k, value), {}, ValueError, message


def two_element_types(p):
    real = [k for k, o in enumerate(p.inputs) if o.item == "real"]
    for k in real[1:]:
        message = f"{p.inputs[real[0]].name} is float64 and {p.inputs[k].name} is float32; they must have one dtype"
        yield instead(p, k, arguments(p)[0][k].astype(np.float32)), {}, TypeError, message


def takes(p):
    return f" takes {len(p.inputs)} array{'s'[: len(p.inputs) != 1]} ({', '.join(o.name for o in p.inputs)})"


def wrong_numbers_of_arrays(p):
    arrays = arguments(p)[0]
    for given in ([], arrays[:-1], [*arrays, arrays[0]], [*arrays, *arrays]):
        if given or len(arrays) > 1:
            yield given, {}, TypeError, f"{takes(p)}, got {len(given)}"


def names_twice_or_missing(p):
    named = {o.name: x for o, x in zip(p.inputs, arguments(p)[0], strict=True)}
    first, *others = named
    yield [named[first]], named, TypeError, f" got two values for {first}"
    for name in others:
        rest = {n: x for n, x in named.items() if n != name}
        yield [], rest, TypeError, f"{takes(p)}; {name} is missing"
    if len(others) > 1:
        yield [], {first: named[first]}, TypeError, f"{takes(p)}; {' and '.join(others)} are missing"


def unknown_keywords(p):
    own = ["packed"] * p.op.packable + ["wrt"] * p.reverse + ["out"] * bool(p.outputs)
    known = ", ".join([*(o.name for o in p.inputs), *p.free_symbols, *p.op.attributes, *own])
    unknown = {"scale_trill": 1, "Out": None, "": [1]}
    unknown |= {} if p.op.packable else {"packed": False}
    unknown |= {} if p.reverse else {"wrt": None}
    unknown |= {"dtype": "float64"} if any(o.item == "real" for o in p.inputs) else {}
    for name, value in unknown.items():
        message = f" got an unexpected keyword {name!r}; it takes {known}"
        yield arguments(p)[0], {name: value}, TypeError, message


def packed_that_is_no_bool(p):
    for value in (None, 1, "yes", np.ones(2)) if p.op.packable else ():
        message = f"packed must be True or False, got {value!r}"
        yield arguments(p)[0], {"packed": value}, TypeError, message


def wrt_that_names_no_inputs(p):
    names = [o.name.removeprefix("ct_") for o in p.outputs[p.values :]]
    for value in (3, names[0], {names[0]}, np.array(names[:1])) if p.reverse else ():
        message = f"wrt must be a tuple of names out of {', '.join(names)}, got {value!r}"
        yield arguments(p)[0], {"wrt": value}, TypeError, message
    for value in (f"ct_{names[0]}", "", 3, None, []) if p.reverse else ():
        message = f"wrt must name inputs out of {', '.join(names)}, got {value!r}"
        yield arguments(p)[0], {"wrt": (names[0], value)}, ValueError, message


def attributes_of_a_wrong_kind(p):
    for name, default in p.op.defaults.items():
        if name in p.op.choices:
            error, wanted = ValueError, f"one of {', '.join(map(repr, p.op.choices[name]))}"
        else:
            error, wanted = TypeError, "True or False" if isinstance(default, bool) else f"a number{limits(p, name)}"
        other = 1 if isinstance(default, bool) else True
        for value in ["cubic", None, 3j, [0.5], np.zeros(2), np.array(1.0), "1", {}, other]:
            yield arguments(p)[0], {name: value}, error, f"{name} must be {wanted}, got {value!r}"


def limits(p, name):
    low, high = p.op.limits.get(name, (-np.inf, np.inf))
    return f" in [{low:g}, {high:g})" if high < np.inf else f" >= {low:g}" if low > -np.inf else ""


def numbers_out_of_range(p):
    for name, (low, high) in p.op.limits.items():
        wanted = f"{name} must be a finite number{limits(p, name)}, got "
        for value in [float(np.nextafter(low, -np.inf)), low - 1, high, -np.inf, np.nan]:
            yield arguments(p)[0], {name: value}, ValueError, f"{wanted}{value!r}"
        for value in (-(10**400), -(10**5000)):  # the second one has more digits than Python writes
            yield arguments(p)[0], {name: value}, ValueError, f"{wanted}int"


def keywords_left_out(p):
    needed = [name for name, default in p.op.defaults.items() if default is None]
    for name in needed:
        yield arguments(p)[0], {name: LEFT_OUT}, TypeError, f" needs the keyword {name}"
    if len(needed) > 1:
        yield arguments(p)[0], dict.fromkeys(needed, LEFT_OUT), TypeError, f" needs the keywords {', '.join(needed)}"
    for name in p.free_symbols:
        if not any(name in o.symbols for o in p.inputs):
            yield arguments(p)[0], {name: LEFT_OUT}, TypeError, f" needs the keyword {name}"


def dtypes_where_no_array_has_one(p):
    for dtype in ("float16", ">f8") if all(o.item != "real" for o in p.inputs) else ():
        yield arguments(p)[0], {"dtype": dtype}, TypeError, f"dtype must be float32 or float64, got {dtype}"


def sizes_by_keyword(p):
    for name in p.free_symbols:
        for value in (float(extents_of(p.op, D)[name]), True, 1.5, None, "1", [1], np.ones(2)):
            message = f"{name} must be an integer >= 0, got {value!r}"
            yield arguments(p)[0], {name: value}, TypeError, message
        yield arguments(p)[0], {name: -1}, ValueError, f"{name} must be >= 0, got -1"
        yield arguments(p)[0], {name: 2**63}, ValueError, f"{name} must be < 2**63, got {2**63}"
        for k, operand in enumerate(p.inputs):
            if name in operand.symbols:
                message = shape_message(operand, [f"{name} = 99 (from the keyword)"], arguments(p)[0][k].shape)
                yield arguments(p)[0], {name: 99}, ValueError, message


def outs_that_do_not_fit(p):
    good = tuple(np.full_like(x, 77) for x in results(p)) if p.outputs else ()
    for k, operand in enumerate(p.outputs):
        x, name = good[k], f"out for {operand.name}"
        read_only = x.copy()
        read_only.flags.writeable = False
        once = np.lib.stride_tricks.as_strided(x, x.shape, (0,) * x.ndim)
        swapped = x.dtype.newbyteorder(">")
        for bad, error, message in [
            (np.full((*x.shape, 1), 77, x.dtype), ValueError, f" must have shape {x.shape}, got {(*x.shape, 1)}"),
            (x[1:], ValueError, f" must have shape {x.shape}, got {x[1:].shape}"),
            (x[:0], ValueError, f" must have shape {x.shape}, got {x[:0].shape}"),
            (x.astype("f2"), TypeError, f" must be {x.dtype}, got float16"),
            (x.astype(swapped), TypeError, f" must be {x.dtype}, got {swapped}"),
            (read_only, ValueError, " is read-only"),
            (once, ValueError, " has entries that share memory (a stride of 0)"),
            (x.tolist(), TypeError, " must be a NumPy array, got list"),
            (3.0, TypeError, " must be a NumPy array, got float"),
            (np.ma.masked_array(x), TypeError, " must be a NumPy array, got MaskedArray"),
        ]:
            out = (*good[:k], bad, *good[k + 1 :])
            yield arguments(p)[0], {"out": out if len(good) > 1 else bad}, error, name + message
        for j, other in enumerate(p.outputs[:k]):
            if good[j].shape == x.shape and good[j].dtype == x.dtype:
                out = (*good[:k], good[j], *good[k + 1 :])
                yield arguments(p)[0], {"out": out}, ValueError, f"out for {other.name} and {name} share memory"


def wrong_numbers_of_outs(p):
    count, names, one = len(p.outputs), ", ".join(o.name for o in p.outputs), np.full((BATCH, D), 77.0)
    wanted = f"a tuple of {count} arrays ({names})" if count > 1 else f"one array ({names})" if count else "left out"
    given = {"a tuple of 9": (one,) * 9} | ({} if count == 1 else {"ndarray": one, "list": [one] * count, "int": 3})
    given |= {"a tuple of 0": ()} if count else {}
    for came, out in given.items():
        yield arguments(p)[0], {"out": out}, TypeError, f"out must be {wanted}, got {came}"


MISTAKES = [
    element_types, no_arrays, masked_arrays, too_few_dims, shapes_of_no_matrix_or_triangle, sizes_that_differ,
    batches_that_do_not_broadcast, too_many_batch_dims, two_element_types, wrong_numbers_of_arrays,
    names_twice_or_missing, unknown_keywords, packed_that_is_no_bool, wrt_that_names_no_inputs,
    attributes_of_a_wrong_kind, numbers_out_of_range, keywords_left_out, dtypes_where_no_array_has_one,
    sizes_by_keyword, outs_that_do_not_fit, wrong_numbers_of_outs,
]  # fmt: skip


@pytest.mark.parametrize("plan", ["first", "again"])
@pytest.mark.parametrize("p", PASSES, ids=lambda p: p.name + "-packed" * (p.unpacked is not p))
def test_a_bad_call_is_refused(p, plan):
    rows = [row for mistake in MISTAKES for row in mistake(p)]
    results(p)
    with rp.backend("reference" if plan == "first" else "native"):
        for args, changed, error, message in rows:
            if plan == "first":
                _dispatch._plans.clear()
            text = p.name + ("" if message.startswith(" ") else ": ") + message
            keywords = {**arguments(p)[1], **changed}
            refused(error, text, call, p, *args, **{n: x for n, x in keywords.items() if x is not LEFT_OUT})


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.__name__)
def test_every_mistake_is_tried(mistake):
    assert any(list(mistake(p)) for p in PASSES)
