# SPDX-License-Identifier: MIT
"""Bad input to distributions, divergences, targets and the ELBO, row by row."""

import numpy as np
import pytest

import reparam as rp
from hostile import EYE, LOC, ONES, Q_DIAG, Q_SCALAR, Q, good_call, refused
from support import same_bits

MATRICES = ("scale_tril", "covariance_matrix", "precision_matrix")
ASTYPE = "; convert it with .astype"
BAD_EYE = np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
OTHER = rp.MultivariateNormalDiag(np.zeros(4), np.ones(4))
SINGLE = rp.MultivariateNormalDiag(np.zeros(3, "f4"), np.ones(3, "f4"))
BAD_LOCS = [  # of vectors
    (None, TypeError, "loc must be an array, got NoneType"),
    ([0.0, 0.0, 0.0], TypeError, "loc must be an array, got list"),
    (0.0, TypeError, "loc must be an array, got float"),
    (np.zeros(3, int), TypeError, f"loc must be float32 or float64, got int64{ASTYPE}"),
    (np.zeros(3, complex), TypeError, "loc must be float32 or float64, got complex128"),
    (np.ma.zeros(3), TypeError, "loc must be an array without a mask; fill the masked entries with .filled"),
    (np.float64(0), ValueError, "loc must have shape (..., d), got ()"),
    (np.zeros((*[1] * 17, 3)), ValueError, "loc may have at most 16 batch dims, got 17"),
    (np.array([0, np.nan, 0]), ValueError, "loc must be finite, got nan at [1]"),
    (np.array([[0, 0, 0], [0, 0, -np.inf]]), ValueError, "loc must be finite, got -inf at [1, 2]"),
]
BAD_DIAGONALS = [
    (None, TypeError, "scale_diag must be an array, got NoneType"),
    (1.0, TypeError, "scale_diag must be an array, got float"),
    ([1.0, 1.0, 1.0], TypeError, "scale_diag must be an array, got list"),
    (np.ones(3, "f2"), TypeError, f"scale_diag must be float32 or float64, got float16{ASTYPE}"),
    (np.ones(3, "f4"), TypeError, "loc is float64 and scale_diag is float32; they must have one dtype"),
    (np.float64(1), ValueError, "scale_diag must have shape (..., d) with d = 3 (from loc), got ()"),
    (np.ones(4), ValueError, "scale_diag must have shape (..., d) with d = 3 (from loc), got (4,)"),
    (np.ones((5, 3)), ValueError, "batch shapes do not broadcast: loc (2,), scale_diag (5,)"),
    (np.array([1, 0.0, 1]), ValueError, "scale_diag must be > 0, got 0.0 at [1]"),
    (-np.ones((2, 3)), ValueError, "scale_diag must be > 0, got -1.0 at [0, 0]"),
    (np.array([1, 1, np.nan]), ValueError, "scale_diag must be finite, got nan at [2]"),
    (np.array([1, 1, np.inf]), ValueError, "scale_diag must be finite, got inf at [2]"),
]
BAD_MATRICES = [  # whatever the matrix is
    (EYE.tolist(), TypeError, "{} must be an array, got list"),
    (np.eye(3, dtype=int), TypeError, f"{{}} must be float32 or float64, got int64{ASTYPE}"),
    (np.eye(3, dtype="f4"), TypeError, "loc is float64 and {} is float32; they must have one dtype"),
    (ONES, ValueError, "{} must have shape (..., d, d) with d = 3 (from loc), got (3,)"),
    (np.ones((3, 4)), ValueError, "{} must have shape (..., d, d) with d = 3 (from loc), got (3, 4)"),
    (np.eye(4), ValueError, "{} must have shape (..., d, d) with d = 3 (from loc), got (4, 4)"),
    (np.stack([EYE] * 5), ValueError, "batch shapes do not broadcast: loc (2,), {} (5,)"),
    (np.where(EYE == 1, 1.0, np.nan), ValueError, "{} must be finite, got nan at [1, 0]"),
    (np.stack([EYE, np.where(EYE == 1, np.inf, 0.0)]), ValueError, "{} must be finite, got inf at [1, 0, 0]"),
]
BAD_VALUES = [
    (None, TypeError, "value must be an array, got NoneType"),
    ([0.0] * 3, TypeError, "value must be an array, got list"),
    (0.0, TypeError, "value must be an array, got float"),
    (np.zeros(3, int), TypeError, f"value must be float32 or float64, got int64{ASTYPE}"),
    (np.zeros(3, "f4"), TypeError, "value is float32 and loc is float64; they must have one dtype"),
    (np.zeros(4), ValueError, "value must have shape (..., d) with d = 3, got (4,)"),
    (np.float64(0), ValueError, "value must have shape (..., d) with d = 3, got ()"),
]


