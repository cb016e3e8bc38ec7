# SPDX-License-Identifier: MIT
"""Variational inference where the posterior is known: what it converges to; steps, epochs and keys as documented."""

from types import SimpleNamespace

import numpy as np
import pytest

import reparam as rp
from reparam.inference import maximize_elbo, refine
from reparam.inference.refine import convert
from support import UNIT, relative_error, same_bits

ROWS, D, N, KEY = 10, 3, 5, 2**50 + 9
FEATURES = {"full": D + D * (D + 1) // 2, "diag": 2 * D}

backend_axis = pytest.mark.usefixtures("backend")


@pytest.fixture(params=["full", "diag"])
def family(request):
    return request.param


def make_model(weight, noise_scale=0.7, rows=ROWS):
    """x | z ~ N(weight z + bias, noise_scale^2 I), z ~ N(0, I): the posterior of each row, by NumPy."""
    rng = np.random.default_rng(4)
    n, d = weight.shape
    bias, x = rng.standard_normal(n), 2 * rng.standard_normal((rows, n))
    precision = np.eye(d) + weight.T @ weight / noise_scale**2
    covariance = np.linalg.inv(precision)
    loc = (x - bias) @ weight @ covariance / noise_scale**2
    scale_tril = np.broadcast_to(np.linalg.cholesky(covariance), (rows, d, d))
    best_diag = np.broadcast_to(1 / np.sqrt(np.diag(precision)), (rows, d))  # Bishop, PRML, 10.1.2
    posterior, best = rp.MultivariateNormal(loc, scale_tril=scale_tril), rp.MultivariateNormalDiag(loc, best_diag)
    return SimpleNamespace(
        x=x, weight=weight, bias=bias, noise_scale=noise_scale, precision=precision, posterior=posterior, best_diag=best
    )


@pytest.fixture
def model(rng):
    return make_model(rng.standard_normal((N, D)))


def target_of(model, rows=slice(None), dtype="float64"):
    """The density of these rows, fused."""
    arrays = (np.asarray(a, dtype) for a in (model.x[rows], model.weight, model.bias, model.noise_scale))
    return rp.targets.LinearGaussian(*arrays)


def log_joint_of(model, rows, kl_weight=1.0):
    """``log p(x | z)/kl_weight + log p(z)`` up to a constant, and its gradient."""

    def log_joint(z):
        r = (model.x[rows] - z @ model.weight.T - model.bias) / model.noise_scale
        log_prob = -0.5 * ((z * z).sum(-1) + (r * r).sum(-1) / kl_weight)
        return log_prob, r @ model.weight / model.noise_scale / kl_weight - z

    return log_joint


def standard(family, batch_shape, d=D, dtype="float64", loc=0.0):
    """N(loc, I)."""
    where = np.full((*batch_shape, d), loc, dtype)
    if family == "diag":
        return rp.MultivariateNormalDiag(where, np.ones_like(where))
    return rp.MultivariateNormal(where, scale_tril=np.broadcast_to(np.eye(d, dtype=dtype), (*batch_shape, d, d)))


def scale_of(q):
    return q.scale_tril if isinstance(q, rp.MultivariateNormal) else q.scale_diag


def fields(q):
    return q.loc, scale_of(q)


def excess(q, model):
    """By row, in nats: how much further q is from the posterior than the best member of its family; in float64."""
    loc, scale = (f.astype(float) for f in fields(q))
    if isinstance(q, rp.MultivariateNormal):
        return rp.kl_divergence(rp.MultivariateNormal(loc, scale_tril=scale), model.posterior)
    wide = rp.MultivariateNormal(loc, scale_tril=scale[..., None] * np.eye(loc.shape[-1]))
    best = rp.MultivariateNormal(
        model.best_diag.loc, scale_tril=model.best_diag.scale_diag[..., None] * np.eye(loc.shape[-1])
    )
    return rp.kl_divergence(wide, model.posterior) - rp.kl_divergence(best, model.posterior)


class Classical:
    """One Gaussian for each row, its features the parameters; remembers what it was asked for."""

    def __init__(self, family, lr=0.0, rows=ROWS, dtype="float64"):
        self.head = rp.nn.GaussianHead(D, family)
        self.params = np.zeros((rows, FEATURES[family]), dtype)
        self.grads = np.full_like(self.params, np.nan)
        self.optimizer = rp.optim.Adam(self.params.reshape(-1), lr=lr)
        self.batches, self.draws, self.steps, self.epochs = [], [], [], []

    def encode(self, rows):
        self.batches.append(rows.copy())
        q, pullback = self.head(self.params[rows])

        def scatter(grad):
            self.grads[...] = 0
            self.grads[rows] = pullback(grad)

        return q, scatter

    def q(self):
        return self.head(self.params)[0]

    def run(self, log_joint, *, stop_at=None, **settings):
        """Train, and keep what the callbacks are told."""

        def watched(rows):
            density = log_joint(rows)

            def keeps(z):
                self.draws.append(z.copy())
                return density(z)

            return keeps if callable(density) else density

        def on_step(*told):
            self.steps.append(told)
            return told[0] == stop_at

        arguments = {"num_rows": len(self.params), "key": KEY, "batch_size": 4, "epochs": range(2), **settings}
        callbacks = {"on_step": on_step, "on_epoch": lambda *told: self.epochs.append(told)}
        grads = self.grads.reshape(-1)
        return maximize_elbo(self.encode, watched, self.optimizer, grads, **{**callbacks, **arguments})


# ---- maximize_elbo: what it converges to


def to_zero(steps, lr=0.1):
    """A rate that falls to zero, and the noise of Adam's steps with it."""
    return lambda step: lr * (1 - (step - 1) / steps)


@pytest.mark.parametrize(("batch_size", "epochs"), [(ROWS, 600), (4, 300)], ids=["all rows", "minibatches"])
def test_classical_inference_reaches_the_best_member_of_its_family(model, family, dtype, batch_size, epochs):
    steps = epochs * -(-ROWS // batch_size)
    vi = Classical(family, lr=to_zero(steps), dtype=dtype)
    assert excess(vi.q(), model).min() > 1
    settings = {"batch_size": batch_size, "num_samples": 64, "epochs": range(epochs)}
    assert vi.run(lambda rows: target_of(model, rows, dtype), **settings) == steps
    assert excess(vi.q(), model).mean() < 5e-3
    assert excess(vi.q(), model).max() < 2e-2


def test_the_last_epochs_bound_is_the_evidence(model):
    vi = Classical("full", lr=to_zero(600))
    vi.run(lambda rows: target_of(model, rows), batch_size=ROWS, num_samples=64, epochs=range(600))
    covariance = model.weight @ model.weight.T + model.noise_scale**2 * np.eye(N)
    r = model.x - model.bias
    evidence = -0.5 * (
        np.einsum("bi,ij,bj->b", r, np.linalg.inv(covariance), r) + np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    bounds = np.array([told[2] for told in vi.epochs])
    last = bounds[-100:]
    assert bounds[0] < evidence.mean() - 10
    assert abs(last.mean() - evidence.mean()) < 4.5 * last.std() / 10 + 1e-2
    assert last.std() / 10 < 0.05


def test_kl_weight_tempers_the_likelihood(model):
    weight = 4.0
    vi = Classical("full", lr=to_zero(600))
    vi.run(
        lambda rows: log_joint_of(model, rows, weight),
        batch_size=ROWS,
        num_samples=64,
        epochs=range(600),
        kl_weight=weight,
    )
    tempered = make_model(model.weight, model.noise_scale * np.sqrt(weight))
    assert rp.kl_divergence(tempered.posterior, model.posterior).min() > 0.1
    assert excess(vi.q(), tempered).mean() < 5e-3
    assert excess(vi.q(), tempered).max() < 2e-2


# ---- maximize_elbo: the protocol


@backend_axis
def test_the_same_run_gives_the_same_bits_and_another_key_others(model, family, dtype):
    runs = [Classical(family, lr=0.05, dtype=dtype) for _ in range(3)]
    for vi, key in zip(runs, (KEY, KEY, KEY + 1), strict=True):
        vi.run(lambda rows: target_of(model, rows, dtype), key=key, num_samples=3)
    same_bits(runs[0].params, runs[1].params)
    assert runs[0].steps == runs[1].steps
    assert runs[0].epochs == runs[1].epochs
    assert (runs[0].params != runs[2].params).all()


def test_steps_epochs_and_minibatches_are_counted_and_the_last_is_short(model, family):
    vi = Classical(family)
    steps = vi.run(lambda rows: log_joint_of(model, rows), epochs=(3, 5), step=7)
    assert steps == 13
    assert [told[:2] for told in vi.steps] == [(8, 3), (9, 3), (10, 3), (11, 5), (12, 5), (13, 5)]
    assert [told[:2] for told in vi.epochs] == [(10, 3), (13, 5)]
    assert [len(rows) for rows in vi.batches] == [4, 4, 2, 4, 4, 2]
    assert vi.optimizer.t == 6


def test_each_epoch_takes_every_row_once_in_an_order_of_the_key_alone(model):
    one, two, other = Classical("full"), Classical("diag", lr=0.1), Classical("full")
    one.run(lambda rows: log_joint_of(model, rows), epochs=range(4))
    two.run(lambda rows: target_of(model, rows), epochs=(2,), batch_size=3, num_samples=5, step=50)
    other.run(lambda rows: log_joint_of(model, rows), epochs=range(4), key=KEY + 1)
    orders = [np.concatenate(one.batches[3 * e : 3 * e + 3]) for e in range(4)]
    for epoch, order in enumerate(orders):
        np.testing.assert_array_equal(np.sort(order), np.arange(ROWS))
        key = rp.random.fold_in(rp.random.fold_in(KEY, 2**63 + 1), epoch)
        np.testing.assert_array_equal(order, np.argsort(rp.random.bits(2 * ROWS, key=key).view(np.uint64)))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(np.concatenate(two.batches), orders[2])
    assert (np.concatenate(other.batches[:3]) != orders[0]).any()


def test_without_a_shuffle_rows_come_in_order(model):
    vi = Classical("full")
    vi.run(lambda rows: log_joint_of(model, rows), shuffle=False)
    for epoch in range(2):
        np.testing.assert_array_equal(np.concatenate(vi.batches[3 * epoch : 3 * epoch + 3]), np.arange(ROWS))


def test_every_row_is_as_likely_at_every_place():
    from scipy import stats

    vi = Classical("diag", rows=6)
    epochs = 600
    vi.run(lambda rows: lambda z: (np.zeros(z.shape[:-1]), np.zeros_like(z)), epochs=range(epochs), batch_size=6)
    orders = np.array(vi.batches)
    counts = np.array([np.bincount(place, minlength=6) for place in orders.T])
    statistic = ((counts - epochs / 6) ** 2 / (epochs / 6)).sum()
    assert stats.chi2.sf(statistic, 25) > 1e-4


def test_step_t_draws_with_its_own_key_addressed_by_the_rows_numbers(model, family, dtype):
    """At N(0, I) the draws are the noise itself."""
    vi = Classical(family, dtype=dtype)
    vi.run(lambda rows: lambda z: (z[..., 0] * 0, z), num_samples=3, step=20)
    assert len(vi.draws) == 6
    for t, (rows, z) in enumerate(zip(vi.batches, vi.draws, strict=True), 20):
        key = rp.random.fold_in(KEY, t)
        for at, row in enumerate(rows):
            noise = rp.random.normal((3, D), key=key, stream=int(row), dtype=dtype)
            np.testing.assert_array_equal(z[:, at], noise)


def test_callbacks_are_told_the_mean_per_row_times_the_kl_weight(model, family):
    vi = Classical(family)
    vi.run(lambda rows: log_joint_of(model, rows, 2.5), kl_weight=2.5, num_samples=3)
    sums = []
    for t, (rows, told) in enumerate(zip(vi.batches, vi.steps, strict=True)):
        q = standard(family, rows.shape)
        estimate = rp.elbo(q, log_joint_of(model, rows, 2.5), key=rp.random.fold_in(KEY, t), num_samples=3, index=rows)
        np.testing.assert_allclose(told[2], 2.5 * estimate.value.mean(), rtol=1e-12)
        sums.append(2.5 * estimate.value.sum())
    for epoch in range(2):
        np.testing.assert_allclose(vi.epochs[epoch][2], sum(sums[3 * epoch : 3 * epoch + 3]) / ROWS, rtol=1e-12)


def test_the_optimizer_descends_minus_the_kl_weight_times_the_mean_gradient(model, family):
    vi = Classical(family)
    vi.run(lambda rows: log_joint_of(model, rows, 2.5), kl_weight=2.5, num_samples=3, stop_at=3)
    rows = vi.batches[2]
    q, pullback = vi.head(np.zeros((len(rows), FEATURES[family])))
    estimate = rp.elbo(q, log_joint_of(model, rows, 2.5), key=rp.random.fold_in(KEY, 2), num_samples=3, index=rows)
    expected = np.zeros_like(vi.grads)
    expected[rows] = -2.5 / 2 * pullback(estimate.grad)
    assert len(rows) == 2
    np.testing.assert_allclose(vi.grads, expected, rtol=1e-12)


def test_a_callback_stops_by_true_and_its_epoch_is_not_reported(model):
    vi = Classical("full", lr=0.1)
    assert vi.run(lambda rows: log_joint_of(model, rows), stop_at=5) == 5
    assert [told[0] for told in vi.steps] == [1, 2, 3, 4, 5]
    assert [told[0] for told in vi.epochs] == [3]
    assert vi.optimizer.t == 5


def test_callbacks_may_be_left_out_and_may_return_nothing(model):
    runs = [Classical("full", lr=0.1) for _ in range(3)]
    runs[0].run(lambda rows: log_joint_of(model, rows))
    assert runs[1].run(lambda rows: log_joint_of(model, rows), on_step=None, on_epoch=None) == 6
    assert runs[2].run(lambda rows: log_joint_of(model, rows), on_step=lambda *_: None, on_epoch=lambda *_: True) == 6
    same_bits(runs[0].params, runs[1].params)
    same_bits(runs[0].params, runs[2].params)


def test_an_exception_of_a_callback_passes_through(model):
    def on_step(step, epoch, value):
        raise KeyError(step)

    vi = Classical("full", lr=0.1)
    with pytest.raises(KeyError, match="1"):
        vi.run(lambda rows: log_joint_of(model, rows), on_step=on_step)
    assert vi.optimizer.t == 1


def test_a_run_in_two_parts_is_the_whole_run_to_the_bit(model, family):
    whole, parts = Classical(family, lr=0.1), Classical(family, lr=0.1)
    whole.run(lambda rows: target_of(model, rows), epochs=range(5))
    done = parts.run(lambda rows: target_of(model, rows), epochs=range(2))
    assert parts.run(lambda rows: target_of(model, rows), epochs=range(2, 5), step=done) == 15
    same_bits(parts.params, whole.params)
    assert parts.steps == whole.steps


def test_a_batch_larger_than_the_data_is_refused(model):
    vi = Classical("full")
    with pytest.raises(ValueError, match=rf"maximize_elbo: batch_size must be <= num_rows = {ROWS}, got 100"):
        vi.run(lambda rows: log_joint_of(model, rows), batch_size=100, epochs=range(3))
    assert not vi.batches


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_step_is_an_error_before_the_parameters_move(model, bad):
    def log_joint(rows):
        target = log_joint_of(model, rows)

        def spoiled(value):
            log_prob, grad = target(value)
            return log_prob, grad * bad if len(vi.batches) == 3 else grad

        return spoiled

    vi = Classical("full", lr=0.1)
    with pytest.raises(ValueError, match=r"training diverged at step 3 \(epoch \d\)"), np.errstate(all="ignore"):
        vi.run(log_joint, batch_size=ROWS, epochs=range(9))
    assert np.isfinite(vi.params).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encode", 3, "maximize_elbo: encode must be callable, got int"),
        ("log_joint", None, "maximize_elbo: log_joint must be callable, got NoneType"),
        ("optimizer", 3, "maximize_elbo: optimizer must be an Adam, got int"),
        ("grads", [0.0], "maximize_elbo: grads must be an array, got list"),
        ("on_step", 3, "maximize_elbo: on_step must be callable, got int"),
        ("encode", lambda rows: 3, r"maximize_elbo: encode must return \(q, pullback\), got int"),
    ],
)
def test_what_is_no_problem_is_refused_by_name(name, value, message):
    params = np.zeros(2)
    problem = {
        "encode": lambda rows: (None, None),
        "log_joint": lambda rows: None,
        "optimizer": rp.optim.Adam(params),
        "grads": np.zeros(2),
        "on_step": None,
    } | {name: value}
    parts = [problem.pop(n) for n in ("encode", "log_joint", "optimizer", "grads")]
    with pytest.raises(TypeError, match=message):
        rp.maximize_elbo(*parts, num_rows=4, key=0, batch_size=2, epochs=range(1), **problem)
    assert not params.any()


def test_no_epochs_are_no_steps(model):
    vi = Classical("full", lr=0.1)
    assert vi.run(lambda rows: log_joint_of(model, rows), epochs=(), step=4) == 4
    assert not vi.batches
    assert (vi.params == 0).all()


def test_a_generator_is_asked_once_for_the_key(model):
    number = int(np.random.default_rng(3).integers(2**64, dtype=np.uint64))
    runs = [Classical("full", lr=0.1) for _ in range(2)]
    for vi, key in zip(runs, (np.random.default_rng(3), number), strict=True):
        vi.run(lambda rows: target_of(model, rows), key=key)
    same_bits(runs[0].params, runs[1].params)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_rows": 0}, ValueError, r"maximize_elbo: num_rows must be >= 1, got 0"),
        ({"num_rows": 2.0}, TypeError, r"maximize_elbo: num_rows must be an integer >= 1, got 2.0"),
        ({"batch_size": 0}, ValueError, r"maximize_elbo: batch_size must be >= 1, got 0"),
        ({"batch_size": None}, TypeError, r"maximize_elbo: batch_size must be an integer >= 1, got None"),
        (
            {"epochs": 3},
            TypeError,
            r"maximize_elbo: epochs must be the numbers of the epochs, such as range\(10\), got 3",
        ),
        ({"epochs": (-1,)}, ValueError, r"must be in \[0, .*\), got -1"),
        ({"step": -1}, ValueError, r"maximize_elbo: step must be >= 0, got -1"),
        ({"key": "7"}, TypeError, r"key must be an int .*, got str"),
        ({"kl_weight": 0.0}, ValueError, r"maximize_elbo: kl_weight must be a finite number > 0, got 0.0"),
        ({"kl_weight": np.nan}, ValueError, r"maximize_elbo: kl_weight must be a finite number > 0, got nan"),
        ({"kl_weight": "1"}, TypeError, r"maximize_elbo: kl_weight must be a number > 0, got '1'"),
        ({"num_samples": 0}, ValueError, r"elbo: num_samples must be >= 1, got 0"),
        ({"estimator": "score"}, ValueError, r"elbo: estimator must be one of 'pathwise'.*, got 'score'"),
    ],
)
def test_bad_arguments_are_named_and_no_step_is_taken(model, arguments, error, message):
    vi = Classical("full", lr=0.1)
    with pytest.raises(error, match=message):
        vi.run(lambda rows: log_joint_of(model, rows), **arguments)
    assert vi.optimizer.t == 0
    assert (vi.params == 0).all()


