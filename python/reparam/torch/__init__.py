# SPDX-License-Identifier: MIT
"""The ops on tensors of PyTorch, with gradients, and what stands on them: distributions, a module, an optimizer.

Each op of :data:`reparam.OPS` but the raw ``bits`` and ``normal`` is a function here, of its NumPy signature without
``out``. Gradients are those of reverse mode, one cotangent at a time; forward mode and second derivatives raise, and so
do transforms of ``torch.func``. In compiled code ``torch.func.vmap`` calls the op for one slice after the other, and
``torch.func.grad`` raises an error of PyTorch's own. ``torch.compile(fullgraph=True)`` and ``torch.export`` see one
operator for each call, of the namespace ``torch.ops.reparam``; they take no ``torch.Generator``, so that draws come
from the default one. Noise may be a tensor or a :class:`Draw`. Under ``torch.autocast`` half precision is computed in
float32, as by ``torch.linalg``. Large calls use no more threads than ``torch.get_num_threads()``, unless
``rp.set_num_threads`` or ``REPARAM_NUM_THREADS`` says how many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import torch as _torch
except ImportError as error:
    raise ImportError('reparam.torch needs PyTorch 2.13 or newer: pip install "reparam[torch]"') from error
if [int(n) for n in _torch.__version__.split(".")[:2]] < [2, 13]:
    _words = f"reparam.torch needs PyTorch 2.13 or newer, found {_torch.__version__}"
    raise ImportError(f'{_words}: pip install -U "reparam[torch]"')

from .._settings import limit_threads_by as _limit_threads_by
from . import kl as _kl  # noqa: F401  (it registers the divergences)
from ._draw import Draw
from ._functions import FUNCTIONS as _FUNCTIONS
from .adam import Adam
from .density import log_joint
from .encoded_normal import EncodedNormal
from .multivariate_normal import MultivariateNormal
from .variational import VariationalGaussian

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # the functions, which are made by a loop


globals().update(_FUNCTIONS)
_limit_threads_by(_torch.get_num_threads)

__all__ = ["Adam", "Draw", "EncodedNormal", "MultivariateNormal", "VariationalGaussian", "log_joint"]
__all__ += list(_FUNCTIONS)
