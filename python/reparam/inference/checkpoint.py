# SPDX-License-Identifier: MIT
"""Checkpoints: arrays and a JSON header in one npz file, without pickle, replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import stat
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._arrays import to_numpy
from .._check import CheckpointError, came

__all__ = ["HISTORY", "as_path", "fingerprint", "read", "require_same", "take", "write"]

Array = NDArray[Any]
FORMAT, VERSION = "reparam-checkpoint", 1
HISTORY = ("step", "epoch", "elbo", "validation_elbo")


def as_path(name: str, path: Any, *, new: bool = True) -> Path:
    """Where a checkpoint is, or with ``new`` can be written: a regular file, or none yet, in a folder that exists.

    Raises
    ------
    TypeError, ValueError
        Naming the argument and what came.
    """
    try:
        target = Path(path)
        real = Path(os.path.realpath(target))
    except TypeError:
        raise TypeError(f"{name} must be a path, got {came(path)}") from None
    except ValueError:  # a null character
        raise ValueError(f"{name} must be a path, got {came(path)}") from None
    if real.is_dir():
        if not new:  # as any open of it
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        raise ValueError(f"{name} must be a file, got the folder {str(target)!r}")
    if new and not real.parent.is_dir():
        raise ValueError(f"{name}: the folder of {str(target)!r} does not exist")
    if _is_special(real):
        raise ValueError(f"{name} must be a regular file, got {str(target)!r}, which is something else")
    return target


def _is_special(real: Path) -> bool:
    """Whether a resolved path is there and is no regular file: a device, a pipe, a socket, a link to itself."""
    try:
        return not stat.S_ISREG(os.lstat(real).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def fingerprint(x: Any) -> dict[str, Any]:
    """Shape, dtype and CRC of the data as it was given, by which a resumed fit knows it again."""
    array = np.ascontiguousarray(to_numpy(x))
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

    Of a symbolic link the file that it points to is replaced.

    Raises
    ------
    CheckpointError
        If an array holds numbers that are not finite: nothing is written.
    OSError
        If the folder cannot be written, naming ``path``; the previous file is still there.
    """
    arrays = {name: to_numpy(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: not written, {name} holds numbers that are not finite: training diverged")
    real = Path(os.path.realpath(path))
    if _is_special(real):  # since the path was checked
        raise ValueError(f"{path} is no regular file, and is not replaced")
    text = json.dumps({"format": FORMAT, "version": VERSION, **header})
    try:
        _replace(real, header=np.frombuffer(text.encode(), np.uint8), **arrays)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # and not the temporary file's name


def _replace(target: Path, **arrays: Array) -> None:
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}")  # not longer than a name may be
    try:
        with open(temporary, "xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
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
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    result: Array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
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
