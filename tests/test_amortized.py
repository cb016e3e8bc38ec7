# SPDX-License-Identifier: MIT
"""One encoder for all rows: the exact evidence where it can be reached, files, and densities that are wrong."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_iris

import reparam as rp
from support import same_bits

EVIDENCE, MEAN_FIELD = -404.962780, -507.088309  # of iris by probabilistic PCA, its loadings rotated by 30 degrees
LATENT_DIM = 2


@pytest.fixture(scope="module")
def iris():
    """Probabilistic PCA at maximum likelihood: the weights, and the log joint of any rows with its exact ELBO."""
    x = load_iris().data
    mean, (variances, axes) = x.mean(0), np.linalg.eigh(np.cov(x.T, ddof=0))
    noise = variances[:-LATENT_DIM].mean()
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    weight = axes[:, :-3:-1] * np.sqrt(variances[:-3:-1] - noise) @ [[cos, -sin], [sin, cos]]
    return SimpleNamespace(x=x, weight=weight, bias=mean, noise_scale=np.sqrt(noise))


def log_joint_of(model, dtype="float64"):
    weight, bias = model.weight.astype(dtype), model.bias.astype(dtype)
    n, d = weight.shape
    constant = (n + d) / 2 * np.log(2 * np.pi) + n * np.log(model.noise_scale)

    def log_joint(rows):
        def density(z):
            r = (rows - bias - z @ weight.T) / rows.dtype.type(model.noise_scale)
            log_prob = -0.5 * ((z * z).sum(-1) + (r * r).sum(-1)) - rows.dtype.type(constant)
            return log_prob, r @ weight / rows.dtype.type(model.noise_scale) - z

        return density

    return log_joint


def log_evidence(model, x):
    covariance = model.weight @ model.weight.T + model.noise_scale**2 * np.eye(x.shape[1])
    r = x - model.bias
    squares = np.einsum("bi,ij,bj->b", r, np.linalg.inv(covariance), r)
    return -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])


def exact_elbo(model, q, x):
    """The log joint is quadratic in z: its mean under q is that of the points loc +- sqrt(d) L_i."""
    d = q.event_shape[0]
    scale_tril = q.scale_tril if isinstance(q, rp.MultivariateNormal) else q.scale_diag[..., None] * np.eye(d)
    steps = np.sqrt(d) * np.moveaxis(scale_tril, -1, 0)
    log_prob, _ = log_joint_of(model)(x)(q.loc + np.concatenate([steps, -steps]))
    return log_prob.mean(0) + q.entropy()


def standard(rows):
    """The density of N(0, I), whatever the row."""
    return lambda z: (-0.5 * (z * z).sum(-1), -z)


def fit(log_joint=standard, x=None, latent_dim=LATENT_DIM, **arguments):
    small = {"hidden": (3,), "batch_size": 5, "epochs": 3, "lr": 0.01, "key": 7}
    x = np.linspace(-1, 1, 40).reshape(10, 4) ** 2 if x is None else x
    return rp.fit_amortized(log_joint, x, latent_dim, **{**small, **arguments})


# ---- the exact answer


@pytest.mark.parametrize(("estimator", "num_samples"), [("pathwise", 4), ("stl", 1)])
def test_a_linear_encoder_reaches_the_evidence_and_a_diagonal_one_mean_field(iris, estimator, num_samples):
    """By row; the posterior of a linear-Gaussian model is linear in x with one covariance, so the gap can close."""
    evidence = log_evidence(iris, iris.x)
    assert evidence.sum() == pytest.approx(EVIDENCE, abs=1e-6)
    settings = {"estimator": estimator, "num_samples": num_samples, "batch_size": 150, "epochs": 5000, "hidden": ()}
    gaps = {}
    for kind in ("full", "diag"):
        rate = {"lr": lambda step: 0.1 * 10 ** (-3 * step / 5000), "dtype": "float64", "key": 0}
        made = rp.fit_amortized(log_joint_of(iris), iris.x, LATENT_DIM, covariance_type=kind, **settings, **rate)
        gaps[kind] = evidence - exact_elbo(iris, made.posterior(iris.x), iris.x)
        assert made.history_["elbo"][-1] > made.history_["elbo"][0] + 1
    assert (gaps["full"] > -1e-9).all()
    assert gaps["full"].max() < 0.01
    assert np.abs(gaps["diag"] - (EVIDENCE - MEAN_FIELD) / 150).max() < 0.01
    assert gaps["diag"].mean() > 0.6808


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_density_may_be_a_fused_target_or_a_models_bound_method(iris, dtype):
    x = iris.x.astype(dtype)
    arrays = (np.asarray(a, dtype) for a in (iris.weight, iris.bias, iris.noise_scale))
    weight, bias, noise_scale = arrays
    settings = {"x": x, "dtype": dtype, "batch_size": 50, "num_samples": 2}
    plain = fit(log_joint_of(iris, dtype), **settings)
    fused = fit(lambda rows: rp.targets.LinearGaussian(rows, weight, bias, noise_scale), **settings)
    tolerance = {"float32": 1e-4, "float64": 1e-10}[dtype]
    np.testing.assert_allclose(fused.history_["elbo"], plain.history_["elbo"], rtol=tolerance)
    np.testing.assert_allclose(fused.elbo(x, key=1), plain.elbo(x, key=1), rtol=tolerance)
    vae = rp.VAE(LATENT_DIM, hidden=(), noise_scale=float(iris.noise_scale), dtype=dtype, epochs=1).fit(x)
    vae._decoder.views["weight0"][...], vae._decoder.views["bias0"][...] = weight.T, bias
    bound = fit(vae.log_joint, **settings)
    np.testing.assert_allclose(bound.history_["elbo"], plain.history_["elbo"], rtol=tolerance)


@pytest.mark.parametrize("estimator", ["pathwise", "stl", "iwae", "dreg"])
def test_every_estimator_trains(iris, estimator):
    settings = {"estimator": estimator, "num_samples": 3, "epochs": 60, "batch_size": 50, "hidden": (16,), "lr": 0.02}
    made = fit(log_joint_of(iris, "float32"), iris.x, **settings)
    bound = made.elbo(iris.x, key=1, num_samples=50).mean()
    assert log_evidence(iris, iris.x).mean() - 1 < bound < log_evidence(iris, iris.x).mean()


# ---- what it gives


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_posterior_elbo_and_history(kind, dtype):
    x = np.linspace(-1, 1, 40).reshape(10, 4)
    seen = []

    def log_joint(rows):
        seen.append(rows)
        return standard(rows)

    made = fit(log_joint, x, covariance_type=kind, dtype=dtype)
    assert len(seen) == 6
    assert {rows.dtype.name for rows in seen} == {dtype}
    same_bits(np.sort(np.concatenate(seen[:2]), 0), np.sort(x.astype(dtype), 0))  # the rows themselves
    assert {name: entries.tolist() for name, entries in made.history_.items() if name != "elbo"} == {
        "step": [2.0, 4.0, 6.0], "epoch": [0.0, 1.0, 2.0],
    }  # fmt: skip
    q = made.posterior(x[:3] + 1)
    assert (type(q).__name__, q.batch_shape, q.dtype.name) == (
        {"full": "MultivariateNormal", "diag": "MultivariateNormalDiag"}[kind], (3,), dtype,
    )  # fmt: skip
    estimate = rp.elbo(made.posterior(x), standard(x), key=5, num_samples=4)
    same_bits(made.elbo(x, key=5, num_samples=4), estimate.value)
    same_bits(made.elbo(x, key=5), made.elbo(x, key=5, num_samples=1))
    same_bits(fit(x=x, covariance_type=kind, dtype=dtype)._encoder.params, made._encoder.params)
    assert (fit(x=x, covariance_type=kind, dtype=dtype, key=8)._encoder.params != made._encoder.params).any()


def test_units_do_not_matter():
    """Columns are standardized, a constant one too: the same fit in metres and in millimetres, from any origin."""
    x = np.random.default_rng(0).standard_normal((10, 4)) * [1, 1, 1, 0]
    same = fit(x=x, dtype="float64").posterior(x)
    moved = fit(x=1024 * x + 4096, dtype="float64").posterior(1024 * x + 4096)
    np.testing.assert_allclose(moved.loc, same.loc, rtol=1e-9)
    constant = np.where(np.arange(4) == 2, 0.1, x)  # whose deviation is no zero in binary
    np.testing.assert_array_equal(fit(x=constant, dtype="float64")._scale[2:], 1)


def test_a_row_draws_by_its_number_whatever_stands_beside_it(monkeypatch):
    x = np.random.default_rng(0).standard_normal((10, 4))
    made = fit(x=x, dtype="float64")
    whole = made.elbo(x, key=1, num_samples=3)
    monkeypatch.setattr("reparam.inference.amortized_posterior.ROWS_AT_ONCE", 4)
    np.testing.assert_allclose(made.elbo(x, key=1, num_samples=3), whole, rtol=1e-12)


def test_files_and_copies_hold_all_but_the_density(tmp_path):
    path, x = tmp_path / "q.npz", np.linspace(-1, 1, 40).reshape(10, 4)
    made = fit(x=x, covariance_type="diag", num_samples=2)
    made.save(path)
    loaded = rp.AmortizedPosterior.load(path, standard)
    for other in (loaded, copy.deepcopy(made)):
        assert repr(other) == repr(made)
        same_bits(other.posterior(x).loc, made.posterior(x).loc)
        same_bits(other.posterior(x).scale_diag, made.posterior(x).scale_diag)
        same_bits(other.elbo(x, key=1), made.elbo(x, key=1))
        assert all((other.history_[name] == made.history_[name]).all() for name in made.history_)
    with pytest.raises(ValueError, match="elbo needs the density: load it with log_joint="):
        rp.AmortizedPosterior.load(path).elbo(x, key=1)
    with pytest.raises(TypeError, match="AmortizedPosterior: log_joint must be callable, got int"):
        rp.AmortizedPosterior.load(path, 3)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "q.npz"
    rp.VAE(1, hidden=(), batch_size=2, epochs=1).fit(np.ones((4, 3))).save(path)
    with pytest.raises(rp.CheckpointError, match="holds a VAE, not a AmortizedPosterior"):
        rp.AmortizedPosterior.load(path)
    fit().save(path)
    stored = dict(np.load(path))
    header = json.loads(stored["header"].tobytes())
    for change in ({"latent_dim": 3}, {"hidden": "x"}, {"nonsense": 1}):
        text = json.dumps({**header, "config": {**header["config"], **change}})
        np.savez(path, **{**stored, "header": np.frombuffer(text.encode(), np.uint8)})
        with pytest.raises(rp.CheckpointError, match=r"q\.npz"):
            rp.AmortizedPosterior.load(path)


# ---- what is refused


def wrong(log_prob=lambda z: -0.5 * (z * z).sum(-1), gradient=lambda z: -z):
    return lambda rows: lambda z: (log_prob(z), gradient(z))


def test_a_density_that_is_wrong_is_told():
    cases = [
        (3, TypeError, "fit_amortized: log_joint must be callable, got int"),
        (lambda rows: (1, 2), TypeError, r"log_joint\(rows\) must return a function of z or a target, got tuple"),
        (lambda rows: lambda z: z, TypeError, r"log_joint must return \(log_prob, gradient\), got ndarray"),
        (wrong(lambda z: z[0, :, 0]), ValueError, r"log_joint's log_prob must have shape \(1, 5\), got \(5,\)"),
        (wrong(gradient=lambda z: z[..., :1]), ValueError, r"gradient must have shape \(1, 5, 2\), got \(1, 5, 1\)"),
        (wrong(gradient=lambda z: lambda w: w), ValueError, r"pullback's result must have .*2\), got \(1, 5\)"),
        (wrong(lambda z: z.sum(-1).astype("f8")), TypeError, "log_prob is float64 and q is float32"),
        (lambda rows: rp.targets.Gaussian(np.zeros(2), np.eye(2)), TypeError, "target is float64 and q is float32"),
    ]
    for log_joint, error, message in cases:
        with pytest.raises(error, match=message):
            fit(log_joint)
    with pytest.raises(ZeroDivisionError):
        fit(lambda rows: lambda z: 1 / 0)
    narrow = rp.VAE(3, hidden=(), batch_size=2, epochs=1).fit(np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"value must have shape \(S, 5, latent_dim\), got .*\(latent_dim is 3\)"):
        fit(narrow.log_joint)


def test_rows_whose_density_is_nan_are_named_and_an_elbo_has_nan_there():
    x = np.random.default_rng(0).standard_normal((10, 4))

    def log_joint(rows):
        return lambda z: (np.where(rows[:, 0] == x[6, 0], np.nan, -0.5 * (z * z).sum(-1)), -z)

    with pytest.raises(ValueError, match=r"training diverged at step [12] \(epoch 0\): .* in row 6 of the data"):
        fit(log_joint, x, dtype="float64")
    made = fit(x=x, dtype="float64")
    made._log_joint = log_joint
    assert np.isnan(made.elbo(x, key=1)).nonzero()[0].tolist() == [6]


def test_bad_data_and_arguments_are_named():
    x = np.ones((10, 4))
    x[3, 1] = np.nan
    cases = [
        ({"x": x}, ValueError, r"fit_amortized: x must be finite in float32, got nan at \[3, 1\]"),
        ({"x": x[0]}, ValueError, r"fit_amortized: x must have shape \(n, data_dim\), got \(4,\)"),
        ({"latent_dim": 0}, ValueError, "fit_amortized: latent_dim must be >= 1, got 0"),
        ({"batch_size": 11}, ValueError, "fit_amortized: batch_size must be <= n = 10, got 11"),
        ({"hidden": 3}, TypeError, "fit_amortized: hidden must be a sequence of integers >= 1, got 3"),
        ({"lr": lambda step: 1e39}, ValueError, "training diverged"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            fit(**arguments)
    with pytest.raises(ValueError, match="fit_amortized: training diverged in the last step; lower lr"):
        fit(lr=lambda step: 1e39, epochs=1, batch_size=10)
    with pytest.raises(ValueError, match=r"AmortizedPosterior: x must have shape \(n, 4\), got \(2, 3\)"):
        fit().posterior(np.ones((2, 3)))
