# SPDX-License-Identifier: MIT
"""What is trained in PyTorch: the head of an encoder, its draws, and a VAE with one line changed."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import reparam as rp  # noqa: E402
import reparam.torch as rt  # noqa: E402

kl_divergence, Theirs = torch.distributions.kl_divergence, torch.distributions.MultivariateNormal
Independent, Normal = torch.distributions.Independent, torch.distributions.Normal
TYPES = ("full", "diag")
KEY = 2**63 + 17
D = 3


@pytest.fixture(autouse=True)
def _validation():
    """As in a new process: torch.compile switches it off for all that follows."""
    torch.distributions.Distribution.set_default_validate_args(True)


def close(ours, theirs, tolerance=1e-9):
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def trained(covariance_type, dtype=torch.float64, **settings):
    """A head whose factor is no longer the identity."""
    torch.manual_seed(0)
    head = rt.VariationalGaussian(4, D, covariance_type=covariance_type, **settings).to(dtype)
    torch.nn.init.normal_(head.linear.weight, std=0.4)
    torch.nn.init.normal_(head.linear.bias, std=0.4)
    return head


def features(*shape, dtype=torch.float64):
    return torch.tensor(np.random.default_rng(1).standard_normal((*shape, 4)), dtype=dtype)


def dense(q):
    """The same Gaussian of torch, with the factor made of the vector by torch itself."""
    if q.covariance_type == "diag":
        return Theirs(q.loc, scale_tril=torch.diag_embed(q.vector.exp()), validate_args=False)
    lower = torch.zeros(*q.loc.shape, D, dtype=q.loc.dtype)
    rows, columns = np.tril_indices(D)
    lower[..., rows, columns] = q.vector
    diagonal = torch.diag_embed(lower.diagonal(dim1=-2, dim2=-1).exp())
    return Theirs(q.loc, scale_tril=lower.tril(-1) + diagonal, validate_args=False)  # which fails for no events


def noise_of(q, sample_shape=(), key=KEY, index=None):
    """What the distributions of NumPy draw with this key."""
    zeros = np.zeros(tuple(q.loc.shape), str(q.loc.dtype).removeprefix("torch."))
    return torch.tensor(rp.MultivariateNormalDiag(zeros, zeros + 1).rsample(sample_shape, key=key, index=index))


# ---- the distribution


@pytest.mark.parametrize("covariance_type", TYPES)
def test_it_starts_at_the_identity(covariance_type):
    head = rt.VariationalGaussian(4, D, covariance_type=covariance_type)
    q = head(features(5, dtype=torch.float32))
    assert torch.equal(q.scale_tril, torch.eye(D).expand(5, D, D))
    assert q.loc.std() > 0
    q.rsample().sum().backward()
    assert (head.linear.weight.grad[D:].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("sample_shape", [(), (1,), (1, 1), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("batch", [(6,), (2, 3), (), (0,)])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_draw_is_loc_plus_factor_times_the_noise_of_its_key(covariance_type, batch, sample_shape):
    q = trained(covariance_type)(features(*batch))
    value, log_prob = q.rsample_and_log_prob(sample_shape, key=KEY)
    assert value.shape == (*sample_shape, *batch, D)
    theirs = dense(q)
    close(value, given_noise(theirs, sample_shape))
    assert log_prob.shape == (*sample_shape, *batch)
    if value.numel():
        close(log_prob, theirs.log_prob(value))
    assert torch.equal(q.rsample(sample_shape, key=KEY), value)
    assert torch.equal(q.sample(sample_shape, key=KEY), value)


QUANTITIES = {
    "rsample": lambda q: q.rsample((2,), key=KEY) if isinstance(q, rt.EncodedNormal) else given_noise(q, (2,)),
    "one rsample": lambda q: q.rsample(key=KEY) if isinstance(q, rt.EncodedNormal) else given_noise(q),
    "log_prob": lambda q: q.log_prob(torch.ones(6, D, dtype=q.loc.dtype)),
    "entropy": lambda q: q.entropy(),
    "mean": lambda q: q.mean,
    "mode": lambda q: q.mode,
    "variance": lambda q: q.variance,
    "stddev": lambda q: q.stddev,
    "scale_tril": lambda q: q.scale_tril,
    "covariance_matrix": lambda q: q.covariance_matrix,
    "precision_matrix": lambda q: q.precision_matrix,
    "KL to a normal": lambda q: kl_divergence(q, other_normal(q)),
    "KL from a normal": lambda q: kl_divergence(other_normal(q), q),
    "KL to the standard normal": lambda q: q.kl_standard() if isinstance(q, rt.EncodedNormal) else kl_standard(q),
}


def given_noise(q, sample_shape=(), **address):
    return q.loc + (q.scale_tril @ noise_of(q, sample_shape, **address)[..., None])[..., 0]


def kl_standard(q):
    return kl_divergence(q, Theirs(torch.zeros(D).to(q.loc), torch.eye(D).to(q.loc)))


def other_normal(q):
    """A diagonal Gaussian, of the kind that there is a divergence with."""
    loc, scale = torch.linspace(-1, 1, D).to(q.loc), torch.linspace(0.5, 1.5, D).to(q.loc)
    return Independent(Normal(loc, scale), 1) if isinstance(q, rt.EncodedNormal) else Theirs(loc, torch.diag(scale**2))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("name", QUANTITIES)
def test_values_and_gradients_are_those_of_the_dense_distribution(name, covariance_type):
    head, results = trained(covariance_type), []
    for form in (lambda q: q, dense):
        made = QUANTITIES[name](form(head(features(6))))
        results.append([made, *torch.autograd.grad(made.sin().sum(), head.parameters(), allow_unused=True)])
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("other", TYPES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_divergences_of_two_that_are_encoded(covariance_type, other):
    heads = trained(covariance_type), trained(other)
    p, q = heads[0](features(6)), heads[1](features(6) / 2)
    results = []
    for made in (kl_divergence(p, q), kl_divergence(dense(p), dense(q))):
        weights = [head.linear.weight for head in heads]
        results.append([made, *torch.autograd.grad(made.sin().sum(), weights, retain_graph=True)])
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_gradcheck_of_the_fused_head(covariance_type):
    p = D if covariance_type == "diag" else D * (D + 1) // 2
    inputs = features(5)[:, :D].clone(), torch.linspace(-1, 1, 5 * p).double().reshape(5, p)

    def head(loc, vector):
        q = rt.EncodedNormal(loc, vector, covariance_type)
        return *q.rsample_and_log_prob(key=KEY), *q.rsample_and_log_prob((2,), key=KEY), q.kl_standard(), q.entropy()

    assert torch.autograd.gradcheck(head, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_neither_noise_nor_factor_is_kept_for_the_backward_pass(covariance_type):
    head = trained(covariance_type)
    q, kept = head(features(50)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        q.rsample_and_log_prob()
    floats = [x for x in kept if x.is_floating_point()]
    assert {x.data_ptr() for x in floats} == {q.loc.data_ptr(), q.vector.data_ptr()}


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_nothing_is_kept_in_the_distribution(covariance_type, name):
    """So that it follows its vector, has a graph of its own in each call, and learns after it was looked at."""
    torch.manual_seed(0)
    p = D if covariance_type == "diag" else D * (D + 1) // 2
    loc, vector = torch.randn(6, D).double().requires_grad_(), torch.randn(6, p).double().requires_grad_()
    q = rt.EncodedNormal(loc, vector, covariance_type)
    with torch.inference_mode():
        QUANTITIES[name](q)
    for _ in range(2):
        made = QUANTITIES[name](q)
        made.sum().backward()
        close(made, QUANTITIES[name](dense(rt.EncodedNormal(loc, vector, covariance_type))))
        with torch.no_grad():
            vector += 0.5


def test_the_seed_and_a_generator_decide_the_draws():
    head, x = trained("full"), features(6)

    def draw(seed, **settings):
        torch.manual_seed(seed)
        return head(x, **settings).rsample()

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    generator = torch.Generator()
    made = [draw(seed, generator=generator.manual_seed(5)) for seed in (1, 2)]
    assert torch.equal(*made)
    q = head(x)
    assert not torch.equal(q.rsample(), q.rsample())
    assert torch.equal(q.rsample(generator=generator.manual_seed(5)), made[0])
    assert torch.equal(head(x, generator=torch.Generator().manual_seed(5)).rsample_and_log_prob()[0], made[0])


def test_a_row_has_the_noise_of_its_number_whatever_is_beside_it():
    head, x = trained("full"), features(6)
    order = torch.tensor([4, 1, 5, 0])
    whole = head(x).rsample((2,), key=KEY)
    for index in (order, order.to(torch.int32), order.numpy(), order.tolist()):
        assert torch.equal(head(x[order], index=index).rsample((2,), key=KEY), whole[:, order])
    q = head(x[order], index=order + 100)
    close(q.rsample(key=KEY), given_noise(dense(q), index=order.numpy() + 100))


def test_an_index_that_changes_later_does_not_change_the_gradient():
    head, x, index = trained("full"), features(6), torch.arange(6)
    gradients = []
    for later in (0, 7):
        value = head(x, index=index).rsample(key=KEY)
        index += later
        gradients.append(torch.autograd.grad((value**2).sum(), head.linear.weight)[0])
        index -= later
    assert torch.equal(*gradients)


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_expand_keeps_the_numbers_of_rows(covariance_type, numbered):
    q = trained(covariance_type)(features(6), index=torch.arange(6) * 2 + 9 if numbered else None)
    wide = q.expand((2, 6))
    assert type(wide) is rt.EncodedNormal
    assert wide.batch_shape == (2, 6)
    assert wide.vector.data_ptr() == q.vector.data_ptr()
    close(wide.log_prob(q.loc), q.log_prob(q.loc).expand(2, 6))
    close(wide.variance, q.variance.expand(2, 6, D))
    close(kl_divergence(wide, wide), torch.zeros(2, 6).double())
    for sample_shape in ((), (3,), (0,)):
        assert torch.equal(q.expand((6,)).rsample(sample_shape, key=KEY), q.rsample(sample_shape, key=KEY))
        draws = q.rsample((*sample_shape, 2), key=KEY)
        assert torch.equal(wide.rsample(sample_shape, key=KEY), draws)
        again = wide.expand((2, 6)).expand((5, 2, 6))
        assert torch.equal(again.rsample(sample_shape, key=KEY), q.rsample((*sample_shape, 5, 2), key=KEY))
    assert draws.shape == (0, 2, 6, D)


def test_expand_of_a_dim_of_one_numbers_events_anew():
    q = trained("full")(features(6, 1), index=torch.arange(6)[:, None] + 9)
    wide = q.expand((6, 4))
    close(wide.rsample(key=KEY), given_noise(dense(wide)))
    single = trained("full")(features())
    close(single.expand((4,)).rsample(key=KEY), single.rsample((4,), key=KEY))


def test_independent_and_mixture_of_encoded_rows():
    q = trained("full")(features(6))
    close(Independent(q, 1).log_prob(q.loc), dense(q).log_prob(q.loc).sum())
    assert Independent(q, 1).rsample((4,)).shape == (4, 6, D)


# ---- the module


def test_the_net_comes_before_the_last_layer():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh())
    head = rt.VariationalGaussian(8, D, net=net)
    q, out = head(features(5, dtype=torch.float32)), head.linear(net(features(5, dtype=torch.float32)))
    assert torch.equal(q.loc, out[:, :D])
    assert torch.equal(q.vector, out[:, D:])
    assert {name.split(".")[0] for name, _ in head.named_parameters()} == {"net", "linear"}
    assert "latent_dim=3, covariance_type='full'" in repr(head)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), None])
def test_copies_and_state_dicts(duplicate):
    head = trained("full", net=torch.nn.Tanh())
    if duplicate is None:
        made = rt.VariationalGaussian(4, D, net=torch.nn.Tanh()).double()
        made.load_state_dict(head.state_dict())
    else:
        made = duplicate(head)
    x = features(5)
    assert torch.equal(made(x).rsample(key=KEY), head(x).rsample(key=KEY))
    assert made.linear.weight is not head.linear.weight


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
def test_copies_of_the_distribution(duplicate, generator):
    with torch.no_grad():
        settings = {"generator": torch.Generator().manual_seed(3)} if generator else {}
        q = trained("full")(features(5), index=torch.arange(5) + 2, **settings)
    made = duplicate(q)
    assert torch.equal(made.rsample(key=KEY), q.rsample(key=KEY))
    assert torch.equal(made.log_prob(q.loc), q.log_prob(q.loc))


BAD = {
    "covariance_type": (lambda: rt.VariationalGaussian(4, 3, covariance_type="low"), ValueError, "covariance_type"),
    "latent_dim": (lambda: rt.VariationalGaussian(4, 0), ValueError, "latent_dim"),
    "in_features": (lambda: rt.VariationalGaussian(1.5, 3), TypeError, "in_features"),
    "net": (lambda: rt.VariationalGaussian(4, 3, net=5), TypeError, "net must be a torch.nn.Module or .*, got int"),
    "width": (
        lambda: rt.VariationalGaussian(4, 3)(torch.zeros(5, 2)),
        ValueError,
        r"features must be a tensor of shape \(\.\.\., in_features\) with in_features = 4, got \(5, 2\)",
    ),
    "width of the net": (
        lambda: rt.VariationalGaussian(4, 3, net=torch.nn.Linear(4, 8))(torch.zeros(5, 4)),
        ValueError,
        r"net must return a tensor of shape \(\.\.\., in_features\) with in_features = 4, got \(5, 8\)",
    ),
    "features": (lambda: rt.VariationalGaussian(4, 3)(np.zeros(4)), TypeError, "features must be a tensor, got nd"),
    "what the net returns": (
        lambda: rt.VariationalGaussian(4, 3, net=lambda x: (x, x))(torch.zeros(5, 4)),
        TypeError,
        "net must return a tensor, got tuple",
    ),
    "vector": (lambda: encoded(vector=torch.zeros(5, 5)), ValueError, r"vector must have shape \(5, 6\), got \(5, 5\)"),
    "loc": (lambda: encoded(loc=torch.tensor(0.0)), ValueError, "at least one-dimensional"),
    "index shape": (lambda: encoded(index=torch.arange(4)), ValueError, r"the batch shape \(5,\), got \(4,\)"),
    "index dtype": (lambda: encoded(index=torch.zeros(5)), TypeError, r"index must hold integers, got torch\.float32"),
    "index bool": (lambda: encoded(index=torch.ones(5, dtype=torch.bool)), TypeError, "index must hold integers"),
    "negative index": (lambda: encoded(index=torch.arange(5) - 1).rsample(), ValueError, "index"),
    "key": (lambda: encoded().rsample(key=-1), ValueError, "EncodedNormal: key"),
    "NaN": (lambda: encoded(loc=torch.full((5, 3), torch.nan)), ValueError, r"Expected parameter loc"),
    "value": (
        lambda: encoded().log_prob(torch.zeros(5, 2)),
        ValueError,
        r"EncodedNormal: value must have shape \(\.\.\., d\) with d = 3, got \(5, 2\)",
    ),
    "value of float64": (
        lambda: encoded().log_prob(torch.zeros(5, 3).double()),
        TypeError,
        r"EncodedNormal: value is torch\.float64 and the distribution is torch\.float32; they must have one dtype",
    ),
    "dtypes": (
        lambda: encoded(vector=torch.zeros(5, 6).double()),
        TypeError,
        r"EncodedNormal: loc is torch\.float32 and vector is torch\.float64; they must have one dtype",
    ),
    "integers": (lambda: encoded(loc=torch.zeros(5, 3).int()), TypeError, r"loc must be .*, got torch\.int32"),
    "an array": (lambda: encoded(vector=np.zeros((5, 6))), TypeError, "vector must be a tensor, got ndarray"),
    "sample_shape": (
        lambda: encoded().rsample(5),
        TypeError,
        r"EncodedNormal: sample_shape must be a tuple, such as \(5,\), got 5",
    ),
}


def encoded(**settings):
    return rt.EncodedNormal(**{"loc": torch.zeros(5, 3), "vector": torch.zeros(5, 6), **settings})


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    make, error, match = BAD[case]
    with pytest.raises(error, match=match):
        make()


def test_vmap_of_a_module_is_refused():
    head = trained("full")
    with pytest.raises(RuntimeError, match="EncodedNormal runs compiled kernels, which transforms"):
        torch.func.vmap(lambda x: head(x).rsample())(features(6))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_one_graph_under_compile(covariance_type):
    head = trained(covariance_type)

    def loss(x):
        q = head(x)
        value, log_prob = q.rsample_and_log_prob()
        return (value.sin().sum(-1) + log_prob + q.kl_standard() + q.entropy() + q.rsample((2,)).sum((0, 2))).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for batch in (6, 9):  # the second time sizes are symbols
        results = []
        for run in (loss, compiled):
            torch.manual_seed(0)
            made = run(features(batch))
            results.append([made, *torch.autograd.grad(made, head.parameters())])
        for eager, other in zip(*results, strict=True):
            close(other, eager)
    assert not torch.equal(compiled(features(6)), compiled(features(6)))


def test_a_checkpoint_draws_the_same_again():
    head, results = trained("full"), []

    def loss(x):
        value, log_prob = head(x).rsample_and_log_prob()
        return (value**2).sum() + log_prob.sum()

    for run in (loss, lambda x: checkpoint(loss, x, use_reentrant=False)):
        torch.manual_seed(0)
        made = run(features(6))
        results.append([made, *torch.autograd.grad(made, head.parameters())])
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_under_autocast_the_gaussian_is_of_float32(covariance_type):
    head = trained(covariance_type, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = head(features(6, dtype=torch.float32))
        value, log_prob = q.rsample_and_log_prob()
        made = value, log_prob, q.entropy(), q.kl_standard(), q.log_prob(value), q.variance
    assert {x.dtype for x in made} == {torch.float32}
    close(log_prob, dense(q).log_prob(value), 1e-4)
    (log_prob.sum() + value.sum()).backward()
    assert head.linear.weight.grad.dtype == torch.float32


# ---- a VAE with one line changed

DATA, HIDDEN, ROWS = 12, 16, 64


def rows(dtype):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((ROWS, D)) @ rng.standard_normal((D, DATA)) + 0.1 * rng.standard_normal((ROWS, DATA))
    return torch.tensor(x, dtype=dtype)


class Encoder(torch.nn.Module):
    """As it is written by hand: the factor of each row, as a matrix."""

    def __init__(self, family):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(DATA, HIDDEN), torch.nn.Tanh())
        self.linear = torch.nn.Linear(HIDDEN, D + D * (D + 1) // 2)
        self.family = family

    def forward(self, x):
        loc, vector = self.linear(self.net(x)).split([D, D * (D + 1) // 2], -1)
        lower = loc.new_zeros(*loc.shape, D)
        rows, columns = np.tril_indices(D)
        lower[..., rows, columns] = vector
        diagonal = torch.diag_embed(lower.diagonal(dim1=-2, dim2=-1).exp())
        return self.family(loc, scale_tril=lower.tril(-1) + diagonal)


def vae(encoder, dtype):
    """The encoder and its decoder, whose weights depend on the seed alone."""
    torch.manual_seed(11)
    decoder = torch.nn.Sequential(torch.nn.Linear(D, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, DATA)).to(dtype)
    encoder = encoder.to(dtype)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder, decoder


def losses(encoder, decoder, draw=lambda q, step: q.rsample()):
    """Twenty steps on the negative ELBO."""
    x = rows(next(decoder.parameters()).dtype)
    prior = Independent(Normal(x.new_zeros(D), x.new_ones(D)), 1)
    if not isinstance(encoder(x), rt.MultivariateNormal):  # torch has no divergence of this pair
        prior = Theirs(prior.mean, torch.diag(prior.variance))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    torch.manual_seed(12)
    found = []
    for step in range(20):
        q = encoder(x)
        z = draw(q, step)
        log_likelihood = Independent(Normal(decoder(z), 0.5), 1).log_prob(x)
        loss = (kl_divergence(q, prior) - log_likelihood).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


VAE_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", VAE_TOLERANCE)
def test_a_vae_whose_import_is_swapped_has_the_same_losses(dtype):
    theirs = losses(*vae(Encoder(Theirs), dtype))
    ours = losses(*vae(Encoder(rt.MultivariateNormal), dtype))
    assert theirs[-1] < theirs[0] - 5
    close(ours, theirs, VAE_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", VAE_TOLERANCE)
def test_a_vae_with_our_encoder_has_the_losses_of_the_original_on_the_same_noise(dtype):
    def drawn_with(q, step):
        return q.rsample(key=step)

    def given(q, step):
        return given_noise(q, key=step)

    theirs = losses(*vae(Encoder(Theirs), dtype), given)
    net = torch.nn.Sequential(torch.nn.Linear(DATA, HIDDEN), torch.nn.Tanh())
    ours = losses(*vae(rt.VariationalGaussian(HIDDEN, D, net=net), dtype), drawn_with)
    close(ours, theirs, VAE_TOLERANCE[dtype])


def test_a_loop_over_a_data_loader():
    """Of this process; forked workers are in test_torch_threads.py."""
    encoder, decoder = vae(rt.VariationalGaussian(DATA, D), torch.float32)
    optimizer = rt.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    data = torch.utils.data.TensorDataset(torch.arange(ROWS), rows(torch.float32))
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    totals = []
    for _ in range(8):
        total = 0.0
        for index, x in loader:
            q = encoder(x, index=index)
            z, log_q = q.rsample_and_log_prob()
            log_prior = Normal(0.0, 1.0).log_prob(z).sum(-1)
            loss = (log_q - log_prior - Normal(decoder(z), 0.5).log_prob(x).sum(-1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        totals.append(total / len(loader))
    assert totals[-1] < totals[0] - 5
