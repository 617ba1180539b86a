"""The model's owner: what it opens, whom it waits for, what it refuses, and how it goes on after its process died."""

import keras
import numpy as np
import pytest

from private_keras.errors import (
    ClusterError,
    DeadlineExceeded,
    HandleNotFound,
    InputError,
    SecurityError,
    ServerUnavailable,
    UnsupportedError,
)
from private_keras.federated import collecting
from private_keras.federated.board import Apart, Tensor, Unusable
from private_keras.models import Sequential
from tests.boards import MemoryBoard, Space
from tests.federation import OWNERS, SHORT, Automatic, announced, data, flat, model, policy, server, share, update


@pytest.fixture
def space():
    return Space()


@pytest.mark.parametrize("norm", [False, True], ids=["dense", "batch normalisation"])
def test_the_model_moves_by_the_weighted_mean(space, norm):
    made = model(norm=norm)
    before = flat(made)
    owners = Automatic(space)
    history = server(space, made, validation_data=data(50)).fit(rounds=2, verbose=0)
    expected = before + sum(owners.mean(OWNERS, number, before.size) for number in range(2))
    np.testing.assert_allclose(flat(made), expected, atol=2e-6)
    assert history.epoch == [0, 1] and history.history["owners"] == [4.0, 4.0]
    assert history.history["val_loss"][-1] == pytest.approx(made.evaluate(*data(50), verbose=0)[0])


def test_all_that_is_opened_is_one_mean_a_round(space):
    Automatic(space)
    server(space).fit(rounds=3, verbose=0)
    assert space.opened == [("mo", "mean of 4")] * 3
    assert announced(space).done


def test_a_server_optimizer_takes_minus_the_mean_for_a_gradient(space):
    made, plain = model(), model()
    owners = Automatic(space)
    server(space, made, optimizer=keras.optimizers.Adam(0.05)).fit(rounds=3, verbose=0)
    adam = keras.optimizers.Adam(0.05)
    for number in range(3):
        step = owners.mean(OWNERS, number, flat(plain).size)
        gradients = np.split(-step, np.cumsum([v.value.numpy().size for v in plain.trainable_variables])[:-1])
        adam.apply(
            [g.reshape(v.shape).astype("float32") for g, v in zip(gradients, plain.trainable_variables, strict=True)],
            plain.trainable_variables,
        )
    np.testing.assert_allclose(flat(made), flat(plain), atol=1e-5)


def test_owners_who_drop_out_are_not_waited_for_beyond_the_deadline(space):
    made = model()
    before = flat(made)
    owners = Automatic(space, {0: ["a", "b", "d"], 1: ["b", "c", "d"]})
    history = server(space, made, deadline=SHORT).fit(rounds=2, verbose=0)
    expected = before + owners.mean(["a", "b", "d"], 0, before.size) + owners.mean(["b", "c", "d"], 1, before.size)
    np.testing.assert_allclose(flat(made), expected, atol=2e-6)
    assert history.history["owners"] == [3.0, 3.0] and announced(space).used == ("b", "c", "d")


def test_enough_updates_end_a_round_at_once(space):
    Automatic(space, {0: ["a", "b", "c"]})
    history = server(space, deadline=1000.0, enough=3).fit(rounds=1, verbose=0)
    assert history.history["owners"] == [3.0]


def test_too_few_owners_and_on_from_there(space):
    Automatic(space, {1: ["a", "b"]})
    with pytest.raises(DeadlineExceeded, match=r"round 2: expected .* at least 3 .*Received: those of a, b.*resume"):
        server(space, deadline=SHORT).fit(rounds=2, verbose=0, patience=SHORT)
    Automatic(space)
    made = model()
    history = server(space, made).fit(rounds=2, verbose=0, resume=True)
    assert history.epoch == [0, 1] and history.history["owners"] == [4.0, 4.0]


def test_waits_for_the_minimum_after_the_deadline(space):
    automatic = Automatic(space, {0: ["a", "b"]})
    looks = []

    def before(party, call, name):
        automatic(party, call, name)
        looks.append(call)
        if len(looks) == 14:
            current = announced(space)
            share(space, "c", current, update("c", 0, sum(current.sizes)))

    space.before = before
    history = server(space, deadline=0.01).fit(rounds=1, verbose=0, patience=300)
    assert history.history["owners"] == [3.0]


def _other_shape(space, current):
    tensors = {"examples": Tensor(np.array([[5]]), 0), "update/0": Tensor(np.zeros((1, 3)), current.fraction)}
    space.of("d").put(f"fed/update.{current.place}", tensors, "", policy())


def _other_fraction(space, current):
    size = sum(current.sizes)
    tensors = {"examples": Tensor(np.array([[5]]), 0), "update/0": Tensor(np.zeros((1, size)), current.fraction - 1)}
    space.of("d").put(f"fed/update.{current.place}", tensors, "", policy())


def _no_count(space, current):
    tensors = {"update/0": Tensor(np.zeros((1, sum(current.sizes))), current.fraction)}
    space.of("d").put(f"fed/update.{current.place}", tensors, "", policy())