# ---- refine: what it converges to


@pytest.mark.parametrize(("loc", "steps"), [(0.0, 100), (-5.0, 300)], ids=["prior", "far"])
@pytest.mark.parametrize("kind", ["callable", "fused"])
def test_a_full_covariance_reaches_the_exact_posterior(model, dtype, loc, steps, kind):
    def log_joint(z):
        return tuple(x.astype(z.dtype) for x in log_joint_of(model, slice(None))(z.astype(float)))

    target = log_joint if kind == "callable" else target_of(model, dtype=dtype)
    start = standard("full", (ROWS,), dtype=dtype, loc=loc)
    q = refine(start, target, steps=steps, key=KEY)
    assert q.dtype == dtype
    assert excess(start, model).min() > (100 if loc else 1)
    condition = np.linalg.cond(model.precision) * np.abs(model.posterior.loc).max()
    assert excess(q, model).max() < max(1e-7, (condition * UNIT[dtype]) ** 2)
    same_bits(np.triu(q.scale_tril, 1), np.zeros_like(q.scale_tril))


@pytest.mark.parametrize(("loc", "steps"), [(0.0, 300), (-5.0, 1000)], ids=["prior", "far"])
def test_a_diagonal_covariance_reaches_the_mean_field_optimum(model, dtype, loc, steps):
    start = standard("diag", (ROWS,), dtype=dtype, loc=loc)
    q = refine(start, target_of(model, dtype=dtype), steps=steps, key=KEY)
    assert excess(start, model).min() > 1
    assert excess(q, model).max() < 1e-2
    np.testing.assert_allclose(q.scale_diag, model.best_diag.scale_diag, rtol=0.05)
    assert (model.posterior.stddev / model.best_diag.scale_diag).max() > 1.2  # so it is not the marginals' scale


