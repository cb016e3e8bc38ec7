# SPDX-License-Identifier: MIT
"""Nets and the Gaussian head: backpropagation against the complex step of plain formulas and against torch."""

import copy
import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import reparam as rp
import support
from support import UNIT, relative_error, same_bits

KEY = 2**40 + 3
SIZES = (3, 5, 4, 2)
ACTIVATIONS = ["identity", "tanh", "relu", "gelu", "silu", "softplus"]

backend_axis = pytest.mark.usefixtures("backend")


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return request.param


@pytest.fixture(params=[SIZES, (3, 2)], ids=["hidden", "linear"])
def sizes(request):
    return request.param


def sample_net(sizes=SIZES, activation="tanh", dtype="float64"):
    """A net whose biases are not zero; its numbers are exact in float32."""
    net = rp.nn.MLP(sizes, activation=activation, key=KEY, dtype=dtype)
    net.params[...] = np.random.default_rng(7).standard_normal(net.params.shape).astype(np.float32)
    return net


def formula(activation, h):
    from scipy import special

    return {
        "identity": lambda: h,
        "tanh": lambda: np.tanh(h),
        "relu": lambda: np.where(h.real > 0, h, 0),
        "gelu": lambda: 0.5 * h * (1 + special.erf(h / np.sqrt(2))),
        "silu": lambda: h / (1 + np.exp(-h)),
        "softplus": lambda: np.log(1 + np.exp(h)),
    }[activation]()


def plain_net(sizes, activation, params, x):
    """The net as a formula over real or complex numbers."""
    at, last = 0, len(sizes) - 2
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = params[at : at + fan_in * fan_out].reshape(fan_in, fan_out)
        bias = params[at + fan_in * fan_out : at + (fan_in + 1) * fan_out]
        at += (fan_in + 1) * fan_out
        x = x @ weight + bias
        x = formula(activation, x) if k < last else x
    return x


def complex_step(f, x, step=1e-30):
    """The gradient of a real function of one real array, entry by entry: exact to rounding."""
    gradient = np.zeros(x.shape)
    for at in np.ndindex(*x.shape):
        moved = x.astype(complex)
        moved[at] += step * 1j
        gradient[at] = f(moved).imag / step
    return gradient


# ---- the net


@backend_axis
def test_output_is_the_plain_formula_for_any_batch_shape(sizes, activation, rng):
    net = sample_net(sizes, activation)
    for batch_shape in [(), (1,), (7,), (2, 3), (0,), (2, 0, 3)]:
        x = rng.standard_normal((*batch_shape, sizes[0]))
        y, backprop = net(x)
        assert y.shape == (*batch_shape, sizes[-1])
        np.testing.assert_allclose(y, plain_net(sizes, activation, net.params, x), rtol=1e-13, atol=1e-13)
        ct_x, grads = backprop(np.ones_like(y))
        assert ct_x.shape == x.shape
        assert grads.shape == net.params.shape
        assert (grads != 0).any() == (x.size > 0)


@backend_axis
def test_gradient_against_the_complex_step(sizes, activation, rng):
    net, x = sample_net(sizes, activation), rng.standard_normal((2, 3, sizes[0]))
    c = rng.standard_normal((2, 3, sizes[-1]))
    y, backprop = net(x)
    ct_x, grads = backprop(c * np.cos(y))  # of the scalar sum(c sin y)
    exact_x = complex_step(lambda moved: (c * np.sin(plain_net(sizes, activation, net.params, moved))).sum(), x)
    exact = complex_step(lambda moved: (c * np.sin(plain_net(sizes, activation, moved, x))).sum(), net.params)
    assert relative_error(ct_x, exact_x, events=0) < 1e-9
    for name, view in net.split(grads).items():
        assert relative_error(view, net.split(exact)[name], events=0) < 1e-9


