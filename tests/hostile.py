# SPDX-License-Identifier: MIT
"""What the tests of bad input share: a refused call, and a good call of every public name to make bad ones of."""

import inspect
from functools import cache
from types import ModuleType

import numpy as np
import pytest

import reparam as rp
from support import ATTRIBUTES, OPS, extents_of, keyword_extents, residuals, sample_cotangents, sample_inputs
from test_calls import pack


def refused(error, message, call, *args, **keywords):
    """The call fails with exactly this message, and all arrays that it was given are as they were."""
    given = [x for a in (*args, *keywords.values()) for x in (a if isinstance(a, tuple) else (a,))]
    arrays = [x for x in given if isinstance(x, np.ndarray)]
    before = [x.tobytes() for x in arrays]
    with pytest.raises(error) as caught:
        call(*args, **keywords)
    assert (caught.type, str(caught.value)) == (error, message)
    assert [x.tobytes() for x in arrays] == before


# ---- the public names


def public_names():
    """Every name that takes something and what: functions, classes, their methods, ops and their reverse passes."""
    found = {name: getattr(rp, name) for name in rp.__all__}
    modules = {name: x for name, x in found.items() if isinstance(x, ModuleType)}
    for module, x in modules.items():
        first = {id(value) for value in found.values()}  # rp.models.VAE is rp.VAE
        found |= {f"{module}.{name}": getattr(x, name) for name in x.__all__ if id(getattr(x, name)) not in first}
    for name, x in [*found.items()]:
        found |= {f"{name}.{part}": getattr(x, part) for part in _parts(x)}
    return {name: parameters(x) for name, x in found.items() if callable(x) and _takes_something(x)}


def _parts(x):
    """Of a class the methods that are our own, of an op its reverse passes."""
    if hasattr(x, "signature"):
        return [part for part in ("vjp", "value_and_vjp") if getattr(x, part) is not None]
    own = {n for kind in getattr(x, "__mro__", ()) if kind.__module__.startswith("reparam") for n in vars(kind)}
    return [n for n in own if callable(getattr(x, n)) and (n == "__call__" or not n.startswith("_"))]


def _takes_something(x):
    """But for what calls return and raise."""
    is_result = isinstance(x, type) and issubclass(x, (tuple, Exception))
    return not is_result and bool(inspect.signature(x).parameters.keys() - {"self"})


def parameters(x):
    """Names of what it takes, but for arrays without a name and keywords that go elsewhere."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, p in inspect.signature(x).parameters.items() if name != "self" and p.kind not in several]


# ---- a good call of each pass of each op

BATCH, D = 4, 3
WAYS = [p for op in OPS for p in (op.forward_pass, op.vjp_pass, op.value_and_vjp_pass) if p is not None]
PASSES = [p for way in WAYS for p in (way, way.packed) if p is not None]


@cache
def arguments(p, batch=BATCH, d=D, dtype="float64"):
    """Arrays and keywords that the pass accepts."""
    rng, op = np.random.default_rng(0), p.op
    keywords = {n: ATTRIBUTES[n] for n, default in op.defaults.items() if default is None}
    arrays = sample_inputs(op, rng, (batch,), d, dtype)
    if p.reverse:
        arrays = [*residuals(op, arrays), *sample_cotangents(op, rng, (batch,), d, dtype)]
    else:
        keywords |= keyword_extents(op, extents_of(op, d))
    if p.unpacked is not p:
        arrays, keywords = pack(p.unpacked.inputs, arrays), {**keywords, "packed": True}
    return arrays, keywords


def call(p, *args, **keywords):
    return (getattr(p.op, p.kind) if p.reverse else p.op)(*args, **keywords)


def results(p):
    """Of the good call, on copies since some are updated in place."""
    arrays, keywords = arguments(p)
    return flat(call(p, *(x.copy() for x in arrays), **keywords))


def flat(made):
    """All results in one tuple."""
    parts = made if isinstance(made, tuple) else (made,)
    return tuple(x for part in parts for x in (part if isinstance(part, tuple) else (part,)))


# ---- a good call of every other name: the function, made when it is needed, and what it takes

LOC, ONES, EYE = np.zeros((2, 3)), np.ones(3), np.eye(3)
Q, Q_DIAG = rp.MultivariateNormal(LOC, scale_tril=EYE), rp.MultivariateNormalDiag(LOC, ONES)
Q_SCALAR = rp.Normal(np.zeros(2), 1.0)
ROWS = np.linspace(-1, 1, 12).reshape(4, 3)
IMAGES, FACTORS = np.ones((2, 3, 4, 4)), np.broadcast_to(np.eye(3), (4, 3, 3))


def log_joint(z):
    return -0.5 * (z * z).sum(-1), -z


def net():
    return rp.nn.MLP((3, 4, 2), key=0)


def single(*shape):
    return np.zeros(shape, np.float32)


@cache
def model():
    return rp.VAE(2, hidden=(3,), batch_size=2, epochs=1).fit(ROWS)


@cache
def gaussian_mixture():
    return rp.GaussianMixture(2, random_state=0).fit(ROWS)


@cache
def linear_gaussian():
    return rp.LinearGaussianModel(np.ones((3, 2)), np.zeros(3), 0.5)


@cache
def probabilistic_pca():
    return rp.ProbabilisticPCA(2).fit(ROWS + np.eye(4, 3))


def load(made):
    """``load`` of a model's class, with its file in the folder that the test runs in."""

    def call(path):
        made.save("model.npz")
        return type(made).load(path)

    return call


