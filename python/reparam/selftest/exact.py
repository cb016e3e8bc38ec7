# SPDX-License-Identifier: MIT
"""Answers in 50 digits. All but Adam's need mpmath, which the package itself does not."""

from __future__ import annotations

from decimal import Decimal, localcontext
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..optim import Adam

__all__ = ["adam_errors", "binomial_log_likelihood", "kl", "log_density", "log_prob", "normals", "scales", "ulps"]

Array = NDArray[Any]
DIGITS = 50


def mpmath() -> Any:
    """The module, imported where it is used."""
    return import_module("mpmath")


# ---- densities


def log_density(whitened: Any, diagonal: Any) -> Any:
    """``-|y|^2/2 - sum log L_ii - (d/2) log 2 pi`` for y, the standard normals, and the diagonal of L."""
    mp = mpmath()
    with mp.workdps(DIGITS):
        log_det = mp.fsum(mp.log(s) for s in diagonal)
        return -mp.fsum(mp.mpf(r) ** 2 for r in whitened) / 2 - log_det - len(whitened) * mp.log(2 * mp.pi) / 2


def log_prob(value: Array, loc: Array, lower: Array) -> Any:
    """``log N(value | loc, L L^T)`` of one event, by forward substitution."""
    mp = mpmath()
    with mp.workdps(DIGITS):
        y: list[Any] = []
        for row, x, shift in zip(lower.tolist(), value.tolist(), loc.tolist(), strict=True):
            r = mp.mpf(x) - mp.mpf(shift) - mp.fsum(mp.mpf(a) * b for a, b in zip(row, y, strict=False))
            y.append(r / mp.mpf(row[len(y)]))
    return log_density(y, np.diagonal(lower).tolist())


def kl(loc: Array, lower: Array, other_loc: Array, other: Array) -> Any:
    """KL of N(loc, L L^T) to N(other_loc, M M^T): ``(|M^-1 L|_F^2 + |y|^2 - d)/2 + log det M - log det L``."""
    mp, d = mpmath(), len(loc)
    right = np.column_stack([np.tril(lower), other_loc]).tolist()
    m, start = other.tolist(), loc.tolist()
    with mp.workdps(DIGITS):
        a = [[mp.mpf(x) for x in row] for row in right]
        for i in range(d):
            a[i][d] = a[i][d] - mp.mpf(start[i])
            for j in [*range(i + 1), d]:
                known = mp.fsum(mp.mpf(m[i][k]) * a[k][j] for k in range(j if j < d else 0, i))
                a[i][j] = (a[i][j] - known) / mp.mpf(m[i][i])
        squares = mp.fsum(x**2 for row in a for x in row)
        return (squares - d) / 2 - mp.fsum(mp.log(a[i][i]) for i in range(d))


def scales(entries: Array, diagonal: str, floor: float) -> list[Any]:
    """The scales of unconstrained entries."""
    mp = mpmath()
    with mp.workdps(DIGITS):
        powers = [mp.exp(mp.mpf(v)) for v in entries.tolist()]
        return [(p if diagonal == "exp" else mp.log(1 + p)) + mp.mpf(floor) for p in powers]


def binomial_log_likelihood(successes: Array, logits: Array, total_count: Array) -> Any:
    """``sum_j k_j log p_j + (N_j - k_j) log(1 - p_j)`` of one event, without the coefficients."""
    mp = mpmath()
    with mp.workdps(DIGITS):
        terms = []
        for k, logit, n in zip(successes.tolist(), logits.tolist(), total_count.tolist(), strict=True):
            p = 1 / (1 + mp.exp(-mp.mpf(logit)))
            terms.append(mp.mpf(k) * mp.log(p) + (mp.mpf(n) - mp.mpf(k)) * mp.log(1 - p))
        return mp.fsum(terms)


# ---- noise


def normals(words: list[int], dtype: str) -> tuple[Any, Any]:
    """The transform of two words (float32) or four, from the rounded u1 and angle that its definition prescribes."""
    mp = mpmath()
    with mp.workdps(DIGITS):
        if dtype == "float32":
            f = np.float32
            u1 = mp.mpf(float((f(words[0] >> 16) * f(65536) + f(words[0] & 0xFFFF)) * f(2**-32) + f(2**-33)))
            turns = mp.mpf(words[1]) / 2**32
        else:
            u1 = mp.mpf(((words[1] << 32 | words[0]) >> 11) + 1) / 2**53
            turns = mp.mpf((words[3] << 32 | words[2]) >> 11) / 2**53
        radius = mp.sqrt(-2 * mp.log(u1))
        return radius * mp.cospi(2 * turns), radius * mp.sinpi(2 * turns)


def ulps(actual: Any, exact: Any, at: Any, dtype: str) -> float:
    """Largest error of some numbers in units in the last place of the numbers ``at``."""
    spacing = np.spacing(np.abs(at).astype(dtype))
    number = type(exact[0])
    errors = [float(abs(number(float(a)) - e)) / float(s) for a, e, s in zip(actual, exact, spacing, strict=True)]
    return float(np.max(errors))  # a NaN too


# ---- Adam

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
SIZES = 10.0 ** np.array([-6, -3, -1, 0, 2, 4])  # of the gradients' entries
FAR = 2**24 + 1


def adam_errors(dtype: str, rng: np.random.Generator, weight_decay: float, steps: int) -> dict[str, float]:
    """Worst errors of so many steps, each from the state that the last one has left, and of one far out at 2^24 + 1.

    In units in the last place of ``abs(m) + abs(g)``, of ``v``, and of ``abs(param) + lr``.
    """
    param = rng.standard_normal(len(SIZES)).astype(dtype)
    optimizer = Adam(param, lr=LR, betas=(BETA1, BETA2), eps=EPS, weight_decay=weight_decay)
    worst = {"m": 0.0, "v": 0.0, "param": 0.0}
    for step in [*range(1, steps + 1), FAR]:
        state = optimizer.state_dict()
        if step == FAR:
            optimizer.load_state_dict({**state, "t": step - 1})
        before, m, v = param.copy(), state["m"][0], state["v"][0]
        grad = (SIZES * rng.standard_normal(len(SIZES))).astype(dtype)
        optimizer.step(grad)
        after = optimizer.state_dict()
        exact = _adam_step((before, grad, m, v), step, weight_decay)
        found = {
            "m": ulps(after["m"][0], exact[0], np.abs(m) + np.abs(grad), dtype),
            "v": ulps(after["v"][0], exact[1], after["v"][0], dtype),
            "param": ulps(param, exact[2], np.abs(before) + LR, dtype),
        }
        worst = {name: float(np.maximum(error, found[name])) for name, error in worst.items()}
    return worst


def _adam_step(arrays: tuple[Array, ...], step: int, weight_decay: float) -> tuple[list[Any], list[Any], list[Any]]:
    """Exact m, v and param after a step."""
    with localcontext(prec=DIGITS):
        lr, b1, b2, eps, decay = (Decimal(x) for x in (LR, BETA1, BETA2, EPS, weight_decay))
        bias1, bias2 = 1 - b1**step, 1 - b2**step
        p, g, m, v = ([Decimal(x) for x in array.tolist()] for array in arrays)
        new_m = [b1 * mi + (1 - b1) * gi for mi, gi in zip(m, g, strict=True)]
        new_v = [b2 * vi + (1 - b2) * gi**2 for vi, gi in zip(v, g, strict=True)]
        new_p = [
            pi - lr * (decay * pi + (mi / bias1) / ((vi / bias2).sqrt() + eps))
            for pi, mi, vi in zip(p, new_m, new_v, strict=True)
        ]
    return new_m, new_v, new_p
