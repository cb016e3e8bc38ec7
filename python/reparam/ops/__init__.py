# SPDX-License-Identifier: MIT
"""The definitions of all ops, one file per family."""

from .adam import adam_step
from .cholesky import CholeskyResult, cholesky, cholesky_ex
from .elbo import (
    elbo_diag_combine,
    elbo_diag_linear_gaussian,
    elbo_tril_combine,
    elbo_tril_linear_gaussian,
)
from .likelihood import bias_activation, binomial_log_likelihood
from .noise import bits, normal
from .normal_diag import (
    normal_diag_entropy,
    normal_diag_kl_standard,
    normal_diag_log_prob,
    normal_diag_transform,
    normal_diag_transform_and_log_prob,
)
from .normal_tril import (
    normal_tril_entropy,
    normal_tril_kl_standard,
    normal_tril_log_prob,
    normal_tril_transform,
    normal_tril_transform_and_log_prob,
)
from .tril import tril_from_vector, tril_solve

__all__ = [
    "CholeskyResult",
    "adam_step",
    "bias_activation",
    "binomial_log_likelihood",
    "bits",
    "cholesky",
    "cholesky_ex",
    "elbo_diag_combine",
    "elbo_diag_linear_gaussian",
    "elbo_tril_combine",
    "elbo_tril_linear_gaussian",
    "normal",
    "normal_diag_entropy",
    "normal_diag_kl_standard",
    "normal_diag_log_prob",
    "normal_diag_transform",
    "normal_diag_transform_and_log_prob",
    "normal_tril_entropy",
    "normal_tril_kl_standard",
    "normal_tril_log_prob",
    "normal_tril_transform",
    "normal_tril_transform_and_log_prob",
    "tril_from_vector",
    "tril_solve",
]
