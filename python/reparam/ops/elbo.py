# SPDX-License-Identifier: MIT
"""The Monte Carlo ELBO and its gradient in one op per target; formulas and sources stand in csrc/ops/elbo_sums.hpp."""

from __future__ import annotations

from functools import partial

import numpy as np

from .._op import op
from . import _elbo_oracles as oracles
from ._estimators import ESTIMATORS, estimate_diag, estimate_tril
from .normal_diag import transform_diag
from .normal_tril import HALF_LOG_2PI, log_det, square_norm, transform_tril
from .tril import diagonal_of, poison, positive_or_nan, solve_lower, solve_lower_transposed

_TRIL, _DIAG = "(s),(),(),(d),tril(d)", "(s),(),(),(d),(d)"
_ESTIMATOR = {"estimator": ESTIMATORS}


@op(
    f"(s,d)~,(s),(s,d),tril(d)->{_TRIL}",
    packable=True,
    attributes={**_ESTIMATOR, "weighted": False},
    oracle=oracles.combine_oracle,
    samples=partial(oracles.samples_combine, tril=True),
)
def elbo_tril_combine(
    noise, log_prob, grad, scale_tril, estimator, weighted, log_weights, value, standard_error, ct_loc, ct_scale_tril
):
    """ELBO and gradient of ``N(loc, L L^T)`` from draws of a density that was computed outside.

    Parameters
    ----------
    noise, grad : array, shape (..., s, d)
        Standard normals, and the gradients of ``log p(x, z)`` at ``z_s = loc + L noise_s``; noise may be a Draw.
    log_prob : array, shape (..., s)
        ``log p(x, z_s)``.
    scale_tril : array, shape (..., d, d)
    estimator : {"pathwise", "stl", "iwae", "dreg"}
        With closed-form entropy (Kingma and Welling, arXiv 1312.6114), sticking the landing (Roeder et al., arXiv
        1703.09194), and the importance-weighted bound with its plain (Burda et al., arXiv 1509.00519) or doubly
        reparameterized gradient (Tucker et al., arXiv 1810.04152).
    weighted : bool
        Whether grad comes times the draws' weights: 1/s, or softmax(log_weights) for the last two estimators.

    Returns
    -------
    log_weights : array, shape (..., s)
        ``log w_s = log p(x, z_s) - log q(z_s)``.
    value, standard_error : array, shape (...)
        The bound: ``mean_s log p(x, z_s) + sum log L_ii + (d/2)(1 + log 2 pi)``, ``mean_s log w_s``, or
        ``logsumexp log w_s - log s``. Its standard error is NaN for s = 1.
    ct_loc : array, shape (..., d)
        ``mean_s g_s``; for the other three ``mean_s h_s``, ``sum_s w~_s g_s`` and ``sum_s w~_s^2 h_s`` with
        ``h_s = g_s + L^-T noise_s`` and ``w~ = softmax(log w)``.
    ct_scale_tril : array, shape (..., d, d)
        ``tril`` of the same sums of ``g_s noise_s^T`` or ``h_s noise_s^T``, plus ``diag(1/L_ii)`` where they are of g.
    """
    estimate_tril(noise, log_prob, grad, scale_tril, estimator, weighted,
                  log_weights, value, standard_error, ct_loc, ct_scale_tril)  # fmt: skip


@op(
    f"(s,d)~,(s),(s,d),(d)->{_DIAG}",
    attributes={**_ESTIMATOR, "weighted": False},
    oracle=oracles.combine_oracle,
    samples=partial(oracles.samples_combine, tril=False),
)
def elbo_diag_combine(
    noise, log_prob, grad, scale_diag, estimator, weighted, log_weights, value, standard_error, ct_loc, ct_scale_diag
):
    """ELBO and gradient of ``N(loc, diag(scale_diag^2))`` from draws of a density that was computed outside.

    Parameters
    ----------
    noise, grad : array, shape (..., s, d)
        Standard normals, and the gradients of ``log p(x, z)`` at ``z_s = loc + scale_diag noise_s``; noise may be a
        Draw.
    log_prob : array, shape (..., s)
        ``log p(x, z_s)``.
    scale_diag : array, shape (..., d)
    estimator, weighted
        As for :func:`elbo_tril_combine`.

    Returns
    -------
    log_weights, value, standard_error, ct_loc
        As of :func:`elbo_tril_combine`, with ``L = diag(scale_diag)``.
    ct_scale_diag : array, shape (..., d)
        The diagonal of ``ct_scale_tril``.
    """
    estimate_diag(noise, log_prob, grad, scale_diag, estimator, weighted,
                  log_weights, value, standard_error, ct_loc, ct_scale_diag)  # fmt: skip


