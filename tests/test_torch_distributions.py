# SPDX-License-Identifier: MIT
"""``reparam.torch.MultivariateNormal`` against the class of torch.distributions whose place it takes."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

import reparam.torch as rt  # noqa: E402

Theirs, Independent, Normal = (
    torch.distributions.MultivariateNormal,
    torch.distributions.Independent,
    torch.distributions.Normal,
)
kl_divergence = torch.distributions.kl_divergence

TOLERANCE = {torch.float64: 1e-9, torch.float32: 3e-4}  # of the largest entry; covariances have a condition below 100
DTYPES = tuple(TOLERANCE)
FIELDS = ("covariance_matrix", "precision_matrix", "scale_tril")


@pytest.fixture(autouse=True)
def _validation():
    """As in a new process: torch.compile switches it off for all that follows."""
    torch.distributions.Distribution.set_default_validate_args(True)


def close(ours, theirs, dtype=torch.float64):
    assert ours.dtype == theirs.dtype == dtype
    assert ours.shape == theirs.shape
    largest = max(1.0, float(theirs.detach().abs().max())) if theirs.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * largest)


def random_shapes(rng):
    """A batch shape, two that broadcast to it together, and d."""
    batch = tuple(rng.integers(1, 4, rng.integers(0, 4)).tolist())

    def part():
        cut = batch[rng.integers(0, len(batch) + 1) :]
        return tuple(n if rng.random() < 0.6 else 1 for n in cut)

    return part(), part(), int(rng.integers(1, 7))


def spd(rng, *shape, dtype=torch.float64):
    a = rng.standard_normal(shape)
    return torch.tensor(a @ np.swapaxes(a, -1, -2) / shape[-1] + np.eye(shape[-1]), dtype=dtype)


def normal(rng, *shape, dtype=torch.float64):
    return torch.tensor(rng.standard_normal(shape), dtype=dtype)


def matrices(covariance, field):
    """A function of the covariance, to be differentiated: the field that a distribution is made of."""
    if field == "scale_tril":
        return torch.linalg.cholesky(covariance)
    return torch.linalg.inv(covariance) if field == "precision_matrix" else covariance


QUANTITIES = {
    "rsample": lambda q, value: q.rsample((3, 2)),
    "log_prob": lambda q, value: q.log_prob(value),
    "entropy": lambda q, value: q.entropy(),
    "mean": lambda q, value: q.mean,
    "mode": lambda q, value: q.mode,
    "variance": lambda q, value: q.variance,
    "stddev": lambda q, value: q.stddev,
    "scale_tril": lambda q, value: q.scale_tril,
    "covariance_matrix": lambda q, value: q.covariance_matrix,
    "precision_matrix": lambda q, value: q.precision_matrix,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", QUANTITIES)
def test_values_and_gradients_are_those_of_torch(name, field, dtype, rng):
    for _ in range(6):
        loc_shape, matrix_shape, d = random_shapes(rng)
        leaves = normal(rng, *loc_shape, d, dtype=dtype), spd(rng, *matrix_shape, d, d, dtype=dtype)
        value = normal(rng, 3, *torch.broadcast_shapes(loc_shape, matrix_shape), d, dtype=dtype)
        results = []
        for kind in (rt.MultivariateNormal, Theirs):
            inputs = [x.clone().requires_grad_() for x in (*leaves, value)]
            torch.manual_seed(7)
            q = kind(inputs[0], **{field: matrices(inputs[1], field)})
            made = QUANTITIES[name](q, inputs[2])
            made.sin().sum().backward()
            results.append([made.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in inputs)])
        for ours, theirs in zip(*results, strict=True):
            close(ours, theirs, dtype)


@pytest.mark.parametrize("sample_shape", [(), (1,), (40,), (2, 3), (0,)])
def test_draws_are_those_of_torch_with_the_same_seed(sample_shape, rng):
    fields = {"loc": normal(rng, 4, 5), "scale_tril": torch.linalg.cholesky(spd(rng, 5, 5))}
    ours, theirs = rt.MultivariateNormal(**fields), Theirs(**fields)
    torch.manual_seed(3)
    expected = theirs.sample(sample_shape)
    generator = torch.Generator()
    for draw in (ours.sample, ours.rsample, lambda s: ours.rsample_and_log_prob(s)[0]):
        torch.manual_seed(3)
        close(draw(sample_shape), expected)
    for draw in (ours.sample, ours.rsample, lambda s, generator: ours.rsample_and_log_prob(s, generator=generator)[0]):
        generator.manual_seed(3)
        torch.manual_seed(4)
        close(draw(sample_shape, generator=generator), expected)
    assert not ours.sample(sample_shape).requires_grad


def test_a_draw_and_its_density_need_no_solve(rng):
    leaves = normal(rng, 4, 3).requires_grad_(), spd(rng, 3, 3).requires_grad_()
    results = []
    for fused in (True, False):
        q = rt.MultivariateNormal(leaves[0], leaves[1])
        torch.manual_seed(0)
        if fused:
            value, log_prob = q.rsample_and_log_prob((5,))
        else:
            value = q.rsample((5,))
            log_prob = q.log_prob(value)
        total = value.cos().sum() + log_prob.sin().sum()
        results.append([value, log_prob, *torch.autograd.grad(total, leaves)])
    assert results[0][1].shape == (5, 4)
    for fused, apart in zip(*results, strict=True):
        close(fused, apart)


@pytest.mark.parametrize("field", FIELDS)
def test_gradcheck(field, rng):
    loc, covariance, value = normal(rng, 2, 1, 3), spd(rng, 2, 3, 3), normal(rng, 3)

    def everything(loc, covariance, value):
        q = rt.MultivariateNormal(loc, **{field: matrices((covariance + covariance.mT) / 2, field)})
        torch.manual_seed(0)
        return *q.rsample_and_log_prob((2,)), q.log_prob(value), q.entropy()

    assert torch.autograd.gradcheck(everything, [x.requires_grad_() for x in (loc, covariance, value)])


# ---- KL divergences


def of_factor(kind):
    return lambda loc, scale: kind(loc, scale_tril=torch.diag_embed(scale) + torch.ones(3, 3).tril(-1).to(loc))


def diagonal(loc, scale):
    return Independent(Normal(loc, scale), 1)


PAIRS = {
    "ours, ours": (of_factor(rt.MultivariateNormal), of_factor(rt.MultivariateNormal)),
    "ours, torch": (of_factor(rt.MultivariateNormal), of_factor(Theirs)),
    "torch, ours": (of_factor(Theirs), of_factor(rt.MultivariateNormal)),
    "ours, Independent": (of_factor(rt.MultivariateNormal), diagonal),
    "Independent, ours": (diagonal, of_factor(rt.MultivariateNormal)),
}


def as_theirs(q):
    """The same Gaussian as one that torch can handle."""
    if isinstance(q, Independent):
        return Theirs(q.base_dist.loc, scale_tril=torch.diag_embed(q.base_dist.scale))
    return Theirs(q.loc, scale_tril=q.scale_tril)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", [((), ()), ((4,), (4,)), ((4,), ()), ((), (4,)), ((2, 1), (3,))])
@pytest.mark.parametrize("pair", PAIRS)
def test_divergences_are_those_of_torch(pair, shapes, dtype, rng):
    leaves = []
    for shape in shapes:
        leaves += [normal(rng, *shape, 3, dtype=dtype), normal(rng, *shape, 3, dtype=dtype).abs() + 0.5]
    leaves = [x.requires_grad_() for x in leaves]
    p, q = (make(*leaves[2 * k : 2 * k + 2]) for k, make in enumerate(PAIRS[pair]))
    ours, theirs = kl_divergence(p, q), kl_divergence(as_theirs(p), as_theirs(q))
    close(ours, theirs, dtype)
    gradients = [torch.autograd.grad(x.sin().sum(), leaves, retain_graph=True) for x in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        close(mine, other, dtype)


def test_a_divergence_from_itself_is_zero(rng):
    q = rt.MultivariateNormal(normal(rng, 4, 3), spd(rng, 4, 3, 3))
    assert torch.equal(kl_divergence(q, q), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "other",
    [
        Independent(torch.distributions.Laplace(torch.zeros(3), torch.ones(3)), 1),
        Independent(Normal(torch.zeros(2, 3), torch.ones(2, 3)), 2),
        Normal(torch.zeros(3), torch.ones(3)),
    ],
    ids=["Laplace", "two dims", "scalar events"],
)
def test_a_divergence_that_is_not_there(other):
    q = rt.MultivariateNormal(torch.zeros(3), torch.eye(3))
    for pair in ((q, other), (other, q)):
        with pytest.raises(NotImplementedError, match="KL"):
            kl_divergence(*pair)


@pytest.mark.parametrize("pair", PAIRS)
def test_events_of_two_sizes_have_no_divergence(pair):
    p, _ = (make(torch.zeros(3), torch.ones(3)) for make in PAIRS[pair])
    size = torch.zeros(2), torch.ones(2)
    q = diagonal(*size) if pair.endswith("Independent") else rt.MultivariateNormal(size[0], torch.diag(size[1]))
    with pytest.raises(ValueError, match="different event shapes"):
        kl_divergence(p, q)


def test_torch_finds_its_own_divergences_for_a_subclass(rng):
    q = rt.MultivariateNormal(normal(rng, 3), spd(rng, 3, 3))
    low = torch.distributions.LowRankMultivariateNormal(normal(rng, 3), normal(rng, 3, 1), normal(rng, 3).exp())
    close(kl_divergence(q, low), kl_divergence(as_theirs(q), low))
    close(kl_divergence(low, q), kl_divergence(low, as_theirs(q)))


# ---- expand, and what torch builds on distributions


class Mine(rt.MultivariateNormal):
    pass


@pytest.mark.parametrize("kind", [rt.MultivariateNormal, Mine])
@pytest.mark.parametrize("field", FIELDS)
def test_expand_keeps_the_class_and_copies_nothing(kind, field, rng):
    q = kind(normal(rng, 4, 3), **{field: matrices(spd(rng, 3, 3), field)})
    wide = q.expand((2, 4))
    assert type(wide) is kind
    assert (wide.batch_shape, wide.event_shape) == ((2, 4), (3,))
    assert wide._unbroadcasted_scale_tril is q._unbroadcasted_scale_tril
    assert wide.loc.data_ptr() == q.loc.data_ptr()
    value = normal(rng, 5, 2, 4, 3)
    close(wide.log_prob(value), q.log_prob(value))
    close(wide.entropy(), q.entropy().expand(2, 4))
    close(wide.covariance_matrix, q.covariance_matrix.expand(2, 4, 3, 3))
    assert wide.rsample((6,)).shape == (6, 2, 4, 3)


def test_a_factor_of_a_batch_is_never_copied_to_its_shape(rng):
    factor = torch.linalg.cholesky(spd(rng, 4, 4)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        q = rt.MultivariateNormal(normal(rng, 500, 4), scale_tril=factor)
        value, log_prob = q.rsample_and_log_prob()
        total = (log_prob + q.log_prob(value)).sum() + q.entropy().sum()
    total.backward()
    assert factor.grad.shape == (4, 4)
    assert {x.untyped_storage().nbytes() // 8 for x in kept} <= {500 * 4, 4 * 4}


COMPOSITIONS = {
    "Independent": lambda q: Independent(q, 1).log_prob(torch.ones(4, 3, dtype=q.loc.dtype)),
    "MixtureSameFamily": lambda q: torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.arange(1.0, 5)), q
    ).log_prob(torch.ones(6, 3, dtype=q.loc.dtype)),
    "TransformedDistribution": lambda q: torch.distributions.TransformedDistribution(
        q, torch.distributions.ExpTransform()
    ).log_prob(torch.full((4, 3), 2, dtype=q.loc.dtype)),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_what_torch_builds_on_it(name, rng):
    fields = normal(rng, 4, 3), spd(rng, 4, 3, 3)
    ours, theirs = (COMPOSITIONS[name](kind(*fields)) for kind in (rt.MultivariateNormal, Theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-7 if name == "MixtureSameFamily" else 1e-9, atol=0)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
def test_a_copy_is_the_same_distribution(duplicate, rng):
    q = rt.MultivariateNormal(normal(rng, 4, 3), spd(rng, 4, 3, 3))
    made, value = duplicate(q), normal(rng, 4, 3)
    assert type(made) is rt.MultivariateNormal
    assert repr(made) == repr(q)
    assert torch.equal(made.log_prob(value), q.log_prob(value))


# ---- layouts, sizes

LAYOUTS = {
    "transposed": lambda x: x.clone().transpose(0, -1).contiguous().transpose(0, -1),
    "every other": lambda x: torch.stack([x, -x], -1)[..., 0],
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_of_any_strides(layout, rng):
    batch = normal(rng, 4, 3), torch.linalg.cholesky(spd(rng, 4, 3, 3)), normal(rng, 4, 3)
    made = [LAYOUTS[layout](x).requires_grad_() for x in batch]
    assert not any(x.is_contiguous() for x in made)
    plain = [x.detach().contiguous().requires_grad_() for x in made]
    results = []
    for loc, scale_tril, value in (made, plain):
        q = rt.MultivariateNormal(loc, scale_tril=scale_tril)
        torch.manual_seed(0)
        total = (q.log_prob(value) * q.rsample().sin().sum(-1)).sum()
        results.append([total, *torch.autograd.grad(total, (loc, scale_tril, value))])
    for strided, contiguous in zip(*results, strict=True):
        close(strided, contiguous)


def test_no_graph_is_made_where_none_is_wanted(rng):
    loc, covariance = normal(rng, 3).requires_grad_(), spd(rng, 3, 3)
    with torch.no_grad():
        q = rt.MultivariateNormal(loc, covariance)
        assert not q.log_prob(loc).requires_grad
        assert not q.rsample().requires_grad
    q = rt.MultivariateNormal(loc.detach(), covariance)
    assert not q.rsample_and_log_prob()[1].requires_grad


@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("batch", [0, 1, 600_000])
def test_any_number_of_events(batch, validate_args):
    loc = torch.zeros(batch, 2)
    q = rt.MultivariateNormal(loc, scale_tril=torch.eye(2).expand(batch, 2, 2), validate_args=validate_args)
    assert q.log_prob(loc).shape == q.entropy().shape == (batch,)
    assert q.rsample().shape == (batch, 2)
    torch.testing.assert_close(q.log_prob(loc), torch.full((batch,), -float(np.log(2 * np.pi))))


# ---- errors

EYE = torch.eye(3)
INDEFINITE = torch.stack([EYE, torch.diag(torch.tensor([1.0, -1.0, 1.0]))])
CONSTRUCTIONS = {
    "indefinite covariance": {"covariance_matrix": INDEFINITE},
    "indefinite precision": {"precision_matrix": INDEFINITE},
    "NaN in the covariance": {"covariance_matrix": EYE * torch.nan},
    "upper factor": {"scale_tril": EYE + torch.ones(3, 3).triu()},
    "NaN in the factor": {"scale_tril": EYE + torch.tensor([[0, 0, 0], [torch.nan, 0, 0], [0, 0, 0]])},
    "negative diagonal": {"scale_tril": -EYE},
    "NaN in loc": {"loc": torch.full((3,), torch.nan), "scale_tril": EYE},
    "asymmetric covariance": {"covariance_matrix": EYE + torch.ones(3, 3).tril(-1) / 10},
    "two fields": {"covariance_matrix": EYE, "scale_tril": EYE},
    "no field": {},
    "loc of no dims": {"loc": torch.tensor(0.0), "scale_tril": EYE},
    "batch shapes": {"loc": torch.zeros(2, 3), "scale_tril": EYE.expand(5, 3, 3)},
}
NO_VALUES = {"two fields", "no field", "loc of no dims", "batch shapes"}  # refused whatever is validated
FACTORED = {"indefinite covariance", "indefinite precision", "NaN in the covariance"}  # by the factorization itself


def error_of(kind, validate_args, fields):
    try:
        kind(**{"loc": torch.zeros(3), **fields}, validate_args=validate_args)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("case", CONSTRUCTIONS)
def test_construction_fails_as_in_torch(case):
    ours, theirs = (error_of(kind, True, CONSTRUCTIONS[case]) for kind in (rt.MultivariateNormal, Theirs))
    assert type(ours) is type(theirs) is not type(None)
    assert str(ours) == str(theirs)


@pytest.mark.parametrize("case", CONSTRUCTIONS)
def test_construction_without_validation_fails_as_in_torch(case):
    ours, theirs = (error_of(kind, False, CONSTRUCTIONS[case]) for kind in (rt.MultivariateNormal, Theirs))
    assert type(ours) is type(theirs)
    assert (ours is not None) == (case in NO_VALUES | FACTORED)
    assert case not in FACTORED or type(ours) is torch.linalg.LinAlgError


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2), (1, 1)])
@pytest.mark.parametrize("field", FIELDS)
def test_a_matrix_of_another_size(field, shape):
    with pytest.raises(ValueError, match=rf"{field} must have shape \(\.\.\., d, d\) with d = 3 \(from loc\), got"):
        rt.MultivariateNormal(torch.zeros(3), **{field: torch.ones(shape)})


@pytest.mark.parametrize("value", [torch.zeros(5, 3), torch.full((4, 3), torch.nan)])
def test_a_value_is_refused_as_in_torch(value):
    messages = []
    for kind in (rt.MultivariateNormal, Theirs):
        with pytest.raises(ValueError, match="alue") as caught:
            kind(torch.zeros(4, 3), EYE).log_prob(value)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


DOUBLE = torch.zeros(3, dtype=torch.float64)
META = EYE.to("meta")
REFUSED = {
    "matrix of another dtype": (
        {"loc": DOUBLE, "covariance_matrix": EYE},
        r"loc is torch\.float64 and covariance_matrix is torch\.float32; they must have one dtype",
    ),
    "matrix on another device": (
        {"precision_matrix": META},
        "loc is on cpu and precision_matrix on meta; they must be",
    ),
    "integer loc": ({"loc": torch.arange(3)}, r"loc must be torch\.float32 or torch\.float64, got torch\.int64"),
    "half": ({"scale_tril": EYE.half()}, r"scale_tril must be torch\.float32 or torch\.float64, got torch\.float16"),
    "complex": ({"loc": DOUBLE.cfloat()}, r"loc must be torch\.float32 or torch\.float64, got torch\.complex64"),
    "a list": ({"loc": [0.0, 0.0, 0.0]}, "loc must be a tensor, got list"),
    "an array": ({"scale_tril": np.eye(3)}, "scale_tril must be a tensor, got ndarray"),
}


@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("case", REFUSED)
def test_parameters_that_are_no_tensors_of_one_kind(case, validate_args):
    fields, match = REFUSED[case]
    matrix = {} if set(fields) & set(FIELDS) else {"scale_tril": EYE}
    with pytest.raises(TypeError, match=f"^MultivariateNormal: {match}"):
        rt.MultivariateNormal(**{"loc": torch.zeros(3), **matrix, **fields}, validate_args=validate_args)


VALUES = {
    "dtype": (DOUBLE, TypeError, r"value is torch\.float64 and the distribution is torch\.float32; they must have one"),
    "device": (META, TypeError, "value is on meta and the distribution on cpu; they must be on one device"),
    "integers": (torch.zeros(3).long(), TypeError, r"value must be torch\.float32 or torch\.float64, got torch\.int64"),
    "an array": (np.zeros(3), TypeError, "value must be a tensor, got ndarray"),
    "size": (torch.zeros(2), ValueError, r"value must have shape \(\.\.\., d\) with d = 3, got \(2,\)"),
    "no dims": (torch.zeros(()), ValueError, r"value must have shape \(\.\.\., d\) with d = 3, got \(\)"),
}


@pytest.mark.parametrize("validate_args", [True, False])
@pytest.mark.parametrize("case", VALUES)
def test_a_value_of_another_kind_or_size(case, validate_args):
    value, error, match = VALUES[case]
    with pytest.raises(error, match=f"^MultivariateNormal: {match}"):
        rt.MultivariateNormal(torch.zeros(3), EYE, validate_args=validate_args).log_prob(value)


@pytest.mark.parametrize("draw", ["sample", "rsample", "rsample_and_log_prob"])
def test_a_sample_shape_that_is_a_number(draw):
    q = rt.MultivariateNormal(torch.zeros(3), EYE)
    with pytest.raises(TypeError, match=r"MultivariateNormal: sample_shape must be a tuple, such as \(5,\), got 5"):
        getattr(q, draw)(5)


TRANSFORMED = {
    "the constructor": lambda q, x: rt.MultivariateNormal(x, EYE).mean,
    "log_prob": lambda q, x: q.log_prob(x),
    "rsample": lambda q, x: q.rsample() + x,
    "a draw and its density": lambda q, x: q.rsample_and_log_prob()[0] + x,
}


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev])
@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_of_torch_func_are_refused_before_values_are_looked_at(name, transform):
    q = rt.MultivariateNormal(torch.zeros(3), EYE)
    with pytest.raises(RuntimeError, match=r"^MultivariateNormal runs compiled kernels, which transforms"):
        transform(lambda x: TRANSFORMED[name](q, x))(torch.zeros(4, 3))


def test_under_autocast_half_precision_is_taken():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = rt.MultivariateNormal(torch.zeros(3).bfloat16(), scale_tril=EYE)
        assert q.log_prob(torch.zeros(3).bfloat16()).dtype == torch.float32


def test_a_scale_that_is_not_positive_gives_nan_in_its_event():
    scale_tril = torch.stack([EYE, -EYE, EYE])
    q = rt.MultivariateNormal(torch.zeros(3), scale_tril=scale_tril, validate_args=False)
    for made in (q.log_prob(torch.zeros(3)), q.entropy(), q.rsample().sum(-1), q.rsample_and_log_prob()[1]):
        assert made.isnan().tolist() == [False, True, False]


def test_the_default_of_validation_is_that_of_torch():
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        assert rt.MultivariateNormal(torch.zeros(3), scale_tril=-EYE).log_prob(torch.zeros(3)).isnan()
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="LowerCholesky"):
        rt.MultivariateNormal(torch.zeros(3), scale_tril=-EYE)


# ---- torch.compile


@pytest.mark.parametrize("field", FIELDS)
def test_one_graph_under_compile(field, rng):
    matrix = matrices(spd(rng, 3, 3), field).requires_grad_()

    def total(loc, matrix):
        q = rt.MultivariateNormal(loc, **{field: matrix}, validate_args=False)
        value, log_prob = q.rsample_and_log_prob((2,))
        draw = q.expand((5, loc.shape[0])).rsample()
        prior = Independent(Normal(torch.zeros_like(loc), torch.ones_like(loc), validate_args=False), 1, False)
        return (q.log_prob(value.sin()) + log_prob + q.entropy() + kl_divergence(q, prior)).sum() + draw.sin().sum()

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    for batch in (4, 7):  # the second time sizes are symbols
        leaves, results = (normal(rng, batch, 3).requires_grad_(), matrix), []
        for run in (total, compiled):
            torch.manual_seed(0)
            made = run(*leaves)
            results.append([made, *torch.autograd.grad(made, leaves)])
        for eager, other in zip(*results, strict=True):
            close(other, eager)