@backend_axis
def test_float32_errs_by_its_own_rounding(activation, rng):
    x, ct = (rng.standard_normal((50, n)).astype(np.float32) for n in (SIZES[0], SIZES[-1]))
    single, double = (sample_net(SIZES, activation, dtype) for dtype in ("float32", "float64"))
    y, backprop = single(x)
    exact_y, exact_backprop = double(x.astype(np.float64))
    assert y.dtype == np.float32
    limit = 8 * (1 + sum(SIZES)) * UNIT["float32"]
    assert relative_error(y, exact_y, events=0) < limit
    for actual, exact in zip(backprop(ct), exact_backprop(ct.astype(np.float64)), strict=True):
        assert actual.dtype == np.float32
        assert 0 < relative_error(actual, exact, events=0) < limit


def torch_net(torch, net, activation):
    layers = []
    makers = {
        "tanh": "Tanh",
        "relu": "ReLU",
        "gelu": "GELU",
        "silu": "SiLU",
        "softplus": "Softplus",
        "identity": "Identity",
    }
    for k, (fan_in, fan_out) in enumerate(zip(net.sizes, net.sizes[1:], strict=False)):
        linear = torch.nn.Linear(fan_in, fan_out, dtype=torch.float64)
        linear.weight.data = torch.tensor(net.views[f"weight{k}"].T.copy())
        linear.bias.data = torch.tensor(net.views[f"bias{k}"])
        layers += [linear, getattr(torch.nn, makers[activation])()]
    return torch.nn.Sequential(*layers[:-1])


