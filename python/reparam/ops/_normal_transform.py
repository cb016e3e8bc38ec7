# SPDX-License-Identifier: MIT
"""Philox4x32-10 and the normals made from its words: the twin of ``csrc/core/philox.hpp``, bit for bit.

Same coefficients, same operations in the same order, every constant in the element type; only + - * / sqrt
and exact conversions, nothing that may be fused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_U = np.uint64
_WORD, _32 = _U(0xFFFFFFFF), _U(32)


def philox4x32(c0: Array, c1: Array, c2: Array, c3: Array, k0: Any, k1: Any) -> tuple[Array, ...]:
    """Ten rounds of the block function on uint64 arrays that hold 32-bit words; four such arrays."""
    for _ in range(10):
        product0 = c0 * _U(0xD2511F53)
        product1 = c2 * _U(0xCD9E8D57)
        c0, c1 = (product1 >> _32) ^ c1 ^ k0, product1 & _WORD
        c2, c3 = (product0 >> _32) ^ c3 ^ k1, product0 & _WORD
        k0 = (k0 + _U(0x9E3779B9)) & _WORD
        k1 = (k1 + _U(0xBB67AE85)) & _WORD
    return c0, c1, c2, c3


def normals_from_words(words: Array, dtype: Any) -> Array:
    """uint32 words ``[4, ...]`` to standard normals: ``[4, ...]`` of float32 or ``[2, ...]`` of float64."""
    if np.dtype(dtype) == np.float32:
        return np.stack(_normal_pair32(words[0], words[1]) + _normal_pair32(words[2], words[3]))
    w0, w1, w2, w3 = words.astype(_U)
    return np.stack(_normal_pair64(w1 << _32 | w0, w3 << _32 | w2))


def _normal_pair32(radius_word: Array, angle_word: Array) -> tuple[Array, Array]:
    """Two normals of float32 from two words of 32 bits."""
    real, word = np.float32, np.uint32
    high = (radius_word >> word(16)).astype(real)
    low = (radius_word & word(0xFFFF)).astype(real)
    u1 = (high * real(2**16) + low) * real(2**-32) + real(2**-33)
    t = (angle_word << word(2)).view(np.int32).astype(real) * real(2**-34)
    return _box_muller(u1, angle_word + word(1 << 29), t, _FLOAT32)


def _normal_pair64(radius_word: Array, angle_word: Array) -> tuple[Array, Array]:
    """Two normals of float64 from the upper 53 bits of two words of 64 bits."""
    real, word = np.float64, np.uint64
    u1 = ((radius_word >> word(11)).astype(real) + real(1)) * real(2**-53)
    turned = (angle_word >> word(11) << word(11)) + word(1 << 61)
    t = ((turned << word(2) >> word(13)).astype(real) - real(2**50)) * real(2**-53)
    return _box_muller(u1, turned, t, _FLOAT64)


class _Format(NamedTuple):
    """An element type: its word, its layout and the coefficients of the transform, all in the type itself."""

    real: Any
    word: Any
    mantissa_bits: int
    bias: int
    sqrt_half: int  # the bits of sqrt(1/2)
    ln2: tuple[Any, ...]  # high, low
    log: tuple[Any, ...]
    two_pi: Any
    sin_tail: tuple[Any, ...]
    cos: tuple[Any, ...]


def _typed(real: Any, *constants: float | str) -> tuple[Any, ...]:
    return tuple(real(float.fromhex(c) if isinstance(c, str) else c) for c in constants)


_FLOAT32 = _Format(
    np.float32, np.uint32, 23, 127, 0x3F3504F3,
    ln2=_typed(np.float32, "0x1.62e3p-1", "0x1.2fefa4p-17"),
    log=_typed(np.float32, 0.66666776, 0.39977583, 0.29870796),
    two_pi=np.float32(6.2831855),
    sin_tail=_typed(np.float32, -1.7484556e-07, -41.341675, 81.59423, -75.465744),
    cos=_typed(np.float32, 1.0, -19.739208, 64.93914, -85.42312, 58.56117),
)  # fmt: skip
_FLOAT64 = _Format(
    np.float64, np.uint64, 52, 1023, 0x3FE6A09E667F3BCD,
    ln2=_typed(np.float64, "0x1.62e42feep-1", "0x1.a39ef35793c76p-33"),
    log=_typed(
        np.float64, 0.6666666666666734, 0.39999999999416647, 0.2857142874202624, 0.22222198605298993,
        0.18183562836985048, 0.15314085238708422, 0.14795629105132813,
    ),
    two_pi=np.float64(6.283185307179586),
    sin_tail=_typed(
        np.float64, 2.4492935982947064e-16, -41.34170224039968, 81.6052492759699, -76.70585970920139,
        42.058685554409465, -15.093831870669538, 3.7814180828433197,
    ),
    cos=_typed(
        np.float64, 1.0, -19.739208802178716, 64.93939402266663, -85.45681720595773, 60.244641219098696,
        -26.426240178958153, 7.902577349524932, -1.6872297127668068,
    ),
)  # fmt: skip


def _box_muller(u1: Array, turned: Array, t: Array, f: _Format) -> tuple[Array, Array]:
    """Give sqrt(-2 log u1) (cos, sin) of an angle: a quarter (the two top bits of ``turned``) and t turns."""
    radius = np.sqrt(f.real(0) - f.real(2) * _log(u1, f))
    z = t * t
    sine, cosine = t * f.two_pi + t * _polynomial(z, f.sin_tail), _polynomial(z, f.cos)
    quarter = turned >> f.word(8 * f.word().nbytes - 2)
    one, two = f.word(1), f.word(2)
    odd = (quarter & one) == one
    first, second = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    first = np.where(((quarter + one) & two) == two, -first, first)  # quarters 1, 2
    second = np.where((quarter & two) == two, -second, second)  # quarters 2, 3
    return radius * first, radius * second


def _log(x: Array, f: _Format) -> Array:
    """Logarithm of positive normal numbers (the form of fdlibm)."""
    shifted = x.view(f.word) + f.word((f.bias << f.mantissa_bits) - f.sqrt_half)
    k = (shifted >> f.word(f.mantissa_bits)).astype(f.real) - f.real(f.bias)
    mantissa = shifted & f.word((1 << f.mantissa_bits) - 1)
    fraction = (mantissa + f.word(f.sqrt_half)).view(f.real) - f.real(1)
    s = fraction / (f.real(2) + fraction)
    z = s * s
    half_square = f.real(0.5) * fraction * fraction
    series = z * _polynomial(z, f.log) + half_square
    tail = s * series + k * f.ln2[1]
    result: Array = k * f.ln2[0] - ((half_square - tail) - fraction)
    return result


def _polynomial(x: Array, coefficients: tuple[Any, ...]) -> Array:
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = x * total + c
    result: Array = total
    return result
