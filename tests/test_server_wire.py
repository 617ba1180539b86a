"""The generated messages are those of `messages.proto`, and of a generator old enough for every supported protobuf."""
import re

from private_keras.server.wire import messages_pb2 as wire
from tests.clusters import ROOT

DIRECTORY = ROOT / "private_keras/server/wire"
KINDS = {"bool": 8, "string": 9, "uint64": 4, "uint32": 13, "double": 1, "bytes": 12}


def test_the_generated_code_fits_the_description():
    text = (DIRECTORY / "messages.proto").read_text()
    described = {}
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", text, re.DOTALL):
        fields = re.findall(r"^\s*(repeated )?(\w+) (\w+) = (\d+);", body, re.MULTILINE)
        described[name] = {(field, int(number), KINDS.get(kind, 11)) for _, kind, field, number in fields}
    generated = {
        name: {(f.name, f.number, f.type) for f in message.fields}
        for name, message in wire.DESCRIPTOR.message_types_by_name.items()
    }
    assert generated == described
    calls = set(re.findall(r"rpc (\w+)\((?:stream )?(\w+)\) returns \((?:stream )?(\w+)\)", text))
    service = wire.DESCRIPTOR.services_by_name["Server"]
    assert {(m.name, m.input_type.name, m.output_type.name) for m in service.methods} == calls


def test_the_generator_is_the_oldest_supported():
    """A runtime reads code that is at most as new as itself; the oldest that we support is 6.31.1."""
    version = re.search(r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)", (DIRECTORY / "messages_pb2.py").read_text())
    assert tuple(map(int, version.groups())) <= (6, 31, 1)
