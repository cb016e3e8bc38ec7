# SPDX-License-Identifier: MIT
"""The distribution and the guides inside NumPyro, against its own: a swapped import changes no number."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs jax: pip install jax")
numpyro = pytest.importorskip("numpyro", reason="needs numpyro: pip install numpyro")
pytest.importorskip("reparam._xla", reason="needs the module for JAX: REPARAM_XLA=1 pip install .")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.distributions import biject_to  # noqa: E402
from numpyro.distributions.transforms import ScaledUnitLowerCholeskyTransform  # noqa: E402
from numpyro.infer import HMC, MCMC, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO, autoguide  # noqa: E402

import reparam.numpyro as rn  # noqa: E402

NAMES = ["scale_tril", "covariance_matrix", "precision_matrix"]
BATCHES = [((), ()), ((5,), ()), ((), (5,)), ((3, 1), (5,)), ((3, 5), (3, 5)), ((1, 5), (3, 1))]
D = 4


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def parameters(batches, name="scale_tril", dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    loc, root = rng.standard_normal((*batches[0], D)), rng.standard_normal((*batches[1], D, 2 * D))
    matrix = root @ root.swapaxes(-1, -2) / D
    matrix = np.linalg.cholesky(matrix) if name == "scale_tril" else matrix
    return loc.astype(dtype), {name: matrix.astype(dtype)}


def both(batches, name="scale_tril", seed=0, **options):
    loc, matrix = parameters(batches, name, seed=seed)
    return rn.MultivariateNormal(loc, **matrix, **options), dist.MultivariateNormal(loc, **matrix, **options)


def same(actual, expected, tolerance=1e-9):
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected) > 0
    for a, e in zip(actual, expected, strict=True):
        assert jnp.shape(a) == jnp.shape(e)
        assert jnp.result_type(a) == jnp.result_type(e)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


# ---- the distribution


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batches", BATCHES, ids=str)
def test_it_agrees_with_numpyro(batches, name):
    ours, theirs = both(batches, name, validate_args=True)
    key, value = jax.random.key(3), np.random.default_rng(1).standard_normal((2, *theirs.batch_shape, D))
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    same(ours.sample(key, (7, 2)), theirs.sample(key, (7, 2)))
    same(ours.log_prob(value), theirs.log_prob(value))
    same(ours.log_prob(value[0]), theirs.log_prob(value[0]))
    for what in ("mean", "variance", "scale_tril", "covariance_matrix", "precision_matrix"):
        same(getattr(ours, what), getattr(theirs, what))
    same(ours.entropy(), theirs.entropy())


@pytest.mark.parametrize(
    ("batches", "name"), [*((b, NAMES[0]) for b in BATCHES), *((BATCHES[3], n) for n in NAMES[1:])], ids=str
)
def test_gradients_agree_with_numpyro(batches, name):
    loc, matrix = parameters(batches, name)
    value = np.random.default_rng(1).standard_normal((2, *np.broadcast_shapes(*batches), D))

    def loss(cls, value, loc, matrix):
        matrix = (matrix + jnp.swapaxes(matrix, -1, -2)) / 2 if name != "scale_tril" else jnp.tril(matrix)
        q = cls(loc, **{name: matrix})
        return q.log_prob(value).sum() + (q.sample(jax.random.key(0)) ** 2).sum() + q.entropy().sum()

    slopes = [
        jax.jit(jax.grad(lambda *args, cls=cls: loss(cls, *args), argnums=(0, 1, 2)))(value, loc, matrix[name])
        for cls in (rn.MultivariateNormal, dist.MultivariateNormal)
    ]
    same(*slopes)


def test_one_number_for_all_of_loc():
    matrix = parameters(((), (5,)))[1]
    for loc in (0.0, 2, np.ones((5, 1))):
        ours, theirs = rn.MultivariateNormal(loc, **matrix), dist.MultivariateNormal(loc, **matrix)
        same(ours.log_prob(np.ones((5, D))), theirs.log_prob(np.ones((5, D))))
        same(ours.sample(jax.random.key(1), (2,)), theirs.sample(jax.random.key(1), (2,)))
        same(dist.kl_divergence(ours, theirs), jnp.zeros(5))
    same(rn.MultivariateNormal(covariance_matrix=np.eye(3)).mean, np.zeros(3))


@pytest.mark.parametrize("pair", [("ours", "ours"), ("ours", "theirs"), ("theirs", "ours")])
def test_kl_divergence(pair):
    p, q = [dict(zip(("ours", "theirs"), both(b, seed=k), strict=True)) for k, b in enumerate((BATCHES[3], BATCHES[1]))]
    expected = dist.kl_divergence(p["theirs"], q["theirs"])
    same(dist.kl_divergence(p[pair[0]], q[pair[1]]), expected)
    text = str(jax.make_jaxpr(dist.kl_divergence)(p[pair[0]], q[pair[1]]))
    assert "normal_tril_kl" in text
    expanded = dist.kl_divergence(p[pair[0]].expand((2, 3, 5)), q[pair[1]])
    same(expanded, jnp.broadcast_to(expected, (2, 3, 5)))


def test_it_is_a_pytree_that_expands_and_maps():
    ours, theirs = both(BATCHES[4])
    back = jax.tree.unflatten(*reversed(jax.tree.flatten(ours)))
    assert type(back) is rn.MultivariateNormal
    value = np.ones(D)
    same(jax.jit(lambda q: q.log_prob(value))(ours), theirs.log_prob(value))
    same(jax.vmap(lambda q: q.log_prob(value))(ours), theirs.log_prob(value))
    same(ours.expand((2, 3, 5)).log_prob(value), theirs.expand((2, 3, 5)).log_prob(value))
    key = jax.random.key(2)
    same(ours.expand((2, 3, 5)).sample(key), theirs.expand((2, 3, 5)).sample(key))
    same(ours.to_event(1).log_prob(value), theirs.to_event(1).log_prob(value))
    locs, factors = ours.loc[0], ours.scale_tril[0]
    mapped = jax.vmap(lambda loc, factor: rn.MultivariateNormal(loc, scale_tril=factor))(locs, factors)
    assert type(mapped) is rn.MultivariateNormal
    same(mapped.log_prob(value), theirs.log_prob(value)[0])
    keys = jax.random.split(key, 3)
    same(jax.vmap(lambda k: ours.sample(k))(keys), jax.vmap(lambda k: theirs.sample(k))(keys))


def test_types():
    loc, matrix = parameters(((), ()), dtype="float32")
    ours, theirs = rn.MultivariateNormal(loc, **matrix), dist.MultivariateNormal(loc, **matrix)
    for value in (np.ones(D, "f4"), np.ones(D), np.ones(D, int)):
        same(ours.log_prob(value), theirs.log_prob(value), 1e-5)
    with jax.enable_x64(False):
        assert ours.sample(jax.random.key(0)).dtype == "float32"
        same(ours.sample(jax.random.key(0)), theirs.sample(jax.random.key(0)), 1e-5)
        half = [
            cls(jnp.asarray(loc, jnp.bfloat16), scale_tril=jnp.asarray(matrix["scale_tril"], jnp.bfloat16)).mean.dtype
            for cls in (rn.MultivariateNormal, dist.MultivariateNormal)
        ]
        assert half[0] == half[1]


def test_a_failed_matrix_is_nan():
    q = rn.MultivariateNormal(np.zeros(2), covariance_matrix=np.stack([np.eye(2), -np.eye(2)]), validate_args=False)
    assert (np.isnan(q.log_prob(np.zeros(2))) == [False, True]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Exactly one of"),
        ({"scale_tril": np.eye(2), "covariance_matrix": np.eye(2)}, "Exactly one of"),
        ({"covariance_matrix": -np.eye(2)}, "invalid covariance_matrix parameter"),
        ({"precision_matrix": -np.eye(2)}, "invalid precision_matrix parameter"),
        ({"scale_tril": -np.eye(2)}, "invalid scale_tril parameter"),
    ],
    ids=str,
)
def test_errors_are_those_of_numpyro(arguments, message):
    for cls in (dist.MultivariateNormal, rn.MultivariateNormal):
        with pytest.raises(ValueError, match=message):
            cls(np.zeros(2), **arguments, validate_args=True)


# ---- guides


def regression(x, y=None):
    """One small regression for each row: local latents only."""
    with numpyro.plate("rows", len(x)):
        weight = numpyro.sample("weight", dist.Normal(0, 1).expand([3]).to_event(1))
        offset = numpyro.sample("offset", dist.Normal(0, 2))
        scale = numpyro.sample("scale", dist.LogNormal(0, 1))
        mean = jnp.einsum("bnk,bk->bn", x, weight) + offset[:, None]
        numpyro.sample("y", dist.Normal(mean, scale[:, None]).to_event(1), obs=y)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((6, 8, 3))
    return x, (x.sum(-1) + 0.3 * rng.standard_normal((6, 8)))


def losses(guide, data, dtype, loss=Trace_ELBO):
    x, y = (jnp.asarray(a, dtype) for a in data)
    svi = SVI(regression, guide, numpyro.optim.Adam(0.05), loss(num_particles=2))
    result = svi.run(jax.random.key(0), 20, x, y, progress_bar=False)
    return result.losses, result.params


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("AutoMultivariateNormal", "float64"),
        ("AutoBatchedMultivariateNormal", "float32"),
        ("AutoBatchedMultivariateNormal", "float64"),
    ],
)
def test_svi_goes_as_with_numpyros_guide(name, dtype, data):
    with jax.enable_x64(dtype == "float64"):
        ours, theirs = (losses(getattr(m, name)(regression), data, dtype) for m in (rn, autoguide))
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5 if dtype == "float32" else 1e-9)
        same(ours[1], theirs[1], 1e-3 if dtype == "float32" else 1e-9)  # Adam enlarges the rounding of small gradients
        assert ours[0][-1] < ours[0][0]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_transform_of_the_guides(d):
    ours, theirs = biject_to(rn.AutoMultivariateNormal.scale_tril_constraint), ScaledUnitLowerCholeskyTransform()
    x = np.random.default_rng(d).standard_normal((3, d * (d + 1) // 2))
    y = theirs(x)
    same(ours(x), y)
    same(ours.inv(y), x)
    same(ours.log_abs_det_jacobian(x, y), theirs.log_abs_det_jacobian(x, y))
    same(jax.jacrev(ours)(x[0]), jax.jacrev(theirs)(x[0]))


def test_the_guides_run_on_the_kernels(data):
    x, y = data
    for guide in (rn.AutoMultivariateNormal(regression), rn.AutoBatchedMultivariateNormal(regression)):
        svi = SVI(regression, guide, numpyro.optim.Adam(0.05), Trace_ELBO())
        state = svi.init(jax.random.key(0), x, y)
        text = str(jax.make_jaxpr(svi.update)(state, x, y))
        assert "normal_tril_transform" in text
        assert "normal_tril_log_prob" in text
        assert "tril_from_vector" in text
        assert "triangular_solve" not in text


def test_what_a_guide_gives_after_the_fit(data):
    x, _ = data
    results = []
    for module in (rn, autoguide):
        guide = module.AutoMultivariateNormal(regression)
        _, params = losses(guide, data, "float64")
        posterior = guide.get_posterior(params)
        drawn = Predictive(guide, params=params, num_samples=5)(jax.random.key(1), x)
        results.append([posterior.mean, posterior.covariance_matrix, guide.median(params), drawn,
                        guide.sample_posterior(jax.random.key(2), params, sample_shape=(3,)),
                        guide.quantiles(params, [0.1, 0.9])])  # fmt: skip
    same(*results)


def test_mean_field_elbo_takes_the_registered_kl():
    def model(cls):
        numpyro.sample("z", cls(np.zeros(3), scale_tril=np.eye(3)))

    def guide(cls):
        factor = numpyro.param("factor", np.eye(3) * 0.5, constraint=dist.constraints.lower_cholesky)
        numpyro.sample("z", cls(numpyro.param("loc", np.ones(3)), scale_tril=factor))

    found = []
    for cls in (rn.MultivariateNormal, dist.MultivariateNormal):
        svi = SVI(model, guide, numpyro.optim.Adam(0.05), TraceMeanField_ELBO())
        found.append(svi.run(jax.random.key(0), 20, cls, progress_bar=False, stable_update=False).losses)
    same(*found)


def test_mcmc_goes_as_with_numpyros_distribution():
    matrix = parameters(((), ()), "covariance_matrix")[1]["covariance_matrix"]
    found = []
    for cls in (rn.MultivariateNormal, dist.MultivariateNormal):
        kernel = HMC(lambda cls=cls: numpyro.sample("z", cls(np.zeros(D), matrix)), num_steps=3, adapt_step_size=False)
        mcmc = MCMC(kernel, num_warmup=0, num_samples=5, progress_bar=False)
        mcmc.run(jax.random.key(0))
        found.append(mcmc.get_samples())
    same(*found)


def test_a_value_of_another_size_is_named():
    q = rn.MultivariateNormal(jnp.zeros(3), scale_tril=jnp.eye(3))
    with pytest.raises(ValueError, match=r"value must have shape \(..., d\) with d = 3, got \(2,\)"):
        q.log_prob(jnp.zeros(2))
