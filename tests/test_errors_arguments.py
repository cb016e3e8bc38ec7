# SPDX-License-Identifier: MIT
"""Bad arguments of one kind, wherever they stand: keys, numbers of streams, shapes, integers, flags, words, dtypes."""

import re

import numpy as np
import pytest

from hostile import CALLS, good_call


def calls_with(*arguments):
    return [(name, argument) for name in CALLS for argument in CALLS[name][1] if argument in arguments]


def fails(error, message, name, argument, value):
    """The call fails with this message, in front of which stands who says it."""
    call, good = good_call(name)
    with pytest.raises(error) as caught:
        call(**{**good, argument: value})
    assert caught.type is error
    assert re.fullmatch(rf"(\w+: )?{re.escape(f'{argument} {message}')}", str(caught.value))


KEY = "must be an int in [0, 2**64), a JAX key, a numpy.random.Generator or a SeedSequence, got "


@pytest.mark.parametrize(("name", "argument"), calls_with("key"))
def test_what_is_no_key_is_refused(name, argument):
    for key in [1.0, np.float64(3), True, None, "5", b"5", [1, 2], np.array([1, 2]), np.zeros(3, np.uint32), {}]:
        fails(TypeError, f"{KEY}{type(key).__name__}", name, argument, key)
    for key in [-1, 2**64, np.int64(-3)]:
        fails(ValueError, f"must be in [0, 2**64), got {key}", name, argument, key)
    fails(ValueError, "must be in [0, 2**64), got int", name, argument, 10**5000)


@pytest.mark.parametrize(("name", "argument"), calls_with("index"))
def test_what_is_no_index_is_refused(name, argument):
    for index in ([0.0, 1.0], [True, False], "01", [None, 1], [1j, 2], [[1, 2], [3]]):
        fails(TypeError, f"must hold integers, got {index!r}", name, argument, index)
    for array in (np.zeros(2), np.zeros(2, bool), np.zeros(2, "m8[s]"), np.array([0.0, 1], object)):
        fails(TypeError, f"must hold integers, got {array.dtype}", name, argument, array)
    masked = "must be an array without a mask; fill the masked entries with .filled"
    fails(TypeError, masked, name, argument, np.ma.masked_array([0, 1], [False, True]))
    fails(ValueError, "must be >= 0, got -1", name, argument, np.array([0, -1]))
    for big in (2**64 - 1, 2**64, 2**70):
        message = f"must be < 2**64 - 1, the stream that fold_in uses, got {big}"
        fails(ValueError, message, name, argument, [0, big])
    for index in (np.int64(0), np.zeros(3, int), np.zeros((2, 1), int)) if name != "random.Draw" else ():
        fails(ValueError, f"must have the batch shape (2,), got {index.shape}", name, argument, index)


@pytest.mark.parametrize(("name", "argument"), calls_with("shape", "sample_shape"))
def test_what_is_no_shape_is_refused(name, argument):
    for shape in (2.0, None, "32", (2, 1.5), (True,), True, ((1,),), [None]):
        fails(TypeError, f"must be an integer or a tuple of integers, got {shape!r}", name, argument, shape)
    for shape in (-1, (2, -1)):
        fails(ValueError, "must be >= 0, got -1", name, argument, shape)
    fails(ValueError, f"must be < 2**63, got {2**63}", name, argument, (2, 2**63))


INTEGERS = [  # at least, and below
    ("random.bits", "n", 0, None), ("random.bits", "stream", 0, 2**64 - 1), ("random.bits", "offset", 0, 2**63),
    ("random.normal", "stream", 0, 2**64 - 1), ("random.normal", "offset", 0, 2**63),
    ("random.fold_in", "data", 0, 2**64 - 1), ("set_num_threads", "n", 1, 1025), ("elbo", "num_samples", 1, None),
    ("inference.refine", "num_samples", 1, None), ("inference.refine", "steps", 0, None),
    ("fit_vi", "dim", 1, None), ("fit_vi", "num_samples", 1, None), ("fit_vi", "max_steps", 1, None),
    ("map_estimate", "max_steps", 0, None), ("maximize_elbo", "num_rows", 1, None),
    ("maximize_elbo", "batch_size", 1, None),
    ("maximize_elbo", "step", 0, None), ("maximize_elbo", "num_samples", 1, None),
    ("nn.GaussianHead", "latent_dim", 1, None), ("VAE", "latent_dim", 1, None), ("VAE", "num_samples", 1, None),
    ("VAE", "batch_size", 1, None), ("VAE", "epochs", 1, None), ("VAE.log_likelihood", "num_samples", 1, None),
    ("fit_amortized", "latent_dim", 1, None), ("fit_amortized", "num_samples", 1, None),
    ("fit_amortized", "batch_size", 1, None), ("fit_amortized", "epochs", 1, None),
    ("AmortizedPosterior.elbo", "num_samples", 1, None),
    ("VAE.gaps", "refine", 0, None), ("VAE.gaps", "num_samples", 1, None),
    ("VAE.elbo", "num_samples", 1, None), ("VAE.posterior", "refine", 0, None), ("VAE.sample", "n", 0, None),
    ("GaussianMixture", "n_components", 1, None), ("GaussianMixture", "max_iter", 0, None),
    ("GaussianMixture", "n_init", 1, None), ("GaussianMixture", "verbose", 0, None),
    ("GaussianMixture", "verbose_interval", 1, None),
    ("GaussianMixture.sample", "n_samples", 1, None), ("LinearGaussianModel.sample", "n", 0, None),
    ("ProbabilisticPCA", "latent_dim", 1, None), ("ProbabilisticPCA.sample", "n", 0, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "argument", "low", "high"), INTEGERS)
