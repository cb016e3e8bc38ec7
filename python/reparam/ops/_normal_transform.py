# SPDX-License-Identifier: MIT
"""Philox4x32-10 and the normals made from its words: the twin of ``csrc/core/philox.hpp``, bit for bit.

Same coefficients, same operations in the same order, every constant in the element type; only + - * / sqrt
and exact conversions, nothing that may be fused. Words are held in uint64, whose sums and products are masked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._op import select

_U = np.uint64
_ONE, _TWO, _32 = _U(1), _U(2), _U(32)
_WORD = _U(0xFFFFFFFF)


def philox4x32(c0, c1, c2, c3, k0, k1):
    """Ten rounds of the block function on words; four words."""
    for _ in range(10):
        product0 = c0 * _U(0xD2511F53)
        product1 = c2 * _U(0xCD9E8D57)
        c0, c1 = (product1 >> _32) ^ c1 ^ k0, product1 & _WORD
        c2, c3 = (product0 >> _32) ^ c3 ^ k1, product0 & _WORD
        k0 = (k0 + _U(0x9E3779B9)) & _WORD
        k1 = (k1 + _U(0xBB67AE85)) & _WORD
    return c0, c1, c2, c3


def normal_pair32(radius_word, angle_word):
    """Two normals of float32 from two words."""
    high, low = np.float32(radius_word >> _U(16)), np.float32(radius_word & _U(0xFFFF))
    u1 = (high * np.float32(2**16) + low) * np.float32(2**-32) + np.float32(2**-33)
    t = np.float32(np.uint32((angle_word << _TWO) & _WORD).view(np.int32)) * np.float32(2**-34)
    quarter = ((angle_word + _U(1 << 29)) & _WORD) >> _U(30)
    shifted = _U(np.float32(u1).view(np.uint32)) + _U((127 << 23) - 0x3F3504F3)
    exponent = np.float32(shifted >> _U(23)) - np.float32(127)
    mantissa = np.uint32((shifted & _U(0x7FFFFF)) + _U(0x3F3504F3)).view(np.float32)
    return _box_muller(_log(exponent, mantissa - np.float32(1), _FLOAT32), quarter, t, _FLOAT32)


def normal_pair64(radius_low, radius_high, angle_low, angle_high):
    """Two normals of float64 from the upper 53 bits of two pairs of words."""
    u1 = (np.float64((radius_high << _32 | radius_low) >> _U(11)) + np.float64(1)) * np.float64(2**-53)
    turned = ((angle_high << _32 | angle_low) >> _U(11) << _U(11)) + _U(1 << 61)
    t = (np.float64(turned << _TWO >> _U(13)) - np.float64(2**50)) * np.float64(2**-53)
    shifted = np.float64(u1).view(np.uint64) + _U((1023 << 52) - 0x3FE6A09E667F3BCD)
    exponent = np.float64(shifted >> _U(52)) - np.float64(1023)
    mantissa = np.uint64((shifted & _U((1 << 52) - 1)) + _U(0x3FE6A09E667F3BCD)).view(np.float64)
    return _box_muller(_log(exponent, mantissa - np.float64(1), _FLOAT64), turned >> _U(62), t, _FLOAT64)


class _Format(NamedTuple):
    """The coefficients of the transform, all in the element type itself."""

    real: Any
    ln2: tuple[Any, ...]  # high, low
    log: tuple[Any, ...]
    two_pi: Any
    sin_tail: tuple[Any, ...]
    cos: tuple[Any, ...]


def _typed(real: Any, *constants: float | str) -> tuple[Any, ...]:
    return tuple(real(float.fromhex(c) if isinstance(c, str) else c) for c in constants)


_FLOAT32 = _Format(
    np.float32,
    ln2=_typed(np.float32, "0x1.62e3p-1", "0x1.2fefa4p-17"),
    log=_typed(np.float32, 0.66666776, 0.39977583, 0.29870796),
    two_pi=np.float32(6.2831855),
    sin_tail=_typed(np.float32, -1.7484556e-07, -41.341675, 81.59423, -75.465744),
    cos=_typed(np.float32, 1.0, -19.739208, 64.93914, -85.42312, 58.56117),
)
_FLOAT64 = _Format(
    np.float64,
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


def _box_muller(log_u1, quarter, t, f):
    """Give sqrt(-2 log u1) (cos, sin) of an angle of ``quarter`` quarters and t turns."""
    radius = np.sqrt(f.real(0) - f.real(2) * log_u1)
    z = t * t
    sine, cosine = t * f.two_pi + t * _polynomial(z, f.sin_tail), _polynomial(z, f.cos)
    odd = (quarter & _ONE) == _ONE
    first, second = select(odd, sine, cosine), select(odd, cosine, sine)
    first = select(((quarter + _ONE) & _TWO) == _TWO, -first, first)  # quarters 1, 2
    second = select((quarter & _TWO) == _TWO, -second, second)  # quarters 2, 3
    return radius * first, radius * second


def _log(exponent, fraction, f):
    """Logarithm of 2^exponent (1 + fraction), 1 + fraction in [sqrt(1/2), sqrt(2)) (the form of fdlibm)."""
    s = fraction / (f.real(2) + fraction)
    z = s * s
    half_square = f.real(0.5) * fraction * fraction
    series = z * _polynomial(z, f.log) + half_square
    tail = s * series + exponent * f.ln2[1]
    return exponent * f.ln2[0] - ((half_square - tail) - fraction)


def _polynomial(x, coefficients):
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = x * total + coefficients[k]
    return total
