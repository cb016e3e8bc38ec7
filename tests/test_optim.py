# SPDX-License-Identifier: MIT
"""Adam against torch.optim.AdamW; layouts, state, schedules; a refused call changes nothing."""

import copy

import numpy as np
import pytest

import reparam as rp
from support import UNIT, same_bits

SHAPES = [(3, 4), (5,), (), (0, 2), (1001,)]

backend_axis = pytest.mark.usefixtures("backend")


def sample(rng, dtype, shapes=SHAPES):
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def gradients(steps, dtype, shapes=SHAPES):
    """Of every size from 1e-4 to 1e4, and 0."""
    rng = np.random.default_rng(11)
    scales = [np.asarray(10.0 ** rng.integers(-4, 5, shape) * (rng.random(shape) > 0.1)) for shape in shapes]
    return [[np.asarray(s * rng.standard_normal(s.shape), dtype) for s in scales] for _ in range(steps)]


def everything(optimizer):
    """A copy of all that a step may change."""
    return copy.deepcopy((optimizer.t, optimizer.params, optimizer.m, optimizer.v))


def same_state(actual, expected):
    assert actual[0] == expected[0]
    for one, two in zip(actual[1:], expected[1:], strict=True):
        same_bits(one, two)


# ---- the rule


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@backend_axis
def test_fifty_steps_are_those_of_torch_adamw_to_rounding(weight_decay, dtype, rng):
    torch = pytest.importorskip("torch")
    lr, steps, params = 0.01, 50, sample(rng, dtype)
    leaves = [torch.tensor(p) for p in params]
    ours = rp.optim.Adam(params, lr=lr, betas=(0.8, 0.99), eps=1e-7, weight_decay=weight_decay)
    theirs = torch.optim.AdamW(leaves, lr=lr, betas=(0.8, 0.99), eps=1e-7, weight_decay=weight_decay)
    start = copy.deepcopy(params)
    for grads in gradients(steps, dtype):
        ours.step(grads)
        for leaf, grad in zip(leaves, grads, strict=True):
            leaf.grad = torch.tensor(grad)
        theirs.step()
    for param, leaf, first in zip(params, leaves, start, strict=True):
        assert param.size == 0 or np.abs(param - first).max() > 10 * lr * weight_decay
        error = np.abs(param - leaf.numpy()) / (np.abs(param) + lr)
        assert error.max(initial=0) < steps * UNIT[dtype]


