"""Jobs whose helper was there before: the same messages and results, to the bit, as with the helper in the job."""

import secrets
from dataclasses import replace

import numpy as np
import pytest

from private_keras.errors import FrameError, InputError, PeerLost, SecurityError
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols.protocol import times
from private_keras.protocols.trio import Ahead, CountingAhead, Supplied, make_party
from private_keras.ring import default_kernel
from private_keras.ring.numpy_kernel import NumpyKernel
from private_keras.server.execute import Program
from private_keras.server.execute.account import ahead_bytes
from private_keras.transport.memory import memory_network, run_parties
from private_keras.transport.recorded import Recorded
from tests.plan_zoo import CASES as ZOO
from tests.test_transcripts import LIMIT, PROGRAMS, RUNS, SECRETS, N, bit_scores, matrices
from tests.trio import ring

U = np.uint64
KERNELS = [NumpyKernel(), default_kernel()]


def weighted(p, x, w):
    """Products with a stored value, on either side, as it is, moved and summed up."""
    moved = p.linear(lambda a: (a + a)[::-1], (N,), w)
    square = p.bilinear(times, (N,), p.truncate(p.bilinear(times, (N,), x, moved), 18), x)
    y = p.bilinear(times, (N,), p.add_public(w, np.arange(N, dtype=U)), p.truncate(square, 18))
    return p.bilinear(times, (N,), w, p.relu(y, 18))


CASES = {**PROGRAMS, "weights": weighted, "constants": lambda p, x, w: p.bilinear(
    times, (N,), p.constant(np.arange(N, dtype=U)), p.bilinear(times, (N,), w, w)
), "many thresholds": lambda p, x, w: p.bits_to_share(p.compare(x, list(range(-40, 40)), 40)),
    "bits, levels": lambda p, x, w: p.bits_to_share(p.bits_and(p.compare(x, list(range(13))), 0)),
    "gate": lambda p, x, w: p.gate(p.bits_linear(lambda b: b[0], (N,), p.compare(w, [3])), x, 18),
    "linear spline": lambda p, x, w: p.piecewise(x, p.compare(x, [1]), np.array([[1, 2], [3, 4]])),
}  # fmt: skip
CASES.pop("keep")  # what is kept outlives the job, and is not made ahead


class Held:
    """Keys and masked secrets of one job."""

    def __init__(self, kernel, values):
        self.kernel = kernel
        self.keys = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
        self.material = []
        for x in values:
            l0, l1 = (kernel.random(secrets.token_bytes(16), 0, x.size).reshape(x.shape) for _ in range(2))
            self.material.append(((x + l0 + l1, l0), (x + l0 + l1, l1), (l0 - l1, l0 + l1)))

    def of(self, party):
        return {j: self.keys[min(party, j), max(party, j)] for j in range(3) if j != party}

    def shares(self, p, party):
        if isinstance(p, Ahead):
            return [p.input(parts[party][1].shape) for parts in self.material]
        return [p.masked(*parts[party]) for parts in self.material]


def room(program):
    """Words that the helper deals."""
    counting = CountingAhead(NumpyKernel())
    program(counting, counting.input((N,)), counting.input((N,)))
    return counting.cost.ahead // 8


def supplies(held, program, dealt=None, words=None):
    """Both evaluators' supplies; `dealt` takes what the helper sent, the only messages that there are."""
    channels = memory_network(3, record=True)
    words = room(program) if words is None else words
    walks = [Ahead(i, held.kernel, channels[i], held.of(i), words) for i in range(2)]
    helper = make_party(2, held.kernel, channels[2], held.of(2))
    parties = [*walks, helper]
    run_parties([lambda i=i: program(parties[i], *held.shares(parties[i], i)) for i in range(3)])
    for i, walk in enumerate(walks):
        assert walk.draws == {1 - i: 0, 2: helper.draws[i]}
        assert walk.cost.ahead == 8 * words
        assert not any(channel.traffic.sent for channel in channels[i].values()), "an evaluator sent something"
    made = [walk.supply() for walk in walks]
    if dealt is not None:
        dealt += [payload.copy() for _, payload in channels[1][2].log]
    assert made[0].dealt is None and made[1].dealt.nbytes == 8 * words
    return made


def supplied(held, program, made, weight=Supplied.masked):
    """(what each evaluator gives out, what it heard from the other); `weight` makes a share of the last value."""
    channels = memory_network(2, record=True)
    parties = [Supplied(i, held.kernel, channels[i][1 - i], held.keys[0, 1], made[i]) for i in range(2)]

    def one(i):
        *others, last = (parts[i] for parts in held.material)
        p = parties[i]
        return opened(p, program(p, *(p.masked(*part) for part in others), weight(p, *last)))

    out = run_parties([lambda i=i: one(i) for i in range(2)])
    for party in parties:
        party.finish()
    return out, [[payload for _, payload in channels[i][1 - i].log] for i in range(2)]


