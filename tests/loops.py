"""Plans that run for many steps, written by hand, with what NumPy says they give."""

import time

import numpy as np

from private_keras.cluster import Handle, PublicValue, Rows, SimulatedCluster
from private_keras.plan.builder import PlanBuilder


def sgd_plan(batch=8, features=4):
    """Linear regression: one step of gradient descent on w and b; the last step's loss and a count are results too."""
    b = PlanBuilder()
    x = b.input("x", (batch, features), 18, "client", "features")
    y = b.input("y", (batch, 1), 18, "client", "targets")
    w = b.input("w", (features, 1), 18, "client", "weights")
    bias = b.input("b", (), 18, "client", "bias")
    rate = b.input("rate", (), 18, "client", "learning rate", public=True)
    rows = b.input("count", (), 0, "client", "rows so far")
    guess = b.add("add", b.add("truncate", b.add("matmul", x, w), bits=18), b.add("reshape", bias, shape=[1, 1]))
    error = b.add("subtract", guess, y)
    by_w = b.add("truncate", b.add("matmul", b.add("transpose", x, axes=[1, 0]), error), bits=18)
    by_b = b.add("reduce_sum", error, axes=[0, 1], keepdims=False)
    for name, value, gradient in (("w", w, by_w), ("b", bias, by_b)):
        step = b.add("truncate", b.add("multiply", gradient, rate), bits=18)
        b.output(b.add("subtract", value, step), f"{name}/new", [], carry=name)
    b.output(b.add("add", rows, b.constant(np.int64(batch), 0)), "count/new", [], carry="count")
    squares = b.add("truncate", b.add("multiply", error, error), bits=18)
    b.output(b.add("reduce_sum", squares, axes=[0, 1], keepdims=False), "loss", ["client"])
    return b.build("sgd", "train")


class Regression:
    """Data for `sgd_plan`, and what floats give."""

    def __init__(self, steps=40, batch=8, features=4, rows=60, seed=0):
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(rows, features))
        self.y = self.x @ rng.normal(size=(features, 1)) + 0.5 + 0.01 * rng.normal(size=(rows, 1))
        self.rates = 0.02 * 0.98 ** np.arange(steps)
        self.indices = np.stack([rng.permutation(rows)[:batch] for _ in range(steps)])
        self.steps = steps
        self.batch = batch

    def floats(self, first=0, last=None, w=None, b=0.0):
        w, loss = np.zeros((self.x.shape[1], 1)) if w is None else w, 0.0
        for s in range(first, self.steps if last is None else last):
            x, error = self.x[self.indices[s]], self.x[self.indices[s]] @ w + b - self.y[self.indices[s]]
            w, b, loss = w - self.rates[s] * (x.T @ error), b - self.rates[s] * error.sum(), (error**2).sum()
        return w, b, loss


def reveal_plan(**kinds):
    """Opens its inputs; `kinds` gives shape and fraction by name."""
    b = PlanBuilder()
    for name, (shape, fraction) in kinds.items():
        b.output(b.input(name, shape, fraction, "client"), name, ["client"])
    return b.build("reveal", "reveal")


def revealed(cluster, handles):
    """What is behind handles, by name."""
    names = {f"r{i}": name for i, name in enumerate(handles)}
    plan = reveal_plan(**{key: (handles[name].shape, handles[name].fraction) for key, name in names.items()})
    opened = cluster.run(plan, {key: handles[name] for key, name in names.items()})
    return {name: opened[key] for key, name in names.items()}


def counting_plan(rows=3, width=2):
    """Exact: total' = total + c * sum of rows; last' = the rows."""
    b = PlanBuilder()
    x = b.input("x", (rows, width), 0, "client")
    total = b.input("total", (width,), 0, "client")
    c = b.input("c", (width,), 0, "client", public=True)
    part = b.add("multiply", b.add("reduce_sum", x, axes=[0], keepdims=False), c)
    b.output(b.add("add", total, part), "total/new", [], carry="total")
    b.output(x, "rows", [])
    b.output(total, "before", ["client"])
    return b.build("counting", "compute")


def stored(cluster):
    if isinstance(cluster, SimulatedCluster):
        return [len(cluster._stored)]
    return [client.health().stored_bytes for client in cluster._clients]


class Held:
    """Handles that are deleted at the end of a block, after which the servers must hold what they held before.

    After an error in the block a client lets servers forget what they keep, without waiting long for a slow one.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self.handles = []

    def __enter__(self):
        self.before = stored(self.cluster)
        return self

    def share(self, values, fraction=18):
        return self.own(self.cluster.share(values, fraction, "shared"))

    def own(self, result):
        found = [result] if isinstance(result, Handle) else [h for h in result.values() if isinstance(h, Handle)]
        self.handles += found
        return result

    def __exit__(self, kind, *_):
        for handle in self.handles:
            self.cluster.delete(handle)
        deadline = time.monotonic() + 60
        while not kind and (now := stored(self.cluster)) != self.before:
            assert time.monotonic() < deadline, (now, self.before)
            time.sleep(0.01)


def quiet(cluster):
    """Waits until no server runs a job."""
    deadline = time.monotonic() + 60
    while not isinstance(cluster, SimulatedCluster) and any(c.health().jobs for c in cluster._clients):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sgd_inputs(data, x, y, first=0, last=None, w=None, b=0.0, count=0):
    rows = data.indices[first : data.steps if last is None else last]
    return {
        "x": Rows(x, rows),
        "y": Rows(y, rows),
        "w": np.zeros((data.x.shape[1], 1)) if w is None else w,
        "b": b,
        "count": count,
        "rate": PublicValue(data.rates[first : data.steps if last is None else last]),
    }