def test_output_and_gradient_against_torch(sizes, activation, rng):
    torch = pytest.importorskip("torch")
    net, x, ct = (
        sample_net(sizes, activation),
        rng.standard_normal((4, 3, sizes[0])),
        rng.standard_normal((4, 3, sizes[-1])),
    )
    y, backprop = net(x)
    ct_x, grads = backprop(ct)
    theirs, leaf = torch_net(torch, net, activation), torch.tensor(x, requires_grad=True)
    output = theirs(leaf)
    output.backward(torch.tensor(ct))
    np.testing.assert_allclose(y, output.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert relative_error(ct_x, leaf.grad.numpy(), events=0) < 1e-12
    for k, linear in enumerate(m for m in theirs if isinstance(m, torch.nn.Linear)):
        views = net.split(grads)
        assert relative_error(views[f"weight{k}"], linear.weight.grad.numpy().T, events=0) < 1e-12
        assert relative_error(views[f"bias{k}"], linear.bias.grad.numpy(), events=0) < 1e-12


@backend_axis
def test_far_out_activations_have_their_limits_and_no_warning(activation, dtype):
    net = rp.nn.MLP((1, 1, 1), activation=activation, key=0, dtype=dtype)
    net.params[...] = [1, 0, 1, 0]
    h = np.array([[-1e4], [-200.0], [-40.0], [40.0], [200.0], [1e4]], dtype)
    y, backprop = net(h)
    ct_x, _ = backprop(np.ones_like(h))
    value = {"tanh": np.sign(h), "identity": h}.get(activation, np.maximum(h, 0))
    slope = {"tanh": 0 * h, "identity": 0 * h + 1}.get(activation, h > 0)
    np.testing.assert_allclose(y, value, rtol=4 * UNIT[dtype], atol=1e-15)
    np.testing.assert_allclose(ct_x, slope, rtol=4 * UNIT[dtype], atol=1e-15)


def test_backprop_can_be_called_again_and_changes_nothing_of_the_users(sizes, activation, dtype, rng):
    net = sample_net(sizes, activation, dtype)
    x, ct = (rng.standard_normal((9, n)).astype(dtype) for n in (sizes[0], sizes[-1]))
    y, backprop = net(x)
    before = x.copy(), ct.copy(), y.copy(), net.params.copy()
    first = backprop(ct)
    first = first[0].copy(), first[1].copy()
    net(2 * x)  # another call of the net does not disturb this one
    same_bits(backprop(ct), first)
    same_bits((x, ct, y, net.params), before)


def test_the_output_may_be_overwritten_before_backprop(sizes, activation, rng):
    net, x, ct = sample_net(sizes, activation), rng.standard_normal((9, sizes[0])), rng.standard_normal((9, sizes[-1]))
    expected = net(x)[1](ct)
    y, backprop = net(x)
    y[...] = np.nan
    same_bits(backprop(ct), expected)


def test_without_the_input_gradient_the_parameters_gradient_is_the_same(sizes, activation, dtype, rng):
    net = sample_net(sizes, activation, dtype)
    x, ct = (rng.standard_normal((9, n)).astype(dtype) for n in (sizes[0], sizes[-1]))
    _, backprop = net(x)
    ct_x, grads = backprop(ct, input_gradient=False)
    assert ct_x is None
    same_bits(grads, backprop(ct)[1])


def test_gradient_goes_into_the_buffer_that_was_given(dtype, rng):
    net = sample_net(dtype=dtype)
    x, ct = (rng.standard_normal((9, n)).astype(dtype) for n in (SIZES[0], SIZES[-1]))
    buffer = np.full(net.params.shape, np.nan, dtype)
    _, returned = net(x, buffer)[1](ct)
    assert returned is buffer
    same_bits(buffer, net(x)[1](ct)[1])


def test_inputs_and_cotangents_of_any_strides(rng):
    net = sample_net()
    x, ct = rng.standard_normal((8, 6, SIZES[0])), rng.standard_normal((8, 6, SIZES[-1]))
    expected = net(x)[0], *net(x)[1](ct)
    far, far_ct = np.zeros((16, 12, 2 * SIZES[0])), np.zeros((SIZES[-1], 6, 8)).T.copy("A")
    far[::2, ::2, ::2], far_ct[...] = x, ct
    y, backprop = net(far[::2, ::2, ::2])
    for actual, exact in zip((y, *backprop(far_ct)), expected, strict=True):
        assert relative_error(actual, exact, events=0) < 1e-14
    broadcast = np.broadcast_to(ct[0, 0], ct.shape)
    same_bits(net(x)[1](broadcast), net(x)[1](broadcast.copy()))


# ---- its parameters


def test_views_and_the_flat_buffer_are_one_memory(sizes, dtype):
    net = rp.nn.MLP(sizes, key=KEY, dtype=dtype)
    assert net.params.shape == (sum((m + 1) * n for m, n in itertools.pairwise(sizes)),)
    assert list(net.views) == [f"{kind}{k}" for k in range(len(sizes) - 1) for kind in ("weight", "bias")]
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        assert net.views[f"weight{k}"].shape == (fan_in, fan_out)
        assert net.views[f"bias{k}"].shape == (fan_out,)
    net.params[...] = np.arange(len(net.params))
    np.testing.assert_array_equal(np.concatenate([v.ravel() for v in net.views.values()]), np.arange(len(net.params)))
    for number, view in enumerate(net.views.values()):
        view[...] = -1 - number
    assert (net.params < 0).all()
    assert len(np.unique(net.params)) == len(net.views)


def test_the_net_follows_what_is_written_to_its_buffer(rng):
    net, other = sample_net(), sample_net(activation="tanh")
    other.params[...] = rng.standard_normal(other.params.shape)
    x = rng.standard_normal((4, SIZES[0]))
    assert np.abs(net(x)[0] - other(x)[0]).max() > 0.1
    net.params[...] = other.params
    same_bits(net(x)[0], other(x)[0])


@pytest.mark.parametrize("stride", [1, 2])
def test_the_net_lives_in_the_buffer_that_was_given(stride, dtype, rng):
    fresh = rp.nn.MLP(SIZES, key=KEY, dtype=dtype)
    store = np.full(stride * len(fresh.params) + 5, 7, dtype)
    net = rp.nn.MLP(SIZES, key=KEY, dtype=dtype, params=store[5::stride])
    same_bits(store[5::stride], fresh.params)
    assert (store[:5] == 7).all()
    x = rng.standard_normal((6, SIZES[0])).astype(dtype)
    np.testing.assert_allclose(net(x)[0], fresh(x)[0], rtol=100 * UNIT[dtype])
    store[...] = 0
    assert (net(x)[0] == 0).all()


@pytest.mark.parametrize("name", support.backend_axis())
def test_weights_follow_from_the_key_with_the_same_bits_on_every_backend(name, dtype):
    def params(key):
        return rp.nn.MLP(SIZES, key=key, dtype=dtype).params

    with rp.backend("reference"):
        expected = params(KEY)
    with rp.backend(name):
        same_bits(params(KEY), expected)
        assert (params(KEY) != params(KEY + 1)).sum() == sum(m * n for m, n in itertools.pairwise(SIZES))


def test_weights_are_the_layers_streams_scaled_after_glorot(dtype):
    net = rp.nn.MLP(SIZES, key=KEY, dtype=dtype)
    for k, (fan_in, fan_out) in enumerate(itertools.pairwise(SIZES)):
        noise = rp.random.normal((fan_in, fan_out), key=KEY, stream=k, dtype=dtype)
        np.testing.assert_allclose(
            net.views[f"weight{k}"], noise * np.sqrt(2 / (fan_in + fan_out)), rtol=4 * UNIT[dtype]
        )
        np.testing.assert_array_equal(net.views[f"bias{k}"], 0)


def test_weights_have_mean_zero_and_glorots_variance_and_layers_are_independent():
    net = rp.nn.MLP((200, 300, 200, 300), key=KEY)
    n = 60_000
    standard = [net.views[f"weight{k}"].astype(np.float64).ravel() / np.sqrt(2 / 500) for k in range(3)]
    for sample in standard:
        assert abs(sample.mean()) * np.sqrt(n) < 4.5
        assert abs(sample.var() - 1) * np.sqrt(n / 2) < 4.5
    assert np.abs(np.corrcoef(standard) - np.eye(3)).max() * np.sqrt(n) < 4.5


def test_keys_of_every_kind():
    same_bits(rp.nn.MLP(SIZES, key=np.uint64(KEY)).params, rp.nn.MLP(SIZES, key=KEY).params)
    number = int(np.random.default_rng(3).integers(2**64, dtype=np.uint64))
    same_bits(rp.nn.MLP(SIZES, key=np.random.default_rng(3)).params, rp.nn.MLP(SIZES, key=number).params)


def read_only(n):
    array = np.zeros(n, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sizes": 5}, TypeError, r"MLP: sizes must be a sequence of integers >= 1, got 5"),
        ({"sizes": (5,)}, ValueError, r"MLP: sizes must hold at least an input and an output width, got \(5,\)"),
        ({"sizes": ()}, ValueError, r"MLP: sizes must hold at least an input and an output width, got \(\)"),
        ({"sizes": (3, 0, 2)}, ValueError, r"MLP: sizes must be >= 1, got 0"),
        ({"sizes": (3, -4, 2)}, ValueError, r"MLP: sizes must be >= 1, got -4"),
        ({"sizes": (3, 2.0)}, TypeError, r"MLP: sizes must be an integer >= 1, got 2.0"),
        ({"sizes": (3, True)}, TypeError, r"MLP: sizes must be an integer >= 1, got True"),
        ({"sizes": "32"}, TypeError, r"MLP: sizes must be an integer >= 1, got '3'"),
        ({"activation": "sine"}, ValueError, r"MLP: activation must be one of .*'softplus', got 'sine'"),
        ({"activation": None}, ValueError, r"MLP: activation must be one of .*'softplus', got None"),
        ({"key": -1}, ValueError, r"key must be in \[0, .*\), got -1"),
        ({"key": "7"}, TypeError, r"key must be an int .*, got str"),
        ({"key": None}, TypeError, r"key must be an int .*, got NoneType"),
        ({"dtype": "float16"}, TypeError, r"MLP: dtype must be float32 or float64, got float16"),
        ({"dtype": "real"}, TypeError, r"MLP: dtype must be float32 or float64, got 'real'"),
        ({"dtype": ">f4"}, TypeError, r"MLP: dtype must be float32 or float64, got >f4"),
        ({"params": np.zeros(53, np.float32)}, ValueError, r"MLP: params must have shape \(54,\), got \(53,\)"),
        ({"params": np.zeros((54, 1), np.float32)}, ValueError, r"MLP: params must have shape \(54,\), got \(54, 1\)"),
        ({"params": np.zeros(54)}, TypeError, r"MLP: params must be float32 as the net is, got float64"),
        ({"params": [0.0] * 54}, TypeError, r"MLP: params must be a NumPy array, got list"),
        ({"params": read_only(54)}, ValueError, r"MLP: params is read-only"),
    ],
)
def test_bad_arguments_are_named_with_what_came_and_what_was_expected(arguments, error, message):
    with pytest.raises(error, match=message):
        rp.nn.MLP(**{"sizes": SIZES, "key": KEY, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((4, 2), np.float32), ValueError, r"MLP: x must have shape \(\.\.\., 3\), got \(4, 2\)"),
        (np.zeros((3, 4), np.float32), ValueError, r"MLP: x must have shape \(\.\.\., 3\), got \(3, 4\)"),
        (np.zeros((), np.float32), ValueError, r"MLP: x must have shape \(\.\.\., 3\), got \(\)"),
        (np.zeros((4, 3)), TypeError, r"MLP: x must be float32 as the net is, got float64"),
        (np.zeros((4, 3), int), TypeError, r"MLP: x must be float32 as the net is, got int64"),
        ([[0.0, 0.0, 0.0]], TypeError, r"MLP: x must be a NumPy array, got list"),
    ],
)
def test_bad_inputs_are_named_with_what_came_and_what_was_expected(x, error, message):
    with pytest.raises(error, match=message):
        rp.nn.MLP(SIZES, key=KEY)(x)


