# SPDX-License-Identifier: MIT
"""README.md is true: its examples run and print what stands beside them, its links and the ops it names exist.

In an example, ``print(x)  # 1.23`` claims the output 1.23; lines of comment right below continue it. Claims are
compared as text, runs of blanks counting as one.
"""

import ast
import fnmatch
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import reparam as rp

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Runs a block from stdin as the module __main__; last of all it prints what each line has printed.
RUNNER = """
import builtins, io, json, sys
printed, show = {}, builtins.print
def record(*values, **keywords):
    if keywords.get("file") is None:
        out = io.StringIO()
        show(*values, **{**keywords, "file": out})
        printed.setdefault(sys._getframe(1).f_lineno, []).append(out.getvalue())
    show(*values, **keywords)
code = compile(sys.stdin.read(), "README.md", "exec")
builtins.print = record
exec(code, {"__name__": "__main__"})
show("\\n" + json.dumps(printed))
"""


def blocks(text, language):
    """Line number and text of each fenced block of a language."""
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)
    return [(text[: match.start(1)].count("\n") + 1, match[1]) for match in found]


def comments(block):
    """Line to comment, and whether the comment has the line to itself."""
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(block).readline) if t.type == tokenize.COMMENT]
    return {t.start[0]: (t.string.removeprefix("#"), not t.line[: t.start[1]].strip()) for t in tokens}


def claims(block):
    """First line of each print that has a comment at its end: the output that this claims."""
    beside, found = comments(block), {}
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and node.end_lineno in beside:
            line = node.end_lineno
            told = [beside[line][0]]
            while beside.get(line + 1, ("", False))[1]:
                line += 1
                told.append(beside[line][0])
            found[node.lineno] = squeezed("\n".join(told))
    return found


def squeezed(text):
    return " ".join(text.split())


def check(block, folder):
    """What is wrong with a block: the error it ends with, or the first claim that its output does not meet."""
    command = [sys.executable, "-W", "error", "-c", RUNNER]
    ended = subprocess.run(command, input=block, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    if ended.returncode != 0:
        return ended.stderr
    printed = {int(line): squeezed("".join(texts)) for line, texts in json.loads(ended.stdout.splitlines()[-1]).items()}
    for line, claim in claims(block).items():
        if printed.get(line) != claim:
            return f"line {line} claims {claim!r} and prints {printed.get(line)!r}"
    return None


def says_something(block):
    return bool(claims(block)) or any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(block)))


# ---- the checker


@pytest.mark.parametrize("block", [
    "print(1 + 1)  # 2\n",
    "print('a', 'b', sep='-')  # a-b\n",
    "for k in range(3):\n    print(k)  # 0 1 2\n",
    "print(\n    'long'\n)  # long\n",
    "import numpy as np\nprint(np.eye(2))  # [[1. 0.]\n# [0. 1.]]\n",
    "x = '# no comment'\nprint(x)  # # no comment\n",
    "assert 1 < 2\n",
])  # fmt: skip
def test_the_checker_accepts_what_is_true(block, tmp_path):
    assert says_something(block)
    assert check(block, tmp_path) is None


@pytest.mark.parametrize(("block", "reason"), [
    ("print(1 + 1)  # 3\n", "line 1 claims '3' and prints '2'"),
    ("print(0.1 + 0.2)  # 0.3\n", "line 1 claims '0.3' and prints '0.30000000000000004'"),
    ("print(2)  # 2\nprint(3)  # 2\n", "line 2 claims '2' and prints '3'"),
    ("if False:\n    print(2)  # 2\n", "line 2 claims '2' and prints None"),
    ("for k in range(3):\n    print(k)  # 0 1\n", "line 2 claims '0 1' and prints '0 1 2'"),
    ("print([1, 2])  # [1,\n# 3]\n", r"line 1 claims '\[1, 3\]' and prints '\[1, 2\]'"),
    ("assert 1 > 2\n", "AssertionError"),
    ("import warnings\nwarnings.warn('old')\nprint(1)  # 1\n", "UserWarning: old"),
    ("print(undefined)  # 1\n", "NameError"),
    ("import sys\nsys.exit(3)\n", ""),
])  # fmt: skip
def test_the_checker_refuses_what_is_not(block, reason, tmp_path):
    wrong = check(block, tmp_path)
    assert wrong is not None
    assert re.search(reason, wrong), wrong


