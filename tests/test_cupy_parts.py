# SPDX-License-Identifier: MIT
"""Random numbers, distributions, ELBO, optimizer and nets on arrays of CuPy, against NumPy's to the bit."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import reparam as rp
from gpus import BOTH, gpu_of
from reparam._arrays import is_cupy
from support import DTYPES


@pytest.fixture(params=BOTH)
def gpu(request):
    """The stand-in, and a GPU where there is one."""
    with gpu_of(request.param) as gpu:
        yield gpu


def to_host(x):
    """Arrays in NumPy's memory, of whatever holds them."""
    if is_cupy(x):
        return x.get()
    if isinstance(x, (tuple, list)):
        return [to_host(each) for each in x]
    if isinstance(x, SimpleNamespace):
        return [to_host(each) for each in vars(x).values()]
    return x


def same_on_both(gpu, work, *arrays, waits=0):
    """``work(xp, *arrays)`` has the bits of NumPy on a GPU, which the host waits for so many times."""
    cupy = gpu[0]
    with rp.backend("native:scalar"):
        wanted = work(np, *arrays)
    for device in (0, 1) if gpu.kernels else (0,):
        with cupy.cuda.Device(device):
            given = [cupy.asarray(x) if isinstance(x, np.ndarray) else x for x in arrays]
        before = gpu.count("waits")
        made = work(cupy, *given) if device == 0 else _on(cupy, device, work, given)
        assert gpu.count("waits") == before + (waits if gpu.kernels else 0)
        flat = made if isinstance(made, (tuple, list)) else [made]
        assert all(is_cupy(x) and x.device.id == device for x in flat if hasattr(x, "dtype"))
        compare(gpu, to_host(made), wanted)


def _on(cupy, device, work, given):
    """On a device that is not the current one; what the work makes itself is made there."""
    assert cupy.cuda.Device().id != device
    return work(_Elsewhere(cupy, device), *given)


class _Elsewhere:
    """The names of a module, whose arrays are made on another device."""

    def __init__(self, cupy, device):
        self._cupy, self._device = cupy, device

    def __getattr__(self, name):
        function = getattr(self._cupy, name)

        def call(*args, **keywords):
            with self._cupy.cuda.Device(self._device):
                return function(*args, **keywords)

        return call


def compare(gpu, made, wanted):
    if isinstance(wanted, (tuple, list, SimpleNamespace)):
        parts = vars(wanted).values() if isinstance(wanted, SimpleNamespace) else wanted
        for x, y in zip(made, parts, strict=True):
            compare(gpu, x, y)
    elif isinstance(wanted, (np.ndarray, np.generic)):
        gpu.same(made, wanted)
    else:
        assert made == wanted


RNG = np.random.default_rng(0)
LOC, SCALE, VALUE = RNG.standard_normal((4, 3)), RNG.random((4, 3)) + 0.5, RNG.standard_normal((4, 3))
TRIL = np.tril(0.3 * RNG.standard_normal((4, 3, 3))) + np.eye(3)
COVARIANCE = TRIL @ TRIL.swapaxes(-1, -2)
PACKED = TRIL[(..., *np.tril_indices(3))]
FAMILIES = {
    "scalar": (lambda loc, scale: rp.Normal(loc, scale), LOC, SCALE),
    "diag": (lambda loc, scale: rp.MultivariateNormalDiag(loc, scale), LOC, SCALE),
    "tril": (lambda loc, scale: rp.MultivariateNormal(loc, scale_tril=scale), LOC, TRIL),
    "packed": (lambda loc, scale: rp.MultivariateNormal(loc, scale_tril=scale, packed=True), LOC, PACKED),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "offset"), [((), 0), (3, 5), ((40, 30), 2)])
def test_normals_like_an_array(gpu, shape, offset, dtype):
    like = np.empty(0, dtype)
    same_on_both(gpu, lambda xp, like: rp.random.normal(shape, key=3, stream=7, offset=offset, like=like), like)


@pytest.mark.parametrize("family", FAMILIES)
def test_distributions(gpu, family):
    make, loc, scale = FAMILIES[family]
    index = np.arange(12).reshape(4, 3) if family == "scalar" else np.arange(5, 9)

    def work(xp, loc, scale, value):
        q = make(loc, scale)
        made = [q.mean, q.variance, q.stddev, q.covariance_matrix, q.entropy(), q.log_prob(value)]
        made += [q.rsample(key=1), q.rsample((2, 3), key=1), q.rsample(key=1, index=index)]
        made += [*q.rsample_and_log_prob(5, key=2), rp.kl_divergence(q, make(loc + 1, 2 * scale))]
        return made

    if family == "packed":
        scale = np.abs(scale)
    same_on_both(gpu, lambda xp, loc, scale, value: _at(xp, lambda: work(xp, loc, scale, value)), loc, scale, VALUE)


