# SPDX-License-Identifier: MIT
"""Bad input to every public name: an error of the right type that names the argument, what came and what was expected.

Those of the ops follow from their signatures (test_errors_ops.py), those of distributions, targets and the ELBO are in
test_errors_gaussians.py, those of the models but the VAE in test_errors_models.py. Here a new public name, or a new
argument of one, fails until it has a row and is checked.
"""

import re
import sys

import numpy as np
import pytest

import reparam as rp
import test_errors_gaussians
import test_errors_models
from hostile import CALLS, EYE, LOC, PASSES, ROWS, good_call, public_names, refused, single

OF_MATPLOTLIB = [
    "elbo_curve.ax", "latent_map.ax", "digit_grid.ax", "posterior_ellipses.ax", "posterior_ellipses.color",
    "posterior_ellipses.label", "elbo_trace.ax", "elbo_trace.color", "elbo_trace.label", "gap_bars.ax",
    "mixture_components.ax", "reconstructions.ax",
]  # fmt: skip
UNCHECKED = {  # names and arguments of which nothing is refused, and why
    **dict.fromkeys([f"plot.{x}" for x in OF_MATPLOTLIB], "goes to matplotlib as it is"),
    **dict.fromkeys([f"{q}.trusted" for q in ("Normal", "MultivariateNormalDiag", "MultivariateNormal")],
                    "is there to go without the checks"),
    **dict.fromkeys([f"targets.{t}.operands" for t in ("Target", "Gaussian", "LinearGaussian", "GLM")],
                    "is called by elbo"),
    **dict.fromkeys([f"GaussianMixture.{name}.y" for name in ("fit", "fit_predict", "score")],
                    "is ignored, as in scikit-learn"),
    "ProbabilisticPCA.fit.y": "is ignored, as in scikit-learn",
    **dict.fromkeys([f"targets.{t}.take" for t in ("Target", "Gaussian", "LinearGaussian", "GLM")],
                    "is called by fit_vi"),
    "AmortizedPosterior": "is made by fit_amortized",
    "inference.Step": "is made by maximize_elbo",
    "models.Gaps": "is made by VAE.gaps",
    "nn.MLP.count": "is called with sizes that were checked",
    "nn.MLP.split": "is called with the net's own buffers",
    "random.event_normal": "is called with what was checked",
    "random.draw_index.batch_shape": "is called with the shape of a distribution",
    "random.draw_index.name": "is what errors call it",
    "random.draw_index.like": "is called with the loc of a distribution",
    "random.as_key.name": "is what errors call it",
}  # fmt: skip
NAMES = public_names()


@pytest.fixture(autouse=True)
def _a_folder_for_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


# ---- all of them


def test_every_public_name_has_rows():
    ops = {p.name for p in PASSES}
    rows = {name for name, *_ in [*REFUSED, *test_errors_gaussians.REFUSED, *test_errors_models.REFUSED]}
    assert NAMES.keys() - ops - rows - UNCHECKED.keys() == set()
    assert rows <= CALLS.keys() <= NAMES.keys()


def test_the_list_of_what_is_not_checked_holds_nothing_else():
    arguments = {f"{name}.{argument}" for name, taken in NAMES.items() for argument in taken}
    assert UNCHECKED.keys() - NAMES.keys() - arguments == set()


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("plot.")])
def test_the_good_calls_are_good(name):
    call, good = good_call(name)
    call(**good)


class Nonsense:
    def __repr__(self):
        return "<nonsense>"


def said_of_nonsense(name, argument):
    """The error, if it is one of ours."""
    call, good = good_call(name)
    try:
        call(**{**good, argument: Nonsense()})
    except (TypeError, ValueError) as error:
        about = "backend" if name == "backend" else argument
        if re.search(r" (must|takes|is a|goes with) .*\bgot ", str(error)) and re.search(rf"\b{about}\b", str(error)):
            return str(error)
    except AttributeError:
        pass
    return None


