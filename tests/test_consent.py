"""What a server lets others do with named shares: one rule after the other, without servers."""

import datetime

import numpy as np
import pytest

from private_keras.errors import SecurityError
from private_keras.plan.aggregate import aggregate_plan
from private_keras.plan.builder import PlanBuilder
from private_keras.plan.provenance import Level
from private_keras.server import asked as asking
from private_keras.server.asked import Asked
from private_keras.server.consent import Consent
from private_keras.server.policy import Policy
from private_keras.server.terms import Shows, Source, Terms

F = 18
X = Source("hospital", "patients/x", 3, "0a" * 8)
M = Source("maker", "digits", 1, "0b" * 8)
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def consent(x=None, m=None, parties=None, **policy):
    """Policies of the two sources."""
    given = {X: Policy(**policy) if x is None else x, M: m}
    return Consent(given.get, parties, lambda: NOW)


ALL = {"use": ["analyst"], "plans": ["fit", "evaluate", "predict", "compute"], "reveal_to": ["analyst"]}


def plan(kind="predict", receivers=("client",), owner="hospital", value="layer", rows=8, weights="client"):
    b = PlanBuilder()
    b.input("x", (rows, 4), F, owner)
    b.input("w", (4, 4), F, weights)
    layer = b.add("truncate", b.add("matmul", "x", "w"), bits=F)
    made = {
        "layer": lambda: layer,
        "mean": lambda: b.add("reduce_sum", layer, axes=[0]),
        "raw": lambda: b.add("add", "x", b.add("broadcast", b.add("reduce_sum", "w", axes=[0]), shape=[rows, 4])),
        "own": lambda: b.add("relu", "w"),
    }
    b.output(made[value](), "y", list(receivers))
    return b.build("p", kind)


def asked(made, terms=None, rows=("x",), caller="analyst", **more):
    return Asked(caller, made, {"x": Terms.of(X, row=4)} if terms is None else terms, frozenset(rows), **more)


def refused(rules, job, *words):
    with pytest.raises(SecurityError) as caught:
        rules.check(job)
    for word in ("hospital/patients/x", "Asked: ", "Ask hospital to", *words):
        assert word in str(caught.value), str(caught.value)


def test_what_is_allowed():
    granted = consent(**ALL).check(asked(plan()))
    assert granted.used == (X,) and granted.opened == {"y": {X: Level.ROWS}} and not granted.kept
    assert consent(**ALL).check(asked(plan("evaluate", value="mean"))).reduced == {"x"}


def test_nobody_by_default():
    refused(consent(), asked(plan()), "does not let you use them")


def test_own_data_are_under_no_policy_but_others_are():
    own = asked(plan("reveal", value="raw", owner="client"), {"x": Terms()}, caller="hospital")
    assert consent().check(own).opened == {}
    rules = consent(**ALL)
    refused(rules, asked(plan("predict", receivers=["receiver"])), "to analyst", "for receiver")


def test_an_owner_may_always_receive_what_depends_on_its_data_alone():
    rules = consent(use=["analyst"], plans=["predict"])
    rules.check(asked(plan(receivers=["hospital"])))
    both = {"x": Terms.of(X, row=4), "w": Terms.of(M, row=4)}
    mine = Policy(use=["analyst"], plans=["predict"], reveal_to=["analyst"])
    joint = consent(Policy(**ALL), mine)
    joint.check(asked(plan(weights="maker"), both))
    with pytest.raises(SecurityError, match="maker/digits.*for hospital"):
        joint.check(asked(plan(weights="maker", receivers=["hospital"]), both))


def test_all_owners_must_allow():
    both = {"x": Terms.of(X, row=4), "w": Terms.of(M, row=4)}
    job = asked(plan(weights="maker"), both)
    consent(Policy(**ALL), Policy(**ALL)).check(job)
    with pytest.raises(SecurityError, match="maker/digits.*does not let you use them"):
        consent(Policy(**ALL), Policy()).check(job)
    with pytest.raises(SecurityError, match="maker/digits.*knows nothing"):
        consent(Policy(**ALL), None).check(job)


