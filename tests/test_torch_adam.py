# SPDX-License-Identifier: MIT
"""``reparam.torch.Adam`` against torch.optim.AdamW, step by step."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

import reparam.torch as rt  # noqa: E402

STEPS = 25
ALL_STEPS = range(STEPS)
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6}  # of the entries, which are of size 1
DTYPES = tuple(TOLERANCE)


def parameters(dtype=torch.float64, *, strided=False):
    """Three of them; where asked for, of a transposed layout, and with gaps."""
    torch.manual_seed(0)
    made = [torch.randn(4, 6, dtype=dtype), torch.randn(3, 2, 4, dtype=dtype), torch.randn((), dtype=dtype)]
    if strided:
        made[0], made[1] = made[0].mT.contiguous().mT, torch.stack([made[1], made[1]], -1)[..., 0]
    return [x.requires_grad_() for x in made]


def gradients(params, step):
    rng = np.random.default_rng(step)
    return [torch.tensor(rng.standard_normal(tuple(p.shape)), dtype=p.dtype) for p in params]


def train(optimizer, params, steps=ALL_STEPS, then=lambda: None):
    for step in steps:
        for p, grad in zip(params, gradients(params, step), strict=True):
            p.grad = grad
        optimizer.step()
        then()


def assert_equal(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        tolerance = TOLERANCE[mine.dtype]
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


SETTINGS = {
    "default": {},
    "lr": {"lr": 0.05},
    "betas": {"betas": (0.5, 0.8)},
    "no first moment": {"betas": (0.0, 0.99)},
    "eps": {"eps": 0.1},
    "weight decay": {"weight_decay": 0.3, "lr": 0.02},
    "no step": {"lr": 0.0},
    "uphill": {"maximize": True, "weight_decay": 0.3, "lr": 0.02},
}


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SETTINGS)
def test_steps_are_those_of_adamw(name, dtype, strided):
    settings = {"weight_decay": 0.0, **SETTINGS[name]}
    ours, theirs = parameters(dtype, strided=strided), parameters(dtype)
    strides = [p.stride() for p in ours]
    optimizers = rt.Adam(ours, **settings), torch.optim.AdamW(theirs, **settings)
    train(optimizers[0], ours)
    train(optimizers[1], theirs)
    assert_equal(ours, theirs)
    for mine, other in zip(ours, theirs, strict=True):
        for moment in ("exp_avg", "exp_avg_sq"):
            assert_equal([optimizers[0].state[mine][moment]], [optimizers[1].state[other][moment]])
    assert [p.stride() for p in ours] == strides


def test_the_default_is_without_decay():
    ours, theirs = parameters(), parameters()
    train(rt.Adam(ours), ours)
    train(torch.optim.Adam(theirs), theirs)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("layout", [lambda x: x.mT.contiguous().mT, lambda x: x[:1].expand(x.shape), torch.zeros_like])
def test_gradients_of_any_strides(layout):
    results = []
    for family in (rt.Adam, torch.optim.AdamW):
        p = torch.ones(4, 6, requires_grad=True)
        optimizer = family([p], weight_decay=0.0)
        for _ in range(3):
            p.grad = layout(torch.arange(24.0).reshape(4, 6))
            optimizer.step()
        results.append([p])
    assert_equal(*results)


SCHEDULES = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5),
    "Cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS),
    "OneCycle, of the betas too": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=STEPS + 1),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_groups_and_schedules(name):
    results = []
    for family in (rt.Adam, torch.optim.AdamW):
        params = parameters()
        groups = [{"params": params[:1], "lr": 0.1}, {"params": params[1:2], "weight_decay": 0.2}]
        optimizer = family(groups, lr=0.01, weight_decay=0.0)
        optimizer.add_param_group({"params": params[2], "betas": (0.7, 0.9)})
        train(optimizer, params, then=SCHEDULES[name](optimizer).step)
        results.append(params)
    assert_equal(*results)


def test_a_learning_rate_that_is_a_tensor():
    ours, theirs = parameters(), parameters()
    train(rt.Adam(ours, lr=torch.tensor(0.05)), ours)
    train(rt.Adam(theirs, lr=float(torch.tensor(0.05))), theirs)
    assert_equal(ours, theirs)


def test_a_closure_is_evaluated_with_gradients():
    p = torch.tensor([3.0, -2.0], requires_grad=True)
    optimizer = rt.Adam([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    found = [optimizer.step(closure).item() for _ in range(60)]
    assert found[0] == 13
    assert found[-1] < 0.1
    assert rt.Adam([p]).step() is None


def test_a_parameter_without_a_gradient_stays():
    params = parameters()
    before = params[1].detach().clone()
    optimizer = rt.Adam(params, lr=0.1, weight_decay=0.5)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert torch.equal(params[1], before)
    assert params[1] not in optimizer.state
    optimizer.zero_grad()
    assert params[0].grad is None


def test_a_step_uphill_leaves_the_gradient_as_it_is():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    rt.Adam([p], lr=0.1, maximize=True).step()
    assert (p > 1).all()
    assert torch.equal(p.grad, torch.ones(3))


ROUND_TRIPS = {
    "ours": (rt.Adam, rt.Adam),
    "to torch": (rt.Adam, torch.optim.AdamW),
    "from torch": (torch.optim.AdamW, rt.Adam),
}


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_state_goes_on_where_it_was_saved(name, maximize, tmp_path):
    first, second = ROUND_TRIPS[name]
    params, whole = parameters(), parameters()
    train(torch.optim.AdamW(whole, lr=0.03, weight_decay=0.1, maximize=maximize), whole)
    optimizer = first(params, lr=0.03, weight_decay=0.1, maximize=maximize)
    train(optimizer, params, range(10))
    torch.save(optimizer.state_dict(), tmp_path / "state")
    resumed = second(params, lr=1.0)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert resumed.param_groups[0]["lr"] == 0.03
    train(resumed, params, range(10, STEPS))
    assert_equal(params, whole)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_has_a_state_of_its_own(duplicate):
    params = parameters()
    optimizer = rt.Adam(params, lr=0.1)
    train(optimizer, params, range(5))
    made = duplicate(optimizer)
    copies = made.param_groups[0]["params"]
    train(optimizer, params, range(5, 9))
    train(made, copies, range(5, 9))
    assert_equal(copies, params)
    assert copies[0] is not params[0]


def test_torch_knows_that_a_parameter_has_changed():
    p = torch.ones(3, requires_grad=True)
    optimizer = rt.Adam([p])
    loss = (p**3).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


HYPER = {
    "lr": ({"lr": -1.0}, "Invalid learning rate: -1.0"),
    "NaN": ({"lr": float("nan")}, "Invalid learning rate: nan"),
    "eps": ({"eps": -1e-8}, "Invalid epsilon value"),
    "first beta": ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0"),
    "second beta": ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1"),
    "weight decay": ({"weight_decay": -0.1}, "Invalid weight_decay value"),
}


@pytest.mark.parametrize("name", HYPER)
def test_numbers_out_of_range(name):
    settings, match = HYPER[name]
    with pytest.raises(ValueError, match=match):
        rt.Adam(parameters(), **settings)


@pytest.mark.parametrize("name", ["amsgrad", "foreach", "fused", "capturable", "differentiable"])
def test_what_else_torch_takes_is_refused(name):
    with pytest.raises(TypeError, match=f"Adam has no {name}: each step is one fused pass"):
        rt.Adam(parameters(), **{name: True})
    with pytest.raises(TypeError, match=f"Adam has no {name}: each step is one fused pass"):
        rt.Adam([{"params": parameters(), name: True}])


def test_a_state_of_before_steps_uphill():
    optimizer = rt.Adam(parameters())
    state = optimizer.state_dict()
    del state["param_groups"][0]["maximize"]
    optimizer.load_state_dict(state)
    train(optimizer, optimizer.param_groups[0]["params"])


@pytest.mark.parametrize(
    ("theirs", "settings"),
    [
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.Adam, {"weight_decay": 0.1}),
    ],
)
def test_the_state_of_another_rule_is_refused(theirs, settings):
    params = parameters()
    optimizer = rt.Adam(params)
    with pytest.raises(ValueError, match="this state is of an Adam with"):
        optimizer.load_state_dict(theirs(params, **settings).state_dict())
    optimizer.load_state_dict(torch.optim.Adam(params).state_dict())


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        rt.Adam(table.parameters()).step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_other_element_types_are_refused(dtype):
    p = torch.ones(3, dtype=dtype, requires_grad=True)
    p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match=r"adam_step: param must be torch\.float32 or torch\.float64"):
        rt.Adam([p]).step()
