# SPDX-License-Identifier: MIT
"""The VAE: its training objective against its formula, training on real data, inference, and what it refuses."""

import copy
import io
import itertools
import math
import pickle
import sys

import numpy as np
import pytest
from scipy import special, stats
from sklearn.datasets import load_digits, load_iris
from threadpoolctl import threadpool_limits

import reparam as rp
from reparam.inference.maximize_elbo import SHUFFLE, permutation, purpose_key
from reparam.models import vae
from support import UNIT, same_bits

KEY = 2**40 + 3
TOTAL = 5
PPCA_OF_IRIS = -404.962780  # maximum log likelihood with 2 latents, and its noise variance
NOISE_OF_IRIS = 0.05068215
LIKELIHOODS = {
    "gaussian": {"likelihood": "gaussian"},
    "gaussian-fixed": {"likelihood": "gaussian", "noise_scale": 0.7},
    "bernoulli": {"likelihood": "bernoulli"},
    "binomial": {"likelihood": "binomial", "total_count": TOTAL},
}
COVARIANCES = ["full", "diag"]


@pytest.fixture(autouse=True, scope="module")
def _one_blas_thread():
    """Small products: two threads of OpenBLAS on a busy machine take ten times as long."""
    with threadpool_limits(1):
        yield


@pytest.fixture(params=LIKELIHOODS)
def likelihood(request):
    return request.param


@pytest.fixture(params=COVARIANCES)
def covariance_type(request):
    return request.param


def rows_of(likelihood, rng, n=10, data_dim=5):
    """Rows that a likelihood accepts, in float64."""
    match likelihood:
        case "bernoulli":
            return rng.integers(0, 2, (n, data_dim)).astype(float)
        case "binomial":
            return rng.integers(0, TOTAL + 1, (n, data_dim)).astype(float)
    return rng.standard_normal((n, data_dim)) + np.arange(data_dim)


def make(likelihood="gaussian", **arguments):
    small = {"latent_dim": 2, "hidden": (4,), "batch_size": 4, "epochs": 2, "lr": 0.01, "dtype": "float64", "key": KEY}
    return rp.VAE(**{**small, **LIKELIHOODS[likelihood], **arguments})


def bits_of(model):
    """Everything that training changes."""
    adam = model._optimizer.state_dict()
    arrays = (model._params, model._mean, adam["m"][0], adam["v"][0], *model.history_.values())
    return [array.tobytes() for array in arrays], adam["t"], model._step


def at_random(model, x, rng):
    """A fitted model at parameters that are no special point."""
    model.partial_fit(x)
    model._params[...] = 0.4 * rng.standard_normal(model._params.shape)
    return model


def noise_of(model, rows, step, dtype="float64"):
    """Step t draws with fold_in(key, t); a row takes the stream of its number. Shape (S, B, d)."""
    shape, key = (model.num_samples, model.latent_dim), rp.random.fold_in(KEY, step)
    return np.stack([rp.random.normal(shape, key=key, stream=int(row), dtype=dtype) for row in rows], axis=1)


# ---- the objective as a formula, on NumPy's real and complex numbers and on torch's tensors


def net(flat, sizes, x, activation):
    at = 0
    for k, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        weight, bias = (
            flat[at : at + n_in * n_out].reshape(n_in, n_out),
            flat[at + n_in * n_out : at + (n_in + 1) * n_out],
        )
        x = x @ weight + bias
        x = x if k == len(sizes) - 2 else activation(x)
        at += (n_in + 1) * n_out
    return x, flat[at:]


def log_likelihood_of(model, x, output, theta, lib, observed=1.0):
    if model.likelihood == "gaussian":
        sigma = lib.exp(theta[0]) if model.noise_scale is None else model.noise_scale
        log_sigma = theta[0] if model.noise_scale is None else math.log(sigma)
        terms = -0.5 * ((x - output) / sigma) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)
    else:
        total = model.total_count or 1
        terms = (
            x * output - total * lib.log1p(lib.exp(output)) + lib.asarray(np.log(special.comb(total, np.asarray(x))))
        )
    return (terms * observed).sum(-1)


def objective(params, model, x, noise, lib, activation):
    """Mean over the rows of E log p(x | z) - w KL(q || N(0, I)), the entropy in closed form."""
    d, weight = model.latent_dim, model.kl_weight
    features = len(np.tril_indices(d)[0]) if model.covariance_type == "full" else d
    scaled = x / (model.total_count or 1)
    encoded, rest = net(params, (x.shape[1], *model.hidden, d + features), scaled, activation)
    loc, raw = encoded[:, :d], encoded[:, d:]
    if model.covariance_type == "full":
        entry = {(int(i), int(j)): raw[:, k] for k, (i, j) in enumerate(zip(*np.tril_indices(d), strict=True))}
    else:
        entry = {(i, i): raw[:, i] for i in range(d)}
    z = [loc[:, i] + 0.0 * noise[..., i] for i in range(d)]
    for (i, j), value in entry.items():
        z[i] = z[i] + (lib.exp(value) if i == j else value) * noise[..., j]
    z = lib.stack(z, -1)
    entropy = sum(entry[i, i] for i in range(d)) + d / 2 * (1 + math.log(2 * math.pi))
    log_prior = -0.5 * (z * z).sum(-1) - d / 2 * math.log(2 * math.pi)
    output, theta = net(rest, (d, *reversed(model.hidden), x.shape[1]), z, activation)
    log_likelihood = log_likelihood_of(model, x, output, theta, lib)
    return (log_likelihood.mean(0) + weight * (log_prior.mean(0) + entropy)).mean()


def complex_step_gradient(model, x, noise):
    """Exact to rounding: the objective has no branch."""
    gradient = np.empty(model._params.shape)
    for k in range(len(gradient)):
        moved = model._params.astype(complex)
        moved[k] += 1e-30j
        gradient[k] = objective(moved, model, x, noise, np, np.tanh).imag / 1e-30
    return gradient


def torch_gradient(model, x, noise, activation):
    torch = pytest.importorskip("torch")
    params = torch.tensor(model._params, requires_grad=True)
    function = getattr(torch.nn.functional, activation)
    objective(params, model, torch.tensor(x), torch.tensor(noise), torch, function).backward()
    return params.grad.numpy()


def step_gradient(model, x):
    """The flat ascent direction that the next step hands to Adam, for all rows as one batch."""
    before = model._params.copy()
    model.partial_fit(x)
    same_bits(model._params, before)  # lr = 0
    return -model._grads


def assert_same_gradient(actual, exact):
    assert (exact != 0).all()
    assert np.abs(actual - exact).max() <= 1e-9 * np.abs(exact).max()
    assert np.abs(actual / exact - 1).max() < 1e-6  # entry by entry, so that small ones are seen too


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("kl_weight", [1.0, 0.5])
def test_the_gradient_of_a_step_against_the_complex_step(likelihood, covariance_type, kl_weight, num_samples, rng):
    x = rows_of(likelihood, rng)
    settings = {"covariance_type": covariance_type, "kl_weight": kl_weight, "num_samples": num_samples}
    model = at_random(make(likelihood, lr=0.0, batch_size=10, **settings), x, rng)
    actual = step_gradient(model, x)
    assert_same_gradient(actual, complex_step_gradient(model, x, noise_of(model, range(10), step=1)))


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)], ids=str)
def test_the_gradient_of_a_step_against_torch(likelihood, covariance_type, hidden, rng):
    x = rows_of(likelihood, rng)
    settings = {"covariance_type": covariance_type, "kl_weight": 0.5, "num_samples": 3, "hidden": hidden}
    model = at_random(make(likelihood, lr=0.0, batch_size=10, **settings), x, rng)
    actual = step_gradient(model, x)
    assert_same_gradient(actual, torch_gradient(model, x, noise_of(model, range(10), step=1), "tanh"))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "softplus"])
