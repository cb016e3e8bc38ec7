# SPDX-License-Identifier: MIT
"""The operators of torch.library that stand for the ops in compiled code, in exports and under dispatch modes."""

import numpy as np
import pytest

import reparam as rp
import support

torch = pytest.importorskip("torch", reason="needs torch")
rt = pytest.importorskip("reparam.torch", reason="needs torch")
library = pytest.importorskip("reparam.torch._library", reason="needs torch")

OPS = [*(op for op in support.OPS if op.name not in {"bits", "normal"}), rp.cholesky]
WITH_VJP = [op for op in OPS if op.vjp]
DRAWING = [op for op in WITH_VJP if any(o.drawable for o in op.inputs)]
# Of torch: what it warns of while it compiles is its own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def by_name(op):
    return op.name


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


def samples(op, rng, batch, d=4):
    like = rp.cholesky_ex if op is rp.cholesky else op
    return [torch.from_numpy(x) for x in support.sample_inputs(like, rng, batch, d)]


def variant(op):
    """The last: of each attribute the value that is not the default."""
    return {"check": False} if op is rp.cholesky else support.variants(op)[-1]


def outputs(op, made):
    return [x for x, o in zip(support.as_tuple(made), op.outputs, strict=True) if o.item == "real"]


def compiled(function, **options):
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


def assert_equal(made, expected):
    for x, y in zip(support.as_tuple(made), support.as_tuple(expected), strict=True):
        assert torch.equal(x, y)


# ---- every op


@pytest.mark.parametrize("op", OPS, ids=by_name)
def test_operators_pass_the_checks_of_torch(op, rng):
    attributes = {**op.defaults, "packed": False, **variant(op)}
    given = [x.requires_grad_(bool(op.vjp)) for x in samples(op, rng, (5,))]
    args = [*given, *arguments(op.forward_pass, attributes)]
    torch.library.opcheck(getattr(torch.ops.reparam, op.name).default, args)
    if op.vjp:
        made = [x.detach() for x in outputs(op, call(op, given))]
        saved = made[:1] if op.vjp_from == "outputs" else [x.detach() for x in given]
        wanted = [k != 1 for k in range(len(op.inputs))]
        args = [*saved, *map(torch.ones_like, made), *arguments(op.vjp_pass, attributes), wanted]
        torch.library.opcheck(getattr(torch.ops.reparam, f"{op.name}_vjp").default, args)


def call(op, given):
    return getattr(rt, op.name)(*given, **variant(op))


def arguments(p, attributes):
    """What an operator takes after the operands: no Draw, and the settings."""
    form = library.Form(p)
    return [*([None] * 2 if form.drawn is not None else []), *(attributes.get(name) for name in form.settings)]


@pytest.mark.parametrize("op", OPS, ids=by_name)
def test_compiled_code_gives_the_same(op, rng):
    function = compiled(lambda *given: getattr(rt, op.name)(*given, **variant(op)), dynamic=True)
    for batch in (6, 8):  # no other size of the call; the second by the code of the first
        given = samples(op, rng, (batch,))
        twins = [x.clone() for x in given]
        if op.vjp:
            given, twins = ([x.requires_grad_() for x in some] for some in (given, twins))
        with torch.compiler.set_stance("fail_on_recompile" if batch == 8 else "default"):
            made = function(*given)
        expected = call(op, twins)
        if op.outputs:
            assert_equal(made, expected)
        else:
            assert_equal(tuple(given), tuple(twins))
        if op.vjp:
            cotangents = [torch.from_numpy(rng.standard_normal(x.shape)) for x in outputs(op, expected)]
            grads = torch.autograd.grad(outputs(op, made), given, cotangents)
            assert_equal(grads, torch.autograd.grad(outputs(op, expected), twins, cotangents))


@pytest.mark.parametrize("op", OPS, ids=by_name)
def test_an_export_gives_the_same(op, rng):
    class Model(torch.nn.Module):
        def forward(self, *given):
            return call(op, given)

    given = samples(op, rng, (5,))
    batch = torch.export.Dim("batch", min=2)
    with torch.no_grad():
        program = torch.export.export(Model(), tuple(given), dynamic_shapes=(tuple({0: batch} for _ in given),))
    assert any(f"reparam.{op.name}" in str(node.target) for node in program.graph.nodes)
    given = samples(op, rng, (9,))
    twins = [x.clone() for x in given]
    made = program.module()(*given)
    expected = call(op, twins)
    assert_equal(made, expected) if op.outputs else assert_equal(tuple(given), tuple(twins))


# ---- settings


PACKABLE = [rp.tril_from_vector, rp.normal_tril_log_prob, rp.elbo_tril_gaussian]


