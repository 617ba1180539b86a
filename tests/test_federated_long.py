"""Ten owners of digits, split unevenly by number and by class, twenty rounds, two of the owners gone in each.

    pytest -m long tests/test_federated_long.py -s     # prints accuracies, seconds and bytes

Real servers over TLS, each owner with its own certificate; owners are threads, so that one machine can hold them.
"""

import importlib.util
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from private_keras.cluster.cluster import NetworkCluster
from private_keras.federated import Client, Server
from private_keras.server.config import read_config
from tests.clusters import TlsServers
from tests.federation import together

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "federated_digits.py"
OWNERS, ROUNDS, GONE = 10, 20, 2
EPOCHS, BATCH = 5, 8


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    spec = importlib.util.spec_from_file_location("federated_digits", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Dropping(Client):
    """An owner whose host is down in some rounds, from before it trains until the round is over."""

    down: frozenset = frozenset()

    def _train(self, current, *rest):
        if current.number in self.down:
            return np.zeros(sum(current.sizes)), {"loss": float("nan")}
        return super()._train(current, *rest)

    def _share(self, current, step):
        return "this owner's host is down" if current.number in self.down else super()._share(current, step)

    def _say(self, current, reason):
        self.refusals.append(reason)  # without a warning, which threads would have to filter


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_accuracy_is_within_one_point_of_training_in_one_place(tmp_path, example):
    private, everything, test = example.digits(OWNERS)
    names = example.names(OWNERS)
    rng = np.random.default_rng(1)
    gone = [rng.choice(OWNERS, GONE, replace=False) for _ in range(ROUNDS)]
    keras.utils.set_random_seed(0)
    model, central = example.network(), example.network()
    central.set_weights(model.get_weights())
    with TlsServers(tmp_path, ("model-owner", *names), storage=True) as servers:
        clusters = {name: NetworkCluster(read_config(servers.config), name) for name in ("model-owner", *names)}
        try:
            for cluster in clusters.values():
                cluster.connect()
            server = Server(
                model, names, "digits", minimum=OWNERS - GONE, enough=OWNERS - GONE, deadline=300, validation_data=test,
                optimizer=keras.optimizers.SGD(1.0, momentum=0.5), cluster=clusters["model-owner"],
            )
            clients = []
            for index, (name, data) in enumerate(zip(names, private, strict=True)):
                client = Dropping("model-owner/digits", data, example.network, cluster=clusters[name])
                client.down = frozenset(number for number in range(ROUNDS) if index in gone[number])
                clients.append(client)
            began = time.monotonic()
            history, *_ = together(
                lambda: server.fit(ROUNDS),
                *(lambda c=c: c.fit(epochs=EPOCHS, batch_size=BATCH) for c in clients), seconds=3000,
            )  # fmt: skip
            seconds = time.monotonic() - began
            traffic = clusters["model-owner"].stats.total
        finally:
            for cluster in clusters.values():
                cluster.close()
    assert history.history["owners"] == [OWNERS - GONE] * ROUNDS
    epochs = ROUNDS * EPOCHS * (OWNERS - GONE) // OWNERS
    central.fit(*everything, epochs=epochs, batch_size=BATCH, verbose=0)
    accuracies = history.history["val_accuracy"][-1], central.evaluate(*test, verbose=0)[1]
    print(f"\nfederated {accuracies[0]:.4f}, in one place {accuracies[1]:.4f} ({epochs} epochs); owners have "
          f"{sorted(len(y) for _, y in private)} digits; {seconds:.0f} s, of which servers {traffic.computing:.1f} s; "
          f"{traffic.bytes / ROUNDS / 1e6:.2f} MB a round between servers")  # fmt: skip
    assert accuracies[0] > accuracies[1] - 0.01


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_party_a_process_of_its_own(tmp_path, example, capsys):
    """The example, in two rounds with three owners."""
    example.main(tmp_path, rounds=2, owners=3)
    printed = capsys.readouterr().out
    assert "round 2/2: 3 of 3 owners, val_accuracy" in printed
    assert (tmp_path / "federated_digits.png").read_bytes().startswith(b"\x89PNG")
    federated, central = (
        float(line.split()[-1]) for line in printed.splitlines()
        if line.startswith(("accuracy, federated", "accuracy, in one place"))
    )  # fmt: skip
    assert federated > 0.7 and central > 0.9