def test_kinds():
    for kind in ("predict", "evaluate", "fit", "compute"):
        rules = consent(use=["analyst"], plans=[kind], reveal_to=["analyst"])
        for other, asks in (("predict", "predict"), ("evaluate", "evaluate"), ("fit", "train"), ("compute", "compute")):
            job = asked(plan(asks, value="mean"))
            if other == kind:
                rules.check(job)
            else:
                refused(rules, job, f"allows {kind}", f"of kind '{other}'", "sha256:")


def test_what_kinds_may_open():
    rules = consent(**ALL)
    refused(rules, asked(plan("evaluate")), "open what is reduced over rows at most", "shows results for single rows")
    refused(rules, asked(plan("train")), "'fit'")
    refused(rules, asked(plan(value="raw")), "shows the data themselves")
    refused(rules, asked(plan("reveal", value="raw")), "of kind 'reveal'")
    consent(**{**ALL, "plans": ["reveal"]}).check(asked(plan("reveal", value="raw")))
    rules.check(asked(plan("evaluate", value="own")))


def test_the_same_row_many_times_is_one_row():
    rules = consent(**ALL)
    granted = rules.check(asked(plan("evaluate", value="mean")))
    rules.check_rows(granted, {"x": np.arange(16).reshape(2, 8)})
    twice = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 1, 2, 3, 4, 5, 8]])
    with pytest.raises(SecurityError, match="one row several times"):
        rules.check_rows(granted, {"x": twice})
    rules.check_rows(rules.check(asked(plan())), {"x": np.full((2, 8), 3)})
    # Whoever allows a plan by its digest counts on that as well, whatever kind it says it is of.
    for kind, value in (("train", "mean"), ("predict", "mean"), ("train", "layer"), ("predict", "layer")):
        digest = asked(plan(kind, value=value))
        named = consent(use=["analyst"], plans=[digest.digest], reveal_to=["analyst"])
        granted = named.check(digest)
        if (kind, value) == ("predict", "layer"):
            named.check_rows(granted, {"x": twice})
        else:
            with pytest.raises(SecurityError, match="fewer rows than it seems"):
                named.check_rows(granted, {"x": twice})
    refused(rules, asked(plan("evaluate", value="mean", rows=1)), "one row alone")


def test_digests():
    allowed = plan("reveal", value="raw")
    rules = consent(use=["analyst"], plans=[f"sha256:{allowed.digest}"], reveal_to=["analyst"])
    rules.check(asked(allowed))
    refused(rules, asked(plan("predict")), f"allows sha256:{allowed.digest}", "digest sha256:")
    copy = Terms(Terms.of(X).shows, row=4)  # saved under a name of one's own, and loaded
    with pytest.raises(SecurityError, match="input 'x': expected shares of hospital"):
        rules.check(asked(allowed, {"x": copy}))
    other = plan("reveal", value="raw", owner="client")
    rules = consent(use=["analyst"], plans=[f"sha256:{other.digest}"], reveal_to=["analyst"])
    refused(rules, asked(other, {"x": copy}), "a copy of the shares as input 'x'")


def test_a_digest_says_whose_weights_where_a_party_has_the_name_of_the_role():
    made = plan(weights="model-owner")
    given = {"x": Terms.of(X, row=4), "w": Terms()}
    policy = {"use": ["analyst"], "plans": [f"sha256:{made.digest}"], "reveal_to": ["analyst"]}
    consent(**policy, parties=["hospital", "analyst"]).check(asked(made, given))
    refused(consent(**policy, parties=["model-owner", "analyst"]), asked(made, given), "own shares for input 'w'")
    consent(**ALL, parties=["model-owner"]).check(asked(made, given))


def test_inputs_are_whose_the_plan_says():
    rules = consent(**ALL)
    for job in (
        asked(plan(owner="client")), asked(plan(owner="somebody")), asked(plan(), {}), asked(plan(), {"x": Terms()}),
        asked(plan(weights="hospital")),
    ):  # fmt: skip
        with pytest.raises(SecurityError, match="expected shares of"):
            rules.check(job)
    rules.check(asked(plan(owner="analyst"), {"x": Terms()}))


def test_until():
    rules = consent(**ALL, until="2026-05-31")
    refused(rules, asked(plan()), "until 2026-05-31")
    assert not rules.may_load(X, "analyst") and rules.may_load(X, "hospital")
    consent(**ALL, until="2026-06-01").check(asked(plan()))