def together(held, program):
    """The same with the helper in the job."""
    channels = memory_network(3, record=True)
    parties = [make_party(i, held.kernel, channels[i], held.of(i)) for i in range(3)]
    out = run_parties(
        [lambda i=i: opened(parties[i], program(parties[i], *held.shares(parties[i], i))) for i in range(3)]
    )
    return out[:2], [[payload for _, payload in channels[i][1 - i].log] for i in range(2)]


def opened(p, result):
    return np.concatenate([p.output(share).ravel() for share in (result if isinstance(result, list) else [result])])


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(u.ravel().view(np.uint8), v.ravel().view(np.uint8))
                                    for u, v in zip(a, b, strict=True))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
@pytest.mark.parametrize("name", CASES)
def test_messages_and_results_are_those_of_a_job_with_its_helper(name, kernel):
    program = CASES[name]
    rng = np.random.default_rng(1)
    values = [ring(rng.integers(-(2**20), 2**20, N)) for _ in range(2)]
    held = Held(kernel, values)
    if name == "exp2":
        held = Held(kernel, [ring(rng.integers(0, 2**22, N)), values[1]])
    made = supplies(held, program)
    results, heard = supplied(held, program, made)
    expected, heard_then = together(held, program)
    assert same(results, expected)
    assert same(heard[0], heard_then[0]) and same(heard[1], heard_then[1])


def branches():
    """Three layers on one batch, of different depth, and their sum: rounds are shared, products are many."""
    b = PlanBuilder()
    for name, shape in (("x", (8, 6)), ("u", (6, 4)), ("v", (6, 4)), ("w", (4,))):
        b.input(name, shape, 18, "client")
    left = b.add("relu", b.add("matmul", "x", "u"), truncate=18)
    right = b.add("softmax", b.add("truncate", b.add("matmul", "x", "v"), bits=18), axis=1)
    scaled = b.add("truncate", b.add("multiply", right, "w"), bits=18)
    b.output(b.add("add", b.add("add", left, scaled), b.add("gather", "u", indices=[0], axis=0)), "y", ["client"])
    return b.build("branches", "predict")


PLANS = [case.plan() for case in ZOO.values()] + [branches()]
PLANS = [plan for plan in PLANS if not all(item.public for item in plan.inputs)]


