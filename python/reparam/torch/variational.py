# SPDX-License-Identifier: MIT
"""The head of an encoder: a layer from features to a Gaussian for each row."""

from __future__ import annotations

from typing import Any

import torch

from .._check import as_choice, as_int
from ._tensors import HALVES
from .encoded_normal import COVARIANCE_TYPES, EncodedNormal, length_of_vector

__all__ = ["VariationalGaussian"]


class VariationalGaussian(torch.nn.Module):
    """A layer from features to a Gaussian posterior q(z | x) for each row, which starts at ``N(loc, I)``.

    Parameters
    ----------
    in_features : int
        Size of what the last layer takes: of the features, or of what ``net`` makes of them.
    latent_dim : int
        Size d of z.
    net : torch.nn.Module or callable, optional
        What comes before the last layer.
    covariance_type : {"full", "diag"}
        Whether q has a full covariance matrix or independent coordinates.

    Attributes
    ----------
    linear : torch.nn.Linear
        To ``loc`` and the unconstrained vector of the factor, d (d + 1) / 2 entries, or d; see
        :func:`reparam.tril_from_vector`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.

    Notes
    -----
    Draws take a key from PyTorch's default generator on the CPU, which follows ``torch.manual_seed``, or from
    ``generator``. Row b then has noise of its own, addressed by ``(key, index[b])``, whatever else is in the batch. A
    captured CUDA graph keeps its key, and so its noise, at each replay.
    """

    def __init__(self, in_features: int, latent_dim: int, *, net: Any = None, covariance_type: str = "full") -> None:
        super().__init__()
        as_choice("VariationalGaussian: covariance_type", covariance_type, COVARIANCE_TYPES)
        features = as_int("VariationalGaussian: in_features", in_features, 1)
        self.latent_dim = as_int("VariationalGaussian: latent_dim", latent_dim, 1)
        if net is not None and not callable(net):
            wanted = "a torch.nn.Module or a function of tensors"
            raise TypeError(f"VariationalGaussian: net must be {wanted}, got {type(net).__name__}")
        self.in_features, self.covariance_type, self.net = features, covariance_type, net
        self.linear = torch.nn.Linear(features, self.latent_dim + length_of_vector(self.latent_dim, covariance_type))
        with torch.no_grad():  # L = I
            self.linear.weight[self.latent_dim :] = 0
            self.linear.bias[self.latent_dim :] = 0

    def forward(self, features: Any, *, index: Any = None, generator: Any = None) -> EncodedNormal:
        """The Gaussian of each row.

        Parameters
        ----------
        features : Tensor, shape (..., in_features), or what ``net`` takes
        index : int array or Tensor of the batch shape, optional
            Numbers of the rows in the data, which address their noise; 0, 1, 2, ... by default.
        generator : torch.Generator, optional
            Not with ``torch.compile(fullgraph=True)``, which takes none: draws come from PyTorch's default one.

        Returns
        -------
        EncodedNormal
            A torch distribution: ``rsample_and_log_prob()`` is one fused op.

        Raises
        ------
        TypeError, ValueError
            If features, or what ``net`` makes of them, are not a tensor of shape ``(..., in_features)``.
        """
        hidden = features if self.net is None else self.net(features)
        self._check(hidden)
        out = self.linear(hidden)
        if out.dtype in HALVES:  # of autocast: the Gaussian is computed in float32, as torch.linalg does
            out = out.float()
        loc, vector = out.split([self.latent_dim, out.shape[-1] - self.latent_dim], -1)
        validate = False if torch.compiler.is_compiling() else None  # a choice on data, which breaks the graph
        return EncodedNormal(
            loc, vector, self.covariance_type, index=index, generator=generator, validate_args=validate
        )

    def _check(self, hidden: Any) -> None:
        what = "features must be" if self.net is None else "net must return"
        if not isinstance(hidden, torch.Tensor):
            raise TypeError(f"VariationalGaussian: {what} a tensor, got {type(hidden).__name__}")
        if hidden.dim() < 1 or hidden.shape[-1] != self.in_features:
            wanted = f"of shape (..., in_features) with in_features = {self.in_features}"
            raise ValueError(f"VariationalGaussian: {what} a tensor {wanted}, got {tuple(hidden.shape)}")

    def extra_repr(self) -> str:
        """What printing shows beside the layers."""
        return f"latent_dim={self.latent_dim}, covariance_type={self.covariance_type!r}"