@cache
def amortized():
    return rp.fit_amortized(lambda rows: log_joint, ROWS, 2, hidden=(3,), batch_size=2, epochs=1)


def load_amortized(path, log_joint):
    amortized().save("posterior.npz")
    return rp.AmortizedPosterior.load(path, log_joint)


def use_backend(name):
    with rp.backend(name):
        pass


def encode(rows):
    return rp.MultivariateNormalDiag(np.zeros((len(rows), 2)), np.ones((len(rows), 2))), lambda grad: None


def _adam():
    return rp.optim.Adam(np.zeros(3))


def _methods(q):
    """Calls of the methods of a distribution."""
    owner, draw = type(q).__name__, {"sample_shape": (2,), "key": 0, "index": None}
    return {
        f"{owner}.log_prob": (lambda: q.log_prob, {"value": q.loc}),
        f"{owner}.rsample": (lambda: q.rsample, draw),
        f"{owner}.rsample_and_log_prob": (lambda: q.rsample_and_log_prob, draw),
    }


def _linear(made):
    """Calls of the methods of a linear-Gaussian model, which is made when it is needed."""
    with_mask, z = {"x": ROWS, "observed": None}, np.zeros(2)
    calls = dict.fromkeys(("posterior", "log_evidence", "map_estimate", "log_joint"), with_mask)
    calls |= {"decode": {"z": z}, "generate": {"z": z, "key": 0}, "sample": {"n": 2, "key": 0}}
    calls |= {"save": {"path": "model.npz"}}
    return {name: (lambda name=name: getattr(made(), name), good) for name, good in calls.items()} | {
        "load": (lambda: load(made()), {"path": "model.npz"})
    }


