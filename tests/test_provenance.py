"""What outputs show of inputs: nothing is forgotten, and the plain ways to dress an input up are seen through."""

import numpy as np
import pytest

from private_keras.errors import PlanError
from private_keras.plan import provenance
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.primitives import TABLE
from private_keras.plan.provenance import Level
from private_keras.plan.provenance import trace as traced
from private_keras.plan.provenance.rules import RULES
from private_keras.plan.records import Step
from private_keras.plan.reference import MEANINGS, At
from tests.plan_zoo import CASES

F = 18
N = 6


def trace(*given):
    """Levels alone."""
    return {name: {key: s.level for key, s in shown.items()} for name, shown in traced(*given).items()}


def builder():
    """Data of somebody else, and what whoever writes the plan brings along."""
    b = PlanBuilder()
    b.input("x", (N, 4), F, "hospital")
    b.input("own", (N, 4), F, "client")
    b.input("square", (4, 4), F, "client")
    b.input("bit", (N, 1), 0, "client")
    b.input("rate", (), F, "client", public=True)
    return b


def ones(b, *shape):
    return b.constant(np.ones(shape, np.int64) << F, F)


def level(b, value, rows=("x",), held=None):
    b.output(value, "y", [])
    shown = trace(b.build("p", "compute"), held or {"x": {"x": Level.RAW}}, rows)
    return shown["y"].get("x")


def one_row(b, x="x", row=0):
    return b.add("slice", x, start=[row, 0], stop=[row + 1, 4], step=[1, 1])


