# SPDX-License-Identifier: MIT
"""Cholesky factors of batches of symmetric matrices."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._check import NotPositiveDefiniteError, as_bool, as_float
from .._op import op, real_positive, select

HALF = 0.5


class CholeskyResult(NamedTuple):
    """Result of :func:`cholesky_ex`.

    Attributes
    ----------
    scale_tril : array, shape (..., d, d)
        Lower factors, NaN where the factorization failed.
    info : int32 array, shape (...)
        0, or the 1-based first leading minor whose pivot is not positive and finite.
    """

    scale_tril: Any
    info: Any


def _oracle(a: Any) -> tuple[Any, ...]:
    lower = np.tril(a)
    symmetric = lower + np.swapaxes(np.tril(a, -1), -1, -2)
    return np.linalg.cholesky(symmetric), np.zeros(a.shape[:-2], np.int32)


@op("sym(d)->tril(d),():i4", vjp_from="outputs", oracle=_oracle, result=lambda *r: CholeskyResult(r[0], r[1][()]))
def cholesky_ex(a, scale_tril, info):
    """Lower Cholesky factors, with failure as data.

    Parameters
    ----------
    a : array, shape (..., d, d)
        Symmetric matrices; only the lower triangle is read.

    Returns
    -------
    CholeskyResult
        ``scale_tril`` (..., d, d), zero above the diagonal, NaN below where the factorization failed; ``info`` int32 of
        the batch shape: 0, or the 1-based first leading minor whose pivot is not positive (NaN and inf included).

    Notes
    -----
    Never raises for numerical reasons. The vjp takes ``scale_tril`` and its cotangent and gives the symmetric cotangent
    ``(S + S^T)/2``, by the reverse sweep of Murray (arXiv 1602.07527).
    """
    d = a.shape[0]
    failed = 0
    for j in range(d):
        pivot = a[j, j]
        for k in range(j):
            pivot = pivot - scale_tril[j, k] * scale_tril[j, k]
        good = real_positive(pivot) & (pivot.real < np.inf)
        failed = select(good | (failed != 0), failed, j + 1)
        root = np.sqrt(pivot)
        scale_tril[j, j] = root
        for i in range(j + 1, d):
            total = a[i, j]
            for k in range(j):
                total = total - scale_tril[i, k] * scale_tril[j, k]
            scale_tril[i, j] = total / root
    info[0] = failed
    for i in range(d):
        for j in range(i + 1):
            scale_tril[i, j] = select(failed == 0, scale_tril[i, j], np.nan)


@cholesky_ex.defvjp
def _(scale_tril, ct_scale_tril, ct_a):
    d = scale_tril.shape[0]
    for i in range(d):
        for j in range(i + 1):
            ct_a[i, j] = ct_scale_tril[i, j]
    for j in range(d - 1, -1, -1):
        pivot_bar = ct_a[j, j]
        for i in range(j + 1, d):
            ct_a[i, j] = ct_a[i, j] / scale_tril[j, j]
            pivot_bar = pivot_bar - scale_tril[i, j] * ct_a[i, j]
        pivot_bar = pivot_bar / scale_tril[j, j]
        for k in range(j):
            row_bar = ct_a[j, k] - pivot_bar * scale_tril[j, k]
            for i in range(j + 1, d):
                row_bar = row_bar - ct_a[i, j] * scale_tril[i, k]
                ct_a[i, k] = ct_a[i, k] - ct_a[i, j] * scale_tril[j, k]
            ct_a[j, k] = row_bar
        ct_a[j, j] = pivot_bar * HALF
    for i in range(d):
        for j in range(i):
            ct_a[i, j] = ct_a[i, j] * HALF
            ct_a[j, i] = ct_a[i, j]


def _run(call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Run ``cholesky_ex``, whose errors name what the user called."""
    try:
        return call(*args, **keywords)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("cholesky_ex", "cholesky", 1)) from error.__cause__


