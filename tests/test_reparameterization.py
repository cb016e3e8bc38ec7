# SPDX-License-Identifier: MIT
"""The three conditions of a reparameterization: noise free of the parameters, the right law, differentiable."""

import numpy as np
import pytest
from scipy import stats

import reparam as rp

D, ROWS = 3, 4


def parameters(rng, rows=ROWS):
    """Loc and lower factor of each row."""
    factors = np.tril(rng.standard_normal((rows, D, D)), -1) + np.apply_along_axis(
        np.diag, 1, rng.uniform(0.5, 2, (rows, D))
    )
    return rng.standard_normal((rows, D)), factors


def distribution(family, loc, scale_tril):
    if family == "full":
        return rp.MultivariateNormal(loc, scale_tril=scale_tril)
    return rp.MultivariateNormalDiag(loc, np.diagonal(scale_tril, axis1=1, axis2=2))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("family", ["full", "diag"])
def test_the_noise_is_free_of_the_parameters(family, rng):
    """Whitened draws of two posteriors are the same noise, which is known from key, row and number alone."""
    noise = np.stack([rp.random.normal((5, D), key=7, stream=b) for b in range(ROWS)], axis=1)
    for _ in range(2):
        q = distribution(family, *parameters(rng))
        factor = np.linalg.cholesky(q.covariance_matrix)
        whitened = np.linalg.solve(factor, (q.rsample((5,), key=7) - q.loc)[..., None])[..., 0]
        np.testing.assert_allclose(whitened, noise, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("family", ["full", "diag"])
def test_the_draws_have_the_law_of_q(family, rng):
    """A Gaussian is known by its projections: each is N(a^T loc, a^T Sigma a), by Kolmogorov and Smirnov."""
    q = distribution(family, *parameters(rng))
    draws = q.rsample((20_000,), key=3)
    levels = []
    for b in range(ROWS):
        for a in rng.standard_normal((5, D)):
            law = stats.norm(a @ q.loc[b], np.sqrt(a @ q.covariance_matrix[b] @ a))
            levels.append(stats.kstest(draws[:, b] @ a, law.cdf).pvalue)
    assert min(levels) > 1e-4


@pytest.mark.usefixtures("backend")
def test_draws_and_expectations_are_differentiable_in_the_parameters(rng):
    """A draw is linear in loc and factor; the mean gradient of z^T M z is that of tr(M (Sigma + loc loc^T))."""
    loc, scale_tril = parameters(rng, 1)
    ct, d_loc, d_scale = (
        rng.standard_normal((1, D)),
        rng.standard_normal((1, D)),
        np.tril(rng.standard_normal((1, D, D))),
    )
    noise = rng.standard_normal((1, D))
    _, ct_loc, ct_scale = rp.normal_tril_transform.vjp(noise, loc, scale_tril, ct)
    along = [rp.normal_tril_transform(noise, loc + h * d_loc, scale_tril + h * d_scale) for h in (-0.1, 0.1)]
    slope = ((along[1] - along[0]) * ct).sum() / 0.2
    assert (ct_loc * d_loc).sum() + (ct_scale * d_scale).sum() == pytest.approx(slope, rel=1e-12)

    matrix = rng.standard_normal((D, D))
    matrix = -matrix @ matrix.T
    q = rp.MultivariateNormal(loc, scale_tril=scale_tril)

    def quadratic(z):
        return np.einsum("...i,ij,...j", z, matrix, z), 2 * z @ matrix

    runs = [rp.elbo(q, quadratic, key=k, num_samples=1000).grad for k in range(100)]
    entropy = np.diag(1 / np.diag(scale_tril[0]))
    for found, exact in (
        (np.stack([grad.loc[0] for grad in runs]), 2 * matrix @ loc[0]),
        (np.stack([grad.scale_tril[0] for grad in runs]), np.tril(2 * matrix @ scale_tril[0]) + entropy),
    ):
        error = found.std(0, ddof=1) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - exact) <= 5 * error + 1e-12).all()
