# SPDX-License-Identifier: MIT
"""Arrays whose events lie more than 2^31 elements apart, in a file that is all holes but for their pages."""

import numpy as np
import pytest

import reparam as rp

APART = 2**31 + 9  # elements, so more than 2^33 bytes
COUNT, D = 3, 5


@pytest.fixture(params=[1, -1], ids=["forwards", "backwards"])
def spread(request, tmp_path):
    """A function that copies an array to where its events lie far from each other, in the order of the parameter."""
    files = iter(range(100))

    def far(x):
        path = tmp_path / f"{next(files)}"
        with path.open("wb") as file:
            file.truncate((COUNT * APART + 64) * x.itemsize)
        memory = np.asarray(np.memmap(path, x.dtype, "r+"))
        strides = (APART * x.itemsize, *np.zeros(x.shape[1:], x.dtype).strides)
        made = np.lib.stride_tricks.as_strided(memory, x.shape, strides)[:: request.param]
        made[...] = x
        return made

    return far


@pytest.fixture(params=["float32", "float64"])
def problem(request):
    rng = np.random.default_rng(0)
    factor = np.tril(rng.standard_normal((COUNT, D, D))) + D * np.eye(D)
    arrays = (*rng.standard_normal((2, COUNT, D)), factor, rng.standard_normal(COUNT))
    return [x.astype(request.param) for x in arrays]  # value, loc, scale_tril, ct


@pytest.mark.parametrize("backend", [name for name in rp.backends() if ":" in name])
def test_events_far_apart_have_the_results_of_events_side_by_side(backend, spread, problem):
    value, loc, scale_tril, ct = problem
    cov = scale_tril @ scale_tril.transpose(0, 2, 1)
    with rp.backend(backend):
        out = spread(np.full_like(cov, 7))
        assert rp.cholesky(spread(cov), out=out) is out
        np.testing.assert_array_equal(out, rp.cholesky(cov))
        far = [spread(x) for x in problem]
        np.testing.assert_array_equal(
            rp.normal_tril_log_prob(*far[:3]), rp.normal_tril_log_prob(value, loc, scale_tril)
        )
        outs = tuple(spread(np.full_like(x, 7)) for x in (value, loc, scale_tril))
        rp.normal_tril_log_prob.vjp(*far, out=outs)
        for found, expected in zip(outs, rp.normal_tril_log_prob.vjp(value, loc, scale_tril, ct), strict=True):
            np.testing.assert_array_equal(found, expected)
