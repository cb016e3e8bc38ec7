# SPDX-License-Identifier: MIT
"""Programs of other frameworks with one line changed: the same numbers, and what they print."""

import importlib
import importlib.util
from pathlib import Path

import pytest

import reparam as rp

FRAMEWORKS = {"numpyro_svi": "numpyro", "scikit_learn_pipeline": "sklearn", "torch_vae": "torch"}


def ran(name, capsys):
    """The numbers of an example, and what it printed."""
    if importlib.util.find_spec(FRAMEWORKS[name]) is None:
        pytest.skip(f"needs {FRAMEWORKS[name]}")
    numbers = importlib.import_module(f"reparam.examples.one_line.{name}").main()
    return numbers, capsys.readouterr().out


def test_every_example_is_here():
    folder = Path(rp.__file__).parent / "examples" / "one_line"
    assert sorted(path.stem for path in folder.glob("[!_]*.py")) == sorted(FRAMEWORKS)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_one_line_changes_no_number(name, capsys):
    numbers, printed = ran(name, capsys)
    assert numbers["difference"] < 1e-5
    assert numbers.get("fall", 200) > 100  # of the loss
    assert numbers.get("same_best", 1) == 1
    before, after = (line.split(maxsplit=1)[1] for line in printed.splitlines()[1:3])
    assert before.split(" import ")[1] == after.split(" import ")[1]
    assert after.startswith("from reparam.")
    assert printed.splitlines()[4].split() == ["before", "after"]
