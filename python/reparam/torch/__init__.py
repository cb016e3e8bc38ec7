# SPDX-License-Identifier: MIT
"""The ops on tensors of PyTorch, with gradients, and what stands on them: distributions, a module, an optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError('reparam.torch needs PyTorch: pip install "reparam[torch]"') from error

from . import kl as _kl  # noqa: F401  (it registers the divergences)
from ._draw import Draw
from ._functions import FUNCTIONS as _FUNCTIONS
from .adam import Adam
from .density import log_joint
from .multivariate_normal import MultivariateNormal
from .variational import EncodedNormal, VariationalGaussian

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # the functions, which are made by a loop


globals().update(_FUNCTIONS)

__all__ = ["Adam", "Draw", "EncodedNormal", "MultivariateNormal", "VariationalGaussian", "log_joint"]
__all__ += list(_FUNCTIONS)
