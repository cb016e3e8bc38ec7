# SPDX-License-Identifier: MIT
"""PyTorch's multivariate normal on the kernels of this package."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints

from ._eager import refuse_transforms
from ._functions import FUNCTIONS
from ._tensors import refuse_fields

__all__ = ["MultivariateNormal"]


class MultivariateNormal(torch.distributions.MultivariateNormal):
    """``torch.distributions.MultivariateNormal`` with sampling, densities, Cholesky and gradients by compiled kernels.

    The same seed gives the same draws as PyTorch's own, to rounding: only the import changes.

    Parameters
    ----------
    loc : Tensor, shape (..., d)
        float32 or float64.
    covariance_matrix, precision_matrix, scale_tril : Tensor, shape (..., d, d)
        Exactly one, whose batch dims broadcast with those of ``loc``. Of a ``scale_tril`` the lower triangle is read.
    validate_args : bool, optional
        Whether to check values, here and in :meth:`log_prob`; PyTorch's default.

    Raises
    ------
    TypeError
        For what is no tensor of float32 or float64, and for tensors of two dtypes or on two devices.
    ValueError
        For shapes that do not fit; with ``validate_args`` also for values that do not, as PyTorch words it.
    torch.linalg.LinAlgError
        Without ``validate_args``, if a covariance or precision matrix has no Cholesky factor.

    Notes
    -----
    A factor that is shared by a batch stays one: it is never copied to the batch shape, and its gradient is summed
    where it is made. There is no limit on the batch, where PyTorch's solver on a GPU has one of 524,280. Unlike
    there, nothing is promoted: ``loc``, the matrix and ``value`` have one dtype, and none is a list or an array.
    """

    _validate_args: bool

    def __init__(
        self,
        loc: Any,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        refuse_transforms("MultivariateNormal")
        refuse_fields("MultivariateNormal", {"loc": loc})
        if loc.dim() < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        named = [(name, value) for name, value in given.items() if value is not None]
        if len(named) != 1:
            names = "covariance_matrix or precision_matrix or scale_tril"
            raise ValueError(f"Exactly one of {names} may be specified.")
        ((name, matrix),) = named
        refuse_fields("MultivariateNormal", {"loc": loc, name: matrix})
        d = loc.shape[-1]
        if matrix.dim() < 2 or matrix.shape[-2:] != (d, d):
            raise ValueError(f"{name} must have shape (..., d, d) with d = {d} (from loc), got {tuple(matrix.shape)}")
        batch_shape = torch.broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        self.loc = loc.expand((*batch_shape, -1))
        setattr(self, name, matrix.expand((*batch_shape, -1, -1)))
        self._begin(batch_shape, loc.shape[-1:], validate_args)
        if self._validate_args:
            self._require_real("loc")
        if name == "scale_tril":
            if self._validate_args:
                self._require(name, constraints.lower_cholesky, _is_lower_cholesky(matrix))
            self._unbroadcasted_scale_tril = matrix
            return
        if self._validate_args:
            self._require(name, constraints.positive_definite, constraints.symmetric.check(matrix).all())
        try:
            factor = _factor_of_precision(matrix) if name == "precision_matrix" else FUNCTIONS["cholesky"](matrix)
        except torch.linalg.LinAlgError:
            if self._validate_args:  # PyTorch has asked before it factors
                self._require(name, constraints.positive_definite, False)
            raise
        self._unbroadcasted_scale_tril = factor

    def _begin(self, batch_shape: Any, event_shape: Any, validate_args: bool | None) -> None:
        """The part of the base class: the checks of values come after it, on what has not been broadcast."""
        super(torch.distributions.MultivariateNormal, self).__init__(batch_shape, event_shape, validate_args=False)
        self._validate_args = type(self)._validate_args if validate_args is None else validate_args

    def _require(self, name: str, constraint: Any, valid: Any) -> None:
        if not valid:
            value = getattr(self, name)
            raise ValueError(
                f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                f"{self!r} to satisfy the constraint {constraint!r}, but found invalid values:\n{value}"
            )

    def _require_real(self, name: str) -> None:
        x = getattr(self, name)
        self._require(name, constraints.real_vector, (x == x).all())  # noqa: PLR0124  (NaN alone is not itself)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution over a larger batch, without copies."""
        return super().expand(batch_shape, self._get_checked_instance(MultivariateNormal, _instance))

    @property
    def _owner(self) -> str:
        """Who errors are of."""
        return type(self).__name__

    def _sizes(self, sample_shape: Any) -> Any:
        """What is asked for in a draw."""
        refuse_transforms(self._owner)
        if isinstance(sample_shape, int):
            raise TypeError(
                f"{self._owner}: sample_shape must be a tuple, such as ({sample_shape},), got {sample_shape}"
            )
        return torch.Size(sample_shape)

    def _refuse_value(self, value: Any) -> None:
        """Check what log_prob was given."""
        refuse_transforms(self._owner)
        refuse_fields(self._owner, {"value": value, "the distribution": self.loc})
        d = self._event_shape[0]
        if value.dim() < 1 or value.shape[-1] != d:
            wanted = f"(..., d) with d = {d}"
            raise ValueError(f"{self._owner}: value must have shape {wanted}, got {tuple(value.shape)}")
        if self._validate_args and value.numel():  # of no events PyTorch's own check fails
            self._validate_sample(value)

    def _noise(self, sample_shape: Any, generator: Any) -> Any:
        """What PyTorch's own would draw."""
        shape = self._extended_shape(self._sizes(sample_shape))
        empty = torch.empty(shape, dtype=self.loc.dtype, device=self.loc.device)
        return empty.normal_(generator=generator)  # randn takes no generator where sizes are symbols

    def rsample(self, sample_shape: Any = (), *, generator: Any = None) -> Any:
        """Draws, as a function of ``loc`` and the factor: ``loc + scale_tril @ noise``.

        Parameters
        ----------
        sample_shape : tuple of int
        generator : torch.Generator, optional
            Where the noise comes from; PyTorch's default one.

        Returns
        -------
        Tensor, shape sample_shape + batch_shape + event_shape
        """
        noise = self._noise(sample_shape, generator)
        return FUNCTIONS["normal_tril_transform"](noise, self.loc, self._unbroadcasted_scale_tril)

    def sample(self, sample_shape: Any = (), *, generator: Any = None) -> Any:
        """What :meth:`rsample` gives, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def rsample_and_log_prob(self, sample_shape: Any = (), *, generator: Any = None) -> tuple[Any, Any]:
        """Draws and their own log density, without a triangular solve.

        Parameters
        ----------
        sample_shape, generator
            As in :meth:`rsample`.

        Returns
        -------
        value : Tensor, shape sample_shape + batch_shape + event_shape
            What :meth:`rsample` gives.
        log_prob : Tensor, shape sample_shape + batch_shape
            Equal to ``log_prob(value)``, as a function of ``loc`` and the factor alone.
        """
        noise = self._noise(sample_shape, generator)
        transform = FUNCTIONS["normal_tril_transform_and_log_prob"]
        value, log_prob = transform(noise, self.loc, self._unbroadcasted_scale_tril)
        return value, log_prob

    def log_prob(self, value: Any) -> Any:
        """Log density.

        Parameters
        ----------
        value : Tensor, shape (..., d)
            Its batch dims broadcast with ``batch_shape``.

        Returns
        -------
        Tensor, of the batch dims broadcast

        Raises
        ------
        TypeError, ValueError
            For a value of another dtype, device or d; with ``validate_args`` as PyTorch words it for values.
        """
        self._refuse_value(value)
        return FUNCTIONS["normal_tril_log_prob"](value, self.loc, self._unbroadcasted_scale_tril)

    def entropy(self) -> Any:
        """Differential entropy in nats, shape batch_shape."""
        return FUNCTIONS["normal_tril_entropy"](self._unbroadcasted_scale_tril).expand(self._batch_shape)

    def _kl_standard(self, shift: Any, scale: Any) -> Any:
        """KL to ``N(0, I)`` of this Gaussian moved to the mean ``shift``, its coordinates divided by ``scale``."""
        factor = self._unbroadcasted_scale_tril / scale[..., None]
        return FUNCTIONS["normal_tril_kl_standard"](shift, factor)


def _is_lower_cholesky(x: Any) -> Any:
    factor = x.detach()
    return torch.equal(factor.tril(), factor) and (factor.diagonal(dim1=-2, dim2=-1) > 0).all()


def _factor_of_precision(matrix: Any) -> Any:
    """The lower factor of the inverse: P reversed has the factor C, and L is the reverse of C^-T, lower again."""
    reversed_factor = FUNCTIONS["cholesky"](matrix.flip(-2, -1))
    d = matrix.shape[-1]
    columns = torch.eye(d, dtype=matrix.dtype, device=matrix.device)
    inverse = FUNCTIONS["tril_solve"](reversed_factor[..., None, :, :], columns)  # row k is C^-1 e_k
    return inverse.flip(-2, -1)