CALLS = {
    "Normal": (lambda: rp.Normal, {"loc": np.zeros(2), "scale": 1.0}),
    "MultivariateNormalDiag": (lambda: rp.MultivariateNormalDiag, {"loc": LOC, "scale_diag": ONES}),
    "MultivariateNormal": (lambda: rp.MultivariateNormal, {
        "loc": LOC, "scale_tril": EYE, "covariance_matrix": None, "precision_matrix": None, "packed": False,
    }),
    **_methods(Q), **_methods(Q_DIAG), **_methods(Q_SCALAR),
    "kl_divergence": (lambda: rp.kl_divergence, {"q": Q, "p": Q_DIAG}),
    "elbo": (lambda: rp.elbo, {
        "q": Q, "log_joint": log_joint, "key": 0, "num_samples": 2, "estimator": "stl", "index": None, "grad": True,
    }),
    "targets.Gaussian": (lambda: rp.targets.Gaussian, {"loc": LOC, "scale_tril": EYE}),
    "targets.LinearGaussian": (lambda: rp.targets.LinearGaussian, {
        "x": np.zeros((2, 5)), "weight": np.zeros((5, 3)), "bias": np.zeros(5), "noise_scale": 1.0,
    }),
    "targets.GLM": (lambda: rp.targets.GLM, {
        "features": np.ones((4, 2)), "y": np.ones(4), "family": "normal", "prior_scale": 1.0, "noise_scale": 1.0,
    }),
    "random.Draw": (lambda: rp.random.Draw, {"key": 0, "index": [0, 1]}),
    "random.as_key": (lambda: rp.random.as_key, {"key": 0, "name": "key"}),
    "random.bits": (lambda: rp.random.bits, {"n": 2, "key": 0, "stream": 0, "offset": 0}),
    "random.draw_index": (lambda: rp.random.draw_index, {
        "index": [0, 1], "batch_shape": (2,), "name": "index", "like": ONES,
    }),
    "random.fold_in": (lambda: rp.random.fold_in, {"key": 0, "data": 1}),
    "random.normal": (lambda: rp.random.normal, {
        "shape": (2, 3), "key": 0, "stream": 0, "offset": 0, "dtype": None, "like": None,
    }),
    "nn.MLP": (lambda: rp.nn.MLP, {
        "sizes": (3, 4), "activation": "tanh", "key": 0, "dtype": "float32", "params": None,
    }),
    "nn.MLP.__call__": (lambda: net(), {"x": single(2, 3), "grads": None}),
    "nn.GaussianHead": (lambda: rp.nn.GaussianHead, {"latent_dim": 2, "covariance_type": "full"}),
    "nn.GaussianHead.__call__": (lambda: rp.nn.GaussianHead(2, "full"), {"features": single(4, 5)}),
    "nn.GaussianHead.encode": (lambda: rp.nn.GaussianHead(2, "full").encode, {"features": single(4, 5)}),
    "nn.GaussianHead.start_at_identity": (lambda: rp.nn.GaussianHead(1, "full").start_at_identity, {"net": net()}),
    "optim.Adam": (lambda: rp.optim.Adam, {
        "params": np.zeros(3), "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0,
    }),
    "optim.Adam.step": (lambda: _adam().step, {"grads": np.zeros(3)}),
    "optim.Adam.load_state_dict": (lambda: _adam().load_state_dict, {"state": _adam().state_dict()}),
    "inference.refine": (lambda: rp.inference.refine, {
        "q": Q, "log_joint": log_joint, "steps": 1, "key": 0, "num_samples": 2, "index": None,
    }),
    "inference.psis_khat": (lambda: rp.inference.psis_khat, {"log_weights": np.linspace(0, 1, 100)}),
    "fit_vi": (lambda: rp.fit_vi, {
        "log_joint": log_joint, "dim": 3, "batch_shape": 2, "covariance_type": "full", "optimizer": "natural",
        "estimator": "stl", "num_samples": 2, "lr": 0.5, "max_steps": 3, "tol": 0.1, "init": Q, "init_scale": 1.0,
        "dtype": "float64", "key": 0, "index": None,
    }),
    "map_estimate": (lambda: rp.map_estimate, {
        "log_joint": log_joint, "init": LOC, "max_steps": 3, "tol": 0.1, "laplace": True,
    }),
    "maximize_elbo": (lambda: rp.maximize_elbo, {
        "encode": encode, "log_joint": lambda rows: log_joint, "optimizer": rp.optim.Adam(np.zeros(2)),
        "grads": np.zeros(2), "num_rows": 2, "key": 0, "batch_size": 2, "epochs": range(1), "step": 0, "num_samples": 1,
        "estimator": "stl", "kl_weight": 1.0, "shuffle": True, "on_step": None, "on_epoch": None,
    }),
    "fit_amortized": (lambda: rp.fit_amortized, {
        "log_joint": lambda rows: log_joint, "x": ROWS, "latent_dim": 2, "hidden": (3,), "covariance_type": "full",
        "estimator": "stl", "num_samples": 1, "lr": 0.1, "batch_size": 2, "epochs": 1, "dtype": "float32", "key": 0,
    }),
    "AmortizedPosterior.posterior": (lambda: amortized().posterior, {"x": ROWS}),
    "AmortizedPosterior.elbo": (lambda: amortized().elbo, {"x": ROWS, "key": 0, "num_samples": 1}),
    "AmortizedPosterior.save": (lambda: amortized().save, {"path": "posterior.npz"}),
    "AmortizedPosterior.load": (lambda: load_amortized, {"path": "posterior.npz", "log_joint": None}),
    "VAE": (lambda: rp.VAE, {
        "latent_dim": 2, "hidden": (3,), "covariance_type": "full", "likelihood": "gaussian", "total_count": None,
        "noise_scale": None, "activation": "tanh", "estimator": "stl", "num_samples": 1, "kl_weight": 1.0, "lr": 0.1,
        "batch_size": 2, "epochs": 1, "dtype": "float32", "key": 0,
    }),
    "VAE.fit": (lambda: rp.VAE(2, hidden=(3,), batch_size=2, epochs=1).fit, {
        "x": ROWS, "validation": None, "callbacks": (), "checkpoint": None, "resume": False, "progress": "auto",
    }),
    "VAE.partial_fit": (lambda: rp.VAE(2, hidden=(3,), batch_size=2).partial_fit, {"x": ROWS}),
    "VAE.elbo": (lambda: model().elbo, {"x": ROWS, "key": 0, "num_samples": 1}),
    "VAE.log_likelihood": (lambda: model().log_likelihood, {"x": ROWS, "key": 0, "num_samples": 1}),
    "VAE.log_joint": (lambda: model().log_joint, {"x": ROWS, "observed": None}),
    "VAE.posterior": (lambda: model().posterior, {
        "x": ROWS, "observed": None, "refine": 0, "covariance_type": None,
    }),
    "VAE.map_estimate": (lambda: model().map_estimate, {"x": ROWS, "observed": None}),
    "VAE.gaps": (lambda: model().gaps, {"x": ROWS, "refine": 2, "num_samples": 10}),
    "VAE.transform": (lambda: model().transform, {"x": ROWS}),
    "VAE.reconstruct": (lambda: model().reconstruct, {"x": ROWS}),
    "VAE.decode": (lambda: model().decode, {"z": np.zeros(2)}),
    "VAE.generate": (lambda: model().generate, {"z": np.zeros(2), "key": 0}),
    "VAE.sample": (lambda: model().sample, {"n": 2, "key": 0, "return_latent": False}),
    "VAE.save": (lambda: model().save, {"path": "model.npz"}),
    "VAE.load": (lambda: load(model()), {"path": "model.npz"}),
    "GaussianMixture": (lambda: rp.GaussianMixture, {
        "n_components": 2, "covariance_type": "full", "tol": 1e-3, "reg_covar": 1e-6, "max_iter": 100, "n_init": 1,
        "init_params": "kmeans", "weights_init": None, "means_init": None, "precisions_init": None,
        "random_state": None, "warm_start": False, "verbose": 0,
        "verbose_interval": 10,
    }),
    "GaussianMixture.fit": (lambda: rp.GaussianMixture(2).fit, {"x": ROWS, "y": None}),
    "GaussianMixture.fit_predict": (lambda: rp.GaussianMixture(2).fit_predict, {"x": ROWS, "y": None}),
    "GaussianMixture.score": (lambda: gaussian_mixture().score, {"x": ROWS, "y": None}),
    **{f"GaussianMixture.{name}": (lambda name=name: getattr(gaussian_mixture(), name), {"x": ROWS})
       for name in ("score_samples", "predict", "predict_proba", "aic", "bic")},
    "GaussianMixture.elbo": (lambda: gaussian_mixture().elbo, {"x": ROWS, "resp": None}),
    "GaussianMixture.sample": (lambda: gaussian_mixture().sample, {"n_samples": 2, "component": None}),
    "GaussianMixture.save": (lambda: gaussian_mixture().save, {"path": "model.npz"}),
    "GaussianMixture.load": (lambda: load(gaussian_mixture()), {"path": "model.npz"}),
    "LinearGaussianModel": (lambda: rp.LinearGaussianModel, {
        "weight": np.ones((3, 2)), "bias": np.zeros(3), "noise_scale": 0.5,
    }),
    **{f"LinearGaussianModel.{name}": call for name, call in _linear(linear_gaussian).items()},
    "ProbabilisticPCA": (lambda: rp.ProbabilisticPCA, {"latent_dim": 2}),
    "ProbabilisticPCA.fit": (lambda: rp.ProbabilisticPCA(2).fit, {"x": ROWS + np.eye(4, 3), "y": None}),
    **{f"ProbabilisticPCA.{name}": call for name, call in _linear(probabilistic_pca).items()},
    "plot.elbo_curve": (lambda: rp.plot.elbo_curve, {
        "history": {"epoch": [0, 1], "elbo": [0, 1]}, "log_likelihood": None, "ax": None,
    }),
    "plot.posterior_ellipses": (lambda: rp.plot.posterior_ellipses, {
        "loc": ROWS, "scale_tril": FACTORS, "dims": (0, 1), "mass": 0.9, "color": "r", "label": None, "ax": None,
    }),
    "plot.latent_map": (lambda: rp.plot.latent_map, {
        "value": ROWS, "labels": [0, 1, 2, 3], "dims": (0, 1), "ax": None,
    }),
    "plot.elbo_trace": (lambda: rp.plot.elbo_trace, {
        "elbo": [0, 1], "standard_error": None, "log_evidence": None, "label": None, "color": "r", "ax": None,
    }),
    "plot.gap_bars": (lambda: rp.plot.gap_bars, {"gaps": {"a": rp.models.Gaps(*np.zeros((5, 3)))}, "ax": None}),
    "plot.mixture_components": (lambda: rp.plot.mixture_components, {
        "model": gaussian_mixture(), "x": ROWS, "dims": (0, 1), "mass": 0.9, "ax": None,
    }),
    "plot.reconstructions": (lambda: rp.plot.reconstructions, {
        "x": ROWS, "decoded": ROWS, "image_shape": (1, 3), "observed": None, "vmax": None, "ax": None,
    }),
    "plot.digit_grid": (lambda: rp.plot.digit_grid, {"images": IMAGES, "gap": 1, "vmax": None, "ax": None}),
    "cholesky": (lambda: rp.cholesky, {"a": EYE, "check": True, "jitter": None, "out": None}),
    "cholesky.vjp": (lambda: rp.cholesky.vjp, {"scale_tril": EYE, "ct_scale_tril": EYE, "wrt": None, "out": None}),
    "cholesky.value_and_vjp": (lambda: rp.cholesky.value_and_vjp, {
        "a": EYE, "ct_scale_tril": EYE, "check": True, "jitter": None, "wrt": None, "out": None,
    }),
    "cholesky_ex.value_and_vjp": (lambda: rp.cholesky_ex.value_and_vjp, {
        "a": EYE, "ct_scale_tril": EYE, "wrt": None, "out": None,
    }),
    "backend": (lambda: use_backend, {"name": "native"}),
    "set_num_threads": (lambda: rp.set_num_threads, {"n": 1}),
}  # fmt: skip


def good_call(name):
    """The function and its keywords."""
    function, good = CALLS[name]
    return function(), dict(good)
