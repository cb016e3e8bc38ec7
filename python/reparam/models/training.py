# SPDX-License-Identifier: MIT
"""Training of a VAE: epochs, callbacks, progress, checkpoints, resume."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import device_of, move
from .._check import as_bool
from ..inference import checkpoint as files
from ..inference.data import as_real
from ..inference.maximize_elbo import EVALUATION, Step, maximize_elbo, purpose_key
from .likelihoods import Likelihood
from .saved import Saved

__all__ = ["Training"]

Array = NDArray[Any]


def _as_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """A sequence of callables, checked before the model is touched."""
    if not np.iterable(callbacks):
        raise TypeError(f"VAE: callbacks must be a sequence of callables, got {callbacks!r}")
    result = tuple(callbacks)
    for callback in result:
        if not callable(callback):
            raise TypeError(f"VAE: callbacks must be callables, got {callback!r}")
    return result


class _Progress:
    """A bar by tqdm: shown when asked for, or by "auto" on a terminal where tqdm is installed."""

    def __init__(self, progress: Any, first: int, total: int) -> None:
        if not isinstance(progress, bool) and progress != "auto":
            raise ValueError(f"VAE: progress must be True, False or 'auto', got {progress!r}")
        self.bar: Any = None
        if progress is False or (progress == "auto" and not (sys.stderr and sys.stderr.isatty())):
            return
        try:
            from tqdm import tqdm  # noqa: PLC0415
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


class Training(Saved):
    """The training half of :class:`reparam.VAE`."""

    # What the model half provides.
    _data: Any
    _likelihood: Likelihood
    _encode: Any
    _follow: Any
    _joint: Any
    elbo: Any
    _grads: Array
    _encoder_grads: Array
    key: int
    dtype: str
    batch_size: int
    epochs: int
    num_samples: int
    estimator: str
    kl_weight: float

    @property
    def history_(self) -> dict[str, Array]:
        """What :meth:`fit` saw, epoch by epoch; a copy.

        Returns
        -------
        dict of ndarray, shape (epochs done,), float64
            ``step``: steps done at its end; ``epoch``: its number from 0; ``elbo``: mean per row over its minibatches
            of what was maximized (the KL term times ``kl_weight``; of "iwae" and "dreg" the importance-weighted bound);
            ``validation_elbo``: mean ELBO of the validation rows, NaN without any.
            Empty arrays after :meth:`partial_fit` alone.

        Raises
        ------
        ValueError
            If the model is not fitted; it is an AttributeError too, so that ``hasattr`` says False.
        """
        self._check_fitted()
        return {name: np.array(self._history[name], np.float64) for name in files.HISTORY}

    def _start(self, x: Array) -> None:
        """Parameters and history as before the first step."""
        self._optimizer = None
        self._build(x.shape[1], like=x)
        self._mean[...] = x.mean(0, dtype=np.float64)
        self._history = {name: [] for name in files.HISTORY}

    def _maximize(self, x: Array, callbacks: tuple[Any, ...] = (), **settings: Any) -> None:
        data = self._likelihood.prepare(x, None)
        part: list[Any] = [None]

        def encode(rows: Array) -> Any:
            part[0] = data.rows(rows)
            return self._encode(part[0], self._encoder_grads)

        def on_step(step: int, epoch: int, value: float) -> bool:
            self._step = step  # an exception leaves the number of steps that were done
            told = Step(step, epoch, value, self)
            with np.errstate(**callers):
                stops = [callback(told) for callback in callbacks]
            return any(isinstance(stop, (bool, np.bool_)) and bool(stop) for stop in stops)

        # An overflow within a step is told by the error of a value that is not finite, not by warnings before it.
        callers = np.geterr()
        with np.errstate(over="ignore", invalid="ignore"), self._training():
            maximize_elbo(
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
                on_step=on_step,
                **settings,
            )
        self._require_finite()

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        self._trains = True
        try:
            yield
        finally:
            self._trains = False

    def _require_finite(self) -> None:
        """A step may be finite and yet too large for the parameters, or its square for Adam's second moment."""
        adam = self._optimizer
        arrays = {"parameters": self._params, "first moments": adam.m[0], "second moments": adam.v[0]}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(
                    f"VAE: training diverged, the {name} are not finite after step {self._step}; lower lr, or scale "
                    "the data"
                )

    def partial_fit(self, x: Any) -> Any:
        """One pass over ``x`` in its order, from where the model stands; no history, no checkpoint.

        Parameters
        ----------
        x : array, shape (n, data_dim)
            Real numbers; converted to the model's dtype. The first call sets ``data_dim`` and the mean that stands for
            unobserved entries. Minibatches have ``batch_size`` rows, or n if that is less.

        Returns
        -------
        VAE
            The model itself.

        Raises
        ------
        TypeError, ValueError
            For bad data; ValueError also if training diverges, naming the rows that did.
        """
        fresh = self._optimizer is None
        array = self._data(x, data_dim=None if fresh else len(self._mean))
        with device_of(array):
            if fresh:
                self._start(array)
            self._follow(array)
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
            Real numbers; converted to the model's dtype. Of CuPy, the model lives and trains on their GPU; each step
            waits for it once, to know whether it was finite.
        validation : array, shape (m, data_dim), optional
            Rows whose mean ELBO enters the history after each epoch.
        callbacks : sequence of callables
            Each is called after every step with ``step``, ``epoch``, ``elbo`` (that minibatch's mean per row) and
            ``model``, and stops the fit by returning True. An exception passes through; the last checkpoint stays.
        checkpoint : path, optional
            Written after every epoch and at the end.
        resume : bool
            Go on from ``checkpoint`` if it is there; the result equals an uninterrupted run to the bit. A fit that a
            callback stopped goes on with a new pass of the epoch it was stopped in. Of an ``lr`` that is a function the
            checkpoint knows only that it was one: pass the same.
        progress : bool or "auto"
            Progress bar by tqdm.

        Returns
        -------
        VAE
            The model itself.

        Raises
        ------
        TypeError, ValueError
            For bad data, ``batch_size`` > n, or a ``checkpoint`` that is no path of a regular file. ValueError also if
            training diverges, naming the step and the rows: the last checkpoint stays, and a model with a lower ``lr``
            function can resume from it.
        CheckpointError
            If the checkpoint does not fit the model or the data.
        OSError
            If the checkpoint cannot be read or written; the last one stays.
        """
        array = self._data(x)
        if self.batch_size > len(array):
            raise ValueError(f"VAE: batch_size must be <= n = {len(array)}, got {self.batch_size}")
        held_out = None
        if validation is not None:
            held_out = move(self._data(validation, "validation", array.shape[1]), array)
        calls = _as_callbacks(callbacks)
        path = None if checkpoint is None else files.as_path("VAE: checkpoint", checkpoint)
        if as_bool("VAE: resume", resume) and path is None:
            raise ValueError("VAE: resume=True needs the checkpoint to resume from")
        data: Any = None if path is None else files.fingerprint(as_real("VAE: x", x))
        stored = self._stored(path, data) if resume and path is not None and path.exists() else None
        first = 0 if stored is None else len(stored._history["epoch"])
        bar = _Progress(progress, first, self.epochs)
        with device_of(array):
            self._start(array)  # from here on the model is no longer what it was
        if stored is not None:
            self._restore(**stored._state())

        def on_epoch(step: int, epoch: int, value: float) -> None:
            self._require_finite()
            score = np.nan
            if held_out is not None:
                scores = self.elbo(held_out, key=purpose_key(self.key, EVALUATION, epoch))
                score = float(np.mean(scores, dtype=np.float64))
            for name, entry in zip(files.HISTORY, (step, epoch, value, score), strict=True):
                self._history[name].append(entry)
            if path is not None:
                self._write(path, data)
            bar.update(value)

        with contextlib.closing(bar), device_of(array):
            self._maximize(array, calls, epochs=range(first, self.epochs), on_epoch=on_epoch)
        if path is not None:
            self._write(path, data)
        return self
