"""cluster.json: both forms, and clear errors for what is wrong in one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_keras.errors import InputError, SecurityError
from private_keras.server.config import parse_config, read_config
from private_keras.server.roles import CALLS, require

TALK = {"server0": "10.0.0.1:4000", "server1": "10.0.0.2:4000", "server2": "10.0.0.3:4000", "analyst": "10.0.0.9:0"}
PIN = "sha256:" + "ab" * 32


def long_form(**changes):
    servers = [{"name": f"server{i}", "control": f"host{i}:40", "data": f"host{i}:41"} for i in range(3)]
    return {"protocol": "trio", "servers": servers, "clients": {"analyst": {}}, **changes}


def test_the_talks_form(tmp_path):
    config = parse_config(TALK, tmp_path)
    assert config.protocol == "trio"
    assert [(s.name, s.control, s.data) for s in config.servers][1] == ("server1", "10.0.0.2:4000", "10.0.0.2:4001")
    assert config.clients == {"analyst"}
    assert config.authority == tmp_path / "keys/authority.pem"
    assert not config.local
    assert parse_config({k: v for k, v in TALK.items() if k != "analyst"}, tmp_path).clients is None


def test_the_long_form_with_pins_and_paths(tmp_path):
    content = long_form(clients={"analyst": {"certificate": PIN}}, authority="ca.pem", keys="mine")
    content["servers"][2]["certificate"] = PIN
    del content["servers"][1]["data"]
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(content))
    config = read_config(path)
    assert config.pins == {"server2": PIN, "analyst": PIN}
    assert config.servers[1].data == "host1:41"
    assert config.credentials("analyst").key == tmp_path / "mine/analyst.key"
    assert config.authority == tmp_path / "ca.pem"


def two_hospitals():
    """Two data owners run the evaluators themselves."""
    content = long_form()
    del content["clients"]
    for server, operator in zip(content["servers"], ("hospital-a", "hospital-b"), strict=False):
        server["operator"] = operator
    content["parties"] = {
        "hospital-a": {"roles": ["server", "owner"], "address": "host0:0", "certificate": PIN},
        "hospital-b": {"roles": ["server", "owner", "analyst"]},
        "clinic": {"roles": ["receiver"]},
    }
    return content


def test_parties_with_roles(tmp_path):
    config = parse_config(two_hospitals(), tmp_path)
    assert config.clients == {"hospital-a", "hospital-b", "clinic"}
    assert [s.operator for s in config.servers] == ["hospital-a", "hospital-b", ""]
    assert config.pins == {"hospital-a": PIN}
    assert config.roles_of("hospital-a") == {"server", "owner"}
    assert parse_config(TALK, tmp_path).roles_of("analyst") == {"owner", "analyst", "receiver"}
    mixed = parse_config(long_form(parties={"clinic": {"roles": ["receiver"]}}), tmp_path)
    assert mixed.clients == {"analyst", "clinic"} and mixed.roles_of("analyst") == {"owner", "analyst", "receiver"}


def test_nobody_operates_two_servers(tmp_path):
    content = two_hospitals()
    content["servers"][2]["operator"] = "hospital-a"
    with pytest.raises(InputError, match="another operator for each server"):
        parse_config(content, tmp_path)


@pytest.mark.parametrize(
    ("held", "calls", "refused"),
    [
        (["receiver"], ["Hello", "Receive", "Audit"], ["Put", "Upload", "Run", "RunShort", "Prepare", "Load"]),
        (["owner"], ["Put", "SetPolicy", "Save", "Forget", "PlanText"], ["Run", "RunShort", "Prepare", "Receive"]),
        (["analyst"], ["Run", "Upload", "Load", "Cancel", "Save"], ["Put", "SetPolicy", "Receive", "Deliveries"]),
        (["server"], ["Hello"], ["Upload", "Run", "Put", "Receive"]),
        (["owner", "receiver"], ["Put", "Receive"], ["Run"]),
    ],
)
def test_roles_allow_calls(held, calls, refused):
    for call in calls:
        require("x", frozenset(held), call)
    for call in refused:
        with pytest.raises(SecurityError) as error:
            require("x", frozenset(held), call)
        told = str(error.value)
        assert told.startswith("x may not ") and all(f"{role} (" in told for role in held)
        assert all(repr(role) in told for role in CALLS[call]), "the roles that would allow it"
        assert call not in told, "calls are the program's words, not the user's"


def test_every_call_that_a_role_can_lack_has_words():
    for call in CALLS:
        with pytest.raises(SecurityError, match="x may not [a-z, ]+: its role"):
            require("x", frozenset(), call)


def test_unix_sockets(tmp_path):
    servers = [{"control": f"unix:/d/{i}.c", "data": f"unix:/d/{i}.d"} for i in range(3)]
    config = parse_config({"servers": servers}, tmp_path)
    assert config.local
    with pytest.raises(InputError, match="no certificates"):
        config.credentials("analyst")


def _with_server(**changes):
    content = long_form()
    content["servers"][1] = {**content["servers"][1], **changes}
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object"),
        ({}, "Missing: server0, server1, server2"),
        ({**TALK, "server1": "nowhere"}, "server1: expected host:port.*nowhere"),
        ({**TALK, "server1": 4000}, "server1: expected host:port"),
        ({**TALK, "server1": "h:99999"}, "expected host:port"),
        ({**TALK, "server1": "10.0.0.1:4000"}, "addresses of its own"),
        ({**TALK, "bad name": "h:1"}, "bad name"),
        (long_form(extra=1), "unknown entries.*extra"),
        (long_form(protocol="duo"), "expected protocol"),
        (long_form(protocol=["trio"]), "expected protocol"),
        (long_form(servers=[]), "trio has 3 servers. Received: 0"),
        (long_form(servers="abc"), "trio has 3 servers. Received: str"),
        (long_form(clients=["analyst"]), "clients: expected an object"),
        (long_form(clients={"server1": {}}), "not a server's"),
        (long_form(clients={"a": {"pin": PIN}}), "clients: a"),
        (long_form(authority=3), "authority: expected text"),
        (_with_server(name="server2"), r"servers\[1\].*by party index.*server2"),
        (_with_server(certificate="sha256:00"), "64 hex digits"),
        (_with_server(control="unix:/a", data="unix:/b"), "cannot be mixed"),
        (_with_server(control="unix:relative", data="unix:/b"), "absolute"),
        (long_form(parties=["analyst"]), "parties: expected an object"),
        (long_form(parties={"server1": {"roles": ["owner"]}}), "not a server's"),
        (long_form(parties={"a": {}}), "parties: a: expected roles among.*None"),
        (long_form(parties={"a": {"roles": []}}), "parties: a: expected roles"),
        (long_form(parties={"a": {"roles": ["king"]}}), "parties: a: expected roles.*king"),
        (long_form(parties={"a": {"roles": ["owner"], "port": 1}}), "parties: a: expected an object with roles"),
        (long_form(parties={"a": {"roles": ["owner"], "certificate": "x"}}), "64 hex digits"),
        (long_form(parties={"analyst": {"roles": ["owner"]}}), "analyst.*both in clients and in parties"),
        (long_form(parties={"a": {"roles": ["server"]}}), "role server to be the operators"),
        (_with_server(operator="hospital"), "role server to be the operators"),
        (_with_server(operator=1), "operator: expected text"),
        (long_form(authority=None), "without an authority.*analyst.*server0"),
        (_with_server(port=1), r"servers\[1\]: expected an object with name"),
    ],
)
def test_errors_say_which_entry(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        parse_config(content, tmp_path)


def test_files_that_are_no_description(tmp_path):
    path = tmp_path / "cluster.json"
    with pytest.raises(InputError, match="cannot read"):
        read_config(path)
    for text in ("{", "[" * 100_000, '{"server0": "a:1", "server0": "b:1"}'):
        path.write_text(text)
        with pytest.raises(InputError, match="not valid JSON"):
            read_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError):
        read_config(path)
    path.write_bytes(b" " * (2 << 20))
    with pytest.raises(InputError, match="bytes"):
        read_config(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
)


@given(key=st.sampled_from(["protocol", "servers", "clients", "authority", "keys"]), value=JSON)
def test_any_json_is_parsed_or_refused(key, value, tmp_path_factory):
    try:
        parse_config({**long_form(), key: value}, tmp_path_factory.getbasetemp())
    except InputError:
        pass
