"""JSON form of a plan: one canonical text for a plan, and a parser that trusts nothing."""
import json
from typing import Any

from private_keras.errors import PlanError
from private_keras.plan import limits
from private_keras.plan.records import PlanInput, PlanOutput, Step, TensorType

FORMAT = "private_keras.plan/1"

Parts = tuple[str, str, tuple[PlanInput, ...], tuple[Step, ...], tuple[PlanOutput, ...]]


def write(
    name: str, kind: str, inputs: tuple[PlanInput, ...], steps: tuple[Step, ...], outputs: tuple[PlanOutput, ...]
) -> str:
    """Canonical JSON: keys sorted, no white space, ASCII, no numbers but integers."""
    document = {
        "format": FORMAT,
        "name": name,
        "kind": kind,
        "inputs": [
            {"name": i.name, "shape": i.type.shape, "fraction": i.type.fraction, "owner": i.owner, "label": i.label}
            | ({"public": True} if i.public else {})
            | ({"shares": i.shares} if i.shares else {})
            for i in inputs
        ],
        "steps": [
            {"op": s.op, "inputs": s.inputs, "output": s.output, "attributes": s.attributes, "layer": s.layer}
            for s in steps
        ],
        "outputs": [
            {"value": o.value, "name": o.name, "receivers": o.receivers} | ({"carry": o.carry} if o.carry else {})
            for o in outputs
        ],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def parse(text: str | bytes) -> Parts:
    """The parts of a plan, with every field of the right kind; what steps mean is for `validate.check`.

    Raises:
        PlanError: for text that is too long, not JSON, or of another form.
    """
    document = _object(
        _load(text), "plan", required=("format", "name", "kind", "inputs", "steps", "outputs"), optional=()
    )
    if document["format"] != FORMAT:
        raise PlanError(
            f"plan format: expected {FORMAT!r}. Received: {limits.shown(document['format'])}. "
            "Client and server must run versions that agree on it."
        )
    inputs = _list(document["inputs"], "inputs", limits.MAX_INPUTS)
    steps = _list(document["steps"], "steps", limits.MAX_STEPS)
    outputs = _list(document["outputs"], "outputs", limits.MAX_OUTPUTS)
    return (
        limits.text(document["name"], "plan name"),
        limits.text(document["kind"], "plan kind"),
        tuple(_input(item, f"input {i}") for i, item in enumerate(inputs)),
        tuple(_step(item, f"step {i}") for i, item in enumerate(steps)),
        tuple(_output(item, f"output {i}") for i, item in enumerate(outputs)),
    )


def _load(text: str | bytes) -> Any:
    if isinstance(text, bytes | bytearray):
        if len(text) > limits.MAX_JSON_BYTES:
            raise PlanError(f"plan: expected at most {limits.MAX_JSON_BYTES} bytes of JSON. Received: {len(text)}")
        try:
            text = bytes(text).decode("utf-8")
        except UnicodeDecodeError:
            raise PlanError("plan: expected JSON in UTF-8. Received: bytes that are not UTF-8") from None
    if not isinstance(text, str):
        raise PlanError(f"plan: expected JSON text. Received: {type(text).__name__}")
    if len(text) > limits.MAX_JSON_BYTES:
        raise PlanError(f"plan: expected at most {limits.MAX_JSON_BYTES} characters of JSON. Received: {len(text)}")
    containers = text.count("[") + text.count("{")
    if containers > limits.MAX_JSON_CONTAINERS or text.count(",") > limits.MAX_JSON_ITEMS:
        raise PlanError(
            f"plan: expected at most {limits.MAX_JSON_CONTAINERS} lists and objects and {limits.MAX_JSON_ITEMS} items. "
            "Received more: send large tensors as inputs, not as constants."
        )
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_float=_no_real, parse_constant=_no_real)
    except RecursionError:
        raise PlanError("plan: expected lists nested a few levels deep. Received: JSON nested too deep") from None
    except ValueError as error:  # JSONDecodeError, and integers of more digits than Python reads
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"plan: expected JSON. Received text that is not: {limits.shown(str(error))}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise PlanError("plan: expected each key of an object once. Received a key twice")
    return result


def _no_real(text: str) -> Any:
    raise PlanError(f"plan: expected integers only. Received the number {limits.shown(text)}")


def _object(value: Any, what: str, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PlanError(f"{what}: expected an object. Received: {limits.shown(value)}")
    for key in required:
        if key not in value:
            raise PlanError(f"{what}: the key {key!r} is missing")
    for key in value:
        if key not in required and key not in optional:
            known = ", ".join(required + optional)
            raise PlanError(f"{what}: expected the keys {known}. Received: {limits.shown(key)}")
    return value


def _list(value: Any, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise PlanError(f"{what}: expected a list of at most {most}. Received: {limits.shown(value)}")
    return value


def _input(value: Any, what: str) -> PlanInput:
    item = _object(value, what, ("name", "shape", "fraction", "owner"), ("label", "public", "shares"))
    shape = limits.shape(item["shape"], f"{what}: shape")
    fraction = limits.integer(item["fraction"], 0, limits.MAX_FRACTION, f"{what}: fraction")
    return PlanInput(
        limits.identifier(item["name"], f"{what}: name"),
        TensorType(shape, fraction),
        limits.identifier(item["owner"], f"{what}: owner"),
        limits.text(item.get("label", ""), f"{what}: label"),
        limits.flag(item.get("public", False), f"{what}: public"),
        _shares(item["shares"], f"{what}: shares") if "shares" in item else "",
    )


def _shares(value: Any, what: str) -> str:
    """A key that is there holds something, lest one plan have two texts."""
    if value == "":
        raise PlanError(f"{what}: expected the name of shares and of a tensor, or no such key. Received: nothing")
    return limits.shares(value, what)


def _step(value: Any, what: str) -> Step:
    item = _object(value, what, ("op", "inputs", "output"), ("attributes", "layer"))
    op = limits.identifier(item["op"], f"{what}: op")
    operands = _list(item["inputs"], f"{what}: inputs", limits.MAX_OPERANDS)
    attributes = item.get("attributes", {})
    if not isinstance(attributes, dict):
        raise PlanError(f"{what}: attributes: expected an object. Received: {limits.shown(attributes)}")
    return Step(
        op,
        tuple(limits.identifier(name, f"{what}: inputs") for name in operands),
        limits.identifier(item["output"], f"{what}: output"),
        attributes,
        limits.text(item.get("layer", ""), f"{what}: layer"),
    )


def _output(value: Any, what: str) -> PlanOutput:
    item = _object(value, what, ("value", "name", "receivers"), ("carry",))
    receivers = _list(item["receivers"], f"{what}: receivers", limits.MAX_RECEIVERS)
    return PlanOutput(
        limits.identifier(item["value"], f"{what}: value"),
        limits.identifier(item["name"], f"{what}: name"),
        tuple(limits.identifier(name, f"{what}: receivers") for name in receivers),
        limits.identifier(item["carry"], f"{what}: carry") if "carry" in item else "",
    )
