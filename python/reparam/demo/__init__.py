# SPDX-License-Identifier: MIT
"""The main job on real data: a VAE on handwritten digits, then the hidden halves of held-out digits inferred.

A VAE with eight latents and a full-covariance encoder is trained on scikit-learn's digits, as what they are:
counts of 16, with a binomial likelihood. Then the lower half of 200 held-out images is hidden and z is inferred
for each of them with the decoder fixed, once with a diagonal and once with a full covariance.
"""

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reparam as rp

from .digits import COUNT, SIDE, Digits, load_digits, lower_half_hidden
from .report import Clock, StepTimer, mean_and_error, table, timings, write_json

__all__ = ["Settings", "UsageError", "load_digits", "lower_half_hidden", "run"]

Array = NDArray[Any]
LATENT_DIM, HIDDEN, BATCH_SIZE = 8, 128, 128
IMPORTANCE_SAMPLES, ELBO_SAMPLES, BLAS_THREADS = 1000, 200, 1
COVARIANCE_TYPES = {"diag": "diagonal", "full": "full"}
NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}
FILES = ("demo.png", "summary.json", "vae.npz", "training.npz")


class UsageError(Exception):
    """Something that the user can put right; the message says what."""


@dataclass(frozen=True)
class Settings:
    """What ``reparam demo`` was asked for; the defaults are those of the command line."""

    out: Path
    key: int = 0
    epochs: int = 400
    # The gap between full and diagonal is 2.20 nats after 100 steps, 1.95 after 400 and 1.90 after 1500 (key 0): the
    # diagonal q converges more slowly, so that few steps flatter the full one.
    refine: int = 400
    progress: bool = True


def require_extras() -> None:
    """Raise a UsageError that names what to install."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UsageError(f"the demo needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def prepare_folder(out: Path) -> None:
    """Make `out` and see that the files can be written there, before any work is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(b"x")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"--out: cannot write into {str(out)!r}: {reason}") from error
    for name in FILES:
        if (out / name).is_dir():
            raise UsageError(f"--out: cannot write {str(out / name)!r}: a folder has that name")


def train(digits: Digits, settings: Settings, timer: StepTimer) -> Any:
    """The VAE, fitted; ``training.npz`` is its checkpoint of every epoch."""
    model = rp.VAE(
        LATENT_DIM,
        hidden=(HIDDEN,),
        covariance_type="full",
        likelihood="binomial",
        total_count=COUNT,
        activation="silu",
        lr=2e-3,
        batch_size=BATCH_SIZE,
        epochs=settings.epochs,
        key=settings.key,
    )
    return model.fit(
        digits.train,
        validation=digits.test,
        callbacks=[timer],
        checkpoint=settings.out / "training.npz",
        progress="auto" if settings.progress else False,
    )


def evaluate(model: Any, digits: Digits, key: int) -> dict[str, Any]:
    """ELBO of both parts of the data; held-out log-likelihood by the importance-weighted bound.

    The bound is computed twice, from draws of two keys: their differences give its Monte Carlo error.
    """
    bounds = [
        np.asarray(model.log_likelihood(digits.test, num_samples=IMPORTANCE_SAMPLES, key=rp.random.fold_in(key, k)))
        for k in (1, 2)
    ]
    error = float(np.sqrt(np.sum((bounds[0] - bounds[1]) ** 2)) / (2 * len(digits.test)))
    return {
        "train_elbo": mean_and_error(model.elbo(digits.train, key=key)),
        "held_out_elbo": mean_and_error(model.elbo(digits.test, key=key)),
        "held_out_log_likelihood": {
            **mean_and_error((bounds[0] + bounds[1]) / 2),
            "monte_carlo_error": error,
            "num_samples": IMPORTANCE_SAMPLES,
        },
    }


def infer(model: Any, digits: Digits, settings: Settings, covariance_type: str) -> Any:
    """q(z | upper half) of every half-hidden image, with the decoder fixed."""
    mask = np.broadcast_to(lower_half_hidden(), digits.half_hidden.shape)
    return model.posterior(digits.half_hidden, observed=mask, refine=settings.refine, covariance_type=covariance_type)


def half_hidden_elbo(model: Any, digits: Digits, q: Any, key: int) -> Array:
    """ELBO of every half-hidden image; the same noise for every q."""
    mask = np.broadcast_to(lower_half_hidden(), digits.half_hidden.shape)
    log_joint = model.log_joint(digits.half_hidden, observed=mask)
    return np.asarray(rp.elbo(q, log_joint, key=key, num_samples=ELBO_SAMPLES, grad=False).value, dtype=np.float64)


