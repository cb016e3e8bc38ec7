# SPDX-License-Identifier: MIT
"""What the families of Gaussians share: fields and their checks, shapes, sampling, densities, freezing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .. import random as rp_random
from .._arrays import is_cupy, move, on_its_device
from .._check import (
    as_float_array,
    as_shape,
    as_weak_scalar,
    broadcast_batches,
    check_finite,
    is_weak,
    one_device,
    same_dtype,
)
from .._signature import Operand

__all__ = ["Gaussian"]

Array = NDArray[Any]


def _as_fields(owner: str, wanted: str, given: dict[str, Any]) -> list[Array]:
    """Arrays of float32 or float64; numbers, if ``wanted`` has the word, take the others' dtype, else float64."""
    numbers = {n: value for n, value in given.items() if "number" in wanted and is_weak(value)}
    arrays = {n: as_float_array(f"{owner}: {n}", value, wanted) for n, value in given.items() if n not in numbers}
    first = next(iter(arrays.values()), np.empty(()))
    arrays |= {n: move(as_weak_scalar(f"{owner}: {n}", value, first.dtype), first) for n, value in numbers.items()}
    one_device(owner, [*arrays.items()])
    return [arrays[name] for name in given]


def check_positive(name: str, scale: Array) -> None:
    """Refuse what is not > 0, and say where the first one is; not on a GPU, for which one would have to wait."""
    if is_cupy(scale):
        return
    good = scale > 0
    if not good.all():
        at = tuple(int(k) for k in np.argwhere(~good)[0])
        raise ValueError(f"{name} must be > 0, got {scale[at]}{f' at {list(at)}' if at else ''}")