def test_the_gradient_through_each_activation_against_torch(activation, rng):
    x = rows_of("binomial", rng, n=40)
    settings = {"activation": activation, "num_samples": 3, "hidden": (6, 5)}
    model = at_random(make("binomial", lr=0.0, batch_size=40, **settings), x, rng)
    actual, exact = step_gradient(model, x), torch_gradient(model, x, noise_of(model, range(40), step=1), activation)
    assert np.abs(actual - exact).max() <= 1e-9 * np.abs(exact).max()


def test_float32_errs_by_its_own_rounding(likelihood, covariance_type, rng):
    """Against the objective in float64 at the same parameters and noise; cond(L) is below 10 there."""
    x = rows_of(likelihood, rng).astype(np.float32)
    settings = {"covariance_type": covariance_type, "num_samples": 3, "dtype": "float32"}
    model = at_random(make(likelihood, lr=0.0, batch_size=10, **settings), x, rng)
    noise = noise_of(model, range(10), step=1, dtype="float32").astype(np.float64)
    actual, exact = step_gradient(model, x), complex_step_gradient(model, x.astype(np.float64), noise)
    assert np.linalg.cond(np.linalg.cholesky(model.posterior(x).covariance_matrix)).max() < 10
    assert np.abs(actual - exact).max() <= 100 * 2 * 10 * UNIT["float32"] * np.abs(exact).max()


def test_every_step_of_a_fit_has_the_value_and_the_gradient_of_its_own_minibatch(likelihood, covariance_type, rng):
    """Shuffled rows under their own numbers, a last batch of 2, the noise of the step, kl_weight in the value."""
    x = rows_of(likelihood, rng)
    seen = []
    model = make(likelihood, lr=0.0, covariance_type=covariance_type, kl_weight=0.5, num_samples=2)
    model.fit(x, callbacks=[lambda info: seen.append((info.elbo, -info.model._grads))])
    orders = [permutation(10, purpose_key(KEY, SHUFFLE, epoch)) for epoch in range(2)]
    assert [sorted(order.tolist()) for order in orders] == [list(range(10))] * 2
    assert (orders[0] != orders[1]).any()
    batches = [order[start : start + 4] for order in orders for start in (0, 4, 8)]
    assert len(seen) == len(batches) == 6
    values = []
    for step, (batch, (value, gradient)) in enumerate(zip(batches, seen, strict=True)):
        noise = noise_of(model, batch, step)
        values.append(objective(model._params, model, x[batch], noise, np, np.tanh))
        assert value == pytest.approx(values[-1], rel=1e-12)
        exact = complex_step_gradient(model, x[batch], noise)
        assert np.abs(gradient - exact).max() <= 1e-9 * np.abs(exact).max()
    epochs = np.average(np.reshape(values, (2, 3)), axis=1, weights=[4, 4, 2])
    np.testing.assert_allclose(model.history_["elbo"], epochs, rtol=1e-12)


def test_partial_fit_takes_the_rows_in_order(likelihood, rng):
    """The last minibatch of the second pass: rows 8 and 9 at step 5."""
    x = rows_of(likelihood, rng)
    model = at_random(make(likelihood, lr=0.0), x, rng)
    actual = step_gradient(model, x)
    exact = complex_step_gradient(model, x[8:], noise_of(model, [8, 9], step=5))
    assert np.abs(actual - exact).max() <= 1e-9 * np.abs(exact).max()


def test_nets_start_from_keys_of_their_own(likelihood, rng):
    """Initialization folds 2**63 + 0 into the key, then 0; the encoder takes 0 of that, the decoder 1."""
    model = make(likelihood, lr=0.0).fit(rows_of(likelihood, rng))
    key = rp.random.fold_in(rp.random.fold_in(KEY, 2**63), 0)
    encoder = rp.nn.MLP((5, 4, 5), key=rp.random.fold_in(key, 0), dtype="float64")
    decoder = rp.nn.MLP((2, 4, 5), key=rp.random.fold_in(key, 1), dtype="float64")
    same_bits(model._params[:24], encoder.params[:24])  # the hidden layer; of the last one the scale's part is zero
    same_bits(model._params[len(encoder.params) :][: len(decoder.params)], decoder.params)


def test_q_starts_at_the_identity(likelihood, covariance_type, rng):
    x = rows_of(likelihood, rng)
    model = make(likelihood, lr=0.0, covariance_type=covariance_type).fit(x)
    np.testing.assert_array_equal(model.posterior(x).covariance_matrix, np.broadcast_to(np.eye(2), (10, 2, 2)))


# ---- training on real data


def exact_elbo(model, x):
    """A linear decoder's log joint is quadratic in z: its mean under q is that of the points loc +- sqrt(d) L_i."""
    q, d = model.posterior(x), model.latent_dim
    columns = math.sqrt(d) * np.moveaxis(np.linalg.cholesky(q.covariance_matrix), -1, 0)
    return model.log_joint(x)(np.concatenate([q.mean + columns, q.mean - columns]))[0].mean(0) + q.entropy()


def exact_log_likelihood(model, x):
    bias = model.decode(np.zeros(model.latent_dim))
    weight = model.decode(np.eye(model.latent_dim)) - bias
    covariance = weight.T @ weight + model.noise_scale_**2 * np.eye(len(bias))
    return stats.multivariate_normal(bias, covariance).logpdf(x)


def test_a_linear_vae_reaches_the_maximum_likelihood_of_probabilistic_pca(covariance_type):
    """With a diagonal q too: it may turn its latents to the principal axes (Lucas et al., arXiv 1911.02469).

    Eight draws a step and a learning rate that falls to 1e-4 of its first value end within 0.002 nats of the optimum.
    """
    x = load_iris().data
    x = x - x.mean(0)  # the likelihood does not depend on the origin, the speed of Adam does
    settings = {
        "hidden": (),
        "batch_size": len(x),
        "epochs": 1500,
        "num_samples": 8,
        "covariance_type": covariance_type,
    }
    model = make(**settings, lr=lambda step: 0.05 * 10 ** (-4 * step / 1500)).fit(x)
    log_likelihood, bound = exact_log_likelihood(model, x).sum(), exact_elbo(model, x).sum()
    assert bound <= log_likelihood <= PPCA_OF_IRIS + 1e-6
    assert bound > PPCA_OF_IRIS - 0.01
    assert model.noise_scale_**2 == pytest.approx(NOISE_OF_IRIS, rel=0.002)
    assert model.log_likelihood(x, key=1).sum() == pytest.approx(PPCA_OF_IRIS, abs=0.01)
    estimate = rp.elbo(model.posterior(x), model.log_joint(x), key=2, num_samples=1000, grad=False)
    same_bits(estimate.value, model.elbo(x, key=2, num_samples=1000))
    assert abs(estimate.value.sum() - bound) < 4.5 * np.linalg.norm(estimate.standard_error)


