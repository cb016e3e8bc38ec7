# SPDX-License-Identifier: MIT
"""Checkpoints: arrays and a JSON header in one npz file, without pickle, replaced atomically."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import CheckpointError

__all__ = ["fingerprint", "read", "write"]

Array = NDArray[Any]
FORMAT, VERSION = "reparam-checkpoint", 1


def fingerprint(x: Array) -> dict[str, Any]:
    """Shape, dtype and CRC of the data, by which a resumed fit knows it again."""
    return {"shape": list(x.shape), "dtype": str(x.dtype), "crc32": zlib.crc32(np.ascontiguousarray(x))}


def write(path: Any, header: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a checkpoint: a temporary file in the same folder, fsync, rename; the previous one stays until then.

    Raises
    ------
    OSError
        If the folder cannot be written; the previous file is still there.
    """
    target = Path(path)
    text = json.dumps({"format": FORMAT, "version": VERSION, **header})
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, header=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Any, kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read a checkpoint of one kind of model.

    Raises
    ------
    FileNotFoundError
    CheckpointError
        If the file is corrupt, truncated, or of something else.
    """
    name = Path(path)
    try:
        with zipfile.ZipFile(name) as archive:
            entries = archive.infolist()
            if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
                raise CheckpointError(f"{name} is not a checkpoint of reparam: its entries are compressed")
            if len({e.filename for e in entries}) != len(entries):
                raise CheckpointError(f"{name} is not a checkpoint of reparam: an entry stands twice")
        with np.load(name, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        header = json.loads(bytes(arrays.pop("header")).decode())
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except CheckpointError:
        raise
    except Exception as error:  # a damaged zip or array can raise nearly anything
        raise CheckpointError(f"{name} is no readable checkpoint of reparam: it is corrupt, truncated or foreign") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{name} is not a checkpoint of reparam")
    if header.get("version") != VERSION:
        raise CheckpointError(f"{name} has format version {header.get('version')}, this reparam reads {VERSION}")
    if header.get("kind") != kind:
        raise CheckpointError(f"{name} holds a {header.get('kind')}, not a {kind}")
    return header, arrays


def take(path: Any, arrays: dict[str, Array], name: str, like: Array) -> Array:
    """One array of a checkpoint, of the shape and dtype that the model needs."""
    array = arrays.get(name)
    if array is None or array.shape != like.shape or array.dtype != like.dtype:
        came = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise CheckpointError(f"{path}: {name} must be {like.dtype} of shape {like.shape}, got {came}")
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: {name} holds numbers that are not finite")
    return array