class Gaussian:
    """A batch of Gaussians; a family says what its scale is and which ops are its own."""

    _family: str  # of the elbo ops: "scalar", "diag" or "tril"
    _ops: str  # what the names of its ops begin with
    _form: Operand  # of the scale
    _made_from: str  # the name of the field that was given
    loc: Array
    _scale: Array

    def _set(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def trusted(cls, loc: Array, scale: Array) -> Any:
        """Make one of fields that are known to be right, without the checks (inside loops)."""
        made = cls.__new__(cls)
        made._set(**{"loc": loc, cls._form.name: scale, "_scale": scale})
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; make a new one to change {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; {name} stays")

    def _fields(self, loc: Any, name: str, scale: Any) -> tuple[Array, Array]:
        """Both arrays, finite, of shapes and dtypes that fit."""
        owner, form = type(self).__name__, self._form
        loc, scale = _as_fields(owner, self._wanted, {"loc": loc, name: scale})
        if loc.ndim < self._event_rank:
            raise ValueError(f"{owner}: loc must have shape (..., d), got ()")
        extents = dict(zip(form.symbols, loc.shape[-1:], strict=False))
        event = form.event_shape(extents)
        if scale.ndim < len(event) or scale.shape[scale.ndim - len(event) :] != event:
            because = f"with d = {extents['d']} (from loc)"
            raise ValueError(f"{owner}: {name} must have shape (..., {form.event_text()}) {because}, got {scale.shape}")
        same_dtype(owner, ("loc", loc.dtype), (name, scale.dtype))
        batches = [loc.shape[: loc.ndim - self._event_rank], scale.shape[: scale.ndim - len(event)]]
        broadcast_batches(owner, ["loc", name], batches)
        check_finite(f"{owner}: loc", loc)
        if not is_cupy(scale):
            check_finite(f"{owner}: {name}", np.tril(scale) if len(event) == 2 else scale)
        return loc, scale

    @property
    def _wanted(self) -> str:
        """What locs, scales and values are, in errors."""
        return "an array" if self._event_rank else "an array or a number"

    @property
    def _event_rank(self) -> int:
        return len(self._form.symbols)

    @property
    def _packed(self) -> bool:
        """Whether the scale is a packed lower factor."""
        return self._form.kind == "vec"

    def _run(self, name: str, *arrays: Any) -> Any:
        """Run an op of the family; the scale is its last operand."""
        return getattr(ops, f"{self._ops}_{name}")(*arrays, self._scale, **({"packed": True} if self._packed else {}))

    def _over_batch(self, array: Array, event: tuple[int, ...]) -> Array:
        """The array, or the number, of shape ``batch_shape + event``."""
        result: Array = np.broadcast_to(array, self.batch_shape + event)[()]
        return result

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch."""
        scale = self._scale.shape[: self._scale.ndim - self._form.event_rank]
        return np.broadcast_shapes(self.loc.shape[: self.loc.ndim - self._event_rank], scale)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``(d,)``, or ``()`` of scalar events."""
        return self.loc.shape[-1:] if self._event_rank else ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.loc.dtype

    @property
    @on_its_device
    def mean(self) -> Array:
        """Mean, shape ``batch_shape + event_shape``."""
        return self._over_batch(self.loc, self.event_shape)

    @property
    @on_its_device
    def variance(self) -> Array:
        """Variance of each coordinate, shape ``batch_shape + event_shape``."""
        return self._over_batch(self._scale**2, self.event_shape)

    @property
    @on_its_device
    def stddev(self) -> Array:
        """Standard deviation of each coordinate, shape ``batch_shape + event_shape``."""
        return self._over_batch(self._scale, self.event_shape)

    def _noise(self, sample_shape: Any, key: Any, index: Any) -> Any:
        """Standard normals addressed by event: of one draw as a Draw, which is never stored; of more as an array."""
        owner, event = type(self).__name__, self.event_shape
        sizes = as_shape(f"{owner}: sample_shape", sample_shape)
        streams = rp_random.draw_index(index, self.batch_shape, f"{owner}: index", self.loc)
        used = rp_random.as_key(key, f"{owner}: key")
        if not sizes:
            return rp_random.draw_once(used, streams)
        place: dict[str, Any] = {"dtype": self.dtype, "like": self.loc}
        noise = rp_random.event_normal(math.prod(sizes), streams, math.prod(event), key=used, **place)
        return noise.reshape(*sizes, *streams.shape, *event)

    @on_its_device
    def rsample(self, sample_shape: Any = (), *, key: Any, index: Any = None) -> Array:
        """Draws, as a function of ``loc`` and the scale: ``loc + scale noise``.

        Parameters
        ----------
        sample_shape : int or tuple of int
        key : key
            See :func:`reparam.random.as_key`.
        index : int array of the batch shape, optional
            Event b takes noise stream ``index[b]``; 0, 1, 2, ... by default. So a data point's draws depend on the key
            and its number alone.

        Returns
        -------
        array, shape sample_shape + batch_shape + event_shape
        """
        result: Array = self._run("transform", self._noise(sample_shape, key, index), self.loc)
        return result

    @on_its_device
    def rsample_and_log_prob(self, sample_shape: Any = (), *, key: Any, index: Any = None) -> tuple[Array, Array]:
        """Draws and their own log density, without a triangular solve.

        Parameters
        ----------
        sample_shape, key, index
            As in :meth:`rsample`.

        Returns
        -------
        value : array, shape sample_shape + batch_shape + event_shape
            What :meth:`rsample` gives.
        log_prob : array, shape sample_shape + batch_shape
        """
        value, log_prob = self._run("transform_and_log_prob", self._noise(sample_shape, key, index), self.loc)
        return value, log_prob

    def log_prob(self, value: Any) -> Array:
        """Log density.

        Parameters
        ----------
        value : array, shape (..., d), or (...) of scalar events
            Its batch dims broadcast with ``batch_shape``.

        Returns
        -------
        array, of the batch dims broadcast
        """
        owner, event = type(self).__name__, self.event_shape
        if event or not is_weak(value):
            value = as_float_array(f"{owner}: value", value, self._wanted)
            if event and value.shape[-1:] != event:
                raise ValueError(f"{owner}: value must have shape (..., d) with d = {event[0]}, got {value.shape}")
            same_dtype(owner, ("value", value.dtype), ("loc", self.dtype))
        try:
            result: Array = self._run("log_prob", value, self.loc)
        except ValueError:  # worded by the op; asked here, each call would pay for the question
            batch = np.shape(value)[: np.ndim(value) - len(event)]
            broadcast_batches(owner, ["value", "batch_shape"], [batch, self.batch_shape])
            raise
        return result

    @on_its_device
    def entropy(self) -> Array:
        """Differential entropy in nats.

        Returns
        -------
        array, shape batch_shape
        """
        made = self._run("entropy")
        result: Array = made if np.shape(made) == self.batch_shape else self._over_batch(made, ()).copy()
        return result

    def __repr__(self) -> str:
        shapes = f"batch_shape={self.batch_shape}, event_shape={self.event_shape}"
        return f"{type(self).__name__}({shapes}, dtype={self.dtype}{', packed=True' if self._packed else ''})"