def test_what_is_no_such_integer_is_refused(name, argument, low, high):
    written = {2**63: "2**63", 2**64 - 1: "2**64 - 1"}.get(high, high)
    limits = f">= {low}" if high is None else f"in [{low}, {written})"
    none = [] if name in {"VAE.elbo", "AmortizedPosterior.elbo", "set_num_threads"} else [None]
    for value in [1.5, 1.0, True, "1", [1], np.zeros(2, int), *none]:
        fails(TypeError, f"must be an integer {limits}, got {value!r}", name, argument, value)
    fails(ValueError, f"must be {limits}, got {low - 1}", name, argument, low - 1)
    for beyond in (2**70, 2**63 if high is None else high):
        wanted = "< 2**63" if high is None else limits
        fails(ValueError, f"must be {wanted}, got {beyond}", name, argument, beyond)
    fails(ValueError, f"must be {'< 2**63' if high is None else limits}, got int", name, argument, 10**5000)


NUMBERS = [
    ("map_estimate", "tol", ">= 0"), ("fit_vi", "tol", ">= 0"), ("fit_vi", "lr", "> 0"),
    ("fit_vi", "init_scale", "> 0"), ("optim.Adam", "lr", ">= 0"),
    ("optim.Adam", "eps", ">= 0"), ("optim.Adam", "weight_decay", ">= 0"),
    ("maximize_elbo", "kl_weight", "> 0"), ("VAE", "kl_weight", "> 0"), ("VAE", "noise_scale", "> 0"),
    ("GaussianMixture", "tol", ">= 0"), ("GaussianMixture", "reg_covar", ">= 0"),
    ("LinearGaussianModel", "noise_scale", "> 0"),
    ("VAE", "lr", ">= 0"), ("fit_amortized", "lr", ">= 0"), ("cholesky", "jitter", "> 0"),
    ("cholesky.value_and_vjp", "jitter", "> 0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "argument", "limits"), NUMBERS)
def test_what_is_no_such_number_is_refused(name, argument, limits):
    for value in (True, "1", [1.0], 1j, np.ones(1), np.array(1.0)):
        fails(TypeError, f"must be a number {limits}, got {value!r}", name, argument, value)
    for value in (-1, -5e-324, np.nan, np.inf, -np.inf, *([0, 0.0] if limits == "> 0" else [])):
        fails(ValueError, f"must be a finite number {limits}, got {value!r}", name, argument, value)
    fails(ValueError, f"must be a finite number {limits}, got int", name, argument, 10**5000)


FLAGS = ("packed", "grad", "resume", "check", "shuffle", "return_latent", "warm_start", "laplace")


@pytest.mark.parametrize(("name", "argument"), calls_with(*FLAGS))
def test_what_is_neither_true_nor_false_is_refused(name, argument):
    for value in (None, 1, 0.0, "yes", np.ones(1, bool), []):
        fails(TypeError, f"must be True or False, got {value!r}", name, argument, value)


WORDS = {
    "estimator": "'pathwise', 'stl', 'iwae', 'dreg'", "family": "'logistic', 'poisson', 'normal'",
    "activation": "'identity', 'tanh', 'relu', 'gelu', 'silu', 'softplus'", "covariance_type": "'full', 'diag'",
    "likelihood": "'gaussian', 'bernoulli', 'binomial'",
    "init_params": "'kmeans', 'k-means++', 'random', 'random_from_data'",
    "GaussianMixture.covariance_type": "'full', 'tied', 'diag', 'spherical'",
}  # fmt: skip


@pytest.mark.parametrize(("name", "argument"), calls_with(*WORDS))
def test_what_is_no_such_word_is_refused(name, argument):
    for value in ("score", "", "FULL", 3, ["full"], np.array("full"), *([] if name == "VAE.posterior" else [None])):
        words = WORDS.get(f"{name}.{argument}", WORDS[argument])
        fails(ValueError, f"must be one of {words}, got {value!r}", name, argument, value)


@pytest.mark.parametrize(("name", "argument"), calls_with("dtype"))
def test_another_dtype_is_refused(name, argument):
    for dtype in ("float16", int, ">f8"):
        came = repr(dtype) if name in {"VAE", "fit_amortized"} else np.dtype(dtype)
        fails(TypeError, f"must be float32 or float64, got {came}", name, argument, dtype)
    for dtype in ("real", 3, "f4,(", ("f8", -1)):
        fails(TypeError, f"must be float32 or float64, got {dtype!r}", name, argument, dtype)