def _try_again(a: Any, scale_tril: Any, info: Any, jitter: float) -> Any:
    """Factors of the failed matrices with a growing multiple of the mean of their diagonal added to it."""
    count, i = np.count_nonzero(info), np.arange(a.shape[-1])
    for factor in (1, 10, 100):
        failed = np.nonzero(info) if info.ndim else ()
        matrices = a[failed].astype(scale_tril.dtype)
        added = jitter * factor * matrices[..., i, i].mean(-1, keepdims=True, dtype=np.float64)
        matrices[..., i, i] += added.astype(scale_tril.dtype)
        scale_tril[failed], info[failed] = cholesky_ex(matrices)
        if not info.any():
            break
    left = np.count_nonzero(info)
    more = f"; {left} failed even so" if left else ""
    warnings.warn(
        f"cholesky: {count} of {info.size} matrices were tried again with up to {factor * jitter:g} times the mean of "
        f"their diagonal added to it{more}",
        RuntimeWarning,
        stacklevel=3,
    )
    return info


class Cholesky:
    """The callable ``cholesky``; see :meth:`__call__`."""

    name = __name__ = __qualname__ = "cholesky"
    signature = "(d,d)->(d,d)"

    def vjp(self, *args: Any, out: Any = None, **keywords: Any) -> Any:
        """Symmetric cotangent of ``a``.

        Parameters
        ----------
        scale_tril, ct_scale_tril : array, shape (..., d, d)
            The factor and its cotangent, of which the lower triangles are read.
        out : array, optional
            Where to write the result.

        Returns
        -------
        ct_a : array, shape (..., d, d)
            ``(S + S^T)/2``, ``S = L^-T Phi(L^T ct_L) L^-1``; NaN for a failed event (Murray, arXiv 1602.07527).
        """
        return _run(cholesky_ex.vjp, *args, out=out, **keywords)

    def value_and_vjp(
        self, a: Any, ct_scale_tril: Any, *, check: bool = True, jitter: float | None = None, out: Any = None
    ) -> Any:
        """Factors and the symmetric cotangent of ``a``, as ``(scale_tril, ct_a)``.

        Parameters
        ----------
        a, ct_scale_tril : array, shape (..., d, d)
            Of both the lower triangles are read.
        check, jitter
            As in the forward call.
        out : tuple of two arrays, optional
            Where to write the results.
        """
        if out is not None and not (isinstance(out, tuple) and len(out) == 2):
            got = f"a tuple of {len(out)}" if isinstance(out, tuple) else type(out).__name__
            raise TypeError(f"cholesky.value_and_vjp: out must be a tuple of 2 arrays (scale_tril, ct_a), got {got}")
        first, second = (None, None) if out is None else out
        cotangent = np.array(ct_scale_tril) if out is not None else ct_scale_tril  # which the factor may overwrite
        scale_tril = self(a, check=check, jitter=jitter, out=first)
        return scale_tril, self.vjp(scale_tril, cotangent, out=second)

    def __call__(self, a: Any, *, check: bool = True, jitter: float | None = None, out: Any = None) -> Any:
        """Lower Cholesky factors of symmetric positive-definite matrices.

        Parameters
        ----------
        a : array, shape (..., d, d)
            Only the lower triangle is read.
        check : bool
            Whether a failed matrix raises; otherwise it is NaN.
        jitter : float, optional
            Failed matrices alone are tried again with ``jitter``, ``10 jitter`` and ``100 jitter`` times the mean of
            their diagonal added to it; a RuntimeWarning says how many needed it.
        out : array, optional
            Where to write the result.

        Returns
        -------
        array, shape (..., d, d)
            Lower factor, zeros above the diagonal. Its vjp takes the factor in place of ``a``:
            ``cholesky.vjp(scale_tril, ct_scale_tril)``.

        Raises
        ------
        NotPositiveDefiniteError
            With ``info`` and ``indices`` of the failed matrices. With ``out``, it then holds NaN for those.
        """
        check = as_bool("cholesky: check", check)
        if jitter is not None:
            jitter = as_float("cholesky: jitter", jitter, 0, above=True)
            a = np.array(a) if out is not None and hasattr(a, "__array__") else a  # which out may overwrite
        both = None if out is None else (out, np.empty(getattr(a, "shape", ())[:-2], np.int32))
        scale_tril, info = _run(cholesky_ex, a, out=both)
        if jitter is not None and np.any(info):
            info = _try_again(np.asarray(a), scale_tril, np.array(info), jitter)
        if check and np.any(info):
            raise NotPositiveDefiniteError(info)
        return scale_tril

    def __repr__(self) -> str:
        return f"<op cholesky: {self.signature}>"

    def __reduce__(self) -> str:
        return self.name


cholesky = Cholesky()
cholesky.__doc__ = Cholesky.__call__.__doc__
