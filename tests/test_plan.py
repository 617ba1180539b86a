"""Plans: building, JSON, digest, types, the readable table, and what is refused."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.plan import Plan, PlanOutput, Step, TensorType
from private_keras.plan.primitives import TABLE
from private_keras.plan.primitives.constant import decode, encode


def dense() -> Plan:
    b = PlanBuilder()
    b.input("x", (4, 3), 18, "client", "images")
    b.input("w", (3, 2), 18, "model-owner", "dense/kernel")
    y = b.add("matmul", "x", "w", layer="dense")
    y = b.add("relu", y, layer="dense", truncate=18)
    b.output(y, "dense", ["client"])
    return b.build("small", "predict")


def changed(plan: Plan, *path, value) -> str:
    """The plan's JSON with one item replaced."""
    document = json.loads(plan.to_json())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(document)


def test_json_round_trip_is_canonical():
    plan = dense()
    text = plan.to_json()
    again = Plan.from_json(text)
    assert again == plan
    assert again.to_json() == text
    assert again.digest == plan.digest
    assert Plan.from_json(json.dumps(json.loads(text), indent=3).encode()) == plan
    assert " " not in text.replace("small", "")


def test_digest_depends_on_every_field():
    plan = dense()
    others = [
        replace(plan, name="other"),
        replace(plan, kind="compute"),
        replace(plan, inputs=(replace(plan.inputs[0], owner="someone"), *plan.inputs[1:])),
        replace(plan, inputs=(replace(plan.inputs[0], label=""), *plan.inputs[1:])),
        replace(plan, steps=(replace(plan.steps[0], layer="d"), *plan.steps[1:])),
        replace(plan, outputs=(PlanOutput("v1", "dense", ("someone",)),)),
    ]
    assert len({p.digest for p in [plan, *others]}) == len(others) + 1


def test_types_and_builder_types_agree():
    b = PlanBuilder()
    b.input("x", (2, 8, 8, 3), 18, "client")
    b.input("w", (3, 3, 3, 4), 18, "owner")
    y = b.add("conv", "x", "w", strides=(1, 2), padding=((1, 1), (0, 1)), dilation=[1, 1], input_dilation=[1, 1])
    assert b.type(y) == TensorType((2, 8, 4, 4), 36)
    b.output(y, "y", ["client"])
    plan = b.build("conv", "predict")
    assert plan.types[y] == b.type(y)
    assert plan.steps[0].attributes["strides"] == [1, 2]
    assert plan.steps[0].attributes["groups"] == 1


def test_defaults_are_filled_in_the_same_from_json():
    plan = dense()
    document = json.loads(plan.to_json())
    document["steps"][1]["attributes"] = {}
    read = Plan.from_json(json.dumps(document))
    assert read.steps[1].attributes == {"truncate": 0, "width": 62}


def test_describe_names_inputs_openings_and_digest():
    text = dense().describe()
    for part in ("model-owner", "dense/kernel", "(4, 3)", "relu", "8 numbers", dense().digest):
        assert part in text


def test_html_is_escaped():
    b = PlanBuilder()
    b.input("x", (2,), 18, "client", label="<script>alert(1)</script>")
    b.output(b.add("relu", "x"), "y", ["client"])
    html = b.build("<b>", "predict")._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and "<b>" not in html


def test_constants_round_trip_and_are_shared():
    b = PlanBuilder()
    values = np.array([[-1, 2], [2**62, -(2**63)]], np.int64)
    name = b.constant(values, 3)
    assert b.constant(values.astype(np.uint64), 3) == name
    assert b.constant(values, 4) != name
    assert np.array_equal(decode(encode(values, 3)).astype(np.int64), values)
    assert b.type(name) == TensorType((2, 2), 3)


def test_errors_name_layer_and_step():
    b = PlanBuilder()
    b.input("x", (2, 3), 18, "client")
    b.input("y", (2, 4), 18, "client")
    with pytest.raises(PlanError, match=r"layer 'merge', step 0 \(add -> v0\).*\[2, 3\].*\[2, 4\]"):
        b.add("add", "x", "y", layer="merge")
    assert b.add("negate", "x") == "v0"


def test_builder_takes_numpy_integers():
    b = PlanBuilder()
    b.input("x", (np.int64(2), 3), np.int64(18), "client")
    y = b.add("gather", "x", axis=np.int32(1), indices=np.array([2, 0]))
    assert b.type(y).shape == (2, 2)
    b.output(b.add("relu", y), "y", ["client"])
    assert Plan.from_json(b.build("p", "predict").to_json())


