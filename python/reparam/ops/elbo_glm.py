# SPDX-License-Identifier: MIT
"""The Monte Carlo ELBO and its gradient for generalized linear models."""

from __future__ import annotations

from functools import partial

import numpy as np

from .._op import op, select
from . import _elbo_oracles as oracles
from ._estimators import ESTIMATORS, estimate_diag, estimate_tril
from .elbo import draw_diag, draw_tril
from .normal_tril import HALF_LOG_2PI, square_norm
from .tril import positive_or_nan

FAMILIES = ("logistic", "poisson", "normal")
LOGISTIC, POISSON, NORMAL = range(3)
_ATTRIBUTES = {"estimator": ESTIMATORS, "family": FAMILIES}


def log_likelihood(y, eta, family):
    """Log p(y | eta) without what depends on y alone, and its slope in eta."""
    if family == LOGISTIC:  # so that no digit is lost where the answer is nearly certain
        likely = eta.real > 0
        size = select(likely, eta, -eta)
        small = np.exp(-size)
        miss = 1 - y
        unlikely_odds, likely_odds = small / (1 + small), 1 / (1 + small)
        slope = y * select(likely, unlikely_odds, likely_odds) - miss * select(likely, likely_odds, unlikely_odds)
        return -(size * select(likely, miss, y) + np.log1p(small)), slope
    if family == POISSON:
        rate = np.exp(eta)
        return y * eta - rate, y - rate
    return -0.5 * (y - eta) * (y - eta), y - eta


def glm(z, features, y, prior_scale, log_normalizer, family, log_prob, grad):
    """Log p(y, z_s) and its gradients for coefficients ``z ~ N(0, prior_scale^2 I)``."""
    draws, d, n = z.shape[0], z.shape[1], y.shape[0]
    scale = positive_or_nan(prior_scale)
    precision = 1 / (scale * scale)
    sizes = d * np.log(scale) + d * HALF_LOG_2PI
    for s in range(draws):
        total = log_normalizer - sizes - 0.5 * precision * square_norm(z[s])
        for i in range(d):
            grad[s, i] = -z[s, i] * precision
        for k in range(n):
            eta = z.dtype.type(0) * y[k]
            for i in range(d):
                eta = eta + features[k, i] * z[s, i]
            term, slope = log_likelihood(y[k], eta, family)
            total = total + term
            for i in range(d):
                grad[s, i] = grad[s, i] + features[k, i] * slope
        log_prob[s] = total


@op(
    "(s,d)~,(d),tril(d),(n,d),(n),(),()->(s),(),(),(d),tril(d)",
    packable=True,
    attributes=_ATTRIBUTES,
    oracle=oracles.glm_oracle,
    samples=partial(oracles.samples_glm, tril=True),
)
def elbo_tril_glm(
    noise, loc, scale_tril, features, y, prior_scale, log_normalizer, estimator, family,
    log_weights, value, standard_error, ct_loc, ct_scale_tril,
):  # fmt: skip
    """ELBO and gradient of ``N(loc, L L^T)`` for the coefficients of a generalized linear model.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
        Of a Draw, the noise is made in the kernel and never stored; then ``s=`` says how many draws.
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
    features : array, shape (..., n, d)
    y : array, shape (..., n)
        0 or 1 (logistic), counts (poisson), or reals of unit noise (normal), with linear predictor ``features @ z``.
    prior_scale : array, shape (...)
        Of the prior ``N(0, prior_scale^2 I)`` of the coefficients.
    log_normalizer : array, shape (...)
        What is added to the log density: the part of the likelihood that depends on y alone.
    estimator : {"pathwise", "stl", "iwae", "dreg"}
    family : {"logistic", "poisson", "normal"}

    Returns
    -------
    tuple
        As :func:`elbo_tril_combine`: log_weights, value, standard_error, ct_loc, ct_scale_tril.
    """
    z, log_prob, grad = draw_tril(noise, loc, scale_tril), np.empty_like(log_weights), np.empty_like(noise)
    glm(z, features, y, prior_scale, log_normalizer, family, log_prob, grad)
    estimate_tril(noise, log_prob, grad, scale_tril, estimator, 0.0,
                  log_weights, value, standard_error, ct_loc, ct_scale_tril)  # fmt: skip


@op(
    "(s,d)~,(d),(d),(n,d),(n),(),()->(s),(),(),(d),(d)",
    attributes=_ATTRIBUTES,
    oracle=oracles.glm_oracle,
    samples=partial(oracles.samples_glm, tril=False),
)
def elbo_diag_glm(
    noise, loc, scale_diag, features, y, prior_scale, log_normalizer, estimator, family,
    log_weights, value, standard_error, ct_loc, ct_scale_diag,
):  # fmt: skip
    """ELBO and gradient of ``N(loc, diag(scale_diag^2))`` for the model of :func:`elbo_tril_glm`.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
    loc, scale_diag : array, shape (..., d)
    features : array, shape (..., n, d)
    y : array, shape (..., n)
    prior_scale, log_normalizer : array, shape (...)
    estimator : {"pathwise", "stl", "iwae", "dreg"}
    family : {"logistic", "poisson", "normal"}
        All as for :func:`elbo_tril_glm`.

    Returns
    -------
    tuple
        As :func:`elbo_diag_combine`: log_weights, value, standard_error, ct_loc, ct_scale_diag.
    """
    z, log_prob, grad = draw_diag(noise, loc, scale_diag), np.empty_like(log_weights), np.empty_like(noise)
    glm(z, features, y, prior_scale, log_normalizer, family, log_prob, grad)
    estimate_diag(noise, log_prob, grad, scale_diag, estimator, 0.0,
                  log_weights, value, standard_error, ct_loc, ct_scale_diag)  # fmt: skip
