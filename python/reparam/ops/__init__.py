# SPDX-License-Identifier: MIT
# ruff: noqa: F403, F405
"""The definitions of all ops, one file per family, and their names: those below are names of ``reparam`` too."""

from .adam import *
from .cholesky import *
from .elbo import *
from .likelihood import *
from .noise import *
from .normal_diag import *
from .normal_tril import *
from .tril import *

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
