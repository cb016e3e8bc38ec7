# SPDX-License-Identifier: MIT
"""The main job on real data: a VAE on handwritten digits, then the hidden halves of held-out digits inferred.

The digits are scikit-learn's: 8 x 8 pixels, each a count 0..16 of 16, so the likelihood is binomial. A VAE with eight
latents and a full-covariance encoder is trained; then the lower half of 200 held-out images is hidden and z is inferred
for each of them with the decoder fixed, once with a diagonal and once with a full covariance.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reparam as rp

__all__ = ["Digits", "Settings", "UsageError", "load_digits", "run"]

SIDE, COUNT = 8, 16
LATENT_DIM, HIDDEN, BATCH_SIZE = 8, 128, 128
HELD_OUT, HALF_HIDDEN = 360, 200
IMPORTANCE_SAMPLES, ELBO_SAMPLES = 1000, 200
NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}

Array = NDArray[Any]


class UsageError(Exception):
    """Something that the user can put right; the message says what."""


@dataclass(frozen=True)
class Settings:
    """What ``reparam demo`` was asked for."""

    out: Path
    key: int = 0
    epochs: int = 400
    refine: int = 400
    progress: bool = True


@dataclass(frozen=True)
class Digits:
    """A fixed split of the digits; pixels are counts 0..16, one image a row of 64."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array


@dataclass
class Clock:
    """Seconds by part."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - begin


def load_digits() -> Digits:
    """scikit-learn's 1797 digits, 360 of them held out: the same ones for every key.

    Returns
    -------
    Digits
    """
    from sklearn.datasets import load_digits as bundled  # noqa: PLC0415  (an extra)

    bunch = bundled()
    order = np.argsort(rp.random.bits(len(bunch.data), key=1797), kind="stable")
    held_out, kept = order[:HELD_OUT], order[HELD_OUT:]
    counts = bunch.data.astype(np.float32)
    return Digits(counts[kept], bunch.target[kept], counts[held_out], bunch.target[held_out])


def require_extras() -> None:
    """Raise a UsageError that names what to install."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UsageError(f"the demo needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def prepare_folder(out: Path) -> None:
    """Make `out` and see that a file can be written there, before any work is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(b"x")
    except OSError as error:
        raise UsageError(f"--out: cannot write into {str(out)!r}: {error.strerror or error}") from error


def lower_half_hidden() -> Array:
    """Mask of one image: 1 where a pixel is observed, 0 in the lower half."""
    mask = np.ones((SIDE, SIDE), dtype=np.float32)
    mask[SIDE // 2 :] = 0
    return mask.ravel()


def mean_and_error(x: Array) -> dict[str, float]:
    """Mean over images, and its standard error."""
    x = np.asarray(x, dtype=np.float64)
    return {"mean": float(x.mean()), "standard_error": float(x.std(ddof=1) / np.sqrt(x.size))}


def train(digits: Digits, settings: Settings) -> Any:
    """The VAE, fitted; its checkpoint of every epoch is ``training.npz``."""
    model = rp.VAE(
        LATENT_DIM,
        hidden=(HIDDEN,),
        covariance_type="full",
        likelihood="binomial",
        total_count=COUNT,
        batch_size=BATCH_SIZE,
        epochs=settings.epochs,
        key=settings.key,
    )
    return model.fit(
        digits.train,
        validation=digits.test,
        checkpoint=settings.out / "training.npz",
        progress="auto" if settings.progress else False,
    )


def infer_half_hidden(model: Any, images: Array, settings: Settings, covariance_type: str, key: int) -> tuple[Any, Array]:
    """q(z | upper half) of every image, the decoder fixed, and the ELBO of every image."""
    mask = lower_half_hidden()
    q = model.posterior(images, observed=mask, refine=settings.refine, covariance_type=covariance_type)
    estimate = rp.elbo(q, model.log_joint(images, observed=mask), key=key, num_samples=ELBO_SAMPLES, grad=False)
    return q, np.asarray(estimate.value)
