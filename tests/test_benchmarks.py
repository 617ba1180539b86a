"""The benchmark suite: every workload runs, in sizes for tests, and says what it is to say."""
import argparse
import json
import math

import numpy as np
import pytest

import private_keras as pk
from benchmarks.peers import parties
from benchmarks.peers import run as peers
from benchmarks.suite import data, large, report, results, scaling
from benchmarks.suite.bounds import Speeds
from benchmarks.suite.measure import Effort, Here, measure
from benchmarks.suite.table import TARGETS_FILE, WORKLOADS, chosen, targets
from private_keras import forecast

HERE = Here(forecast.NETWORKS["local"], forecast.Machine(), Speeds(products=1e10, bytes=1e9))
ONCE = Effort(least=1, most=1, seconds=0.0)
# What a training step or a function may be off in these sizes; 0.02 is the error of five pieces.
ERRORS = {"logistic-step-128-5piece": 0.02, "logistic-step-1024-5piece": 0.02, "resnet50": 0.01}
# One of each kind, for every run of the tests; the others are `long`.
SHORT = {
    "matmul-128", "relu", "max-pool", "sigmoid", "softmax", "A-predict-1", "A-step", "C-predict-128",
    "logistic-predict-1", "logistic-step-128", "logistic-step-128-5piece", "vgg16-1", "bert-layer",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    with pk.LocalCluster() as made:
        yield made


def cases():
    return [pytest.param(w, marks=[] if w.name in SHORT else [pytest.mark.long], id=w.name) for w in WORKLOADS]


@pytest.mark.parametrize("workload", cases())
def test_workload(cluster, workload):
    record = measure(workload, cluster, cluster.pids, ONCE, HERE, tiny=True)
    assert record["workload"] == workload.name and record["runs"] == 1
    assert 0 < record["seconds"] <= record["call"]
    assert record["first"] > 0 and record["plain"] > 0
    assert len(record["sent"]) == 3 and record["sent"][2] > 0
    # The system counts pages of several threads now and then only.
    assert 0 < record["memory_before_mb"] <= 1.1 * record["peak_mb"]
    assert record["error"] <= ERRORS.get(workload.name, 1e-3)
    assert record["largest"] > 0.01
    assert record["floor"]["bytes"] == pytest.approx(sum(record["sent"]) / 1e9)
    assert min(record["floor"].values()) >= 0 and record["floor"]["rounds"] == pytest.approx(60e-6 * record["rounds"])
    assert ("forecast" in record) == ("-predict" in workload.name or workload in large.WORKLOADS)


def test_targets_and_workloads_are_the_same():
    assert set(targets()) == {workload.name for workload in WORKLOADS}
    assert len({workload.title for workload in WORKLOADS}) == len(WORKLOADS)
    for goal in targets().values():
        assert ("peer" in goal) == ("peer_name" in goal) and ("peer_error" in goal) == ("peer_error_name" in goal)
        assert "peer_error" in goal or "peer_error_up_to" not in goal
    assert "earlier measurements" in json.loads(TARGETS_FILE.read_text())["source"]


def test_chosen():
    assert chosen("") == WORKLOADS
    assert [workload.name for workload in chosen("relu, A-step")] == ["relu", "A-step", "A-step-adam"]
    with pytest.raises(SystemExit, match="no workload begins with 'nothing'"):
        chosen("nothing")


def test_full_sizes():
    """The shapes that the names promise."""
    assert data.primitive("relu")[0].size == data.primitive("multiply")[1].size == 10**6
    assert [w.shape for w in data.weights("C")[:4:2]] == [(5, 5, 1, 20), (5, 5, 20, 50)]
    assert sum(w.size for w in data.weights("vgg16")) == 15_245_130
    assert data.bert()[0]["w1"].shape == (768, 3072) and data.bert()[1].shape == (1, 128, 768)
    assert data.logistic_rows(1024, 12).shape == (12, 1024) and data.logistic_rows(1024, 12).max() < data.ROWS


def result(seconds, failed=False):
    figures = {
        "seconds": seconds, "seconds_least": seconds, "call": 2 * seconds, "call_least": seconds, "plain": 0.01,
        "plain_least": 0.01, "first": 1.0, "runs": 3, "rounds": 3.0, "sent": [1e6, 1e6, 2e6], "error": 1e-5,
        "largest": 4.0, "floor": {"products": 0.02, "bytes": 0.01, "rounds": 0.001}, "others": 0.1,
        "memory_before_mb": 60.0, "peak_mb": 100.0,
    }  # fmt: skip
    where = {"network": "embedded", "links": "Unix sockets", "round_trip": None}
    return where | {"workload": "relu", "title": "ReLU, 10^6"} | ({"failed": "why"} if failed else figures)


def test_tables_and_picture(tmp_path):
    results.write(tmp_path / "a.json", [result(0.2)], [{"workload": "relu", "peer": "spu", "seconds": 2.0}])
    results.write(tmp_path / "b.json", [result(0.1), result(0.1, failed=True)], [])
    before, after = (results.read(tmp_path / name) for name in ("a.json", "b.json"))
    text = report.markdown(before)
    assert "0.15 no" in text and "0.299 MP-SPDZ" in text and "| 2.00 |" in text and "3.81e-6 SPU" in text
    assert "| ReLU, 10^6 | 0.0200 | 0.0100 | 0.00100 | 0.0310 | 0.200 | 6.5x | products |" in text
    assert before["machine"]["cores"] >= 1 and before["machine"]["kernel"] in text
    assert "0.15 yes" in report.markdown(after) and "failed" in report.markdown(after)
    assert "| embedded | 0.200 | 0.100 | 0.200 | 0.100 |" in report.compare(before, after)
    assert report.compare(before, after).endswith("| 100 | 100 | 2.0x | 2.0x |")
    report.picture(before, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def grown(*seconds):
    rest = {"call": 1.0, "call_least": 1.0, "peak_mb": 60.0, "memory_before_mb": 50.0, "rounds": 3.0, "plain": 0.1}
    return [
        rest | {"size": 10**i, "seconds": 2 * s, "seconds_least": s, "sent": [10**i] * 3} for i, s in enumerate(seconds)
    ]


def test_scaling_finds_what_grows_faster_than_its_size(tmp_path):
    fine, bad = grown(1.0, 5.0, 50.0), grown(1.0, 5.0, 70.0)
    assert scaling.growth(bad, "seconds") == [0.5, 1.4] == scaling.growth(bad, "seconds_least")
    assert scaling.linear(fine) and not scaling.linear(bad)
    found = dict(zip(scaling.SERIES, (fine, bad, fine, fine), strict=True))
    text = scaling.markdown(found)
    assert text.count("grow at most in proportion") == 3 and text.count("grow faster than in proportion") == 1
    scaling.picture(found, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_tables_are_put_into_documents(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- table: begin -->\nold\n<!-- table: end -->\nrest <!-- other: begin --> stays\n")
    report.insert(page, "table", "| new |")
    expected = "# Page\n<!-- table: begin -->\n| new |\n<!-- table: end -->\nrest <!-- other: begin --> stays\n"
    assert page.read_text() == expected
    with pytest.raises(SystemExit, match="no place"):
        report.insert(page, "other", "text")


def test_forecasts_stand_next_to_what_was_measured():
    text = report.forecasts([result(0.2) | {"forecast": 0.1}, result(0.3)])
    assert "| ReLU, 10^6 | embedded | 0.100 | 0.200 | 0.50 |" in text and "0.3" not in text


@pytest.mark.parametrize(
    "value, text", [(0.123456, "0.123"), (12.345, "12.3"), (1234.5, "1234"), (1e-5, "1.00e-5"), (0, "0"), (None, "")]
)
def test_numbers(value, text):
    assert report.number(value) == text
    assert report.number(math.nan) == ""


def test_what_is_computed_in_the_clear():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(data.max_pool(x)[0, :, :, 0], [[5, 7], [13, 15]])
    w = data.logistic_fit(*data.logistic()[:2], data.logistic_rows(1024, 40))
    x, y, _, _ = data.logistic()
    assert np.mean((data.sigmoid(x @ w[:-1] + w[-1]) > 0.5) == y) > 0.9


def test_peers_are_run_in_their_own_environment(tmp_path):
    """With a stand-in for an interpreter; the libraries themselves are not installed here."""
    python = tmp_path / "python"
    said = """'{"peer": "SPU", "workload": "'$3'", "seconds": 1.5}'"""
    python.write_text(f"#!/bin/sh\necho a log line\necho {said}\n")
    python.chmod(0o755)
    name, interpreter = peers.peer(f"spu={python}")
    assert peers.run(name, interpreter, "relu", 3) == {"peer": "SPU", "workload": "relu", "seconds": 1.5}
    python.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    assert peers.run(name, interpreter, "relu", 3)["failed"] == "no such module"
    with pytest.raises(argparse.ArgumentTypeError, match="one of spu, crypten"):
        peers.peer("other=/bin/sh")


def double(rank, number):
    if number == 13:
        raise ValueError("unlucky")
    return rank, 2 * number


def test_parties_of_a_peer():
    assert parties.together(double, 2, [(3,), (4,)], 60) == [(0, 6), (1, 8)]
    with pytest.raises(RuntimeError, match="unlucky"):
        parties.together(double, 2, [(3,), (13,)], 60)
    line = parties.record("relu", [[1.0, 2.0], [3.0, 1.0]], [np.ones(3)], [np.array([1, 1, 1.5])], steps=2)
    assert line["seconds"] == 1.25 and line["seconds_least"] == 1.0 and line["error"] == 0.5 and line["runs"] == 2
