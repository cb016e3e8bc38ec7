# SPDX-License-Identifier: MIT
"""Every row on pytest-benchmark: a group for a row, the answer asserted before it is timed.

With ``--benchmark-disable`` the rows are shrunk and nothing is timed: it is then a test that all of them run and agree.
JAX, whose pool of threads belongs to a process, takes part in ``reparam bench`` only.
"""

import pytest
from reparam._bench import answers, libraries, machine, table, timing
from reparam._bench.row import NO_LIMIT

FEW = 24  # events of a shrunk row


def pytest_generate_tests(metafunc):
    limit = FEW if metafunc.config.getoption("benchmark_disable") else NO_LIMIT
    cases = [
        pytest.param(row, contestant, id=f"{row.name}-{contestant.name}")
        for row in table.rows(limit)
        for contestant in row.contestants
        if contestant.home not in libraries.IN_WORKERS
    ]
    metafunc.parametrize(("row", "contestant"), cases)


@pytest.fixture(scope="module")
def last():
    """The inputs of the row that ran last."""
    return {}


@pytest.fixture
def inputs(row, last):
    if row.name not in last:
        last.clear()
        last[row.name] = row.inputs()
    return last[row.name]


def test_row(row, contestant, inputs, benchmark):
    benchmark.group = row.name
    for library in (contestant.library, row.needs):
        if library and not libraries.installed(library):
            pytest.skip(f"{library} is not installed")
    if row.memory > machine.available_bytes() / 2:
        pytest.skip("too little memory")
    libraries.restore_threads()
    ours = row.contestants[0]
    answers.check(
        row, inputs, [timing.Local(who, None, who.build(*inputs)) for who in dict.fromkeys([ours, contestant])]
    )
    benchmark(contestant.build(*inputs))
