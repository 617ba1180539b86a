"""Policies as data: what they say, what they refuse, and that text and object are one."""

import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_keras.errors import InputError, PlanError
from private_keras.plan.provenance import Level
from private_keras.server.policy import KINDS, Policy
from private_keras.server.terms import Shows, Source, Terms

NAMES = st.lists(st.from_regex(r"[A-Za-z0-9-]{1,63}", fullmatch=True), max_size=4)
PLANS = st.lists(st.sampled_from([*KINDS, "aggregate:8", "sha256:" + "0" * 64]), min_size=1, max_size=4)


def test_nobody_but_the_owner_by_default():
    policy = Policy()
    assert (policy.use, policy.plans, policy.reveal_to, policy.uses, policy.until) == ((), (), (), None, None)
    assert Policy.from_json("") == policy == Policy.from_json("{}")


@given(
    NAMES, PLANS, NAMES, st.none() | st.integers(0, 1 << 62), st.none() | st.datetimes(timezones=st.just(datetime.UTC))
)
def test_text_and_back(use, plans, reveal_to, uses, until):
    policy = Policy(use, plans, reveal_to, uses, until)
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy(use[::-1] * 2, plans[::-1], reveal_to, uses, until).to_json() == policy.to_json()


@pytest.mark.parametrize("arguments", [
    {"use": "analyst"}, {"use": ["a b"], "plans": ["fit"]}, {"use": [1], "plans": ["fit"]},
    {"plans": ["train"]}, {"plans": ["aggregate:2"]}, {"plans": ["aggregate:9999"]}, {"plans": ["aggregate:"]},
    {"plans": ["sha256:12"]}, {"plans": [None]}, {"reveal_to": ["../x"]}, {"uses": -1},
    {"uses": True}, {"uses": 1.5}, {"until": "tomorrow"}, {"until": "2027-01-01T12:00"}, {"until": 7},
    {"until": datetime.datetime(2027, 1, 1)}, {"use": ["a"] * 1001, "plans": ["fit"]},
])  # fmt: skip
def test_refused(arguments):
    with pytest.raises(InputError, match=r"Policy.*expected"):
        Policy(**arguments)


@pytest.mark.parametrize("plans, least", [
    (["fit", "reveal"], None), (["aggregate"], 3), (["aggregate:8"], 8), (["aggregate:8", "aggregate:5"], 5),
    (["aggregate", "aggregate:5"], 3),
])  # fmt: skip
def test_how_many_owners_a_mean_needs(plans, least):
    assert Policy(["model-owner"], plans).least_owners == least


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", "[" * 10_000, '{"who": []}', '{"use": "x"}', '{"use": {}}', "x" * 200_000]
)
def test_texts_that_are_no_policy(text):
    with pytest.raises(InputError, match="expected"):
        Policy.from_json(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=3)
                    | st.dictionaries(st.sampled_from(["use", "plans", "reveal_to", "uses", "until"]), s, max_size=5)))
def test_any_json_is_a_policy_or_refused(document):
    try:
        policy = Policy.from_json(json.dumps(document))
    except InputError:
        return
    assert Policy.from_json(policy.to_json()) == policy


def test_a_date_counts_to_its_end():
    assert Policy(until="2027-01-01").until == datetime.datetime(2027, 1, 1, 23, 59, 59, 999_999, datetime.UTC)
    assert Policy(until=datetime.date(2027, 1, 1)) == Policy(until="2027-01-01")
    assert Policy(until="2027-01-01T02:00+02:00").until == datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)


SOURCES = st.builds(Source, st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), st.integers(0, 2), st.just("00"))


SHOWS = st.builds(
    Shows, st.sampled_from(Level), st.booleans(), st.frozensets(st.sampled_from(["train", "predict"]), max_size=2)
)


@given(st.dictionaries(SOURCES, SHOWS, max_size=4), SOURCES)
def test_terms_as_text_and_loaded(shown, other):
    terms = Terms(frozenset(shown.items()))
    assert terms.sources == set(shown) and not Terms().sources
    assert Terms.from_list(json.loads(json.dumps(terms.to_list()))) == terms
    loaded = Terms().loaded(other, "x", 4)
    assert loaded == Terms.of(other, "x", 4) and loaded.direct == other and dict(loaded.shows)[other].level is Level.RAW


@pytest.mark.parametrize(
    "items",
    [
        3, [3], [[1, "n", 0, "00", 1, True, []]], [["o", "n", -1, "00", 1, True, []]],
        [["o", "n", 0, "00", 4, True, []]], [["o", "n", 0, "00", 1, 1, []]], [["o", "n", 0, "00", 1, True, [1]]],
        [["o", "n", 0, "00", 1, True, "x"]], [["o", "n", 0, "00", 1, True]], [["o", "n", 0, "00", 1, True, []]] * 2,
    ],
)  # fmt: skip
def test_other_texts_are_no_terms(items):
    with pytest.raises(PlanError):
        Terms.from_list(items)
