# SPDX-License-Identifier: MIT
"""Estimators of scikit-learn, fitted by our kernels: they go where scikit-learn's own go, by one changed import."""

from __future__ import annotations

try:
    import sklearn as _sklearn
except ImportError as error:
    raise ImportError('reparam.sklearn needs scikit-learn 1.6 or newer: pip install "reparam[sklearn]"') from error
if tuple(map(int, _sklearn.__version__.split(".")[:2])) < (1, 6):
    raise ImportError(
        f"reparam.sklearn needs scikit-learn 1.6 or newer, found {_sklearn.__version__}: "
        'pip install -U "reparam[sklearn]"'
    )

from .gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]
