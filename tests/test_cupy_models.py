# SPDX-License-Identifier: MIT
"""Models and inference on arrays of CuPy, against the same on NumPy's."""

import copy
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fake_cupy
import reparam as rp
from gpus import BOTH, gpu_of
from reparam._arrays import is_cupy

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((24, 5)) @ RNG.standard_normal((5, 5))
BITS = (ROWS > 0).astype(float)
MASK = (RNG.random(ROWS.shape) < 0.7).astype(float)
SETTINGS = {"hidden": (6,), "batch_size": 8, "epochs": 2, "dtype": "float64", "lr": 0.01}


@pytest.fixture(params=BOTH)
def gpu(request):
    """The stand-in, and a GPU where there is one."""
    with gpu_of(request.param) as gpu:
        yield gpu


stand_in = pytest.mark.parametrize("gpu", ["stand-in"], indirect=True)  # which counts


def on_cpu(work, *arrays):
    with rp.backend("native:scalar"):
        return work(*arrays)


def fitted(x, **changed):
    return rp.VAE(2, **{**SETTINGS, **changed}).fit(x)


VARIANTS = [
    {},
    {"noise_scale": 0.5, "covariance_type": "diag", "num_samples": 3, "estimator": "stl"},
    {"likelihood": "bernoulli", "num_samples": 3, "estimator": "iwae"},
    {"likelihood": "bernoulli", "estimator": "dreg", "num_samples": 2, "hidden": ()},
    {"likelihood": "binomial", "total_count": 3, "kl_weight": 0.5},
]


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("changed", VARIANTS, ids=str)
def test_a_vae(gpu, changed, device):
    cupy = gpu[0]
    gpu.require(device)
    x = BITS if "likelihood" in changed else ROWS
    with cupy.cuda.Device(device):
        on_device, mask = cupy.asarray(x), cupy.asarray(MASK)
    model = fitted(on_device, **changed)
    wanted = on_cpu(lambda: fitted(x, **changed))
    assert model._params.device.id == device
    gpu.near(model._params, wanted._params)
    for name, entries in wanted.history_.items():
        assert isinstance(model.history_[name], np.ndarray)
        np.testing.assert_allclose(model.history_[name], entries, rtol=1e-6)
    q, known = model.posterior(on_device), on_cpu(wanted.posterior, x)
    gpu.near(q.loc, known.loc)
    gpu.near(q._scale, known._scale)
    gpu.near(model.posterior(on_device, observed=mask).loc, on_cpu(lambda: wanted.posterior(x, observed=MASK).loc))
    gpu.near(model.posterior(on_device, refine=3).loc, on_cpu(lambda: wanted.posterior(x, refine=3).loc))
    gpu.near(model.elbo(on_device, key=1), on_cpu(lambda: wanted.elbo(x, key=1)))
    gpu.near(model.log_likelihood(on_device, key=1), on_cpu(lambda: wanted.log_likelihood(x, key=1)))
    gpu.near(model.reconstruct(on_device), on_cpu(wanted.reconstruct, x))
    gpu.near(model.sample(4, key=2), on_cpu(lambda: wanted.sample(4, key=2)))
    if changed in VARIANTS[:2]:
        gpu.near(model.map_estimate(on_device), on_cpu(wanted.map_estimate, x))
        made, known = (
            model.gaps(on_device, refine=3, num_samples=5),
            on_cpu(lambda: wanted.gaps(x, refine=3, num_samples=5)),
        )
        for name in ("log_evidence", "elbo", "approximation_gap", "amortization_gap"):
            np.testing.assert_allclose(getattr(made, name), getattr(known, name), rtol=1e-6, atol=1e-7)
        assert model.noise_scale_ == pytest.approx(wanted.noise_scale_)


@stand_in
def test_a_step_waits_once_and_launches_a_bounded_number(gpu):
    cupy = gpu[0]
    x = cupy.asarray(BITS.astype("float32"))
    told = []

    def count(info):
        told.append(fake_cupy.counts.copy())

    rp.VAE(2, **{**SETTINGS, "likelihood": "bernoulli", "dtype": "float32"}).fit(x, callbacks=[count])
    step = told[2] - told[1]  # of one epoch
    assert step["waits"] == 1
    assert step["uploads"] == 0
    assert step["kernels"] <= 10
    assert step["launches"] <= 48
    assert set(fake_cupy.counts) == {"launches", "kernels", "waits", "uploads"}


