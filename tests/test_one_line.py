# SPDX-License-Identifier: MIT
"""Programs of other frameworks with one line changed: the same losses, and what they print."""

import importlib
import importlib.util

import pytest

FRAMEWORKS = {"torch_vae": "torch", "numpyro_svi": "numpyro"}


def ran(name, capsys):
    """The numbers of an example, and what it printed."""
    if importlib.util.find_spec(FRAMEWORKS[name]) is None:
        pytest.skip(f"needs {FRAMEWORKS[name]}")
    numbers = importlib.import_module(f"reparam.examples.one_line.{name}").main()
    return numbers, capsys.readouterr().out


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_training_is_what_it_was(name, capsys):
    numbers, printed = ran(name, capsys)
    assert numbers["difference"] < 1e-5
    assert numbers["fall"] > 100
    assert printed.count("before") == printed.count("after") == 2
    assert "import" in printed