RAW = {
    "itself": lambda b: "x",
    "turned over": lambda b: b.add("transpose", b.add("negate", b.add("reshape", "x", shape=[4, N])), axes=[1, 0]),
    "a column": lambda b: b.add("reduce_sum", b.add("multiply", "x", ones(b, 4)), axes=[1]),
    "times an own one": lambda b: b.add("multiply", "x", "own"),
    "times a public number": lambda b: b.add("rescale", "x", "rate", bits=18),
    "plus an own secret": lambda b: b.add("add", "x", "own"),
    "an own bit's choice": lambda b: b.add("select", "bit", "x", "own"),
    "a choice by it": lambda b: b.add("select", b.add("less", "x", ones(b)), "own", ones(b)),
    "above an own number": lambda b: b.add("maximum", "x", "own"),
    "below an own number": lambda b: b.add("minimum", "own", "x"),
    "a threshold": lambda b: b.add("greater_equal", "x", "own"),
    "gate": lambda b: b.add("gate", "x", "own"),
    "sign": lambda b: b.add("sign", "x"),
    "exp": lambda b: b.add("exp", "x"),
    "relu": lambda b: b.add("relu", "x"),
    "softmax": lambda b: b.add("softmax", "x", axis=1),
    "softmax over rows": lambda b: b.add("softmax", "x", axis=0),
    "one hot": lambda b: b.add("one_hot", b.add("truncate", "x", bits=F), depth=4),
    "its square": lambda b: b.add("multiply", "x", "x"),
    "public matrix": lambda b: b.add("matmul", "x", ones(b, 4, 2)),
    "public rows": lambda b: b.add("matmul", ones(b, 1, N), "x"),
    "one term of a product": lambda b: b.add("matmul", b.add("reshape", "x", shape=[4 * N, 1]), one_row(b, "own")),
    "public convolution": lambda b: b.add(
        "conv", b.add("reshape", "x", shape=[N, 4, 1]), ones(b, 2, 1, 1), strides=[1], padding=[[0, 0]], dilation=[1],
        input_dilation=[1],
    ),
    "a sum of one": lambda b: b.add("reduce_sum", one_row(b), axes=[0]),
    "sums of some rows": lambda b: b.add("reduce_sum", b.add("gather", "x", axis=0, indices=[0, 2]), axes=[0]),
    "sums of slices": lambda b: b.add(
        "concatenate", *(b.add("reduce_sum", one_row(b, row=i), axes=[0]) for i in range(N)), axis=0
    ),
    "rows of a public choice": lambda b: b.add(
        "reduce_sum", b.add("multiply", "x", b.constant(np.eye(N, 1, dtype=np.int64), 0)), axes=[0]
    ),
    "rows of an own choice": lambda b: b.add("reduce_sum", b.add("multiply", "x", "own"), axes=[0]),
    "rows above an own number": lambda b: b.add("reduce_sum", b.add("maximum", "x", "own"), axes=[0]),
    "rows above an own number, by a relu": lambda b: b.add(
        "reduce_sum", b.add("relu", b.add("negate", b.add("subtract", "own", "x"))), axes=[0]
    ),
    "its distance from own numbers": lambda b: b.add(
        "reduce_sum", b.add("multiply", b.add("subtract", "x", "own"), b.add("subtract", "x", "own")), axes=[0]
    ),
    "the largest after own numbers were added": lambda b: b.add("reduce_max", b.add("add", "x", "own"), axis=0),
    "the largest of a row after that": lambda b: b.add(
        "reduce_sum", b.add("reduce_max", b.add("add", "x", "own"), axis=1), axes=[0]
    ),
    "the largest of a row": lambda b: b.add("reduce_max", "x", axis=1),
    "which is the largest": lambda b: b.add("argmax", "x", axis=1),
    "pooled": lambda b: b.add(
        "max_pool", b.add("reshape", "x", shape=[1, N, 4]), window=[2], strides=[1], padding=[[0, 0]]
    ),
    "less its mean": lambda b: b.add("subtract", "x", b.add("reduce_sum", "x", axes=[0])),
    "beside its mean": lambda b: b.add("concatenate", b.add("reduce_sum", "x", axes=[0], keepdims=True), "x", axis=0),
    "times zero": lambda b: b.add("multiply", "x", b.constant(np.zeros((), np.int64), F)),
    "some of a mixed axis": lambda b: b.add(
        "reduce_sum", b.add("slice", b.add("reshape", "x", shape=[4 * N]), start=[0], stop=[4], step=[1]), axes=[0]
    ),
    "columns that look like rows": lambda b: b.add("reduce_sum", b.add("transpose", "x", axes=[1, 0]), axes=[0]),
    "groups that look like rows": lambda b: b.add("reduce_sum", b.add("reshape", "x", shape=[4, N]), axes=[0]),
}
ROWS = {
    "a layer": lambda b: b.add("matmul", "x", "square"),
    "an activation": lambda b: b.add("relu", b.add("matmul", "x", "square")),
    "a layer plus the rows": lambda b: b.add("reduce_sum", b.add("matmul", "x", "square"), axes=[1]),
}
REDUCED = {
    "the mean": lambda b: b.add("reduce_sum", "x", axes=[0]),
    "the sum": lambda b: b.add("reduce_sum", b.add("reduce_sum", "x", axes=[1]), axes=[0]),
    "all at once": lambda b: b.add("reduce_sum", b.add("reshape", "x", shape=[4 * N]), axes=[0]),
    "through a merged axis": lambda b: b.add(
        "reduce_sum", b.add("reshape", b.add("reshape", "x", shape=[2 * N, 2]), shape=[N, 4]), axes=[0]
    ),
    "the largest of all": lambda b: b.add("reduce_max", "x", axis=0),
    "a loss": lambda b: b.add("reduce_sum", b.add("matmul", "x", "square"), axes=[0, 1]),
    "a weighed loss": lambda b: b.add(
        "reduce_sum", b.add("multiply", b.add("truncate", b.add("matmul", "x", "square"), bits=F), "own"), axes=[0]
    ),
    "a gradient": lambda b: b.add(
        "matmul", b.add("transpose", "x", axes=[1, 0]),
        b.add("subtract", b.add("matmul", "x", "square"), b.add("shift", "own", bits=F)),
    ),
    "the mean difference from own numbers": lambda b: b.add(
        "reduce_sum", b.add("multiply", b.add("subtract", "x", "own"), ones(b)), axes=[0]
    ),
    "the mean square after a public number was added": lambda b: b.add(
        "reduce_sum", b.add("multiply", b.add("add", "x", ones(b)), b.add("add", "x", ones(b))), axes=[0]
    ),
    "turned rows": lambda b: b.add("reduce_sum", b.add("gather", "x", axis=0, indices=list(range(N))[::-1]), axes=[0]),
    "with rows of others": lambda b: b.add("reduce_sum", b.add("concatenate", "own", "x", axis=0), axes=[0]),
    "what is made of a mean": lambda b: b.add("matmul", b.add("reduce_sum", "x", axes=[0], keepdims=True), "square"),
    "a kernel's gradient": lambda b: b.add(
        "conv", b.add("reshape", b.add("transpose", "x", axes=[1, 0]), shape=[1, 4, N]),
        b.add("reshape", b.add("transpose", b.add("matmul", "x", "square"), axes=[1, 0]), shape=[4, N, 1]),
        strides=[1], padding=[[0, 0]], dilation=[1], input_dilation=[1],
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_an_input_is_recognised_in_every_dress(name):
    b = builder()
    assert level(b, RAW[name](b)) is Level.RAW


@pytest.mark.parametrize("name", ROWS)
def test_layers_mix_an_input_with_secrets(name):
    b = builder()
    assert level(b, ROWS[name](b)) is Level.ROWS


@pytest.mark.parametrize("name", REDUCED)
def test_what_is_reduced_over_all_rows(name):
    b = builder()
    assert level(b, REDUCED[name](b)) is Level.REDUCED


@pytest.mark.parametrize("name", REDUCED)
def test_nothing_is_reduced_whose_rows_are_not_known(name):
    """Of what was kept before, the first axis may be columns."""
    b = builder()
    assert level(b, REDUCED[name](b), rows=()) > Level.REDUCED


def test_what_has_one_row_is_not_reduced_until_more_are_added():
    def plan(state):
        b = PlanBuilder()
        b.input("x", (1, 4), F, "hospital")
        b.input("w", (4, 1), F, "client")
        b.input("total", (), 2 * F, "client")
        loss = b.add("reduce_sum", b.add("matmul", "x", "w"), axes=[0, 1])
        held = {"x": {"x": Level.RAW}, "total": {"x": state} if state else {}}
        return level(b, b.add("add", "total", loss), held=held)

    assert plan(None) is Level.ROWS
    assert plan(Level.REDUCED) is Level.REDUCED
    assert plan(Level.ROWS) is Level.ROWS


def test_vectors_that_are_joined_and_taken_apart_again():
    """As passes do it, to truncate several values at once."""
    b = builder()
    parts = [b.add("matmul", "x", "square"), b.add("multiply", "own", "own")]
    flat = [b.add("reshape", part, shape=[4 * N]) for part in parts]
    both = b.add("relu", b.add("truncate", b.add("concatenate", *flat, axis=0), bits=F))
    both = b.add("multiply", both, b.add("concatenate", *(b.add("truncate", f, bits=F) for f in flat), axis=0))
    own, other, across = (
        b.add("slice", both, start=[start], stop=[start + 4 * N], step=[1]) for start in (0, 4 * N, 3)
    )
    loss = b.add("reduce_sum", b.add("reshape", own, shape=[N, 4]), axes=[0])
    for name, value in {"loss": loss, "own": own, "other": other, "across": across, "both": both}.items():
        b.output(value, name, [])
    shown = trace(b.build("p", "compute"), {"x": {"x": Level.RAW}}, ["x"])
    assert shown["loss"] == {"x": Level.REDUCED}
    assert shown["own"] == shown["across"] == shown["both"] == {"x": Level.ROWS}
    assert shown["other"] == {}


STRETCHED = {
    "broadcast": lambda b, v: b.add("broadcast", v, shape=[2]),
    "by a sum": lambda b, v: b.add("add", v, b.constant(np.zeros(2, np.int64), F)),
    "by a choice": lambda b, v: b.add("select", b.constant(np.ones(2, np.int64), 0), v, v),
    "by a sum with what is joined": lambda b, v: b.add(
        "add", v, b.add("concatenate", *(b.add("slice", "own", start=[0], stop=[1], step=[1]) for _ in "12"), axis=0)
    ),
}


@pytest.mark.parametrize("how", STRETCHED)
def test_a_vector_of_one_that_is_joined_and_stretched(how):
    """What it is stretched to depends on it everywhere, and not at its first element alone."""
    b = PlanBuilder()
    b.input("x", (N,), F, "hospital")
    b.input("own", (N,), F, "client")
    one = b.add("concatenate", b.add("slice", "x", start=[3], stop=[4], step=[1]), axis=0)
    assert level(b, b.add("slice", STRETCHED[how](b, one), start=[1], stop=[2], step=[1])) is Level.RAW


def test_vectors_that_are_joined_and_are_no_vectors_any_more():
    b = PlanBuilder()
    b.input("x", (N,), 0, "hospital")
    hot = b.add("one_hot", b.add("concatenate", "x", axis=0), depth=4)
    twice = b.add("concatenate", hot, hot, axis=0)
    assert level(b, b.add("slice", twice, start=[N, 0], stop=[2 * N, 4], step=[1, 1])) is Level.RAW


def beside_own():
    """A vector of one's own with rows of somebody else behind it, each of N elements."""
    b = PlanBuilder()
    for name, size in {"x": N, "own": N, "all": 2 * N, "pick": 2 * N}.items():
        b.input(name, (size,), F, "somebody")
    return b, b.add("concatenate", "own", "x", axis=0)


def part(b, v, start=0):
    return b.add("slice", v, start=[start], stop=[start + N], step=[1])


@pytest.mark.parametrize("held", Level)
@pytest.mark.parametrize("how", ["sum", "choice", "carried"])
def test_what_is_added_to_a_joined_vector_is_in_each_of_its_pieces(held, how):
    """Of one source: rows in the one piece, and weights or what is reduced, or nobody knows where, in all."""
    b, both = beside_own()
    if how == "carried":
        b.output(b.add("add", both, "all"), "state", [], carry="pick")
        both = "pick"
    elif how == "choice":
        both = b.add("select", b.add("less", both, "pick"), both, "all")
    else:
        both = b.add("add", both, b.add("add", "all", "pick"))
    b.output(part(b, both), "y", [])
    shown = trace(b.build("p", "compute"), {"x": {"x": Level.RAW}, "all": {"x": held}}, ["x", "own", "pick"])
    assert "x" in shown["y"]


def test_rows_of_a_joined_vector_that_an_own_vector_chooses():
    """Taken out of it again, they are those that were chosen, and their sum may be one of them."""
    for chosen in ("multiply", "maximum"):
        b, both = beside_own()
        assert level(b, b.add("reduce_sum", part(b, both, N), axes=[0]), ["x", "own"]) is Level.REDUCED
        b, both = beside_own()
        chosen = b.add(chosen, both, "pick")
        assert level(b, b.add("reduce_sum", part(b, chosen, N), axes=[0]), ["x", "own", "pick"]) is Level.RAW


def test_vectors_that_are_joined_with_themselves_again_and_again():
    b = PlanBuilder()
    value = b.input("x", (1,), 18, "owner")
    for _ in range(28):  # 2^28 pieces, if each were told apart
        value = b.add("concatenate", value, value, axis=0)
    b.output(b.add("relu", b.add("add", value, value)), "y", [])
    assert traced(b.build("p", "predict"), {"x": {"s": Level.RAW}}, [])["y"]["s"].level is Level.RAW


def test_a_plan_that_would_take_minutes_to_judge_is_refused(monkeypatch):
    monkeypatch.setattr(provenance, "MOST_WORK", 1 << 12)
    b = PlanBuilder()
    for i in range(100):  # each step carries on by one place: as many passes as places
        b.input(f"c{i}", (1,), 18, "client")
    for i in range(99):
        b.output(f"c{i}", f"o{i}", [], carry=f"c{i + 1}")
    b.output("c99", "y", [])
    plan = b.build("p", "train")
    with pytest.raises(PlanError, match="smaller plan"):
        traced(plan, {"c0": {"s": Level.RAW}}, [])
    assert not traced(plan, {}, [])["y"]


def test_many_sources_in_many_parts_are_counted(monkeypatch):
    """As often as they are looked at: each source in each part, where these are told apart, and in each output."""
    monkeypatch.setattr(provenance, "MOST_WORK", 1 << 12)

    def join(count, *more):
        b = PlanBuilder()
        parts = [b.input(f"x{i}", (1, *more), 18, "client") for i in range(count)]
        b.output(b.add("concatenate", *parts, axis=0), "y", [])
        return traced(b.build("p", "train"), {name: {name: Level.RAW} for name in parts}, [])["y"]

    with pytest.raises(PlanError, match="smaller plan"):
        join(100)
    assert len(join(100, 1)) == 100  # each part is looked at once
    assert len(join(300)) == 300  # too many to be told apart
    b = PlanBuilder()
    for i in range(100):
        b.output("x", f"y{i}", []) if i else b.output(b.input("x", (1,), 18, "client"), "y0", [])
    with pytest.raises(PlanError, match="smaller plan"):
        traced(b.build("p", "train"), {"x": dict.fromkeys(range(100), Level.RAW)}, [])


def test_what_others_show_is_handed_on():
    b = builder()
    held = {"x": {"x": Level.ROWS}, "own": {"x": Level.REDUCED}}
    assert level(b, "own", held=held) is Level.REDUCED
    b = builder()
    assert level(b, b.add("add", "own", "x"), held=held) is Level.ROWS


def model(held, kind="predict", x=(N, 4), last=lambda b, y: y):
    """A layer with a bias, and a scale, all of one source, on rows of one's own."""
    b = PlanBuilder()
    b.input("own", x, F, "client")
    b.input("w", (4, 4), F, "model-owner")
    b.input("b", (4,), 2 * F, "model-owner")
    b.input("g", (4,), 0, "model-owner")
    y = b.add("add", b.add("multiply", b.add("matmul", "own", "w"), "g"), "b")
    b.output(last(b, y), "y", [])
    weights = {name: {"m": Level.RAW} for name in ("w", "b", "g")}
    return trace(b.build("p", kind), weights, held)["y"].get("m")


def test_weights_of_others_on_rows_of_ones_own():
    total = {"last": lambda b, y: b.add("reduce_sum", y, axes=[0])}
    assert model(["own"]) is Level.ROWS
    assert model(["own"], **total) is Level.REDUCED
    assert model([], **total) is Level.ROWS
    assert model(["own"], x=(1, 4), **total) is Level.ROWS
    beside = {"last": lambda b, y: b.add("concatenate", b.add("shift", "w", bits=F), y, axis=0)}
    assert model(["own"], **beside) is Level.RAW
    assert model(["own"], last=lambda b, y: b.add("reduce_sum", b.add("multiply", "own", "g"), axes=[0])) is Level.RAW
    assert model(["own"], last=lambda b, y: b.add("maximum", y, "b")) is Level.RAW


def test_where_rows_are_known_of_what_is_kept():
    b = builder()
    b.output(b.add("concatenate", "x", "own", axis=1), "columns", [])
    b.output(b.add("concatenate", "own", "x", axis=0), "rows", [])
    b.output(b.add("reshape", "x", shape=[4 * N]), "flat", [])
    b.output(b.add("transpose", "x", axes=[1, 0]), "turned", [])
    b.output(one_row(b), "one", [])
    shown = traced(b.build("p", "compute"), {"x": {"x": Level.RAW}}, ["x"])
    known = [name for name, value in shown.items() if value["x"].by_row]
    assert known == ["columns", "rows"]


def test_sources_are_told_apart():
    b = builder()
    b.output(b.add("concatenate", b.add("matmul", "x", "square"), b.add("shift", "own", bits=F), axis=1), "joint", [])
    b.output("square", "weights", [])
    held = {name: {name: Level.RAW} for name in ("x", "own", "square")}
    shown = trace(b.build("p", "compute"), held, ["x", "own"])
    assert shown["joint"] == {"x": Level.ROWS, "own": Level.RAW, "square": Level.ROWS}
    assert shown["weights"] == {"square": Level.RAW}


def test_what_is_carried_shows_what_it_was_carried_from():
    b = builder()
    b.input("a", (N, 4), F, "client")
    b.input("c", (N, 4), F, "client")
    b.output("x", "new/a", [], carry="a")
    b.output("a", "new/c", [], carry="c")
    b.output(b.add("negate", "c"), "y", ["client"])
    shown = trace(b.build("p", "compute"), {"x": {"x": Level.RAW}}, ["x"])
    assert shown["y"] == {"x": Level.RAW}


def test_every_primitive_has_a_rule():
    assert RULES.keys() == TABLE.keys()


# --- against what plans compute ---------------------------------------------------------------------------------------
def evaluate(plan, inputs):
    """Real values of all outputs."""
    values = dict(inputs)
    for step in plan.steps:
        kinds = [plan.types[name] for name in step.inputs]
        at = At(step.op, step.attributes, kinds[0].fraction if kinds else 0, (), plan.types[step.output], True)
        values[step.output] = np.asarray(MEANINGS[step.op](at, *(values[name] for name in step.inputs)), float)
    return {item.name: values[item.value] for item in plan.outputs}


@pytest.mark.parametrize("name", CASES)
def test_no_influence_without_a_trace(name):
    """Of every primitive: where an input's numbers change the result, the trace says so."""
    case = CASES[name]
    plan = case.plan()
    held = {item.name: {item.name: Level.RAW} for item in plan.inputs if not item.public}
    shown = trace(plan, held, list(held))["result"]
    before = evaluate(plan, case.inputs)["result"]
    moved = set()
    for given in held:
        for step in (0.25, -1.5, 3.0):
            other = evaluate(plan, {**case.inputs, given: case.inputs[given] + step * (1 + (case.inputs[given] > 0))})
            if not np.array_equal(other["result"], before):
                moved.add(given)
    assert moved <= shown.keys()


MADE = 120
UNARY = ("negate", "relu", "abs", "exp", "sign")


def joined(seed):
    """A plan of random steps on vectors, of which many are joined, stretched and taken apart."""
    rng = np.random.default_rng(seed)
    b = PlanBuilder()
    names = [b.input("x", (3,), F, "hospital"), b.input("own", (3,), F, "client")]
    for _ in range(12):
        x = names[rng.integers(len(names))]
        shape = b.type(x).shape
        choice = rng.integers(6)
        if choice == 0:
            others = [name for name in names if len(b.type(name).shape) == len(shape) == 1]
            new = b.add("concatenate", *rng.permutation([x, *others])[: rng.integers(1, 4)], axis=0) if others else x
        elif choice == 1:
            start = [int(rng.integers(n)) for n in shape]
            stop = [int(rng.integers(at + 1, n + 1)) for at, n in zip(start, shape, strict=True)]
            new = b.add("slice", x, start=start, stop=stop, step=[1] * len(shape))
        elif choice == 2:
            new = b.add("broadcast", x, shape=[int(rng.integers(1, 4)) if n == 1 else n for n in shape])
        elif choice == 3 and len(shape) == 1:
            new = b.add("shift", b.add("one_hot", b.add("truncate", x, bits=F), depth=2), bits=F)
        elif choice == 4:
            new = b.add(UNARY[rng.integers(3)], x)
        else:
            sizes = [name for name in names if shape[-1:] in (b.type(name).shape, (1,)) or b.type(name).shape == (1,)]
            new = b.add("add", x, sizes[rng.integers(len(sizes))]) if sizes else x
        names.append(new)
    names = list(dict.fromkeys(names))
    for name in names:
        b.output(name, name, [])
    return b.build("joined", "compute")


def mixed(seed):
    """A plan of random steps on vectors that are joined, added as a whole, and taken apart at joints."""
    rng = np.random.default_rng(seed)
    b = PlanBuilder()
    names = [b.input(f"x{i}", (size,), F, "somebody") for i, size in enumerate((3, 3, 6, 6, 1, 12))]
    for _ in range(10):
        x = names[rng.integers(len(names))]
        (size,) = b.type(x).shape
        choice = rng.integers(6)
        if choice == 0:
            new = b.add(UNARY[rng.integers(3)], x)
        elif choice == 1 and size <= 24:
            new = b.add("concatenate", *rng.permutation([x, names[rng.integers(6)]]), axis=0)
        elif choice == 2 and size > 3:
            start = 3 * int(rng.integers(size // 3))
            new = b.add("slice", x, start=[start], stop=[min(start + 3, size)], step=[1])
        elif choice == 3:
            new = b.add("reduce_sum", x, axes=[0], keepdims=True)
        else:
            others = [name for name in names if size == 1 or b.type(name).shape[0] in (1, size)]
            new = b.add(("add", "maximum")[choice % 2], x, others[rng.integers(len(others))])
        names.append(new)
    for name in dict.fromkeys(names):
        b.output(name, name, [])
    return b.build("mixed", "compute")


def made(seed, secrets=True):
    """A plan of random steps on x, with or without secrets of who wrote it; and its values' names."""
    rng = np.random.default_rng(seed)
    b = PlanBuilder()
    b.input("x", (4, 3), F, "hospital")
    names = ["x"]
    if secrets:
        b.input("own", (4, 3), F, "client")
        names.append("own")
    for _ in range(8):
        x = names[rng.integers(len(names))]
        shape = b.type(x).shape
        choice = rng.integers(11)
        if choice == 0:
            new = b.add(UNARY[rng.integers(4)], x)
        elif choice == 1 and shape:
            new = b.add("reduce_sum", x, axes=[int(rng.integers(len(shape)))], keepdims=bool(rng.integers(2)))
        elif choice == 2:
            new = b.add("transpose", x, axes=[int(i) for i in rng.permutation(len(shape))])
        elif choice == 3:
            size = int(np.prod(shape, dtype=int))
            part = int(rng.choice([n for n in range(1, size + 1) if size % n == 0]))
            new = b.add("reshape", x, shape=[part, size // part])
        elif choice == 4 and shape:
            axis = int(rng.integers(len(shape)))
            new = b.add("gather", x, axis=axis, indices=[int(i) for i in rng.permutation(shape[axis])])
        elif choice == 5 and shape:
            axis = int(rng.integers(len(shape)))
            stop = [n if i != axis else int(rng.integers(1, n + 1)) for i, n in enumerate(shape)]
            new = b.add("slice", x, start=[0] * len(shape), stop=stop, step=[1] * len(shape))
        elif choice == 6 and len(shape) == 2:
            new = b.add("truncate", b.add("matmul", x, b.constant(rng.integers(-9, 9, (shape[1], 2)) << F, F)), bits=F)
        elif choice == 7 and len(shape) == 2:
            new = b.add("truncate", b.add("matmul", b.add("transpose", x, axes=[1, 0]), x), bits=F)
        elif choice == 8 and shape:
            new = b.add("concatenate", x, x, axis=int(rng.integers(len(shape))))
        else:
            y = names[rng.integers(len(names))]
            other = y if b.type(y).shape == shape else x
            new = b.add(("add", "subtract", "maximum")[rng.integers(3)], x, other)
        names.append(new)
    for name in names:
        b.output(name, name, [])
    return b.build("made", "compute")


@pytest.mark.parametrize("make", [made, joined])
@pytest.mark.parametrize("seed", range(MADE))
def test_random_plans_forget_no_input(seed, make):
    plan = make(seed)
    rng = np.random.default_rng(1000 + seed)
    given = {item.name: rng.normal(size=item.type.shape) for item in plan.inputs}
    shown = trace(plan, {name: {name: Level.RAW} for name in given}, list(given))
    before = evaluate(plan, given)
    for name in given:
        after = evaluate(plan, {**given, name: rng.normal(size=given[name].shape)})
        for output, value in before.items():
            if not np.allclose(value, after[output], rtol=1e-9, atol=1e-9, equal_nan=True):
                assert name in shown[output]


@pytest.mark.parametrize("seed", range(MADE))
def test_random_plans_forget_no_source_that_comes_in_by_several_inputs(seed):
    """As rows, as weights and reduced, in whatever mixture."""
    plan = mixed(seed)
    rng = np.random.default_rng(3000 + seed)
    given = {item.name: rng.normal(size=item.type.shape) for item in plan.inputs}
    rows = [name for name in given if rng.integers(2)]
    held = {name: {"s": Level(int(rng.integers(1, 4)))} for name in given if rng.integers(3)}
    shown = trace(plan, held, rows)
    before = evaluate(plan, given)
    after = evaluate(plan, {**given, **{name: rng.normal(size=given[name].shape) for name in held}})
    for output, value in before.items():
        if not np.allclose(value, after[output], rtol=1e-9, atol=1e-9, equal_nan=True):
            assert "s" in shown[output]


@pytest.mark.parametrize("seed", range(MADE))
def test_what_random_plans_reduce_does_not_know_the_order_of_rows(seed):
    """Where nobody weighs rows, a sum over all of them is the same in whatever order they are."""
    plan = made(seed, secrets=False)
    rng = np.random.default_rng(2000 + seed)
    x = rng.normal(size=(4, 3))
    shown = trace(plan, {"x": {"x": Level.RAW}}, ["x"])
    before, after = evaluate(plan, {"x": x}), evaluate(plan, {"x": x[rng.permutation(4)]})
    for output, levels in shown.items():
        if levels.get("x") is Level.REDUCED:
            np.testing.assert_allclose(before[output], after[output], rtol=1e-9, atol=1e-9)


def test_random_plans_reduce_something():
    found = {level for seed in range(MADE) for shown in
             trace(made(seed), {"x": {"x": Level.RAW}}, ["x"]).values() for level in shown.values()}
    assert found == {Level.REDUCED, Level.ROWS, Level.RAW}


def test_a_step_of_an_unknown_kind_shows_all(monkeypatch):
    monkeypatch.delitem(RULES, "matmul")
    b = builder()
    assert level(b, b.add("matmul", "x", "square")) is Level.RAW
    assert isinstance(b.steps[0], Step)
