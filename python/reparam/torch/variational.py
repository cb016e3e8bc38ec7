# SPDX-License-Identifier: MIT
"""The head of an encoder: from features to a Gaussian for each row, whose factor is not in memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from .._check import as_choice, as_int, as_key
from ._draw import Draw
from ._functions import FUNCTIONS
from .multivariate_normal import MultivariateNormal

__all__ = ["EncodedNormal", "VariationalGaussian"]

COVARIANCE_TYPES = ("full", "diag")
HALVES = (torch.float16, torch.bfloat16)
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class EncodedNormal(MultivariateNormal):
    """``N(loc, L L^T)`` with ``L = tril_from_vector(vector)``, or ``N(loc, diag(exp(vector))^2)``.

    A draw and its log density come from the vector by one fused op, whose noise is drawn again in the backward pass
    from its key. ``scale_tril``, and what else needs a factor, is made when it is first asked for.

    Parameters
    ----------
    loc : Tensor, shape (..., d)
    vector : Tensor, shape (..., d (d + 1) / 2), or (..., d) where ``covariance_type`` is "diag"
        Unconstrained, of the batch shape of ``loc``.
    covariance_type : {"full", "diag"}
    index : int array or Tensor of the batch shape, optional
        Event b takes noise stream ``index[b]``; 0, 1, 2, ... by default.
    generator : torch.Generator, optional
        Where the keys of draws come from; PyTorch's default one.
    validate_args : bool, optional
        Whether to check that values are not NaN; PyTorch's default.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    arg_constraints = {"loc": constraints.real_vector, "vector": constraints.real_vector}  # noqa: RUF012

    def __init__(
        self,
        loc: Any,
        vector: Any,
        covariance_type: str = "full",
        *,
        index: Any = None,
        generator: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        as_choice("EncodedNormal: covariance_type", covariance_type, COVARIANCE_TYPES)
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        batch_shape, d = loc.shape[:-1], loc.shape[-1]
        wanted = (*batch_shape, _length(d, covariance_type))
        if vector.shape != wanted:
            raise ValueError(f"EncodedNormal: vector must have shape {wanted}, got {tuple(vector.shape)}")
        self.loc, self.vector, self.covariance_type = loc, vector, covariance_type
        self.index = None if index is None else _as_index(index, loc)
        self.generator = generator
        self._begin(batch_shape, loc.shape[-1:], validate_args)
        if self._validate_args:
            self._require_real("loc")
            self._require_real("vector")

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution over a larger batch, without copies; its events are numbered anew, 0, 1, 2, ..."""
        new = self._get_checked_instance(EncodedNormal, _instance)
        for name in ("loc", "vector"):
            setattr(new, name, getattr(self, name).expand((*batch_shape, -1)))
        new.covariance_type, new.index, new.generator = self.covariance_type, None, self.generator
        new._begin(torch.Size(batch_shape), self._event_shape, self._validate_args)
        return new

    @property
    def _diag(self) -> bool:
        return self.covariance_type == "diag"

    @lazy_property
    def _scale(self) -> Any:
        """The scales, or the lower triangle of the factor row after row."""
        return self.vector.exp() if self._diag else FUNCTIONS["tril_from_vector"](self.vector, packed=True)

    @lazy_property
    def _unbroadcasted_scale_tril(self) -> Any:
        return torch.diag_embed(self._scale) if self._diag else FUNCTIONS["tril_from_vector"](self.vector)

    @property
    def variance(self) -> Any:
        """Variance of each coordinate, shape batch_shape + (d,)."""
        return self._scale.square() if self._diag else super().variance

    def _run(self, name: str, *tensors: Any) -> Any:
        """Run an op whose last operand is the scale."""
        op = FUNCTIONS[f"normal_{'diag' if self._diag else 'tril'}_{name}"]
        return op(*tensors) if self._diag else op(*tensors, packed=True)

    def log_prob(self, value: Any) -> Any:
        """Log density; see :meth:`MultivariateNormal.log_prob`."""
        if self._validate_args and value.numel():
            self._validate_sample(value)
        return self._run("log_prob", value, self.loc, self._scale)

    def entropy(self) -> Any:
        """Differential entropy in nats, shape batch_shape: the logarithms of the scales are entries of the vector."""
        d = self._event_shape[0]
        logarithms = self.vector if self._diag else self.vector[..., _diagonal(d, self.vector.device)]
        return logarithms.sum(-1) + d * (0.5 + HALF_LOG_2PI)

    def kl_standard(self) -> Any:
        """KL divergence to ``N(0, I)`` in nats, in closed form, shape batch_shape."""
        return self._run("kl_standard", self.loc, self._scale)

    def _kl_standard(self, shift: Any, scale: Any) -> Any:
        rows = scale if self._diag else scale[..., _rows(self._event_shape[0], scale.device)]
        return self._run("kl_standard", shift, self._scale / rows)

    def rsample_and_log_prob(
        self, sample_shape: Any = (), *, generator: Any = None, key: int | None = None
    ) -> tuple[Any, Any]:
        """Draws and their own log density, in one op from ``loc`` and the vector.

        Parameters
        ----------
        sample_shape : tuple of int
        generator : torch.Generator, optional
            Where the key comes from; that of the distribution by default.
        key : key, optional
            See :func:`reparam.random.as_key`; the draws are then those of the NumPy distributions with this key.

        Returns
        -------
        value : Tensor, shape sample_shape + batch_shape + event_shape
        log_prob : Tensor, shape sample_shape + batch_shape

        Notes
        -----
        Noise of more than one sample is held as a tensor of the size of ``value``.
        """
        used: Any = _draw_key(generator or self.generator) if key is None else as_key(key, "EncodedNormal: key")
        noise = self._addressed_noise(torch.Size(sample_shape), used)
        head = FUNCTIONS[f"normal_{'diag_' if self._diag else ''}vector_transform_and_log_prob"]
        value, log_prob = head(noise, self.loc, self.vector)
        return value, log_prob

    def rsample(self, sample_shape: Any = (), *, generator: Any = None, key: int | None = None) -> Any:
        """The draws of :meth:`rsample_and_log_prob`, which has the parameters."""
        return self.rsample_and_log_prob(sample_shape, generator=generator, key=key)[0]

    def sample(self, sample_shape: Any = (), *, generator: Any = None, key: int | None = None) -> Any:
        """What :meth:`rsample` gives, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator, key=key)

    def _addressed_noise(self, sizes: Any, key: Any) -> Any:
        """Noise of streams ``index``: of one sample as a Draw, which is never stored; of more as a tensor."""
        index = self.index
        if index is None:
            index = torch.arange(self._batch_shape.numel(), device=self.loc.device).reshape(self._batch_shape)
        if sizes.numel() == 1:
            return Draw(key, index[(None,) * len(sizes)])
        n = sizes.numel() * self._event_shape[0]
        place = {"dtype": self.loc.dtype, "device": self.loc.device}
        zeros, ones = torch.zeros(n, **place), torch.ones(n, **place)
        noise = FUNCTIONS["normal_diag_transform"](Draw(key, index), zeros, ones)  # of N(0, I): the noise itself
        noise = noise.unflatten(-1, (sizes.numel(), self._event_shape[0])).movedim(-2, 0)
        return noise.unflatten(0, sizes)