def test_a_model_follows_its_rows(gpu, tmp_path):
    cupy = gpu[0]
    x = cupy.asarray(ROWS)
    model = fitted(x)
    loc = model.posterior(x).loc.get()
    model.save(tmp_path / "model.npz")
    for twin in (rp.VAE.load(tmp_path / "model.npz"), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_allclose(on_cpu(twin.posterior, ROWS).loc, loc, rtol=1e-6)
        gpu.near(twin.posterior(x).loc, loc)
        gpu.near(twin.decode(cupy.zeros((3, 2))), on_cpu(model.decode, np.zeros((3, 2))))
    if gpu.kernels:
        with cupy.cuda.Device(1):
            z = cupy.zeros((3, 2))
        assert model.decode(z).device.id == model._params.device.id == 1
    before = model.partial_fit(x)._params.get()
    gpu.near(model.partial_fit(x)._params, on_cpu(lambda: _again(model, before, x)))


def _again(model, params, x):
    """The second of two passes, on NumPy's rows."""
    twin = fitted(x.get())
    twin.partial_fit(x.get())
    np.testing.assert_allclose(twin._params, params, rtol=1e-6)
    return twin.partial_fit(x.get())._params


def test_resume(gpu, tmp_path):
    x, path = gpu[0].asarray(ROWS), tmp_path / "fit.npz"
    whole = fitted(x)
    rp.VAE(2, **{**SETTINGS, "epochs": 1}).fit(x, checkpoint=path)
    resumed = rp.VAE(2, **SETTINGS).fit(x, checkpoint=path, resume=True)
    assert resumed._params.get().tobytes() == whole._params.get().tobytes()
    with np.load(path) as arrays:
        assert arrays["params"].tobytes() == whole._params.get().tobytes()
    from_numpy = on_cpu(lambda: rp.VAE(2, **SETTINGS).fit(ROWS, checkpoint=path, resume=True))
    assert isinstance(from_numpy._params, np.ndarray)


def test_training_is_not_led_away(gpu):
    x = gpu[0].asarray(ROWS)

    def ask(info):
        info.model.posterior(ROWS)

    with pytest.raises(TypeError, match="VAE: x must lie where the model is while it trains"):
        rp.VAE(2, **SETTINGS).fit(x, callbacks=[ask])
    gpu.near(rp.VAE(2, **SETTINGS).fit(x, validation=ROWS)._params, on_cpu(lambda: fitted(ROWS)._params))


def test_divergence_names_the_rows(gpu):
    x = ROWS.copy()
    x[3] = 1e200
    with pytest.raises(ValueError, match=r"training diverged at step \d+ .* in row 3 of the data"):
        fitted(gpu[0].asarray(x))


def test_data_that_do_not_fit(gpu):
    cupy = gpu[0]
    with pytest.raises(ValueError, match=r"VAE: x must be finite in float64, got nan at \[1, 2\]"):
        rp.VAE(2, **SETTINGS).fit(cupy.asarray(np.where(np.arange(120).reshape(24, 5) == 7, np.nan, ROWS)))
    with pytest.raises(ValueError, match="VAE: x must be 0 or 1 everywhere, got"):
        fitted(cupy.asarray(ROWS), likelihood="bernoulli")


# ---- inference with theta fixed

LOC = RNG.standard_normal((4, 2))
TRIL = np.tril(0.3 * RNG.standard_normal((4, 2, 2))) + np.eye(2)
FEATURES, Y = RNG.standard_normal((4, 9, 2)), (RNG.random((4, 9)) < 0.5).astype(float)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam", "estimator": "pathwise", "covariance_type": "diag"},
                                      {"estimator": "dreg", "num_samples": 4}], ids=str)  # fmt: skip
