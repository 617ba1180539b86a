"""Servers as real processes for tests: over TLS on loopback, with certificates; plans to run on them."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.networks.links import free_ports
from private_keras.cluster import NetworkCluster
from private_keras.cluster.keys import make_keys
from private_keras.plan.builder import PlanBuilder
from private_keras.server.config import ClusterConfig, ServerAddress, read_config
from private_keras.server.contents import InMemory
from private_keras.server.outbox import Outbox
from private_keras.server.oversight import Oversight
from private_keras.server.saving import Saving
from private_keras.server.wire import messages_pb2 as wire

ROOT = Path(__file__).resolve().parent.parent


def dense_plan(batch=4, units=3, features=8, layers=1, kind="predict", name="dense"):
    """relu(x w), `layers` times relu."""
    b = PlanBuilder()
    b.input("x", (batch, features), fraction=18, owner="client", label="images")
    b.input("w", (features, units), fraction=18, owner="client", label="dense/kernel")
    y = b.add("relu", b.add("matmul", "x", "w", layer="dense"), layer="dense", truncate=18)
    for _ in range(layers - 1):
        y = b.add("relu", y, layer="more", truncate=0)
    b.output(y, "y", ["client"])
    return b.build(name, kind)


def layer(receivers=("client",), kind="predict", owner="hospital", rows=6, value="layer"):
    """x w on rows of an owner; or their sum over all rows, "mean"; or, "raw", the rows themselves."""
    b = PlanBuilder()
    b.input("x", (rows, 4), 18, owner)
    b.input("w", (4, 2), 18, "client")
    y = b.add("truncate", b.add("matmul", "x", "w"), bits=18)
    if value == "mean":
        y = b.add("reduce_sum", y, axes=[0])
    b.output("x" if value == "raw" else y, "y", list(receivers))
    return b.build(f"{value} of patients", kind)


def long_plan(steps=3000):
    """A job of some seconds: many comparisons, one after the other."""
    return dense_plan(batch=64, units=64, layers=steps, name="long")


def endless_plan():
    """A job of many seconds, for tests that end it before."""
    return dense_plan(batch=256, units=256, layers=1500, name="endless")


def held_back(client, released):
    """A client's `run` whose jobs begin at its server, and go on when `released` is set: their material comes then.

    The other servers wait for such a job as long as for any peer.
    """

    def run(requests, seconds, short):
        (request,) = requests
        rest = wire.RunRequest(pieces=request.pieces)
        del request.pieces[:]

        def both():
            yield request
            released.wait(100)
            yield rest

        return client._calls_to("Run")["stream_stream"](both(), timeout=seconds)

    return run


def dense_data(batch=4, units=3, features=8, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(batch, features)), "w": rng.normal(size=(features, units))}


def overseeing(catalogue, store, config):
    """A server's oversight without the server; results for others are in memory."""
    return Oversight("server0", catalogue, store, Outbox(catalogue, InMemory(store)), config, None)


def saving_of(storage, store, kernel, clients=None):
    """What a server of party 0 answers about named shares, without the server."""
    servers = tuple(ServerAddress(f"server{i}", f"127.0.0.1:{i}", f"127.0.0.1:{i + 3}") for i in range(3))
    config = ClusterConfig("trio", servers, clients)
    return Saving(storage, store, kernel, overseeing(storage.catalogue, store, config))


class TlsServers:
    """Three server processes on loopback and the description that clients need; a context manager.

    Args:
        roles: by name, of clients that have not all of them.
        operators: of the first servers.
        storage: whether the servers keep what is saved, in `directory`.
    """

    def __init__(self, directory: Path, clients=("analyst", "other"), roles=None, operators=(), storage=False):
        self.directory = directory
        self.storage = directory / "storage" if storage else None
        names = ["server0", "server1", "server2"]
        self.pins = make_keys(directory / "keys", [*names, *clients])
        ports = free_ports(6)
        self.content = {
            "protocol": "trio",
            "servers": [
                {
                    "name": name,
                    "control": f"127.0.0.1:{ports[i]}",
                    "data": f"127.0.0.1:{ports[i + 3]}",
                    "certificate": self.pins[name],
                }
                for i, name in enumerate(names)
            ],
            "clients": {name: {} for name in clients if name not in (roles or {})},
            "parties": {name: {"roles": list(held)} for name, held in (roles or {}).items()},
        }
        for server, operator in zip(self.content["servers"], operators, strict=False):
            server["operator"] = operator
        self.config = self.write("cluster.json", self.content)
        self.processes: dict[int, subprocess.Popen] = {}

    def write(self, name, content):
        path = self.directory / name
        path.write_text(json.dumps(content))
        return path

    def start(self, party, config=None, storage=None, *more):
        log = open(self.directory / f"server{party}.log", "ab")
        given = ["--config", str(config or self.config), "--party", str(party)]
        storage = storage or self.storage
        given += ["--storage", str(storage)] if storage else []
        given += more
        with log:
            self.processes[party] = subprocess.Popen(
                [sys.executable, "-m", "private_keras", "serve", *given], stdout=log, stderr=log, cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip

    def log(self, party):
        path = self.directory / f"server{party}.log"
        return path.read_text() if path.exists() else ""

    def wait_listening(self, party, seconds=60, starts=1):
        deadline = time.monotonic() + seconds
        while self.log(party).count('"server started"') < starts:
            assert self.processes[party].poll() is None, self.log(party)
            assert time.monotonic() < deadline, self.log(party)
            time.sleep(0.02)

    def stop(self, party):
        process = self.processes.pop(party)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return process.returncode

    def __enter__(self):
        for party in range(3):
            self.start(party)
        for party in range(3):
            self.wait_listening(party)
        return self

    def __exit__(self, *_):
        for party in list(self.processes):
            self.stop(party)


@contextmanager
def connected(servers, names):
    """Clients of these names, each with its certificate."""
    clusters = {name: NetworkCluster(read_config(servers.config), name) for name in names}
    try:
        for cluster in clusters.values():
            cluster.connect(60)
        yield clusters
    finally:
        for cluster in clusters.values():
            cluster.close()