@pytest.mark.parametrize("name", CALLS)
def test_nonsense_is_refused_in_the_place_of_any_argument(name):
    _, good = good_call(name)
    assert {*NAMES[name]} <= good.keys()
    unrefused = {argument for argument in good if said_of_nonsense(name, argument) is None}
    expected = {x.removeprefix(f"{name}.") for x in UNCHECKED if x.rpartition(".")[0] == name}
    assert unrefused == expected & good.keys()


# ---- name by name

A = np.array([[4.0, 2.0], [2.0, 3.0]])
LOCKED = single(3)
LOCKED.flags.writeable = False
REFUSED = [
    ("backend", {"name": "cuda"}, ValueError, f"backend must be one of {', '.join(rp.backends())}, got 'cuda'"),
    ("set_num_threads", {"n": 0}, ValueError, "set_num_threads: n must be in [1, 1025), got 0"),
    ("cholesky", {"a": np.ones((2, 3))}, ValueError, "cholesky: a must have shape (..., d, d), got (2, 3)"),
    ("cholesky", {"a": np.ones(2)}, ValueError, "cholesky: a must have shape (..., d, d), got (2,)"),
    ("cholesky", {"a": 4.0}, ValueError, "cholesky: a must have shape (..., d, d), got ()"),
    ("cholesky", {"a": [[1.0]]}, TypeError, "cholesky: a must be an array, got list"),
    ("cholesky", {"a": A.astype(int)}, TypeError,
     "cholesky: a must be float32 or float64, got int64; convert it with .astype"),
    ("cholesky", {"a": -A}, rp.NotPositiveDefiniteError,
     "cholesky: a is not positive definite (leading minor 1)"),
    ("cholesky", {"out": single(3, 3)}, TypeError, "cholesky: out for scale_tril must be float64, got float32"),
    ("cholesky", {"out": EYE[:2]}, ValueError, "cholesky: out for scale_tril must have shape (3, 3), got (2, 3)"),
    ("cholesky", {"out": [EYE]}, TypeError, "cholesky: out for scale_tril must be a NumPy array, got list"),
    ("cholesky.vjp", {"ct_scale_tril": A}, ValueError,
     "cholesky.vjp: ct_scale_tril must have shape (..., d, d) with d = 3 (from scale_tril), got (2, 2)"),
    ("cholesky.vjp", {"scale_tril": single(3, 3)}, TypeError,
     "cholesky.vjp: scale_tril is float32 and ct_scale_tril is float64; they must have one dtype"),
    ("cholesky.vjp", {"wrt": ("scale_tril",)}, ValueError,
     "cholesky.vjp: wrt must name inputs out of a, got 'scale_tril'"),
    ("cholesky.vjp", {"out": 3}, TypeError, "cholesky.vjp: out for ct_a must be a NumPy array, got int"),
    ("cholesky.value_and_vjp", {"a": None}, TypeError, "cholesky: a must be an array, got NoneType"),
    ("cholesky.value_and_vjp", {"ct_scale_tril": [1.0]}, TypeError,
     "cholesky.vjp: ct_scale_tril must be an array or None, got list"),
    ("cholesky.value_and_vjp", {"out": 3}, TypeError,
     "cholesky.value_and_vjp: out must be a tuple of 2 arrays (scale_tril, ct_a), got int"),
    ("cholesky_ex.value_and_vjp", {"a": None}, TypeError, "cholesky_ex: a must be an array, got NoneType"),
    ("cholesky_ex.value_and_vjp", {"out": (EYE, EYE)}, TypeError,
     "cholesky_ex.value_and_vjp: out must be a tuple of 3 arrays (scale_tril, info, ct_a), got a tuple of 2"),
    ("cholesky_ex.value_and_vjp", {"ct_scale_tril": 1j}, TypeError,
     "cholesky_ex.vjp: ct_scale_tril must be an array or None, got complex"),
    ("random.as_key", {"key": -1}, ValueError, "key must be in [0, 2**64), got -1"),
    ("random.Draw", {"index": [-1]}, ValueError, "Draw: index must be >= 0, got -1"),
    ("random.bits", {"n": -1}, ValueError, "bits: n must be >= 0, got -1"),
    ("random.draw_index", {"index": [0]}, ValueError, "index must have the batch shape (2,), got (1,)"),
    ("random.fold_in", {"data": 2**64 - 1}, ValueError,
     "fold_in: data must be in [0, 2**64 - 1), got 18446744073709551615"),
    ("random.normal", {"like": np.zeros(2, int)}, TypeError,
     "normal: the dtype of like must be float32 or float64, got int64"),
    ("random.normal", {"like": [1.0]}, TypeError, "normal: like must be an array, got list"),
    ("random.normal", {"like": np.ma.zeros(2)}, TypeError,
     "normal: like must be an array without a mask; fill the masked entries with .filled"),
    ("nn.MLP", {"sizes": 5}, TypeError, "MLP: sizes must be a sequence of integers >= 1, got 5"),
    ("nn.MLP", {"sizes": (3, 0)}, ValueError, "MLP: sizes must be >= 1, got 0"),
    ("nn.MLP", {"params": LOCKED}, ValueError, "MLP: params must have shape (16,), got (3,)"),
    ("nn.MLP.__call__", {"x": np.zeros((2, 3))}, TypeError, "MLP: x must be float32 as the net is, got float64"),
    ("nn.MLP.__call__", {"x": single(3, 2)}, ValueError, "MLP: x must have shape (..., 3), got (3, 2)"),
    ("nn.GaussianHead", {"latent_dim": 0}, ValueError, "GaussianHead: latent_dim must be >= 1, got 0"),
    ("nn.GaussianHead.__call__", {"features": single(3, 4)}, ValueError,
     "GaussianHead: features must have shape (..., 5), got (3, 4)"),
    ("nn.GaussianHead.encode", {"features": single()}, ValueError,
     "GaussianHead: features must have shape (..., 5), got ()"),
    ("nn.GaussianHead.start_at_identity", {"net": rp.nn.MLP((3, 4), key=0)}, ValueError,
     "GaussianHead: net must have output width 2, got sizes (3, 4)"),
    ("nn.GaussianHead.start_at_identity", {"net": None}, TypeError, "GaussianHead: net must be an MLP, got NoneType"),
    ("nn.GaussianHead.encode", {"features": [0.0] * 5}, TypeError,
     "GaussianHead: features must be an array, got list"),
    ("optim.Adam", {"params": LOCKED}, ValueError, "Adam: params[0] is read-only, but it is updated in place"),
    ("optim.Adam", {"params": [1.0]}, TypeError, "Adam: params[0] must be a float32 or float64 array, got float"),
    ("optim.Adam", {"betas": (0.9, 1.0)}, ValueError, "Adam: betas must be in [0, 1), got (0.9, 1.0)"),
    ("optim.Adam.step", {"grads": np.ones(4)}, ValueError,
     "Adam: grads[0] must have shape (3,) as params[0] has, got (4,)"),
    ("optim.Adam.step", {"grads": single(3)}, TypeError,
     "Adam: grads[0] must be a float64 array as params[0] is, got float32"),
    ("optim.Adam.load_state_dict", {"state": {}}, ValueError,
     "Adam: a state is a dict with the entries t, m, v, got []"),
    ("inference.refine", {"q": 3}, TypeError,
     "refine: q must be a MultivariateNormal or MultivariateNormalDiag, got int"),
    ("inference.psis_khat", {"log_weights": np.zeros((0, 3))}, ValueError,
     "psis_khat: log_weights must have shape (S, ...) with S >= 1, got (0, 3)"),
    ("fit_vi", {"dim": 0}, ValueError, "fit_vi: dim must be >= 1, got 0"),
    ("fit_vi", {"dim": 4}, ValueError, "fit_vi: init must have event shape (4,), got (3,)"),
    ("fit_vi", {"batch_shape": 3}, ValueError,
     "fit_vi: batch shapes do not broadcast: init (2,), batch_shape (3,)"),
    ("fit_vi", {"batch_shape": ()}, ValueError,
     "fit_vi: init must have a batch shape that broadcasts to (), got (2,)"),
    ("fit_vi", {"dtype": "float32"}, TypeError,
     "fit_vi: init is float64 and dtype is float32; they must have one dtype"),
    ("fit_vi", {"optimizer": "sgd"}, ValueError, "fit_vi: optimizer must be one of 'natural', 'adam', got 'sgd'"),
    ("fit_vi", {"tol": -1.0}, ValueError, "fit_vi: tol must be a finite number >= 0, got -1.0"),
    ("fit_vi", {"lr": 0.0}, ValueError, "fit_vi: lr must be a finite number > 0, got 0.0"),
    ("fit_vi", {"log_joint": lambda z: z}, TypeError,
     "elbo: log_joint must return (log_prob, gradient), got ndarray"),
    ("fit_vi", {"log_joint": lambda z: (z[..., 0], z[..., :2])}, ValueError,
     "elbo: log_joint's gradient must have shape (2, 2, 3), got (2, 2, 2)"),
    ("fit_vi", {"log_joint": rp.targets.Gaussian(np.zeros(4), np.eye(4))}, ValueError,
     "fit_vi: dim must be that of log_joint, 4, got 3"),
    ("fit_vi", {"log_joint": rp.targets.Gaussian(np.zeros((2, 2, 3)), EYE)}, ValueError,
     "fit_vi: batch_shape must hold that of log_joint, (2, 2), got (2,)"),
    ("fit_vi", {"log_joint": rp.targets.Gaussian(single(3), single(3, 3) + EYE.astype("f4"))}, TypeError,
     "fit_vi: log_joint is float32 and dtype is float64; they must have one dtype"),
    ("map_estimate", {"init": np.zeros(())}, ValueError,
     "map_estimate: init must have shape (..., d) with d >= 1, got ()"),
    ("map_estimate", {"init": np.zeros((2, 0))}, ValueError,
     "map_estimate: init must have shape (..., d) with d >= 1, got (2, 0)"),
    ("map_estimate", {"init": LOC + np.nan}, ValueError, "map_estimate: init must be finite, got nan at [0, 0]"),
    ("map_estimate", {"init": LOC.astype(int)}, TypeError,
     "map_estimate: init must be float32 or float64, got int64; convert it with .astype"),
    ("map_estimate", {"log_joint": lambda z: z}, TypeError,
     "map_estimate: log_joint must return (log_prob, gradient), got ndarray"),
    ("map_estimate", {"log_joint": lambda z: (z[..., 0], z[..., :2])}, ValueError,
     "map_estimate: log_joint's gradient must have shape (1, 2, 3), got (1, 2, 2)"),
    ("map_estimate", {"log_joint": lambda z: (z, z)}, ValueError,
     "map_estimate: log_joint's log_prob must have shape (1, 2), got (1, 2, 3)"),
    ("map_estimate", {"log_joint": lambda z: (single(1, 2), z)}, TypeError,
     "map_estimate: log_joint's log_prob is float32 and init is float64; they must have one dtype"),
    ("map_estimate", {"log_joint": rp.targets.Gaussian(np.zeros(4), np.eye(4))}, ValueError,
     "map_estimate: init must have shape (..., 4), got (2, 3)"),
    ("map_estimate", {"log_joint": rp.targets.Gaussian(np.zeros((3, 2, 3)), EYE)}, ValueError,
     "map_estimate: init must hold the batch shape of log_joint, (3, 2), got (2, 3)"),
    ("maximize_elbo", {"batch_size": 3}, ValueError, "maximize_elbo: batch_size must be <= num_rows = 2, got 3"),
    ("maximize_elbo", {"encode": lambda rows: 3}, TypeError,
     "maximize_elbo: encode must return (q, pullback), got int"),
    ("fit_amortized", {"log_joint": 3}, TypeError, "fit_amortized: log_joint must be callable, got int"),
    ("fit_amortized", {"batch_size": 5}, ValueError, "fit_amortized: batch_size must be <= n = 4, got 5"),
    ("AmortizedPosterior.posterior", {"x": ROWS[:, :2]}, ValueError,
     "AmortizedPosterior: x must have shape (n, 3), got (4, 2)"),
    ("AmortizedPosterior.elbo", {"num_samples": 0}, ValueError, "AmortizedPosterior: num_samples must be >= 1, got 0"),
    ("AmortizedPosterior.save", {"path": 5}, TypeError, "AmortizedPosterior: path must be a path, got 5"),
    ("AmortizedPosterior.load", {"log_joint": 3}, TypeError, "AmortizedPosterior: log_joint must be callable, got int"),
    ("VAE", {"hidden": 8}, TypeError, "VAE: hidden must be a sequence of integers >= 1, got 8"),
    ("VAE.fit", {"x": ROWS[:1]}, ValueError, "VAE: batch_size must be <= n = 1, got 2"),
    ("VAE.fit", {"resume": True}, ValueError, "VAE: resume=True needs the checkpoint to resume from"),
    ("VAE.partial_fit", {"x": ROWS[0]}, ValueError, "VAE: x must have shape (n, data_dim), got (3,)"),
    ("VAE.elbo", {"x": ROWS[:, :2]}, ValueError, "VAE: x must have shape (n, 3), got (4, 2)"),
    ("VAE.log_likelihood", {"x": ROWS[:0]}, ValueError, "VAE: x is empty: it has shape (0, 3)"),
    ("VAE.log_joint", {"observed": ROWS[:2]}, ValueError,
     "VAE: observed must have the shape of x, (4, 3), got (2, 3)"),
    ("VAE.posterior", {"x": ROWS + np.inf}, ValueError, "VAE: x must be finite in float32, got inf at [0, 0]"),
    ("VAE.map_estimate", {"observed": ROWS[:2]}, ValueError,
     "VAE: observed must have the shape of x, (4, 3), got (2, 3)"),
    ("VAE.gaps", {"x": ROWS * np.nan}, ValueError, "VAE: x must be finite in float32, got nan at [0, 0]"),
    ("VAE.transform", {"x": ROWS * 1j}, TypeError, "VAE: x must hold real numbers, got complex128"),
    ("VAE.reconstruct", {"x": None}, TypeError, "VAE: x must hold real numbers, got object"),
    ("VAE.decode", {"z": np.zeros(3)}, ValueError, "VAE: z must have shape (..., 2), got (3,)"),
    ("VAE.generate", {"z": [np.nan, 0]}, ValueError, "VAE: z must be finite in float32, got nan at [0]"),
    ("VAE.sample", {"n": -1}, ValueError, "VAE: n must be >= 0, got -1"),
    ("VAE.save", {"path": 5}, TypeError, "VAE: path must be a path, got 5"),
    ("VAE.save", {"path": "no/a.npz"}, ValueError, "VAE: path: the folder of 'no/a.npz' does not exist"),
    ("VAE.load", {"path": None}, TypeError, "VAE: path must be a path, got None"),
    ("plot.elbo_curve", {"history": {"epoch": [0]}}, ValueError,
     "history must have the entries epoch and elbo, it lacks elbo"),
    ("plot.posterior_ellipses", {"mass": 1.0}, ValueError, "mass must be a finite number in (0, 1), got 1.0"),
    ("plot.latent_map", {"dims": (0, 3)}, ValueError,
     "dims must be two different coordinates in 0..2, got (0, 3)"),
    ("plot.latent_map", {"dims": 3}, TypeError, "dims must be two different coordinates in 0..2, got 3"),
    ("plot.elbo_curve", {"history": 3}, TypeError,
     "history must be a mapping with the entries epoch and elbo, got 3"),
    ("plot.elbo_trace", {"standard_error": [1.0]}, ValueError, "standard_error must have shape (2,), got (1,)"),
    ("plot.gap_bars", {"gaps": {"a": 3}}, TypeError, "gaps['a'] must be what VAE.gaps returns, got 3"),
    ("plot.mixture_components", {"model": rp.GaussianMixture()}, TypeError,
     "model must be a fitted GaussianMixture, got GaussianMixture(n_components=1, not fitted)"),
    ("plot.reconstructions", {"image_shape": (2, 2)}, ValueError, "x must have shape (n, 4), got (4, 3)"),
    ("plot.digit_grid", {"gap": 1.5}, TypeError, "gap must be an integer >= 0, got 1.5"),
    ("plot.digit_grid", {"gap": -1}, ValueError, "gap must be >= 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changed", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(name, changed, error, message):
    call, good = good_call(name)
    refused(error, message, call, **{**good, **changed})