@pytest.mark.parametrize("plan", PLANS, ids=[f"{i} {plan.name}" for i, plan in enumerate(PLANS)])
def test_plans_give_the_same_whether_made_ahead_or_not(plan):
    """Every primitive, steps that run side by side."""
    program, kernel = Program(plan), default_kernel()
    secret = [item for item in plan.inputs if not item.public]
    public = {item.name: np.asarray(kernel.random(bytes(16), 0, item.type.size).reshape(item.type.shape) >> U(50))
              for item in plan.inputs if item.public}
    held = Held(kernel, [np.asarray(kernel.random(bytes(16), 1, item.type.size).reshape(item.type.shape) >> U(40))
                         for item in secret])

    def run(p, *shares):
        given = dict(zip((item.name for item in secret), shares, strict=True))
        return list(program.compute(p, public | given).values())

    dealt, beside = ahead_bytes(program)
    made = supplies(held, run, words=dealt // 8)
    # What a server takes room for is enough, and what it keeps counts each message.
    for supply, words in zip(made, (0, dealt), strict=True):
        assert words + 256 * len(supply.ends) < supply.nbytes <= words + beside
    results, heard = supplied(held, run, made)
    expected, heard_then = together(held, run)
    assert same(results, expected)
    assert same(heard[0], heard_then[0]) and same(heard[1], heard_then[1])


@pytest.mark.parametrize("program", [matrices, CASES["weights"]])
def test_a_weight_with_its_operand_made_before_gives_the_same(program):
    held = Held(default_kernel(), [ring(np.arange(N)), ring(np.arange(N) * 7 - 90)])
    made = supplies(held, program)
    results, heard = supplied(held, program, made, lambda p, m, own: p.weight(m, own, m - 2 * own))
    expected, heard_then = together(held, program)
    assert same(results, expected) and same(heard[0], heard_then[0]) and same(heard[1], heard_then[1])


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("name", ["weights", "relu after product", "piecewise", "matmul, twice"])
def test_all_that_an_evaluator_sees_in_both_phases_is_uniform_whatever_the_secret(name, party):
    """Its keys, seeds and shares are fixed; the secrets differ, and the others' randomness is fresh."""
    kernel, program = default_kernel(), CASES[name]
    pairs = {0: [(0, 1), (0, 2)], 1: [(0, 1), (1, 2)]}[party]
    keys = {pair: secrets.token_bytes(16) for pair in pairs}
    own = [[kernel.random(secrets.token_bytes(16), 0, N) for _ in range(2)] for _ in range(2)]
    seen = []
    for secret in SECRETS:
        views = []
        for _ in range(RUNS):
            held = Held(kernel, [])
            held.keys |= keys
            for (m, mine), x in zip(own, secret, strict=True):
                other = m - mine - ring(x)
                l0, l1 = (mine, other) if party == 0 else (other, mine)
                held.material.append(((m, l0), (m, l1), (l0 - l1, l0 + l1)))
            dealt = []
            made = supplies(held, program, dealt)
            _, heard = supplied(held, program, made)
            views.append(np.concatenate([p.ravel().view(U) for p in (*(dealt if party else ()), *heard[party])]))
        seen.append(np.stack(views))
        assert np.abs(bit_scores(seen[-1])).max() < LIMIT
    assert seen[0].shape == seen[1].shape and seen[0].shape[1] > 0


def test_nothing_is_opened_or_kept_before_inputs_exist():
    held = Held(default_kernel(), [ring(np.arange(N))])
    walk = Ahead(0, held.kernel, memory_network(3)[0], held.of(0), 0)
    (x,) = held.shares(walk, 0)
    with pytest.raises(SecurityError, match="before inputs exist"):
        walk.output(x)
    with pytest.raises(SecurityError, match="before inputs exist"):
        walk.keep(x)


@pytest.mark.parametrize("change", [
    lambda s: replace(s, draws=s.draws + 1),
    lambda s: replace(s, dealt=np.append(s.dealt, U(0)), ends=(*s.ends, s.ends[-1] + 1)),
])  # fmt: skip
def test_a_job_that_goes_another_way_than_the_walk_gives_nothing_out(change):
    held = Held(default_kernel(), [ring(np.arange(N)), ring(np.arange(N))])
    program = CASES["relu"]
    first, second = supplies(held, program)
    with pytest.raises(FrameError, match="another way"):
        supplied(held, program, (first, change(second)))


@pytest.mark.parametrize("words", [-1, 1])
def test_a_helper_that_deals_less_or_more_than_the_plan_is_noticed(words):
    held = Held(default_kernel(), [ring(np.arange(N)), ring(np.arange(N))])
    program = CASES["relu"]
    channels = memory_network(3)
    walk = Ahead(1, held.kernel, channels[1], held.of(1), room(program) + words)
    helper = make_party(2, held.kernel, channels[2], held.of(2))
    program(helper, *held.shares(helper, 2))
    with pytest.raises(FrameError, match="than the plan says"):
        program(walk, *held.shares(walk, 1))
        walk.supply()


def test_a_recorded_channel_gives_each_message_once_in_order():
    channel = Recorded("server2", np.arange(5, dtype=U), [2, 2, 5])
    out = np.empty(2, U)
    channel.receive(1, out)
    assert out.tolist() == [0, 1] and channel.left == 2
    channel.receive(2, np.empty(0, U))
    with pytest.raises(FrameError, match="expected step 4"):
        channel.receive(4, np.empty(3, U))
    with pytest.raises(FrameError, match="with 16 bytes. Received: step 3 with 24"):
        channel.receive(3, out)
    sends = (lambda: channel.send(3, out), lambda: channel.exchange(3, out, out), lambda: channel.begin(3, 8),
             lambda: channel.part(out))  # fmt: skip
    for send in sends:
        with pytest.raises(FrameError, match="nobody would get"):
            send()
    channel.receive(3, np.empty(3, U))
    with pytest.raises(PeerLost, match="nothing more"):
        channel.receive(4, out)
    assert channel.traffic.received == 40 and channel.traffic.rounds == 0
    channel = Recorded("server2", np.arange(5, dtype=U), [5])
    channel.close()
    with pytest.raises(PeerLost):
        channel.receive(1, np.empty(5, U))


def test_a_recorded_message_is_taken_in_any_pieces():
    channel = Recorded("server2", np.arange(5, dtype=U), [0, 5])
    whole = np.empty(5, U)
    with pytest.raises(InputError, match="0 bytes are to be taken"):
        channel.fill(whole)
    channel.expect(1, 0)
    with pytest.raises(InputError, match="before another"):
        channel.expect(2, 40)
    channel.fill(np.empty(0, U))
    channel.expect(2, 40)
    channel.fill(whole[:2])
    with pytest.raises(InputError, match="24 bytes are to be taken"):
        channel.fill(np.empty(4, U))
    with pytest.raises(InputError, match="before another"):
        channel.expect(3, 0)
    channel.fill(whole[2:])
    assert whole.tolist() == [0, 1, 2, 3, 4] and not channel.left
    with pytest.raises(PeerLost, match="nothing more"):
        channel.expect(3, 0)