def test_a_diagonal_covariance_reaches_a_diagonal_posterior_exactly(dtype, rng):
    weight = np.linalg.qr(rng.standard_normal((N, D)))[0] * [0.5, 1.0, 3.0]
    model = make_model(weight)
    q = refine(standard("diag", (ROWS,), dtype=dtype), target_of(model, dtype=dtype), steps=200, key=KEY)
    np.testing.assert_allclose(q.scale_diag, model.best_diag.scale_diag, rtol=max(1e-6, 100 * UNIT[dtype]))
    np.testing.assert_allclose(q.loc, model.posterior.loc, atol=max(1e-5, 1000 * UNIT[dtype]))


def test_a_step_from_the_posterior_stays_there_to_rounding(model):
    q = refine(model.posterior, target_of(model), steps=1, key=KEY, num_samples=2)
    for actual, expected in zip(fields(q), fields(model.posterior), strict=True):
        assert relative_error(actual, expected).max() < 100 * np.linalg.cond(model.precision) * UNIT["float64"]


def test_one_step_is_the_natural_gradient_of_sticking_the_landing(model, family, rng):
    """Against the formulas in coordinates of z, with h = grad log p + L^-T noise, for one draw at a time."""
    draws, a = 5, 0.5
    target = log_joint_of(model, slice(None))
    q = standard(family, (ROWS,)) if family == "diag" else convert(standard("diag", (ROWS,)), "full")
    loc = model.posterior.loc + 0.05 * rng.standard_normal((ROWS, D))  # near enough that the clips hold nothing
    if family == "diag":
        q = rp.MultivariateNormalDiag(loc, model.best_diag.scale_diag * rng.uniform(0.9, 1.1, (ROWS, D)))
        dense = q.scale_diag[..., None] * np.eye(D)
    else:
        q = rp.MultivariateNormal(loc, scale_tril=model.posterior.scale_tril * rng.uniform(0.9, 1.1, (ROWS, D, 1)))
        dense = q.scale_tril
    key = rp.random.fold_in(KEY, 0)
    noise = np.stack([rp.random.normal((draws, D), key=key, stream=b) for b in range(ROWS)], 1)
    h = target(loc + np.einsum("bij,sbj->sbi", dense, noise))[1]
    h = h + np.linalg.solve(dense.swapaxes(-1, -2), noise[..., None])[..., 0]
    whitened = np.einsum("bji,sbj->sbi", dense, h)
    u, A = a * whitened.mean(0), a * np.einsum("sbi,sbj->bij", whitened, noise) / draws
    A = np.tril(A, -1) + 0.5 * A * np.eye(D) if family == "full" else 0.5 * A * np.eye(D)
    assert np.linalg.norm(u, axis=-1).max() < 1
    assert np.linalg.norm(A, axis=(-1, -2)).max() < 0.5
    moved = dense + np.tril(dense @ A, -1) + dense * np.eye(D) * np.expm1(A * np.eye(D))
    result = refine(q, target, steps=1, key=KEY, num_samples=draws)
    np.testing.assert_allclose(result.loc, loc + np.einsum("bij,bj->bi", dense, u), rtol=1e-11, atol=1e-13)
    expected = moved if family == "full" else np.diagonal(moved, axis1=-1, axis2=-2)
    np.testing.assert_allclose(scale_of(result), expected, rtol=1e-11, atol=1e-13)


