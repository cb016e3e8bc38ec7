# SPDX-License-Identifier: MIT
"""The complete VI algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random
from .._arrays import is_array, is_cupy, move, namespace_of, on_its_device, to_numpy, type_name
from .._check import as_bool, as_choice, as_float, as_int, as_key
from ..elbo import ESTIMATORS, IMPORTANCE, ELBOEstimate, elbo
from ..optim import Adam

__all__ = ["EVALUATION", "INIT", "SHUFFLE", "Step", "maximize_elbo", "purpose_key", "refuse_kl_weight"]

Array = NDArray[Any]
INIT, SHUFFLE, EVALUATION = range(3)


def purpose_key(key: int, purpose: int, number: int) -> int:
    """The key of initialization, of the shuffle of an epoch, of an evaluation: apart from those of the steps."""
    return rp_random.fold_in(rp_random.fold_in(key, 2**63 + purpose), number)


def permutation(n: int, key: int) -> NDArray[np.int64]:
    """A random order of 0 .. n - 1 that depends on the key alone."""
    words = rp_random.bits(2 * n, key=key).view(np.uint64)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True)
class Step:
    """What a callback is told after a step."""

    step: int  # steps done
    epoch: int  # epochs done before this step's
    elbo: float  # this minibatch's mean per row
    model: Any


def refuse_kl_weight(owner: str, estimator: str, kl_weight: float) -> None:
    """Refuse to weigh the KL term of a bound that has none."""
    if estimator in IMPORTANCE and kl_weight != 1:
        raise ValueError(
            f"{owner}: kl_weight must be 1 with estimator={estimator!r}, whose importance-weighted bound has no KL "
            f"term to weigh, got {kl_weight:g}; 'pathwise' and 'stl' take any"
        )


def _failed(estimate: ELBOEstimate, rows: Array) -> str:
    """Which rows have a value or a gradient in loc that is not finite, in words; nothing if none has."""
    finite, loc, rows = np.isfinite(to_numpy(estimate.value)), to_numpy(estimate.grad.loc), to_numpy(rows)
    if loc.shape[: rows.ndim] == rows.shape:  # and is no sum over rows that share it
        finite = finite & np.isfinite(loc.reshape(len(rows), -1)).all(-1)
    failed = np.sort(rows[~finite]).tolist()
    more = f" and {len(failed) - 8} more" if len(failed) > 8 else ""
    return f" in row{'s' * (len(failed) > 1)} {', '.join(map(str, failed[:8]))}{more} of the data" if failed else ""


def _pair(made: Any) -> tuple[Any, Callable[[Any], object]]:
    if not (isinstance(made, tuple) and len(made) == 2 and callable(made[1])):
        raise TypeError(f"maximize_elbo: encode must return (q, pullback), got {type(made).__name__}")
    return made


def _sums(value: Array, grads: Array) -> tuple[float, float]:
    """Of a step's ELBOs and of its gradient: the one time that a step waits for a GPU, which gives both at once."""
    if is_cupy(value):
        both = (value.sum(dtype=np.float64), grads.sum(dtype=np.float64))
        first, second = to_numpy(namespace_of(value).stack(both)).tolist()
        return first, second
    return float(np.sum(value, dtype=np.float64)), float(np.einsum("i->", grads.reshape(-1)))


