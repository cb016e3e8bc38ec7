# SPDX-License-Identifier: MIT
"""A Gaussian for each row of what an encoder gives, whose factor is not in memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributions import constraints

from .._check import as_choice, as_key
from ._draw import Draw
from ._eager import refuse_transforms
from ._functions import FUNCTIONS
from ._tensors import refuse_fields
from .multivariate_normal import MultivariateNormal

__all__ = ["COVARIANCE_TYPES", "EncodedNormal", "length_of_vector"]

COVARIANCE_TYPES = ("full", "diag")
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class EncodedNormal(MultivariateNormal):
    """``N(loc, L L^T)`` with ``L = tril_from_vector(vector)``, or ``N(loc, diag(exp(vector))^2)``.

    A draw and its log density come from the vector by one fused op, whose noise is drawn again in the backward pass
    from its key. ``scale_tril``, and what else needs a factor, is made each time that it is asked for.

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
        refuse_transforms("EncodedNormal")
        refuse_fields("EncodedNormal", {"loc": loc, "vector": vector})
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        batch_shape, d = loc.shape[:-1], loc.shape[-1]
        wanted = (*batch_shape, length_of_vector(d, covariance_type))
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
        """The same distribution over a larger batch, without copies.

        Over new leading dims rows keep their numbers, and the copies of a row take further draws of it: those of
        :meth:`rsample` with these dims as its ``sample_shape``. Where a dim of size 1 grows, events are numbered anew,
        0, 1, 2, ...
        """
        new = self._get_checked_instance(EncodedNormal, _instance)
        for name in ("loc", "vector"):
            setattr(new, name, getattr(self, name).expand((*batch_shape, -1)))
        new.covariance_type, new.generator = self.covariance_type, self.generator
        index, shape = self._numbers(), torch.Size(batch_shape)
        new.index = index if shape[len(shape) - index.dim() :] == index.shape else None
        new._begin(shape, self._event_shape, self._validate_args)
        return new

    @property
    def _diag(self) -> bool:
        return self.covariance_type == "diag"

    @property
    def _scale(self) -> Any:
        """The scales, or the lower triangle of the factor row after row."""
        return self.vector.exp() if self._diag else FUNCTIONS["tril_from_vector"](self.vector, packed=True)

    # A factor that is kept would hold a graph that a backward pass has freed, or the vector before an optimizer's step.
    @property
    def _unbroadcasted_scale_tril(self) -> Any:
        return torch.diag_embed(self._scale) if self._diag else FUNCTIONS["tril_from_vector"](self.vector)

    @property
    def scale_tril(self) -> Any:
        """The factor, shape batch_shape + (d, d), made anew of the vector."""
        return self._unbroadcasted_scale_tril

    @property
    def covariance_matrix(self) -> Any:
        """``L L^T``, shape batch_shape + (d, d), made anew of the vector."""
        factor = self.scale_tril
        return factor @ factor.mT

    @property
    def precision_matrix(self) -> Any:
        """The inverse of :attr:`covariance_matrix`, made anew of the vector."""
        return torch.cholesky_inverse(self.scale_tril)

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
        self._refuse_value(value)
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
        noise = self._addressed_noise(self._sizes(sample_shape), used)
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

    def _numbers(self) -> Any:
        """The streams of the rows; of an expanded batch, without the dims over which rows are repeated."""
        if self.index is not None:
            return self.index
        return torch.arange(math.prod(self._batch_shape), device=self.loc.device).reshape(self._batch_shape)

    def _addressed_noise(self, sizes: Any, key: Any) -> Any:
        """Noise of streams ``index``: of one sample as a Draw, which is never stored; of more as a tensor."""
        index = self._numbers()
        sizes = sizes + self._batch_shape[: len(self._batch_shape) - index.dim()]
        count = math.prod(sizes)  # Size.numel() makes numbers of symbols
        if count == 1:
            return Draw(key, index[(None,) * len(sizes)])
        n = count * self._event_shape[0]
        place = {"dtype": self.loc.dtype, "device": self.loc.device}
        zeros, ones = torch.zeros(n, **place), torch.ones(n, **place)
        noise = FUNCTIONS["normal_diag_transform"](Draw(key, index), zeros, ones)  # of N(0, I): the noise itself
        noise = noise.unflatten(-1, (count, self._event_shape[0])).movedim(-2, 0)
        return noise.unflatten(0, sizes)


def length_of_vector(d: int, covariance_type: str) -> int:
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
