# SPDX-License-Identifier: MIT
"""Training of a VAE: epochs, callbacks, progress, checkpoints, resume."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import CheckpointError, as_int
from ..inference.maximize_elbo import EVALUATION, Step, maximize_elbo, purpose_key
from . import checkpoint as files

__all__ = ["Training"]

Array = NDArray[Any]
HISTORY = ("step", "epoch", "elbo", "validation_elbo")


class _Progress:
    """A bar by tqdm: shown when asked for, or by "auto" on a terminal where tqdm is installed."""

    def __init__(self, progress: Any, first: int, total: int) -> None:
        if not isinstance(progress, bool) and progress != "auto":
            raise ValueError(f"VAE: progress must be True, False or 'auto', got {progress!r}")
        self.bar: Any = None
        if progress is False or (progress == "auto" and not sys.stderr.isatty()):
            return
        try:
            from tqdm import tqdm
        except ImportError:
            if progress is True:
                raise ImportError("progress=True needs tqdm: pip install tqdm") from None
            return
        self.bar = tqdm(total=total, initial=first, unit="epoch", desc="VAE", leave=True)

    def update(self, value: float) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(f"ELBO {value:.2f}", refresh=False)
            self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Training:
    """The training half of :class:`reparam.VAE`."""

    # What the model half provides.
    _build: Any
    _data: Any
    _likelihood: Any
    _encode: Any
    _joint: Any
    elbo: Any
    argument_names: Any
    _optimizer: Any
    _params: Array
    _grads: Array
    _encoder_grads: Array
    _mean: Array
    _step: int
    _history: dict[str, list[float]]
    key: int
    dtype: str
    batch_size: int
    epochs: int
    num_samples: int
    estimator: str
    kl_weight: float

    def _check_fitted(self) -> None:
        if self._optimizer is None:
            raise ValueError(f"this {type(self).__name__} is not fitted yet; call fit or load first")

    @property
    def history_(self) -> dict[str, Array]:
        """Per epoch: step, epoch, elbo, validation_elbo."""
        self._check_fitted()
        return {name: np.array(self._history[name], np.float64) for name in HISTORY}

    def _start(self, x: Array) -> None:
        """Parameters and history as before the first step."""
        self._optimizer = None
        self._build(x.shape[1])
        self._mean[...] = x.mean(0, dtype=np.float64)
        self._history = {name: [] for name in HISTORY}

    def _maximize(self, x: Array, **settings: Any) -> None:
        data = self._likelihood.prepare(x, None)
        part: list[Any] = [None]

        def encode(rows: Array) -> Any:
            part[0] = data.rows(rows)
            return self._encode(part[0], self._encoder_grads)

        self._step = maximize_elbo(
            encode,
            lambda rows: self._joint(part[0], kl_weight=self.kl_weight, learn=True),
            self._optimizer,
            self._grads,
            num_rows=len(x),
            key=self.key,
            batch_size=min(self.batch_size, len(x)),
            step=self._step,
            num_samples=self.num_samples,
            estimator=self.estimator,
            kl_weight=self.kl_weight,
            **settings,
        )

    def partial_fit(self, x: Any) -> Any:
        """One pass over ``x`` in its order, from where the model stands; no history, no checkpoint."""
        fresh = self._optimizer is None
        array = self._data(x, data_dim=None if fresh else len(self._mean))
        if fresh:
            self._start(array)
        self._maximize(array, epochs=(0,), shuffle=False)
        return self

    def fit(
        self,
        x: Any,
        *,
        validation: Any = None,
        callbacks: Any = (),
        checkpoint: Any = None,
        resume: bool = False,
        progress: Any = "auto",
    ) -> Any:
        """Train from the beginning, or from a checkpoint.

        Parameters
        ----------
        x : array, shape (n, data_dim)
            Real numbers; converted to the model's dtype.
        validation : array, shape (m, data_dim), optional
            Rows whose mean ELBO enters the history after each epoch.
        callbacks : sequence of callables
            Each is called after every step with ``step``, ``epoch``, ``elbo`` (that minibatch's mean per row) and ``model``,
            and stops the fit by returning True. An exception passes through; the last checkpoint stays.
        checkpoint : path, optional
            Written after every epoch and at the end.
        resume : bool
            Go on from ``checkpoint`` if it is there; the result equals an uninterrupted run to the bit.
        progress : bool or "auto"
            Progress bar by tqdm.

        Returns
        -------
        VAE
            The model itself.

        Raises
        ------
        TypeError, ValueError
            For bad data, or ``batch_size`` > n.
        CheckpointError
            If the checkpoint does not fit the model or the data.
        """
        array = self._data(x)
        if self.batch_size > len(array):
            raise ValueError(f"VAE: batch_size must be <= n = {len(array)}, got {self.batch_size}")
        held_out = None if validation is None else self._data(validation, "validation", array.shape[1])
        if resume and checkpoint is None:
            raise ValueError("VAE: resume=True needs the checkpoint to resume from")
        if checkpoint is not None and not Path(checkpoint).parent.is_dir():
            raise ValueError(f"VAE: the folder of checkpoint {str(checkpoint)!r} does not exist")
        stored, first = self._stored(checkpoint, array) if resume and Path(checkpoint).exists() else (None, 0)
        bar = _Progress(progress, first, self.epochs)
        self._start(array)  # from here on the model is no longer what it was
        if stored is not None:
            self._take_over(stored)

        def on_step(step: int, epoch: int, value: float) -> bool:
            told = Step(step, epoch, value, self)
            stops = [callback(told) for callback in callbacks]
            return any(stop is True for stop in stops)

        def on_epoch(step: int, epoch: int, value: float) -> None:
            self._step = step
            score = np.nan
            if held_out is not None:
                score = float(np.mean(self.elbo(held_out, key=purpose_key(self.key, EVALUATION, epoch)), dtype=np.float64))
            for name, entry in zip(HISTORY, (step, epoch, value, score), strict=True):
                self._history[name].append(entry)
            if checkpoint is not None:
                self._write(checkpoint, files.fingerprint(array), epoch + 1)
            bar.update(value)

        with contextlib.closing(bar):
            self._maximize(array, epochs=range(first, self.epochs), on_step=on_step if callbacks else None, on_epoch=on_epoch)
        if checkpoint is not None:
            self._write(checkpoint, files.fingerprint(array), len(self._history["epoch"]))
        return self

    def _config(self) -> dict[str, Any]:
        config = {name: getattr(self, name) for name in self.argument_names()}
        config["hidden"] = list(config["hidden"])
        if callable(config["lr"]):
            config["lr"] = "callable"
        return config

    def _write(self, path: Any, data: dict[str, Any] | None, epoch: int) -> None:
        state = self._optimizer.state_dict()
        header = {
            "kind": type(self).__name__, "config": self._config(), "data_dim": len(self._mean), "step": self._step,
            "epoch": epoch, "data": data, "history": self._history, "adam_step": state["t"],
        }  # fmt: skip
        arrays = {"params": self._params, "mean": self._mean}
        if data is not None:
            arrays |= {"adam_m": state["m"][0], "adam_v": state["v"][0]}
        files.write(path, header, arrays)

    def save(self, path: Any) -> None:
        """Write the fitted model to one file, without pickle; :meth:`load` reads it."""
        self._check_fitted()
        self._write(path, None, len(self._history["epoch"]))

    @classmethod
    def load(cls, path: Any) -> Any:
        """Read a model that :meth:`save` or a checkpoint wrote.

        Raises
        ------
        FileNotFoundError
        CheckpointError
            If the file is corrupt, truncated or of something else.
        """
        header, arrays = files.read(path, cls.__name__)
        try:
            config = dict(header["config"])
            if config["lr"] == "callable":
                config["lr"] = 1e-3  # a function is not stored; it matters only to further training
            model: Any = cls(**config)
            model._build(as_int("data_dim", header["data_dim"], 1, 2**31))
            model._history = {name: [float(v) for v in header["history"][name]] for name in HISTORY}
            model._step = as_int("step", header["step"])
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            raise CheckpointError(f"{path}: the header does not describe a {cls.__name__}: {error}") from error
        model._params[...] = files.take(path, arrays, "params", model._params)
        model._mean[...] = files.take(path, arrays, "mean", model._mean)
        if "adam_m" in arrays:
            moments = {k: [files.take(path, arrays, f"adam_{k}", model._params)] for k in ("m", "v")}
            model._optimizer.load_state_dict({"t": as_int("adam_step", header["adam_step"]), **moments})
        return model

    def _stored(self, path: Any, x: Array) -> tuple[Any, int]:
        """The model of a checkpoint that fits this one and the data, and the epoch to go on with."""
        header, _ = files.read(path, type(self).__name__)
        own, stored = self._config(), header.get("config", {})
        for name in own:
            if name != "epochs" and own[name] != stored.get(name):
                raise CheckpointError(f"{path}: {name} is {stored.get(name)!r} in the checkpoint and {own[name]!r} here")
        data = files.fingerprint(x)
        if header.get("data") != data:
            raise CheckpointError(f"{path}: the checkpoint was made of other data: {header.get('data')}, here {data}")
        return type(self).load(path), as_int("epoch", header["epoch"])

    def _take_over(self, stored: Any) -> None:
        """Parameters, optimizer and history of another model of this kind."""
        self._params[...] = stored._params
        self._optimizer.load_state_dict(stored._optimizer.state_dict())
        self._step, self._history = stored._step, stored._history
