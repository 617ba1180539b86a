"""Whatever arrives, a server gets a valid plan or a PlanError: no other exception, no hang, no large allocation."""

import copy
import json
import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.passes import optimise
from private_keras.plan.plan import Plan
from private_keras.plan.primitives import TABLE
from tests.plan_zoo import CASES

DOCUMENTS = [json.loads(case.plan().to_json()) for case in CASES.values()]
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([2**28, 2**28 + 1, -(2**28), 2**62, 2**63, 2**64, 10**40, -1, 0]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        ["x", "w", "v0", "v1", "client", "", "../..", "__class__", "a" * 300, "\n", "\x1b[0m", "\u202e", *TABLE]
    ),
)
ANY = st.recursive(
    NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def accept(text: str | bytes) -> None:
    """Reads a plan; what is accepted must be usable in every way."""
    try:
        plan = Plan.from_json(text)
    except PlanError as error:
        assert len(str(error)) < 3000
        assert str(error).isprintable()
        return
    assert Plan.from_json(plan.to_json()) == plan
    for kind in plan.types.values():
        assert kind.size <= limits.MAX_ELEMENTS and 0 <= kind.fraction <= limits.MAX_FRACTION
    assert plan.digest in plan.describe()
    assert optimise(plan).types.keys() >= {item.name for item in plan.inputs}


def places(value, path=()):
    """Paths to everything in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def at(document, path):
    for key in path:
        document = document[key]
    return document


def nudged(value, document, data):
    """Something of the same kind, so that a good part of the plans is still valid."""
    if isinstance(value, int):
        return value + data.draw(st.sampled_from([-1, 1, 2, 8]))
    if isinstance(value, str):
        texts = [at(document, path) for path in places(document)]
        return data.draw(st.sampled_from([text for text in texts if isinstance(text, str)]))
    if isinstance(value, list):
        return data.draw(st.permutations(value)) if len(value) < 20 else value[::-1]
    return value


@QUICK
@given(ANY)
def test_random_json(value):
    accept(json.dumps(value))


@QUICK
@given(st.binary(max_size=200))
def test_random_bytes(data):
    accept(data)


@settings(QUICK, max_examples=600)
@given(st.data())
def test_changed_plans(data):
    document = copy.deepcopy(data.draw(st.sampled_from(DOCUMENTS)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([p for p in places(document) if p]))
        parent = at(document, path[:-1])
        change = data.draw(st.sampled_from(["nudge"] * 6 + ["replace", "delete", "double", "copy"]))
        if change == "nudge":
            parent[path[-1]] = nudged(parent[path[-1]], document, data)
        elif change == "replace":
            parent[path[-1]] = data.draw(ANY)
        elif change == "copy":
            parent[path[-1]] = copy.deepcopy(at(document, data.draw(st.sampled_from(list(places(document))))))
        elif change == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            del parent[path[-1]]
    accept(json.dumps(document))


@settings(QUICK, max_examples=300)
@given(st.sampled_from(sorted(TABLE)), st.data())
def test_random_attributes_and_operands(op, data):
    """Steps with the right attribute names and all kinds of values, on operands of all kinds of shapes."""
    shapes = st.lists(st.sampled_from([1, 2, 3, 4, 2**13, 2**27]), max_size=5)
    inputs = [
        {
            "name": f"x{i}",
            "shape": data.draw(shapes),
            "fraction": data.draw(st.sampled_from([0, 1, 18, 36, 58])),
            "owner": "c",
        }
        for i in range(3)
    ]
    values = st.one_of(
        st.integers(-2, 9),
        st.booleans(),
        st.lists(st.integers(0, 5), max_size=5),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**28)), max_size=3),
    )
    attributes = {name: data.draw(values) for name in TABLE[op].attributes}
    low, high = TABLE[op].arity
    operands = [f"x{i}" for i in range(data.draw(st.integers(low, min(high, 3))))]
    document = {
        "format": "private_keras.plan/1",
        "name": "",
        "kind": "reveal",
        "inputs": inputs,
        "steps": [{"op": op, "inputs": operands, "output": "y", "attributes": attributes}],
        "outputs": [{"value": "y", "name": "y", "receivers": ["c"]}],
    }
    accept(json.dumps(document))


def test_changed_text():
    random_ = random.Random(5)
    texts = [json.dumps(document) for document in DOCUMENTS]
    for _ in range(1000):
        text = list(random_.choice(texts))
        for _ in range(random_.randint(1, 4)):
            i = random_.randrange(len(text))
            text[i : i + random_.choice([0, 1, 1, 5, 50])] = random_.choice(
                ["", "0", "9", '"', "[", "]", "{", "}", ",", ":", "-", "e"]
            )
        accept("".join(text))


HUGE = 2**28


@pytest.mark.parametrize(
    ("op", "attributes", "shape"),
    [
        ("pad", {"padding": [[HUGE, HUGE]]}, [4]),
        ("broadcast", {"shape": [2**20, 2**20]}, [1]),
        ("broadcast", {"shape": [HUGE]}, [1]),
        ("one_hot", {"depth": 2**20}, [2**10]),
        ("constant", {"values": "", "shape": [HUGE], "fraction": 0}, None),
        ("gather", {"axis": 0, "indices": [0] * 10_000}, [1, 2**20]),
        ("slice", {"start": [-HUGE], "stop": [HUGE], "step": [1]}, [HUGE]),
        ("max_pool", {"window": [HUGE], "strides": [1], "padding": [[HUGE - 1, HUGE - 1]]}, [1, 4, 1]),
        ("sum_pool", {"window": [1], "strides": [HUGE], "padding": [[HUGE, HUGE]]}, [1, 4, 1]),
        ("reshape", {"shape": [2**40]}, [4]),
        ("transpose", {"axes": [0] * 8}, [4]),
    ],
)
def test_nothing_large_is_allocated_to_find_out(op, attributes, shape):
    document = {
        "format": "private_keras.plan/1",
        "name": "",
        "kind": "predict",
        "inputs": [{"name": "x", "shape": shape or [1], "fraction": 0, "owner": "c"}],
        "steps": [{"op": op, "inputs": ["x"] if shape else [], "output": "y", "attributes": attributes}],
        "outputs": [{"value": "y", "name": "y", "receivers": ["c"]}],
    }
    text = json.dumps(document)
    tracemalloc.start()
    accept(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_long_chains_do_not_recurse():
    steps = [{"op": "negate", "inputs": [f"y{i - 1}" if i else "x"], "output": f"y{i}"} for i in range(5_000)]
    document = {
        "format": "private_keras.plan/1",
        "name": "",
        "kind": "predict",
        "inputs": [{"name": "x", "shape": [2], "fraction": 0, "owner": "c"}],
        "steps": steps,
        "outputs": [{"value": "y4999", "name": "y", "receivers": ["c"]}],
    }
    accept(json.dumps(document))
