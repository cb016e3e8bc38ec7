# SPDX-License-Identifier: MIT
"""Counter-based noise: words of Philox4x32-10 and standard normals made from them, the same bits on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op, scalar_form
from ._normal_transform import normal_pair32, normal_pair64, philox4x32

_KEY = {"key_low": None, "key_high": None}
_WORD, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def _blocks(n, per_block):
    """Numbers of the blocks that hold n elements: as lanes, all at once on an axis before the streams."""
    return (np.arange(-(-n // per_block))[:, None],)


@scalar_form(_blocks)
def _(n, per_block):
    return range(-(-n // per_block))


def _store(out, at, value):
    """Element ``at`` of the output, if it has so many."""
    inside = at[:, 0] < out.shape[0]
    out[at[inside, 0]] = value[inside]


@scalar_form(_store)
def _(out, at, value):
    if at < out.shape[0]:
        out[at] = value


def _words(stream, block, key_low, key_high):
    """Four words of one block of a stream."""
    counter = (block & _WORD, block >> _32, stream & _WORD, stream >> _32)
    return philox4x32(*counter, np.uint64(key_low), np.uint64(key_high))


@op("():u8,():u8->(n):u4", attributes=_KEY)
def bits(stream, offset, key_low, key_high, words):
    """Raw words ``offset .. offset + n - 1`` of a stream; ``offset`` is a multiple of 4."""
    for k in _blocks(words.shape[0], 4):
        w0, w1, w2, w3 = _words(stream, offset // np.uint64(4) + np.uint64(k), key_low, key_high)
        _store(words, 4 * k, w0)
        _store(words, 4 * k + 1, w1)
        _store(words, 4 * k + 2, w2)
        _store(words, 4 * k + 3, w3)


@op("():u8,():u8->(n)", attributes=_KEY)
def normal(stream, offset, key_low, key_high, noise):
    """Standard normals ``offset .. offset + n - 1`` of a stream; ``offset`` is a multiple of 4."""
    if noise.itemsize == 4:
        for k in _blocks(noise.shape[0], 4):
            w0, w1, w2, w3 = _words(stream, offset // np.uint64(4) + np.uint64(k), key_low, key_high)
            z0, z1 = normal_pair32(w0, w1)
            z2, z3 = normal_pair32(w2, w3)
            _store(noise, 4 * k, z0)
            _store(noise, 4 * k + 1, z1)
            _store(noise, 4 * k + 2, z2)
            _store(noise, 4 * k + 3, z3)
    else:
        for k in _blocks(noise.shape[0], 2):
            w0, w1, w2, w3 = _words(stream, offset // np.uint64(2) + np.uint64(k), key_low, key_high)
            z0, z1 = normal_pair64(w0, w1, w2, w3)
            _store(noise, 2 * k, z0)
            _store(noise, 2 * k + 1, z1)


__all__: list[Any] = ["bits", "normal"]