def test_no_step_is_longer_than_the_clips(model, family):
    start = standard(family, (ROWS,), loc=50.0)
    q = refine(start, target_of(model), steps=1, key=KEY)
    np.testing.assert_allclose(np.linalg.norm(q.loc - start.loc, axis=-1), 1.0, rtol=1e-12)
    change = np.log(q.scale_diag) if family == "diag" else q.scale_tril - np.eye(D)
    assert np.linalg.norm(change.reshape(ROWS, -1), axis=-1).min() > 0.4
    assert np.linalg.norm(change.reshape(ROWS, -1), axis=-1).max() < 0.7


def test_a_gradient_whose_square_overflows_float32_still_moves_q(family):
    def log_joint(z):
        return -0.5e24 * ((z - 1) ** 2).sum(-1), np.float32(1e24) * (1 - z)

    q = refine(standard(family, (4,), dtype="float32"), log_joint, steps=1, key=KEY)
    np.testing.assert_allclose(np.linalg.norm(q.loc, axis=-1), 1, rtol=1e-6)


# ---- refine: the protocol


@pytest.mark.parametrize("order", [[0], [7], [3, 3, 0], list(range(9, -1, -1))], ids=str)
@backend_axis
def test_a_rows_refinement_depends_on_its_density_start_and_number_alone(model, family, dtype, order):
    start = standard(family, (ROWS,), dtype=dtype)
    whole = refine(start, target_of(model, dtype=dtype), steps=4, key=KEY)
    part = refine(
        standard(family, (len(order),), dtype=dtype),
        target_of(model, order, dtype),
        steps=4,
        key=KEY,
        index=np.array(order),
    )
    same_bits(fields(part), [f[order] for f in fields(whole)])
    other = refine(
        standard(family, (len(order),), dtype=dtype),
        target_of(model, order, dtype),
        steps=4,
        key=KEY,
        index=np.array(order) + 1,
    )
    assert (other.loc != part.loc).all()


