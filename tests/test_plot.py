# SPDX-License-Identifier: MIT
"""Every function of ``rp.plot`` draws what it is given into the axes it is given, and refuses what it cannot draw."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgba

import reparam as rp

mpl.use("Agg")

HISTORY = {"step": [12.0, 24.0, 36.0], "epoch": [0.0, 1.0, 2.0], "elbo": [-30.0, -20.0, -15.0]}
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float64).reshape(2, 3, 4, 5)
ROWS = np.arange(24.0).reshape(6, 4) ** 2 % 7
GAPS = {"diag": rp.models.Gaps(*np.array([[0, 0], [-9, -7], [1, 3], [4, 8], [1, 1]])),
        "full": rp.models.Gaps(*np.array([[0, 0], [-3, -1], [0, 1], [2, 1], [1, 1]]))}  # fmt: skip
ONE_SIGMA = 1 - np.exp(-0.5)  # the mass of N(0, I) within distance 1 in the plane


def mixture(covariance_type="full"):
    return rp.GaussianMixture(2, covariance_type=covariance_type, reg_covar=0.1, max_iter=0, random_state=0).fit(ROWS)


DRAWINGS = {
    "elbo_curve": lambda ax: rp.plot.elbo_curve(HISTORY, ax=ax),
    "posterior_ellipses": lambda ax: rp.plot.posterior_ellipses(np.zeros((3, 2)), np.ones((3, 2)), ax=ax),
    "latent_map": lambda ax: rp.plot.latent_map(np.eye(3), [0, 1, 0], ax=ax),
    "digit_grid": lambda ax: rp.plot.digit_grid(IMAGES, ax=ax),
    "elbo_trace": lambda ax: rp.plot.elbo_trace([-3.0, -2.0, -1.5], [0.5, 0.3, 0.1], ax=ax),
    "gap_bars": lambda ax: rp.plot.gap_bars(GAPS, ax=ax),
    "mixture_components": lambda ax: rp.plot.mixture_components(mixture(), ROWS, ax=ax),
    "reconstructions": lambda ax: rp.plot.reconstructions(ROWS, ROWS, image_shape=(2, 2), ax=ax),
}


@pytest.fixture(autouse=True)
def _no_figure_stays():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.figure().add_subplot()


def drawn(ax):
    return [*ax.lines, *ax.collections, *ax.images, *ax.patches]


# ---- axes


def test_every_public_function_is_drawn_here():
    assert {name for name in rp.plot.__all__ if callable(getattr(rp.plot, name))} == set(DRAWINGS)


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws_into_the_given_axes_and_returns_them(name, ax):
    other = ax.figure.add_subplot()
    assert DRAWINGS[name](ax) is ax
    assert drawn(ax)
    assert not drawn(other)
    assert plt.get_fignums() == [ax.figure.number]
    ax.figure.canvas.draw()


@pytest.mark.parametrize("name", DRAWINGS)
def test_makes_axes_of_its_own_where_none_are_given(name):
    ax = DRAWINGS[name](None)
    assert isinstance(ax, mpl.axes.Axes)
    assert drawn(ax)
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.parametrize("name", DRAWINGS)
def test_leaves_the_style_of_the_process_alone(name, ax):
    before = dict(mpl.rcParams)
    DRAWINGS[name](ax)
    assert dict(mpl.rcParams) == before


def test_the_style_is_one_that_matplotlib_takes(ax):
    with mpl.rc_context(rp.plot.STYLE):
        assert mpl.rcParams["axes.titleweight"] == "bold"


def test_matplotlib_is_imported_at_the_first_call_only():
    code = "import sys, reparam as rp; rp.plot.elbo_curve; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("call", ["elbo_trace([1.0])", "digit_grid([[[[1.0]]]])"])
def test_without_matplotlib_the_error_says_what_to_install(call):
    code = f"import sys; sys.modules['matplotlib'] = None; import reparam as rp; rp.plot.{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.splitlines()[-1] == "ImportError: figures need matplotlib: pip install matplotlib"


# ---- ellipses


@pytest.fixture
def gaussian(rng):
    """A Gaussian in four dimensions, its covariance by NumPy."""
    scale_tril = np.tril(rng.standard_normal((4, 4)), -1) + np.diag([0.5, 2.0, 1.0, 1.5])
    return rng.standard_normal(4), scale_tril, scale_tril @ scale_tril.T


def outline(ax, k=0):
    return np.stack(ax.lines[k].get_data(), axis=-1)


def squared_distance(points, loc, covariance):
    """(x - loc)^T covariance^-1 (x - loc)."""
    return np.einsum("...i,ij,...j", points - loc, np.linalg.inv(covariance), points - loc)


@pytest.mark.parametrize("dims", [(0, 1), (2, 0), (1, 3)])
@pytest.mark.parametrize("mass", [0.05, ONE_SIGMA, 0.9, 0.999])
def test_an_ellipse_is_the_contour_that_holds_the_mass_of_the_marginal(gaussian, dims, mass, ax):
    loc, scale_tril, covariance = gaussian
    rp.plot.posterior_ellipses(loc[None], scale_tril[None], dims=dims, mass=mass, ax=ax)
    marginal = covariance[np.ix_(dims, dims)]
    distance = squared_distance(outline(ax), loc[list(dims)], marginal)
    np.testing.assert_allclose(distance, -2 * np.log(1 - mass), rtol=1e-12)  # chi^2 with 2 degrees of freedom


def test_the_mass_inside_is_that_of_draws(gaussian, ax):
    loc, scale_tril, covariance = gaussian
    rp.plot.posterior_ellipses(loc[None], scale_tril[None], dims=(1, 3), ax=ax)
    draws = rp.MultivariateNormal(loc, scale_tril=scale_tril).rsample((40_000,), key=3)[:, [1, 3]]
    marginal = covariance[np.ix_([1, 3], [1, 3])]
    edge = squared_distance(outline(ax), loc[[1, 3]], marginal)
    inside = (squared_distance(draws, loc[[1, 3]], marginal) < edge.mean()).mean()
    assert abs(inside - 0.9) < 4.5 * np.sqrt(0.9 * 0.1 / 40_000)


def test_the_half_axes_of_one_sigma_are_the_roots_of_the_eigenvalues(ax):
    """[[5, 3], [3, 5]] has the axes (1, 1) and (1, -1) with the variances 8 and 2."""
    rp.plot.posterior_ellipses([1.0, -1.0], np.linalg.cholesky([[5.0, 3.0], [3.0, 5.0]]), mass=ONE_SIGMA, ax=ax)
    from_center = outline(ax) - [1.0, -1.0]
    along, across = (from_center @ np.array([[1, 1], [1, -1]]) / np.sqrt(2)).T
    np.testing.assert_allclose([along.max(), -along.min()], np.sqrt(8), rtol=1e-12)
    np.testing.assert_allclose([across.max(), -across.min()], np.sqrt(2), rtol=1e-12)


def test_a_diagonal_gaussian_has_an_ellipse_along_the_axes(ax):
    rp.plot.posterior_ellipses([[0.0, 10.0, 5.0]], [[2.0, 7.0, 3.0]], dims=(0, 2), mass=ONE_SIGMA, ax=ax)
    x, y = outline(ax).T
    np.testing.assert_allclose((x / 2) ** 2 + ((y - 5) / 3) ** 2, 1, rtol=1e-12)
    np.testing.assert_allclose([x.max(), y.max()], [2, 8], rtol=1e-3)


def test_a_diagonal_gaussian_and_its_full_factor_have_the_same_ellipse(rng):
    loc, scale = rng.standard_normal((5, 3)), rng.uniform(0.5, 2, (5, 3))
    one = rp.plot.posterior_ellipses(loc, scale)
    two = rp.plot.posterior_ellipses(loc, scale[..., None] * np.eye(3))
    for k in range(5):
        same = [squared_distance(outline(ax, k), loc[k, :2], np.diag(scale[k, :2] ** 2)) for ax in (one, two)]
        np.testing.assert_allclose(same, -2 * np.log(0.1), rtol=1e-12)


def test_a_degenerate_gaussian_is_a_segment(ax):
    rp.plot.posterior_ellipses([[0.0, 0.0]], [[1.0, 0.0]], mass=ONE_SIGMA, ax=ax)
    x, y = outline(ax).T
    np.testing.assert_allclose(y, 0, atol=1e-15)
    assert x.max() == pytest.approx(1, rel=1e-3)


def test_nothing_above_the_diagonal_is_read(gaussian, ax):
    loc, scale_tril, _ = gaussian
    rp.plot.posterior_ellipses(loc, scale_tril, ax=ax)
    rp.plot.posterior_ellipses(loc, scale_tril + np.triu(np.full((4, 4), 7.0), 1), ax=ax)
    np.testing.assert_array_equal(outline(ax, 0), outline(ax, 1))


@pytest.mark.parametrize("count", [1, 2, 300])
def test_there_is_one_outline_per_gaussian_and_one_entry_in_the_legend(count, ax):
    rp.plot.posterior_ellipses(
        np.zeros((count, 2), np.float32),
        np.ones((count, 2), np.float32),
        color="#112233",
        label="q",
        ax=ax,
        linewidth=3,
    )
    assert len(ax.lines) == count
    assert {to_hex(line.get_color()) for line in ax.lines} == {"#112233"}
    assert {line.get_linewidth() for line in ax.lines} == {3}
    assert ax.get_legend_handles_labels()[1] == ["q"]
    np.testing.assert_allclose(outline(ax)[0], outline(ax)[-1], rtol=0, atol=1e-14)  # closed


# ---- curves


def test_the_curve_shows_the_history(ax):
    rp.plot.elbo_curve({**HISTORY, "validation_elbo": [-31.0, -22.0, -18.0]}, log_likelihood=-14.0, ax=ax)
    by_label = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(by_label["training"].get_data(), [[1, 2, 3], HISTORY["elbo"]])
    np.testing.assert_array_equal(by_label["held out"].get_data(), [[1, 2, 3], [-31, -22, -18]])
    np.testing.assert_array_equal(by_label["log-likelihood, held out"].get_ydata(), -14)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(by_label)
    low, high = ax.get_ylim()
    assert low < -31
    assert high > -14


@pytest.mark.parametrize("history", [HISTORY, {**HISTORY, "validation_elbo": [np.nan] * 3}], ids=["absent", "nan"])
def test_without_validation_data_there_is_one_curve(history, ax):
    rp.plot.elbo_curve(history, ax=ax)
    assert [line.get_label() for line in ax.lines] == ["training"]


def test_one_epoch_is_a_visible_point(ax):
    rp.plot.elbo_curve({"epoch": [0.0], "elbo": [-3.0]}, ax=ax)
    assert ax.lines[0].get_marker() == "o"
    low, high = ax.get_ylim()
    assert low < -3 < high


def test_the_first_epochs_do_not_flatten_the_others(ax):
    elbo = -100 / np.arange(1.0, 201) ** 2
    rp.plot.elbo_curve({"epoch": np.arange(200.0), "elbo": elbo}, ax=ax)
    assert elbo[0] < ax.get_ylim()[0] < elbo[10] < elbo[-1] < ax.get_ylim()[1]


def test_the_trace_has_a_band_of_one_standard_error_and_ends_where_the_problem_stopped(ax):
    elbo, error = np.array([-9.0, -3.0, -2.0, np.nan]), np.array([2.0, 1.0, 0.5, np.nan])
    rp.plot.elbo_trace(elbo, error, log_evidence=-1.0, label="full", ax=ax)
    trace, level = ax.lines
    np.testing.assert_array_equal(trace.get_data(), [[1, 2, 3, 4], elbo])
    np.testing.assert_array_equal(level.get_ydata(), -1)
    points = ax.collections[0].get_paths()[0].vertices
    assert {(1, -11), (1, -7), (3, -2.5), (3, -1.5)} <= {tuple(point) for point in points}
    assert points[:, 0].max() == 3
    low, high = ax.get_ylim()
    assert low < -11
    assert high > -1
    rp.plot.elbo_trace([-20.0], [np.nan], ax=ax)  # another one: the first stays in view
    assert ax.get_ylim()[0] < -20 < -1 < ax.get_ylim()[1]


def test_the_first_steps_do_not_flatten_the_others(ax):
    elbo = -100 / np.arange(1.0, 201) ** 2
    rp.plot.elbo_trace(np.append(elbo, [np.nan] * 1000), ax=ax)
    assert elbo[0] < ax.get_ylim()[0] < elbo[10] < elbo[-1] < ax.get_ylim()[1]


def test_a_bar_stacks_the_mean_gaps_of_its_model(ax):
    rp.plot.gap_bars(GAPS, ax=ax)
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 2), (0, 0.5), (2, 6), (0.5, 1.5)]  # approximation of each model, then amortization
    assert [text.get_text() for text in ax.get_yticklabels()] == ["diag", "full"]
    assert [text.get_text() for text in ax.texts] == ["2 + 6", "0.5 + 1.5"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["approximation gap", "amortization gap"]
    assert ax.get_xlim()[1] > 8


# ---- mixtures


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_components_are_ellipses_of_their_marginals_over_their_rows(covariance_type, ax):
    model, pair = mixture(covariance_type), [2, 0]
    rp.plot.mixture_components(model, ROWS, dims=pair, mass=ONE_SIGMA, ax=ax)
    dense = np.empty((2, 4, 4))
    for k in range(2):
        own = model.covariances_ if covariance_type == "tied" else model.covariances_[k]
        dense[k] = own * np.eye(4) if np.ndim(own) < 2 else own
        marginal = dense[k][np.ix_(pair, pair)]
        np.testing.assert_allclose(squared_distance(outline(ax, k), model.means_[k, pair], marginal), 1, rtol=1e-9)
        np.testing.assert_array_equal(ax.collections[k].get_offsets(), ROWS[model.predict(ROWS) == k][:, pair])
        assert to_hex(ax.lines[k].get_color()) == to_hex(ax.collections[k].get_facecolor()[0])
    assert [text.get_text() for text in ax.texts] == [f"{weight:.2f}" for weight in model.weights_]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x[2]", "x[0]")


def test_a_component_without_rows_is_drawn_too(ax):
    rp.plot.mixture_components(mixture(), ROWS[mixture().predict(ROWS) == 1], ax=ax)
    assert (len(ax.lines), len(ax.collections)) == (2, 1)


# ---- maps


def test_every_point_is_drawn_once_in_the_colour_of_its_class(rng, ax):
    value, labels = rng.standard_normal((500, 4)), rng.integers(0, 10, 500)
    rp.plot.latent_map(value, labels, dims=(3, 1), ax=ax)
    assert len(ax.collections) == 10
    for k, points in enumerate(ax.collections):
        np.testing.assert_array_equal(points.get_offsets(), value[labels == k][:, [3, 1]])
    assert len({to_hex(points.get_facecolor()[0]) for points in ax.collections}) == 10
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z[3]", "z[1]")
    assert ax.get_aspect() == 1


def names_of_classes(ax):
    legend = next(artist for artist in ax.get_children() if isinstance(artist, mpl.legend.Legend))
    return {text.get_text(): to_hex(text.get_color()) for text in legend.get_texts()}


@pytest.mark.parametrize("names", [["setosa"], ["b", "a"], list("abcdefghijklmnopqrstuvwxyz")])
def test_each_class_is_named_in_its_colour(names, ax):
    rp.plot.latent_map(np.zeros((len(names), 2)), names, ax=ax)
    colors = [to_hex(points.get_facecolor()[0]) for points in ax.collections]
    assert names_of_classes(ax) == dict(zip(sorted(names), colors, strict=True))


def test_another_legend_leaves_the_names_of_the_classes(ax):
    rp.plot.latent_map(np.zeros((2, 2)), [7, 8], ax=ax)
    rp.plot.posterior_ellipses([[0.0, 0.0]], [[1.0, 1.0]], label="q", ax=ax)
    ax.legend()
    assert set(names_of_classes(ax)) == {"7", "8"}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["q"]
    ax.figure.canvas.draw()


# ---- grids


@pytest.mark.parametrize("gap", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 4, 5), (2, 3, 4, 5), (6, 10, 8, 8)])
def test_every_image_stands_in_its_place(gap, shape, rng, ax):
    images = rng.uniform(1, 16, shape)
    rp.plot.digit_grid(images, gap=gap, ax=ax)
    canvas = ax.images[0].get_array()
    rows, columns, height, width = shape
    assert canvas.shape == (rows * (height + gap) - gap, columns * (width + gap) - gap)
    for r, c in np.ndindex(rows, columns):
        top, left = r * (height + gap), c * (width + gap)
        np.testing.assert_array_equal(canvas[top : top + height, left : left + width], images[r, c])
    assert canvas.sum() == pytest.approx(images.sum(), rel=1e-12)  # and white between them
    assert ax.images[0].get_clim() == (0, images.max())


def test_hidden_pixels_are_tinted_and_the_others_grey(ax):
    images = IMAGES.copy()
    images[1, 2, 2:] = np.nan
    rp.plot.digit_grid(images, vmax=119, ax=ax)
    rgba = ax.images[0].to_rgba(ax.images[0].get_array())
    np.testing.assert_allclose(rgba[-2:, -5:], np.broadcast_to(to_rgba(rp.plot.COLORS["hidden"]), (2, 5, 4)))
    seen = rgba[:4, :5, :3]
    np.testing.assert_array_equal(seen, seen[..., :1].repeat(3, axis=-1))
    assert (np.diff(seen[..., 0].ravel()) <= 0).all()  # more ink, darker


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_images_without_ink_are_drawn(value, ax):
    rp.plot.digit_grid(np.full((1, 2, 3, 3), value), ax=ax)
    low, high = ax.images[0].get_clim()
    assert low < high
    ax.figure.canvas.draw()


def tiles(ax, rows, columns):
    canvas = ax.images[0].get_array()
    return [[canvas[4 * r : 4 * r + 2, 4 * c : 4 * c + 2].ravel() for c in range(columns)] for r in range(rows)]


def test_reconstructions_stand_beside_their_data(rng, ax):
    draws = rng.uniform(size=(3, 6, 4))
    rp.plot.reconstructions(ROWS, draws, image_shape=(2, 2), ax=ax)
    table = tiles(ax, 6, 4)
    for r in range(6):
        np.testing.assert_array_equal(table[r], [ROWS[r], *draws[:, r]])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["data", "reconstructions"]


def test_completions_keep_what_was_seen_and_end_with_the_truth(rng, ax):
    decoded, observed = rng.uniform(size=(6, 4)), np.tile([1, 0, 0, 1], (6, 1))
    rp.plot.reconstructions(ROWS, decoded, image_shape=(2, 2), observed=observed, ax=ax)
    table = tiles(ax, 6, 3)
    for r in range(6):
        np.testing.assert_array_equal(np.ma.filled(table[r][0], np.nan), np.where([1, 0, 0, 1], ROWS[r], np.nan))
        np.testing.assert_array_equal(table[r][1], [ROWS[r, 0], decoded[r, 1], decoded[r, 2], ROWS[r, 3]])
        np.testing.assert_array_equal(table[r][2], ROWS[r])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["seen", "completion", "truth"]


# ---- refusals

GOOD = np.zeros((3, 4))
FACTORS = np.broadcast_to(np.eye(4), (3, 4, 4))
REFUSED = [
    ("elbo_curve", [{"epoch": [0.0]}], {}, ValueError, "history must have the entries epoch and elbo, it lacks elbo"),
    ("elbo_curve", [{"epoch": [0.0, 1.0], "elbo": [0.0]}], {}, ValueError, r"history\['elbo'\] must have shape \(2,\)"),
    ("elbo_curve", [{**HISTORY, "validation_elbo": [1.0]}], {}, ValueError, r"history\['validation_elbo'\] must have"),
    ("elbo_curve", [{**HISTORY, "elbo": [0.0, np.nan, 1.0]}], {}, ValueError, r"history\['elbo'\] must be finite"),
    ("elbo_curve", [{"epoch": [], "elbo": []}], {}, ValueError, r"history\['epoch'\] is empty"),
    ("elbo_curve", [HISTORY], {"log_likelihood": [1.0, 2.0]}, ValueError, r"log_likelihood must have shape \(\), got"),
    ("elbo_curve", [HISTORY], {"log_likelihood": np.nan}, ValueError, "log_likelihood must be finite"),
    ("posterior_ellipses", [np.zeros((2, 3, 4)), FACTORS], {}, ValueError, r"loc must have shape \(B, d\) or \(d,\)"),
    ("posterior_ellipses", [GOOD, np.ones((2, 4))], {}, ValueError, r"scale_tril must have shape \(3, 4, 4\) or"),
    ("posterior_ellipses", [GOOD, np.ones((4, 4))], {}, ValueError, r"scale_tril must have .* got \(4, 4\)"),
    ("posterior_ellipses", [GOOD, np.ones((3, 4, 3))], {}, ValueError, r"scale_tril must have .* got \(3, 4, 3\)"),
    ("posterior_ellipses", [GOOD, FACTORS * np.nan], {}, ValueError, "scale_tril must be finite"),
    ("posterior_ellipses", [GOOD + np.inf, FACTORS], {}, ValueError, "loc must be finite"),
    ("posterior_ellipses", [GOOD * 1j, FACTORS], {}, TypeError, "loc must hold real numbers, got complex128"),
    ("posterior_ellipses", [GOOD, FACTORS], {"mass": 0}, ValueError, r"mass must be .* in \(0, 1\), got 0"),
    ("posterior_ellipses", [GOOD, FACTORS], {"mass": 1.0}, ValueError, r"mass must be .* in \(0, 1\), got 1.0"),
    ("posterior_ellipses", [GOOD, FACTORS], {"mass": np.nan}, ValueError, r"mass must be .* in \(0, 1\), got nan"),
    ("posterior_ellipses", [GOOD, FACTORS], {"dims": (0, 4)}, ValueError, r"dims must be two .* in 0..3, got \(0, 4\)"),
    ("posterior_ellipses", [GOOD, FACTORS], {"dims": (1, 1)}, ValueError, "dims must be two different coordinates"),
    ("posterior_ellipses", [GOOD[:, :1], GOOD[:, :1]], {}, ValueError, r"dims must be .* in 0..0, got \(0, 1\)"),
    ("latent_map", [GOOD[0], [1]], {}, ValueError, r"value must have shape \(n, d\), got \(4,\)"),
    ("latent_map", [GOOD, [1, 2]], {}, ValueError, r"labels must have shape \(3,\), got \(2,\)"),
    ("latent_map", [GOOD, GOOD], {}, ValueError, r"labels must have shape \(3,\), got \(3, 4\)"),
    ("latent_map", [GOOD[:0], []], {}, ValueError, r"value is empty: it has shape \(0, 4\)"),
    ("latent_map", [GOOD, [1, 2, 3]], {"dims": (-1, 0)}, ValueError, "dims must be two different coordinates"),
    ("latent_map", [GOOD, [1, 2, 3]], {"dims": (0, 1, 2)}, ValueError, "dims must be two different coordinates"),
    ("latent_map", [[["a", "b"]], [1]], {}, TypeError, "value must hold real numbers, got <U1"),
    ("digit_grid", [np.zeros((3, 8, 8))], {}, ValueError, r"images must have shape \(rows, columns, height"),
    ("digit_grid", [np.zeros((0, 2, 8, 8))], {}, ValueError, "images is empty"),
    ("digit_grid", [IMAGES + np.inf], {}, ValueError, "images must be finite or NaN"),
    ("elbo_trace", [[np.nan, np.nan]], {}, ValueError, "elbo must have a step that is not NaN, got none"),
    ("elbo_trace", [[1.0, 2.0], [1.0]], {}, ValueError, r"standard_error must have shape \(2,\), got \(1,\)"),
    ("elbo_trace", [[1.0]], {"log_evidence": np.inf}, ValueError, "log_evidence must be finite"),
    ("gap_bars", [GAPS["full"]], {}, TypeError, "gaps must be a mapping from names to what VAE.gaps returns"),
    ("gap_bars", [{}], {}, ValueError, "gaps must hold at least one model, got none"),
    ("gap_bars", [{"a": 1.0}], {}, TypeError, r"gaps\['a'\] must be what VAE.gaps returns"),
    ("gap_bars", [{"a": rp.models.Gaps(*np.full((5, 2), np.nan))}], {}, ValueError, "_gap must be finite"),
    ("mixture_components", [rp.GaussianMixture(2), ROWS], {}, TypeError, "model must be a fitted GaussianMixture"),
    ("mixture_components", [3, ROWS], {}, TypeError, "model must be a fitted GaussianMixture, got 3"),
    ("mixture_components", [mixture(), ROWS[:, :3]], {}, ValueError, r"x must have shape \(n, 4\), got \(6, 3\)"),
    ("mixture_components", [mixture(), ROWS], {"dims": (0, 4)}, ValueError, "dims must be two different coordinates"),
    ("mixture_components", [mixture(), ROWS], {"mass": 1}, ValueError, r"mass must be .* in \(0, 1\), got 1"),
    ("reconstructions", [ROWS, ROWS[:2]], {"image_shape": (2, 2)}, ValueError, r"decoded must have shape \(6, 4\) or"),
    ("reconstructions", [ROWS, ROWS], {"image_shape": (2, 3)}, ValueError, r"x must have shape \(n, 6\), got"),
    ("reconstructions", [ROWS, ROWS], {"image_shape": 4}, TypeError, "image_shape must be two positive integers"),
    ("digit_grid", [IMAGES], {"gap": -1}, ValueError, "gap must be >= 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "keywords", "error", "message"), REFUSED)
def test_what_cannot_be_drawn_is_refused_by_its_name_and_leaves_no_figure(name, args, keywords, error, message):
    with pytest.raises(error, match=message):
        getattr(rp.plot, name)(*args, **keywords)
    assert plt.get_fignums() == []
