"""Single steps of a plan on stored shares."""

from collections.abc import Callable

from benchmarks.suite import data
from benchmarks.suite.work import PlanWork, Workload
from private_keras.cluster import Cluster
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.passes import optimise
from private_keras.tracing.curves import activation

FRACTION = 18


def _matmul(b: PlanBuilder, x: str, y: str) -> str:
    # As models and `pk.ops` write products that are truncated.
    return b.add("truncate", b.add("matmul", x, y, twice=True), bits=FRACTION + 1)


def _multiply(b: PlanBuilder, x: str, y: str) -> str:
    return b.add("truncate", b.add("multiply", x, y), bits=FRACTION)


def _one(op: str, **attributes) -> Callable[..., str]:
    return lambda b, x: b.add(op, x, **attributes)


LOWER: dict[str, tuple[str, Callable[..., str]]] = {
    "matmul-1024": ("matmul 1024 x 1024 x 1024", _matmul),
    "matmul-128": ("matmul 128 x 784 x 128", _matmul),
    "multiply": ("multiply with truncation, 10^6", _multiply),
    "truncate": ("truncation, 10^6", _one("truncate", bits=FRACTION)),
    "relu": ("ReLU, 10^6", _one("relu")),
    "max-pool": (
        "max-pool 2 x 2 over 128 x 24 x 24 x 20",
        _one("max_pool", window=[2, 2], strides=[2, 2], padding=[[0, 0], [0, 0]]),
    ),
    "sigmoid": (
        "sigmoid, 10^5",
        lambda b, x: b.add("spline", x, **activation("sigmoid").attributes(FRACTION)),
    ),
    "exp": ("exp, 10^5", _one("exp")),
    "reciprocal": ("reciprocal, 10^5", _one("reciprocal")),
    "sqrt": ("square root, 10^5", _one("sqrt")),
    "softmax": ("softmax, 1000 x 10", _one("softmax", axis=1)),
}


def _make(name: str) -> Callable[[Cluster, bool], PlanWork]:
    def make(cluster: Cluster, tiny: bool) -> PlanWork:
        function, arrays = data.PRIMITIVES[name][0], data.primitive(name, tiny)
        b = PlanBuilder()
        fraction = 2 * FRACTION if name == "truncate" else FRACTION
        names = [b.input(f"x{i}", array.shape, fraction, "client") for i, array in enumerate(arrays)]
        b.output(LOWER[name][1](b, *names), "y", ["client"])
        # Of kind "reveal", since a truncation by itself opens what went in.
        plan = optimise(b.build(name, "reveal"))
        inputs = dict(zip(names, arrays, strict=True))
        return PlanWork(cluster, plan, inputs, {"y": function(*arrays)}, lambda: function(*arrays))

    return make


WORKLOADS = [Workload(name, title, _make(name)) for name, (title, _) in LOWER.items()]