@pytest.mark.parametrize("d", [1, 2, 8, 9, 17])
def test_one_row_alone_has_the_bits_it_has_among_others(d, family, dtype, rng):
    model = make_model(rng.standard_normal((4, d)))
    whole = refine(standard(family, (ROWS,), d, dtype), target_of(model, dtype=dtype), steps=3, key=KEY)
    for row in (0, 5):
        index = np.array([row])
        alone = refine(standard(family, (1,), d, dtype), target_of(model, [row], dtype), steps=3, key=KEY, index=index)
        same_bits(fields(alone), [f[[row]] for f in fields(whole)])


def test_rows_are_numbered_from_zero_unless_an_index_is_given(model, family):
    one, two = (
        refine(standard(family, (ROWS,)), target_of(model), steps=2, key=KEY, index=index)
        for index in (None, np.arange(ROWS))
    )
    same_bits(fields(one), fields(two))


def test_batches_of_any_shape_are_the_same_rows(model, family):
    flat = refine(standard(family, (ROWS,)), target_of(model), steps=5, key=KEY)
    shaped = SimpleNamespace(**{**vars(model), "x": model.x.reshape(5, 2, N)})
    square = refine(standard(family, (5, 2)), target_of(shaped), steps=5, key=KEY)
    same_bits(fields(square), [f.reshape(5, 2, *f.shape[1:]) for f in fields(flat)])
    alone = refine(standard(family, ()), target_of(model, 0), steps=5, key=KEY)
    assert alone.batch_shape == ()
    same_bits(fields(alone), [f[0] for f in fields(flat)])


