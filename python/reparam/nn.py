# SPDX-License-Identifier: MIT
"""Small nets with hand-written backpropagation: matrix products by BLAS, bias and activation fused in one op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from . import random as rp_random
from ._check import FLOATS, as_choice, as_int
from .distributions import MultivariateNormal, MultivariateNormalDiag
from .ops.likelihood import ACTIVATIONS

__all__ = ["MLP", "GaussianHead"]

Array = NDArray[Any]


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
        A flat buffer of :meth:`count` entries to live in; made if it is not given.

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
        self.sizes = tuple(as_int("MLP: sizes", n, 1) for n in sizes)
        if len(self.sizes) < 2:
            raise ValueError(f"MLP: sizes must hold at least an input and an output width, got {self.sizes}")
        self.activation = as_choice("MLP: activation", activation, ACTIVATIONS)
        self.dtype = np.dtype(dtype)
        if self.dtype not in FLOATS:
            raise TypeError(f"MLP: dtype must be float32 or float64, got {self.dtype}")
        self.params = np.empty(self.count(self.sizes), self.dtype) if params is None else params
        if self.params.shape != (self.count(self.sizes),) or self.params.dtype != self.dtype:
            raise ValueError(
                f"MLP: params must be {self.dtype} of shape ({self.count(self.sizes)},), "
                f"got {self.params.dtype} of shape {self.params.shape}"
            )
        self.views = self.split(self.params)
        number = rp_random.as_key(key)
        for k, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            noise = rp_random.normal((fan_in, fan_out), key=number, stream=k, dtype=self.dtype)
            self.views[f"weight{k}"][...] = noise * np.sqrt(2 / (fan_in + fan_out)).astype(self.dtype)
            self.views[f"bias{k}"][...] = 0

    @staticmethod
    def count(sizes: tuple[int, ...]) -> int:
        """Number of parameters of a net of these widths."""
        return sum((n_in + 1) * n_out for n_in, n_out in zip(sizes, sizes[1:], strict=False))

    def split(self, flat: Array) -> dict[str, Array]:
        """Views of a flat buffer by name."""
        views, at = {}, 0
        for k, (n_in, n_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            views[f"weight{k}"] = flat[at : at + n_in * n_out].reshape(n_in, n_out)
            views[f"bias{k}"] = flat[at + n_in * n_out : at + (n_in + 1) * n_out]
            at += (n_in + 1) * n_out
        return views

    def __call__(self, x: Array, grads: Array | None = None) -> tuple[Array, Callable[..., tuple[Array | None, Array]]]:
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
            ``backprop(ct_y, input_gradient=True)`` gives ``(ct_x, grads)``; ``ct_x`` is None where it was not asked for.
        """
        if x.ndim < 1 or x.shape[-1] != self.sizes[0]:
            raise ValueError(f"MLP: x must have shape (..., {self.sizes[0]}), got {x.shape}")
        if x.dtype != self.dtype:
            raise TypeError(f"MLP: x must be {self.dtype} as the net is, got {x.dtype}")
        rows = x.reshape(-1, self.sizes[0])
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

        def backprop(ct_y: Array, input_gradient: bool = True) -> tuple[Array | None, Array]:
            flat = np.empty_like(self.params) if grads is None else grads
            out = self.split(flat)
            ct = np.ascontiguousarray(ct_y, self.dtype).reshape(-1, self.sizes[-1])  # never written: the last layer is linear
            for k in range(last, -1, -1):
                if k < last:
                    operands = (products[k], self.views[f"bias{k}"], ct)
                    ops.bias_activation.vjp(*operands, activation=self.activation, sums=(ct, None))
                np.sum(ct, axis=0, out=out[f"bias{k}"])
                np.matmul(inputs[k].T, ct, out=out[f"weight{k}"])
                if k or input_gradient:
                    ct = ct @ self.views[f"weight{k}"].T
            return (ct.reshape(x.shape) if input_gradient else None), flat

        return rows.reshape(*x.shape[:-1], self.sizes[-1]), backprop


class GaussianHead:
    """Features to a Gaussian: ``latent_dim`` entries of ``loc``, then the scale without constraints.

    Parameters
    ----------
    latent_dim : int
    covariance_type : {"full", "diag"}
        "full": the d(d+1)/2 entries of a lower factor, its diagonal through exp; "diag": d logarithms of scales.
    """

    def __init__(self, latent_dim: int, covariance_type: str) -> None:
        self.latent_dim = latent_dim
        self.full = as_choice("covariance_type", covariance_type, ("full", "diag")) == "full"
        self.features = latent_dim + (latent_dim * (latent_dim + 1) // 2 if self.full else latent_dim)

    def start_at_identity(self, net: MLP) -> None:
        """Zero the scale's rows of the net's last layer: q starts at N(loc, I)."""
        last = len(net.sizes) - 2
        net.views[f"weight{last}"][:, self.latent_dim :] = 0
        net.views[f"bias{last}"][self.latent_dim :] = 0

    def __call__(self, features: Array) -> tuple[Any, Callable[[Any], Array]]:
        """The distribution for features of shape (..., features), and the map from its gradient to theirs."""
        loc, raw = features[..., : self.latent_dim], features[..., self.latent_dim :]
        q: MultivariateNormal | MultivariateNormalDiag
        if self.full:
            q = MultivariateNormal.trusted(loc, ops.tril_from_vector(raw))
        else:
            q = MultivariateNormalDiag.trusted(loc, np.exp(raw))

        def pullback(grad: Any) -> Array:
            ct = np.empty_like(features)
            ct[..., : self.latent_dim] = grad.loc
            if self.full:
                ct[..., self.latent_dim :] = ops.tril_from_vector.vjp(raw, grad.scale_tril)
            else:
                np.multiply(grad.scale_diag, q._scale, out=ct[..., self.latent_dim :])
            return ct

        return q, pullback