@on_its_device
def maximize_elbo(  # noqa: PLR0913
    encode: Callable[[Array], tuple[Any, Callable[[Any], object]]],
    log_joint: Callable[[Array], Any],
    optimizer: Adam,
    grads: Array,
    *,
    num_rows: int,
    key: Any,
    batch_size: int,
    epochs: Iterable[int],
    step: int = 0,
    num_samples: int = 1,
    estimator: str = "pathwise",
    kl_weight: float = 1.0,
    shuffle: bool = True,
    on_step: Callable[[int, int, float], bool] | None = None,
    on_epoch: Callable[[int, int, float], object] | None = None,
) -> int:
    """Maximize the ELBO by stochastic gradient ascent: the complete algorithm of variational inference.

    Repeat, for a minibatch of rows x of the data:

    1. ``q = encode(x)``, a Gaussian for each row (amortized: by a net; classical: the row's own parameters);
    2. noise, and ``z = loc + L noise`` (reparameterization);
    3. the ELBO's value and gradient, with respect to q and to theta in ``log p_theta(x, z)``;
    4. the gradient of q goes back to the parameters;
    5. one step of Adam on the mean per row;

    until the epochs are done or a callback stops it.

    Parameters
    ----------
    encode : callable
        ``encode(rows) -> (q, pullback)``, with ``rows`` an array of their numbers that lies where ``grads`` does;
        ``pullback(gradient of q)`` writes q's part of ``grads``, all of it: zeros for parameters that these rows do not
        have.
    log_joint : callable
        ``log_joint(rows)`` gives what :func:`reparam.elbo` takes; where theta is learned, its pullback writes theta's
        part of ``grads``. With a ``kl_weight`` w it stands for ``log p(x | z)/w + log p(z)``.
    optimizer : Adam
        Holds the parameters.
    grads : array
        The flat gradient that the pullbacks fill, an ascent direction of the sum over the rows.
    num_rows, batch_size : int
        Rows of the data, and of a minibatch; the last one of an epoch may be shorter.
    key : key
        Step t draws its noise with ``fold_in(key, t)``, addressed by the row's number: a row's draws do not depend on
        the batch it stands in. Epoch e is shuffled by ``fold_in(fold_in(key, 2**63 + 1), e)``.
    epochs : iterable of int
        Numbers of the epochs to run.
    step : int
        Steps done before.
    num_samples, estimator
        As in :func:`reparam.elbo`.
    kl_weight : float
        w > 0 in ``E log p(x | z) - w KL(q || p(z))``; 1 for "iwae" and "dreg", whose bound has no KL term.
    shuffle : bool
        Whether an epoch's rows are shuffled.
    on_step : callable, optional
        ``on_step(step, epoch, mean ELBO of the minibatch)``; True stops.
    on_epoch : callable, optional
        ``on_epoch(step, epoch, mean ELBO of the epoch)``, after each epoch that was not stopped.

    Returns
    -------
    int
        Steps done.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected. ValueError also where an ELBO or a gradient is not finite,
        naming the rows of the data: the parameters are then those of the step before.

    Notes
    -----
    Ranganath, Gerrish and Blei, arXiv 1401.0118; Kingma and Welling, arXiv 1312.6114.
    """
    for name, value in {"encode": encode, "log_joint": log_joint, "on_step": on_step, "on_epoch": on_epoch}.items():
        if not callable(value) and not (value is None and name.startswith("on_")):
            raise TypeError(f"maximize_elbo: {name} must be callable, got {type(value).__name__}")
    if not isinstance(optimizer, Adam):
        raise TypeError(f"maximize_elbo: optimizer must be an Adam, got {type(optimizer).__name__}")
    if not is_array(grads):
        raise TypeError(f"maximize_elbo: grads must be an array, got {type_name(grads)}")
    as_int("maximize_elbo: num_rows", num_rows, 1)
    if as_int("maximize_elbo: batch_size", batch_size, 1) > num_rows:
        raise ValueError(f"maximize_elbo: batch_size must be <= num_rows = {num_rows}, got {batch_size}")
    as_float("maximize_elbo: kl_weight", kl_weight, 0, above=True)
    refuse_kl_weight("maximize_elbo", as_choice("maximize_elbo: estimator", estimator, ESTIMATORS), kl_weight)
    shuffle = as_bool("maximize_elbo: shuffle", shuffle)
    step, key = as_int("maximize_elbo: step", step), as_key(key, "maximize_elbo: key")
    if not np.iterable(epochs):
        raise TypeError(f"maximize_elbo: epochs must be the numbers of the epochs, such as range(10), got {epochs!r}")
    for epoch in epochs:
        order = permutation(num_rows, purpose_key(key, SHUFFLE, epoch)) if shuffle else np.arange(num_rows)
        order = move(order, grads)
        total = 0.0
        for start in range(0, num_rows, batch_size):
            rows = order[start : start + batch_size]
            q, pullback = _pair(encode(rows))
            estimate = elbo(
                q,
                log_joint(rows),
                key=rp_random.fold_in(key, step),
                num_samples=num_samples,
                estimator=estimator,
                index=rows,
            )
            pullback(estimate.grad)
            sum_of_elbos, sum_of_grads = _sums(estimate.value, grads)
            batch_elbo = kl_weight * sum_of_elbos
            if not (math.isfinite(batch_elbo) and math.isfinite(sum_of_grads)):
                raise ValueError(
                    f"maximize_elbo: training diverged at step {step + 1} (epoch {epoch}): the minibatch's ELBO is "
                    f"{batch_elbo / len(rows):g} or its gradient is not finite{_failed(estimate, rows)}; lower lr, or "
                    "scale the data"
                )
            np.multiply(grads, grads.dtype.type(-kl_weight / len(rows)), out=grads)
            optimizer.step(grads)
            step += 1
            total += batch_elbo
            if on_step is not None and on_step(step, epoch, batch_elbo / len(rows)):
                return step
        if on_epoch is not None:
            on_epoch(step, epoch, total / num_rows)
    return step