@pytest.mark.parametrize("device", [0, 1])
def test_fit_vi_of_a_target(gpu, settings, device):
    cupy = gpu[0]
    gpu.require(device)

    def work(features, y):
        target = rp.targets.GLM(features, y, family="logistic", prior_scale=1.5)
        return rp.fit_vi(target, 2, batch_shape=4, max_steps=60, key=3, **settings)

    with cupy.cuda.Device(device):
        arrays = cupy.asarray(FEATURES), cupy.asarray(Y)
    before = gpu.count("waits")
    made, wanted = work(*arrays), on_cpu(work, FEATURES, Y)
    steps = len(wanted.history["elbo"])
    assert gpu.count("waits") - before < 2 * steps + 40  # the history, and the looks
    for name in ("loc", "_scale"):
        gpu.near(getattr(made.q, name), getattr(wanted.q, name))
    for name in ("elbo", "standard_error", "khat"):
        gpu.near(getattr(made, name), getattr(wanted, name))
    for name in ("converged", "n_steps"):
        assert np.array_equal(getattr(made, name), getattr(wanted, name))
    for name, entries in wanted.history.items():
        np.testing.assert_allclose(made.history[name], entries, rtol=1e-6, atol=1e-9)


def test_fit_vi_of_a_callable_from_a_start(gpu):
    cupy = gpu[0]

    def work(loc, scale, mean):
        q = rp.MultivariateNormalDiag(loc, scale)
        return rp.fit_vi(lambda z: (-0.5 * ((z - mean) ** 2).sum(-1), mean - z), 2, init=q, max_steps=40)

    arrays = np.zeros(2), np.ones(2), np.array([1.0, -2.0])
    made, wanted = work(*map(cupy.asarray, arrays)), on_cpu(work, *arrays)
    gpu.near(made.q.loc, wanted.q.loc)
    assert bool(made.converged) == bool(wanted.converged)


@pytest.mark.parametrize("device", [0, 1])
def test_map_estimate(gpu, device):
    cupy = gpu[0]
    gpu.require(device)

    def work(features, y, init):
        target = rp.targets.GLM(features, y, family="logistic", prior_scale=1.5)
        return rp.map_estimate(target, init, laplace=True)

    with cupy.cuda.Device(device):
        arrays = cupy.asarray(FEATURES), cupy.asarray(Y), cupy.zeros((4, 2))
    made, wanted = work(*arrays), on_cpu(work, FEATURES, Y, np.zeros((4, 2)))
    gpu.near(made.value, wanted.value)
    gpu.near(made.log_prob, wanted.log_prob)
    assert made.converged.get().tolist() == wanted.converged.tolist()
    gpu.near(made.laplace.scale_tril, wanted.laplace.scale_tril)


def test_map_estimate_of_one_problem(gpu):
    made = rp.map_estimate(lambda z: (-0.5 * (z * z).sum(-1), -z), gpu[0].asarray(np.ones(3)), laplace=True)
    assert bool(made.converged)
    np.testing.assert_allclose(made.laplace.scale_tril.get(), np.eye(3), atol=1e-5)


def test_fit_amortized(gpu, tmp_path):
    cupy = gpu[0]
    weight = RNG.standard_normal((5, 2))

    def work(weight, x):
        model = rp.LinearGaussianModel(weight, 0 * weight[:, 0], 0.5)
        return rp.fit_amortized(model.log_joint, x, 2, hidden=(4,), batch_size=8, epochs=2, dtype="float64")

    x = cupy.asarray(ROWS)
    made, wanted = work(cupy.asarray(weight), x), on_cpu(work, weight, ROWS)
    gpu.near(made.posterior(x).loc, on_cpu(wanted.posterior, ROWS).loc)
    gpu.near(made.elbo(x, key=1), on_cpu(lambda: wanted.elbo(ROWS, key=1)))
    np.testing.assert_allclose(made.history_["elbo"], wanted.history_["elbo"])
    made.save(tmp_path / "posterior.npz")
    gpu.near(
        rp.inference.AmortizedPosterior.load(tmp_path / "posterior.npz").posterior(x).loc, made.posterior(x).loc.get()
    )


# ---- models with closed forms


