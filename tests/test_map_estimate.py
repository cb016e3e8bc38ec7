# SPDX-License-Identifier: MIT
"""Modes and Laplace's approximation where both are known, by formula or by SciPy; each problem on its own."""

import numpy as np
import pytest

import reparam as rp
from support import same_bits


def gaussians(batch, d, rng):
    """Locs, covariances and precisions of very different size."""
    scale = 10.0 ** rng.uniform(-2, 2, (batch, d))
    factor = np.tril(rng.standard_normal((batch, d, d)) * 0.3, -1) + np.eye(d)
    covariance = scale[:, :, None] * (factor @ factor.swapaxes(-1, -2)) * scale[:, None, :]
    return scale * rng.standard_normal((batch, d)), scale, covariance


def gaussian_density(loc, precision):
    def log_joint(z):
        pull = -np.einsum("...bij,...bj->...bi", precision, z - loc)
        return 0.5 * ((z - loc) * pull).sum(-1), pull

    return log_joint


def regressions(batch=5, n=60, d=4, seed=2):
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((batch, n, d)) * [1, 3, 0.2, 1], rng.standard_normal((batch, d))
    y = rng.random((batch, n)) < 1 / (1 + np.exp(-np.einsum("bnd,bd->bn", x, z)))
    return x, y.astype(float)


def logistic(x, y):
    """A density of all rows of a batch, its gradient and its Hessian."""
    signs = 2 * y - 1

    def log_joint(z):
        eta = np.einsum("...bd,bnd->...bn", z, x)
        log_prob = -np.logaddexp(0, -signs * eta).sum(-1) - 0.5 * (z * z).sum(-1)
        return log_prob, np.einsum("...bn,bnd->...bd", signs / (1 + np.exp(signs * eta)), x) - z

    def precision(z):
        p = 1 / (1 + np.exp(-np.einsum("bd,bnd->bn", z, x)))
        return np.einsum("bn,bni,bnj->bij", p * (1 - p), x, x) + np.eye(x.shape[-1])

    return log_joint, precision


def rosenbrock(z):
    x, y = z[..., 0], z[..., 1]
    log_prob = -((1 - x) ** 2) - 100 * (y - x * x) ** 2
    return log_prob, np.stack([2 * (1 - x) + 400 * x * (y - x * x), -200 * (y - x * x)], axis=-1)


# ---- exact answers


@pytest.mark.parametrize("d", [1, 3, 8])
def test_the_mode_and_laplace_of_gaussians_are_exact(d, rng):
    loc, scale, covariance = gaussians(20, d, rng)
    found = rp.map_estimate(gaussian_density(loc, np.linalg.inv(covariance)), np.zeros((20, d)), laplace=True)
    assert found.converged.all()
    assert (np.abs(found.value - loc) / scale).max() < 1e-8
    assert np.abs(found.log_prob).max() < 1e-12
    units = scale[:, :, None] * scale[:, None, :]
    np.testing.assert_allclose(found.laplace.covariance_matrix / units, covariance / units, rtol=1e-6, atol=1e-7)
    same_bits(found.laplace.loc, found.value)


def test_targets_give_their_modes(rng):
    loc, _, covariance = gaussians(6, 3, rng)
    found = rp.map_estimate(rp.targets.Gaussian(loc, np.linalg.cholesky(covariance)), np.zeros((6, 3)))
    assert found.converged.all()
    np.testing.assert_allclose(found.value, loc, rtol=1e-8)
    peak = rp.MultivariateNormal(loc, covariance_matrix=covariance).log_prob(loc)
    np.testing.assert_allclose(found.log_prob, peak, rtol=1e-12, atol=1e-12)
    x, weight = rng.standard_normal((6, 5)), rng.standard_normal((5, 3))
    target = rp.targets.LinearGaussian(x, weight, np.zeros(5), 0.5)
    precision = np.eye(3) + weight.T @ weight / 0.25
    found = rp.map_estimate(target, np.ones((6, 3)), laplace=True)
    np.testing.assert_allclose(found.value, np.linalg.solve(precision, weight.T @ x.T / 0.25).T, rtol=1e-8)
    np.testing.assert_allclose(
        found.laplace.precision_matrix, np.broadcast_to(precision, (6, 3, 3)), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("fused", [False, True])
def test_logistic_regressions_equal_scipys(fused):
    from scipy import optimize

    x, y = regressions()
    log_joint, precision = logistic(x, y)
    target = rp.targets.GLM(x, y, family="logistic", prior_scale=1.0) if fused else log_joint
    found = rp.map_estimate(target, np.zeros((5, 4)), laplace=True)
    assert found.converged.all()
    for b in range(5):
        one, _ = logistic(x[b : b + 1], y[b : b + 1])
        exact = optimize.root(lambda z, one=one: one(z[None])[1][0], np.zeros(4), tol=1e-13).x
        np.testing.assert_allclose(found.value[b], exact, atol=1e-8)
    expected = precision(found.value)
    np.testing.assert_allclose(found.laplace.precision_matrix, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.laplace.covariance_matrix, np.linalg.inv(expected), rtol=1e-5, atol=1e-7)
    constant = 0 if not fused else -2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found.log_prob, log_joint(found.value)[0] + constant, rtol=1e-12)


def test_a_curved_valley_is_followed_to_its_end():
    found = rp.map_estimate(rosenbrock, np.array([[-1.2, 1.0], [3.0, -2.0], [1.0, 1.0], [-30.0, 5.0]]), laplace=True)
    assert found.converged.all()
    np.testing.assert_allclose(found.value, 1, atol=1e-7)
    hessian = np.array([[802.0, -400.0], [-400.0, 200.0]])
    np.testing.assert_allclose(found.laplace.precision_matrix, np.broadcast_to(hessian, (4, 2, 2)), rtol=1e-5)