def test_fields_that_rows_share_at_the_start_are_each_rows_own(model, family, rng):
    """A loc or a scale that is broadcast takes each row's step, not the sum of them."""
    loc, scale = rng.standard_normal((ROWS, D)), np.full(D, 0.5)
    shared = scale if family == "diag" else np.diag(scale)
    make = rp.MultivariateNormalDiag if family == "diag" else lambda a, b: rp.MultivariateNormal(a, scale_tril=b)
    for a, b in ((loc, shared), (loc[0], np.broadcast_to(shared, (ROWS, *shared.shape)))):
        own = make(np.broadcast_to(a, (ROWS, D)).copy(), np.broadcast_to(b, (ROWS, *shared.shape)).copy())
        expected = refine(own, target_of(model), steps=2, key=KEY)
        same_bits(fields(refine(make(a, b), target_of(model), steps=2, key=KEY)), fields(expected))


def test_what_stands_above_the_diagonal_is_not_read(model):
    clean = standard("full", (ROWS,))
    dirty = rp.MultivariateNormal(clean.loc, scale_tril=clean.scale_tril + np.triu(np.full((D, D), np.nan), 1))
    results = [refine(q, target_of(model), steps=2, key=KEY) for q in (clean, dirty)]
    same_bits(fields(results[0]), fields(results[1]))


