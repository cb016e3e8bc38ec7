# SPDX-License-Identifier: MIT
"""Models whose state is some named arrays, as files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._check import CheckpointError
from ..inference.checkpoint import as_path, read, write

__all__ = ["Stored"]

Array = NDArray[Any]


class Stored(ABC):
    """What such models share: save, load."""

    @abstractmethod
    def _contents(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What JSON holds, and the arrays."""

    @classmethod
    @abstractmethod
    def _restored(cls, header: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """The model of such contents, or any error of Python's own if they do not describe one."""

    @abstractmethod
    def _check_fitted(self) -> None:
        """Raise unless there is something to save."""

    def save(self, path: Any) -> None:
        """Write the fitted model to one file, without pickle; :meth:`load` reads it.

        Parameters
        ----------
        path : path
            Of a regular file or none yet, in a folder that exists. It is replaced at once when the new one is complete.

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
        header, arrays = self._contents()
        write(as_path(f"{type(self).__name__}: path", path), {"kind": type(self).__name__, "config": header}, arrays)

    @classmethod
    def load(cls, path: Any) -> Self:
        """Read a model that :meth:`save` wrote.

        Parameters
        ----------
        path : path
            Of the file.

        Returns
        -------
        model
            Of this class, fitted.

        Raises
        ------
        TypeError, ValueError
            If ``path`` is none, or no regular file.
        OSError
            If there is no such file (FileNotFoundError), or it cannot be read.
        CheckpointError
            If the file is corrupt, truncated or of something else.
        """
        name = as_path(f"{cls.__name__}: path", path, new=False)
        header, arrays = read(name, cls.__name__)
        try:
            return cls._restored(dict(header["config"]), {k: np.array(a) for k, a in arrays.items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{name}: the file does not describe a {cls.__name__}: {error!r}") from error
