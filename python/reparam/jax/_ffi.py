# SPDX-License-Identifier: MIT
"""One pass of an op as one foreign call of XLA, and the registration of what runs it."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _check, _core, _xla
from .._backends import cuda, native
from .._dispatch import batches_of_results
from .._op import Pass
from .._settings import tell_num_threads
from .._signature import Operand

_TARGET = "reparam"


class Drawn(NamedTuple):
    """An operand of noise: a uint64 of each event, its stream, and the key of the call, as words of 32 bits."""

    streams: Any  # (..., 2), the low word first, which is a uint64 in memory
    key: Any  # (2,), the high word first, as in JAX


def _register() -> None:
    isa = os.environ.get("REPARAM_ISA") or native.default_isa()
    jax.ffi.register_ffi_target(_TARGET, _xla.use_core(_core.kernels, isa), platform="cpu")
    gpu = cuda.compiled()  # where there is none `reparam info` says why
    if gpu is not None:
        jax.ffi.register_ffi_target(_TARGET, _xla.use_cuda(gpu.kernels), platform="CUDA")
    tell_num_threads(_xla.set_num_threads)


_register()


def batch_of(operand: Operand, x: Any) -> tuple[int, ...]:
    """Batch dims of an operand; a cotangent of zero, None, has none."""
    if x is None:
        return ()
    shape: tuple[int, ...] = x.streams.shape[:-1] if isinstance(x, Drawn) else x.shape[: x.ndim - operand.event_rank]
    return shape


def _axes_of(x: Any) -> frozenset[str]:
    """Under ``shard_map`` the axes of the mesh along which a value differs."""
    aval = jax.typeof(x)
    if hasattr(aval, "manual_axis_type"):  # newer than JAX 0.8
        aval = aval.manual_axis_type
        return frozenset(aval.varying)
    return frozenset(aval.vma)


def varying(values: Any, along: Any) -> Any:
    """Arrays as such that differ along the axes of ``shard_map`` along which others do: cotangents are added over them.

    JAX's own functions see to that where it is needed, a foreign call does not.
    """
    axes: frozenset[str] = frozenset().union(*map(_axes_of, jax.tree.leaves(along)))
    if not axes:
        return values
    cast = functools.partial(jax.lax.pcast, to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary
    return jax.tree.map(lambda x: cast(x, tuple(sorted(axes - _axes_of(x)))), values)


def run(
    p: Pass,
    numbers: tuple[float, ...],
    sizes: dict[str, int],
    operands: Sequence[Any],
    dtype: Any,
    wanted: Sequence[bool] | None = None,
) -> list[Any]:
    """The results of one pass, None for what is not wanted.

    Every operand gets all batch dims of the call, of length 1 where it has none of its own: so a dim that ``vmap`` adds
    in front (of length 1 where an operand is not mapped) is lined up with the others', and no operand is copied.
    """
    shapes = [None if x is None or isinstance(x, Drawn) else x.shape for x in operands]
    extents = _check.resolve_extents(p, shapes, sizes)
    batches = [batch_of(o, x) for o, x in zip(p.inputs, operands, strict=True)]
    batch_shape = _check.broadcast_batches(p.name, [o.name for o in p.inputs], batches)
    rank, keys, args = len(batch_shape), [], []
    for operand, x, batch in zip(p.inputs, operands, batches, strict=True):
        if isinstance(x, Drawn):
            keys.append(x.key.reshape((1,) * rank + (2,)))
            array = x.streams
        else:
            array = jnp.zeros(operand.event_shape(extents), dtype) if x is None else x
        args.append(array.reshape((1,) * (rank - len(batch)) + array.shape))
    mask, forms, ends = 0, [], []
    for k, (operand, batch) in enumerate(zip(p.outputs, batches_of_results(p, batches, batch_shape), strict=True)):
        if wanted is not None and not wanted[k]:
            continue
        end = batch + operand.event_shape(extents)
        item = dtype if operand.item == "real" else operand.item
        forms.append(jax.ShapeDtypeStruct((1,) * (rank - len(batch)) + end, item))
        ends.append(end)
        mask |= 1 << (len(p.inputs) + len(p.left_out) + k)
    call = jax.ffi.ffi_call(_TARGET, forms, vmap_method="expand_dims")
    args = varying([*args, *keys[:1]], args)
    results = call(
        *args,
        op=p.op.name,
        reverse=p.reverse,
        packed=p.unpacked is not p,
        keyed=bool(keys),
        wanted=np.int64(mask),
        numbers=np.asarray(numbers or (0.0,), np.float64),  # an attribute has at least one element
    )
    results = varying(results, args)
    found = iter([x.reshape(end) for x, end in zip(results, ends, strict=True)])
    return [next(found) if wanted is None or wanted[k] else None for k in range(len(p.outputs))]