def test_who_may_load():
    rules = consent(**ALL)
    assert rules.may_load(X, "analyst") and not rules.may_load(X, "other")
    assert not rules.may_load(Source("hospital", "other", 3, "00"), "analyst")


def kept(rules, made, terms, **more):
    granted = rules.check(asked(made, terms, **more))
    return granted.kept["y"]


def test_what_is_kept_stays_under_the_policy():
    rules = consent(**ALL)
    terms = kept(rules, plan("train", receivers=[], value="mean"), None)
    assert terms == Terms(frozenset({(X, Shows(Level.REDUCED, False, frozenset({"train"})))}), row=1)
    opening = asked(plan("reveal", owner="client"), {"x": terms})
    assert rules.check(opening).used == ()  # not a use of rows
    refused(consent(**{**ALL, "reveal_to": []}), opening, "opened to none")
    refused(consent(**{**ALL, "use": [], "plans": []}), opening, "does not let you")
    refused(consent(**{**ALL, "plans": ["evaluate"]}), opening, "kind or digest 'fit' made")
    refused(consent(**ALL, until="2026-05-31"), opening, "until")


def test_what_is_kept_is_opened_as_its_own_kind_could_have():
    """A kind that allows more does not lend it to what a kind that allows less has made."""
    rules = consent(**{**ALL, "plans": ["fit", "evaluate"]})
    rows = kept(rules, plan("train", receivers=[]), None)
    assert dict(rows.shows)[X].level is Level.ROWS
    refused(rules, asked(plan("reveal", owner="client"), {"x": rows}), "of kind 'reveal'")
    refused(rules, asked(plan("predict", owner="client"), {"x": rows}), "of kind 'predict'")
    refused(rules, asked(plan("evaluate", owner="client"), {"x": rows}), "shows results for single rows")
    # Where rows are is not forgotten.
    rules.check(asked(plan("evaluate", owner="client", value="mean"), {"x": rows}))
    data = kept(rules, plan("train", receivers=[], value="raw"), None)
    assert rules.check(asked(plan("evaluate", owner="client", value="mean"), {"x": data})).used == (X,)
    refused(rules, asked(plan("evaluate", owner="client"), {"x": data}), "results for single rows")


def test_what_a_pinned_plan_made_is_for_pinned_plans():
    first = plan("train", receivers=[], value="mean")
    second = plan("evaluate", owner="client")
    policy = {"use": ["analyst"], "reveal_to": ["analyst"]}
    digests = [f"sha256:{made.digest}" for made in (first, second)]
    rules = consent(**policy, plans=digests)
    terms = kept(rules, first, None)
    rules.check(asked(second, {"x": terms}))
    refused(rules, asked(plan("reveal", owner="client"), {"x": terms}), "digest sha256:")
    refused(consent(**policy, plans=digests[1:]), asked(second, {"x": terms}), f"'{digests[0]}' made")


def test_what_a_kind_could_not_have_opened_no_pinned_plan_opens():
    second = plan("predict", owner="client", weights="client")
    rules = consent(use=["analyst"], plans=["fit", f"sha256:{second.digest}"], reveal_to=["analyst"])
    for value in ("raw", "layer"):
        first = plan("train", receivers=[], value=value)
        job = asked(second, {"x": kept(rules, first, None)})
        refused(rules, job, "'fit' open what is reduced", "input 'x'", "digest")
        pinned = consent(use=["analyst"], plans=[f"sha256:{p.digest}" for p in (first, second)], reveal_to=["analyst"])
        pinned.check(asked(second, {"x": kept(pinned, first, None)}))
    rules.check(asked(second, {"w": kept(rules, plan("train", receivers=[], value="mean"), None)}))


def test_parts_of_a_row_are_no_rows():
    """Else the sum over 30 features of one patient would be one over 30 rows."""
    rules, wide = consent(**ALL), Terms.of(X, row=32)
    refused(rules, asked(plan("evaluate", value="mean"), {"x": wide}), "rows of 32 elements", "rows of 4 as input 'x'")
    refused(rules, asked(plan("compute"), {"x": wide}, rows=[]), "rows of 32 elements")
    refused(consent(), asked(plan("evaluate", value="mean"), {"x": wide}), "does not let you use them")
    rules.check(asked(plan("predict"), {"x": wide}, rows=[]))  # as weights, of which nothing is reduced
    parts = kept(rules, plan("train", receivers=[]), None)
    assert parts.row == 4


