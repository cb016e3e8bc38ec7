# SPDX-License-Identifier: MIT
"""Built-in targets of :func:`reparam.elbo`: log densities that run fused in the kernel."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ._arrays import device_of, is_cupy, move, namespace_of, to_numpy, triangle, with_dims
from ._check import (
    as_array,
    as_choice,
    as_float_array,
    as_weak_scalar,
    broadcast_batches,
    came,
    check_finite,
    is_weak,
    one_device,
    same_dtype,
)
from .ops.elbo_glm import FAMILIES

__all__ = ["GLM", "Gaussian", "LinearGaussian", "Target"]

Array = NDArray[Any]


class Target(ABC):
    """What targets share: shapes and the operands of their ops."""

    op: ClassVar[str]  # the end of the names of its ops
    _main: ClassVar[str]  # the field whose last dim is that of z
    _event_ranks: ClassVar[dict[str, int]]

    def _set_arrays(self, names: tuple[str, ...], numbers: tuple[str, ...] = ()) -> None:
        """Read the fields as arrays of one dtype; numbers among ``numbers`` take that of the arrays."""
        owner = type(self).__name__
        arrays = {n: as_float_array(f"{owner}: {n}", getattr(self, n)) for n in names}
        first, dtype = arrays[names[0]], arrays[names[0]].dtype
        for name in numbers:
            value, full_name = getattr(self, name), f"{owner}: {name}"
            value = move(as_weak_scalar(full_name, value, dtype), first) if is_weak(value) else value
            arrays[name] = as_float_array(full_name, value, "a number or an array")
        for name, array in arrays.items():
            same_dtype(owner, (names[0], dtype), (name, array.dtype))
            object.__setattr__(self, name, array)
        one_device(owner, [*arrays.items()])

    def _check_positive(self, name: str, scale: Array) -> None:
        if is_cupy(scale):  # for which one would have to wait; what is not positive gives NaN
            return
        good = (scale > 0) & np.isfinite(scale)
        if not good.all():
            at = tuple(int(k) for k in np.argwhere(~good)[0])
            where = f" at {list(at)}" if at else ""
            raise ValueError(f"{type(self).__name__}: {name} must be finite and > 0, got {scale[at]}{where}")

    def _check_event(self, name: str, wanted: str, sizes: dict[str, int], source: str) -> None:
        """Refuse a field whose event dims are not ``wanted``, such as ``"n, d"``, of these sizes."""
        shape = getattr(self, name).shape
        event = tuple(sizes[s] for s in wanted.split(", "))
        if shape[len(shape) - len(event) :] != event or len(shape) < len(event):
            known = " and ".join(f"{s} = {sizes[s]}" for s in dict.fromkeys(wanted.split(", ")))
            owner = type(self).__name__
            because = f"with {known} (from {source})"
            raise ValueError(f"{owner}: {name} must have shape (..., {wanted}) {because}, got {shape}")

    def _batches(self) -> tuple[list[str], list[tuple[int, ...]]]:
        arrays = {n: getattr(self, n) for n in self._event_ranks}
        return [*arrays], [x.shape[: x.ndim - self._event_ranks[n]] for n, x in arrays.items()]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of problems."""
        return broadcast_batches(type(self).__name__, *self._batches())

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    @property
    def _array(self) -> Any:
        """One of its arrays, which says where they all are."""
        return getattr(self, self._main)

    @property
    def latent_dim(self) -> int:
        """Size of z."""
        return int(self._array.shape[-1])

    def take(self, numbers: Array, batch_shape: tuple[int, ...]) -> Target:
        """The target of some problems of a batch, as a batch of one dim.

        Parameters
        ----------
        numbers : int array, shape (k,)
            Of the problems, in C order.
        batch_shape : tuple of int
            Of the whole batch, to which this target's broadcasts.
        """
        made, main = copy.copy(self), self._array
        at = tuple(move(k, main) for k in np.unravel_index(numbers, batch_shape))
        for name, rank in self._event_ranks.items():
            array = getattr(self, name)
            event = array.shape[array.ndim - rank :]
            shared = array.size == math.prod(event)
            with device_of(main):
                array = array.reshape(event) if shared else np.broadcast_to(array, batch_shape + event)[at]
            object.__setattr__(made, name, array)
        vars(made).pop("_normalizer", None)
        return made

    @abstractmethod
    def operands(self, *, packed: bool) -> tuple[tuple[Array, ...], dict[str, str]]:
        """Operands and attributes of the target's ops; ``packed`` lower factors as their triangles."""

    def __repr__(self) -> str:
        shape = f"batch_shape={self.batch_shape}, latent_dim={self.latent_dim}"
        return f"{type(self).__name__}({shape}, dtype={self.dtype})"


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Target):
    """``z ~ N(loc, M M^T)`` with ``M = scale_tril``.

    Parameters
    ----------
    loc : array, shape (..., d)
    scale_tril : array, shape (..., d, d)
        Lower factor with a positive diagonal; what stands above it is not read.

    Arrays are float32 or float64, of one dtype.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    loc: Any
    scale_tril: Any
    op, _main, _event_ranks = "gaussian", "loc", {"loc": 1, "scale_tril": 2}

    def __post_init__(self) -> None:
        self._set_arrays(("loc", "scale_tril"))
        if not self.loc.ndim:
            raise ValueError("Gaussian: loc must have shape (..., d), got ()")
        self._check_event("scale_tril", "d, d", {"d": self.latent_dim}, "loc")
        _ = self.batch_shape
        check_finite("Gaussian: loc", self.loc)
        if not is_cupy(self.scale_tril):
            check_finite("Gaussian: scale_tril", np.tril(self.scale_tril))
            self._check_positive("the diagonal of scale_tril", np.diagonal(self.scale_tril, axis1=-2, axis2=-1))

    def operands(self, *, packed: bool) -> tuple[tuple[Array, ...], dict[str, str]]:
        """See :meth:`Target.operands`."""
        places = triangle(self.latent_dim, self.loc) if packed else ()
        return (self.loc, self.scale_tril[(..., *places)] if packed else self.scale_tril), {}


@dataclass(frozen=True, eq=False, repr=False)
class LinearGaussian(Target):
    """``z ~ N(0, I)``, ``x | z ~ N(weight z + bias, noise_scale^2 I)``.

    Parameters
    ----------
    x : array, shape (..., data_dim)
        The observed row of each event.
    weight : array, shape (data_dim, latent_dim), or with batch dims in front
    bias : array, shape (data_dim,), or with batch dims in front
    noise_scale : float or array, shape (...)
        Positive.

    Arrays are float32 or float64, of one dtype.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    x: Any
    weight: Any
    bias: Any
    noise_scale: Any
    op, _main, _event_ranks = "linear_gaussian", "weight", {"x": 1, "weight": 2, "bias": 1, "noise_scale": 0}

    def __post_init__(self) -> None:
        self._set_arrays(("x", "weight", "bias"), ("noise_scale",))
        shape = self.weight.shape
        if len(shape) < 2:
            raise ValueError(f"LinearGaussian: weight must have shape (..., data_dim, latent_dim), got {shape}")
        for name in ("x", "bias"):
            self._check_event(name, "data_dim", {"data_dim": shape[-2]}, "weight")
        _ = self.batch_shape
        for name in ("x", "weight", "bias"):
            check_finite(f"LinearGaussian: {name}", getattr(self, name))
        self._check_positive("noise_scale", self.noise_scale)

    def operands(self, *, packed: bool) -> tuple[tuple[Array, ...], dict[str, str]]:
        """See :meth:`Target.operands`."""
        return (self.x, self.weight, self.bias, self.noise_scale), {}


