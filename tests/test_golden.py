# SPDX-License-Identifier: MIT
"""The golden numbers: worked out once in high precision, and the same on every backend."""

import numpy as np
import pytest

import reparam as rp

SIGMA = [[4.0, 2.0, 0.6], [2.0, 3.0, 0.4], [0.6, 0.4, 2.0]]
SCALE_TRIL = [[2, 0, 0], [1, 1.4142135623730951, 0], [0.3, 0.0707106781186548, 1.380217374184226]]
CT_SCALE_TRIL = [[1.0, 0.0, 0.0], [2.0, 3.0, 0.0], [4.0, 5.0, 6.0]]
CT_SIGMA = [
    [0.392195040665435, -0.237716138335665, -0.155579809984016],
    [-0.237716138335665, 0.977705750801519, 1.659088419566036],
    [-0.155579809984016, 1.659088419566036, 2.173570668006655],
]
LOC, VALUE = [0.5, -1.0, 2.0], [1.0, -2.0, 0.5]
LOG_PROB, ENTROPY, KL_STANDARD = -5.141087086029358, 5.618777374743269, 4.263038224870749

pytestmark = pytest.mark.usefixtures("backend")


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=2e-15)


@pytest.fixture
def scale_tril():
    return rp.cholesky(np.array(SIGMA))


@pytest.fixture
def q(scale_tril):
    return rp.MultivariateNormal(np.array(LOC), scale_tril=scale_tril)


def test_cholesky(scale_tril):
    close(scale_tril, SCALE_TRIL)


def test_cholesky_vjp(scale_tril):
    close(rp.cholesky.vjp(scale_tril, np.array(CT_SCALE_TRIL)), CT_SIGMA)
    close(rp.cholesky_ex.vjp(scale_tril, np.array(CT_SCALE_TRIL)), CT_SIGMA)


def test_log_prob(scale_tril, q):
    close(rp.normal_tril_log_prob(np.array(VALUE), np.array(LOC), scale_tril), LOG_PROB)
    close(q.log_prob(np.array(VALUE)), LOG_PROB)


def test_entropy(scale_tril, q):
    close(rp.normal_tril_entropy(scale_tril), ENTROPY)
    close(q.entropy(), ENTROPY)


def test_kl_to_the_standard_normal(scale_tril, q):
    standard = rp.MultivariateNormalDiag(np.zeros(3), np.ones(3))
    close(rp.normal_tril_kl_standard(np.array(LOC), scale_tril), KL_STANDARD)
    close(rp.kl_divergence(q, standard), KL_STANDARD)


def test_log_prob_of_transform_needs_no_solve(scale_tril):
    """z = loc + L noise at noise = L^-1 (value - loc) gives the same density back."""
    noise = rp.tril_solve(scale_tril, np.subtract(VALUE, LOC))
    value, log_prob = rp.normal_tril_transform_and_log_prob(noise, np.array(LOC), scale_tril)
    close(value, VALUE)
    close(log_prob, LOG_PROB)


def test_diagonal_ops_agree_with_the_full_ones_on_a_diagonal_factor():
    scale = np.array([2.0, 0.25, 3.0])
    args = np.array(VALUE), np.array(LOC)
    close(rp.normal_diag_log_prob(*args, scale), rp.normal_tril_log_prob(*args, np.diag(scale)))
    close(rp.normal_diag_entropy(scale), rp.normal_tril_entropy(np.diag(scale)))
    close(rp.normal_diag_kl_standard(args[1], scale), rp.normal_tril_kl_standard(args[1], np.diag(scale)))