def only(name, matrix):
    """Of the three matrices this one alone."""
    return {**dict.fromkeys(MATRICES), name: matrix}


def with_owner(owner, argument, rows):
    return [(owner, {argument: value}, error, f"{owner.partition('.')[0]}: {text}") for value, error, text in rows]


ONE_OF = f"MultivariateNormal takes exactly one of {', '.join(MATRICES)}, got "
NOT_DEFINITE = "MultivariateNormal: {} is not positive definite"
DATA_DIM = "must have shape (..., data_dim) with data_dim = 5 (from weight)"
FROM_FEATURES = "must have shape (..., n) with n = 4 (from features)"
ESTIMATORS = "'pathwise', 'stl', 'iwae', 'dreg'"
NO_TARGET = "elbo: log_joint must be callable or a target of reparam.targets"


def linear_gaussian(x=(2, 5), latent_dim=3, dtype="f8"):
    return rp.targets.LinearGaussian(np.zeros(x, dtype), np.zeros((5, latent_dim), dtype), np.zeros(5, dtype), 1.0)


REFUSED = [
    *with_owner("MultivariateNormalDiag", "loc", BAD_LOCS),
    *with_owner("MultivariateNormal", "loc", BAD_LOCS),
    *with_owner("MultivariateNormalDiag", "scale_diag", BAD_DIAGONALS),
    *with_owner("MultivariateNormal.log_prob", "value", BAD_VALUES),
    *with_owner("MultivariateNormalDiag.log_prob", "value", BAD_VALUES),
    *[("MultivariateNormal", only(name, matrix), error, f"MultivariateNormal: {text.format(name)}")
      for name in MATRICES for matrix, error, text in BAD_MATRICES],
    *[("MultivariateNormal", only(name, matrix), rp.NotPositiveDefiniteError, NOT_DEFINITE.format(name) + text)
      for name in MATRICES[1:] for matrix, text in [
          (BAD_EYE, " (leading minor 2)"),
          (np.stack([EYE, BAD_EYE]), " in 1 of 2 events: [1] (leading minor 2)"),
      ]],
    ("MultivariateNormal", {"scale_tril": np.diag([1, 0.0, 1])}, ValueError,
     "MultivariateNormal: the diagonal of scale_tril must be > 0, got 0.0 at [1]"),
    ("MultivariateNormal", {"scale_tril": np.stack([EYE, -EYE])}, ValueError,
     "MultivariateNormal: the diagonal of scale_tril must be > 0, got -1.0 at [1, 0]"),
    ("MultivariateNormal", {"scale_tril": None}, TypeError, f"{ONE_OF}none"),
    ("MultivariateNormal", {"covariance_matrix": EYE}, TypeError, f"{ONE_OF}scale_tril, covariance_matrix"),
    ("MultivariateNormal", dict.fromkeys(MATRICES, EYE), TypeError, f"{ONE_OF}{', '.join(MATRICES)}"),
    ("MultivariateNormal", {"packed": True}, ValueError,
     "MultivariateNormal: scale_tril must have shape (..., d(d+1)/2) with d = 3 (from loc), got (3, 3)"),
    ("Normal", {"loc": np.zeros(2, bool)}, TypeError, f"Normal: loc must be float32 or float64, got bool{ASTYPE}"),
    ("Normal", {"scale": [1.0]}, TypeError, "Normal: scale must be an array or a number, got list"),
    ("Normal", {"scale": np.ones(3)}, ValueError, "Normal: batch shapes do not broadcast: loc (2,), scale (3,)"),
    ("Normal", {"scale": -1.0}, ValueError, "Normal: scale must be > 0, got -1.0"),
    ("Normal.log_prob", {"value": "0"}, TypeError, "Normal: value must be an array or a number, got str"),
    ("Normal.log_prob", {"value": np.zeros(2, "f4")}, TypeError,
     "Normal: value is float32 and loc is float64; they must have one dtype"),
    *[(f"{owner}.{method}", {"sample_shape": (2.0,)}, TypeError,
       f"{owner}: sample_shape must be an integer or a tuple of integers, got (2.0,)")
      for owner in ("Normal", "MultivariateNormalDiag", "MultivariateNormal")
      for method in ("rsample", "rsample_and_log_prob")],
    ("kl_divergence", {"q": 3}, TypeError, "kl_divergence: q must be a Gaussian of this package, got int"),
    ("kl_divergence", {"p": None}, TypeError, "kl_divergence: p must be a Gaussian of this package, got NoneType"),
    ("kl_divergence", {"p": rp.Normal}, TypeError, "kl_divergence: p must be a Gaussian of this package, got type"),
    ("kl_divergence", {"p": OTHER}, ValueError, "kl_divergence: event shapes differ: q has (3,), p has (4,)"),
    ("kl_divergence", {"q": Q_SCALAR}, ValueError, "kl_divergence: event shapes differ: q has (), p has (3,)"),
    ("kl_divergence", {"p": rp.MultivariateNormalDiag(np.zeros((5, 3)), ONES)}, ValueError,
     "kl_divergence: batch shapes do not broadcast: q (2,), p (5,)"),
    ("kl_divergence", {"p": SINGLE}, TypeError,
     "kl_divergence: q is float64 and p is float32; they must have one dtype"),
    ("targets.Gaussian", {"loc": None}, TypeError, "Gaussian: loc must be an array, got NoneType"),
    ("targets.Gaussian", {"loc": np.float64(0)}, ValueError, "Gaussian: loc must have shape (..., d), got ()"),
    ("targets.Gaussian", {"loc": LOC * np.nan}, ValueError, "Gaussian: loc must be finite, got nan at [0, 0]"),
    ("targets.Gaussian", {"scale_tril": np.eye(2)}, ValueError,
     "Gaussian: scale_tril must have shape (..., d, d) with d = 3 (from loc), got (2, 2)"),
    ("targets.Gaussian", {"scale_tril": np.stack([EYE] * 4)}, ValueError,
     "Gaussian: batch shapes do not broadcast: loc (2,), scale_tril (4,)"),
    ("targets.Gaussian", {"scale_tril": EYE - EYE}, ValueError,
     "Gaussian: the diagonal of scale_tril must be finite and > 0, got 0.0 at [0]"),
    ("targets.Gaussian", {"scale_tril": EYE.astype("f4")}, TypeError,
     "Gaussian: loc is float64 and scale_tril is float32; they must have one dtype"),
    *[("targets.LinearGaussian", changed, error, f"LinearGaussian: {text}") for changed, error, text in [
        ({"x": None}, TypeError, "x must be an array, got NoneType"),
        ({"x": [[0.0] * 5]}, TypeError, "x must be an array, got list"),
        ({"x": np.zeros((2, 5), int)}, TypeError, f"x must be float32 or float64, got int64{ASTYPE}"),
        ({"x": np.zeros((2, 5), complex)}, TypeError, "x must be float32 or float64, got complex128"),
        ({"weight": np.zeros((5, 3), "f4")}, TypeError, "x is float64 and weight is float32; they must have one dtype"),
        ({"bias": np.zeros(5, "f4")}, TypeError, "x is float64 and bias is float32; they must have one dtype"),
        ({"noise_scale": np.float32(1)}, TypeError,
         "x is float64 and noise_scale is float32; they must have one dtype"),
        ({"weight": np.zeros(5)}, ValueError, "weight must have shape (..., data_dim, latent_dim), got (5,)"),
        ({"x": np.zeros((2, 4))}, ValueError, f"x {DATA_DIM}, got (2, 4)"),
        ({"bias": np.zeros(4)}, ValueError, f"bias {DATA_DIM}, got (4,)"),
        ({"bias": np.float64(0)}, ValueError, f"bias {DATA_DIM}, got ()"),
        ({"noise_scale": ONES}, ValueError,
         "batch shapes do not broadcast: x (2,), weight (), bias (), noise_scale (3,)"),
        ({"x": np.full((2, 5), np.inf)}, ValueError, "x must be finite, got inf at [0, 0]"),
        ({"noise_scale": None}, TypeError, "noise_scale must be a number or an array, got NoneType"),
        ({"noise_scale": "1"}, TypeError, "noise_scale must be a number or an array, got str"),
        ({"noise_scale": True}, TypeError, "noise_scale must be a number or an array, got bool"),
        ({"noise_scale": 0}, ValueError, "noise_scale must be finite and > 0, got 0.0"),
        ({"noise_scale": np.nan}, ValueError, "noise_scale must be finite and > 0, got nan"),
        ({"noise_scale": np.array([1, np.inf])}, ValueError, "noise_scale must be finite and > 0, got inf at [1]"),
    ]],
    *[("targets.GLM", changed, error, f"GLM: {text}") for changed, error, text in [
        ({"features": np.ones(4)}, ValueError, "features must have shape (..., n, d), got (4,)"),
        ({"features": np.ones((4, 2), int)}, TypeError, f"features must be float32 or float64, got int64{ASTYPE}"),
        ({"y": np.ones(3)}, ValueError, f"y {FROM_FEATURES}, got (3,)"),
        ({"y": np.ones(4, "f4")}, TypeError, "features is float64 and y is float32; they must have one dtype"),
        ({"y": [1, 0, 1, 0]}, TypeError, "y must be an array, got list"),
        ({"y": np.full(4, np.nan)}, ValueError, "y must be finite, got nan at [0]"),
        ({"y": np.full(4, 2), "family": "logistic"}, ValueError,
         "y must be 0 or 1 for the logistic family, got 2.0 at [0]"),
        ({"y": np.array([1, 0.5, 1, 1]), "family": "poisson"}, ValueError,
         "y must be whole numbers >= 0 for the poisson family, got 0.5 at [1]"),
        ({"prior_scale": 0.0}, ValueError, "prior_scale must be finite and > 0, got 0.0"),
        ({"noise_scale": -1}, ValueError, "noise_scale must be finite and > 0, got -1.0"),
        ({"noise_scale": 2.0, "family": "logistic"}, ValueError,
         "noise_scale belongs to the normal family, got 2.0"),
    ]],
    *[("elbo", changed, error, message) for changed, error, message in [
        ({"q": 3}, TypeError, "elbo: q must be a Normal, MultivariateNormalDiag or MultivariateNormal, got int"),
        ({"q": rp.Normal}, TypeError,
         "elbo: q must be a Normal, MultivariateNormalDiag or MultivariateNormal, got type"),
        ({"log_joint": None}, TypeError, f"{NO_TARGET}, got NoneType"),
        ({"log_joint": LOC}, TypeError, f"{NO_TARGET}, got ndarray"),
        ({"log_joint": linear_gaussian(latent_dim=4)}, ValueError,
         "elbo: the target's latent_dim is 4, but q has event shape (3,)"),
        ({"log_joint": linear_gaussian(), "q": Q_SCALAR}, ValueError,
         "elbo: the target's latent_dim is 3, but q has event shape ()"),
        ({"log_joint": linear_gaussian(x=(7, 5))}, ValueError,
         "elbo: batch shapes do not broadcast: q (2,), the target (7,)"),
        ({"log_joint": linear_gaussian(x=(4, 2, 5))}, ValueError,
         "elbo: the target's batch shape must broadcast to q's, (2,), got (4, 2)"),
        ({"log_joint": linear_gaussian(dtype="f4")}, TypeError,
         "elbo: the target is float32 and q is float64; they must have one dtype"),
    ]],
]  # fmt: skip