@pytest.mark.parametrize(
    ("ct_y", "error", "message"),
    [
        (
            np.zeros((2, 4), np.float32),
            ValueError,
            r"MLP: ct_y must have shape \(4, 2\), got \(2, 4\)",
        ),  # as many entries
        (np.zeros(2, np.float32), ValueError, r"MLP: ct_y must have shape \(4, 2\), got \(2,\)"),
        (np.zeros((4, 2)), TypeError, r"MLP: ct_y must be float32 as the net is, got float64"),
        (1.0, TypeError, r"MLP: ct_y must be a NumPy array, got float"),
    ],
)
def test_bad_cotangents_are_named_with_what_came_and_what_was_expected(ct_y, error, message):
    _, backprop = rp.nn.MLP(SIZES, key=KEY)(np.zeros((4, 3), np.float32))
    with pytest.raises(error, match=message):
        backprop(ct_y)


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (np.zeros(53, np.float32), ValueError, r"MLP: grads must have shape \(54,\), got \(53,\)"),
        (np.zeros(54), TypeError, r"MLP: grads must be float32 as the net is, got float64"),
        ([0.0] * 54, TypeError, r"MLP: grads must be a NumPy array, got list"),
    ],
)
def test_bad_gradient_buffers_are_named_with_what_came_and_what_was_expected(grads, error, message):
    with pytest.raises(error, match=message):
        rp.nn.MLP(SIZES, key=KEY)(np.zeros((4, 3), np.float32), grads)


