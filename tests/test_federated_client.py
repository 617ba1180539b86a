"""A data owner: what it shares, under which policy, what it refuses to take part in, and what it is told."""

import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.errors import DeadlineExceeded, FileError, InputError, ServerUnavailable
from private_keras.federated import Client, blob, round, vector
from private_keras.federated.board import Tensor
from private_keras.server.policy import Policy
from tests.boards import Space
from tests.federation import OWNERS, SHORT, Automatic, announced, client, data, flat, model, server, share, together

ROWS = {"a": 10, "b": 40, "c": 25}


@pytest.fixture
def space():
    return Space()


def fit_all(space, owners, rounds=2, options=None, client_fit=None, own_models=None, **server_options):
    """A federation of owners with data of their own; the server's model and the clients."""
    made = model(**(options or {}))
    clients = [client(space, o, data(ROWS[o], ord(o)), own_models and own_models()) for o in owners]
    running = server(space, made, owners, **server_options)
    together(
        lambda: running.fit(rounds=rounds, verbose=0),
        *(lambda each=each: each.fit(**{"shuffle": False, "batch_size": 8, "patience": 300, **(client_fit or {})})
          for each in clients),
    )  # fmt: skip
    return made, clients


@pytest.mark.parametrize("norm", [False, True], ids=["dense", "batch normalisation"])
def test_federated_averaging_is_that_of_plain_keras(space, norm):
    """McMahan et al., algorithm 1, in NumPy and Keras, on the same data."""
    made, clients = fit_all(space, ["a", "b", "c"], options={"norm": norm}, client_fit={"epochs": 2})
    plain = model(norm=norm)
    for _ in range(2):
        start, total = flat(plain), 0.0
        for owner, rows in ROWS.items():
            local = model(norm=norm)
            like = vector.values(vector.averaged(local))
            vector.assign(vector.averaged(local), vector.cut(start, like))
            local.fit(*data(rows, ord(owner)), epochs=2, batch_size=8, shuffle=False, verbose=0)
            total = total + rows / sum(ROWS.values()) * flat(local)
        vector.assign(vector.averaged(plain), vector.cut(total, vector.values(vector.averaged(plain))))
    np.testing.assert_allclose(flat(made), flat(plain), atol=1e-5)
    for each in clients:
        np.testing.assert_array_equal(flat(each.model), flat(made))
        assert each.model.history.history["used"] == [1.0, 1.0] and not each.refusals
        assert each.model.history.epoch == [0, 1] and {"loss", "mae"} <= set(each.model.history.history)


