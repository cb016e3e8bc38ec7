# SPDX-License-Identifier: MIT
"""The kernels of a GPU on CUDA tensors, by their addresses: on torch's current stream, in memory of its allocator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._backends import cuda
from .._check import NotPositiveDefiniteError, as_bool, as_int, check_in_place, check_operands, refuse_backend
from .._dispatch import counts
from .._op import Pass
from .._operands import Draw as DrawOfArrays
from .._operands import code_attributes, refuse_unknown, split_keywords
from .._settings import named_backend
from ..ops import cholesky, cholesky_ex
from ._draw import Draw, as_draw
from ._plan import planned

__all__ = ["run"]


class _Device:
    """A GPU as the current one, by ``with``; errors say its number and kind."""

    def __init__(self, device: Any) -> None:
        self.id = device.index
        self._guard = torch.cuda.device(device)

    @property
    def compute_capability(self) -> str:
        """Such as 90."""
        major, minor = torch.cuda.get_device_capability(self.id)
        return f"{major}{minor}"

    def __enter__(self) -> None:
        self._guard.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._guard.__exit__(*error)


class _Tensors:
    """How tensors lie on a GPU."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def place(self, x: Any) -> cuda.Place:
        """Address, bytes of an element, shape, strides in bytes."""
        item = x.element_size()
        return x.data_ptr(), item, tuple(x.shape), tuple([s * item for s in x.stride()])

    def alloc(self, size: int) -> tuple[Any, int]:
        """Memory that is freed with the first, and its address: for this stream alone, until its work is done."""
        memory = torch.empty(size, dtype=torch.uint8, device=self._device)
        return memory, memory.data_ptr()

    def stream(self) -> int:
        """The current one."""
        pointer: int = torch.cuda.current_stream(self._device).cuda_stream
        return pointer


def run(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """The results as a tuple of tensors on the GPU of the operands, with None for one that is not wanted."""
    if p.op is cholesky:
        return _cholesky(p, args, keywords)
    keywords = {**keywords}
    wrt = keywords.pop("wrt", None)
    if p.packed and as_bool(f"{p.name}: packed", keywords.pop("packed", False)):
        p = p.packed
    args, given = split_keywords(p, args, keywords)
    refuse_unknown(p, keywords)
    check_operands(p, len(args))
    attributes = code_attributes(p, given)
    refuse_backend(p.name, named_backend(), *_WORDS)
    device = next(x.device for x in args if isinstance(x, torch.Tensor) and x.is_cuda)
    with cuda.on(_Device(device), p.name, *_WORDS):
        args = tuple([_drawn(p, x, device) if isinstance(x, (Draw, DrawOfArrays)) else x for x in args])
        made = planned(p, args, {s: as_int(f"{p.name}: {s}", n) for s, n in keywords.items()})
        real = torch.float64 if made.dtype == "float64" else torch.float32
        inputs = [_operand(p, k, x, (made, real, device)) for k, x in enumerate(args)]
        if p.in_place:
            inputs = _apart(p, inputs, made.batch_shape)
        names = [o.name.removeprefix("ct_") for o in p.outputs]
        results = [
            torch.empty(shape, dtype=dtype, device=device) if wrt is None or name in wrt else None
            for name, (shape, dtype) in zip(names, made.results, strict=True)
        ]
        counts["native:cuda"] += 1
        cuda.launch(_Tensors(device), p, made, attributes, inputs, results)
    return tuple(results)


_WORDS = ("CUDA tensors", ".cpu()")


def _apart(p: Pass, inputs: list[Any], batch_shape: tuple[int, ...]) -> list[Any]:
    """Copies of operands that are read and share memory with one that is updated."""
    headers = [np.asarray(_Header(x)) for x in inputs]
    check_in_place(p, headers, batch_shape)
    written = [h for o, h in zip(p.inputs, headers, strict=True) if o.in_place]
    return [
        x if o.in_place or not any(np.may_share_memory(h, w) for w in written) else x.clone()
        for o, x, h in zip(p.inputs, inputs, headers, strict=True)
    ]


class _Header:
    """Shape, strides and address of a tensor, for NumPy to reckon with; it must not read there."""

    def __init__(self, x: Any) -> None:
        strides = tuple(n * x.element_size() for n in x.stride())
        self.__array_interface__ = {
            "version": 3, "shape": tuple(x.shape), "typestr": f"<f{x.element_size()}", "strides": strides,
            "data": (x.data_ptr(), False),
        }  # fmt: skip


def _operand(p: Pass, k: int, x: Any, call: Any) -> Any:
    """What lies on the GPU in place of a number, or of a cotangent of zero."""
    made, real, device = call
    if isinstance(x, (torch.Tensor, Draw)):
        return x
    if x is not None:
        return torch.full((), x, dtype=real, device=device)
    event = p.inputs[k].event_shape(dict(zip(p.symbols, made.sizes, strict=True)))
    return torch.zeros((), dtype=real, device=device).expand(event)


def _drawn(p: Pass, draw: Any, device: Any) -> Draw:
    """The key, and the index on the GPU; of a reused Draw of NumPy's index it is uploaded once for each stream."""
    draw = as_draw(p.name, draw)
    if isinstance(draw, DrawOfArrays):
        uploaded = vars(draw).setdefault("_uploaded", {})
        place = (torch, device, _Tensors(device).stream())
        if place not in uploaded:
            uploaded[place] = torch.from_numpy(draw.index.astype(np.int64)).to(device)
        return Draw(draw.key, uploaded[place])
    return Draw(draw.key, draw.index.to(device, torch.int64))


def _cholesky(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
    """What is made of calls of ``cholesky_ex``; the host waits where it asks for failures."""
    if p.reverse:
        vjp: Any = cholesky_ex.vjp_pass
        return run(vjp, args, keywords)
    check, jitter = as_bool("cholesky: check", keywords.get("check", True)), keywords.get("jitter")
    scale_tril, info = run(cholesky_ex.forward_pass, args, {})
    if (check or jitter is not None) and info.count_nonzero():
        try:
            if jitter is None:
                raise NotPositiveDefiniteError(info.cpu().numpy())
            on_host = cholesky(args[0].cpu().numpy(force=True), check=check, jitter=jitter)  # seldom
        except NotPositiveDefiniteError as error:
            raise torch.linalg.LinAlgError(str(error)) from error
        return (torch.from_numpy(np.asarray(on_host)).to(scale_tril.device),)
    return (scale_tril,)