class VariationalGaussian(torch.nn.Module):
    """A layer from features to a Gaussian posterior q(z | x) for each row, which starts at ``N(loc, I)``.

    Parameters
    ----------
    in_features : int
        Size of what the last layer takes: of the features, or of what ``net`` makes of them.
    latent_dim : int
        Size d of z.
    net : torch.nn.Module, optional
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
        self.covariance_type, self.net = covariance_type, net
        self.linear = torch.nn.Linear(features, self.latent_dim + _length(self.latent_dim, covariance_type))
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

        Returns
        -------
        EncodedNormal
            A torch distribution: ``rsample_and_log_prob()`` is one fused op.
        """
        out = self.linear(features if self.net is None else self.net(features))
        if out.dtype in HALVES:  # of autocast: the Gaussian is computed in float32, as torch.linalg does
            out = out.float()
        loc, vector = out.split([self.latent_dim, out.shape[-1] - self.latent_dim], -1)
        validate = False if torch.compiler.is_compiling() else None  # a choice on data, which breaks the graph
        return EncodedNormal(
            loc, vector, self.covariance_type, index=index, generator=generator, validate_args=validate
        )

    def extra_repr(self) -> str:
        """What printing shows beside the layers."""
        return f"latent_dim={self.latent_dim}, covariance_type={self.covariance_type!r}"


def _length(d: int, covariance_type: str) -> int:
    """Entries of the vector."""
    return d if covariance_type == "diag" else d * (d + 1) // 2


def _diagonal(d: int, device: Any) -> Any:
    """Places of the diagonal in a packed lower triangle."""
    i = torch.arange(d, device=device)
    return i * (i + 3) // 2


def _rows(d: int, device: Any) -> Any:
    """The row of each entry of a packed lower triangle."""
    return torch.tril_indices(d, d, device=device)[0]


def _as_index(index: Any, loc: Any) -> Any:
    """Numbers of the events, where they are used."""
    made = torch.as_tensor(index, device=loc.device)
    if made.is_floating_point() or made.is_complex() or made.dtype is torch.bool:
        raise TypeError(f"EncodedNormal: index must hold integers, got {made.dtype}")
    if made.shape != loc.shape[:-1]:
        wanted = f"the batch shape {tuple(loc.shape[:-1])}"
        raise ValueError(f"EncodedNormal: index must have {wanted}, got {tuple(made.shape)}")
    return made


def _draw_key(generator: Any) -> Any:
    """A key as a tensor, so that compiled code draws one at each call."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**63 - 1, (), generator=generator, device=device)