def digits_for(likelihood):
    """The digits of 0..16 as counts, as bits, or as real numbers, and how to model them."""
    counts = load_digits().data
    match likelihood:
        case "bernoulli":
            return (counts > 7).astype(float), {"likelihood": "bernoulli"}
        case "binomial":
            return counts, {"likelihood": "binomial", "total_count": 16}
    return counts / 16, {"gaussian": LIKELIHOODS["gaussian"], "gaussian-fixed": {"noise_scale": 0.2}}[likelihood]


def best_without_latents(x, arguments):
    """Mean log likelihood of independent columns at maximum likelihood: what a VAE beats if its z carries anything."""
    total, mean = arguments.get("total_count", 1), x.mean(0)
    if arguments.get("likelihood", "gaussian") != "gaussian":
        return stats.binom(total, mean / total).logpmf(x).sum(-1).mean()
    scale = arguments.get("noise_scale") or np.sqrt(((x - mean) ** 2).mean())
    return stats.norm(mean, scale).logpdf(x).sum(-1).mean()


@pytest.mark.parametrize("hidden", [(), (32,)], ids=["linear", "hidden"])
def test_training_beats_every_model_without_latents(likelihood, hidden):
    x, arguments = digits_for(likelihood)
    x, held_out = x[:1500], x[1500:]
    settings = {"hidden": hidden, "lr": 0.02, "batch_size": 100, "dtype": "float32", **arguments}
    model = rp.VAE(6, **settings, epochs=12).fit(x, validation=held_out)
    untrained = rp.VAE(6, **{**settings, "lr": 0.0}, epochs=1).fit(x)
    assert model.history_["elbo"][-1] > model.history_["elbo"][0] > untrained.history_["elbo"][0]
    assert model.history_["validation_elbo"][-1] > best_without_latents(x, arguments)
    assert model.elbo(held_out, key=9).mean() == pytest.approx(model.history_["validation_elbo"][-1], abs=1)


# ---- fit, partial_fit, callbacks, progress


def test_history_has_one_float64_entry_an_epoch(likelihood, rng, dtype):
    x, held_out = rows_of(likelihood, rng), rows_of(likelihood, rng, n=3)
    model = make(likelihood, epochs=3, dtype=dtype)
    assert model.fit(x) is model
    history = model.history_
    assert list(history) == ["step", "epoch", "elbo", "validation_elbo"]
    assert all(column.dtype == np.float64 and column.shape == (3,) for column in history.values())
    np.testing.assert_array_equal(history["step"], [3, 6, 9])
    np.testing.assert_array_equal(history["epoch"], [0, 1, 2])
    assert np.isfinite(history["elbo"]).all()
    assert np.isnan(history["validation_elbo"]).all()
    history["elbo"][:] = 0
    assert (model.history_["elbo"] != 0).all()
    validated = make(likelihood, epochs=3, dtype=dtype).fit(x, validation=held_out)
    same_bits(validated._params, model._params)
    key = rp.random.fold_in(rp.random.fold_in(KEY, 2**63 + 2), 2)
    assert validated.history_["validation_elbo"][-1] == validated.elbo(held_out, key=key).mean(dtype=np.float64)


def test_callbacks_are_told_of_every_step(rng):
    told, model = [], make()

    def callback(info):
        told.append((info.step, info.epoch, len(info.model.history_["epoch"])))
        assert info.model is model
        assert type(info.elbo) is float

    model.fit(rows_of("gaussian", rng), callbacks=(c for c in [callback, callback]))  # an iterator is used up but once
    assert told[::2] == told[1::2] == [(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 1, 1), (5, 1, 1), (6, 1, 1)]


@pytest.mark.parametrize("answer", [True, np.True_], ids=["bool", "numpy"])
def test_true_stops_the_fit(answer, rng):
    x, steps = rows_of("gaussian", rng), []
    model = make().fit(x, callbacks=[lambda info: info.step == 5 and answer, lambda info: steps.append(info.step)])
    assert steps == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(model.history_["epoch"], [0])  # an epoch that was stopped has no entry
    assert np.isfinite(model.elbo(x, key=1)).all()


@pytest.mark.parametrize("answer", [None, False, 0, 1, "stop"], ids=repr)
def test_nothing_else_stops_it(answer, rng):
    x = rows_of("gaussian", rng)
    same_bits(make().fit(x, callbacks=[lambda info: answer])._params, make().fit(x)._params)


def test_an_exception_of_a_callback_passes_and_leaves_a_model_that_works(rng):
    x, model = rows_of("gaussian", rng), make()

    def callback(info):
        if info.step == 5:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.fit(x, callbacks=[callback])
    assert model._step == 5  # the noise of a step is used but once
    assert np.isfinite(model.elbo(x, key=1)).all()
    same_bits(model.fit(x)._params, make().fit(x)._params)


def test_partial_fit_is_one_pass_in_order(likelihood, rng):
    """A pass in one batch is an epoch: the rows draw by their numbers, so only the order of sums differs."""
    x = rows_of(likelihood, rng)
    model, whole = make(likelihood, batch_size=10), make(likelihood, batch_size=10, epochs=1).fit(x)
    assert model.partial_fit(x) is model
    np.testing.assert_allclose(model._params, whole._params, rtol=1e-9, atol=1e-12)
    assert all(column.shape == (0,) and column.dtype == np.float64 for column in model.history_.values())
    history = whole.history_
    whole.partial_fit(x[:7])
    same_bits(list(whole.history_.values()), list(history.values()))
    assert whole._step == 2
    assert (whole._params != model._params).any()


