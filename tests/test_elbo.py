# SPDX-License-Identifier: MIT
"""The ELBO of models whose evidence and posterior are known: exact identities draw by draw, and exact gradients."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import reparam as rp
from support import UNIT, relative_error, same_bits

BATCH, D, N, DRAWS, KEY = (2, 3), 3, 5, 70, 2**35 + 1
FAMILIES = ["diag", "full"]

backend_axis = pytest.mark.usefixtures("backend")


@pytest.fixture
def model(rng):
    """x | z ~ N(weight z + bias, noise_scale^2 I), z ~ N(0, I): its log evidence and posterior, by NumPy."""
    weight, bias, noise_scale = rng.standard_normal((N, D)), rng.standard_normal(N), 0.7
    x = rng.standard_normal((*BATCH, N)) @ np.diag(np.arange(1, N + 1)) + bias
    covariance = weight @ weight.T + noise_scale**2 * np.eye(N)
    r = x - bias
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    log_evidence = -0.5 * (np.einsum("...i,ij,...j", r, np.linalg.inv(covariance), r) + log_det)
    posterior_covariance = np.linalg.inv(np.eye(D) + weight.T @ weight / noise_scale**2)
    loc = r @ weight @ posterior_covariance / noise_scale**2
    scale_tril = np.broadcast_to(np.linalg.cholesky(posterior_covariance), (*BATCH, D, D))
    return SimpleNamespace(
        x=x,
        weight=weight,
        bias=bias,
        noise_scale=noise_scale,
        log_evidence=log_evidence,
        loc=loc,
        scale_tril=scale_tril,
    )


def log_joint_of(model):
    """The density and its gradient as a user writes them, one `[S, *B, d]` array at a time."""

    def log_joint(z):
        r = (model.x - z @ model.weight.T - model.bias) / model.noise_scale
        log_prob = -0.5 * ((z * z).sum(-1) + (r * r).sum(-1) + (N + D) * np.log(2 * np.pi)) - N * np.log(
            model.noise_scale
        )
        return log_prob.astype(z.dtype), (r @ model.weight / model.noise_scale - z).astype(z.dtype)

    return log_joint


def fused(model, dtype="float64"):
    arrays = (np.asarray(a, dtype) for a in (model.x, model.weight, model.bias, model.noise_scale))
    return rp.targets.LinearGaussian(*arrays)


@pytest.fixture(params=["callable", "fused"])
def target(request, model):
    return log_joint_of(model) if request.param == "callable" else fused(model)


@pytest.fixture(params=FAMILIES)
def q(request, rng):
    """Some q, not the posterior."""
    loc = rng.standard_normal((*BATCH, D))
    if request.param == "diag":
        return rp.MultivariateNormalDiag(loc, rng.uniform(0.3, 1.5, (*BATCH, D)))
    scale_tril = np.tril(0.4 * rng.standard_normal((*BATCH, D, D)), -1)
    return rp.MultivariateNormal(loc, scale_tril=scale_tril + rng.uniform(0.3, 1.5, (*BATCH, 1, D)) * np.eye(D))


@backend_axis
def test_at_the_posterior_every_log_weight_is_the_log_evidence(model, target):
    posterior = rp.MultivariateNormal(model.loc, scale_tril=model.scale_tril)
    estimate = rp.elbo(posterior, target, key=KEY, num_samples=DRAWS)
    assert estimate.log_weights.shape == (DRAWS, *BATCH)
    np.testing.assert_allclose(
        estimate.log_weights, np.broadcast_to(model.log_evidence, (DRAWS, *BATCH)), rtol=0, atol=1e-10
    )


@backend_axis
def test_at_any_q_the_log_weights_differ_from_it_by_the_log_ratio_to_the_posterior(model, target, q):
    posterior = rp.MultivariateNormal(model.loc, scale_tril=model.scale_tril)
    estimate = rp.elbo(q, target, key=KEY, num_samples=DRAWS)
    z = q.rsample((DRAWS,), key=KEY)
    expected = model.log_evidence + posterior.log_prob(z) - q.log_prob(z)
    np.testing.assert_allclose(estimate.log_weights, expected, rtol=0, atol=1e-10)


@backend_axis
def test_value_standard_error_and_weights_are_those_of_the_draws(model, target, q):
    estimate = rp.elbo(q, target, key=KEY, num_samples=DRAWS)
    z = q.rsample((DRAWS,), key=KEY)
    log_prob = log_joint_of(model)(z)[0]
    np.testing.assert_allclose(estimate.value, log_prob.mean(0) + q.entropy(), rtol=1e-12)
    np.testing.assert_allclose(estimate.standard_error, log_prob.std(0, ddof=1) / np.sqrt(DRAWS), rtol=1e-11)
    np.testing.assert_array_equal(estimate.weights, np.full((DRAWS, *BATCH), 1 / DRAWS))
    assert estimate.value.shape == estimate.standard_error.shape == BATCH
    assert estimate.key == KEY


def test_the_gap_of_the_mean_is_the_divergence_to_the_posterior(model, target, q):
    posterior = rp.MultivariateNormal(model.loc, scale_tril=model.scale_tril)
    estimate = rp.elbo(q, target, key=KEY, num_samples=20_000, grad=False)
    kl = rp.kl_divergence(q, posterior)
    assert (kl > 0).all()
    z_score = (model.log_evidence - estimate.value - kl) / estimate.standard_error
    assert np.abs(z_score).max() < 4.5
    assert estimate.standard_error.max() < 0.05 * kl.min()  # so the comparison could have failed


def elbo_of_fields(model, noise, loc, scale):
    """The estimate as plain NumPy on real or complex fields: what the gradient is a gradient of."""
    full = scale.ndim > loc.ndim
    diagonal = np.diagonal(scale, axis1=-2, axis2=-1) if full else scale
    z = loc + (np.einsum("...ij,s...j->s...i", scale, noise) if full else scale * noise)
    r = (model.x - z @ model.weight.T - model.bias) / model.noise_scale
    return -0.5 * ((z * z).sum(-1) + (r * r).sum(-1)).mean(0) + np.log(diagonal).sum(-1)


def fields(q):
    return (
        {"loc": q.loc, "scale_diag": q.scale_diag}
        if hasattr(q, "scale_diag")
        else {"loc": q.loc, "scale_tril": q.scale_tril}
    )


def noise_of(q, draws=DRAWS, key=KEY):
    standard = rp.MultivariateNormalDiag(np.zeros_like(q.loc), np.ones_like(q.loc))
    return standard.rsample((draws,), key=key)


@backend_axis
def test_gradient_against_the_complex_step(model, target, q):
    estimate = rp.elbo(q, target, key=KEY, num_samples=DRAWS)
    noise, values = noise_of(q), fields(q)
    for name, value in values.items():
        grad = getattr(estimate.grad, name)
        assert grad.shape == value.shape
        exact = np.zeros_like(value)
        for entry in np.ndindex(*value.shape[len(BATCH) :]):
            if len(entry) == 2 and entry[1] > entry[0]:
                continue
            moved = {n: v.astype(complex) for n, v in values.items()}
            moved[name][(..., *entry)] += 1e-30j
            exact[(..., *entry)] = elbo_of_fields(model, noise, *moved.values()).imag / 1e-30
        assert relative_error(grad, exact, events=len(BATCH)).max() < 1e-9


def test_gradient_against_torch(model, target, q):
    torch = pytest.importorskip("torch")
    estimate = rp.elbo(q, target, key=KEY, num_samples=DRAWS)
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in fields(q).items()}
    tensors = {n: torch.tensor(np.asarray(getattr(model, n))) for n in ("x", "weight", "bias", "noise_scale")}
    noise = torch.tensor(noise_of(q))
    if "scale_tril" in leaves:
        z = leaves["loc"] + (torch.tril(leaves["scale_tril"]) @ noise.unsqueeze(-1)).squeeze(-1)
        theirs = torch.distributions.MultivariateNormal(leaves["loc"], scale_tril=leaves["scale_tril"])
    else:
        z = leaves["loc"] + leaves["scale_diag"] * noise
        theirs = torch.distributions.Independent(torch.distributions.Normal(leaves["loc"], leaves["scale_diag"]), 1)
    normal = torch.distributions.Normal
    log_prob = normal(0.0, 1.0).log_prob(z).sum(-1) + normal(
        z @ tensors["weight"].T + tensors["bias"], tensors["noise_scale"]
    ).log_prob(tensors["x"]).sum(-1)
    value = log_prob.mean(0) + theirs.entropy()
    value.sum().backward()
    np.testing.assert_allclose(estimate.value, value.detach().numpy(), rtol=1e-12)
    for name, leaf in leaves.items():
        exact = np.tril(leaf.grad.numpy()) if name == "scale_tril" else leaf.grad.numpy()
        assert relative_error(getattr(estimate.grad, name), exact, events=len(BATCH)).max() < 1e-9


@backend_axis
def test_float32_errs_by_its_own_rounding(model, q):
    exact = rp.elbo(q, fused(model), key=KEY, num_samples=DRAWS)
    single = {name: value.astype(np.float32) for name, value in fields(q).items()}
    loc, scale = single.values()
    q32 = (
        rp.MultivariateNormal(loc, scale_tril=scale)
        if "scale_tril" in single
        else rp.MultivariateNormalDiag(loc, scale)
    )
    noise64, noise32 = noise_of(q), noise_of(q32)
    assert np.abs(noise64 - noise32).max() > 1  # other normals: float32 takes half a block for a pair
    estimate = rp.elbo(q32, fused(model, "float32"), key=KEY, num_samples=DRAWS)
    assert estimate.value.dtype == estimate.grad.loc.dtype == np.float32
    values = {n: v.astype(np.float64) for n, v in single.items()}
    expected = elbo_of_fields(model, noise32.astype(np.float64), *values.values())
    constant = D / 2 - N / 2 * np.log(2 * np.pi) - N * np.log(model.noise_scale)
    np.testing.assert_allclose(estimate.value, expected + constant, rtol=100 * UNIT["float32"] * D)
    assert (
        np.abs(estimate.value - exact.value).max() < 6 * np.hypot(exact.standard_error, estimate.standard_error).max()
    )


@backend_axis
def test_callable_and_fused_target_agree(model, q):
    one, two = (rp.elbo(q, t, key=KEY, num_samples=DRAWS) for t in (log_joint_of(model), fused(model)))
    for name in ("value", "standard_error", "log_weights"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-11)
    for name in fields(q):
        assert relative_error(getattr(one.grad, name), getattr(two.grad, name), events=len(BATCH)).max() < 1e-12


def test_noise_given_and_noise_drawn_are_the_same_to_the_bit(model, q, backend):
    name = "elbo_tril_linear_gaussian" if "scale_tril" in fields(q) else "elbo_diag_linear_gaussian"
    noise = np.moveaxis(noise_of(q), 0, -2)
    model_arrays = (model.x, model.weight, model.bias, np.array(model.noise_scale))
    draw = rp.random.Draw(KEY, np.arange(6).reshape(BATCH))
    given = rp.OPS[name](noise, *fields(q).values(), *model_arrays)
    drawn = rp.OPS[name](draw, *fields(q).values(), *model_arrays, s=DRAWS)
    same_bits(given, drawn)


@backend_axis
def test_pullback_in_place_of_a_gradient(model, q):
    calls = []

    def log_joint(z):
        log_prob, grad = log_joint_of(model)(z)

        def pullback(weights):
            calls.append(weights)
            return weights[..., None] * grad

        return log_prob, pullback

    expected = rp.elbo(q, log_joint_of(model), key=KEY, num_samples=DRAWS)
    estimate = rp.elbo(q, log_joint, key=KEY, num_samples=DRAWS)
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0], np.full((DRAWS, *BATCH), 1 / DRAWS))
    np.testing.assert_allclose(estimate.value, expected.value, rtol=1e-14)
    for name in fields(q):
        assert (
            relative_error(getattr(estimate.grad, name), getattr(expected.grad, name), events=len(BATCH)).max() < 1e-12
        )


def test_pullback_is_not_called_without_a_gradient(model, q):
    def log_joint(z):
        return log_joint_of(model)(z)[0], lambda _: pytest.fail("nobody asked for a gradient")

    estimate = rp.elbo(q, log_joint, key=KEY, num_samples=4, grad=False)
    assert estimate.grad is None


@backend_axis
def test_one_draw_has_a_value_but_no_standard_error(model, target, q):
    estimate = rp.elbo(q, target, key=KEY)
    assert np.isnan(estimate.standard_error).all()
    z = q.rsample((1,), key=KEY)
    np.testing.assert_allclose(estimate.value, log_joint_of(model)(z)[0][0] + q.entropy(), rtol=1e-12)


@backend_axis
def test_broadcast_fields_of_q_take_the_summed_gradient(model, target, rng):
    """One loc per column and one scale_tril per row of the batch."""
    loc = rng.standard_normal((1, BATCH[1], D))
    scale_tril = np.tril(rng.standard_normal((BATCH[0], 1, D, D)), -1) + np.eye(D)
    whole = np.broadcast_to(loc, (*BATCH, D)).copy(), np.broadcast_to(scale_tril, (*BATCH, D, D)).copy()
    shared = rp.elbo(rp.MultivariateNormal(loc, scale_tril=scale_tril), target, key=KEY, num_samples=8)
    apart = rp.elbo(rp.MultivariateNormal(whole[0], scale_tril=whole[1]), target, key=KEY, num_samples=8)
    same_bits(shared.value, apart.value)
    assert shared.grad.loc.shape == loc.shape
    assert shared.grad.scale_tril.shape == scale_tril.shape
    np.testing.assert_allclose(shared.grad.loc, apart.grad.loc.sum(0, keepdims=True), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(
        shared.grad.scale_tril, apart.grad.scale_tril.sum(1, keepdims=True), rtol=1e-11, atol=1e-12
    )


def index():
    return np.arange(6).reshape(BATCH)


@backend_axis
def test_a_data_point_draws_by_its_number(model, q):
    """The estimate of a row is the same to the bit in any minibatch that holds it, under the row's number."""
    whole = rp.elbo(q, fused(model), key=KEY, num_samples=9, index=10 + index())
    order = (np.array([1, 0, 1]), np.array([2, 0, 0]))
    part_of = {name: value[order] for name, value in fields(q).items()}
    loc, scale = part_of.values()
    part_q = (
        rp.MultivariateNormal(loc, scale_tril=scale)
        if "scale_tril" in part_of
        else rp.MultivariateNormalDiag(loc, scale)
    )
    part_target = rp.targets.LinearGaussian(model.x[order], model.weight, model.bias, model.noise_scale)
    part = rp.elbo(part_q, part_target, key=KEY, num_samples=9, index=(10 + index())[order])
    same_bits(part.log_weights, whole.log_weights[:, *order])
    same_bits(part.value, whole.value[order])
    same_bits(part.grad.loc, whole.grad.loc[order])


