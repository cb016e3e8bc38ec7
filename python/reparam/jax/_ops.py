# SPDX-License-Identifier: MIT
"""Functions on JAX's arrays, one for each op of the table, with gradients by the op's own vjp."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from .. import _check
from .._op import Op, Pass, without_out
from .._operands import code_attributes, split_keywords
from ._draw import Draw, words_of
from ._ffi import Drawn, run, varying

__all__ = ["function_of", "same_dtype"]


class Call(NamedTuple):
    """What of a call is known when it is traced."""

    p: Pass
    numbers: tuple[float, ...]
    sizes: tuple[tuple[str, int], ...]
    dtype: Any
    traced: tuple[bool, ...]  # by input; the others are constants, whose cotangents nobody can ask for


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(call: Call, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(run(call.p, call.numbers, dict(call.sizes), operands, call.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _once(call: Call, wanted: tuple[bool, ...] | None, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """A pass that nobody can differentiate."""
    return tuple(run(call.p, call.numbers, dict(call.sizes), operands, call.dtype, wanted))


@_once.defjvp
def _no_derivative(call: Call, _wanted: Any, _primals: Any, _tangents: Any) -> Any:
    which = "second derivative" if call.p.reverse else "derivative"
    raise NotImplementedError(f"{call.p.op.name} has no {which}")


def _forward(call: Call, operands: tuple[Any, ...]) -> Any:
    """Outputs, and what the reverse pass takes.

    Which inputs are differentiated must not show in their form: a cached function may be asked for others the next
    time, and JAX goes by the form that it saw first.
    """
    values = jax.tree.map(lambda x: x.value, operands, is_leaf=lambda x: isinstance(x, CustomVJPPrimal))
    outputs = _differentiable(call, values)
    return outputs, values if call.p.op.vjp_from == "inputs" else _real(call.p, outputs)


def _reverse(call: Call, kept: tuple[Any, ...], cotangents: tuple[Any, ...]) -> tuple[Any, ...]:
    op = call.p.op
    p = op.vjp_pass if call.p.unpacked is call.p else op.vjp_pass.packed  # type: ignore[union-attr]
    assert p is not None
    given = [None if isinstance(ct, SymbolicZero) else ct for ct in _real(call.p, cotangents)]
    asked = [traced and not isinstance(x, Drawn) for x, traced in zip(kept, call.traced, strict=True)]
    return (_once(call._replace(p=p), tuple(asked), (*kept, *given)),)


def _real(p: Pass, outputs: Any) -> tuple[Any, ...]:
    """Of the outputs or their cotangents those of the floating type."""
    return tuple(x for o, x in zip(p.outputs, outputs, strict=True) if o.item == "real")


_differentiable.defvjp(_forward, _reverse, symbolic_zeros=True)


def _apply(call: Call, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    if call.p.op.vjp is not None:
        found: tuple[Any, ...] = _differentiable(call, operands)
        return found
    made: tuple[Any, ...] = _once(call, None, operands)
    return made


_compiled = jax.jit(_apply, static_argnums=0, inline=True)


def same_dtype(owner: str, arrays: list[tuple[str, Any]]) -> tuple[list[Any], Any]:
    """Arrays of one floating type, which Python's numbers take; refused as JAX's own functions do.

    ``arrays`` are pairs of a name and a value.
    """
    found = []
    for k, (_, x) in enumerate(arrays):
        if not isinstance(x, (jax.Array, np.ndarray, np.generic, int, float)) and not hasattr(x, "__jax_array__"):
            raise TypeError(f"{owner} requires ndarray or scalar arguments, got {type(x)} at position {k}.")
        found.append(jnp.asarray(x))
    strong = []
    for (name, _), x in zip(arrays, found, strict=True):
        number = x.weak_type and x.dtype.kind in "if" and x.ndim == 0
        if not number and x.dtype not in _check.FLOATS:
            raise TypeError(
                f"{owner} does not accept dtype {x.dtype.name} for {name}. Accepted dtypes are float32 and float64."
            )
        if not x.weak_type:
            strong.append(x.dtype)
    if len(set(strong)) > 1:
        names = ", ".join(d.name for d in strong)
        raise TypeError(f"{owner} requires arguments to have the same dtypes, got {names}.")
    dtype = strong[0] if strong else jnp.result_type(float)
    return [jax.lax.convert_element_type(x, dtype) for x in found], dtype


def _operands(name: str, p: Pass, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    drawn = {}
    for operand, x in zip(p.inputs, args, strict=True):
        if isinstance(x, Draw):
            if not operand.drawable:
                raise TypeError(f"{name}: {operand.name} must be an array, got a Draw")
            drawn[operand.name] = Drawn(*words_of(x, name))
    given = [(o.name, x) for o, x in zip(p.inputs, args, strict=True) if o.name not in drawn]
    arrays, dtype = same_dtype(name, given)
    rest = iter(arrays)
    operands = tuple(drawn.get(o.name) or next(rest) for o in p.inputs)
    return varying(operands, operands), dtype


def function_of(op: Op, name: str | None = None) -> Callable[..., Any]:
    """The function that users call, under a name of its own or the op's."""
    name = name or op.name

    def call(*args: Any, **keywords: Any) -> Any:
        p = op.forward_pass
        if p.packed and _check.as_bool(f"{name}: packed", keywords.pop("packed", False)):
            p = p.packed
        args, given = split_keywords(p, args, keywords)
        sizes = {s: _check.as_int(f"{name}: {s}", keywords.pop(s)) for s in p.free_symbols if s in keywords}
        if keywords:
            known = ", ".join(call.__signature__.parameters)  # type: ignore[attr-defined]
            raise TypeError(f"{name} got an unexpected keyword {next(iter(keywords))!r}; it takes {known}")
        _check.check_operands(p, len(args))
        operands, dtype = _operands(name, p, args)
        numbers = code_attributes(p, given) if op.attributes else ()
        traced = tuple(isinstance(x, jax.core.Tracer) for x in args)
        traced = traced if any(traced) else (True,) * len(args)  # the gradient of a call on constants is not taken
        found = _compiled(Call(p, numbers, tuple(sizes.items()), dtype, traced), operands)
        if op.result is not None:
            return op.result(*found)
        return found[0] if len(found) == 1 else found

    call.__name__ = call.__qualname__ = op.name
    call.__module__ = "reparam.jax"
    call.__doc__, call.__signature__ = without_out(op)  # type: ignore[attr-defined]
    return call
