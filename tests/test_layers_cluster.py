"""Every layer case once more, on three real server processes: shares and sockets instead of plain values."""

import numpy as np
import pytest

from private_keras.cluster import LocalCluster
from private_keras.protocols.protocol import Cost
from private_keras.server.execute.account import account
from private_keras.tracing import trace
from tests.layer_cases import FAMILIES
from tests.layer_cases.simulated import BATCH, plain


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster() as cluster:
        yield cluster


@pytest.mark.parametrize("family", FAMILIES)
def test_family(cluster, family):
    """Errors stay below what each case allows, and the wire carries exactly what the plan was forecast to cost."""
    failures, largest = [], 0.0
    for case in FAMILIES[family]:
        model = case.model()
        arrays = case.inputs(model, BATCH)
        traced = trace(model, BATCH)
        inputs = {**traced.weights, **{spec.name: a for spec, a in zip(traced.inputs, arrays, strict=True)}}
        opened = cluster.run(traced.plan, inputs)
        forecast = sum(account(traced.plan, "trio"), Cost())
        run = cluster.stats.last
        if (run.rounds, run.bytes) != (forecast.rounds, forecast.bytes):
            failures.append(
                f"{case.name}: {run.rounds} rounds, {run.bytes} bytes; forecast {forecast.rounds}, {forecast.bytes}"
            )
        for name, expected in zip(traced.output_names, plain(model, arrays), strict=True):
            error = float(np.abs(opened[name] - expected.astype(np.float64)).max())
            largest = max(largest, error)
            if not (opened[name].shape == expected.shape and error <= case.tolerance):
                failures.append(f"{case.name}: {error:.2e}, allowed {case.tolerance:.0e}")
    print(f"{family}: {len(FAMILIES[family])} cases, largest error {largest:.1e}")
    assert not failures