def _at(xp, run):
    """What a user computes with CuPy's own functions needs its device; ours find theirs."""
    if isinstance(xp, _Elsewhere):
        with xp._cupy.cuda.Device(xp._device):
            return run()
    return run()


@pytest.mark.parametrize("name", ["covariance_matrix", "precision_matrix"])
def test_a_normal_of_a_matrix(gpu, name):
    def work(xp, loc, matrix):
        q = rp.MultivariateNormal(loc, **{name: matrix})
        return q.scale_tril, q.precision_matrix, q.log_prob(loc)

    same_on_both(gpu, work, LOC, COVARIANCE, waits=1)
    with pytest.raises(rp.NotPositiveDefiniteError, match=name):
        rp.MultivariateNormal(gpu[0].asarray(LOC), **{name: gpu[0].asarray(-COVARIANCE)})


def test_kl_of_two_families(gpu):
    def work(xp, loc, scale, tril):
        q, p = rp.MultivariateNormalDiag(loc, scale), rp.MultivariateNormal(loc, scale_tril=tril)
        return rp.kl_divergence(q, p), rp.kl_divergence(p, q)

    same_on_both(gpu, work, LOC, SCALE, TRIL)


def test_arguments_by_their_names(gpu):
    def work(xp, loc, scale, tril):
        q, p = rp.MultivariateNormalDiag(loc=loc, scale_diag=scale), rp.MultivariateNormal(loc=loc, scale_tril=tril)
        return [rp.kl_divergence(q=q, p=p), *rp.elbo(q=q, log_joint=log_joint, key=1)[:4]]

    same_on_both(gpu, work, LOC, SCALE, TRIL)


def test_numbers_take_the_place_of_the_arrays(gpu):
    same_on_both(gpu, lambda xp, loc: rp.Normal(loc, 2.0).rsample(key=0), LOC)


# ---- elbo

X, WEIGHT, BIAS = RNG.standard_normal((4, 5)), RNG.standard_normal((5, 3)), RNG.standard_normal(5)
FEATURES, COUNTS = RNG.standard_normal((4, 6, 3)), RNG.integers(0, 4, (4, 6)).astype(float)


def log_joint(value):
    return -0.5 * (value * value).sum(-1), -value


def log_joint_pullback(value):
    return -0.5 * (value * value).sum(-1), lambda weights: -weights[..., None] * value


def _of_scalars(joint, value):
    log_prob, given = joint(value[..., None])
    if callable(given):
        return log_prob, lambda weights: given(weights)[..., 0]
    return log_prob, given[..., 0]


TARGETS = {
    "gaussian": lambda: rp.targets.Gaussian,
    "linear": lambda: lambda x, weight, bias: rp.targets.LinearGaussian(x, weight, bias, 0.5),
    "poisson": lambda: lambda features, y: rp.targets.GLM(features, y, family="poisson", prior_scale=2.0),
    "normal": lambda: lambda features, y: rp.targets.GLM(
        features, y, family="normal", prior_scale=2.0, noise_scale=0.7
    ),
}
ARRAYS = {
    "gaussian": (LOC + 1, TRIL), "linear": (X, WEIGHT, BIAS), "poisson": (FEATURES, COUNTS),
    "normal": (FEATURES, COUNTS),
}  # fmt: skip


