"""The scenarios of the talk: servers and every party a process of its own, with its own certificate and address."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

SCENARIOS = Path(__file__).resolve().parent.parent / "examples" / "scenarios"


def load(name):
    spec = importlib.util.spec_from_file_location(name, SCENARIOS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scenarios():
    sys.path.insert(0, str(SCENARIOS))
    before = set(sys.modules)
    try:
        yield {name: load(name) for name in (
            "private_prediction", "joint_prediction", "private_training", "joint_training", "federated_averaging",
        )}  # fmt: skip
    finally:
        sys.path.remove(str(SCENARIOS))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) and str(SCENARIOS) in str(sys.modules[name].__file__):
                del sys.modules[name]


@pytest.fixture(scope="module")
def stage(scenarios):
    """One description for all of them: a party has the roles that any scenario gives it."""
    roles = {}
    for module in scenarios.values():
        for party, given in module.ROLES.items():
            roles[party] = sorted({*roles.get(party, []), *given})
    with sys.modules["parties"].stage(roles) as place:
        yield place


def play(stage, module):
    return stage.play(Path(module.__file__), list(module.ROLES))


def facts(reports, party):
    return {name: value for line in reports[party] for name, value in line.items()}


@pytest.mark.timeout(800)
def test_private_prediction(stage, scenarios):
    module = scenarios["private_prediction"]
    told = facts(play(stage, module), "prediction-client")
    expected = module.provide_model().predict(module.provide_input(), verbose=0)
    np.testing.assert_allclose(told["probabilities"], expected, atol=1e-3)
    assert told["digits"] == np.argmax(expected, axis=1).tolist()
    assert "its policy allows predict" in told["refused"]


@pytest.mark.timeout(800)
def test_joint_prediction(stage, scenarios):
    module = scenarios["joint_prediction"]
    reports = play(stage, module)
    x = np.concatenate([module.provide_age() / 100, module.provide_gender(), module.provide_income() / 1e5], axis=1)
    expected = module.provide_model().predict(x, verbose=0)
    told = facts(reports, "result-receiver")
    np.testing.assert_allclose(told["scores"], expected, atol=1e-4)
    assert told["highest"] == int(expected.argmax())
    analyst = facts(reports, "analyst")
    assert "shape (20, 1)" in analyst["sent"] and "of age-provider, gender-provider, income-provider" in analyst["of"]
    whole, *alone = analyst["refused"]
    assert "lets results be opened to result-receiver" in whole and len(alone) == 3
    assert all("its policy allows predict" in text for text in alone)


@pytest.mark.timeout(800)
def test_private_and_joint_training(stage, scenarios):
    module = scenarios["private_training"]
    x, y = module.provide_data()
    cut = module.TRAINED
    plain = module.build_model(keras)
    losses = plain.fit(
        x[:cut], y[:cut], batch_size=module.BATCH, epochs=module.EPOCHS, shuffle=False, verbose=0
    ).history["loss"]
    quality = plain.evaluate(x[cut:], y[cut:], batch_size=module.BATCH, verbose=0, return_dict=True)

    reports = play(stage, module)
    owner, data = facts(reports, "model-owner"), facts(reports, "data-owner")
    assert data["shared"] == ["test/x", "test/y", "train/x", "train/y"]
    for name, value in quality.items():
        assert data["quality"][name] == pytest.approx(value, abs=2e-3)
    assert "opened to data-owner" in owner["refused"][0] and "its policy allows fit" in owner["refused"][1]

    together = facts(play(stage, scenarios["joint_training"]), "model-owner")
    assert len(together["refused"]) == 2
    for told in (owner, together):
        np.testing.assert_allclose(told["loss"], losses, atol=1e-3)
        for one, other in zip(told["weights"], plain.get_weights(), strict=True):
            np.testing.assert_allclose(one, np.ravel(other), atol=1e-3)


@pytest.mark.timeout(800)
def test_federated_averaging(stage, scenarios):
    module = scenarios["federated_averaging"]
    reports = play(stage, module)
    x, y = module.provide_data()
    plain = module.build_model()
    plain.fit(x[: module.TRAINED], y[: module.TRAINED], epochs=6, batch_size=25, verbose=0)
    accuracy = plain.evaluate(x[module.TRAINED :], y[module.TRAINED :], verbose=0)[1]
    told = facts(reports, "model-owner")
    assert len(told["accuracy"]) == module.ROUNDS and abs(told["accuracy"][-1] - accuracy) < 0.05
    for owner in module.OWNERS:
        assert facts(reports, owner) == {"rounds": module.ROUNDS, "refusals": []}


def test_hosts_where_namespaces_are_not_allowed(scenarios):
    hosts = sys.modules["hosts"]
    with hosts.Loopback(["a", "b"]) as place:
        addresses = [place.address(name) for name in ("a", "b")]
        assert len(set(addresses)) == 2 and all(address.startswith("127.") for address in addresses)
        assert place.command("a") == []


def test_a_party_that_fails_is_named(stage, scenarios, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("import sys\nif 'analyst' in sys.argv: raise SystemExit('no data here')\nimport time\n"
                      "time.sleep(60)\n")  # fmt: skip
    with pytest.raises(RuntimeError, match="(?s)broken: analyst failed.*no data here"):
        stage.play(script, ["analyst", "model-owner"])


def test_what_should_be_refused_must_be(scenarios):
    parties = sys.modules["parties"]
    with pytest.raises(SystemExit, match="should have been refused"):
        parties.refused(lambda: None)
