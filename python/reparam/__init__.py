# SPDX-License-Identifier: MIT
"""reparam: thousands of small Gaussians at once.

Cholesky factors, densities, ELBOs and their exact gradients for batches of small Gaussians. ``import reparam as rp``;
ops stand here, random numbers in ``rp.random``, targets in ``rp.targets``, nets in ``rp.nn``, the optimizer in
``rp.optim``, figures in ``rp.plot``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import random, targets
from ._check import CheckpointError, NotPositiveDefiniteError
from ._op import OPS
from ._settings import backend, backends, set_num_threads
from .distributions import MultivariateNormal, MultivariateNormalDiag, Normal, kl_divergence
from .elbo import ELBOEstimate, elbo
from .ops import *  # noqa: F403
from .ops import __all__ as _op_names

if TYPE_CHECKING:
    from . import inference, models, nn, optim, plot
    from .cli import show_config
    from .inference import AmortizedPosterior, fit_amortized, fit_vi, map_estimate
    from .inference.maximize_elbo import maximize_elbo
    from .models import VAE, GaussianMixture, LinearGaussianModel, ProbabilisticPCA

__version__ = "0.1.0"

# Loaded when first asked for, so that `import reparam` costs NumPy and little more.
_LAZY_MODULES = (
    "cli", "demo", "inference", "jax", "models", "nn", "numpyro", "optim", "plot", "selftest", "sklearn", "torch",
)  # fmt: skip
_LAZY_NAMES = {
    "AmortizedPosterior": "inference",
    "GaussianMixture": "models",
    "LinearGaussianModel": "models",
    "ProbabilisticPCA": "models",
    "VAE": "models",
    "fit_amortized": "inference",
    "fit_vi": "inference",
    "map_estimate": "inference",
    "maximize_elbo": "inference",
    "show_config": "cli",
}
_NOT_PUBLIC = ("bits", "normal")  # the raw ops; rp.random has the functions that people call
for _name in _NOT_PUBLIC:
    del globals()[_name]

__all__ = [
    "OPS",
    "VAE",
    "AmortizedPosterior",
    "CheckpointError",
    "ELBOEstimate",
    "GaussianMixture",
    "LinearGaussianModel",
    "MultivariateNormal",
    "MultivariateNormalDiag",
    "Normal",
    "NotPositiveDefiniteError",
    "ProbabilisticPCA",
    "backend",
    "backends",
    "elbo",
    "fit_amortized",
    "fit_vi",
    "inference",
    "kl_divergence",
    "map_estimate",
    "maximize_elbo",
    "models",
    "nn",
    "optim",
    "plot",
    "random",
    "set_num_threads",
    "show_config",
    "targets",
]
__all__ += [name for name in _op_names if name not in _NOT_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module(f".{_LAZY_NAMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'reparam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
