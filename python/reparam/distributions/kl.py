# SPDX-License-Identifier: MIT
"""The Kullback-Leibler divergence of any two Gaussians of one event shape."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .. import ops
from .._arrays import on_its_device
from .._check import broadcast_batches, same_dtype
from .families import MultivariateNormal, MultivariateNormalDiag, Normal, dense_scale
from .gaussian import Gaussian

__all__ = ["kl_divergence"]

Array = NDArray[Any]
Family = Normal | MultivariateNormalDiag | MultivariateNormal


@on_its_device
def kl_divergence(q: Family, p: Family) -> Array:
    """KL(q || p) in closed form, in nats.

    Parameters
    ----------
    q, p : Normal, MultivariateNormalDiag or MultivariateNormal
        Of one event shape and dtype; batch shapes broadcast. So the two of vector events go together, packed or not,
        and a Normal, whose event shape is (), with a Normal alone; ``MultivariateNormalDiag(loc[..., None],
        scale[..., None])`` is that Normal as a vector of one coordinate.

    Returns
    -------
    array, of the batch shapes broadcast
        ``(|A|_F^2 + |y|^2 - d)/2 + log det L_p - log det L_q`` with ``A = L_p^-1 L_q``, ``y = L_p^-1 (loc_q - loc_p)``.

    Raises
    ------
    TypeError, ValueError
        For other types, or event shapes, dtypes or batch shapes that do not fit.
    """
    for name, value in (("q", q), ("p", p)):
        if not isinstance(value, Gaussian):
            raise TypeError(f"kl_divergence: {name} must be a Gaussian of this package, got {type(value).__name__}")
    if q.event_shape != p.event_shape:
        raise ValueError(f"kl_divergence: event shapes differ: q has {q.event_shape}, p has {p.event_shape}")
    same_dtype("kl_divergence", ("q", q.dtype), ("p", p.dtype))
    broadcast_batches("kl_divergence", ["q", "p"], [q.batch_shape, p.batch_shape])
    if "tril" in (q._family, p._family):  # the op of two factors is exact near zero, so a diagonal one becomes dense
        q_scale, p_scale, family = dense_scale(q), dense_scale(p), "normal_tril"
    else:
        q_scale, p_scale, family = q._scale, p._scale, q._ops
    result: Array = getattr(ops, f"{family}_kl")(q.loc, q_scale, p.loc, p_scale)
    return result