def test_a_density_that_bends_upward_at_first_is_climbed():
    """A Cauchy density, convex far from its mode."""

    def cauchy(z):
        return -np.log1p((z - 7) ** 2).sum(-1), -2 * (z - 7) / (1 + (z - 7) ** 2)

    found = rp.map_estimate(cauchy, np.array([[0.0, 100.0], [-1000.0, 7.0]]))
    assert found.converged.all()
    np.testing.assert_allclose(found.value, 7, rtol=1e-8)


def test_float32_and_one_problem_without_batch_dims():
    x, y = regressions(batch=1)
    double = rp.map_estimate(logistic(x, y)[0], np.zeros((1, 4)))
    target = rp.targets.GLM(x[0].astype("f4"), y[0].astype("f4"), family="logistic", prior_scale=1.0)
    found = rp.map_estimate(target, np.zeros(4, np.float32), laplace=True)
    assert found.value.dtype == found.log_prob.dtype == found.laplace.dtype == np.float32
    assert found.value.shape == (4,)
    assert found.converged
    np.testing.assert_allclose(found.value, double.value[0], atol=1e-4)
    np.testing.assert_allclose(found.laplace.precision_matrix, logistic(x, y)[1](double.value)[0], rtol=5e-3, atol=5e-3)


def test_a_pullback_will_do_and_the_callable_gets_one_draw():
    x, y = regressions()
    log_joint, _ = logistic(x, y)
    shapes = set()

    def by_pullback(z):
        shapes.add(z.shape)
        log_prob, grad = log_joint(z)
        return log_prob, lambda weights: weights[..., None] * grad

    found = rp.map_estimate(by_pullback, np.zeros((5, 4)))
    assert shapes == {(1, 5, 4)}
    same_bits(found.value, rp.map_estimate(log_joint, np.zeros((5, 4))).value)


# ---- each problem on its own


def test_a_problem_does_not_depend_on_the_batch(rng):
    x, y = regressions(batch=30)
    init = rng.standard_normal((30, 4))
    before = init.copy()
    target = rp.targets.GLM(x, y, family="logistic", prior_scale=1.0)
    together = rp.map_estimate(target, init, laplace=True)
    same_bits(init, before)
    for b in (0, 17, 29):
        alone = rp.map_estimate(rp.targets.GLM(x[b], y[b], family="logistic", prior_scale=1.0), init[b], laplace=True)
        same_bits(together.value[b], alone.value)
        same_bits(together.laplace.scale_tril[b], alone.laplace.scale_tril)


def test_nan_and_no_mode_are_reported_and_disturb_nobody(rng):
    """By problem: NaN, no upper bound, flat in one direction, a saddle at the start, and two that are good."""
    loc = rng.standard_normal((6, 2))

    def log_joint(z):
        log_prob, grad = -0.5 * ((z - loc) ** 2).sum(-1), loc - z
        log_prob[:, 0] = np.nan
        log_prob[:, 1], grad[:, 1] = z[:, 1].sum(-1), 1
        log_prob[:, 2], grad[:, 2, 0] = -0.5 * (z[:, 2, 1] - loc[2, 1]) ** 2, 0
        log_prob[:, 3] = 0.5 * z[:, 3, 0] ** 2 - 0.5 * z[:, 3, 1] ** 2
        grad[:, 3] = z[:, 3] * [1, -1]
        return log_prob, grad

    init = np.zeros((6, 2))
    found = rp.map_estimate(log_joint, init, laplace=True, max_steps=60)
    assert found.converged.tolist() == [False, False, False, False, True, True]
    assert np.isnan(found.log_prob[0])
    same_bits(found.value[0], init[0])
    assert np.isnan(found.laplace.scale_tril[:4]).all()
    assert np.isnan(found.laplace.loc[:4]).all()
    np.testing.assert_allclose(found.value[4:], loc[4:], rtol=1e-8)
    np.testing.assert_allclose(found.laplace.covariance_matrix[4:], np.broadcast_to(np.eye(2), (2, 2, 2)), atol=1e-8)
    flat = rp.map_estimate(log_joint, init, max_steps=60)
    assert flat.converged.tolist() == [False, False, True, True, True, True]
    assert flat.laplace is None


def test_points_outside_the_support_are_stepped_back_from():
    """log z - z on z > 0, mode 1; the first full step from 1e-3 would leave the support from the other side."""

    def gamma(z):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(z > 0, np.log(z) - z, -np.inf)[..., 0], 1 / z - 1

    found = rp.map_estimate(gamma, np.array([[1e-3], [50.0]]))
    assert found.converged.all()
    np.testing.assert_allclose(found.value, 1, rtol=1e-8)


def test_an_empty_batch_has_the_right_shapes():
    found = rp.map_estimate(lambda z: (z.sum(-1), z), np.zeros((0, 3)), laplace=True)
    assert found.value.shape == (0, 3)
    assert found.log_prob.shape == found.converged.shape == (0,)
    assert found.laplace.batch_shape == (0,)


def test_no_steps_give_the_start_and_exceptions_pass_through():
    x, y = regressions()
    found = rp.map_estimate(logistic(x, y)[0], np.ones((5, 4)), max_steps=0)
    same_bits(found.value, np.ones((5, 4)))
    assert not found.converged.any()

    def broken(z):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        rp.map_estimate(broken, np.zeros(3))