# ---- copies and text

DUPLICATES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "pickle-2": lambda net: pickle.loads(pickle.dumps(net, 2)),
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("within", [False, True], ids=["own-buffer", "part-of-a-buffer"])
def test_training_a_copy_changes_its_output_and_not_the_original(duplicate, within, dtype, rng):
    count = rp.nn.MLP.count(SIZES)
    params = np.zeros(count + 5, dtype)[5:] if within else None
    net = rp.nn.MLP(SIZES, activation="silu", key=KEY, dtype=dtype, params=params)
    x = rng.standard_normal((6, 3)).astype(dtype)
    y, before = net(x)[0], net.params.copy()
    twin = DUPLICATES[duplicate](net)
    assert repr(twin) == repr(net)
    same_bits(twin(x)[0], y)
    optimizer = rp.optim.Adam(twin.params, lr=0.1)
    optimizer.step(twin(x)[1](np.ones_like(y))[1])
    assert (twin(x)[0] != y).all()
    same_bits(net.params, before)
    same_bits(net(x)[0], y)
    for name, view in twin.views.items():
        assert np.shares_memory(view, twin.params), name
        assert not np.shares_memory(view, net.params), name


@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle"])
def test_a_net_and_its_optimizer_stay_together_in_one_copy(duplicate, rng):
    net = sample_net()
    pair = DUPLICATES[duplicate]({"net": net, "optimizer": rp.optim.Adam(net.params)})
    assert pair["optimizer"].params[0] is pair["net"].params