@pytest.mark.parametrize("device", [0, 1])
def test_linear_gaussian_models(gpu, device):
    cupy = gpu[0]
    gpu.require(device)

    def work(x, mask):
        model = rp.ProbabilisticPCA(2).fit(x)
        z = model.map_estimate(x)
        log_prob, grad = model.log_joint(x, mask)(z[None])
        made = [model.weight_, model.bias_, z, model.posterior(x).scale_tril, model.log_evidence(x), log_prob, grad]
        made += [model.log_evidence(x, observed=mask), model.posterior(x, observed=mask).loc]
        return [*made, model.decode(z), model.generate(z, key=1), model.sample(3, key=2)], model.noise_scale_

    with cupy.cuda.Device(device):
        arrays = cupy.asarray(ROWS), cupy.asarray(MASK)
        made, sigma = work(*arrays)
    wanted, known = on_cpu(work, ROWS, MASK)
    assert sigma == pytest.approx(known)
    for x, y in zip(made, wanted, strict=True):
        gpu.near(x, y)


def test_a_linear_model_of_numpy_takes_rows_of_either(gpu, tmp_path):
    model = rp.LinearGaussianModel(RNG.standard_normal((5, 2)), np.zeros(5), 0.5)
    gpu.near(model.posterior(gpu[0].asarray(ROWS)).loc, on_cpu(model.posterior, ROWS).loc)
    there = rp.ProbabilisticPCA(2).fit(gpu[0].asarray(ROWS))
    there.save(tmp_path / "model.npz")
    np.testing.assert_allclose(rp.ProbabilisticPCA.load(tmp_path / "model.npz").weight_, there.weight_.get())
    with pytest.raises(TypeError, match="LinearGaussianModel: log_joint: x is a CuPy array and value a NumPy array"):
        model.log_joint(gpu[0].asarray(ROWS))(np.zeros((1, 24, 2)))


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("start", ["kmeans", "k-means++", "random", "random_from_data"])
def test_gaussian_mixture(gpu, kind, start):
    cupy = gpu[0]
    x = np.concatenate([ROWS, ROWS + 8, 0.1 * ROWS - 8])

    def work(x):
        settings = {"covariance_type": kind, "init_params": start, "reg_covar": 1e-3, "max_iter": 300}
        model = rp.GaussianMixture(3, random_state=0, **settings).fit(x)
        made = [model.weights_, model.means_, model.covariances_, model.precisions_, model.precisions_cholesky_]
        made += [model.score_samples(x), model.predict(x), model.predict_proba(x), model.elbo(x), *model.sample(5)]
        return [*made, model.elbo(x, model.predict_proba(x))], (model.lower_bound_, model.score(x), model.bic(x)), model

    on_device = cupy.asarray(x)
    made, numbers, model = work(on_device)
    wanted, known, other = on_cpu(work, x)
    np.testing.assert_allclose(numbers, known, rtol=1e-8)
    for a, b in zip(made, wanted, strict=True):
        assert is_cupy(a)
        np.testing.assert_allclose(a.get(), b, rtol=1e-5, atol=1e-7)
    assert (model.n_iter_, model.converged_) == (other.n_iter_, other.converged_)
    np.testing.assert_allclose(model.predict(x), other.predict(x))  # of NumPy's rows


@stand_in
def test_gaussian_mixture_waits_by_the_iteration(gpu, tmp_path):
    x = gpu[0].asarray(np.concatenate([ROWS, ROWS + 8]))
    waits = []
    for steps in (2, 3):
        before = fake_cupy.counts["waits"]
        with pytest.warns(RuntimeWarning, match="did not converge"):
            model = rp.GaussianMixture(2, init_params="random", tol=0.0, max_iter=steps, random_state=0).fit(x)
        waits.append(fake_cupy.counts["waits"] - before)
    assert waits[1] - waits[0] <= 2
    model.save(tmp_path / "model.npz")
    assert isinstance(rp.GaussianMixture.load(tmp_path / "model.npz").means_, np.ndarray)


@stand_in
def test_the_example_of_the_readme(gpu):
    cupy = gpu[0]
    (text,) = re.findall(r"^```py\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    normals = SimpleNamespace(
        standard_normal=lambda shape, dtype: rp.random.normal(shape, key=0, like=cupy.empty(0, dtype))
    )
    cupy.random = SimpleNamespace(default_rng=lambda seed: normals)
    for large, small in (("100_000", "40"), ("512", "8"), ("4096", "16"), ("epochs=20", "epochs=1")):
        assert large in text
        text = text.replace(large, small)
    names = {}
    exec(text, names)
    assert is_cupy(names["q"].loc)