def test_gradients_of_all_owners_are_the_gradient_of_all_data(space):
    """Two steps of the server's SGD are two steps of plain SGD over all rows at once."""
    made, _ = fit_all(
        space, ["a", "b", "c"], share="gradient", optimizer=keras.optimizers.SGD(0.1), client_fit={"shuffle": True}
    )  # fmt: skip
    plain = model()
    x, y = (np.concatenate(parts) for parts in zip(*(data(rows, ord(o)) for o, rows in ROWS.items()), strict=True))
    plain.fit(x, y, batch_size=len(x), epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(flat(made), flat(plain), atol=1e-5)


def test_an_owner_may_bring_its_model(space):
    made, clients = fit_all(space, ["a", "b", "c"], own_models=lambda: lambda: model(seed=40))
    assert all(np.array_equal(flat(each.model), flat(made)) for each in clients)


def run_against(space, action, rounds=1, when=lambda current: True, others=("a", "b", "c"), **options):
    """Other owners share by themselves; `action` runs beside them, as owner d."""
    Automatic(space, dict.fromkeys(range(rounds), others), when=when)
    running = server(space, **{"deadline": 600.0, **options})
    return together(lambda: running.fit(rounds=rounds, verbose=0), action)[1]


def until(condition):
    while not condition():
        time.sleep(0.005)


def has_shared(space, owner, current):
    return (owner, f"fed/update.{current.place}") in space.kept


@pytest.mark.parametrize("digests", [None, ["aggregate:3", "sha256:" + "b" * 64]])
def test_what_goes_with_an_update_says_what_may_become_of_it(space, digests):
    shared = {}

    class Watching(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if (party, call) == ("mo", "mean"):
                shared.update({key: each for key, each in self.space.kept.items() if key[0] == "d"})

    one = client(space, "d", data(12), plans=digests)
    Watching(space, {0: ["a", "b", "c"]})
    running = server(space, minimum=4)
    together(lambda: running.fit(rounds=1, verbose=0), lambda: one.fit(patience=300))
    ((owner, name), kept), = shared.items()
    assert owner == "d" and name == f"fed/update.{announced(space).before}" and kept.about == ""
    policy = kept.policy
    assert (policy.use, policy.reveal_to, policy.uses) == (("mo",), ("mo",), 1)
    assert policy.plans == (("aggregate:4",) if digests is None else tuple(digests))
    assert 0 < policy.until.timestamp() - time.time() < 26 * 3600
    assert not any(owner == "d" for owner, _ in space.kept)  # it is deleted when the round is over


def test_a_late_owner_is_told_and_takes_part_in_the_next_round(space):
    training = []

    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if not training:
                training.append(True)
                until(lambda: announced(space).number == 1)

    def late():
        one = client(space, "d", data(12))
        with pytest.warns(UserWarning, match="mo/fed, round 1: the round ended before"):
            history = one.fit(callbacks=[Slow()], patience=300)
        return one, history

    def when(current):
        return training if current.number == 0 else has_shared(space, "d", current)

    one, history = run_against(space, late, rounds=2, enough=3, when=when)
    assert history.history["used"] == [0.0, 1.0] and len(one.refusals) == 1


def test_an_update_that_comes_after_the_end_is_reported(space):
    """The round ends between the owner's look and the end of its upload."""
    putting = []

    class Hook(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if (party, call) == ("d", "put") and ".0.0" in name:
                putting.append(True)
                until(lambda: announced(space).number == 1)

    Hook(space, dict.fromkeys(range(2), ["a", "b", "c"]),
         when=lambda current: putting if current.number == 0 else has_shared(space, "d", current))  # fmt: skip
    running, one = server(space, enough=3), client(space, "d", data(12))
    with pytest.warns(UserWarning, match="came after the round's end"):
        _, history = together(lambda: running.fit(rounds=2, verbose=0), lambda: one.fit(patience=300))
    assert history.history["used"] == [0.0, 1.0]


def test_who_joins_late_takes_part_from_then_on(space):
    def join():
        until(lambda: announced(space) is not None and announced(space).number == 2)
        return client(space, "d", data(12)).fit(patience=300)

    def when(current):
        return current.number < 2 or has_shared(space, "d", current)

    history = run_against(space, join, rounds=4, enough=3, when=when)
    assert history.epoch == [2, 3] and history.history["used"] == [1.0, 1.0]


def test_who_comes_after_the_end_gets_the_final_model(space):
    Automatic(space)
    made = model()
    server(space, made).fit(rounds=1, verbose=0)
    late = client(space, "d", data(12))
    assert late.fit(patience=5).epoch == []
    np.testing.assert_array_equal(flat(late.model), flat(made))


def test_two_processes_of_one_owner(space):
    """The second one does not overwrite what the first has shared, and counts once."""
    looked = []

    class Watching(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            looked.append("trained")

    def second():
        until(lambda: announced(space) is not None)
        share(space, "d", announced(space), np.zeros(sum(announced(space).sizes)))
        one = client(space, "d", data(12))
        shown = one._announcements.is_on
        one._announcements.is_on = lambda current: (shown(current), looked.append("looked"))[0]
        with pytest.warns(UserWarning, match="another process of this owner"):
            return one.fit(callbacks=[Watching()], patience=300)

    # a and b come when the second process has seen that the round is on; d makes three.
    Automatic(space, {0: ["a", "b"]}, when=lambda current: "looked" in looked)
    running = server(space, enough=3)
    history = together(lambda: running.fit(rounds=1, verbose=0), second)[1]
    assert history.history["used"] == [0.0] and announced(space).used == ("a", "b", "d")


def test_an_owner_killed_while_it_shares_leaves_nothing_and_comes_back(space):
    class Killed(BaseException):
        pass

    killed = []

    class Killing(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if (party, call) == ("d", "put") and not killed:
                killed.append(True)
                raise Killed

    Killing(space, dict.fromkeys(range(2), ["a", "b", "c"]))
    running = server(space, minimum=4)

    def twice():
        with pytest.raises(Killed):
            client(space, "d", data(12)).fit(patience=300)
        assert not any(owner == "d" for owner, _ in space.kept)
        return client(space, "d", data(12)).fit(patience=300)

    history = together(lambda: running.fit(rounds=2, verbose=0), twice)[1]
    assert history.history["used"] == [1.0, 1.0]


def test_servers_that_are_away_for_a_while(space):
    calls = []

    class Away(Automatic):
        def __call__(self, party, call, name):
            super().__call__(party, call, name)
            if party == "d":
                calls.append(call)
                if len(calls) in (2, 3, 6):
                    raise ServerUnavailable("away")

    Away(space, dict.fromkeys(range(2), ["a", "b", "c"]))
    running = server(space, minimum=4)
    history = together(lambda: running.fit(rounds=2, verbose=0), lambda: client(space, "d", data(12)).fit())[1]
    assert history.history["used"] == [1.0, 1.0]


def test_no_round_within_patience(space):
    with pytest.raises(DeadlineExceeded, match="no new round of mo/fed within"):
        client(space, "d", data(12)).fit(patience=SHORT)


def begun(space, made=None, **options):
    """A federation whose first round is on; nobody waits for it."""
    class Stop(Exception):
        pass

    def hook(party, call, name):
        if (party, call) == ("mo", "listed") and announced(space) is not None:
            space.before = None
            raise Stop

    space.before = hook
    with pytest.raises(Stop):
        server(space, made, **options).fit(rounds=1, verbose=0)


@pytest.mark.parametrize("options, fit, message", [
    ({"data": data(12), "minimum": 4}, {}, "at least 4 owners.*nothing was shared"),
    ({"data": data(12), "model": lambda: model(norm=True)}, {}, "a model of 31 weights"),
    ({"data": data(12), "model": lambda: keras.Sequential([keras.layers.Dense(1)])}, {}, "compiled Keras model"),
    ({"data": data(12), "model": lambda: 7}, {}, "compiled Keras model"),
    ({"data": (np.full((12, 4), np.inf, "float32"), np.zeros((12, 1)))}, {}, "diverged. Nothing was shared"),
    ({"data": (1e3 * data(12)[0], 1e3 * data(12)[1])}, {"epochs": 3}, "length up to 64. Received: a longer|diverged"),
    ({"data": data(2000)}, {}, "at most 1000 examples.*nothing was shared"),
    ({"data": data(12), "owner": "stranger"}, {}, "among its owners"),
    ({"data": data(12)}, {"epochs": 0}, "epochs: expected"),
], ids=range(9))  # fmt: skip
def test_what_an_owner_does_not_take_part_in(space, options, fit, message):
    begun(space, examples=1000)
    for (_, name), kept in space.kept.items():  # so that a stranger sees it at all
        if not name.endswith("state"):
            kept.policy = Policy([*OWNERS, "stranger"], ["reveal"], [*OWNERS, "stranger"])
    options = dict(options)
    board = space.of(options.pop("owner", "d"))
    one = Client("mo/fed", options.pop("data"), options.pop("model", None), cluster=board, **options)
    with pytest.raises(InputError, match=message):
        one.fit(patience=5, **fit)
    assert not any(name.startswith("fed/update") for _, name in space.kept)


def test_an_update_is_shortened_to_the_norm(space):
    begun(space, clip_norm=0.01)
    one = client(space, "d", data(12))
    with pytest.raises(DeadlineExceeded):
        one.fit(patience=0.5)
    kept = space.kept["d", f"fed/update.{announced(space).place}"]
    words, fraction = kept.tensors["update/0"]
    assert np.linalg.norm(words.astype(np.int64) / 2.0**fraction) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("text, error", [
    ('{"class_name": "Lambda", "config": {"function": ["4wAAAA==", null, null]}}', FileError),
    ('{"class_name": "os.system", "config": {}}', FileError), ("", FileError), ("[[[[", FileError),
    ('{"class_name": "Sequential", "config": {"layers": [{"class_name": "Evil", "module": "evil", "config": {}}]}}',
     FileError),
])  # fmt: skip
def test_a_description_runs_nothing(space, text, error):
    begun(space)
    name = f"fed/model.{announced(space).token}"
    policy = space.kept["mo", name].policy
    space.of("mo").put(name, {"blob": Tensor(blob.to_tensor(text.encode()), 0)}, "", policy)
    with pytest.raises(error):
        client(space, "d", data(12)).fit(patience=5)


def test_weights_that_are_none_are_refused(space):
    begun(space)
    current = announced(space)
    name = f"fed/round.{current.place}"
    kept = space.kept["mo", name]
    for data_ in (b"", b"x" * 17, blob.pack([np.full(sum(current.sizes), np.nan, np.float32)])):
        space.of("mo").put(name, {"blob": Tensor(blob.to_tensor(data_), 0)}, kept.about, kept.policy)
        with pytest.raises(InputError, match="weights"):
            client(space, "d", data(12)).fit(patience=5)


@settings(deadline=None, max_examples=200)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=5), s, max_size=5),
), st.sampled_from(["", "rounds", "owners", "sizes", "refused", "limit", "fraction", "before", "token", "deadline",
                    "used", "done", "clip", "number", "share", "format"]))  # fmt: skip
def test_any_json_is_a_round_or_refused(document, key):
    plain = json.loads(BASE.to_json())
    text = json.dumps({**plain, key: document} if key else document)
    try:
        found = round.from_json(text)
    except InputError:
        return
    assert round.from_json(found.to_json()) == found
    found.plan(found.owners)


BASE = round.Round("0a1b2c3d", 1, 0, 5, ("a", "b", "c"), 3, 60.0, "update", 4.0, False, 100, 20, (10, 3))


@given(st.binary(max_size=100))
def test_bytes_as_integers(data_):
    tensor = blob.to_tensor(data_)
    assert tensor.shape[0] == 1 and 0 <= tensor.min() and tensor.max() < 2**40
    assert blob.from_tensor(tensor.astype(np.float64), "x") == data_


@given(st.lists(st.integers(-(2**45), 2**45), min_size=1, max_size=30))
def test_integers_that_are_no_bytes(numbers):
    try:
        blob.from_tensor(np.array(numbers), "x")
    except InputError:
        return
    assert all(0 <= number < 2**40 for number in numbers)


@pytest.mark.parametrize("count, sizes", [(1, (1,)), (1 << 16, (1 << 16,)), ((1 << 16) + 3, (1 << 16, 3))])
def test_parts(count, sizes):
    values = np.arange(float(count))
    assert vector.sizes(count) == sizes
    np.testing.assert_array_equal(np.concatenate(vector.parts(values, sizes), axis=1)[0], values)


@pytest.mark.parametrize("arguments", [
    ("fed", data(3)), ("mo/", data(3)), ("m o/fed", data(3)), ("mo/a/b", data(3)), (7, data(3)),
    ("mo/fed", (data(3)[0], data(4)[1])), ("mo/fed", (data(3)[0],)), ("mo/fed", ()), ("mo/fed", data(0)),
    ("mo/fed", [1, 2]),
], ids=str)  # fmt: skip
def test_arguments_that_do_not_fit(space, arguments):
    with pytest.raises(InputError, match="expected"):
        Client(*arguments, cluster=space.of("d"))


def test_data_in_batches(space):
    x, y = data(20)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(6)
    history = run_against(space, lambda: Client("mo/fed", batches, examples=20, cluster=space.of("d")).fit(), minimum=4)
    assert history.history["used"] == [1.0]


def test_one_line_a_round(space, capsys):
    run_against(space, lambda: client(space, "d", data(12)).fit(verbose=1), minimum=4)
    assert capsys.readouterr().out.startswith("mo/fed, round 1/1: loss: ")
