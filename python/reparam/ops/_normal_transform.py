# SPDX-License-Identifier: MIT
"""Philox4x32-10 and the normals made from its words: the twin of ``csrc/core/philox.hpp``, bit for bit.

Same coefficients, same operations in the same order, every constant in the element type; only + - * / sqrt and exact
conversions, nothing that may be fused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Words = tuple[Array, Array, Array, Array]

_U = np.uint64
_WORD = _U(0xFFFFFFFF)
_32 = _U(32)


def philox4x32(c0: Array, c1: Array, c2: Array, c3: Array, k0: Any, k1: Any) -> Words:
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
        pairs = [_box_muller32(words[i], words[i + 1]) for i in (0, 2)]
        return np.stack([normal for pair in pairs for normal in pair])
    w0, w1, w2, w3 = words.astype(_U)
    return np.stack(_box_muller64((w1 << _32 | w0) >> _U(11), (w3 << _32 | w2) >> _U(11)))


# ---- float32 ----------------------------------------------------------------------------------------------------

_F = np.float32
_I = np.uint32


def _box_muller32(radius_word: Array, angle_word: Array) -> tuple[Array, Array]:
    high = (radius_word >> _I(16)).astype(_F)
    low = (radius_word & _I(0xFFFF)).astype(_F)
    u1 = (high * _F(65536) + low) * _F(2.0**-32) + _F(2.0**-33)
    radius = np.sqrt(_F(0) - _F(2) * _log32(u1))
    t = (angle_word << _I(2)).view(np.int32).astype(_F) * _F(2.0**-34)  # turns from the nearest quarter
    turned = angle_word + _I(0x20000000)  # its two top bits count the quarters
    return _rotate(radius, *_sincos32(t), turned >> _I(30))


def _log32(x: Array) -> Array:
    shifted = x.view(_I) + _I(0x3F800000 - 0x3F3504F3)
    k = (shifted >> _I(23)).astype(_F) - _F(127)
    f = ((shifted & _I(0x7FFFFF)) + _I(0x3F3504F3)).view(_F) - _F(1)
    s = f / (_F(2) + f)
    z = s * s
    half_square = _F(0.5) * f * f
    series = _F(0.66666776) + z * (_F(0.39977583) + z * _F(0.29870796))
    tail = s * (half_square + z * series) + k * _F(float.fromhex("0x1.2fefa2p-17"))
    return k * _F(float.fromhex("0x1.62e3p-1")) - ((half_square - tail) - f)


def _sincos32(t: Array) -> tuple[Array, Array]:
    z = t * t
    tail = _F(-1.7484556e-07) + z * (_F(-41.341675) + z * (_F(81.59423) + z * _F(-75.465744)))
    sin = t * _F(6.2831855) + t * tail
    cos = _F(1) + z * (_F(-19.739208) + z * (_F(64.93914) + z * (_F(-85.42312) + z * _F(58.56117))))
    return sin, cos


# ---- float64 ----------------------------------------------------------------------------------------------------

_D = np.float64


def _box_muller64(radius_bits: Array, angle_bits: Array) -> tuple[Array, Array]:
    """From two 53-bit integers."""
    u1 = (radius_bits.astype(_D) + _D(1)) * _D(2.0**-53)
    radius = np.sqrt(_D(0) - _D(2) * _log64(u1))
    turned = (angle_bits << _U(11)) + _U(1 << 61)
    t = (((turned << _U(2)) >> _U(13)).astype(_D) - _D(2.0**50)) * _D(2.0**-53)
    return _rotate(radius, *_sincos64(t), turned >> _U(62))


def _log64(x: Array) -> Array:
    shifted = x.view(_U) + _U(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    k = (shifted >> _U(52)).astype(_D) - _D(1023)
    f = ((shifted & _U((1 << 52) - 1)) + _U(0x3FE6A09E667F3BCD)).view(_D) - _D(1)
    s = f / (_D(2) + f)
    z = s * s
    half_square = _D(0.5) * f * f
    series = _horner(
        z,
        0.6666666666666734, 0.39999999999416647, 0.2857142874202624, 0.22222198605298993,
        0.18183562836985048, 0.15314085238708422, 0.14795629105132813,
    )  # fmt: skip
    tail = s * (half_square + z * series) + k * _D(float.fromhex("0x1.a39ef35793c76p-33"))
    return k * _D(float.fromhex("0x1.62e42fee00000p-1")) - ((half_square - tail) - f)


def _sincos64(t: Array) -> tuple[Array, Array]:
    z = t * t
    tail = _horner(
        z,
        2.4492935982947064e-16, -41.34170224039968, 81.6052492759699, -76.70585970920139,
        42.058685554409465, -15.093831870669538, 3.7814180828433197,
    )  # fmt: skip
    sin = t * _D(6.283185307179586) + t * tail
    cos = _horner(
        z,
        1.0, -19.739208802178716, 64.93939402266663, -85.45681720595773, 60.244641219098696,
        -26.426240178958153, 7.902577349524932, -1.6872297127668068,
    )  # fmt: skip
    return sin, cos


# ---- both -------------------------------------------------------------------------------------------------------


def _horner(z: Array, *c: float) -> Array:
    total: Any = z.dtype.type(c[-1])
    for coefficient in c[-2::-1]:
        total = z.dtype.type(coefficient) + z * total
    return total


def _rotate(radius: Array, sin: Array, cos: Array, quarter: Array) -> tuple[Array, Array]:
    """radius (cos, sin), turned by 0, 1, 2 or 3 quarters (modulo 4)."""
    one, two = quarter.dtype.type(1), quarter.dtype.type(2)
    odd = (quarter & one) == one
    x, y = np.where(odd, sin, cos), np.where(odd, cos, sin)
    x = np.where(((quarter + one) & two) == two, -x, x)
    y = np.where((quarter & two) == two, -y, y)
    return radius * x, radius * y
