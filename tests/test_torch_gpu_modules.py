# SPDX-License-Identifier: MIT
"""What stands on the ops of ``reparam.torch``, on a GPU: the same numbers as on a CPU."""

import numpy as np
import pytest

import reparam as rp
from reparam._backends import cuda as backend

torch = pytest.importorskip("torch", reason="needs torch")
rt = pytest.importorskip("reparam.torch", reason="needs torch")

HAS_GPU = torch.cuda.is_available() and backend._cuda is not None
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU of torch")]
TOLERANCE = 1e-9


def leaves(rng, *shapes):
    return [torch.tensor(rng.standard_normal(shape)) for shape in shapes]


def on_both(compute, tensors):
    """Results and gradients of a computation on the tensors, by device."""
    by_device = []
    for device in ("cpu", "cuda"):
        inputs = [x.detach().to(device).requires_grad_() for x in tensors]
        made = compute(*inputs)
        gradients = torch.autograd.grad(sum(x.sin().sum() for x in made), inputs)
        assert all(x.device.type == device for x in (*made, *gradients))
        by_device.append([x.detach().cpu() for x in (*made, *gradients)])
    for ours, theirs in zip(*by_device, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("field", ["covariance_matrix", "precision_matrix"])
def test_a_distribution(field, rng):
    def compute(loc, a, value):
        q = rt.MultivariateNormal(loc, **{field: a @ a.mT + torch.eye(4).to(a)})
        prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(loc), 1.0), 1)
        return q.log_prob(value), q.entropy(), q.variance, torch.distributions.kl_divergence(q, prior)

    on_both(compute, leaves(rng, (300, 4), (300, 4, 4), (2, 300, 4)))


def test_draws_are_those_of_torch_on_the_gpu(rng):
    loc, a = (x.cuda() for x in leaves(rng, (300, 4), (4, 4)))
    covariance, draws = a @ a.mT + torch.eye(4).to(a), []
    for family in (rt.MultivariateNormal, torch.distributions.MultivariateNormal):
        torch.manual_seed(0)
        draws.append(family(loc, covariance).rsample((3,)))
    torch.testing.assert_close(*draws, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_the_head_of_an_encoder(covariance_type, rng):
    p = 10 if covariance_type == "full" else 4

    def compute(loc, vector):
        q = rt.EncodedNormal(loc, vector, covariance_type, index=torch.arange(300) + 5)
        return *q.rsample_and_log_prob(key=3), *q.rsample_and_log_prob((2,), key=3), q.kl_standard(), q.entropy()

    on_both(compute, leaves(rng, (300, 4), (300, p)))
    head = rt.VariationalGaussian(8, 4, covariance_type=covariance_type).cuda()
    torch.manual_seed(0)
    first = head(torch.ones(5, 8, device="cuda")).rsample()
    torch.manual_seed(0)
    assert torch.equal(head(torch.ones(5, 8, device="cuda")).rsample(), first)


def test_adam(rng):
    start, trained = leaves(rng, (64, 32), (7,)), []
    grads = leaves(rng, (64, 32), (7,))
    for family, device in ((rt.Adam, "cuda"), (torch.optim.AdamW, "cpu")):
        params = [x.to(device).requires_grad_() for x in start]
        optimizer = family(params, lr=0.01, weight_decay=0.1)
        for step in range(10):
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad.to(device) * (step - 3)
            optimizer.step()
        trained.append([x.detach().cpu() for x in params])
    for ours, theirs in zip(*trained, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_density_of_cupy_arrays_and_of_a_model_on_the_gpu(rng):
    cupy = pytest.importorskip("cupy", reason="needs cupy")
    weight = torch.tensor(rng.standard_normal((4, 3)), device="cuda", requires_grad=True)

    def fn(z):
        return -((z.to("cuda") @ weight.mT) ** 2).sum(-1)

    q = rp.MultivariateNormalDiag(rng.standard_normal((5, 3)), np.ones((5, 3)))
    q_on_gpu = rp.MultivariateNormalDiag(cupy.asarray(q.loc), cupy.asarray(q.scale_diag))
    log_joint = rt.log_joint(fn, parameters=[weight])
    host = rp.elbo(q, log_joint, key=1, num_samples=4)
    gradient, weight.grad = weight.grad, None
    device = rp.elbo(q_on_gpu, log_joint, key=1, num_samples=4)
    torch.testing.assert_close(weight.grad, gradient, rtol=TOLERANCE, atol=TOLERANCE)
    assert isinstance(device.grad.loc, cupy.ndarray)
    np.testing.assert_allclose(device.value.get(), host.value, rtol=TOLERANCE)
    np.testing.assert_allclose(device.grad.loc.get(), host.grad.loc, rtol=TOLERANCE, atol=TOLERANCE)
