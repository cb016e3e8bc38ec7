# SPDX-License-Identifier: MIT
"""The ops on tensors of PyTorch, with gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError('reparam.torch needs PyTorch: pip install "reparam[torch]"') from error

from ._draw import Draw
from ._functions import FUNCTIONS as _FUNCTIONS

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # the functions, which are made by a loop


globals().update(_FUNCTIONS)

__all__ = ["Draw"]
__all__ += list(_FUNCTIONS)
