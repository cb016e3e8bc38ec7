# SPDX-License-Identifier: MIT
"""``reparam.torch.log_joint``: a density written in PyTorch under elbo, fit_vi, map_estimate and fit_amortized."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

import reparam as rp  # noqa: E402
import reparam.torch as rt  # noqa: E402

B, D, P, S = 5, 2, 4, 7
KEY = 3
ESTIMATORS = ("pathwise", "stl", "iwae", "dreg")


def linear_model(rng, dtype="float64"):
    """A model whose posterior is known, and rows of data."""
    weight, bias = rng.standard_normal((P, D)), rng.standard_normal(P)
    model = rp.LinearGaussianModel(weight.astype(dtype), bias.astype(dtype), 0.7)
    return model, model.sample(B, key=1)


class Density(torch.nn.Module):
    """log p(x, z) of that model, as a module whose parameters may be learnt."""

    def __init__(self, model, x):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(model.weight))
        self.bias = torch.nn.Parameter(torch.tensor(model.bias))
        self.scale, self.x = float(model.noise_scale), torch.tensor(x)

    def forward(self, z):
        normal = torch.distributions.Normal
        log_likelihood = normal(z @ self.weight.mT + self.bias, self.scale).log_prob(self.x).sum(-1)
        return log_likelihood + normal(0.0, 1.0).log_prob(z).sum(-1)


def start(rng, dtype="float64"):
    factor = np.tril(0.3 * rng.standard_normal((B, D, D))) + np.eye(D)
    return rp.MultivariateNormal(rng.standard_normal((B, D)).astype(dtype), scale_tril=factor.astype(dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_estimate_is_that_of_the_fused_target(estimator, dtype, rng):
    model, x = linear_model(rng, dtype)
    target = rp.targets.LinearGaussian(x, model.weight, model.bias, model.noise_scale)
    q, settings = start(rng, dtype), {"key": KEY, "num_samples": S, "estimator": estimator}
    ours, fused = (rp.elbo(q, f, **settings) for f in (rt.log_joint(Density(model, x)), target))
    tolerance = 1e-9 if dtype == "float64" else 3e-4
    for name in ("value", "log_weights", "weights"):
        np.testing.assert_allclose(getattr(ours, name), getattr(fused, name), rtol=tolerance, atol=tolerance)
    for name in ("loc", "scale_tril"):
        mine, other = getattr(ours.grad, name), getattr(fused.grad, name)
        assert mine.dtype == dtype
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_backward_pass_gives_the_gradient_of_the_model_too(estimator, rng):
    model, x = linear_model(rng)
    density, q = Density(model, x), start(rng)
    density.bias.requires_grad_(False)
    density.weight.grad = torch.ones_like(density.weight)
    log_joint = rt.log_joint(density, parameters=density.parameters())
    estimate = rp.elbo(q, log_joint, key=KEY, num_samples=S, estimator=estimator)
    z = torch.tensor(q.rsample((S,), key=KEY))
    (expected,) = torch.autograd.grad((torch.tensor(estimate.weights) * density(z)).sum(), density.weight)
    torch.testing.assert_close(density.weight.grad - 1, expected, rtol=1e-9, atol=1e-9)
    assert density.bias.grad is None


def test_no_gradient_of_the_model_is_touched_unless_asked_for(rng):
    model, x = linear_model(rng)
    density = Density(model, x)
    rp.elbo(start(rng), rt.log_joint(density), key=KEY, num_samples=S)
    assert all(p.grad is None for p in density.parameters())


def test_fit_vi_reaches_the_posterior(rng):
    model, x = linear_model(rng)
    found = rp.fit_vi(rt.log_joint(Density(model, x)), D, batch_shape=B, tol=1e-4)
    exact = model.posterior(x)
    assert found.converged.all()
    np.testing.assert_allclose(found.q.loc, exact.mean, atol=1e-6)
    np.testing.assert_allclose(
        found.q.covariance_matrix, np.broadcast_to(exact.covariance_matrix, (B, D, D)), atol=1e-6
    )
    np.testing.assert_allclose(found.elbo, model.log_evidence(x), atol=1e-6)


def test_map_estimate_reaches_the_mode(rng):
    model, x = linear_model(rng)
    found = rp.map_estimate(rt.log_joint(Density(model, x)), np.zeros((B, D)), laplace=True)
    np.testing.assert_allclose(found.value, model.posterior(x).mean, atol=1e-7)
    np.testing.assert_allclose(found.laplace.covariance_matrix[0], model.posterior(x).covariance_matrix[0], atol=1e-5)


def test_fit_amortized_takes_a_density_for_each_batch_of_rows(rng):
    model, _ = linear_model(rng)
    x, settings = model.sample(256, key=2), {"hidden": (), "epochs": 20, "lr": 2e-2, "dtype": "float64", "key": 1}
    bounds = []
    for log_joint in (lambda rows: rt.log_joint(Density(model, rows)), model.log_joint):
        q = rp.fit_amortized(log_joint, x, D, **settings)
        bounds.append(q.history_["elbo"])
    assert bounds[0][-1] > bounds[0][0] + 1
    np.testing.assert_allclose(*bounds, rtol=1e-9)


@pytest.mark.parametrize(
    "layout",
    [lambda x: x, lambda x: np.broadcast_to(x[:1], x.shape), lambda x: x[..., ::-1], np.asfortranarray],
    ids=["plain", "broadcast", "backwards", "fortran"],
)
def test_arrays_of_any_layout(layout, rng):
    value, weights = layout(rng.standard_normal((S, B, D))), layout(rng.random((S, B)))
    kept = value.copy(), weights.copy()
    value.setflags(write=False)
    log_prob, pullback = rt.log_joint(lambda z: -(z**2).sum(-1))(value)
    np.testing.assert_allclose(log_prob, -(kept[0] ** 2).sum(-1))
    gradient = pullback(weights)
    np.testing.assert_allclose(gradient, -2 * kept[1][..., None] * kept[0])
    assert type(log_prob) is type(gradient) is np.ndarray
    np.testing.assert_array_equal(value, kept[0])


def test_gradients_are_computed_where_they_are_switched_off():
    with torch.no_grad():
        log_prob, pullback = rt.log_joint(lambda z: z.sum(-1))(np.zeros((1, 2)))
        assert (pullback(np.ones(1)) == 1).all()
    assert log_prob.shape == (1,)


BAD = {
    "an array": (lambda z: z.detach().numpy().sum(-1), TypeError, "fn must return a tensor, got ndarray"),
    "two tensors": (lambda z: (z.sum(-1), z), TypeError, "fn must return a tensor, got tuple"),
    "shape": (
        lambda z: z,
        ValueError,
        r"fn must return the shape of z without its last dim, \(7, 5\), got \(7, 5, 2\)",
    ),
    "a mean": (lambda z: z.mean(), ValueError, r"\(7, 5\), got \(\)"),
    "dtype": (lambda z: z.sum(-1).float(), TypeError, r"fn must return torch\.float64 as z is, got torch\.float32"),
    "detached": (lambda z: z.detach().sum(-1), ValueError, "must depend on z by differentiable operations"),
    "no z in it": (
        lambda z: torch.ones(S, B, dtype=z.dtype, requires_grad=True) * 2,
        ValueError,
        "must depend on z by differentiable operations",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_density_that_returns_something_else(case, rng):
    fn, error, match = BAD[case]
    with pytest.raises(error, match=match):
        rp.elbo(start(rng), rt.log_joint(fn), key=KEY, num_samples=S)


def test_what_fn_raises_passes_through(rng):
    def fn(z):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        rp.elbo(start(rng), rt.log_joint(fn), key=KEY)


MODELS = {
    "torch": lambda module: lambda z: module(z).sum(-1),
    "ours": lambda module: lambda z: rt.MultivariateNormal(module.weight[0], torch.eye(D).float()).log_prob(z),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_float32_is_told_to_ask_for_it(kind):
    log_joint = rt.log_joint(MODELS[kind](torch.nn.Linear(D, 1)))
    with pytest.raises(TypeError, match=r'z, which is torch\.float64; .* ask for dtype="float32" \(.+\)') as caught:
        rp.fit_vi(log_joint, D)
    assert "dtype" in str(caught.value.__cause__)
    rp.fit_vi(log_joint, D, dtype="float32", max_steps=2)


def test_bad_arguments():
    with pytest.raises(TypeError, match="fn must be callable, got int"):
        rt.log_joint(3)
    leaf = torch.ones(2, requires_grad=True)
    cases = [
        ([leaf, leaf * 2], r"parameters\[1\] must be a leaf tensor"),
        ([None], "got NoneType"),
        (
            torch.nn.Linear(2, 1),
            r"parameters must be an iterable of tensors, such as module\.parameters\(\), got L",
        ),
        (leaf, "parameters must be an iterable of tensors, .* got Tensor"),
    ]
    for parameters, came in cases:
        with pytest.raises(TypeError, match=came):
            rt.log_joint(torch.sum, parameters=parameters)