@pytest.mark.parametrize("op", PACKABLE, ids=by_name)
def test_packed_factors(op, rng):
    given = samples(op, rng, (5,))
    packed = [x[(..., *np.tril_indices(4))] if o.kind == "tril" else x for o, x in zip(op.inputs, given, strict=True)]
    function = getattr(rt, op.name)
    with torch.no_grad():
        assert_equal(compiled(lambda *x: function(*x, packed=True))(*packed), function(*packed, packed=True))


def test_operands_by_name_and_numbers():
    x = torch.ones(3)
    function = compiled(lambda x, scale: rt.normal_log_prob(scale=scale, value=x, loc=0))
    assert_equal(function(x, 2.0), rt.normal_log_prob(x, 0, 2.0))
    assert_equal(function(x.double(), 2.0), rt.normal_log_prob(x.double(), 0, 2.0))
    assert function(x, 2.5).dtype == torch.float32


def test_a_size_that_no_tensor_shows_is_a_keyword():
    given = [torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3, 2), torch.eye(2)]
    index = torch.arange(3)
    function = compiled(lambda s: rt.elbo_diag_gaussian(rt.Draw(1, index), *given, s=s))
    for s in (4, 5, 6):
        assert_equal(function(s), rt.elbo_diag_gaussian(rt.Draw(1, index), *given, s=s))


def test_each_op_has_code_of_its_own():
    """Dynamo counts recompilations by the code of a function, of which one loop has made them all."""
    x = torch.rand(3, 3) + 1
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        compiled(rt.normal_entropy)(x)
        compiled(rt.normal_diag_entropy)(x)
        compiled(rt.normal_tril_entropy)(x)


