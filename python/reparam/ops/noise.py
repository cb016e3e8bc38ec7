# SPDX-License-Identifier: MIT
"""Counter-based noise: words of Philox4x32-10 and standard normals made from them, the same bits on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._op import op
from ._normal_transform import normals_from_words, philox4x32

_KEY = {"key_low": None, "key_high": None}
_WORD = np.uint64(0xFFFFFFFF)


def _words(stream, offset, key_low, key_high, per_block, count):
    """Words ``[4, blocks, B]`` of the blocks that hold elements offset .. offset + count - 1."""
    blocks = np.arange(-(-count // per_block), dtype=np.uint64)[:, None]
    block = offset // np.uint64(per_block) + blocks
    shape = np.broadcast_shapes(block.shape, stream.shape)
    counters = (block & _WORD, block >> np.uint64(32), stream & _WORD, stream >> np.uint64(32))
    c0, c1, c2, c3 = (np.broadcast_to(c, shape) for c in counters)
    words = philox4x32(c0, c1, c2, c3, np.uint64(key_low), np.uint64(key_high))
    return np.stack(words).astype(np.uint32)


def _in_order(made):
    """Elements ``[k, blocks, B]`` of each block, block after block."""
    per_block, blocks, lanes = made.shape
    return np.moveaxis(made, 0, 1).reshape(blocks * per_block, lanes)


@op("():u8,():u8->(n):u4", attributes=_KEY)
def bits(stream, offset, key_low, key_high, words):
    """Raw words ``offset .. offset + n - 1`` of a stream; ``offset`` is a multiple of 4."""
    n = words.shape[0]
    made = _words(stream, offset, key_low, key_high, 4, n)
    words[...] = _in_order(made)[:n]


@op("():u8,():u8->(n)", attributes=_KEY)
def normal(stream, offset, key_low, key_high, noise):
    """Standard normals ``offset .. offset + n - 1`` of a stream; ``offset`` is a multiple of 4."""
    n = noise.shape[0]
    per_block = 4 if noise.dtype == np.float32 else 2
    made = normals_from_words(_words(stream, offset, key_low, key_high, per_block, n), noise.dtype)
    noise[...] = _in_order(made)[:n]


__all__: list[Any] = ["bits", "normal"]