class Counted(Source):
    """Counts how often sources are compared or looked up."""

    looks = 0

    def __hash__(self):
        Counted.looks += 1
        return super().__hash__()

    def __eq__(self, other):
        Counted.looks += 1
        return super().__eq__(other)


def test_many_sources_in_many_inputs_are_looked_at_once_each():
    """And not each in all of them for each of them: the server would do nothing else for hours."""
    count = 150
    sources = [Counted("hospital", f"x{i}", 1, "0a" * 8) for i in range(count)]
    shows = frozenset((source, Shows(Level.ROWS, made=frozenset({"predict"}))) for source in sources)
    b = PlanBuilder()
    names = [b.input(f"x{i}", (2,), F, "client") for i in range(20)]
    for name in names:
        b.output(b.add("relu", name), f"y/{name}", ["client"])
    job = Asked("analyst", b.build("p", "predict"), dict.fromkeys(names, Terms(shows)))
    Counted.looks = 0
    granted = Consent(lambda source: Policy(**ALL)).check(job)
    assert len(granted.opened) == 20 and all(len(shown) == count for shown in granted.opened.values())
    assert Counted.looks < 40 * 20 * count


def test_terms_of_several_owners_go_on():
    rules = consent(Policy(**ALL), Policy(**ALL))
    both = {"x": Terms.of(X, row=4), "w": Terms.of(M, row=4)}
    terms = kept(rules, plan("train", receivers=[], weights="maker"), both)
    assert terms.sources == {X, M}
    with pytest.raises(SecurityError, match="maker/digits"):
        consent(Policy(**ALL), Policy()).check(asked(plan("predict", owner="client"), {"x": terms}))


OWNERS = ["a", "b", "c", "d"]


def mean(owners, kind=None, steps=1, minimum=3, change=lambda terms: None, rows=(), **policy):
    made = aggregate_plan([6], owners, 1.0, minimum=minimum)
    sources = {owner: Source(owner, "update", 1, "00") for owner in OWNERS}
    given = Policy(**{"use": ["analyst"], "plans": ["aggregate"], "reveal_to": ["analyst"], **policy})
    terms = {
        item.name: Terms.of(sources[item.owner], item.name.partition("/")[2])
        for item in made.inputs if item.owner in sources and not item.public
    }  # fmt: skip
    change(terms)
    rules = Consent(dict.fromkeys(sources.values(), given).get, None, lambda: NOW)
    return rules.check(Asked("analyst", made, terms, frozenset(rows), steps))


def test_means():
    assert len(mean(OWNERS).used) == 4
    assert len(mean(OWNERS, plans=["aggregate:4"], minimum=4).used) == 4
    for owners, more in (
        (OWNERS[:3], {"plans": ["aggregate:4"]}), (OWNERS, {"plans": ["aggregate:4"]}), (OWNERS, {"steps": 2}),
    ):  # fmt: skip
        with pytest.raises(SecurityError, match="owners or more"):
            mean(owners, **more)
    with pytest.raises(SecurityError, match="allows fit"):
        mean(OWNERS, plans=["fit"])


def test_a_mean_of_many_is_looked_at_once(monkeypatch):
    """And not once for each of its owners."""
    owners = [f"clinic{i}" for i in range(40)]
    terms = {
        f"{owner}/{label}": Terms.of(Source(owner, "u", 1, "0a" * 8), label)
        for owner in owners for label in ("examples", "update/0")
    }  # fmt: skip
    calls = []
    real = asking.mean_of
    monkeypatch.setattr(asking, "mean_of", lambda plan: calls.append(1) or real(plan))
    job = Asked("analyst", aggregate_plan([5], owners, 4.0), terms)
    rules = Policy(use=["analyst"], plans=["aggregate"], reveal_to=["analyst"])
    assert len(Consent(lambda source: rules).check(job).used) == len(owners) and len(calls) == 1