def test_no_steps_give_q_itself(model, family):
    q = standard(family, (ROWS,))
    assert refine(q, target_of(model), steps=0, key=KEY) is q


def test_q_is_not_modified_and_the_same_key_gives_the_same_bits(model, family, dtype):
    q = standard(family, (ROWS,), dtype=dtype)
    kept = [f.copy() for f in fields(q)]
    runs = [refine(q, target_of(model, dtype=dtype), steps=3, key=key) for key in (KEY, KEY, KEY + 1)]
    same_bits(fields(q), kept)
    same_bits(fields(runs[0]), fields(runs[1]))
    assert (runs[0].loc != runs[2].loc).all()
    number = int(np.random.default_rng(3).integers(2**64, dtype=np.uint64))
    drawn, given = (
        refine(q, target_of(model, dtype=dtype), steps=3, key=k) for k in (np.random.default_rng(3), number)
    )
    same_bits(fields(drawn), fields(given))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_fails_is_nan_and_its_neighbours_keep_their_bits(model, family, dtype, bad):
    def spoiled(value):
        log_prob, grad = (-0.5 * np.square(value).sum(-1), -value)
        log_prob[:, 4] *= spoil
        grad[:, 4] *= spoil
        return log_prob, grad

    spoil = np.dtype(dtype).type(1)
    expected = refine(standard(family, (ROWS,), dtype=dtype), spoiled, steps=3, key=KEY)
    spoil = np.dtype(dtype).type(bad)
    q = refine(standard(family, (ROWS,), dtype=dtype), spoiled, steps=3, key=KEY)
    others = np.arange(ROWS) != 4
    assert np.isnan(q.loc[4]).all()
    same_bits([f[others] for f in fields(q)], [f[others] for f in fields(expected)])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": -1}, ValueError, r"refine: steps must be >= 0, got -1"),
        ({"steps": 2.0}, TypeError, r"refine: steps must be an integer >= 0, got 2.0"),
        ({"num_samples": 0}, ValueError, r"num_samples must be >= 1, got 0"),
        ({"key": None}, TypeError, r"key must be an int .*, got NoneType"),
        (
            {"q": np.zeros(3)},
            TypeError,
            r"refine: q must be a MultivariateNormal or MultivariateNormalDiag, got ndarray",
        ),
        (
            {"q": None, "steps": 0},
            TypeError,
            r"refine: q must be a MultivariateNormal or MultivariateNormalDiag, got NoneType",
        ),
        ({"log_joint": None}, TypeError, r"log_joint must be callable or a target of reparam.targets, got NoneType"),
        ({"index": np.arange(3)}, ValueError, r"index must have the batch shape \(10,\), got \(3,\)"),
        ({"index": np.arange(10.0)}, TypeError, r"index must hold integers, got float64"),
        ({"index": -np.arange(10)}, ValueError, r"index must be >= 0, got -9"),
    ],
)
def test_bad_arguments_of_refine_are_named(model, arguments, error, message):
    given = {"q": standard("full", (ROWS,)), "log_joint": target_of(model), "steps": 2, "key": KEY, **arguments}
    with pytest.raises(error, match=message):
        refine(given.pop("q"), given.pop("log_joint"), **given)