def test_the_same_key_gives_the_same_bits_at_any_number_of_threads(covariance_type, dtype, rng):
    """Work beyond the threshold of threads, nets too small for BLAS to divide."""
    x = rows_of("gaussian", rng, n=600)
    settings = {
        "latent_dim": 8,
        "batch_size": 300,
        "num_samples": 8,
        "dtype": dtype,
        "covariance_type": covariance_type,
    }
    rp.set_num_threads(1)
    one = make(**settings).fit(x)
    expected = one._params, one.elbo(x, key=1), one.generate(one.transform(x), key=2)
    for num_threads in (1, 2, 3, 7):
        rp.set_num_threads(num_threads)
        many = make(**settings).fit(x)
        same_bits((many._params, many.elbo(x, key=1), many.generate(many.transform(x), key=2)), expected)
    assert (make(**settings).fit(x[::-1])._params != one._params).any()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_where_it_is_asked_for_or_on_a_terminal(rng, capsys, monkeypatch):
    x = rows_of("gaussian", rng)
    make().fit(x)
    make().fit(x, progress=False)
    assert capsys.readouterr() == ("", "")
    make().fit(x, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2/2" in shown.err
    assert "ELBO" in shown.err
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    make().fit(x, progress="auto")
    assert "2/2" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    make().fit(x, progress="auto")


def test_progress_without_tqdm_says_what_to_install(rng, monkeypatch):
    x, model, terminal = rows_of("gaussian", rng), make(), Terminal()
    model.fit(x)
    before = bits_of(model)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        model.fit(x, progress=True)
    assert bits_of(model) == before
    monkeypatch.setattr(sys, "stderr", terminal)
    make().fit(x, progress="auto")
    assert terminal.getvalue() == ""


def test_a_fit_that_diverges_says_so_and_at_which_step(likelihood, covariance_type, dtype, rng):
    """Warnings are errors here: none comes before it. The parameters are those of the last finite step."""
    x = rows_of(likelihood, rng)
    wild = {"lr": lambda step: 0.01 if step < 4 else 1e30, "covariance_type": covariance_type, "dtype": dtype}
    for train in (lambda m: m.fit(x), lambda m: [m.partial_fit(x) for _ in range(2)]):
        model = make(likelihood, **wild)
        with pytest.raises(ValueError, match=r"training diverged.*step [45]\b"):
            train(model)
        assert model._step == 4
        assert np.isfinite(model._params).all()


def test_parameters_or_moments_that_overflow_in_the_last_step_are_no_silent_result(rng):
    x = rows_of("gaussian", rng)
    last = {"dtype": "float32", "epochs": 1, "batch_size": 10}
    with pytest.raises(ValueError, match=r"training diverged, the parameters are not finite after step 1; lower lr"):
        make(**last, lr=lambda _: 1e39).fit(x)
    with pytest.raises(
        ValueError, match=r"training diverged, the second moments are not finite after step 1; lower lr"
    ):
        make(**last, hidden=(), noise_scale=1e-9).partial_fit(x)


def test_data_too_large_to_square_are_a_clear_error(covariance_type, rng):
    x = 1e20 * rows_of("gaussian", rng)
    for train in (lambda m: m.fit(x), lambda m: m.partial_fit(x)):
        model = make(dtype="float32", covariance_type=covariance_type)
        with pytest.raises(ValueError, match=r"training diverged.*scale the data"):
            train(model)


def test_callbacks_keep_their_own_warnings(rng):
    def callback(info):
        np.float32(1e38) * np.float32(10)

    with pytest.raises(RuntimeWarning, match="overflow"):
        make().fit(rows_of("gaussian", rng), callbacks=[callback])


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "deepcopy", "pickle"]
)
def test_a_copy_is_a_model_of_its_own(duplicate, rng):
    x = rows_of("binomial", rng)
    model = make("binomial").fit(x)
    twin, before = duplicate(model), bits_of(model)
    assert bits_of(twin) == before
    twin.partial_fit(x)
    assert bits_of(model) == before
    model.partial_fit(x)
    assert bits_of(twin) == bits_of(model) != before
    same_bits(twin.elbo(x, key=1), model.elbo(x, key=1))
    with pytest.raises(ValueError, match="not fitted"):
        duplicate(make()).transform(x)


# ---- inference and generation


@pytest.fixture
def fitted(likelihood, covariance_type, dtype, rng):
    x = rows_of(likelihood, rng)
    return at_random(make(likelihood, covariance_type=covariance_type, dtype=dtype), x, rng), x


def test_shapes_and_dtypes(fitted, dtype):
    model, x = fitted
    q, z = model.posterior(x), model.transform(x)
    family = rp.MultivariateNormal if model.covariance_type == "full" else rp.MultivariateNormalDiag
    assert isinstance(q, family)
    assert (q.batch_shape, q.event_shape) == ((10,), (2,))
    same_bits(z, q.mean)
    same_bits(model.reconstruct(x), model.decode(z))
    results = {
        (10, 2): [z, model.sample(10, key=3, return_latent=True)[1]],
        (10, 5): [model.decode(z), model.generate(z, key=1), model.reconstruct(x), model.sample(10, key=3)],
        (10,): [
            model.elbo(x, key=1),
            model.elbo(x, key=1, num_samples=4),
            model.log_likelihood(x, key=1, num_samples=8),
        ],
        (5,): [model.decode(z[0]), model.generate(z[0], key=1)],
        (2, 3, 5): [model.decode(np.zeros((2, 3, 2))), model.generate(np.zeros((2, 3, 2)), key=1)],
        (0, 5): [model.decode(z[:0]), model.generate(z[:0], key=1), model.sample(0, key=1)],
    }
    for shape, arrays in results.items():
        for array in arrays:
            assert array.shape == shape
            assert array.dtype == dtype
            assert np.isfinite(array).all()
    same_bits(model.sample(10, key=3, return_latent=True)[0], model.sample(10, key=3))
    same_bits(model.decode(z.tolist()), model.decode(z))


def test_data_of_any_real_type_is_converted(likelihood, rng):
    x = np.abs(np.round(rows_of(likelihood, rng)))
    model = make(likelihood).fit(x)
    elbo = model.elbo(x, key=1)
    for same in (
        x.astype(np.float16),
        x.astype(">f4"),
        x.astype(np.uint8),
        x.astype(int),
        x.tolist(),
        np.asfortranarray(x),
    ):
        same_bits(model.elbo(same, key=1), elbo)
        same_bits(make(likelihood).fit(same)._params, model._params)
    if likelihood == "bernoulli":
        same_bits(model.elbo(x.astype(bool), key=1), elbo)


DRAWS = 20_000


def assert_moments(draws, mean, variance):
    """Mean and variance of each column within 5 standard errors."""
    centred = draws - mean
    assert (np.abs(centred.mean(0)) <= 5 * np.sqrt(variance / DRAWS)).all()
    fourth = (centred**4).mean(0) - variance**2
    assert (np.abs((centred**2).mean(0) - variance) <= 5 * np.sqrt(fourth / DRAWS)).all()


def test_generate_draws_from_x_given_z(likelihood, rng):
    model = at_random(make(likelihood), rows_of(likelihood, rng), rng)
    z = np.array([0.6, -1.1])
    mean, total = model.decode(z), model.total_count or 1
    x = model.generate(np.broadcast_to(z, (DRAWS, 2)), key=5)
    same_bits(model.generate(np.broadcast_to(z, (DRAWS, 2)), key=5), x)
    if model.likelihood == "gaussian":
        assert_moments(x, mean, np.full(5, model.noise_scale_**2))
        return
    assert ((mean > 0) & (mean < total)).all()
    assert_moments(x, mean, mean * (1 - mean / total))
    assert set(np.unique(x)) == set(range(total + 1))
    with pytest.raises(AttributeError, match="gaussian"):
        _ = model.noise_scale_


def test_sample_draws_z_from_the_prior_and_x_given_z(likelihood, rng):
    model = at_random(make(likelihood), rows_of(likelihood, rng), rng)
    x, z = model.sample(DRAWS, key=6, return_latent=True)
    assert_moments(z, np.zeros(2), np.ones(2))
    assert abs(np.corrcoef(z.T)[0, 1]) < 5 / math.sqrt(DRAWS)
    mean, total = model.decode(z), model.total_count or 1
    variance = (
        np.full_like(mean, model.noise_scale_**2) if model.likelihood == "gaussian" else mean * (1 - mean / total)
    )
    standardized = (x - mean) / np.sqrt(variance)
    assert_moments(standardized, np.zeros(5), np.ones(5))
    for i in range(2):
        assert (np.abs((standardized * z[:, i : i + 1]).mean(0)) < 5 / math.sqrt(DRAWS)).all()
    assert (model.sample(9, key=7) != model.sample(9, key=8)).any()


def test_elbo_and_log_likelihood_are_those_of_the_posterior_and_the_log_joint(fitted, dtype):
    model, x = fitted
    estimate = rp.elbo(model.posterior(x), model.log_joint(x), key=KEY, num_samples=200, grad=False)
    same_bits(model.elbo(x, key=KEY, num_samples=200), estimate.value)
    log_likelihood = model.log_likelihood(x, key=KEY, num_samples=200)
    exact = special.logsumexp(estimate.log_weights.astype(np.float64), axis=0) - math.log(200)
    np.testing.assert_allclose(log_likelihood, exact, rtol=4 * np.finfo(dtype).eps)
    assert (log_likelihood >= estimate.value - 5 * estimate.standard_error).all()
    assert log_likelihood.mean() > estimate.value.mean()
    same_bits(model.elbo(x, key=KEY), model.elbo(x, key=KEY))
    assert (model.elbo(x, key=KEY) != model.elbo(x, key=KEY + 1)).all()