@pytest.mark.parametrize(("name", "changed", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(name, changed, error, message):
    call, good = good_call(name)
    refused(error, message, call, **{**good, **changed})


def test_the_error_of_a_matrix_comes_with_its_minors_from_a_distribution():
    with pytest.raises(rp.NotPositiveDefiniteError) as caught:
        rp.MultivariateNormal(LOC, precision_matrix=np.stack([EYE, BAD_EYE]))
    np.testing.assert_array_equal(caught.value.info, [0, 2])
    np.testing.assert_array_equal(caught.value.indices, [[1]])


def test_what_stands_above_the_diagonal_is_not_looked_at():
    spoiled = EYE + np.triu(np.full((3, 3), np.nan), 1)
    for name in MATRICES:
        same_bits(rp.MultivariateNormal(LOC, **{name: spoiled}).log_prob(LOC), Q.log_prob(LOC))


# ---- what a log_joint returns

LOG_PROB, GRADIENT = np.zeros((4, 2)), np.zeros((4, 2, 3))
RETURN = "log_joint must return (log_prob, gradient), got "
PULLED = "the pullback's result"
RETURNED = [
    (None, TypeError, f"{RETURN}NoneType"),
    (LOG_PROB, TypeError, f"{RETURN}ndarray"),
    ([LOG_PROB, GRADIENT], TypeError, f"{RETURN}list"),
    ((LOG_PROB,), TypeError, f"{RETURN}tuple of 1"),
    ((LOG_PROB, GRADIENT, None), TypeError, f"{RETURN}tuple of 3"),
    ((None, GRADIENT), TypeError, "log_joint's log_prob must be an array, got NoneType"),
    ((0.0, GRADIENT), TypeError, "log_joint's log_prob must be an array, got float"),
    ((LOG_PROB.astype(int), GRADIENT), TypeError,
     f"log_joint's log_prob must be float32 or float64, got int64{ASTYPE}"),
    ((LOG_PROB.astype("f4"), GRADIENT), TypeError,
     "log_joint's log_prob is float32 and q is float64; they must have one dtype"),
    ((LOG_PROB[0], GRADIENT), ValueError, "log_joint's log_prob must have shape (4, 2), got (2,)"),
    ((GRADIENT, LOG_PROB), ValueError, "log_joint's log_prob must have shape (4, 2), got (4, 2, 3)"),
    ((LOG_PROB, None), TypeError, "log_joint's gradient must be an array or a function, got NoneType"),
    ((LOG_PROB, "z"), TypeError, "log_joint's gradient must be an array or a function, got str"),
    ((LOG_PROB, LOG_PROB), ValueError, "log_joint's gradient must have shape (4, 2, 3), got (4, 2)"),
    ((LOG_PROB, GRADIENT.astype("f4")), TypeError,
     "log_joint's gradient is float32 and q is float64; they must have one dtype"),
    ((LOG_PROB, lambda weights: None), TypeError, f"{PULLED} must be an array, got NoneType"),
    ((LOG_PROB, lambda weights: weights), ValueError, f"{PULLED} must have shape (4, 2, 3), got (4, 2)"),
    ((LOG_PROB, lambda weights: GRADIENT.astype("f4")), TypeError,
     f"{PULLED} is float32 and q is float64; they must have one dtype"),
]  # fmt: skip


@pytest.mark.parametrize("q", [Q, Q_DIAG], ids=["full", "diag"])
@pytest.mark.parametrize("estimator", ["pathwise", "stl", "iwae", "dreg"])
def test_a_log_joint_that_returns_something_else_is_refused(q, estimator):
    for returned, error, message in RETURNED:
        settings = {"key": 0, "num_samples": 4, "estimator": estimator}
        refused(error, f"elbo: {message}", rp.elbo, q, lambda _, returned=returned: returned, **settings)


def test_a_log_joint_of_scalar_events_has_no_dim_for_them():
    with_dim = LOG_PROB[..., None]
    for returned, message in [
        ((with_dim, LOG_PROB), "log_joint's log_prob must have shape (4, 2), got (4, 2, 1)"),
        ((LOG_PROB, with_dim), "log_joint's gradient must have shape (4, 2), got (4, 2, 1)"),
        ((LOG_PROB, lambda _: with_dim), f"{PULLED} must have shape (4, 2), got (4, 2, 1)"),
    ]:
        refused(ValueError, f"elbo: {message}", rp.elbo, Q_SCALAR, lambda _: returned, key=0, num_samples=4)  # noqa: B023


def test_an_error_of_the_log_joint_or_its_pullback_passes_through():
    error = KeyError("mine")

    def fail(_):
        raise error

    for function in (fail, lambda z: (z.sum(-1), fail)):
        with pytest.raises(KeyError) as caught:
            rp.elbo(Q, function, key=0)
        assert caught.value is error
