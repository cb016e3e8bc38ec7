# SPDX-License-Identifier: MIT
"""Cholesky factors of batches of symmetric matrices."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._arrays import copy_of, device_of, is_cupy, may_share_memory, namespace_of, with_dims
from .._check import NotPositiveDefiniteError, as_array, as_bool, as_float, as_float_array, check_operands, check_out
from .._op import Op, Pass, op, real_positive, select
from .._operands import refuse_unknown, split_keywords, wanted_outputs

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


def _read_call(p: Pass, args: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arrays and the settings of a call, which is refused as that of any op is."""
    if not keywords and len(args) == len(p.inputs):
        return args, {}
    args, settings = split_keywords(p, args, keywords)
    refuse_unknown(p, keywords)
    check_operands(p, len(args))
    return args, settings


def _in_two_calls(p: Pass, args: tuple[Any, ...], out: Any, keywords: dict[str, Any]) -> Any:
    """The factor, then the cotangent of ``a`` that is made of it, as if ``out`` shared no memory with the operands."""
    wrt = keywords.pop("wrt", None)
    (a, cotangent), settings = _read_call(p, args, keywords)
    wanted = wanted_outputs(p, (a, cotangent), wrt)
    first = second = None
    if out is not None:
        given = out if isinstance(out, tuple) else (out,)
        forms: list[Any] = [(getattr(x, "shape", None), getattr(x, "dtype", None)) for x in given]  # left to both calls
        *values, second = check_out(p, out, forms, wanted, a.device if is_cupy(a) else None)
        first = tuple(values) if len(values) > 1 else values[0]
        if cotangent is not None:
            cotangent = as_float_array(f"{p.op.name}.vjp: ct_scale_tril", cotangent, "an array or None")
            cotangent = cotangent.copy() if any(may_share_memory(cotangent, x) for x in values) else cotangent
    made = p.op(a, out=first, **settings)
    scale_tril = made[0] if isinstance(made, tuple) else made
    return made, p.op.vjp(scale_tril, cotangent, wrt=wrt, out=second)


@op(
    "sym(d)->tril(d),():i4",
    vjp_from="outputs",
    two_calls=_in_two_calls,
    oracle=_oracle,
    result=CholeskyResult,
)
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
    count, i = int(np.count_nonzero(info)), namespace_of(a).arange(a.shape[-1])
    for factor in (1, 10, 100):
        failed = np.nonzero(info) if info.ndim else ()
        matrices = a[failed].astype(scale_tril.dtype)
        added = jitter * factor * matrices[..., i, i].mean(-1, keepdims=True, dtype=np.float64)
        matrices[..., i, i] += added.astype(scale_tril.dtype)
        scale_tril[failed], info[failed] = cholesky_ex(matrices)
        if not info.any():
            break
    left = int(np.count_nonzero(info))
    more = f"; {left} failed even so" if left else ""
    warnings.warn(
        f"cholesky: {count} of {info.size} matrices were tried again with up to {factor * jitter:g} times the mean of "
        f"their diagonal added to it{more}",
        RuntimeWarning,
        stacklevel=4,  # the line that calls cholesky
    )
    return info


class Cholesky(Op):
    """An op that is made of calls of :func:`cholesky_ex`."""

    def __init__(self, body: Callable[..., None]) -> None:
        settings = {"attributes": {"check": True, "jitter": None}, "vjp_from": "outputs", "two_calls": _in_two_calls}
        super().__init__("sym(d)->tril(d)", body, settings)
        self.__doc__ = f"{self.__doc__}{inspect.cleandoc(_FAILURES)}\n"
        self.defvjp(body)
        del self.vjp  # the method below

    def _python_signature(self, p: Pass) -> inspect.Signature:
        made = super()._python_signature(p)
        optional = [x.replace(default=None) if x.name == "jitter" else x for x in made.parameters.values()]
        return made.replace(parameters=optional)

    def vjp(self, *args: Any, wrt: Any = None, out: Any = None, **keywords: Any) -> Any:
        """Symmetric cotangent of ``a``.

        Parameters
        ----------
        scale_tril, ct_scale_tril : array, shape (..., d, d)
            The factor and its cotangent, of which the lower triangles are read; None stands for a cotangent of zero.
        wrt : tuple of str, optional
            ``("a",)``, or ``()`` for no cotangent.
        out : array, optional
            Where to write the result.

        Returns
        -------
        ct_a : array, shape (..., d, d)
            ``(S + S^T)/2``, ``S = L^-T Phi(L^T ct_L) L^-1``; NaN for a failed event (Murray, arXiv 1602.07527).

        Raises
        ------
        TypeError, ValueError
            Naming the argument, what came and what was expected.
        """
        return _run(cholesky_ex.vjp, *args, wrt=wrt, out=out, **keywords)

    def __call__(self, *args: Any, out: Any = None, **keywords: Any) -> Any:
        """Run the op on matrices of shape ``batch_shape + (d, d)``."""
        plain = len(args) == 1 and not keywords
        (a,), settings = (args, keywords) if plain else _read_call(self.forward_pass, args, keywords)
        if out is not None:
            a = as_array("cholesky: a", a)  # beside it, in the memory where it lies, info is made
        if is_cupy(a):
            with device_of(a):
                return self._factor(a, out, settings)
        return self._factor(a, out, settings)

    @staticmethod
    def _factor(a: Any, out: Any, settings: dict[str, Any]) -> Any:
        check, jitter = as_bool("cholesky: check", settings.get("check", True)), settings.get("jitter")
        if jitter is not None:
            jitter = as_float("cholesky: jitter", jitter, 0, above=True)
            a = as_float_array("cholesky: a", a)
            a = a.copy() if out is not None else a  # which out may overwrite
        both = None if out is None else (out, namespace_of(a).empty(getattr(a, "shape", ())[:-2], np.int32))
        scale_tril, info = _run(cholesky_ex, a, out=both)
        if jitter is not None and np.count_nonzero(info):
            info = _try_again(a, scale_tril, copy_of(with_dims(info)), jitter)
        if check and np.count_nonzero(info):  # a third of the time of any()
            raise NotPositiveDefiniteError(info)
        return scale_tril


_FAILURES = """
    NotPositiveDefiniteError
        With ``info`` and ``indices`` of the failed matrices. With ``out``, it then holds NaN for those.
"""


@Cholesky
def cholesky(a, check, jitter, scale_tril):
    """Lower Cholesky factors of symmetric positive-definite matrices.

    Parameters
    ----------
    a : array, shape (..., d, d)
        Only the lower triangle is read.
    check : bool
        Whether a failed matrix raises; otherwise it is NaN. On a GPU the host waits for the answer.
    jitter : float, optional
        Failed matrices alone are tried again with ``jitter``, ``10 jitter`` and ``100 jitter`` times the mean of
        their diagonal added to it; a RuntimeWarning says how many needed it.

    Returns
    -------
    array, shape (..., d, d)
        Lower factor, zeros above the diagonal. Its vjp takes the factor in place of ``a``:
        ``cholesky.vjp(scale_tril, ct_scale_tril)``.
    """