def draw_tril(noise, loc, scale_tril):
    """All draws ``loc + L noise_s``."""
    z = np.empty_like(noise)
    for s in range(noise.shape[0]):
        transform_tril(noise[s], loc, scale_tril, z[s])
    return z


def draw_diag(noise, loc, scale_diag):
    """All draws ``loc + scale_diag noise_s``."""
    z = np.empty_like(noise)
    for s in range(noise.shape[0]):
        transform_diag(noise[s], loc, scale_diag, z[s])
    return z


def linear_gaussian(z, x, weight, bias, noise_scale, log_prob, grad):
    """Log p(x, z_s) and its gradients for ``z ~ N(0, I)``, ``x | z ~ N(weight z + bias, noise_scale^2 I)``."""
    draws, d, n = z.shape[0], z.shape[1], x.shape[0]
    sigma = positive_or_nan(noise_scale)
    sizes = (n + d) * HALF_LOG_2PI + n * np.log(sigma)
    for s in range(draws):
        squares = square_norm(z[s])
        for i in range(d):
            grad[s, i] = -z[s, i]
        for k in range(n):
            r = x[k] - bias[k]
            for i in range(d):
                r = r - weight[k, i] * z[s, i]
            r = r / sigma
            squares = squares + r * r
            for i in range(d):
                grad[s, i] = grad[s, i] + weight[k, i] * r / sigma
        log_prob[s] = -0.5 * squares - sizes


@op(
    f"(s,d)~,(d),tril(d),(n),(n,d),(n),()->{_TRIL}",
    packable=True,
    attributes=_ESTIMATOR,
    oracle=oracles.linear_gaussian_oracle,
    samples=partial(oracles.samples_linear_gaussian, tril=True),
)
def elbo_tril_linear_gaussian(
    noise, loc, scale_tril, x, weight, bias, noise_scale, estimator,
    log_weights, value, standard_error, ct_loc, ct_scale_tril,
):  # fmt: skip
    """ELBO and gradient of ``N(loc, L L^T)`` for ``z ~ N(0, I)``, ``x | z ~ N(weight z + bias, noise_scale^2 I)``.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
        Of a Draw, the noise is made in the kernel and never stored; then ``s=`` says how many draws.
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
    x, bias : array, shape (..., n)
    weight : array, shape (..., n, d)
    noise_scale : array, shape (...)
    estimator : {"pathwise", "stl", "iwae", "dreg"}

    Returns
    -------
    tuple
        As :func:`elbo_tril_combine`: log_weights, value, standard_error, ct_loc, ct_scale_tril.
    """
    z, log_prob, grad = draw_tril(noise, loc, scale_tril), np.empty_like(log_weights), np.empty_like(noise)
    linear_gaussian(z, x, weight, bias, noise_scale, log_prob, grad)
    estimate_tril(noise, log_prob, grad, scale_tril, estimator, 0.0,
                  log_weights, value, standard_error, ct_loc, ct_scale_tril)  # fmt: skip


@op(
    f"(s,d)~,(d),(d),(n),(n,d),(n),()->{_DIAG}",
    attributes=_ESTIMATOR,
    oracle=oracles.linear_gaussian_oracle,
    samples=partial(oracles.samples_linear_gaussian, tril=False),
)
def elbo_diag_linear_gaussian(
    noise, loc, scale_diag, x, weight, bias, noise_scale, estimator,
    log_weights, value, standard_error, ct_loc, ct_scale_diag,
):  # fmt: skip
    """ELBO and gradient of ``N(loc, diag(scale_diag^2))`` for the target of :func:`elbo_tril_linear_gaussian`.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
        As for :func:`elbo_tril_linear_gaussian`.
    loc, scale_diag : array, shape (..., d)
    x, bias : array, shape (..., n)
    weight : array, shape (..., n, d)
    noise_scale : array, shape (...)
    estimator : {"pathwise", "stl", "iwae", "dreg"}

    Returns
    -------
    tuple
        As :func:`elbo_diag_combine`: log_weights, value, standard_error, ct_loc, ct_scale_diag.
    """
    z, log_prob, grad = draw_diag(noise, loc, scale_diag), np.empty_like(log_weights), np.empty_like(noise)
    linear_gaussian(z, x, weight, bias, noise_scale, log_prob, grad)
    estimate_diag(noise, log_prob, grad, scale_diag, estimator, 0.0,
                  log_weights, value, standard_error, ct_loc, ct_scale_diag)  # fmt: skip


