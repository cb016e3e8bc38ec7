# SPDX-License-Identifier: MIT
"""The lecture note's page is true: its examples reach the exact numbers, its code runs, what it names exists."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

import reparam as rp
from test_readme import anchors, blocks, check, links, names_of_the_library, says_something

ROOT = Path(__file__).resolve().parents[1]
NOTE = (ROOT / "docs" / "the-note.md").read_text(encoding="utf-8")
FOLDER = Path(rp.__file__).parent / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def ran(name, out):
    """The numbers of an example, all finite, once its picture is one and small."""
    numbers = importlib.import_module(f"reparam.examples.{name}").main(["--out", str(out)])
    assert all(isinstance(value, float) and abs(value) < 1e6 for value in numbers.values())
    (picture,) = out.iterdir()
    assert picture.name == f"{name}.png"
    assert picture.stat().st_size <= 60_000
    image = imread(picture)
    assert image.shape[0] == 324
    assert image[..., :3].std() > 0.05  # something was drawn
    return numbers


def test_every_example_has_its_test():
    assert sorted(re.findall(r'ran\("(\w+)", tmp_path\)', Path(__file__).read_text(encoding="utf-8"))) == NAMES


# ---- the exact answers


def test_em_has_the_exact_bounds_and_the_posterior_is_the_best_q(tmp_path):
    numbers = ran("mixture_on_iris", tmp_path)
    assert max(numbers["error_full"], numbers["error_diag"]) < 1e-9
    assert numbers["gap_at_the_posterior"] < 1e-12
    assert 0.005 < numbers["gap_of_hard_clusters"] < 0.05
    assert numbers["agreement"] > 0.96


def test_a_linear_vae_reaches_the_closed_form_within_a_hundredth_of_a_nat_a_row(tmp_path):
    numbers = ran("ppca_against_linear_vae", tmp_path)
    for name in ("iris", "wine"):
        assert numbers[f"pca_error_{name}"] < 1e-6
        assert -1e-9 < numbers[f"short_per_row_{name}"] < 0.01


def test_one_latent_is_nearer_to_the_truth_than_any_mixture(tmp_path):
    numbers = ran("curve", tmp_path)
    assert numbers["one_gaussian"] < numbers["best_mixture"] - 1 < numbers["vae"] - 1 < numbers["true"] - 1
    assert numbers["true"] - numbers["vae"] < 0.02
    assert numbers["quadrature_error"] < 1e-4


def test_eight_schools_reach_both_optima(tmp_path):
    numbers = ran("eight_schools", tmp_path)
    assert numbers["full"] == pytest.approx(-31.53400795, abs=0.01)
    assert numbers["diag"] == pytest.approx(-31.59730108, abs=0.01)
    assert numbers["weighted"] == pytest.approx(-31.31134738, abs=0.05)
    assert 0.4 < min(numbers["khat_full"], numbers["khat_diag"]) < 0.7


def test_both_families_reach_their_optimum_one_by_one_and_by_one_encoder(tmp_path):
    numbers = ran("mean_field_against_full", tmp_path)
    for kind, exact in (("full", -404.962780), ("diag", -507.088309)):
        for how in ("classical", "amortized"):
            assert -1e-6 < exact - numbers[f"{how}_{kind}"] < 0.01 * 150
    assert numbers["classical_full"] == pytest.approx(-404.962780, abs=1e-6)
    assert numbers["variance"] == pytest.approx(numbers["exact_variance"], rel=0.05)


def test_a_thousand_regressions_are_calibrated(tmp_path):
    """8000 levels; four standard errors of a share are 0.0134."""
    numbers = ran("thousand_logistic_regressions", tmp_path)
    assert numbers["converged"] == 1
    assert numbers["central"] == pytest.approx(0.9, abs=0.014)
    assert numbers["mean_level"] == pytest.approx(0.5, abs=4 * (12 * 8000) ** -0.5)
    assert numbers["elbo"] < numbers["evidence"] < numbers["elbo"] + 0.2
    assert numbers["khat"] < 0.7


def test_the_parts_of_the_evidence_add_up(tmp_path):
    numbers = ran("amortization_gap", tmp_path)
    for kind in ("diag", "full"):
        assert numbers[f"exact_{kind}"] == 1
        assert numbers[f"error_{kind}"] < 1e-9
        assert numbers[f"weighted_{kind}"] > 0
        assert numbers[f"amortization_{kind}"] > numbers[f"approximation_{kind}"] > 0
    assert numbers["approximation_full"] < numbers["approximation_diag"] / 3


def test_more_draws_train_a_better_bound(tmp_path):
    numbers = ran("iwae_against_vae", tmp_path)
    assert numbers["VAE"] + 5 < numbers["IWAE, 5 draws"] < numbers["IWAE, 50 draws"] - 1
    assert numbers["IWAE, 5 draws"] < numbers["DReG, 5 draws"]
    assert numbers["IWAE, 50 draws"] < numbers["DReG, 50 draws"]
    assert numbers["growth"] > 0
    assert numbers["known_1"] == pytest.approx(numbers["evidence"] - numbers["short"], abs=0.02)
    assert numbers["known_1"] + 0.3 < numbers["known_500"] < numbers["evidence"]
    assert numbers["at_posterior"] == pytest.approx(numbers["evidence"], abs=1e-12)


def test_a_full_covariance_pays_where_half_was_hidden(tmp_path):
    numbers = ran("half_hidden_digits", tmp_path)
    assert numbers["diag"] + 1 < numbers["full"] < numbers["evidence"]
    assert numbers["error"] < numbers["error_of_mean"] - 0.5


# ---- manners


def test_without_matplotlib_there_are_the_numbers_alone(tmp_path):
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        f"from reparam.examples.mixture_on_iris import main; main(['--out', {str(tmp_path / 'no')!r}])"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "-1.219472" in done.stdout
    assert done.stdout.endswith("no picture: pip install matplotlib\n")
    assert not (tmp_path / "no").exists()


def test_as_a_module_it_prints_and_without_a_folder_writes_nothing(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "reparam.examples.mixture_on_iris"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, cwd=tmp_path)
    assert "exact" in done.stdout
    assert not [*tmp_path.iterdir()]


def test_an_example_is_short():
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 100, path


# ---- the page


def test_every_example_is_mentioned_and_every_mentioned_one_exists():
    assert sorted(re.findall(r"`python -m reparam\.examples\.(\w+)`", NOTE)) == NAMES


def test_every_link_and_picture_exists():
    for target in links(NOTE):
        path, _, anchor = target.partition("#")
        assert (ROOT / "docs" / path).exists(), target
        assert path or anchor in anchors(NOTE), target
    shown = {target for target in links(NOTE) if target.endswith(".png")}
    assert shown == {f"figures/{name}.png" for name in NAMES}
    for path in (ROOT / "docs" / "figures").iterdir():
        assert path.stat().st_size <= 60_000


def test_every_test_that_is_named_exists():
    named = re.findall(r"`tests/(\w+\.py)::(\w+)`", NOTE)
    assert len(named) > 30
    for file, name in named:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, flags=re.M), f"{file}::{name}"


def test_every_name_of_the_library_exists():
    for dotted in names_of_the_library(NOTE):
        found = rp
        for name in dotted.strip(".").split("."):
            assert hasattr(found, name), f"rp{dotted}"
            found = getattr(found, name)


@pytest.mark.parametrize(
    ("line", "block"), blocks(NOTE, "python"), ids=lambda x: f"line {x}" if isinstance(x, int) else ""
)
def test_a_block_runs_without_warnings_and_prints_what_it_claims(line, block, tmp_path):
    if "import torch" in block and importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    assert says_something(block) or "np.testing.assert_" in block, f"the block of line {line} claims nothing"
    wrong = check(block, tmp_path)
    assert wrong is None, f"the block of line {line}: {wrong}"
