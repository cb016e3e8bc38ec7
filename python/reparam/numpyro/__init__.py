# SPDX-License-Identifier: MIT
"""NumPyro's multivariate normal and the guides that stand on it, by the kernels of ``reparam``: change the import.

The classes subclass NumPyro's, keep its names, shapes and random numbers, and work in ``SVI``, ``MCMC``, plates,
``vmap`` and ``jit`` as those do. Derivatives are those of reverse mode, once: ``AutoLaplaceApproximation``, and
``NUTS`` with ``forward_mode_differentiation``, need NumPyro's own class. NumPyro 0.22 is the oldest that they are
tested with.
"""

from __future__ import annotations

try:
    import numpyro
except ImportError as error:
    raise ImportError('reparam.numpyro needs NumPyro 0.22 or newer: pip install "reparam[numpyro]"') from error

if tuple(int(n) for n in numpyro.__version__.split(".")[:2]) < (0, 22):
    raise ImportError(
        f'reparam.numpyro needs NumPyro 0.22 or newer, found {numpyro.__version__}: pip install -U "reparam[numpyro]"'
    )

from ._distribution import MultivariateNormal
from ._guides import AutoBatchedMultivariateNormal, AutoMultivariateNormal

__all__ = ["AutoBatchedMultivariateNormal", "AutoMultivariateNormal", "MultivariateNormal"]