@backend_axis
def test_each_step_is_the_published_rule(dtype, rng):
    beta1, beta2, eps, lr, weight_decay = 0.8, 0.99, 1e-3, 0.05, 0.1
    (param,), m, v = sample(rng, dtype, [(50,)]), 0.0, 0.0
    optimizer = rp.optim.Adam(param, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    expected = param.astype(np.float64)
    for t, (grad,) in enumerate(gradients(20, dtype, [(50,)]), 1):
        optimizer.step(grad)
        g = grad.astype(np.float64)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        direction = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
        expected = expected - lr * weight_decay * expected - lr * direction
        assert optimizer.t == t
        assert (np.abs(param - expected) / (np.abs(expected) + lr)).max() < 4 * t * UNIT[dtype]


def test_the_first_step_moves_every_entry_by_the_rate_against_its_gradient(dtype):
    param = np.zeros(4, dtype)
    rp.optim.Adam(param, lr=0.25, eps=0.0).step(np.array([1e-3, -1e-3, 1e3, -5], dtype))
    np.testing.assert_allclose(param, [-0.25, 0.25, -0.25, 0.25], rtol=8 * UNIT[dtype])


def test_one_array_and_a_list_of_it_are_the_same(dtype, rng):
    one, two = sample(rng, dtype, [(7,)])[0], sample(rng, dtype, [(7,)])[0]
    two[...] = one
    alone, listed = rp.optim.Adam(one), rp.optim.Adam([two])
    for (grad,) in gradients(3, dtype, [(7,)]):
        alone.step(grad)
        listed.step([grad])
    same_bits(one, two)


def test_arrays_of_both_types_in_one_optimizer(rng):
    mixed = [*sample(rng, "float32", [(9,)]), *sample(rng, "float64", [(9,)])]
    apart = copy.deepcopy(mixed)
    together, single, double = rp.optim.Adam(mixed), rp.optim.Adam(apart[0]), rp.optim.Adam(apart[1])
    for a, b in zip(gradients(3, "float32", [(9,)]), gradients(3, "float64", [(9,)]), strict=True):
        together.step([a[0], b[0]])
        single.step(a)
        double.step(b)
    same_bits(mixed, apart)


def test_gradients_are_not_modified(dtype, rng):
    optimizer = rp.optim.Adam(sample(rng, dtype), weight_decay=0.1)
    (grads,) = gradients(1, dtype)
    before = copy.deepcopy(grads)
    optimizer.step(grads)
    same_bits(grads, before)


LAYOUTS = {  # arrays of shape (6, 5), made from bytes
    "transposed": lambda memory, dtype: memory[: 30 * dtype.itemsize].view(dtype).reshape(5, 6).T,
    "every second column": lambda memory, dtype: memory[: 60 * dtype.itemsize].view(dtype).reshape(6, 10)[:, ::2],
    "reversed": lambda memory, dtype: memory[: 30 * dtype.itemsize].view(dtype).reshape(6, 5)[::-1, ::-1],
    "unaligned": lambda memory, dtype: memory[1 : 30 * dtype.itemsize + 1].view(dtype).reshape(6, 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@backend_axis
def test_parameters_of_any_layout_are_updated_where_they_lie(layout, dtype, rng):
    param = LAYOUTS[layout](np.zeros(1000, np.uint8), np.dtype(dtype))
    (start,) = sample(rng, dtype, [(6, 5)])
    param[...] = start
    plain = start.copy()
    ours, expected = rp.optim.Adam(param, weight_decay=0.1), rp.optim.Adam(plain, weight_decay=0.1)
    for (grad,) in gradients(5, dtype, [(6, 5)]):
        ours.step(np.asfortranarray(grad))
        expected.step(grad)
    same_bits(param, plain)
    assert (param != start).all()
    same_bits(ours.m[0], expected.m[0])
    same_bits(ours.v[0], expected.v[0])


@backend_axis
def test_what_lies_between_the_entries_of_a_parameter_stays(dtype, rng):
    memory = np.full((6, 10), 7, dtype)
    optimizer = rp.optim.Adam(memory[1:5, 1::2])
    for (grad,) in gradients(2, dtype, [(4, 5)]):
        optimizer.step(grad + 1)
    assert (memory[1:5, 1::2] != 7).all()
    memory[1:5, 1::2] = 7
    assert (memory == 7).all()


@backend_axis
def test_a_nan_stays_in_its_own_entry(dtype, rng):
    (param,) = sample(rng, dtype, [(37,)])
    clean = param.copy()
    ours, expected = rp.optim.Adam(param), rp.optim.Adam(clean)
    for (grad,) in gradients(3, dtype, [(37,)]):
        expected.step(grad)
        hurt = grad.copy()
        hurt[20] = np.nan
        ours.step(hurt)
    for actual, exact in ((param, clean), (ours.m[0], expected.m[0]), (ours.v[0], expected.v[0])):
        assert np.isnan(actual[20])
        same_bits(np.delete(actual, 20), np.delete(exact, 20))


# ---- schedules and state


def test_a_schedule_is_asked_for_steps_one_two_three(dtype, rng):
    asked = []

    def schedule(step):
        asked.append(step)
        return 0.1 / step

    (param,) = sample(rng, dtype, [(4,)])
    by_hand = param.copy()
    scheduled, manual = rp.optim.Adam(param, lr=schedule), rp.optim.Adam(by_hand)
    for t, (grad,) in enumerate(gradients(4, dtype, [(4,)]), 1):
        scheduled.step(grad)
        manual.lr = 0.1 / t
        manual.step(grad)
        same_bits(param, by_hand)
    assert asked == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", [np.float32, np.float64, int])
def test_a_schedule_may_return_any_real_number(kind, rng):
    (param,) = sample(rng, "float64", [(4,)])
    plain = param.copy()
    rp.optim.Adam(param, lr=lambda _: kind(1)).step(np.ones(4))
    rp.optim.Adam(plain, lr=1.0).step(np.ones(4))
    same_bits(param, plain)


def test_a_state_that_is_loaded_goes_on_to_the_bit(dtype, rng):
    params = sample(rng, dtype)
    whole = rp.optim.Adam(params, lr=lambda step: 0.1 / step, weight_decay=0.1)
    steps = gradients(6, dtype)
    for grads in steps[:3]:
        whole.step(grads)
    other = copy.deepcopy(params)
    resumed = rp.optim.Adam(other, lr=lambda step: 0.1 / step, weight_decay=0.1)
    resumed.load_state_dict(whole.state_dict())
    for grads in steps[3:]:
        whole.step(grads)
        resumed.step(grads)
    same_state(everything(resumed), everything(whole))


def test_a_state_is_a_copy_both_ways(dtype, rng):
    optimizer = rp.optim.Adam(sample(rng, dtype))
    first, second = gradients(2, dtype)
    optimizer.step(first)
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    optimizer.step(second)
    same_bits(state["m"], kept["m"])
    same_bits(state["v"], kept["v"])
    assert state["t"] == 1
    optimizer.load_state_dict(state)
    before = everything(optimizer)
    for array in (*state["m"], *state["v"]):
        array[...] = np.nan
    same_state(everything(optimizer), before)


def test_the_text_of_an_optimizer(rng):
    optimizer = rp.optim.Adam([np.zeros((3, 4)), np.zeros(5)], lr=abs)
    rest = "betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0"
    assert repr(optimizer) == f"Adam(2 arrays of 17 entries, lr=abs, {rest}, t=0)"
    single = rp.optim.Adam(np.zeros(5), lr=0.1)
    single.step(np.ones(5))
    assert repr(single) == f"Adam(1 array of 5 entries, lr=0.1, {rest}, t=1)"


# ---- refusals


def locked(shape, dtype="float32"):
    array = np.zeros(shape, dtype)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"params": None}, TypeError, r"Adam: params must be an array or a list of arrays, got NoneType"),
        ({"params": 3.0}, TypeError, r"Adam: params must be an array or a list of arrays, got float"),
        ({"params": [1.0, 2.0]}, TypeError, r"Adam: params\[0\] must be a float32 or float64 array, got float"),
        (
            {"params": [np.zeros(2), None]},
            TypeError,
            r"Adam: params\[1\] must be a float32 or float64 array, got NoneType",
        ),
        ({"params": np.zeros(2, int)}, TypeError, r"Adam: params\[0\] must be a float32 or float64 array, got int64"),
        ({"params": np.zeros(2, ">f4")}, TypeError, r"Adam: params\[0\] must be a float32 or float64 array, got >f4"),
        ({"params": [np.zeros(2), locked(2)]}, ValueError, r"Adam: params\[1\] is read-only"),
        ({"params": np.broadcast_to(np.zeros(1), (3,))}, ValueError, r"Adam: params\[0\] is read-only"),
        ({"lr": np.nan}, ValueError, r"Adam: lr must be a finite number >= 0, got nan"),
        ({"lr": np.inf}, ValueError, r"Adam: lr must be a finite number >= 0, got inf"),
        ({"lr": -1e-3}, ValueError, r"Adam: lr must be a finite number >= 0, got -0.001"),
        ({"lr": "fast"}, TypeError, r"Adam: lr must be a number >= 0, got 'fast'"),
        ({"betas": 0.9}, ValueError, r"Adam: betas must be two numbers, got 0.9"),
        ({"betas": (0.9,)}, ValueError, r"Adam: betas must be two numbers, got \(0.9,\)"),
        ({"betas": (0.9, 0.99, 0.999)}, ValueError, r"Adam: betas must be two numbers, got \(0.9, 0.99, 0.999\)"),
        ({"betas": (0.9, 1.0)}, ValueError, r"Adam: betas must be in \[0, 1\), got \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, ValueError, r"Adam: betas must be a finite number >= 0, got -0.1"),
        ({"betas": (0.9, np.nan)}, ValueError, r"Adam: betas must be a finite number >= 0, got nan"),
        ({"betas": ("0.9", 0.99)}, TypeError, r"Adam: betas must be a number >= 0, got '0.9'"),
        ({"eps": -1e-8}, ValueError, r"Adam: eps must be a finite number >= 0, got -1e-08"),
        ({"weight_decay": -0.1}, ValueError, r"Adam: weight_decay must be a finite number >= 0, got -0.1"),
        ({"weight_decay": None}, TypeError, r"Adam: weight_decay must be a number >= 0, got None"),
    ],
)
def test_bad_arguments_are_named_with_what_came_and_what_was_expected(arguments, error, message):
    with pytest.raises(error, match=message):
        rp.optim.Adam(**{"params": np.zeros(3, np.float32), **arguments})


