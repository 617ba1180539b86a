"""The container and compose files, as far as a machine without a container engine can tell: they say what they should,
and the commands in them are commands of ours.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from private_keras.cli import parser
from private_keras.server.config import parse_config
from private_keras.server.monitor import Monitor, parse_address
from tests.clusters import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
CONTAINER = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text())
INSTRUCTIONS = [line.split(None, 1) for line in CONTAINER.splitlines() if line and not line.startswith("#")]


def of(name):
    return [rest for word, rest in INSTRUCTIONS if word == name]


@pytest.mark.parametrize("party", range(3))
def test_each_service_is_a_server_that_our_command_line_takes(party):
    service = SERVICES[f"server{party}"]
    given = parser().parse_args(service["command"])
    assert given.party == party and given.bind == "0.0.0.0"
    mounts = [volume.split(":") for volume in service["volumes"]]
    inside = [Path(mount[1]) for mount in mounts]
    assert given.config in inside and given.config.parent / "keys" in inside
    assert any(given.storage.is_relative_to(place) and given.storage != place for place in inside)
    assert parse_address(given.metrics)[0] == "127.0.0.1", "health and metrics stay in the container"
    assert [mount[2] for mount in mounts if mount[1] == str(given.config)] == ["ro"]
    own = [mount[0] for mount in mounts if mount[1] != str(given.config)]
    assert all(f"server{party}" in place for place in own), "no server's keys or shares at another one's"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_run_with_no_more_rights_than_they_need(name):
    service = SERVICES[name]
    assert service["user"] == "10001:10001" == of("USER")[-1]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["ulimits"]["core"] == 0
    assert service["mem_limit"] == service["memswap_limit"], "no swap"
    assert "privileged" not in service and "network_mode" not in service


def test_ports_are_those_of_the_description():
    config = parse_config(json.loads((DEPLOY / "cluster.json").read_text()), DEPLOY)
    published = []
    for server in config.servers:
        pairs = [port.split(":") for port in SERVICES[server.name]["ports"]]
        published += [outside for outside, _ in pairs]
        assert all(outside == inside for outside, inside in pairs), "clients and other hosts use the description's"
        assert {inside for _, inside in pairs} == {address.rsplit(":")[1] for address in (server.control, server.data)}
        assert server.control.split(":")[0] == SERVICES[server.name]["hostname"] == server.name
    assert len(set(published)) == 6
    assert config.allowance.drain_seconds < int(SERVICES["server0"]["stop_grace_period"].removesuffix("s"))


@pytest.mark.parametrize(("reasons", "code"), [([], 0), (["about to end"], 1)])
def test_the_health_check_is_what_the_server_answers(reasons, code):
    kind, python, *arguments = SERVICES["server1"]["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python")
    port = parser().parse_args(SERVICES["server1"]["command"]).metrics.rsplit(":")[1]
    monitor = Monitor("0", lambda: "", lambda: reasons)
    try:
        assert f":{port}/" in arguments[-1]
        arguments[-1] = arguments[-1].replace(f":{port}/", f":{monitor.port}/")
        done = subprocess.run([sys.executable, *arguments], capture_output=True, timeout=100)
    finally:
        monitor.close()
    assert done.returncode == code


def test_the_image_has_what_servers_need_and_no_more():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = [line for line in (DEPLOY / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(lines) < set(wanted)
    assert {re.split("[<>=]", line)[0] for line in set(wanted) - set(lines)} == {"tensorflow", "keras", "h5py"}
    assert of("ENTRYPOINT") == ['["private-keras"]'] and of("STOPSIGNAL") == ["SIGTERM"]
    bases = {rest.split(" AS ")[0] for rest in of("FROM")}
    assert len(bases) == 1 and re.fullmatch(r"python:3\.\d+-slim-\w+", bases.pop())
    for rest in of("COPY"):
        if not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    assert ignored[0] == "*" and "**/*.key" in ignored
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert kept == {s for rest in of("COPY") if not rest.startswith("--from") for s in rest.split()[:-1]}


@pytest.mark.parametrize("arguments", [["serve", "--help"], ["keys", "--help"], ["doctor", "--help"]])
def test_commands_of_servers_do_without_what_the_image_has_not(arguments):
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['keras', 'tensorflow', 'h5py', 'pandas', 'pyarrow']))\n"
        f"sys.orig_argv = sys.argv = ['private-keras', *{arguments!r}]\n"
        "from private_keras.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "usage: private-keras" in done.stdout, done.stderr