def test_the_text_of_a_net():
    assert repr(rp.nn.MLP((64, 128, 52), activation="silu", key=0)) == "MLP(64-128-52, silu, float32)"


def test_a_bad_key_is_named():
    for key, error in ((-1, ValueError), (0.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="MLP: key must be"):
            rp.nn.MLP((2, 3), key=key)


# ---- the Gaussian head


@pytest.fixture(params=["full", "diag"])
def covariance_type(request):
    return request.param


def scale_of(q):
    return q.scale_tril if isinstance(q, rp.MultivariateNormal) else q.scale_diag


def plain_head(features, d, covariance_type):
    """Loc and scale as a formula over real or complex numbers."""
    loc, raw = features[..., :d], features[..., d:]
    if covariance_type == "diag":
        return loc, np.exp(raw)
    scale_tril = np.zeros((*raw.shape[:-1], d, d), raw.dtype)
    scale_tril[(..., *np.tril_indices(d))] = raw
    i = np.arange(d)
    scale_tril[..., i, i] = np.exp(scale_tril[..., i, i])
    return loc, scale_tril


@pytest.mark.parametrize("d", [1, 2, 5])
@backend_axis
def test_posterior_starts_as_a_unit_normal_about_the_nets_loc(d, covariance_type, dtype, rng):
    head = rp.nn.GaussianHead(d, covariance_type)
    net = rp.nn.MLP((3, 8, head.features), key=KEY, dtype=dtype)
    x = rng.standard_normal((7, 3)).astype(dtype)
    loc = net(x)[0][:, :d].copy()
    head.start_at_identity(net)
    q, _ = head(net(x)[0])
    assert q.dtype == dtype
    assert q.batch_shape == (7,)
    np.testing.assert_allclose(q.loc, loc, rtol=100 * UNIT[dtype])  # weights and biases of loc stay
    assert np.ptp(q.loc, axis=0).min() > 0.1
    np.testing.assert_array_equal(
        scale_of(q), np.broadcast_to(np.eye(d) if covariance_type == "full" else 1, scale_of(q).shape)
    )


@pytest.mark.parametrize("d", [1, 2, 5])
@backend_axis
def test_pullback_of_the_head_against_the_complex_step(d, covariance_type, rng):
    head = rp.nn.GaussianHead(d, covariance_type)
    assert head.features == d + (d * (d + 1) // 2 if covariance_type == "full" else d)
    features = rng.standard_normal((2, 3, head.features))
    kept = features.copy()
    q, pullback = head(features)
    loc, scale = plain_head(features, d, covariance_type)
    np.testing.assert_allclose(q.loc, loc, rtol=1e-15)
    np.testing.assert_allclose(scale_of(q), scale, rtol=1e-14)
    a, b = rng.standard_normal(loc.shape), rng.standard_normal(scale.shape)

    def scalar(moved):
        loc, scale = plain_head(moved, d, covariance_type)
        return (a * np.sin(loc)).sum() + (b * np.sin(scale)).sum()

    name = "scale_tril" if covariance_type == "full" else "scale_diag"
    ct = pullback(SimpleNamespace(loc=a * np.cos(loc), **{name: b * np.cos(scale)}))
    assert relative_error(ct, complex_step(scalar, features), events=2).max() < 1e-9
    same_bits(features, kept)


def test_density_through_net_and_head_against_torch(covariance_type, rng):
    torch = pytest.importorskip("torch")
    d, x, value = 3, rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
    head = rp.nn.GaussianHead(d, covariance_type)
    net = sample_net((4, 5, head.features))
    features, backprop = net(x)
    q, pullback = head(features)
    op = rp.OPS["normal_tril_log_prob" if covariance_type == "full" else "normal_diag_log_prob"]
    _, ct_loc, ct_scale = op.vjp(value, q.loc, scale_of(q), np.ones(6))
    name = "scale_tril" if covariance_type == "full" else "scale_diag"
    ct_x, grads = backprop(pullback(SimpleNamespace(loc=ct_loc, **{name: ct_scale})))
    theirs, leaf = torch_net(torch, net, "tanh"), torch.tensor(x, requires_grad=True)
    output = theirs(leaf)
    if covariance_type == "full":
        below = torch.zeros(6, d, d, dtype=torch.float64)
        below[:, *np.tril_indices(d)] = output[:, d:]
        scale_tril = torch.tril(below, -1) + torch.diag_embed(torch.exp(torch.diagonal(below, dim1=-2, dim2=-1)))
        density = torch.distributions.MultivariateNormal(output[:, :d], scale_tril=scale_tril)
    else:
        density = torch.distributions.Independent(torch.distributions.Normal(output[:, :d], output[:, d:].exp()), 1)
    log_prob = density.log_prob(torch.tensor(value))
    log_prob.sum().backward()
    np.testing.assert_allclose(q.log_prob(value), log_prob.detach().numpy(), rtol=1e-12)
    assert relative_error(ct_x, leaf.grad.numpy(), events=0) < 1e-9
    linears = [m for m in theirs if isinstance(m, torch.nn.Linear)]
    exact = np.concatenate([g for m in linears for g in (m.weight.grad.numpy().T.ravel(), m.bias.grad.numpy())])
    assert relative_error(grads, exact, events=0) < 1e-9


@backend_axis
def test_a_scale_too_large_for_the_dtype_is_infinite_without_a_warning(covariance_type, dtype):
    head = rp.nn.GaussianHead(2, covariance_type)
    features = np.zeros((3, head.features), dtype)
    features[1, 2] = 1e4  # log of the first scale
    q, _ = head(features)
    first = q.scale_tril[:, 0, 0] if covariance_type == "full" else q.scale_diag[:, 0]
    np.testing.assert_array_equal(first, [1, np.inf, 1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rp.nn.GaussianHead(0, "full"), ValueError, r"GaussianHead: latent_dim must be >= 1, got 0"),
        (
            lambda: rp.nn.GaussianHead(2.0, "full"),
            TypeError,
            r"GaussianHead: latent_dim must be an integer >= 1, got 2.0",
        ),
        (
            lambda: rp.nn.GaussianHead(2, "tied"),
            ValueError,
            r"GaussianHead: covariance_type must be one of 'full', 'diag', got 't",
        ),
        (
            lambda: rp.nn.GaussianHead(2, "full")(np.zeros((3, 4))),
            ValueError,
            r"GaussianHead: features must have shape \(\.\.\., 5\), got \(3, 4\)",
        ),
        (
            lambda: rp.nn.GaussianHead(2, "full").start_at_identity(rp.nn.MLP((3, 4), key=0)),
            ValueError,
            r"GaussianHead: net must have output width 5, got sizes \(3, 4\)",
        ),
    ],
)
def test_bad_heads_are_named_with_what_came_and_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()