REFUSED = [
    (("format",), "private_keras.plan/2", "format"),
    (("kind",), "steal", "kind"),
    (("name",), "a\x1b[2Jb", "printable"),
    (("name",), 5, "printable"),
    (("inputs", 0, "name"), "w", "new name"),
    (("inputs", 0, "name"), "-x", "name"),
    (("inputs", 0, "name"), "x\n", "name"),
    (("inputs", 0, "owner"), "", "name"),
    (("inputs", 0, "shape"), [4, -3], "size"),
    (("inputs", 0, "shape"), [4, 0], "size"),
    (("inputs", 0, "shape"), [4, True], "size"),
    (("inputs", 0, "shape"), [4, "3"], "size"),
    (("inputs", 0, "shape"), [2**15, 2**15], "elements"),
    (("inputs", 0, "shape"), [1] * 9, "axes"),
    (("inputs", 0, "shape"), {"0": 4}, "shape"),
    (("inputs", 0, "fraction"), 59, "fraction"),
    (("inputs", 0, "fraction"), -1, "fraction"),
    (("inputs", 0, "fraction"), True, "fraction"),
    (("inputs", 0, "secret"), 1, "keys"),
    (("steps", 0, "op"), "exec", "primitive"),
    (("steps", 0, "op"), ["matmul"], "name"),
    (("steps", 0, "inputs"), ["x", "v1"], "defined before"),
    (("steps", 0, "inputs"), ["x", "v0"], "defined before"),
    (("steps", 0, "inputs"), ["x"], "2 inputs"),
    (("steps", 0, "inputs"), "xw", "list"),
    (("steps", 0, "inputs"), ["x", ["w"]], "name"),
    (("steps", 0, "output"), "x", "new name"),
    (("steps", 1, "output"), "v0", "new name"),
    (("steps", 1, "attributes"), {"truncate": 18, "leak": 1}, "truncate"),
    (("steps", 1, "attributes"), {"truncate": 37}, "at most 36"),
    (("steps", 1, "attributes"), {"truncate": True}, "integer"),
    (("steps", 1, "attributes"), {"truncate": -1}, "integer"),
    (("steps", 1, "attributes"), {"truncate": 10**30}, "integer"),
    (("steps", 1, "attributes"), [], "object"),
    (("outputs",), [], "at least one"),
    (("outputs", 0, "value"), "v9", "value of the plan"),
    (("outputs", 0, "receivers"), ["client", "client"], "receiver once"),
    (("outputs", 0, "receivers"), "client", "list"),
    (("outputs", 0, "receivers"), ["a b"], "name"),
    (("outputs", 0, "value"), "w", "open the input 'w'"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_refused(path, value, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_json(changed(dense(), *path, value=value))


def test_missing_keys_and_duplicates_are_refused():
    for key in json.loads(dense().to_json()):
        document = json.loads(dense().to_json())
        del document[key]
        with pytest.raises(PlanError, match=key):
            Plan.from_json(json.dumps(document))
    document = json.loads(dense().to_json())
    document["outputs"] *= 2
    with pytest.raises(PlanError, match="once"):
        Plan.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", "[" * 100_000, '{"a":' * 50_000, "NaN", "1e999", "-Infinity", "9" * 5000, '"\ud800"',
        b"\xff\xfe", '{"format":"private_keras.plan/1","format":"private_keras.plan/1"}', b"\x00", "[0.5]",
    ],
    ids=lambda t: ascii(t)[:20],
)
def test_text_that_is_no_plan(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_text_too_large_is_refused_before_it_is_parsed(monkeypatch):
    text = dense().to_json()
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    for limit in ("MAX_JSON_BYTES", "MAX_JSON_CONTAINERS", "MAX_JSON_ITEMS"):
        monkeypatch.setattr(limits, limit, 5)
        with pytest.raises(PlanError, match="at most"):
            Plan.from_json(text)
        with pytest.raises(PlanError, match="at most"):
            Plan.from_json(text.encode())
        monkeypatch.undo()
        monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))


def test_too_many_steps(monkeypatch):
    plan = dense()
    monkeypatch.setattr(limits, "MAX_STEPS", 1)
    with pytest.raises(PlanError, match="at most 1"):
        Plan.from_json(plan.to_json())
    b = PlanBuilder()
    b.input("x", (2,), 18, "client")
    b.add("negate", "x")
    with pytest.raises(PlanError, match="at most 1"):
        b.add("negate", "x")


def test_a_plan_made_by_hand_is_checked_when_types_are_asked_for():
    plan = dense()
    with pytest.raises(PlanError):
        _ = replace(plan, steps=(*plan.steps, Step("exec", ("x",), "z"))).types


@pytest.mark.parametrize("op", ["exp", "reciprocal", "rsqrt", "sqrt", "log", "softmax"])
def test_functions_take_the_fractions_they_are_made_for(op):
    attributes = {"axis": 0} if op == "softmax" else {}
    for fraction, allowed in ((0, False), (11, False), (12, True), (20, True), (21, False), (58, False)):
        b = PlanBuilder()
        b.input("x", (3,), fraction, "client")
        if allowed:
            assert b.type(b.add(op, "x", **attributes)).fraction == fraction
        else:
            with pytest.raises(PlanError, match=f"12 to 20 fractional bits.*Received: {fraction}"):
                b.add(op, "x", **attributes)


def endless_convolution(b: PlanBuilder) -> None:
    b.input("w", (2**27, 1, 1), 18, "client")
    b.add("conv", "x", "w", strides=[1], padding=[[0, 0]], dilation=[1], input_dilation=[1])


def repeated_channels(b: PlanBuilder) -> None:
    b.input("w", (1, 1, 2**20), 18, "client")
    y = b.add("reshape", "x", shape=[1, 2**27, 2])
    b.add("conv", y, "w", strides=[2**27], padding=[[0, 0]], dilation=[1], input_dilation=[1], groups=2)


def endless_product(b: PlanBuilder) -> None:
    square = b.add("reshape", "x", shape=[2**14, 2**14])
    b.add("matmul", square, square)


def endless_pool(b: PlanBuilder) -> None:
    b.add("sum_pool", "x", window=[2**16], strides=[1], padding=[[0, 0]])


def wide_window(b: PlanBuilder) -> None:
    b.add("max_pool", "x", window=[2**17], strides=[1], padding=[[0, 0]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (endless_convolution, "multiplications or additions"),
        (endless_product, "multiplications or additions"),
        (repeated_channels, "repeated for the filters"),
        (endless_pool, "multiplications or additions"),
        (wide_window, "from 1 to 65536"),
    ],
)
def test_steps_that_would_run_for_days_are_refused(build, message):
    b = PlanBuilder()
    b.input("x", (1, 2**28, 1), 18, "client")
    with pytest.raises(PlanError, match=message):
        build(b)


def test_table_has_no_name_twice_and_docs_name_each_primitive():
    docs = (Path(__file__).parent.parent / "docs" / "plan.md").read_text(encoding="utf-8")
    for name, primitive in TABLE.items():
        assert primitive.name == name
        assert f"`{name}`" in docs


def step_of_training() -> Plan:
    b = PlanBuilder()
    b.input("x", (4, 3), 18, "client", "images")
    b.input("w", (3, 2), 18, "model-owner", "dense/kernel")
    b.input("rate", (), 12, "client", "learning rate", public=True)
    y = b.add("truncate", b.add("matmul", "x", "w"), bits=18)
    gradient = b.add("truncate", b.add("matmul", b.add("transpose", "x", axes=[1, 0]), y), bits=18)
    change = b.add("truncate", b.add("multiply", gradient, "rate"), bits=12)
    b.output(b.add("subtract", "w", change), "w", [], carry="w")
    return b.build("step", "train")


def test_kept_outputs_and_public_inputs_survive_json_and_are_shown():
    plan = step_of_training()
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert [item.public for item in again.inputs] == [False, False, True]
    assert again.outputs[0].carry == "w"
    text = plan.describe()
    assert "Provided, public" in text
    assert "Kept as shares" in text
    assert "0 values are opened (0 numbers), nothing else" in text


def test_which_named_shares_an_input_is_is_part_of_a_plan():
    def made(shares):
        b = PlanBuilder()
        b.output(b.add("relu", b.input("x", (2,), 18, "hospital", shares=shares)), "y", ["client"])
        return b.build("p", "predict")

    plan = made("patients/x#a tensor")
    assert Plan.from_json(plan.to_json()) == plan and "hospital: patients/x#a tensor" in plan.describe()
    assert "shares" not in made("").to_json() and len({made(s).digest for s in ("", "a#b", "a#c", "b#c")}) == 4
    for wrong in ("x", "#data", "a b#c", "x#a\nb", 3, None, [], ["x"]):
        with pytest.raises(PlanError, match="input.*(name|text|shares)"):
            made(wrong)
    document = json.loads(plan.to_json())
    document["inputs"][0]["shares"] = ""  # one plan has one text
    with pytest.raises(PlanError, match="or no such key"):
        Plan.from_json(json.dumps(document))
    with pytest.raises(PlanError, match="named shares. Received: a public input"):
        PlanBuilder().input("x", (), 0, "client", public=True, shares="x#data")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("inputs", 2, "public"), 1, "true or false"),
        (("outputs", 0, "carry"), "x", "type of input"),
        (("outputs", 0, "carry"), "rate", "secret input"),
        (("outputs", 0, "carry"), "nothing", "secret input"),
        (("outputs", 0, "carry"), "", "name"),
        (("outputs", 0, "receivers"), ["client"], "kept"),
    ],
)
def test_states_that_do_not_fit_are_refused(path, value, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_json(changed(step_of_training(), *path, value=value))


def test_an_input_takes_one_carried_value():
    plan = step_of_training()
    twice = (*plan.outputs, replace(plan.outputs[0], name="again"))
    with pytest.raises(PlanError, match="each once"):
        Plan.from_json(replace(plan, outputs=twice).to_json())
