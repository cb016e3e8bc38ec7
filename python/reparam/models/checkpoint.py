# SPDX-License-Identifier: MIT
"""Checkpoints: arrays and a JSON header in one npz file, without pickle, replaced atomically."""

from __future__ import annotations

import inspect
import io
import json
import os
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._check import CheckpointError, as_int

__all__ = ["HISTORY", "Saved", "as_path", "fingerprint", "read", "require_same", "take", "write"]

Array = NDArray[Any]
FORMAT, VERSION = "reparam-checkpoint", 1
HISTORY = ("step", "epoch", "elbo", "validation_elbo")


def as_path(name: str, path: Any) -> Path:
    """Where a checkpoint can be written: a path in a folder that exists.

    Raises
    ------
    TypeError, ValueError
        Naming the argument and what came.
    """
    try:
        target = Path(path)
    except TypeError:
        raise TypeError(f"{name} must be a path, got {path!r}") from None
    if not target.parent.is_dir():
        raise ValueError(f"the folder of {name} {str(target)!r} does not exist")
    if target.is_dir():
        raise ValueError(f"{name} must be a file, got the folder {str(target)!r}")
    return target


def fingerprint(x: Any) -> dict[str, Any]:
    """Shape, dtype and CRC of the data as it was given, by which a resumed fit knows it again."""
    array = np.ascontiguousarray(x)
    return {"shape": list(np.shape(x)), "dtype": str(array.dtype), "crc32": zlib.crc32(array.view(np.uint8).data)}


def require_same(path: Path, header: dict[str, Any], config: dict[str, Any], data: dict[str, Any]) -> None:
    """Refuse a checkpoint of another model or of other data; only ``epochs`` may differ.

    Raises
    ------
    CheckpointError
        Naming the first difference.
    """
    for name, here in config.items():
        stored = header["config"].get(name)
        if name != "epochs" and stored != here:
            raise CheckpointError(f"{path}: {name} is {stored!r} in the checkpoint and {here!r} here")
    if header["data"] is None:
        raise CheckpointError(f"{path} was written by save, not by fit: it has no optimizer state to resume from")
    for name, here in data.items():
        stored = header["data"].get(name)
        if stored != here:
            what = "values (their CRC-32)" if name == "crc32" else name
            raise CheckpointError(f"{path}: other data: {what} {stored} in the checkpoint and {here} here")


def write(path: Any, header: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a checkpoint: a temporary file in the same folder, fsync, rename; the previous one stays until then.

    Raises
    ------
    OSError
        If the folder cannot be written; the previous file is still there.
    """
    target = Path(path)
    text = json.dumps({"format": FORMAT, "version": VERSION, **header})
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, header=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Any, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a checkpoint of one kind of model: its header and its arrays.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    CheckpointError
        If the file is corrupt, truncated, or of something else.
    """
    name = Path(path)
    with open(name, "rb") as file:
        try:
            arrays = _entries(file)
            header = json.loads(arrays.pop("header").tobytes())
        except MemoryError:
            raise
        except Exception as error:  # a damaged zip or array can raise nearly anything
            raise CheckpointError(
                f"{name} is no readable checkpoint of reparam, it is corrupt, truncated or foreign: {error}"
            ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{name} is not a checkpoint of reparam")
    if header.get("version") != VERSION:
        raise CheckpointError(f"{name} has format version {header.get('version')}, this reparam reads {VERSION}")
    if header.get("kind") != kind:
        raise CheckpointError(f"{name} holds a {header.get('kind')}, not a {kind}")
    return header, arrays


def _entries(file: BinaryIO) -> dict[str, Array]:
    """The arrays of an uncompressed npz; nothing is allocated beyond the bytes that the file has."""
    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise ValueError("its entries are compressed")
        if sum(max(e.file_size, e.compress_size) for e in entries) > os.fstat(file.fileno()).st_size:
            raise ValueError("its entries claim more bytes than it has")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"the entry {name} stands twice")
            arrays[name] = _array(archive.read(entry))  # all of it, so that zipfile compares the CRC
    return arrays


def _array(content: bytes) -> Array:
    """A view of an npy file's bytes; objects are refused."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of npy version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    result: Array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
    return result


def take(path: Any, arrays: dict[str, Array], name: str, like: Array) -> Array:
    """One array of a checkpoint, of the shape and dtype that the model needs."""
    array = arrays.get(name)
    if array is None or array.shape != like.shape or array.dtype != like.dtype:
        came = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise CheckpointError(f"{path}: {name} must be {like.dtype} of shape {like.shape}, got {came}")
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
    return array


class Saved:
    """The half of a model that goes into files, pickles and copies: arguments, parameters, optimizer, history."""

    _build: Any  # what the model half provides
    _optimizer: Any
    _params: Array
    _mean: Array
    _step: int
    _history: dict[str, list[float]]

    @classmethod
    def argument_names(cls) -> tuple[str, ...]:
        """Names of the constructor's arguments."""
        return tuple(n for n in inspect.signature(cls.__init__).parameters if n != "self")

    def _check_fitted(self) -> None:
        if self._optimizer is None:
            raise ValueError(f"this {type(self).__name__} is not fitted yet; call fit or load first")

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
        """Of a model that :meth:`_build` has made."""
        self._params[...], self._mean[...] = params, mean
        if adam is not None:
            self._optimizer.load_state_dict(adam)
        self._step, self._history = step, history

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies hold. The nets are views of one buffer, which they would take apart."""
        arguments = {name: getattr(self, name) for name in self.argument_names()}
        return {"arguments": arguments, "state": None if self._optimizer is None else self._state()}

    def __setstate__(self, stored: dict[str, Any]) -> None:
        """Build the model anew."""
        type(self).__init__(self, **stored["arguments"])
        if stored["state"] is not None:
            self._build(len(stored["state"]["mean"]))
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
        """Write the fitted model to one file, without pickle; :meth:`load` reads it."""
        self._check_fitted()
        self._write(path, None)

    @classmethod
    def load(cls, path: Any) -> Any:
        """Read a model that :meth:`save` or a checkpoint wrote.

        Raises
        ------
        FileNotFoundError
        CheckpointError
            If the file is corrupt, truncated or of something else.
        """
        return cls._read(path)[0]

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