def test_who_runs_a_mean_is_one_owner_at_most():
    for more in ({}, {"plans": [f"sha256:{aggregate_plan([6], [OWNERS[0], 'analyst', 'model-owner'], 1.0).digest}"]}):
        with pytest.raises(SecurityError, match="something else as input 'model-owner/examples'"):
            mean([OWNERS[0], "analyst", "model-owner"], **more)
    assert len(mean([*OWNERS[:2], "analyst"]).used) == 2


@pytest.mark.parametrize("swap", [
    ("0/examples", "0/update/0"),  # an element of an update as its weight
    ("0/examples", "1/examples"),
    ("0/update/0", "1/update/0"),
])  # fmt: skip
def test_what_is_averaged_is_what_owners_shared_for_it(swap):
    first, second = (f"{OWNERS[int(name[0])]}{name[1:]}" for name in swap)

    def change(terms):
        terms[first] = Terms(terms[second].shows, terms[first].direct and terms[second].direct, terms[second].label)

    with pytest.raises(SecurityError):
        mean(OWNERS, change=change)


def test_a_mean_is_of_one_update_of_each_and_of_all_of_it():
    older = Terms.of(Source(OWNERS[0], "update", 0, "00"), "examples")
    counts = f"{OWNERS[0]}/examples"

    def mixed(terms):
        terms[counts] = Terms(terms[counts].shows | older.shows, terms[counts].direct, "examples")

    for change, rows in (
        (lambda terms: None, [counts]), (lambda terms: terms.update({counts: older}), []), (mixed, []),
    ):  # fmt: skip
        with pytest.raises(SecurityError, match="something else as input|knows nothing"):
            mean(OWNERS, change=change, rows=rows)
    copied = Terms(Terms.of(Source(OWNERS[0], "update", 1, "00")).shows)
    with pytest.raises(SecurityError, match="something else as input 'analyst/examples'"):
        mean([*OWNERS[:2], "analyst"], change=lambda terms: terms.update({"analyst/examples": copied}))


def test_another_plan_that_calls_itself_a_mean_is_none():
    rules = consent(use=["analyst"], plans=["aggregate"], reveal_to=["analyst"])
    with pytest.raises(SecurityError, match="hospital/patients/x: .*aggregate_plan"):
        rules.check(asked(plan("aggregate")))
    # Nor is it allowed because "aggregate" is a word in the policy.
    refused(rules, asked(plan("compute")), "allows aggregate")


# --- which of an owner's names a plan takes ---------------------------------------------------------------------------
Z = Source("hospital", "patients/z", 4, "0c" * 8)


def difference(*shares):
    """A plan whose meaning depends on which of two names goes in first; a digest that pins names tells them apart."""
    b = PlanBuilder()
    for name, each in zip("xz", shares, strict=True):
        b.input(name, (8, 4), F, "hospital", shares=each)
    b.output(b.add("relu", b.add("subtract", "x", "z")), "y", ["client"])
    return b.build("difference", "predict")


def test_a_digest_pins_which_name_goes_in_as_which_input():
    pinned, loose = difference("patients/x#data", "patients/z#data"), difference("", "")
    policy = Policy(["analyst"], [f"sha256:{pinned.digest}", f"sha256:{loose.digest}"], ["analyst"])
    rules = Consent({X: policy, Z: policy}.get, None, lambda: NOW)
    x, z = (Terms.of(source, "data", 4) for source in (X, Z))

    def job(made, first, second):
        return asked(made, {"x": first, "z": second}, ("x", "z"))

    assert set(rules.check(job(pinned, x, z)).used) == {X, Z}
    other = Terms.of(X, "codes", 4)
    kept = Terms(frozenset({(X, Shows(Level.RAW, True, frozenset({f"sha256:{pinned.digest}"})))}), row=4)
    own = Terms.of(Source("analyst", "patients/x", 3, "0a" * 8), "data", 4)
    for first, second in ((z, x), (x, x), (other, z), (kept, z), (own, z), (Terms(), z)):
        with pytest.raises(SecurityError, match="input 'x'|input 'z': expected patients/z#data of hospital"):
            rules.check(job(pinned, first, second))
    assert rules.check(job(loose, z, x)), "a plan that does not say it leaves it to whoever runs it"
    assert pinned.digest != loose.digest != difference("patients/z#data", "patients/x#data").digest