@dataclass(frozen=True, eq=False, repr=False)
class GLM(Target):
    """Coefficients ``z ~ N(0, prior_scale^2 I)`` of a generalized linear model of each event's own data.

    Parameters
    ----------
    features : array, shape (..., n, d)
    y : array, shape (..., n)
        0 or 1 (``logistic``), counts (``poisson``) or reals (``normal``); integers and bools are converted, to float32
        with rounding from 2**24 on.
    family : {"logistic", "poisson", "normal"}
        With the linear predictor ``eta = features @ z``: y = 1 has log odds eta, y has mean exp(eta), or
        ``y ~ N(eta, noise_scale^2)``.
    prior_scale : float or array, shape (...)
        Positive.
    noise_scale : float or array, shape (...)
        Positive; of the normal family alone.

    Arrays are float32 or float64, of one dtype.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    features: Any
    y: Any
    family: str = field(kw_only=True)
    prior_scale: Any = field(kw_only=True)
    noise_scale: Any = field(default=1.0, kw_only=True)
    op, _main = "glm", "features"
    _event_ranks: ClassVar[dict[str, int]] = {"features": 2, "y": 1, "prior_scale": 0, "noise_scale": 0}

    def __post_init__(self) -> None:
        as_choice("GLM: family", self.family, FAMILIES)
        y = as_array("GLM: y", self.y)
        if y.dtype.kind in "biu":
            features = as_float_array("GLM: features", self.features)
            object.__setattr__(self, "y", y.astype(features.dtype))
        if self.family != "normal" and not (is_weak(self.noise_scale) and self.noise_scale == 1):
            raise ValueError(f"GLM: noise_scale belongs to the normal family, got {came(self.noise_scale)}")
        self._set_arrays(("features", "y"), ("prior_scale", "noise_scale"))
        if self.features.ndim < 2:
            raise ValueError(f"GLM: features must have shape (..., n, d), got {self.features.shape}")
        self._check_event("y", "n", {"n": self.features.shape[-2]}, "features")
        _ = self.batch_shape
        for name in ("features", "y"):
            check_finite(f"GLM: {name}", getattr(self, name))
        self._check_positive("prior_scale", self.prior_scale)
        self._check_positive("noise_scale", self.noise_scale)
        if not is_cupy(self.y):
            self._check_counts(self.y)

    def _check_counts(self, y: Array) -> None:
        """Refuse what is no outcome of the family."""
        if self.family == "normal":
            return
        wanted = "0 or 1" if self.family == "logistic" else "whole numbers >= 0"
        good = (y == 0) | (y == 1) if self.family == "logistic" else (y >= 0) & (y == np.floor(y))
        if not good.all():
            at = tuple(int(k) for k in np.argwhere(~good)[0])
            raise ValueError(f"GLM: y must be {wanted} for the {self.family} family, got {y[at]} at {list(at)}")

    def operands(self, *, packed: bool) -> tuple[tuple[Array, ...], dict[str, str]]:
        """See :meth:`Target.operands`: of the normal family, features and y in units of the noise."""
        features, y, n = self.features, self.y, self.y.shape[-1]
        normalizer: Any = namespace_of(y).zeros((), np.float64)
        if self.family == "poisson":
            normalizer = self._log_factorials(y) if is_cupy(y) else -_log_factorial(y.astype(np.float64)).sum(-1)
        if self.family == "normal":
            sigma = self.noise_scale
            features, y = features / sigma[..., None, None], y / sigma[..., None]
            normalizer = -n * (np.log(sigma.astype(np.float64)) + 0.5 * math.log(2 * math.pi))
        return (features, y, self.prior_scale, with_dims(normalizer).astype(self.dtype)), {"family": self.family}

    def _log_factorials(self, y: Array) -> Array:
        """Of counts on a GPU, where the mathematics of CuPy has no lgamma: by the host, once."""
        kept: dict[str, Array] = vars(self)
        if "_normalizer" not in kept:
            self._check_counts(counts := to_numpy(y))
            kept["_normalizer"] = move(-_log_factorial(counts.astype(np.float64)).sum(-1), y)
        return kept["_normalizer"]


_log_factorial = np.vectorize(lambda count: math.lgamma(count + 1), otypes=[np.float64])