@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
def test_threads_change_nothing(num_threads, backend, rng):
    """Draws beyond two blocks of 64, a batch above the threshold of threads, a shared scale_tril."""
    d, n, batch, draws = 4, 6, 700, 130
    loc, x = rng.standard_normal((batch, d)), rng.standard_normal((batch, n))
    q = rp.MultivariateNormal(loc, scale_tril=np.eye(d) + np.tril(rng.standard_normal((d, d)), -1))
    target = rp.targets.LinearGaussian(x, rng.standard_normal((n, d)), np.zeros(n), 0.5)
    rp.set_num_threads(1)
    one = rp.elbo(q, target, key=1, num_samples=draws)
    rp.set_num_threads(num_threads)
    many = rp.elbo(q, target, key=1, num_samples=draws)
    for name in ("value", "standard_error", "log_weights"):
        same_bits(getattr(many, name), getattr(one, name))
    same_bits(many.grad.loc, one.grad.loc)
    same_bits(many.grad.scale_tril, one.grad.scale_tril)


MEMORY = """
import numpy as np
import reparam as rp


def peak():  # of this program alone: getrusage would report the parent's where that is larger
    line = next(x for x in open("/proc/self/status") if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


draws, batch, d, n = 512, 4096, 16, 8
rng = np.random.default_rng(0)
x, weight = rng.standard_normal((batch, n)), rng.standard_normal((n, d))
q = rp.MultivariateNormal(rng.standard_normal((batch, d)), scale_tril=np.broadcast_to(np.eye(d), (batch, d, d)).copy())
small = rp.MultivariateNormal(q.loc[:64], scale_tril=q.scale_tril[:64])
rp.elbo(small, rp.targets.LinearGaussian(x[:64], weight, np.zeros(n), 1.0), key=0, num_samples=draws)
before = peak()
estimate = rp.elbo(q, rp.targets.LinearGaussian(x, weight, np.zeros(n), 1.0), key=0, num_samples=draws)
after = peak()
assert np.isfinite(estimate.value).all() and np.isfinite(estimate.grad.scale_tril).all()
print((after - before) / (draws * batch * d * 8))
"""


def test_the_fused_elbo_does_not_store_its_noise():
    environment = {**os.environ, "REPARAM_BACKEND": "native"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", MEMORY],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert 0 < float(run.stdout) < 0.1
