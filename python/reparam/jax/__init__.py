# SPDX-License-Identifier: MIT
"""The ops as functions on JAX's arrays: under ``jit``, ``grad``, ``vmap`` and their compositions.

Each op that gives new arrays is a function of this module with the arguments of ``reparam``'s own, attributes being
static; of those with a ``vjp`` the gradients are that vjp, run by the same kernels. float32 is the default, float64 is
there with x64. What has no result is NaN, as in ``jax.numpy``: nothing raises inside a compiled function.

- Batch dims broadcast inside the kernel, and cotangents are summed there: a factor that many events share, given
  without their dims, is neither copied nor repeated. Under ``vmap`` it is not copied either, but ``grad`` of ``vmap``
  makes one cotangent for each element before JAX adds them: broadcasting is the cheaper way to say the same.
- Derivatives are those of reverse mode, once: ``jax.jvp``, ``jax.hessian`` and ``jax.linearize`` raise.
- The instruction set is that of the process (``REPARAM_ISA``). ``reparam.set_num_threads`` applies to what is compiled
  too, ``reparam.backend`` does not.
- Under ``jit`` over sharded arrays XLA gathers the operands of a foreign call; wrap the call in ``jax.shard_map``.
- ``jax.export`` takes foreign calls by ``disabled_checks=[DisabledSafetyCheck.custom_call("reparam")]`` alone.
- ``adam_step`` is not here: its step and learning rate are attributes, and each new value would compile anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import jax
except ImportError as error:
    raise ImportError('reparam.jax needs JAX 0.8 or newer: pip install "reparam[jax]"') from error
if jax.__version_info__ < (0, 8):
    raise ImportError(f'reparam.jax needs JAX 0.8 or newer, found {jax.__version__}: pip install -U "reparam[jax]"')
try:
    from .. import _xla  # noqa: F401
except ImportError as error:
    _there = not isinstance(error, ModuleNotFoundError) and "cannot import name" not in str(error)
    raise ImportError(
        f"the kernels for JAX do not load: {error}"
        if _there
        else "this build of reparam has no kernels for JAX; from its source, REPARAM_XLA=1 pip install . builds them"
    ) from error

from .._op import OPS
from ._draw import Draw, normal
from ._log_joint import log_joint
from ._ops import function_of

_RAW = ("bits", "normal")
_functions = {name: function_of(op) for name, op in OPS.items() if name not in _RAW and not op.forward_pass.in_place}
globals().update(_functions)
_cholesky = function_of(OPS["cholesky_ex"], "cholesky")

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


def cholesky(a: Any) -> Any:
    """Lower Cholesky factors of symmetric positive-definite matrices.

    Parameters
    ----------
    a : array, shape (..., d, d)
        Only the lower triangle is read.

    Returns
    -------
    array, shape (..., d, d)
        Lower factor, zeros above the diagonal; NaN below for a matrix that is not positive definite, as
        ``jax.numpy.linalg.cholesky`` gives. The cotangent of ``a`` is symmetric.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """
    return _cholesky(a).scale_tril


__all__ = ["Draw", "cholesky", "log_joint", "normal"]
__all__ += list(_functions)