# ---- convert


@pytest.fixture
def full(rng):
    below = np.tril(rng.standard_normal((2, 3, D, D)), -1)
    return rp.MultivariateNormal(
        rng.standard_normal((2, 3, D)), scale_tril=below + rng.uniform(0.5, 1.5, (2, 3, 1, D)) * np.eye(D)
    )


def test_a_member_of_the_family_is_kept(full, family):
    q = full if family == "full" else convert(full, "diag")
    assert convert(q, family) is q


def test_a_full_one_becomes_one_over_the_root_of_its_precisions_diagonal(full):
    q = convert(full, "diag")
    precision = np.linalg.inv(full.covariance_matrix)
    np.testing.assert_allclose(q.scale_diag, 1 / np.sqrt(np.diagonal(precision, axis1=-1, axis2=-2)), rtol=1e-12)
    same_bits(q.loc, full.loc)


def test_no_diagonal_one_near_it_is_nearer(full):
    def divergence(loc, scale_diag):
        return rp.kl_divergence(rp.MultivariateNormal(loc, scale_tril=scale_diag[..., None] * np.eye(D)), full)

    q = convert(full, "diag")
    best = divergence(q.loc, q.scale_diag)
    for i in range(D):
        for factor in (0.99, 1.01):
            moved = q.scale_diag.copy()
            moved[..., i] *= factor
            assert (divergence(q.loc, moved) > best).all()
        assert (divergence(q.loc + 0.01 * np.eye(D)[i], q.scale_diag) > best).all()


def test_a_diagonal_one_as_a_full_one_is_the_same_distribution(full, dtype):
    diag = rp.MultivariateNormalDiag(full.loc.astype(dtype), np.abs(full.loc).astype(dtype) + 1)
    q = convert(diag, "full")
    assert q.dtype == dtype
    same_bits(q.loc, diag.loc)
    same_bits(np.diagonal(q.scale_tril, axis1=-1, axis2=-2), diag.scale_diag)
    same_bits(q.covariance_matrix, diag.covariance_matrix)
    np.testing.assert_allclose(convert(q, "diag").scale_diag, diag.scale_diag, rtol=4 * UNIT[dtype])


def test_conversions_of_shared_factors_and_of_nonsense_above_the_diagonal(full):
    shared = rp.MultivariateNormal(full.loc, scale_tril=full.scale_tril[0, 0] + np.triu(np.full((D, D), np.nan), 1))
    expected = convert(rp.MultivariateNormal(full.loc[0, 0], scale_tril=full.scale_tril[0, 0]), "diag")
    q = convert(shared, "diag")
    assert q.batch_shape == (2, 3)
    same_bits(np.broadcast_to(q.scale_diag, (2, 3, D)), np.broadcast_to(expected.scale_diag, (2, 3, D)))


def test_an_unknown_family_is_named(full):
    with pytest.raises(ValueError, match=r"covariance_type must be one of 'full', 'diag', got 'tied'"):
        convert(full, "tied")