def test_a_row_draws_by_its_number_whatever_stands_beside_it(likelihood, covariance_type, rng, monkeypatch):
    x = rows_of(likelihood, rng, n=30)
    model = at_random(make(likelihood, covariance_type=covariance_type), x, rng)
    calls = (
        lambda rows: model.elbo(rows, key=1, num_samples=3),
        lambda rows: model.log_likelihood(rows, key=1, num_samples=50),
        lambda rows: model.posterior(rows, refine=3).mean,
    )
    for call in calls:
        whole, other = call(x), x[::-1].copy()
        other[4] = x[4]
        same_bits(call(other)[4], whole[4])
        np.testing.assert_allclose(call(x[:7]), whole[:7], rtol=1e-10, atol=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(vae, "ROWS_AT_ONCE", 4)
            np.testing.assert_allclose(call(x), whole, rtol=1e-10, atol=1e-12)
            patch.setattr(vae, "DRAWS_AT_ONCE", 20)  # fewer than the draws of one row
            np.testing.assert_allclose(call(x), whole, rtol=1e-10, atol=1e-12)


# ---- densities of partly observed rows


def log_joint_formula(model, x, z, observed=1.0):
    data_dim = x.shape[1]
    theta_size = 1 if model.likelihood == "gaussian" and model.noise_scale is None else 0
    sizes = (model.latent_dim, *reversed(model.hidden), data_dim)
    count = rp.nn.MLP.count(sizes) + theta_size
    output, theta = net(model._params[-count:].astype(np.float64), sizes, z, np.tanh)
    prior = (-0.5 * z * z - 0.5 * math.log(2 * math.pi)).sum(-1)
    return log_likelihood_of(model, x, output, theta, np, observed) + prior


def test_log_joint_and_its_pullback_are_the_formula(likelihood, rng):
    x = rows_of(likelihood, rng)
    model = at_random(make(likelihood), x, rng)
    z, weights = rng.standard_normal((6, 10, 2)), rng.uniform(-1, 1, (6, 10))
    for observed in (None, rng.integers(0, 2, x.shape), np.zeros(x.shape), np.ones(x.shape, bool)):
        mask = 1.0 if observed is None else observed
        log_prob, pullback = model.log_joint(x, observed)(z)
        np.testing.assert_allclose(log_prob, log_joint_formula(model, x, z, mask), rtol=1e-12)
        gradient = np.empty_like(z)
        for i in range(2):
            moved = z.astype(complex)
            moved[..., i] += 1e-30j
            gradient[..., i] = log_joint_formula(model, x, moved, mask).imag / 1e-30
        np.testing.assert_allclose(pullback(weights), weights[..., None] * gradient, rtol=1e-9, atol=1e-12)


def test_log_joint_is_that_of_scipy(likelihood, rng):
    """Through the public decode, with every normalizing constant."""
    x = rows_of(likelihood, rng)
    model = at_random(make(likelihood), x, rng)
    z = rng.standard_normal((6, 10, 2))
    mean, total = model.decode(z), model.total_count or 1
    if model.likelihood == "gaussian":
        terms = stats.norm(mean, model.noise_scale_).logpdf(x)
    else:
        terms = stats.binom(total, mean / total).logpmf(x)
    expected = terms.sum(-1) + stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(model.log_joint(x)(z)[0], expected, rtol=1e-12)


def test_unobserved_entries_drop_out_whatever_they_hold(fitted, rng):
    model, x = fitted
    observed = rng.integers(0, 2, x.shape)
    observed[3] = 0
    z = rng.standard_normal((4, 10, 2)).astype(model.dtype)
    log_prob, q = model.log_joint(x, observed)(z)[0], model.posterior(x, observed=observed, refine=3)
    for junk in (np.nan, np.inf, -np.inf, -7.5, 1e300, 0.5):
        spoiled = np.where(observed == 1, x, junk)
        same_bits(model.log_joint(spoiled, observed)(z)[0], log_prob)
        other = model.posterior(spoiled, observed=observed, refine=3)
        same_bits((other.mean, other.covariance_matrix), (q.mean, q.covariance_matrix))


def test_all_observed_is_no_mask(fitted, dtype, rng):
    model, x = fitted
    z = rng.standard_normal((4, 10, 2)).astype(dtype)
    everything = np.ones(x.shape, int)
    np.testing.assert_allclose(
        model.log_joint(x, everything)(z)[0], model.log_joint(x)(z)[0], rtol=4 * np.finfo(dtype).eps
    )
    one, two = model.posterior(x, observed=everything), model.posterior(x, refine=0)
    same_bits((one.mean, one.covariance_matrix), (two.mean, two.covariance_matrix))


def test_the_encoder_sees_the_mean_of_the_training_data_where_nothing_was_observed(likelihood, rng):
    x = rows_of(likelihood, rng)
    model = at_random(make(likelihood), x, rng)
    observed = rng.integers(0, 2, x.shape)
    filled = np.where(observed == 1, x, x.mean(0)) / (model.total_count or 1)
    loc = net(model._params, (5, 4, 5), filled, np.tanh)[0][:, :2]
    np.testing.assert_allclose(model.posterior(x, observed=observed).mean, loc, rtol=1e-10)


def test_a_row_of_which_nothing_was_seen_has_the_prior_for_posterior(likelihood, rng):
    x = rows_of(likelihood, rng)
    model = at_random(make(likelihood), x, rng)
    q = model.posterior(np.full_like(x, np.nan), observed=np.zeros_like(x), refine=200)  # error falls as (1 + t/10)^-5
    np.testing.assert_allclose(q.mean, 0, atol=1e-5)
    np.testing.assert_allclose(q.covariance_matrix, np.broadcast_to(np.eye(2), (10, 2, 2)), atol=1e-5)


@pytest.fixture(scope="module")
def digits_model():
    x = load_digits().data
    settings = {"hidden": (24,), "lr": 0.005, "batch_size": 100, "epochs": 10, "dtype": "float64", "key": 3}
    return rp.VAE(4, likelihood="binomial", total_count=16, **settings).fit(x[:1500])


@pytest.fixture(scope="module")
def half_hidden():
    x = load_digits().data[1500:1524]
    observed = np.ones_like(x)
    observed[:, 32:] = 0
    return np.where(observed == 1, x, np.nan), observed


def test_refinement_raises_the_elbo_of_half_hidden_rows(digits_model, half_hidden):
    x, observed = half_hidden
    target = digits_model.log_joint(x, observed)
    bounds = {}
    for kind, steps in itertools.product(COVARIANCES, (0, 10, 300)):
        q = digits_model.posterior(x, observed=observed, refine=steps, covariance_type=kind)
        assert isinstance(q, rp.MultivariateNormal if kind == "full" else rp.MultivariateNormalDiag)
        bounds[kind, steps] = rp.elbo(q, target, key=11, num_samples=1000, grad=False)
    for kind in COVARIANCES:
        start, some, many = (bounds[kind, steps] for steps in (0, 10, 300))
        assert start.value.mean() < some.value.mean() < many.value.mean()
        error = np.hypot(start.standard_error, many.standard_error)
        assert (many.value > start.value - 4.5 * error).all()  # no row is worse off
        assert many.value.mean() > start.value.mean() + 100 * np.linalg.norm(error) / len(x)
    assert bounds["full", 300].value.mean() > bounds["diag", 300].value.mean()


def test_refinement_of_one_row_does_not_depend_on_the_others(digits_model, half_hidden, covariance_type):
    """But on its number in the call: that addresses its draws."""
    x, observed = half_hidden
    settings = {"refine": 20, "covariance_type": covariance_type}
    whole = digits_model.posterior(x, observed=observed, **settings)
    order = np.arange(len(x))[::-1].copy()
    order[7] = 7
    other = digits_model.posterior(x[order], observed=observed[order], **settings)
    same_bits((other.mean[7], other.covariance_matrix[7]), (whole.mean[7], whole.covariance_matrix[7]))
    part = digits_model.posterior(x[:9], observed=observed[:9], **settings)
    np.testing.assert_allclose(part.mean, whole.mean[:9], rtol=0, atol=1e-9)
    np.testing.assert_allclose(part.covariance_matrix, whole.covariance_matrix[:9], rtol=0, atol=1e-9)


def test_without_refinement_the_other_family_is_the_nearest_one(digits_model, half_hidden):
    x, observed = half_hidden
    full = digits_model.posterior(x, observed=observed)
    diag = digits_model.posterior(x, observed=observed, covariance_type="diag")
    precision = np.linalg.inv(full.covariance_matrix)
    same_bits(diag.mean, full.mean)
    np.testing.assert_allclose(diag.variance, 1 / np.diagonal(precision, axis1=-2, axis2=-1), rtol=1e-10)


# ---- what is refused, and that it changes nothing


BAD_ARGUMENTS = [
    ({"latent_dim": 0}, ValueError, "latent_dim must be >= 1, got 0"),
    ({"latent_dim": -3}, ValueError, "latent_dim must be >= 1, got -3"),
    ({"latent_dim": 2.0}, TypeError, r"latent_dim must be an integer >= 1, got 2\.0"),
    ({"latent_dim": True}, TypeError, "latent_dim must be an integer >= 1, got True"),
    ({"latent_dim": None}, TypeError, "latent_dim must be an integer >= 1, got None"),
    ({"hidden": (8, 0)}, ValueError, "hidden must be >= 1, got 0"),
    ({"hidden": (8.5,)}, TypeError, r"hidden must be an integer >= 1, got 8\.5"),
    ({"hidden": 8}, TypeError, "hidden must be a sequence of integers >= 1, got 8"),
    ({"hidden": "88"}, TypeError, "hidden must be an integer >= 1, got '8'"),
    ({"covariance_type": "tied"}, ValueError, "covariance_type must be one of 'full', 'diag', got 'tied'"),
    ({"covariance_type": None}, ValueError, "covariance_type must be one of 'full', 'diag', got None"),
    ({"likelihood": "poisson"}, ValueError, "likelihood must be one of 'gaussian', .*, got 'poisson'"),
    ({"activation": "sin"}, ValueError, "activation must be one of .*'tanh'.*, got 'sin'"),
    ({"estimator": "score"}, ValueError, "estimator must be one of 'pathwise'.*, got 'score'"),
    ({"likelihood": "binomial"}, ValueError, "binomial.* needs total_count"),
    ({"likelihood": "binomial", "total_count": 0}, ValueError, "total_count must be .*1.*, got 0"),
    ({"likelihood": "binomial", "total_count": -2}, ValueError, "total_count must be .*1.*, got -2"),
    ({"likelihood": "binomial", "total_count": 16.0}, TypeError, r"total_count must be an integer .*, got 16\.0"),
    (
        {"likelihood": "bernoulli", "total_count": 1},
        ValueError,
        "total_count goes with .*binomial.*, got total_count=1",
    ),
    ({"total_count": 4}, ValueError, "total_count goes with .*binomial.*, got total_count=4"),
    ({"noise_scale": 0}, ValueError, "noise_scale must be a finite number > 0, got 0"),
    ({"noise_scale": -1.0}, ValueError, r"noise_scale must be a finite number > 0, got -1\.0"),
    ({"noise_scale": np.nan}, ValueError, "noise_scale must be a finite number > 0, got nan"),
    ({"noise_scale": "1"}, TypeError, "noise_scale must be a number > 0, got '1'"),
    (
        {"likelihood": "bernoulli", "noise_scale": 1.0},
        ValueError,
        r"noise_scale goes with .*, got noise_scale=1\.0",
    ),
    ({"num_samples": 0}, ValueError, "num_samples must be >= 1, got 0"),
    ({"kl_weight": 0}, ValueError, "kl_weight must be a finite number > 0, got 0"),
    ({"kl_weight": np.inf}, ValueError, "kl_weight must be a finite number > 0, got inf"),
    ({"lr": np.nan}, ValueError, "lr must be a finite number >= 0, got nan"),
    ({"lr": -0.1}, ValueError, r"lr must be a finite number >= 0, got -0\.1"),
    ({"lr": "0.1"}, TypeError, r"lr must be a number >= 0, got '0\.1'"),
    ({"batch_size": 0}, ValueError, "batch_size must be >= 1, got 0"),
    ({"batch_size": None}, TypeError, "batch_size must be an integer >= 1, got None"),
    ({"epochs": 0}, ValueError, "epochs must be >= 1, got 0"),
    ({"epochs": 1.5}, TypeError, r"epochs must be an integer >= 1, got 1\.5"),
    ({"dtype": "float16"}, TypeError, "dtype must be float32 or float64, got 'float16'"),
    ({"dtype": int}, TypeError, "dtype must be float32 or float64, got <class 'int'>"),
    ({"dtype": ">f8"}, TypeError, "dtype must be float32 or float64, got '>f8'"),
    ({"dtype": "double-double"}, TypeError, "dtype must be float32 or float64, got 'double-double'"),
    ({"dtype": None}, TypeError, "dtype must be float32 or float64, got None"),
    ({"key": -1}, ValueError, r"VAE: key must be in \[0, .*\), got -1"),
    ({"key": 2**64}, ValueError, r"VAE: key must be in \[0, .*\), got 18446744073709551616"),
    ({"key": 1.0}, TypeError, "VAE: key must be an int .*, got float"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS, ids=[str(a) for a, *_ in BAD_ARGUMENTS])
def test_the_constructor_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        rp.VAE(**{"latent_dim": 2, **arguments})


def test_arguments_are_kept_as_python_numbers():
    model = rp.VAE(
        np.int64(2), hidden=np.array([3, 4]), likelihood="binomial", total_count=np.uint8(16), lr=np.float32(0.5),
        batch_size=np.int32(7), key=np.random.SeedSequence(5), dtype=np.float64,
    )  # fmt: skip
    kept = (model.latent_dim, model.hidden, model.total_count, model.lr, model.batch_size, model.dtype)
    assert kept == (2, (3, 4), 16, 0.5, 7, "float64")
    assert type(model.total_count) is type(model.batch_size) is int
    assert type(rp.VAE(2, noise_scale=np.float32(0.5)).noise_scale) is float


GOOD, OTHER = np.arange(12.0).reshape(4, 3) % 2, np.zeros((4, 5))  # fits every likelihood; another width
BAD_ROWS = [
    ([0.0, 1.0, 0.0], ValueError, r"must have shape \(n, .*\), got \(3,\)"),
    (np.float64(1), ValueError, r"must have shape \(n, .*\), got \(\)"),
    (GOOD[None], ValueError, r"must have shape \(n, .*\), got \(1, 4, 3\)"),
    (GOOD[:0], ValueError, r"is empty: it has shape \(0, 3\)"),
    ([[0.0, 1.0], [0.0]], ValueError, "is not an array: .*inhomogeneous"),
    (GOOD.astype(object), TypeError, "must hold real numbers, got object"),
    (GOOD.astype(complex), TypeError, "must hold real numbers, got complex128"),
    (GOOD.astype(str), TypeError, "must hold real numbers, got <U"),
    (GOOD.astype("datetime64[s]"), TypeError, "must hold real numbers, got datetime64"),
    (None, TypeError, "must hold real numbers, got object"),
    (np.ma.masked_array(GOOD, GOOD == 1), TypeError, "must be an array without a mask; .* observed="),
    (np.where(GOOD == 1, np.nan, GOOD), ValueError, r"must be finite in float32, got nan at \[0, 1\]"),
    (np.where(GOOD == 1, -np.inf, GOOD), ValueError, r"must be finite in float32, got -inf at \[0, 1\]"),
    (np.where(GOOD == 1, 1e39, GOOD), ValueError, r"must be finite in float32, got 1e\+39 at \[0, 1\]"),
]
METHODS_OF_ROWS = {
    "fit": lambda model, x: model.fit(x),
    "validation": lambda model, x: model.fit(GOOD, validation=x),
    "partial_fit": lambda model, x: model.partial_fit(x),
    "elbo": lambda model, x: model.elbo(x, key=0),
    "log_likelihood": lambda model, x: model.log_likelihood(x, key=0),
    "gaps": lambda model, x: model.gaps(x, refine=1),
    "posterior": lambda model, x: model.posterior(x),
    "transform": lambda model, x: model.transform(x),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "log_joint": lambda model, x: model.log_joint(x),
}


@pytest.fixture
def trained(likelihood):
    """A fitted model, and a check afterwards that nothing has changed it."""
    model = rp.VAE(2, **LIKELIHOODS[likelihood], hidden=(3,), batch_size=2, epochs=1).fit(GOOD)
    before = bits_of(model)
    yield model
    assert bits_of(model) == before


@pytest.mark.parametrize("method", METHODS_OF_ROWS)
def test_rows_are_refused(trained, method):
    name = "validation" if method == "validation" else "x"
    for x, error, message in BAD_ROWS:
        if method == "validation" and x is None:
            continue  # it means none
        with pytest.raises(error, match=f"{name} {message}"):
            METHODS_OF_ROWS[method](trained, x)


@pytest.mark.parametrize("method", METHODS_OF_ROWS)
def test_entries_that_the_likelihood_cannot_have_are_refused(trained, method):
    if trained.likelihood == "gaussian":
        METHODS_OF_ROWS[method](copy.copy(trained), GOOD - 0.5)
        return
    name = "validation" if method == "validation" else "x"
    total = trained.total_count or 1
    allowed = "0 or 1" if total == 1 else rf"a whole number in 0\.\.{total} \(total_count\)"
    for wrong in (-1.0, 0.5, total + 1.0):
        x = GOOD.copy()
        x[2, 1] = wrong
        with pytest.raises(ValueError, match=rf"{name} must be {allowed} everywhere, got {wrong} at \[2, 1\]"):
            METHODS_OF_ROWS[method](trained, x)


@pytest.mark.parametrize("method", [m for m in METHODS_OF_ROWS if m != "fit"])
def test_rows_of_another_width_are_refused(trained, method):
    name = "validation" if method == "validation" else "x"
    with pytest.raises(ValueError, match=rf"{name} must have shape \(n, 3\), got \(4, 5\)"):
        METHODS_OF_ROWS[method](trained, OTHER)


def test_a_new_fit_may_have_another_width(likelihood):
    model = make(likelihood).fit(GOOD).fit(OTHER)
    assert model.reconstruct(OTHER).shape == OTHER.shape
    assert len(model.history_["epoch"]) == 2


REFUSED_CALLS = [
    (lambda m: rp.VAE(2, batch_size=5).fit(GOOD), ValueError, "batch_size must be <= n = 4, got 5"),
    (lambda m: m.fit(GOOD, resume=True), ValueError, "resume=True needs the checkpoint"),
    (lambda m: m.fit(GOOD, resume="yes"), TypeError, "resume must be True or False, got 'yes'"),
    (
        lambda m: m.fit(GOOD, checkpoint="no/such/folder/c.npz"),
        ValueError,
        "VAE: checkpoint: the folder of .*no/such/folder.* not exist",
    ),
    (lambda m: m.fit(GOOD, checkpoint="/"), ValueError, "checkpoint must be a file, got the folder '/'"),
    (lambda m: m.fit(GOOD, checkpoint=5), TypeError, "checkpoint must be a path, got 5"),
    (lambda m: m.fit(GOOD, callbacks=print), TypeError, "callbacks must be a sequence of callables, got <built-in"),
    (lambda m: m.fit(GOOD, callbacks=[print, 3]), TypeError, "callbacks must be callables, got 3"),
    (lambda m: m.fit(GOOD, progress="yes"), ValueError, "progress must be True, False or 'auto', got 'yes'"),
    (lambda m: m.fit(GOOD, progress=1), ValueError, "progress must be True, False or 'auto', got 1"),
    (lambda m: m.elbo(GOOD, key=-1), ValueError, "VAE: key must be in .*, got -1"),
    (lambda m: m.elbo(GOOD, key="a"), TypeError, "VAE: key must be an int .*, got str"),
    (lambda m: m.elbo(GOOD, key=0, num_samples=0), ValueError, "num_samples must be >= 1, got 0"),
    (lambda m: m.log_likelihood(GOOD, key=2**64), ValueError, "VAE: key must be in .*, got 18446744073709551616"),
    (
        lambda m: m.log_likelihood(GOOD, key=0, num_samples=2.5),
        TypeError,
        r"num_samples must be an integer >= 1, got 2\.5",
    ),
    (lambda m: m.posterior(GOOD, refine=-1), ValueError, "refine must be >= 0, got -1"),
    (lambda m: m.posterior(GOOD, refine=1.0), TypeError, r"refine must be an integer >= 0, got 1\.0"),
    (lambda m: m.posterior(GOOD, covariance_type="tied"), ValueError, "covariance_type must be one of .*, got 'tied'"),
    (lambda m: m.posterior(GOOD, covariance_type=""), ValueError, "covariance_type must be one of .*, got ''"),
    (lambda m: m.posterior(GOOD, observed=GOOD[:3]), ValueError, r"observed must have .*\(4, 3\), got \(3, 3\)"),
    (lambda m: m.posterior(GOOD, observed=1), ValueError, r"observed must have .*\(4, 3\), got \(\)"),
    (lambda m: m.posterior(GOOD, observed=[[1], [1, 0]]), ValueError, "observed is not an array"),
    (lambda m: m.log_joint(GOOD, GOOD * 2), ValueError, r"observed must be 1 .* and 0 elsewhere, got 2\.0 at \[0, 1\]"),
    (lambda m: m.log_joint(GOOD, GOOD * np.nan), ValueError, r"observed must be 1 .* elsewhere, got nan at \[0, 0\]"),
    (lambda m: m.log_joint(GOOD, GOOD.astype(str)), TypeError, "observed must hold 0 and 1, got <U"),
    (lambda m: m.log_joint(GOOD, np.ma.masked_array(GOOD)), TypeError, "observed must be an array without a mask"),
    (lambda m: m.decode(np.ma.masked_array([0.0, 1.0])), TypeError, "z must be an array without a mask"),
    (lambda m: m.log_joint(GOOD.astype(str), np.ones_like(GOOD)), TypeError, "x must hold real numbers, got <U"),
    (lambda m: m.log_joint(GOOD.astype(object), np.ones_like(GOOD)), TypeError, "x must hold real numbers, got object"),
    (lambda m: m.log_joint(GOOD[0], np.ones(3)), ValueError, r"x must have shape \(n, 3\), got \(3,\)"),
    (lambda m: m.log_joint(GOOD * np.nan, GOOD), ValueError, r"x must be finite in float32, got nan at \[0, 1\]"),
    (
        lambda m: rp.elbo(m.posterior(np.tile(GOOD[0], (5, 1))), m.log_joint(GOOD), key=0),
        ValueError,
        r"VAE: log_joint: value must have shape \(S, 4, latent_dim\), got \(1, 5, 2\)",
    ),
    (
        lambda m: m.log_joint(GOOD[:1])(np.zeros((3, 5, 2), np.float32)),  # one row would broadcast
        ValueError,
        r"VAE: log_joint: value must have shape \(S, 1, latent_dim\), got \(3, 5, 2\)",
    ),
    (
        lambda m: m.log_joint(GOOD)(np.zeros((3, 4, 3), np.float32)),
        ValueError,
        r"VAE: log_joint: value must have .*, got \(3, 4, 3\) \(latent_dim is 2\)",
    ),
    (lambda m: m.log_joint(GOOD)(np.zeros(2, np.float32)), ValueError, r"VAE: log_joint: value must .*, got \(2,\)"),
    (lambda m: m.log_joint(GOOD)(np.zeros((3, 4, 2))), TypeError, "VAE: log_joint: value must be float32 .*float64"),
    (lambda m: m.log_joint(GOOD)(None), TypeError, "VAE: log_joint: value must be an array, got NoneType"),
    (lambda m: setattr(m, "hidden", (8,)), AttributeError, "VAE: hidden is fixed .*; make a new one"),
    (lambda m: setattr(m, "lr", 1.0), AttributeError, "VAE: lr is fixed .*; make a new one"),
    (lambda m: delattr(m, "key"), AttributeError, "VAE: key is fixed .*; make a new one"),
    (lambda m: setattr(m, "history_", {}), AttributeError, "history_"),
    (lambda m: m.decode(np.zeros(3)), ValueError, r"z must have shape \(\.\.\., 2\), got \(3,\)"),
    (lambda m: m.decode(1.0), ValueError, r"z must have shape \(\.\.\., 2\), got \(\)"),
    (lambda m: m.decode(["a", "b"]), TypeError, "z must hold real numbers, got <U1"),
    (lambda m: m.decode([1j, 0]), TypeError, "z must hold real numbers, got complex128"),
    (lambda m: m.decode([[1, 0], [1]]), ValueError, "z is not an array"),
    (lambda m: m.generate([np.nan, 0], key=0), ValueError, r"z must be finite in float32, got nan at \[0\]"),
    (lambda m: m.generate([0, 0], key=0.5), TypeError, "VAE: key must be an int .*, got float"),
    (lambda m: m.sample(-1, key=0), ValueError, "n must be >= 0, got -1"),
    (lambda m: m.sample(2.0, key=0), TypeError, r"n must be an integer >= 0, got 2\.0"),
    (lambda m: m.sample(2, key=-1), ValueError, "VAE: key must be in .*, got -1"),
]


def test_calls_that_are_refused_name_the_argument_and_change_nothing(trained):
    for call, error, message in REFUSED_CALLS:
        with pytest.raises(error, match=message):
            call(trained)


def test_a_model_that_is_not_fitted_says_so(likelihood):
    model = make(likelihood)
    calls = [METHODS_OF_ROWS[m] for m in METHODS_OF_ROWS if m not in {"fit", "partial_fit", "validation"}]
    others = [
        lambda m, _: m.decode([0, 0]), lambda m, _: m.generate([0, 0], key=0), lambda m, _: m.sample(2, key=0),
        lambda m, _: m.save("never"), lambda m, _: m.history_, lambda m, _: m.noise_scale_,
    ]  # fmt: skip
    for call in [*calls, *others]:
        with pytest.raises(ValueError, match="this VAE is not fitted yet; call fit or load first"):
            call(model, GOOD)
        with pytest.raises(AttributeError):
            call(model, GOOD)
    for name in ("history_", "noise_scale_"):
        assert not hasattr(model, name)
        fitted = make(likelihood).partial_fit(GOOD)
        assert hasattr(fitted, name) == (name == "history_" or model.likelihood == "gaussian")


def test_arguments_are_fixed_before_a_fit_too(likelihood):
    model = make(likelihood)
    for name in model.argument_names():
        with pytest.raises(AttributeError, match=f"VAE: {name} is fixed"):
            setattr(model, name, getattr(model, name))
    model.note = "attributes of one's own are free"
    model.note = "and may change"


def test_a_subclass_may_have_arguments_of_its_own():
    class Mine(rp.VAE):
        def __init__(self, latent_dim, *, size=4):
            super().__init__(latent_dim, hidden=(size,), batch_size=2, epochs=1)
            self.size = size

    model = Mine(2).fit(GOOD)
    same_bits(copy.copy(model).decode([0, 0]), model.decode([0, 0]))
    assert repr(model).endswith(", fitted)")
    with pytest.raises(AttributeError, match="Mine: size is fixed"):
        model.size = 5


def test_the_text_of_a_model():
    settings = {"hidden": (128,), "likelihood": "binomial", "total_count": 16, "lr": abs}
    model = rp.VAE(8, **settings)
    text = "VAE(8, hidden=(128,), covariance_type='full', likelihood='binomial', total_count=16, lr=abs, not fitted)"
    assert repr(model) == text
    assert repr(make().fit(GOOD)).startswith("VAE(2, hidden=(4,), covariance_type='full', likelihood='gaussian', lr=")
    assert repr(make().fit(GOOD)).endswith(", fitted)")
    assert repr(rp.VAE.__new__(rp.VAE)) == "<VAE without its arguments>"


def test_bad_data_in_the_first_call_leave_the_model_unfitted(likelihood):
    model = make(likelihood)
    for call in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="x must be finite"):
            call(GOOD * np.nan)
        with pytest.raises(ValueError, match="not fitted"):
            model.transform(GOOD)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])  # the model's own type is not copied
def test_inputs_are_never_modified(likelihood, dtype):
    x, observed, z = GOOD.astype(dtype), GOOD.astype(dtype), np.ones((4, 2), dtype)
    for array in (x, observed, z):
        array.flags.writeable = False
    model = make(likelihood, dtype="float32").fit(x, validation=x).partial_fit(x)
    model.posterior(x, observed=observed, refine=2)
    model.log_joint(x, observed)(np.ones((3, 4, 2), np.float32))[1](np.ones((3, 4), np.float32))
    model.reconstruct(x)
    model.elbo(x, key=0)
    model.log_likelihood(x, key=0, num_samples=3)
    model.generate(z, key=0)
    model.decode(z)[...] = 7
    model.transform(x)[...] = 7
    np.testing.assert_array_equal(x, GOOD)
    np.testing.assert_array_equal(observed, GOOD)
    np.testing.assert_array_equal(z, 1)