def test_autocast_computes_in_float32():
    x = torch.linspace(0, 1, 5, dtype=torch.bfloat16)

    def run(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return rt.normal_log_prob(x, 0.0, 2.0)

    made = compiled(run)(x)
    assert made.dtype == torch.float32
    assert_equal(made, run(x))


# ---- noise


@pytest.mark.parametrize("op", DRAWING, ids=by_name)
def test_noise_is_drawn_forward_and_backward(op, rng):
    function = compiled(lambda key, index, *given: getattr(rt, op.name)(rt.Draw(key, index), *given))
    given = [x.requires_grad_() for x in samples(op, rng, (5,))[1:]]
    index = torch.tensor([3, 0, 9, 1, 1])
    for key in (2**63 + 5, torch.tensor(-3)):
        made = outputs(op, function(key, index, *given))
        expected = outputs(op, getattr(rt, op.name)(rp.random.Draw(int(key) % 2**64, index), *given))
        assert_equal(tuple(made), tuple(expected))
        cotangents = [torch.from_numpy(rng.standard_normal(x.shape)) for x in expected]
        grads = [torch.autograd.grad(some, given, cotangents) for some in (made, expected)]
        assert_equal(*grads)


def test_one_code_serves_all_keys_in_a_tensor():
    function = compiled(lambda key, index: rt.normal_transform(rt.Draw(key, index), 0.0, torch.ones(5)))
    index = torch.arange(5)
    first = function(torch.tensor(1), index)
    with torch.compiler.set_stance("fail_on_recompile"):
        second = function(torch.tensor(2), index)
    assert not torch.equal(first, second)


def test_a_draw_of_arrays_is_refused():
    draw = rp.random.Draw(1, np.arange(5))
    with pytest.raises(Exception, match=r"noise must be a reparam.torch.Draw in compiled code"):
        compiled(lambda x: rt.normal_transform(draw, x, x))(torch.ones(5))


# ---- what is refused


def test_what_does_not_fit_is_refused_when_it_is_compiled():
    x = torch.ones(3)
    with pytest.raises(Exception, match=r"loc is torch.float64; they must have one dtype"):
        compiled(rt.normal_log_prob)(x, x.double(), x)
    with pytest.raises(Exception, match="batch shapes do not broadcast"):
        compiled(rt.normal_log_prob)(x, x[:2], x)
    with pytest.raises(Exception, match="diagonal must be one of 'exp', 'softplus'"):
        compiled(lambda x: rt.tril_from_vector(x, diagonal="cosh"))(x)


def test_what_has_no_derivative_says_so_when_it_is_compiled(rng):
    op = rp.elbo_diag_gaussian
    given = [x.requires_grad_() for x in samples(op, rng, (5,))]
    function = compiled(lambda *x: rt.elbo_diag_gaussian(*x)[1])
    with pytest.raises(RuntimeError, match="elbo_diag_gaussian has no derivative"):
        function(*given).sum().backward()
    with torch.no_grad():
        assert_equal(function(*given), rt.elbo_diag_gaussian(*given)[1])


TRANSFORMS = {
    "jvp": lambda x: torch.func.jvp(lambda x: rt.normal_log_prob(x, 0.0, 2.0), (x,), (x,)),
    "jacfwd": lambda x: torch.func.jacfwd(lambda x: rt.normal_log_prob(x, 0.0, 2.0))(x),
}


def test_a_matrix_without_a_factor():
    function = compiled(lambda a, **settings: rt.cholesky(a, **settings))
    a = torch.eye(3).expand(4, 3, 3).clone()
    assert torch.equal(function(a), a)
    a[2, 1, 1] = -1
    with pytest.raises(torch.linalg.LinAlgError, match=r"in 1 of 4 events: \[2\] \(leading minor 2\)"):
        function(a)
    assert function(a, check=False)[2].isnan().any()


def test_an_update_of_what_requires_grad():
    hyper = {"step": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    x = torch.ones(3)
    function = compiled(lambda *given: rt.adam_step(*given, **hyper))
    with pytest.raises(Exception, match="param is updated in place and requires grad"):
        function(torch.nn.Parameter(x), x, x.clone(), x.clone())


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_runs_the_operators_one_by_one():
    x = torch.rand(3, 4)
    made = compiled(lambda x: torch.func.vmap(lambda x: rt.normal_log_prob(x, 0.0, 2.0))(x))(x)
    assert_equal(made, rt.normal_log_prob(x, 0.0, 2.0))


def test_other_transforms_raise():
    with pytest.raises(Exception, match="normal_log_prob"):
        compiled(lambda x: torch.func.grad(lambda x: rt.normal_log_prob(x, 0.0, 2.0).sum())(x))(torch.ones(3))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_tangents_are_never_dropped(name):
    with pytest.raises(Exception, match="normal_log_prob has no forward-mode derivative"):
        compiled(TRANSFORMS[name])(torch.ones(3))


@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_code_does_not_drop_the_tangents_of_its_callers(fullgraph):
    function = torch.compile(rt.normal_log_prob, fullgraph=fullgraph, backend="aot_eager")
    x = torch.ones(3)
    function(x, x, x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises(Exception, match="normal_log_prob has no forward-mode derivative"):
            function(dual, x, x)


# ---- export


class Encoder(torch.nn.Module):
    """Draws of the head, and what else has a closed form: an export returns tensors alone."""

    def __init__(self, covariance_type):
        super().__init__()
        self.head = rt.VariationalGaussian(4, 3, covariance_type=covariance_type)

    def forward(self, x, index=None):
        q = self.head(x, index=index)
        return *q.rsample_and_log_prob(), *q.rsample_and_log_prob((2,)), q.log_prob(q.mean), q.kl_standard()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_module_is_exported_with_a_dynamic_batch(covariance_type, numbered, strict):
    module, batch = Encoder(covariance_type), torch.export.Dim.DYNAMIC

    def arguments(n):
        torch.manual_seed(n)
        return torch.randn(n, 4), torch.arange(n) + 3 if numbered else None

    shapes = ({0: batch}, {0: batch} if numbered else None)
    exported = torch.export.export(module, arguments(5), dynamic_shapes=shapes, strict=strict).module()
    for n in (5, 8):
        x, index = arguments(n)
        results = []
        for run in (module, exported):
            torch.manual_seed(0)
            results.append(run(x, index))
        assert_equal(*map(tuple, results))


# ---- dispatch modes


def test_a_trace_holds_the_operators_and_no_constants():
    from torch.fx.experimental.proxy_tensor import make_fx

    x = torch.ones(3)
    traced = make_fx(lambda x: rt.normal_log_prob(x, 0.0, 2.0))(x)
    assert_equal(traced(x + 1), rt.normal_log_prob(x + 1, 0.0, 2.0))


def test_fake_tensors_have_shapes_alone():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        made = rt.normal_tril_log_prob(torch.empty(5, 4), torch.empty(4), torch.empty(4, 4))
    assert tuple(made.shape) == (5,)


def test_other_devices_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(3, device="xpu")
        with pytest.raises(TypeError, match="value must be on cpu or cuda, got xpu"):
            rt.normal_log_prob(x, 0.0, 2.0)


def test_a_second_derivative_raises_under_a_mode_too():
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.ones(3, requires_grad=True)
    with FlopCounterMode(display=False):
        (grad,) = torch.autograd.grad(rt.normal_log_prob(x, 0.0, 2.0).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="normal_log_prob has no second derivative"):
            grad.sum().backward()