def run(settings: Settings, about: Mapping[str, Any]) -> int:
    """See that the job can be done, do it, and print what came of it.

    Parameters
    ----------
    settings : Settings
    about : mapping
        Versions, backend and threads, for the summary.

    Returns
    -------
    int
        0, or 1 if the reloaded checkpoint does not give the same score.
    """
    require_extras()
    prepare_folder(settings.out)
    # Matrix products of this size gain nothing from a second thread of BLAS, and on a machine that has other work its
    # threads wait for each other: 4 to 5 times slower (measured). With one, the sums have one order on every machine.
    threads = importlib.import_module("threadpoolctl")  # which scikit-learn stands on
    with threads.threadpool_limits(limits=BLAS_THREADS, user_api="blas"):
        return do_the_job(settings, about)


def do_the_job(settings: Settings, about: Mapping[str, Any]) -> int:
    """Train, evaluate, infer, draw, reload, write and print; the exit code."""
    from .figure import figure  # noqa: PLC0415  (needs the extras)

    clock, timer = Clock(), StepTimer()
    with clock("loading digits"):
        digits = load_digits()
    print(
        f"{len(digits.train)} digits to train on, {len(digits.test)} held out: {SIDE} x {SIDE} counts of 0..{COUNT}\n"
        f"VAE {SIDE * SIDE}-{HIDDEN}-{LATENT_DIM}, full covariance, binomial likelihood, {settings.epochs} epochs, "
        f"key {settings.key}",
        flush=True,
    )
    with clock("training"):
        model = train(digits, settings, timer)
    key = rp.random.fold_in(settings.key, 2**63 + 16)  # apart from every key of the training
    with clock("evaluation"):
        scores = evaluate(model, digits, key)
    print(f"{len(digits.half_hidden)} lower halves hidden: {settings.refine} steps of inference for each", flush=True)
    posteriors = {}
    for covariance_type, name in COVARIANCE_TYPES.items():
        with clock(f"inference, {name}"):
            posteriors[covariance_type] = infer(model, digits, settings, covariance_type)
    with clock("half-hidden ELBOs"):
        half = {name: half_hidden_elbo(model, digits, q, key) for name, q in posteriors.items()}
        gain = half["full"] - half["diag"]
    with clock("figure"):
        bound = scores["held_out_log_likelihood"]["mean"]
        figure(settings.out / "demo.png", model, digits, posteriors, gain, bound, key)
    with clock("checkpoint"):
        model.save(settings.out / "vae.npz")
        score = model.elbo(digits.test, key=key)
        same = np.array_equal(score, rp.VAE.load(settings.out / "vae.npz").elbo(digits.test, key=key))

    summary = {
        "about": {**about, "blas_threads": BLAS_THREADS},
        "settings": {"key": settings.key, "epochs": settings.epochs, "refine": settings.refine},
        **scores,
        "half_hidden_elbo": {
            **{name: mean_and_error(value) for name, value in half.items()},
            "full_minus_diag": mean_and_error(gain),
            "num_images": len(gain),
            "num_samples": ELBO_SAMPLES,
        },
        "reloaded_checkpoint_gives_the_same_score": bool(same),
        "timings": timings(clock, steps_of(model, digits, settings, clock, timer)),
    }
    write_json(settings.out / "summary.json", summary)
    print(f"\n{table(summary)}\n")
    print(f"the reloaded checkpoint gives {'the same score, bit for bit' if same else 'ANOTHER SCORE'}")
    print(f"written to {settings.out}: {', '.join(FILES)}")
    return 0 if same else 1


def steps_of(
    model: Any, digits: Digits, settings: Settings, clock: Clock, timer: StepTimer
) -> dict[str, tuple[int, float, float]]:
    """Of each part that makes steps: their number, seconds of one, images in one."""
    steps = int(model.history_["step"][-1])
    images = settings.epochs * len(digits.train) / steps
    parts = {"training": (steps, timer.seconds_per_step, images)}
    for name in COVARIANCE_TYPES.values():
        part = f"inference, {name}"
        parts[part] = (settings.refine, clock.seconds[part] / settings.refine, float(len(digits.half_hidden)))
    return parts