def _other_round(space, current):
    share(space, "d", current, np.zeros(sum(current.sizes)), place=f"{current.token}.7.0")


@pytest.mark.parametrize("shared, reason", [
    (_other_shape, "other shapes"), (_other_fraction, "other shapes"), (_no_count, "other shapes"),
    (_other_round, "which is not on"),
])  # fmt: skip
def test_what_an_owner_shares_in_another_form_is_refused_and_it_is_told(space, shared, reason):
    made = model()
    before = flat(made)
    automatic = Automatic(space, {0: ["a", "b", "c"]})
    started = []

    def hook(party, call, name):
        automatic(party, call, name)
        if announced(space) is not None and not started:
            started.append(True)
            shared(space, announced(space))

    space.before = hook
    history = server(space, made, deadline=SHORT).fit(rounds=1, verbose=0)
    assert history.history["owners"] == [3.0]
    np.testing.assert_allclose(flat(made), before + automatic.mean(["a", "b", "c"], 0, before.size), atol=2e-6)
    refused = dict(announced(space).refused)
    assert set(refused) == {"d"} and reason in refused["d"]


def test_an_owner_who_withdraws_its_update_at_the_last_moment(space):
    made = model()
    before = flat(made)

    class Withdrawing(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if (party, call) == ("mo", "mean"):
                self.space.kept.pop(("d", f"fed/update.{announced(self.space).place}"), None)

    owners = Withdrawing(space)
    history = server(space, made, deadline=SHORT).fit(rounds=1, verbose=0)
    assert history.history["owners"] == [3.0] and set(dict(announced(space).refused)) == {"d"}
    np.testing.assert_allclose(flat(made), before + owners.mean(["a", "b", "c"], 0, before.size), atol=2e-6)


def test_an_owner_whose_policy_refuses_is_left_out_from_then_on(space):
    class Refusing(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if call == "mean" and not refused:
                refused.append(name)
                raise Unusable("d", "its policy does not allow it", True)

    refused = []
    Refusing(space)
    history = server(space, deadline=SHORT).fit(rounds=2, verbose=0)
    assert history.history["owners"] == [3.0, 3.0]
    assert "policy" in dict(announced(space).refused)["d"]


def test_an_owner_whose_parts_do_not_belong_together_costs_one_attempt(space):
    class Lying(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if call == "job" and not found:
                found.append(name)
                raise Apart(["d"], "server0: input 'd/update/0' does not belong together")

    found = []
    Lying(space)
    with pytest.warns(UserWarning, match="'d/update/0' does not belong together. The round begins anew"):
        history = server(space, deadline=SHORT).fit(rounds=2, verbose=0)
    assert history.history["owners"] == [3.0, 3.0]
    assert "do not belong together" in dict(announced(space).refused)["d"]


def test_a_mean_of_nothing_is_warned_of(space):
    Automatic(space, counts=dict.fromkeys(OWNERS, 0))
    made = model()
    before = flat(made)
    with pytest.warns(UserWarning, match="the mean is 0"):
        server(space, made).fit(rounds=1, verbose=0)
    np.testing.assert_allclose(flat(made), before, atol=1e-5)


def test_shares_of_who_is_no_owner_are_not_looked_at(space):
    class Stranger(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            current = announced(space)
            if (party, call) == ("mo", "listed") and current is not None and not current.done:
                share(self.space, "stranger", current, np.ones(sum(current.sizes)))

    Stranger(space)
    history = server(space).fit(rounds=1, verbose=0)
    assert history.history["owners"] == [4.0] and announced(space).used == tuple(OWNERS)


def test_a_job_that_fails_lets_owners_share_anew(space):
    made = model()
    before = flat(made)
    fails = [SecurityError("used up"), ClusterError("lost")]

    class Failing(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if call == "job" and fails:
                raise fails.pop()

    owners = Failing(space)
    with pytest.warns(UserWarning, match="The round begins anew"):
        history = server(space, made).fit(rounds=1, verbose=0)
    assert history.history["owners"] == [4.0] and announced(space).before.endswith(".0.2")
    np.testing.assert_allclose(flat(made), before + owners.mean(OWNERS, 0, before.size), atol=2e-6)


def test_a_job_that_fails_again_and_again_ends_the_fit(space):
    class Failing(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if call == "job":
                raise SecurityError("no")

    Failing(space)
    with pytest.raises(SecurityError, match="no"), pytest.warns(UserWarning):
        server(space).fit(rounds=1, verbose=0)


def test_a_mean_that_cannot_be_one_is_not_used(space, monkeypatch):
    """As of servers that do not keep to the plan."""
    made = model()
    before = flat(made)
    Automatic(space)
    real = MemoryBoard.mean
    monkeypatch.setattr(
        MemoryBoard, "mean", lambda *given: {name: each + 1e4 for name, each in real(*given).items()}
    )  # fmt: skip
    with pytest.raises(SecurityError, match="longer than any update"), pytest.warns(UserWarning, match="begins anew"):
        server(space, made).fit(rounds=1, verbose=0)
    np.testing.assert_array_equal(flat(made), before)


def test_servers_that_are_away_for_a_while(space):
    away = {20, 21, 22, 35}
    calls = []

    class Away(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            calls.append(call)
            if party == "mo" and call != "job" and len(calls) in away:
                raise ServerUnavailable("away")

    Away(space)
    assert server(space).fit(rounds=3, verbose=0).history["owners"] == [4.0] * 3
    assert len(calls) > max(away)


class Killed(BaseException):
    """What no code catches."""


@pytest.mark.parametrize("optimizer", [None, lambda: keras.optimizers.Adam(0.05)], ids=["mean", "adam"])
@pytest.mark.parametrize("when", ["put", "job", "mean", "forget"])
def test_killed_and_resumed(space, optimizer, when):
    """Whatever it was doing in the third round: the weights are those of a fit that nobody interrupted."""
    made = lambda: None if optimizer is None else optimizer()  # noqa: E731
    whole = model()
    undisturbed = Space()
    Automatic(undisturbed)
    expected = server(undisturbed, whole, optimizer=made()).fit(rounds=5, verbose=0)

    class Killing(Automatic):
        alive = True

        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            current = announced(self.space)
            if self.alive and (party, call) == ("mo", when) and current is not None and current.number == 2:
                self.alive = False
                raise Killed

    Killing(space)
    with pytest.raises(Killed):
        server(space, model(), optimizer=made()).fit(rounds=5, verbose=0)
    resumed = model(seed=99)
    history = server(space, resumed, optimizer=made()).fit(rounds=5, verbose=0, resume=True)
    assert history.epoch == expected.epoch and history.history == expected.history
    np.testing.assert_allclose(flat(resumed), flat(whole), atol=1e-5)  # five means, each within a millionth


def test_resumed_with_more_rounds_and_with_none_left(space):
    made = model()
    Automatic(space)
    server(space, made).fit(rounds=2, verbose=0)
    again = model(seed=8)
    history = server(space, again).fit(rounds=2, verbose=0, resume=True)
    assert history.epoch == [0, 1] and announced(space).done
    np.testing.assert_array_equal(flat(again), flat(made))
    history = server(space, again).fit(rounds=3, verbose=0, resume=True)
    assert history.epoch == [0, 1, 2]


def test_nothing_to_resume(space):
    with pytest.raises(HandleNotFound):
        server(space).fit(rounds=1, resume=True)


def test_a_state_of_another_model_is_refused(space):
    Automatic(space)
    server(space).fit(rounds=1, verbose=0)
    with pytest.raises(InputError, match="expected the weights of this model"):
        server(space, model(norm=True)).fit(rounds=2, resume=True)


def test_callbacks_see_rounds_as_epochs_and_may_stop(space):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(("begin", epoch))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(("end", epoch, sorted(logs)))
            self.model.stop_training = epoch == 1

    Automatic(space)
    history = server(space, validation_data=data(20), callbacks=[Watch()]).fit(rounds=9, verbose=0)
    logs = ["owners", "val_loss", "val_mae"]
    assert seen == [("begin", 0), ("end", 0, logs), ("begin", 1), ("end", 1, logs)]
    assert history.epoch == [0, 1] and announced(space).done


def test_one_line_a_round(space, capsys):
    Automatic(space)
    server(space, validation_data=data(20)).fit(rounds=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("round 2/2: 4 of 4 owners, val_")


def test_a_new_fit_leaves_nothing_of_the_one_before(space):
    Automatic(space)
    made = server(space)
    made.fit(rounds=1, verbose=0)
    first = announced(space).token
    made.fit(rounds=1, verbose=0)
    mine = [name for owner, name in space.kept if owner == "mo"]
    assert len(mine) == 3 and not any(first in name for name in mine)
    made.forget()
    assert not any(owner == "mo" for owner, _ in space.kept)


@pytest.mark.parametrize("options", [
    {"owners": ["a", "b"]}, {"owners": ["a", "b", "b"]}, {"owners": "abc"}, {"owners": ["a", "b", "../c"]},
    {"minimum": 2}, {"minimum": 5}, {"enough": 2}, {"enough": 5}, {"deadline": 0}, {"deadline": float("inf")},
    {"share": "weights"}, {"clip_norm": 0.0}, {"clip_norm": float("nan")}, {"limit": 1e6}, {"examples": 1 << 21},
    {"examples": 0}, {"minimum": True},
], ids=str)  # fmt: skip
def test_arguments_that_do_not_fit(space, options):
    with pytest.raises(InputError, match="expected"):
        server(space, **options)


def test_models_that_do_not_fit(space):
    for wrong in (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), 7, keras.Sequential()):
        with pytest.raises(InputError, match="compiled Keras model"):
            server(space, wrong)
    private = Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    private.compile("sgd", "mse")
    with pytest.raises(UnsupportedError, match="plain Keras model"):
        server(space, private)


def test_seeds_are_fresh(space, monkeypatch):
    seeds = []
    plain = collecting.secrets.randbelow
    monkeypatch.setattr(collecting.secrets, "randbelow", lambda most: seeds.append(plain(most)) or seeds[-1])
    Automatic(space)
    server(space).fit(rounds=3, verbose=0)
    assert len(set(seeds)) == 3