@pytest.mark.parametrize("estimator", ["pathwise", "stl", "iwae", "dreg"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("joint", [log_joint, log_joint_pullback])
def test_elbo_of_a_callable(gpu, joint, family, estimator):
    make, loc, scale = FAMILIES[family]

    def work(xp, loc, scale):
        q = make(loc, scale)
        density = joint if family != "scalar" else lambda z: _of_scalars(joint, z)
        return list(rp.elbo(q, density, key=3, num_samples=4, estimator=estimator))

    same_on_both(gpu, lambda xp, *given: _at(xp, lambda: work(xp, *given)), loc, np.abs(scale))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", ["diag", "tril", "packed"])
def test_elbo_of_a_target(gpu, family, target):
    make, loc, scale = FAMILIES[family]

    def work(xp, loc, scale, *arrays):
        built = TARGETS[target]()(*arrays)
        return [
            *rp.elbo(make(loc, scale), built, key=3, num_samples=4, index=np.arange(4, 8)),
            *rp.elbo(make(loc, scale), built, key=3, num_samples=4, estimator="dreg", grad=False)[:4],
        ]

    same_on_both(gpu, work, loc, np.abs(scale), *ARRAYS[target], waits=target == "poisson")


def test_elbo_of_an_encoder(gpu):
    features = RNG.standard_normal((4, 9))

    def work(xp, features):
        q, pullback = rp.nn.GaussianHead(3, "full").encode(features)
        made = []
        for estimator, draws in (("pathwise", 1), ("iwae", 3), ("stl", 3)):
            estimate = rp.elbo(q, log_joint_pullback, key=3, num_samples=draws, estimator=estimator)
            made += [*estimate, pullback(estimate.grad)]
        return made

    same_on_both(gpu, lambda xp, features: _at(xp, lambda: work(xp, features)), features)


def test_what_a_density_returns_must_lie_with_q(gpu):
    q = rp.MultivariateNormalDiag(gpu[0].asarray(LOC), gpu[0].asarray(SCALE))
    with pytest.raises(TypeError, match=r"elbo: q is a CuPy array and log_joint's log_prob a NumPy array|log_joint"):
        rp.elbo(q, lambda z: (np.zeros((1, 4)), np.zeros((1, 4, 3))), key=0)


# ---- optimizer and nets


def test_adam(gpu):
    def work(xp, param, grad):
        param = param.copy() if xp is np else xp.array(param)
        adam = rp.optim.Adam([param], lr=0.1, weight_decay=0.01)
        for _ in range(3):
            adam.step([grad])
        return param, *adam.m, *adam.v

    same_on_both(gpu, work, LOC, VALUE)


def test_the_state_of_adam_comes_from_either_memory(gpu):
    param = gpu[0].asarray(LOC)
    adam = rp.optim.Adam(param)
    adam.step(gpu[0].asarray(VALUE))
    state = pickle.loads(pickle.dumps(adam.state_dict()))
    other = rp.optim.Adam(param.copy())
    other.load_state_dict({"t": state["t"], "m": to_host(state["m"]), "v": to_host(state["v"])})
    gpu.same(other.m[0].get(), adam.m[0].get())
    with pytest.raises(TypeError, match=r"Adam: grads\[0\] is a ndarray, and params\[0\] a cupy.ndarray"):
        adam.step(VALUE)


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_net(gpu, activation):
    def work(xp, x, ct):
        params = xp.zeros(rp.nn.MLP.count((3, 4, 2)), "float64")
        net = rp.nn.MLP((3, 4, 2), activation=activation, key=0, dtype="float64", params=params)
        y, backprop = net(x)
        return [y, *backprop(ct), params]

    same_on_both(gpu, work, LOC, np.ascontiguousarray(VALUE[:, :2]))


def test_a_net_of_numpy_refuses_rows_of_cupy(gpu):
    with pytest.raises(TypeError, match="MLP: x is a CuPy array and the net's params a NumPy array"):
        rp.nn.MLP((3, 2), key=0, dtype="float64")(gpu[0].asarray(LOC))


def test_nothing_is_uploaded_or_awaited_once_it_has_run(gpu):
    """So that a graph can capture it."""
    cupy = gpu[0]
    q = rp.MultivariateNormal(cupy.asarray(LOC), scale_tril=cupy.asarray(TRIL))
    target = rp.targets.LinearGaussian(cupy.asarray(X), cupy.asarray(WEIGHT), cupy.asarray(BIAS), 0.5)

    def run():
        rp.elbo(q, target, key=1, num_samples=3)
        rp.elbo(q, log_joint_pullback, key=1, num_samples=3, estimator="iwae")
        return q.rsample((2,), key=1), rp.kl_divergence(q, q), q.rsample_and_log_prob(key=2)

    run()
    before = gpu.count("uploads"), gpu.count("waits")
    run()
    assert (gpu.count("uploads"), gpu.count("waits")) == before


@pytest.mark.parametrize("gpu", [BOTH[1]], indirect=True)
def test_a_graph(gpu):
    """Captured under a pool of its own, and replayed with other numbers."""
    cupy = gpu[0]
    q = rp.MultivariateNormal(cupy.asarray(LOC), scale_tril=cupy.asarray(TRIL))
    target = rp.targets.LinearGaussian(cupy.asarray(X), cupy.asarray(WEIGHT), cupy.asarray(BIAS), 0.5)
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator(pool.malloc):
        rp.elbo(q, target, key=1, num_samples=3)
        stream.begin_capture()
        made = rp.elbo(q, target, key=1, num_samples=3)
        graph = stream.end_capture()
    for shift in (0.0, 1.0):
        with stream:
            q.loc[...] = cupy.asarray(LOC + shift)
            graph.launch()
            stream.synchronize()
        known = rp.elbo(q, target, key=1, num_samples=3)
        gpu.same(made.value.get(), known.value.get())
        gpu.same(made.grad.scale_tril.get(), known.grad.scale_tril.get())