def gaussian(z, target_loc, target_scale_tril, log_prob, grad):
    """Log N(z_s | target_loc, M M^T) and its gradients."""
    draws, d = z.shape[0], z.shape[1]
    det, bad = log_det(diagonal_of(target_scale_tril)), poison(diagonal_of(target_scale_tril))
    for s in range(draws):
        for i in range(d):
            grad[s, i] = target_loc[i] - z[s, i] + bad
        solve_lower(target_scale_tril, grad[s])
        log_prob[s] = -0.5 * square_norm(grad[s]) - det - d * HALF_LOG_2PI
        solve_lower_transposed(target_scale_tril, grad[s])


@op(
    f"(s,d)~,(d),tril(d),(d),tril(d)->{_TRIL}",
    packable=True,
    attributes=_ESTIMATOR,
    oracle=oracles.gaussian_oracle,
    samples=partial(oracles.samples_gaussian, tril=True),
)
def elbo_tril_gaussian(
    noise, loc, scale_tril, target_loc, target_scale_tril, estimator,
    log_weights, value, standard_error, ct_loc, ct_scale_tril,
):  # fmt: skip
    """ELBO and gradient of ``N(loc, L L^T)`` for the density ``N(target_loc, M M^T)``, M = target_scale_tril.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
        As for :func:`elbo_tril_linear_gaussian`.
    loc, target_loc : array, shape (..., d)
    scale_tril, target_scale_tril : array, shape (..., d, d)
    estimator : {"pathwise", "stl", "iwae", "dreg"}

    Returns
    -------
    tuple
        As :func:`elbo_tril_combine`: log_weights, value, standard_error, ct_loc, ct_scale_tril.
    """
    z, log_prob, grad = draw_tril(noise, loc, scale_tril), np.empty_like(log_weights), np.empty_like(noise)
    gaussian(z, target_loc, target_scale_tril, log_prob, grad)
    estimate_tril(noise, log_prob, grad, scale_tril, estimator, 0.0,
                  log_weights, value, standard_error, ct_loc, ct_scale_tril)  # fmt: skip


@op(
    f"(s,d)~,(d),(d),(d),tril(d)->{_DIAG}",
    packable=True,
    attributes=_ESTIMATOR,
    oracle=oracles.gaussian_oracle,
    samples=partial(oracles.samples_gaussian, tril=False),
)
def elbo_diag_gaussian(
    noise, loc, scale_diag, target_loc, target_scale_tril, estimator,
    log_weights, value, standard_error, ct_loc, ct_scale_diag,
):  # fmt: skip
    """ELBO and gradient of ``N(loc, diag(scale_diag^2))`` for the density of :func:`elbo_tril_gaussian`.

    Parameters
    ----------
    noise : array, shape (..., s, d), or Draw
        As for :func:`elbo_tril_linear_gaussian`.
    loc, scale_diag, target_loc : array, shape (..., d)
    target_scale_tril : array, shape (..., d, d)
    estimator : {"pathwise", "stl", "iwae", "dreg"}

    Returns
    -------
    tuple
        As :func:`elbo_diag_combine`: log_weights, value, standard_error, ct_loc, ct_scale_diag.
    """
    z, log_prob, grad = draw_diag(noise, loc, scale_diag), np.empty_like(log_weights), np.empty_like(noise)
    gaussian(z, target_loc, target_scale_tril, log_prob, grad)
    estimate_diag(noise, log_prob, grad, scale_diag, estimator, 0.0,
                  log_weights, value, standard_error, ct_loc, ct_scale_diag)  # fmt: skip
