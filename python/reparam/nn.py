# SPDX-License-Identifier: MIT
"""Small nets with hand-written backpropagation: matrix products by BLAS, bias and activation fused in one op."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from . import random as rp_random
from ._arrays import (
    copy_of,
    device_of,
    in_one_place,
    is_array,
    is_writeable,
    move,
    namespace_of,
    on_its_device,
)
from ._check import as_choice, as_dtype, as_float_array, as_int, as_key, one_device
from .distributions import EncodedNormal
from .ops.likelihood import ACTIVATIONS

__all__ = ["MLP", "GaussianHead"]

Array = NDArray[Any]


def _check_array(name: str, value: Any, dtype: Any, shape: tuple[int, ...] | None = None) -> None:
    """Hold an argument against the dtype and shape that it must have."""
    if not is_array(value):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} as the net is, got {value.dtype}")
    if shape is not None and value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")


def _check_last_dim(name: str, value: Array, size: int) -> None:
    if value.ndim < 1 or value.shape[-1] != size:
        raise ValueError(f"{name} must have shape (..., {size}), got {value.shape}")


class MLP:
    """A multilayer perceptron: ``activation(x W + b)`` for the hidden layers, ``x W + b`` for the last.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output, at least two.
    activation : {"tanh", "relu", "gelu", "silu", "softplus", "identity"}
    key : key
        Weights are normal with variance 2/(fan_in + fan_out) (Glorot and Bengio, 2010), biases zero; layer k draws from
        stream k.
    dtype : {"float32", "float64"}
    params : array, optional
        A flat buffer of :meth:`count` entries to live in, of NumPy or CuPy; made in NumPy's memory if it is not given.

    Attributes
    ----------
    params : ndarray, shape (count,)
        All parameters in one buffer, layer by layer, weights then bias.
    views : dict
        ``weight0`` (in, out), ``bias0`` (out,), ``weight1``, ...: views of ``params``.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    def __init__(
        self, sizes: Any, *, activation: str = "tanh", key: Any, dtype: Any = "float32", params: Array | None = None
    ) -> None:
        if not np.iterable(sizes):
            raise TypeError(f"MLP: sizes must be a sequence of integers >= 1, got {sizes!r}")
        self.sizes = tuple(as_int("MLP: sizes", n, 1) for n in sizes)
        if len(self.sizes) < 2:
            raise ValueError(f"MLP: sizes must hold at least an input and an output width, got {self.sizes}")
        self.activation = as_choice("MLP: activation", activation, ACTIVATIONS)
        self.dtype = as_dtype("MLP: dtype", dtype)
        size = (self.count(self.sizes),)
        self.params = np.empty(size, self.dtype) if params is None else params
        _check_array("MLP: params", self.params, self.dtype, size)
        if not is_writeable(self.params):
            raise ValueError("MLP: params is read-only, but the weights are written into it")
        self.views = self.split(self.params)
        number = as_key(key, "MLP: key")
        with device_of(self.params):
            for k, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
                noise = rp_random.normal((fan_in, fan_out), key=number, stream=k, like=self.params)
                self.views[f"weight{k}"][...] = noise * np.sqrt(2 / (fan_in + fan_out)).astype(self.dtype)
                self.views[f"bias{k}"][...] = 0

    def __repr__(self) -> str:
        """Widths, activation and element type."""
        return f"MLP({'-'.join(map(str, self.sizes))}, {self.activation}, {self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and deep copies hold: ``params``, of which the views are made again."""
        return {name: value for name, value in vars(self).items() if name != "views"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.views = self.split(self.params)

    def __copy__(self) -> MLP:
        """A net of its own: two that share parameters would train each other."""
        twin = type(self).__new__(type(self))
        twin.__setstate__({**self.__getstate__(), "params": copy_of(self.params)})
        return twin

    def _follow(self, like: Array) -> None:
        """Take the parameters to where an array is, for good."""
        if not in_one_place(self.params, like):
            self.__setstate__({**self.__getstate__(), "params": move(self.params, like)})

    @staticmethod
    def count(sizes: tuple[int, ...]) -> int:
        """Number of parameters of a net of these widths."""
        return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))

    def split(self, flat: Array) -> dict[str, Array]:
        """Views of a flat buffer by name."""
        views, at = {}, 0
        for k, (n_in, n_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            views[f"weight{k}"] = flat[at : at + n_in * n_out].reshape(n_in, n_out)
            views[f"bias{k}"] = flat[at + n_in * n_out : at + (n_in + 1) * n_out]
            at += (n_in + 1) * n_out
        return views

    @on_its_device
    def __call__(
        self, x: Array, grads: Array | None = None
    ) -> tuple[Array, Callable[..., tuple[Array | None, Array | None]]]:
        """Apply the net.

        Parameters
        ----------
        x : array, shape (..., in)
        grads : array, shape (count,), optional
            Where ``backprop`` writes the parameters' gradient; made if it is not given.

        Returns
        -------
        y : array, shape (..., out)
        backprop : callable
            ``backprop(ct_y, input_gradient=True, parameter_gradient=True)`` gives ``(ct_x, grads)``; None stands for
            one that was not asked for, and is not computed.

        Raises
        ------
        TypeError, ValueError
            For another shape or dtype.

        Notes
        -----
        ``backprop`` reads the net's ``params`` and the ``x`` of this call again: neither may be changed in between.
        """
        _check_array("MLP: x", x, self.dtype)
        one_device("MLP", [("x", x), ("the net's params", self.params)])
        _check_last_dim("MLP: x", x, self.sizes[0])
        if grads is not None:
            _check_array("MLP: grads", grads, self.dtype, self.params.shape)
        rows = x.reshape(-1, self.sizes[0])
        y_shape = (*x.shape[:-1], self.sizes[-1])
        inputs, products = [], []
        last = len(self.sizes) - 2
        for k in range(last + 1):
            inputs.append(rows)
            product = rows @ self.views[f"weight{k}"]
            products.append(product)
            if k == last:
                rows = np.add(product, self.views[f"bias{k}"], out=product)
            else:
                rows = ops.bias_activation(product, self.views[f"bias{k}"], activation=self.activation)

        @on_its_device
        def backprop(
            ct_y: Array, input_gradient: bool = True, parameter_gradient: bool = True
        ) -> tuple[Array | None, Array | None]:
            _check_array("MLP: ct_y", ct_y, self.dtype, y_shape)
            flat = grads if grads is not None or not parameter_gradient else np.empty_like(self.params)
            out = self.split(flat) if flat is not None and parameter_gradient else None
            whole = namespace_of(ct_y).ascontiguousarray(ct_y)
            ct = whole.reshape(-1, self.sizes[-1])  # never written: the last layer is linear
            for k in range(last, -1, -1):
                if k < last:
                    operands = (products[k], self.views[f"bias{k}"], ct)
                    ops.bias_activation.vjp(*operands, activation=self.activation, sums=(ct, None))
                if out is not None:
                    ct.sum(0, out=out[f"bias{k}"])
                    np.matmul(inputs[k].T, ct, out=out[f"weight{k}"])
                if k or input_gradient:
                    ct = ct @ self.views[f"weight{k}"].T
            return (ct.reshape(x.shape) if input_gradient else None), flat if parameter_gradient else None

        return rows.reshape(y_shape), backprop


class GaussianHead:
    """Features to a Gaussian: ``latent_dim`` entries of ``loc``, then the scale without constraints.

    Parameters
    ----------
    latent_dim : int
    covariance_type : {"full", "diag"}
        "full": the d(d+1)/2 entries of a lower factor, its diagonal through exp; "diag": d logarithms of scales.
    """

    def __init__(self, latent_dim: int, covariance_type: str) -> None:
        self.latent_dim = as_int("GaussianHead: latent_dim", latent_dim, 1)
        self.full = as_choice("GaussianHead: covariance_type", covariance_type, ("full", "diag")) == "full"
        self.features = latent_dim + (latent_dim * (latent_dim + 1) // 2 if self.full else latent_dim)

    def start_at_identity(self, net: MLP) -> None:
        """Zero the scale's columns of the net's last layer: q starts at N(loc, I)."""
        if not isinstance(net, MLP):
            raise TypeError(f"GaussianHead: net must be an MLP, got {type(net).__name__}")
        if net.sizes[-1] != self.features:
            raise ValueError(f"GaussianHead: net must have output width {self.features}, got sizes {net.sizes}")
        last = len(net.sizes) - 2
        with device_of(net.params):
            net.views[f"weight{last}"][:, self.latent_dim :] = 0
            net.views[f"bias{last}"][self.latent_dim :] = 0

    @on_its_device
    def encode(self, features: Array) -> tuple[EncodedNormal, Callable[[Any], Array]]:
        """As a call, but with the scale left as a vector: the gradient is in ``loc`` and ``vector``."""
        features = as_float_array("GaussianHead: features", features)
        _check_last_dim("GaussianHead: features", features, self.features)
        loc, vector = features[..., : self.latent_dim], features[..., self.latent_dim :]

        @on_its_device
        def pullback(grad: Any) -> Array:
            ct = np.empty_like(features)
            ct[..., : self.latent_dim] = grad.loc
            ct[..., self.latent_dim :] = grad.vector
            return ct

        return EncodedNormal(loc, vector, self.full), pullback

    def __call__(self, features: Array) -> tuple[Any, Callable[[Any], Array]]:
        """The distribution for features of shape (..., features), and the map from its gradient to theirs."""
        encoded, pullback = self.encode(features)
        return encoded.distribution(), lambda grad: pullback(encoded.pull(grad))
