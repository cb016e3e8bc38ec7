# SPDX-License-Identifier: MIT
"""NumPyro's multivariate normal and the guides that stand on it, by the kernels of ``reparam``: change the import.

The classes subclass NumPyro's, keep its names, shapes and random numbers, and work in ``SVI``, ``MCMC``, plates,
``vmap`` and ``jit`` as those do. NumPyro 0.22 is the oldest that they are tested with.
"""

from __future__ import annotations

try:
    import numpyro
except ImportError:
    raise ImportError('reparam.numpyro needs NumPyro 0.22 or newer: pip install "reparam[numpyro]"') from None

if tuple(int(n) for n in numpyro.__version__.split(".")[:2]) < (0, 22):
    raise ImportError(
        f'reparam.numpyro needs NumPyro 0.22 or newer, found {numpyro.__version__}: pip install -U "reparam[numpyro]"'
    )

from ._distribution import MultivariateNormal
from ._guides import AutoBatchedMultivariateNormal, AutoMultivariateNormal

__all__ = ["AutoBatchedMultivariateNormal", "AutoMultivariateNormal", "MultivariateNormal"]
