# SPDX-License-Identifier: MIT
"""Models as files, pickles, copies and text."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .._arrays import device_of, in_one_place, move
from .._check import CheckpointError, as_int
from ..inference.checkpoint import HISTORY, as_path, read, require_same, take, write

__all__ = ["NotFittedError", "Saved"]

Array = NDArray[Any]


class NotFittedError(ValueError, AttributeError):
    """A model was asked for what only a fitted one has; an AttributeError, so that ``hasattr`` says False."""


class Saved:
    """The half of a model that goes into files, pickles and copies: arguments, parameters, optimizer, history."""

    _build: Any  # what the model half provides
    _optimizer: Any
    _params: Array
    _mean: Array
    _step: int
    _history: dict[str, list[float]]
    _trains = False

    @classmethod
    def argument_names(cls) -> tuple[str, ...]:
        """Names of the constructor's arguments."""
        return tuple(n for n in inspect.signature(cls.__init__).parameters if n != "self")

    def _check_fitted(self) -> None:
        if self._optimizer is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit or load first")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what training changes. The arguments stay: nets, optimizer and files are made after them."""
        self._refuse_if_argument(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_if_argument(name)
        super().__delattr__(name)

    def _refuse_if_argument(self, name: str) -> None:
        made = vars(self)
        if name[0] != "_" and name in made and "_optimizer" in made and name in self.argument_names():
            kind = type(self).__name__
            raise AttributeError(f"{kind}: {name} is fixed when the model is made; make a new one, {kind}({name}=...)")

    def __repr__(self) -> str:
        """The size, the kind, whatever else is not the default, and whether it is fitted."""
        if "_optimizer" not in vars(self):
            return f"<{type(self).__name__} without its arguments>"
        (first, _), *others = inspect.signature(type(self)).parameters.items()
        given = {name: getattr(self, name) for name in self.argument_names() if name in vars(self)}
        shown = [repr(given.get(first))]
        for name, parameter in others:
            value = given.get(name, parameter.default)
            if name in {"hidden", "covariance_type", "likelihood"} or value != parameter.default:
                shown.append(f"{name}={getattr(value, '__name__', 'a function') if callable(value) else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)}, {'not fitted' if self._optimizer is None else 'fitted'})"

    def _config(self) -> dict[str, Any]:
        config = {name: getattr(self, name) for name in self.argument_names()}
        config["hidden"] = list(config["hidden"])
        if callable(config["lr"]):
            config["lr"] = "callable"
        return config

    def _state(self) -> dict[str, Any]:
        return {
            "params": self._params, "mean": self._mean, "adam": self._optimizer.state_dict(),
            "step": self._step, "history": self._history,
        }  # fmt: skip

    def _restore(self, params: Array, mean: Array, adam: Any, step: int, history: dict[str, list[float]]) -> None:
        """Of a model that :meth:`_build` has made; the arrays may come from another memory."""
        with device_of(self._params):
            self._params[...], self._mean[...] = move(params, self._params), move(mean, self._mean)
        if adam is not None:
            self._optimizer.load_state_dict(adam)
        self._step, self._history = step, history

    def _follow(self, x: Array) -> None:
        """A model lives where its rows are: they take it to another memory for good, but not out of its training."""
        if in_one_place(self._params, x):
            return
        if self._trains:
            raise TypeError(f"{type(self).__name__}: x must lie where the model is while it trains; move it there")
        state = self._state()
        self._build(len(self._mean), like=x)
        self._restore(**state)

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies hold. The nets are views of one buffer, which they would take apart."""
        arguments = {name: getattr(self, name) for name in self.argument_names()}
        return {"arguments": arguments, "state": None if self._optimizer is None else self._state()}

    def __setstate__(self, stored: dict[str, Any]) -> None:
        """Build the model anew."""
        type(self).__init__(self, **stored["arguments"])
        if stored["state"] is not None:
            self._build(len(stored["state"]["mean"]), like=stored["state"]["params"])
            self._restore(**stored["state"])

    def _write(self, path: Any, data: dict[str, Any] | None) -> None:
        state = self._state()
        header = {
            "kind": type(self).__name__, "config": self._config(), "data_dim": len(self._mean), "step": self._step,
            "data": data, "history": self._history, "adam_step": state["adam"]["t"],
        }  # fmt: skip
        arrays = {"params": self._params, "mean": self._mean}
        if data is not None:
            arrays |= {f"adam_{name}": state["adam"][name][0] for name in ("m", "v")}
        write(path, header, arrays)

    def save(self, path: Any) -> None:
        """Write the fitted model to one file, without pickle; :meth:`load` reads it.

        The file holds the arguments, the parameters and the history, and is replaced at once when the new one is
        complete; it has no optimizer state, so that a fit does not resume from it.

        Parameters
        ----------
        path : path
            Of a regular file or none yet, in a folder that exists; of a symbolic link the target is written.

        Raises
        ------
        TypeError, ValueError
            If ``path`` is none, is a folder or no regular file, or the model is not fitted.
        CheckpointError
            If the parameters are not finite; nothing is written.
        OSError
            If the file cannot be written, naming ``path``; a previous file stays as it was.
        """
        self._check_fitted()
        self._write(as_path(f"{type(self).__name__}: path", path), None)

    @classmethod
    def load(cls, path: Any) -> Any:
        """Read a model that :meth:`save` or a checkpoint wrote.

        Parameters
        ----------
        path : path
            Of the file.

        Returns
        -------
        VAE
            The fitted model. An ``lr`` that was a function is not in the file; 1e-3 stands in its place.

        Raises
        ------
        TypeError, ValueError
            If ``path`` is none, or no regular file.
        OSError
            If there is no such file (FileNotFoundError), or it cannot be read.
        CheckpointError
            If the file is corrupt, truncated or of something else.
        """
        return cls._read(as_path(f"{cls.__name__}: path", path, new=False))[0]

    @classmethod
    def _read(cls, path: Any) -> tuple[Any, dict[str, Any]]:
        """The model of a file, and the file's header."""
        header, arrays = read(path, cls.__name__)
        try:
            config, data = dict(header["config"]), header["data"]
            if set(config) != set(cls.argument_names()):
                raise ValueError(f"its config has the entries {sorted(config)}")
            if data is not None and not isinstance(data, dict):
                raise TypeError(f"its data is {data!r}")
            if config["lr"] == "callable":
                config["lr"] = 1e-3  # a function is not stored; it matters only to further training
            model: Any = cls(**config)
            model._build(as_int("data_dim", header["data_dim"], 1), count=arrays["params"].size)
            history = {name: [float(entry) for entry in header["history"][name]] for name in HISTORY}
            if len({len(entries) for entries in history.values()}) != 1:
                raise ValueError("its history has not one entry an epoch")
            step, adam_step = as_int("step", header["step"]), as_int("adam_step", header["adam_step"], 0, 2**63)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: the file does not describe a {cls.__name__}: {error!r}") from error
        adam = None
        if data is not None:
            adam = {"t": adam_step, **{k: [take(path, arrays, f"adam_{k}", model._params)] for k in ("m", "v")}}
        params, mean = (take(path, arrays, name, getattr(model, f"_{name}")) for name in ("params", "mean"))
        model._restore(params, mean, adam, step, history)
        return model, header

    def _stored(self, path: Path, data: dict[str, Any]) -> Any:
        """The model of a checkpoint that fits this one and the data."""
        stored, header = self._read(path)
        require_same(path, header, self._config(), data)
        return stored