@pytest.fixture
def optimizer(rng):
    """Two steps old, of a float32 (3,) and a float64 (2, 2) array."""
    made = rp.optim.Adam([*sample(rng, "float32", [(3,)]), *sample(rng, "float64", [(2, 2)])], lr=0.1)
    for _ in range(2):
        made.step([np.ones(3, np.float32), np.ones((2, 2))])
    return made


GOOD = np.ones(3, np.float32), np.ones((2, 2))


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (None, TypeError, r"Adam: grads must be an array or a list of arrays, got NoneType"),
        (1.0, TypeError, r"Adam: grads must be an array or a list of arrays, got float"),
        (GOOD[0], ValueError, r"Adam: grads must hold 2 arrays, got 1"),
        ([], ValueError, r"Adam: grads must hold 2 arrays, got 0"),
        ([*GOOD, GOOD[0]], ValueError, r"Adam: grads must hold 2 arrays, got 3"),
        (
            [GOOD[0], np.ones((2, 3))],
            ValueError,
            r"grads\[1\] must have shape \(2, 2\) as params\[1\] has, got \(2, 3\)",
        ),
        ([GOOD[0], np.ones(4)], ValueError, r"grads\[1\] must have shape \(2, 2\) as params\[1\] has, got \(4,\)"),
        ([GOOD[0], np.ones(())], ValueError, r"grads\[1\] must have shape \(2, 2\) as params\[1\] has, got \(\)"),
        (
            [GOOD[0], np.ones((2, 2), "f4")],
            TypeError,
            r"grads\[1\] must be a float64 array as params\[1\] is, got float32",
        ),
        ([np.ones(3, int), GOOD[1]], TypeError, r"grads\[0\] must be a float32 array as params\[0\] is, got int64"),
        ([GOOD[0], None], TypeError, r"grads\[1\] must be a float64 array as params\[1\] is, got NoneType"),
        (
            [GOOD[0], [[1.0, 1.0], [1.0, 1.0]]],
            TypeError,
            r"grads\[1\] must be a float64 array as params\[1\] is, got list",
        ),
    ],
)
def test_a_step_with_bad_gradients_changes_nothing(optimizer, grads, error, message):
    before = everything(optimizer)
    with pytest.raises(error, match=message):
        optimizer.step(grads)
    same_state(everything(optimizer), before)


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (np.nan, ValueError, r"Adam: lr\(step\) must be a finite number >= 0, got nan"),
        (-0.1, ValueError, r"Adam: lr\(step\) must be a finite number >= 0, got -0.1"),
        (None, TypeError, r"Adam: lr\(step\) must be a number >= 0, got None"),
        ("0.1", TypeError, r"Adam: lr\(step\) must be a number >= 0, got '0.1'"),
        (np.ones(3), TypeError, r"Adam: lr\(step\) must be a number >= 0, got array"),
    ],
)
def test_a_step_with_a_bad_schedule_changes_nothing(optimizer, rate, error, message):
    optimizer.lr = lambda _: rate
    before = everything(optimizer)
    with pytest.raises(error, match=message):
        optimizer.step(list(GOOD))
    same_state(everything(optimizer), before)