@pytest.mark.parametrize("block", ["x = 1\n", "print(1)\n", "# assert False\nprint(1)\n", "print(1)\n# 1\n"])
def test_the_checker_knows_a_block_that_claims_nothing(block):
    assert not says_something(block)


def test_blocks_are_found_by_their_language():
    text = "a\n```python\nx\n```\nb\n```sh\ny\nz\n```\n```text\nw\n```\n"
    assert blocks(text, "python") == [(3, "x\n")]
    assert blocks(text, "sh") == [(7, "y\nz\n")]


# ---- the README


def test_it_has_examples():
    assert blocks(README, "python")


@pytest.mark.parametrize(
    ("line", "block"), blocks(README, "python"), ids=lambda x: f"line {x}" if isinstance(x, int) else ""
)
def test_an_example_runs_without_warnings_and_prints_what_it_claims(line, block, tmp_path):
    assert says_something(block), f"the example of line {line} claims nothing: no print with a comment, no assert"
    for framework in ("torch", "jax"):
        if f"import {framework}\n" in block and importlib.util.find_spec(framework) is None:
            pytest.skip(f"needs {framework}")
    wrong = check(block, tmp_path)
    assert wrong is None, f"the example of line {line}: {wrong}"


def test_the_first_two_shell_blocks_install():
    commands = [block for _, block in blocks(README, "sh")]
    assert len(commands) >= 2
    for block in commands[:2]:
        assert "pip install" in block


def test_the_first_shell_block_runs_the_demo_and_the_second_the_tests():
    demo, tests = [block for _, block in blocks(README, "sh")][:2]
    assert re.search(r"^(python -m )?reparam demo", demo, flags=re.M)
    assert re.search(r"^(python -m )?pytest", tests, flags=re.M)


def links(text):
    """Targets of links and images, without those inside code."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.M | re.S)
    found = re.findall(r"\]\(\s*<?([^)>\s]+)", prose) + re.findall(r"""(?:src|href|srcset)=["']([^"'\s]+)""", prose)
    return [*found, *re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, flags=re.M)]


def test_links_are_found():
    text = "[a](b.md) ![c](d.png 'e') <img src=\"f.svg\" width=3>\n[g]: h/i.md\n`[x](y)`\n```sh\n[x](y)\n```\n"
    assert links(text) == ["b.md", "d.png", "f.svg", "h/i.md"]


def anchors(text):
    """Of the headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?) *$", prose, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere_in_the_repository():
    for target in links(README):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        if path:
            assert (ROOT / path).resolve().is_relative_to(ROOT), target
            assert (ROOT / path).exists(), target
        elif anchor:
            assert anchor in anchors(README), target


def test_every_linked_file_is_one_that_git_keeps():
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return  # an unpacked archive has what was kept
    paths = sorted({target.partition("#")[0] for target in links(README) if not re.match(r"[a-z]+:|#", target)})
    ignored = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not paths or ignored.stdout == ""


def names_of_the_library(text):
    return sorted(set(re.findall(r"\brp((?:\.[A-Za-z_]\w*)+)", text)))


def test_every_name_of_the_library_exists():
    for dotted in names_of_the_library(README):
        found = rp
        for name in dotted.strip(".").split("."):
            assert hasattr(found, name), f"rp{dotted}"
            found = getattr(found, name)


def op_like(text):
    """Names in backticks that begin as those of ops do, such as normal_tril_* or elbo_diag_combine."""
    families = {name.split("_")[0] for name in rp.OPS if "_" in name}
    quoted = re.findall(r"`(?:rp\.)?([a-z]\w*(?:_[a-z*]\w*)+\*?)[`(.]", text)
    return sorted({name for name in quoted if name.split("_")[0] in families})


def test_ops_are_recognized():
    text = (
        "`normal_tril_log_prob`, `cholesky_ex(a)`, `rp.tril_solve.vjp`, `normal_diag_*`, `elbo_no_such`, `other_name`"
    )
    assert op_like(text) == ["cholesky_ex", "elbo_no_such", "normal_diag_*", "normal_tril_log_prob", "tril_solve"]


def test_every_op_that_is_named_exists():
    for name in op_like(README):
        assert fnmatch.filter(rp.OPS, name) or hasattr(rp.plot, name), name
