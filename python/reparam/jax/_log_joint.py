# SPDX-License-Identifier: MIT
"""A density written in JAX as what ``elbo``, ``fit_vi`` and ``map_estimate`` take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

__all__ = ["log_joint"]


def log_joint(fn: Callable[..., Any], *data: Any) -> Callable[[Any], Any]:
    """Log p(x, z) from a density of one z, compiled and mapped over draws and data points.

    Parameters
    ----------
    fn : callable
        ``fn(z, *row) -> scalar``, with ``z`` of shape (d,): the log density, up to a constant, in functions of JAX.
    *data : array or pytree of arrays, optional
        Their leading dims are the batch dims of ``z``, one row for each data point.

    Returns
    -------
    callable
        ``value[S, *B, d] -> (log_prob[S, *B], pullback)`` on NumPy arrays, for :func:`reparam.elbo`,
        :func:`reparam.fit_vi` and :func:`reparam.map_estimate`. The pullback runs the backward pass from what the
        forward pass has kept.

    Raises
    ------
    TypeError
        When it is called: float64 without JAX's x64, or an ``fn`` whose result is no scalar of z's dtype.
    ValueError
        When it is called: an ``fn`` whose result does not depend on z.

    Examples
    --------
    ::

        def density(z, x):  # z ~ N(0, I), x | z ~ Poisson(exp(z))
            return -z @ z / 2 + x @ z - jnp.exp(z).sum()

        rp.fit_vi(rp.jax.log_joint(density, counts), 2, batch_shape=(len(counts),), dtype="float32")
    """

    @jax.jit
    def forward(value: Any, data: Any) -> Any:
        mapped = fn
        for _ in range(value.ndim - 2):
            mapped = jax.vmap(mapped)
        over_draws = jax.vmap(mapped, in_axes=(0, *(None for _ in data)))
        traced = jax.make_jaxpr(lambda z: over_draws(z, *data))(value)
        if len(traced.out_avals) != 1:
            raise TypeError(f"log_joint: fn must return one scalar for each z, got {len(traced.out_avals)} arrays")
        if traced.out_avals[0].dtype == value.dtype and not any(_depends(traced.jaxpr, [True])):
            raise ValueError("log_joint: what fn returns must depend on z by differentiable operations")
        return jax.vjp(lambda z: over_draws(z, *data), value)

    backward = jax.jit(lambda pull, weights: pull(weights)[0])

    def call(value: Any) -> Any:
        array = jnp.array(value)  # a copy: the backward pass may need it when the caller's is used again
        if array.dtype != value.dtype:
            raise TypeError(
                f"log_joint: value is {value.dtype}, but JAX computes in {array.dtype}; set jax_enable_x64, or ask for "
                f'dtype="{array.dtype}"'
            )
        log_prob, pull = forward(array, data)
        if log_prob.shape != array.shape[:-1] or log_prob.dtype != array.dtype:
            came = f"{log_prob.dtype}{list(log_prob.shape[array.ndim - 1 :])}"
            raise TypeError(f"log_joint: fn must return a scalar of dtype {array.dtype} for each z, got {came}")

        def pullback(weights: Any) -> Any:
            return np.asarray(backward(pull, jnp.asarray(weights, array.dtype)))

        return np.asarray(log_prob), pullback

    return call


_CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call"}


def _depends(jaxpr: Any, given: list[bool]) -> list[bool]:
    """Which results can have a gradient in the arguments that are ``given``."""
    reached = {x for x, is_given in zip(jaxpr.invars, given, strict=True) if is_given}

    def is_reached(x: Any) -> bool:
        return not isinstance(x, jax.extend.core.Literal) and x in reached

    for equation in jaxpr.eqns:
        marks = [is_reached(x) for x in equation.invars]
        name, inner = equation.primitive.name, equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        found = [any(marks) and name != "stop_gradient"] * len(equation.outvars)
        if name in _CALLS and inner is not None:
            found = _depends(getattr(inner, "jaxpr", inner), marks)
        reached.update(x for x, is_found in zip(equation.outvars, found, strict=True) if is_found)
    return [is_reached(x) for x in jaxpr.outvars]