def test_an_exception_of_the_schedule_passes_through_and_changes_nothing(optimizer):
    def schedule(step):
        raise KeyError(step)

    optimizer.lr = schedule
    before = everything(optimizer)
    with pytest.raises(KeyError, match="3"):
        optimizer.step(list(GOOD))
    same_state(everything(optimizer), before)


def test_a_parameter_that_became_read_only_is_refused_before_any_other_changes(optimizer):
    before = everything(optimizer)
    optimizer.params[1].flags.writeable = False
    with pytest.raises(ValueError, match=r"Adam: params\[1\] is read-only"):
        optimizer.step(list(GOOD))
    same_state(everything(optimizer), before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: None, ValueError, r"a state is a dict with the entries t, m, v, got NoneType"),
        (lambda s: {"t": 1, "m": s["m"]}, ValueError, r"a state is a dict with the entries t, m, v, got \['m', 't'\]"),
        (
            lambda s: {**s, "lr": 1},
            ValueError,
            r"a state is a dict with the entries t, m, v, got \['lr', 'm', 't', 'v'\]",
        ),
        (lambda s: {**s, "t": -1}, ValueError, r"Adam: t of the state must be >= 0, got -1"),
        (lambda s: {**s, "t": 1.5}, TypeError, r"Adam: t of the state must be an integer >= 0, got 1.5"),
        (lambda s: {**s, "m": s["m"][:1]}, ValueError, r"Adam: m of the state must hold 2 arrays, got 1"),
        (
            lambda s: {**s, "v": s["v"][::-1]},
            TypeError,
            r"v of the state\[0\] must be a float32 array as params\[0\] is, got f",
        ),
        (
            lambda s: {**s, "v": [s["v"][0], np.zeros(4)]},
            ValueError,
            r"v of the state\[1\] must have shape \(2, 2\) .*, got \(4,\)",
        ),
        (
            lambda s: {**s, "v": None},
            TypeError,
            r"Adam: v of the state must be an array or a list of arrays, got NoneType",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(optimizer, change, error, message):
    before = everything(optimizer)
    state = optimizer.state_dict()
    state["m"] = [m + 1 for m in state["m"]]
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(change(state))
    same_state(everything(optimizer), before)
