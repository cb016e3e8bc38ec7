# SPDX-License-Identifier: MIT
"""The main job on real data: a VAE on handwritten digits, then the hidden halves of held-out digits inferred.

A VAE with eight latents and a full-covariance encoder is trained on scikit-learn's digits, as what they are:
counts of 16, with a binomial likelihood. Then the lower half of 200 held-out images is hidden and z is inferred
for each of them with the decoder fixed, once with a diagonal and once with a full covariance.
"""

import json
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

from .digits import COUNT, SIDE, Digits, load_digits, lower_half_hidden

__all__ = ["Settings", "UsageError", "load_digits", "lower_half_hidden", "run"]

Array = NDArray[Any]
LATENT_DIM, HIDDEN, BATCH_SIZE = 8, 128, 128
IMPORTANCE_SAMPLES, ELBO_SAMPLES = 1000, 200
COVARIANCE_TYPES = {"diag": "diagonal", "full": "full"}
NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "tqdm": "tqdm"}


class UsageError(Exception):
    """Something that the user can put right; the message says what."""


@dataclass(frozen=True)
class Settings:
    """What ``reparam demo`` was asked for."""

    out: Path
    key: int = 0
    epochs: int = 400
    refine: int = 100
    progress: bool = True


@dataclass
class Clock:
    """Seconds of each part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - begin


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
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"--out: cannot write into {str(out)!r}: {reason}") from error


def train(digits: Digits, settings: Settings) -> Any:
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
        checkpoint=settings.out / "training.npz",
        progress="auto" if settings.progress else False,
    )


def mean_and_error(x: Array) -> dict[str, float]:
    """Mean over images, and its standard error."""
    x = np.asarray(x, dtype=np.float64)
    return {"mean": float(x.mean()), "standard_error": float(x.std(ddof=1) / np.sqrt(x.size))}


def evaluate(model: Any, digits: Digits, key: int) -> dict[str, Any]:
    """ELBO of both parts of the data; held-out log-likelihood by the importance-weighted bound.

    The bound is computed twice, from draws of two keys: their differences give its Monte Carlo error.
    """
    bounds = [
        np.asarray(
            model.log_likelihood(digits.test, num_samples=IMPORTANCE_SAMPLES, key=rp.random.fold_in(key, k))
        )
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
    return model.posterior(
        digits.half_hidden, observed=mask, refine=settings.refine, covariance_type=covariance_type
    )


def half_hidden_elbo(model: Any, digits: Digits, q: Any, key: int) -> Array:
    """ELBO of every half-hidden image; the same noise for every q."""
    mask = np.broadcast_to(lower_half_hidden(), digits.half_hidden.shape)
    log_joint = model.log_joint(digits.half_hidden, observed=mask)
    return np.asarray(
        rp.elbo(q, log_joint, key=key, num_samples=ELBO_SAMPLES, grad=False).value, dtype=np.float64
    )


def timings(clock: Clock, steps: int, settings: Settings, digits: Digits) -> dict[str, Any]:
    """Seconds by part; microseconds by step, and by image that is stepped over or inferred."""
    microseconds = {}
    training = clock.seconds["training"]
    microseconds["training"] = (training / steps, training / (settings.epochs * len(digits.train)))
    for name in COVARIANCE_TYPES.values():
        seconds = clock.seconds[f"inference, {name}"]
        microseconds[f"inference, {name}"] = (seconds / settings.refine, seconds / len(digits.half_hidden))
    return {
        "seconds": dict(clock.seconds),
        "steps": {
            "training": steps,
            **{f"inference, {n}": settings.refine for n in COVARIANCE_TYPES.values()},
        },
        "microseconds_per_step": {part: 1e6 * pair[0] for part, pair in microseconds.items()},
        "microseconds_per_image": {part: 1e6 * pair[1] for part, pair in microseconds.items()},
    }


def table(summary: dict[str, Any]) -> str:
    """The summary for people."""
    bound, half = summary["held_out_log_likelihood"], summary["half_hidden_elbo"]
    rows = [
        ("training ELBO", summary["train_elbo"], ""),
        ("held-out ELBO", summary["held_out_elbo"], ""),
        (
            "held-out log-likelihood",
            bound,
            f"bound from {bound['num_samples']} draws, Monte Carlo error {bound['monte_carlo_error']:.3f}",
        ),
        ("half-hidden ELBO, diagonal", half["diag"], ""),
        ("half-hidden ELBO, full", half["full"], ""),
        ("full minus diagonal", half["full_minus_diag"], "image by image"),
    ]
    lines = [f"{'nats per image':28}{'mean':>9}{'s.e.':>8}"]
    for name, value, remark in rows:
        lines.append(f"{name:28}{value['mean']:9.2f}{value['standard_error']:8.2f}  {remark}".rstrip())
    times = summary["timings"]
    lines += ["", f"{'time':28}{'seconds':>9}{'steps':>8}{'us/step':>10}{'us/image':>10}"]
    for part, seconds in times["seconds"].items():
        line = f"{part:28}{seconds:9.2f}"
        if part in times["steps"]:
            line += f"{times['steps'][part]:8d}{times['microseconds_per_step'][part]:10.0f}"
            line += f"{times['microseconds_per_image'][part]:10.1f}"
        lines.append(line)
    return "\n".join(lines)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write by way of a temporary file, so that a broken run leaves the previous one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def run(settings: Settings) -> int:
    """Do the whole job and print what came of it.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    int
        0, or 1 if the reloaded checkpoint does not give the same score.
    """
    require_extras()
    prepare_folder(settings.out)
    from .figure import figure  # noqa: PLC0415  (needs the extras)

    clock = Clock()
    with clock("digits"):
        digits = load_digits()
    print(
        f"{len(digits.train)} digits to train on, {len(digits.test)} held out: {SIDE} x {SIDE} counts of 0..{COUNT}\n"
        f"VAE {SIDE * SIDE}-{HIDDEN}-{LATENT_DIM}, full covariance, binomial likelihood, {settings.epochs} epochs, "
        f"key {settings.key}",
        flush=True,
    )
    with clock("training"):
        model = train(digits, settings)
    key = rp.random.fold_in(settings.key, 2**63 + 16)  # apart from every key of the training
    with clock("evaluation"):
        scores = evaluate(model, digits, key)
    posteriors, half = {}, {}
    for covariance_type, name in COVARIANCE_TYPES.items():
        with clock(f"inference, {name}"):
            posteriors[covariance_type] = infer(model, digits, settings, covariance_type)
        half[covariance_type] = half_hidden_elbo(model, digits, posteriors[covariance_type], key)

    with clock("figure"):
        figure(
            settings.out / "demo.png",
            model,
            digits,
            posteriors,
            scores["held_out_log_likelihood"]["mean"],
            key,
        )
    with clock("checkpoint"):
        model.save(settings.out / "vae.npz")
        score = model.elbo(digits.test, key=key)
        same = np.array_equal(score, rp.VAE.load(settings.out / "vae.npz").elbo(digits.test, key=key))

    summary = {
        "version": rp.__version__,
        "key": settings.key,
        "epochs": settings.epochs,
        **scores,
        "half_hidden_elbo": {
            **{name: mean_and_error(value) for name, value in half.items()},
            "full_minus_diag": mean_and_error(half["full"] - half["diag"]),
        },
        "reloaded_checkpoint_gives_the_same_score": bool(same),
        "timings": timings(clock, int(model.history_["step"][-1]), settings, digits),
    }
    write_json(settings.out / "summary.json", summary)
    print(f"\n{table(summary)}\n")
    print(f"the reloaded checkpoint gives {'the same score, bit for bit' if same else 'ANOTHER SCORE'}")
    print(f"written to {settings.out}: demo.png, summary.json, vae.npz, training.npz")
    return 0 if same else 1
