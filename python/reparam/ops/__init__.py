# SPDX-License-Identifier: MIT
# ruff: noqa: F403, F405
"""The definitions of all ops, one file per family, and their names: those below are names of ``reparam`` too."""

from .adam import *
from .cholesky import *
from .elbo import *
from .elbo_glm import *
from .likelihood import *
from .natural_step import *
from .noise import *
from .normal_diag import *
from .normal_kl import *
from .normal_scalar import *
from .normal_tril import *
from .tril import *
from .vector import *

__all__ = [
    "CholeskyResult",
    "adam_step",
    "bias_activation",
    "binomial_log_likelihood",
    "bits",
    "cholesky",
    "cholesky_ex",
    "elbo_diag_combine",
    "elbo_diag_gaussian",
    "elbo_diag_glm",
    "elbo_diag_linear_gaussian",
    "elbo_tril_combine",
    "elbo_tril_gaussian",
    "elbo_tril_glm",
    "elbo_tril_linear_gaussian",
    "normal",
    "normal_diag_entropy",
    "normal_diag_kl",
    "normal_diag_kl_standard",
    "normal_diag_log_prob",
    "normal_diag_natural_step",
    "normal_diag_transform",
    "normal_diag_transform_and_log_prob",
    "normal_diag_vector_transform_and_log_prob",
    "normal_entropy",
    "normal_kl",
    "normal_kl_standard",
    "normal_log_prob",
    "normal_transform",
    "normal_transform_and_log_prob",
    "normal_tril_entropy",
    "normal_tril_kl",
    "normal_tril_kl_standard",
    "normal_tril_log_prob",
    "normal_tril_natural_step",
    "normal_tril_transform",
    "normal_tril_transform_and_log_prob",
    "normal_vector_transform_and_log_prob",
    "tril_from_vector",
    "tril_solve",
    "vector_from_tril",
]
