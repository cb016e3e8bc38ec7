# SPDX-License-Identifier: MIT
"""The digits: 8 x 8 pixels, each a count 0..16 of 16, and their fixed split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random

__all__ = ["COUNT", "HALF_HIDDEN", "SIDE", "Digits", "load_digits", "lower_half_hidden"]

Array = NDArray[Any]
SIDE, COUNT = 8, 16
HELD_OUT, HALF_HIDDEN = 360, 200


@dataclass(frozen=True)
class Digits:
    """One image a row of 64 counts, with its label."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array

    @property
    def half_hidden(self) -> Array:
        """The held-out images whose lower halves are hidden, shape (200, 64)."""
        return self.test[:HALF_HIDDEN]


def load_digits() -> Digits:
    """scikit-learn's 1797 digits, 360 of them held out: the same ones whatever the key.

    Returns
    -------
    Digits
    """
    from sklearn.datasets import load_digits as bundled  # noqa: PLC0415  (an extra)

    bunch = bundled()
    counts = bunch.data.astype(np.float32)
    order = np.argsort(rp_random.bits(len(counts), key=1797), kind="stable")
    held_out, kept = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(counts[kept], bunch.target[kept], counts[held_out], bunch.target[held_out])


def lower_half_hidden() -> Array:
    """Mask of one image, shape (64,): 1 where a pixel is observed, 0 in the lower half."""
    mask = np.ones((SIDE, SIDE), dtype=np.float32)
    mask[SIDE // 2 :] = 0
    return mask.ravel()
