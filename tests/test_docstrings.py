# SPDX-License-Identifier: MIT
"""Docstrings are in numpydoc's form: every op and each of its reverse passes says what it takes, gives and raises."""

import inspect
import re

import pytest

import reparam as rp
from support import OPS

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
ORDER = ["Parameters", "Returns", "Other Parameters", "Raises", "Notes"]
PUBLIC = [rp.cholesky, *(op for op in OPS if op.name in rp.__all__)]
CALLS = {op.name: op for op in PUBLIC}
CALLS |= {f"{op.name}.vjp": op.vjp for op in PUBLIC if op.vjp is not None}
CALLS |= {f"{op.name}.value_and_vjp": op.value_and_vjp for op in PUBLIC if op.value_and_vjp is not None}
SYMBOL = re.compile(r"[a-z]")  # a size of the signature, such as the draws s= of a Draw


def sections(text):
    """Text by section."""
    _, *found = SECTION.split(inspect.cleandoc(text))
    return dict(zip(found[::2], found[1::2], strict=True))


def arguments_of(text):
    """The names that a section of parameters lists."""
    listed = [line.partition(" : ")[0] for line in text.splitlines() if line and line[0] != " "]
    return {name for line in listed for name in line.split(", ")}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_what_it_takes_gives_and_raises(name):
    call = CALLS[name]
    found = sections(call.__doc__)
    assert [*found] == [title for title in ORDER if title in found]
    signature = inspect.signature(call).parameters
    assert {"Parameters", "Raises"} | ({"Returns"} if "out" in signature else set()) <= found.keys()
    documented = arguments_of(found["Parameters"]) | arguments_of(found.get("Other Parameters", ""))
    named = {n for n, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    assert {n for n in named if not SYMBOL.fullmatch(n)} <= documented


@pytest.mark.parametrize("name", ["backends", "set_num_threads", "backend", "elbo", "kl_divergence"])
def test_a_function_says_what_it_takes_or_gives(name):
    function = getattr(rp, name)
    found = sections(function.__doc__)
    assert {*inspect.signature(function).parameters} == arguments_of(found.get("Parameters", ""))
    assert {"Parameters", "Returns"} & found.keys()
