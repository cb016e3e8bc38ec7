# SPDX-License-Identifier: MIT
"""The exceptions of this package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import to_numpy


class NotPositiveDefiniteError(np.linalg.LinAlgError):
    """Some matrices have no Cholesky factor.

    Attributes
    ----------
    info : ndarray of int32, shape batch_shape
        0, or the 1-based first leading minor that is not positive.
    indices : ndarray of int64, shape (k, batch rank)
        Batch indices of the failed matrices.
    """

    def __init__(self, info: NDArray[Any], name: str = "cholesky: a") -> None:
        self.info, self._name = to_numpy(info), name
        self.indices = np.argwhere(self.info)
        shown = [f"{i.tolist()} (leading minor {self.info[tuple(i)]})" for i in self.indices[:8]]
        more = f" and {len(self.indices) - 8} more" if len(self.indices) > 8 else ""
        count = f" in {len(self.indices)} of {self.info.size} events" if self.info.ndim else ""
        where = f": {', '.join(shown)}{more}" if self.info.ndim else f" (leading minor {self.info})"
        super().__init__(f"{name} is not positive definite{count}{where}")

    def __reduce__(self) -> tuple[Any, ...]:  # so that it comes back whole from another process
        return type(self), (self.info, self._name)


class CheckpointError(ValueError):
    """A checkpoint is corrupt, foreign, or does not fit what it is loaded for."""
