# SPDX-License-Identifier: MIT
"""A density written in JAX inside ``elbo``, ``fit_vi`` and ``map_estimate``."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs jax: pip install jax")
pytest.importorskip("reparam._xla", reason="needs the module for JAX: REPARAM_XLA=1 pip install .")

import jax.numpy as jnp  # noqa: E402

import reparam as rp  # noqa: E402
from reparam.jax import log_joint, normal_tril_log_prob  # noqa: E402

D, ROWS = 3, 5


def density(z, x, label):
    """z ~ N(0, I), x | z ~ Poisson(exp(z)): data as a pytree of two leaves."""
    return -z @ z / 2 + x["x"] @ z - jnp.exp(z).sum() + label


def by_hand(x, label):
    def call(value):
        log_prob = -(value**2).sum(-1) / 2 + (x * value).sum(-1) - np.exp(value).sum(-1) + label
        return log_prob, lambda weights: weights[..., None] * (x - value - np.exp(value))

    return call


@pytest.fixture
def problem(rng):
    x, label = rng.poisson(2, (ROWS, D)).astype(float), rng.standard_normal(ROWS)
    q = rp.MultivariateNormal(rng.standard_normal((ROWS, D)) / 2, scale_tril=np.tile(np.eye(D) / 3, (ROWS, 1, 1)))
    with jax.enable_x64(True):
        yield q, log_joint(density, {"x": x}, label), by_hand(x, label)


@pytest.mark.parametrize("estimator", ["pathwise", "stl", "iwae", "dreg"])
@pytest.mark.parametrize("grad", [True, False])
def test_elbo(problem, estimator, grad):
    q, ours, hand = problem
    found, expected = [
        rp.elbo(q, f, key=3, num_samples=4, estimator=estimator, grad=grad) for f in (ours, hand)
    ]  # fmt: skip
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
    np.testing.assert_allclose(found.log_weights, expected.log_weights, rtol=1e-10)
    if grad:
        np.testing.assert_allclose(found.grad.loc, expected.grad.loc, atol=1e-11)
        np.testing.assert_allclose(found.grad.scale_tril, expected.grad.scale_tril, atol=1e-11)


def test_batch_dims(problem, rng):
    """Two batch dims, or none; and no data."""
    hand = by_hand(np.ones(D), 0.0)
    for batch in ((), (2, 4)):
        q = rp.MultivariateNormalDiag(rng.standard_normal((*batch, D)), np.ones(D))
        alone = rp.elbo(q, log_joint(lambda z: density(z, {"x": jnp.ones(D)}, 0.0)), key=1, num_samples=2)
        data = {"x": np.ones((*batch, D))}, np.zeros(batch)
        given = rp.elbo(q, log_joint(density, *data), key=1, num_samples=2)
        expected = rp.elbo(q, hand, key=1, num_samples=2)
        np.testing.assert_allclose(alone.value, expected.value, rtol=1e-12)
        np.testing.assert_allclose(given.value, expected.value, rtol=1e-12)
        np.testing.assert_allclose(given.grad.loc, expected.grad.loc, atol=1e-11)


def test_fits(problem):
    _, ours, hand = problem
    found, expected = [rp.fit_vi(f, D, batch_shape=ROWS, max_steps=20, key=1) for f in (ours, hand)]
    np.testing.assert_allclose(found.q.loc, expected.q.loc, atol=1e-7)
    modes = [rp.map_estimate(f, np.zeros((ROWS, D))) for f in (ours, hand)]
    assert modes[0].converged.all()
    np.testing.assert_allclose(modes[0].value, modes[1].value, atol=1e-5)


def test_an_op_of_ours_in_the_density(problem, rng):
    q, *_ = problem
    loc, scale_tril = rng.standard_normal(D), np.linalg.cholesky(np.eye(D) + 0.5)
    found = rp.elbo(q, log_joint(lambda z: normal_tril_log_prob(z, loc, scale_tril)), key=1)
    expected = rp.elbo(q, rp.targets.Gaussian(loc, scale_tril), key=1)
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
    np.testing.assert_allclose(found.grad.loc, expected.grad.loc, atol=1e-12)


def test_the_draws_may_be_overwritten_before_the_pullback(problem):
    _, ours, hand = problem
    value = np.zeros((2, ROWS, D))
    value[1] = 1
    pulls = [f(value)[1] for f in (ours, hand)]
    expected = pulls[1](np.ones((2, ROWS)))
    value[...] = np.nan
    np.testing.assert_allclose(pulls[0](np.ones((2, ROWS))), expected)


def test_errors(problem):
    q, ours, _ = problem
    with jax.enable_x64(False):
        with pytest.raises(
            TypeError, match=r'float64, but JAX .* float32; set jax_enable_x64, or ask for dtype="float32"'
        ):
            rp.elbo(q, ours, key=1)
        small = rp.MultivariateNormalDiag(np.zeros((ROWS, D), "f4"), np.ones(D, "f4"))
        assert rp.elbo(small, ours, key=1).value.dtype == "float32"
    with pytest.raises(TypeError, match=r"fn must return a scalar of dtype float64 for each z, got float64\[3\]"):
        rp.elbo(q, log_joint(lambda z: z), key=1)
    with pytest.raises(TypeError, match=r"got int64\[\]"):
        rp.elbo(q, log_joint(lambda z: 1), key=1)


STOPPED = jax.jit(lambda z: jax.lax.stop_gradient(-z @ z))


@pytest.mark.parametrize("fn", [lambda z: 0.0, lambda z: jax.lax.stop_gradient(-z @ z), STOPPED, jax.remat(STOPPED)])
def test_a_density_depends_on_z(fn):
    with pytest.raises(ValueError, match="what fn returns must depend on z by differentiable operations"):
        log_joint(fn)(np.zeros((2, 3, D), "f4"))


@pytest.mark.parametrize("fn", [lambda z: -z @ z, jax.jit(lambda z: -z @ z), jax.remat(lambda z: -jnp.exp(z).sum())])
def test_what_depends_on_z_through_calls_is_taken(fn):
    _, pullback = log_joint(fn)(np.ones((2, 3, D), "f4"))
    assert (pullback(np.ones((2, 3), "f4")) < 0).all()


@pytest.mark.parametrize(("fn", "count"), [(lambda z: None, 0), (lambda z: (z[0], z[1]), 2)])
def test_a_density_is_one_array(fn, count):
    with pytest.raises(TypeError, match=f"fn must return one scalar for each z, got {count} arrays"):
        log_joint(fn)(np.zeros((2, 3, D), "f4"))
