"""Plans that run for many steps in one job, on simulated shares, on local servers and over TLS."""

import secrets
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.cluster import LocalCluster, Loop, PublicValue, Rows, SimulatedCluster, connect
from private_keras.errors import DeadlineExceeded, HandleNotFound, InputError
from private_keras.plan.builder import PlanBuilder
from private_keras.protocols.protocol import Cost, times
from private_keras.protocols.trio import CountingTrio, make_party
from private_keras.ring import default_kernel
from private_keras.server.execute.account import account
from private_keras.transport.memory import memory_network, run_parties
from tests.clusters import TlsServers
from tests.loops import Held, Regression, counting_plan, quiet, revealed, sgd_inputs, sgd_plan

U = np.uint64
SGD, COUNTING = sgd_plan(), counting_plan()


@pytest.fixture(scope="module")
def local():
    with LocalCluster() as made:
        yield made


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    with (
        TlsServers(tmp_path_factory.mktemp("tls")) as servers,
        connect(servers.config, identity="analyst") as made,
        connect(servers.config, identity="other") as stranger,
    ):
        made.stranger = stranger
        yield made


@pytest.fixture
def simulated():
    with SimulatedCluster() as made:
        yield made


@pytest.fixture(params=["simulated", "local", "tls"])
def cluster(request):
    return request.getfixturevalue(request.param)


def test_regression_by_gradient_descent_ends_where_floats_do(cluster):
    data = Regression()
    with Held(cluster) as held:
        x, y = held.share(data.x), held.share(data.y)
        result = held.own(cluster.run(SGD, sgd_inputs(data, x, y), loop=Loop(data.steps)))
        assert list(result) == ["loss", "w/new", "b/new", "count/new"]
        w, b, loss = data.floats()
        assert abs(result.pop("loss") - loss) < 1e-3
        opened = revealed(cluster, result)
        assert np.abs(opened["w/new"] - w).max() < 1e-4 and abs(opened["b/new"] - b) < 1e-4
        assert opened["count/new"] == data.steps * data.batch


def test_two_jobs_are_one_job_cut_in_two(cluster):
    """State goes on from handles as it does from step to step; handles stay as they are when a run starts from them."""
    data = Regression(steps=20)
    with Held(cluster) as held:
        x, y = held.share(data.x), held.share(data.y)
        first = held.own(cluster.run(SGD, sgd_inputs(data, x, y, last=7), loop=Loop(7)))
        state = {"w": first["w/new"], "b": first["b/new"], "count": first["count/new"]}
        for _ in range(2):
            second = held.own(cluster.run(SGD, sgd_inputs(data, x, y, first=7) | state, loop=Loop(13)))
            assert len({handle.id for handle in (*state.values(), *list(second.values())[1:])}) == 6
            w, b, _ = data.floats()
            opened = revealed(cluster, {name: second[name] for name in ("w/new", "b/new", "count/new")})
            assert np.abs(opened["w/new"] - w).max() < 1e-4 and abs(opened["b/new"] - b) < 1e-4
            assert opened["count/new"] == 20 * data.batch


def test_a_step_costs_its_plan_and_one_round_for_what_is_carried(local):
    """And nothing else: no agreement between servers, no question to the client."""
    data, traffic = Regression(steps=9), {}
    own = sum(account(SGD, "trio"), Cost())
    with Held(local) as held:
        x, y = held.share(data.x), held.share(data.y)
        for steps in (1, 2, 9):
            held.own(local.run(SGD, sgd_inputs(data, x, y, last=steps), loop=Loop(steps)))
            traffic[steps] = local.stats.last
    # Five elements are carried in additive form: w, b; the count stays masked. Three results are masked at the end.
    for steps, last in traffic.items():
        assert last.rounds == steps * own.rounds + (steps - 1) + 1
        assert last.bytes == steps * own.bytes + (steps - 1) * 2 * 8 * 5 + 2 * 8 * 6


def test_progress_is_told_in_order_in_the_callers_thread_up_to_the_last_step(cluster):
    seen = []

    def told(done):
        seen.append((done, threading.current_thread()))

    data = Regression(steps=150)
    with Held(cluster) as held:
        x, y = held.share(data.x), held.share(data.y)
        held.own(cluster.run(SGD, sgd_inputs(data, x, y), loop=Loop(data.steps, told)))
    steps = [done for done, _ in seen]
    assert steps[-1] == 150 and steps == sorted(set(steps))
    assert {thread for _, thread in seen} == {threading.current_thread()}


def test_what_watches_progress_can_end_the_job(cluster):
    data = Regression(steps=600)

    class Enough(Exception):
        pass

    def stop(done):
        raise Enough

    with Held(cluster) as held:
        x, y = held.share(data.x), held.share(data.y)
        with pytest.raises(Enough):
            cluster.run(SGD, sgd_inputs(data, x, y), loop=Loop(data.steps, stop))
        quiet(cluster)
        assert held.own(cluster.run(SGD, sgd_inputs(data, x, y, last=1), loop=Loop(1)))["loss"] > 0


def counted(values, indices, factors, start):
    total = start.astype(object)
    before = total
    for rows, c in zip(indices, factors, strict=True):
        before, total = total, total + values[rows].sum(axis=0).astype(object) * c.astype(object)
    return before, total


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_schedules_and_carried_values_are_exact(data):
    """On simulated shares; integers, so that any slip shows."""
    steps, n = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    check_counting(data.draw(st.booleans()), steps, n, generator, SimulatedCluster())


@pytest.mark.parametrize(("constant", "steps", "n"), [(False, 1, 1), (True, 4, 2), (False, 9, 50)])
def test_they_are_exact_on_servers(local, constant, steps, n):
    check_counting(constant, steps, n, np.random.default_rng(n), local)


def check_counting(constant, steps, n, generator, cluster):
    values, start = generator.integers(-1000, 1000, (n, 2)), generator.integers(-9, 9, 2)
    indices = generator.integers(0, n, (steps, 3)).astype(generator.choice(["i8", "u2", "i4"]))
    factors = generator.integers(-5, 5, (2,) if constant else (steps, 2))
    before, total = counted(values, indices, np.broadcast_to(factors, (steps, 2)), start)
    with Held(cluster) as held:
        x = held.share(values, 0)
        inputs = {"x": Rows(x, indices), "total": start, "c": PublicValue(factors)}
        result = held.own(cluster.run(COUNTING, inputs, loop=Loop(steps)))
        assert result["before"].tolist() == before.tolist()
        opened = revealed(cluster, {name: result[name] for name in ("total/new", "rows")})
        assert opened["total/new"].tolist() == total.tolist()
        assert opened["rows"].tolist() == values[indices[-1]].tolist()


def odd_plan():
    """Results of every kind: an input as it is, the same value twice, kept and opened, a constant, a public value."""
    b = PlanBuilder()
    x = b.input("x", (2, 3), 18, "client")
    c = b.input("c", (3,), 18, "client", public=True)
    y = b.add("relu", b.add("multiply", x, x), truncate=18)
    b.output(x, "x", [])
    b.output(y, "y", [])
    b.output(y, "y2", [])
    b.output(y, "y3", ["client"])
    b.output(b.constant(np.arange(4), 3), "constant", [])
    b.output(c, "c", [])
    b.output(b.add("broadcast", b.add("reduce_sum", y, axes=[0, 1], keepdims=False), shape=[5]), "sum", [])
    return b.build("odd", "compute")


def test_whatever_is_kept_can_be_opened_later(cluster):
    x, c = np.array([[1, -2, 3], [0, 0.5, -0.25]]), np.array([1.5, 2, -1])
    wanted = {"x": x, "y": x * x, "y2": x * x, "constant": np.arange(4) / 8, "c": c,
              "sum": np.full(5, (x * x).sum())}  # fmt: skip
    for stay in (False, True):
        with Held(cluster) as held:
            inputs = {"x": held.share(x) if stay else x, "c": PublicValue(c)}
            result = held.own(cluster.run(odd_plan(), inputs))
            np.testing.assert_allclose(result.pop("y3"), x * x, atol=1e-4)
            assert {name: (h.shape, h.fraction) for name, h in result.items()} == {
                name: (value.shape, 3 if name == "constant" else 18) for name, value in wanted.items()
            }
            for name, value in revealed(cluster, result).items():
                np.testing.assert_allclose(value, wanted[name], atol=1e-4, err_msg=name)


BAD = [
    (lambda g: {**g, "c": np.ones(2)}, 3, "this input is public. Received: ndarray; say so with PublicValue"),
    (lambda g: {**g, "total": PublicValue(np.ones(2))}, 3, "total: expected secret values"),
    (lambda g: {**g, "c": PublicValue(np.ones((2, 2)))}, 3, r"c: expected shape \(2,\) or \(3, 2\). Received: shape"),
    (lambda g: {**g, "c": PublicValue(np.full(2, np.nan))}, 3, "c: 2 of 2 values are NaN"),
    (lambda g: {**g, "total": Rows(g["x"].handle, np.zeros((3, 2), int))}, 3, "carried from step to step"),
    (lambda g: {**g, "x": Rows(g["x"].handle, np.zeros((2, 3), int))}, 3, r"shape \(3, 3\).*int64 of shape \(2, 3\)"),
    (lambda g: {**g, "x": Rows(g["x"].handle, np.zeros((3, 3)))}, 3, "float64 of shape"),
    (lambda g: {**g, "x": Rows(g["x"].handle, np.full((3, 3), -1))}, 3, "indices from 0 to 4. Received: -1 to -1"),
    (lambda g: {**g, "x": Rows(g["x"].handle, np.full((3, 3), 5))}, 3, "indices from 0 to 4. Received: 5 to 5"),
    (lambda g: {**g, "x": g["x"].handle}, 3, r"expected shape \(3, 2\).*shape \(5, 2\)"),
    (lambda g: {"x": g["x"]}, 3, r"missing inputs \['c', 'total'\]"),
    (lambda g: g, 0, "a loop of 1 to 10000000 steps. Received: 0"),
    (lambda g: g, True, "a loop of 1 to"),
    (lambda g: g, 2.0, "a loop of 1 to"),
    (lambda g: g, 10**8, "a loop of 1 to"),
]


@pytest.mark.parametrize(("change", "steps", "message"), BAD)
def test_inputs_that_do_not_fit_are_refused_before_anything_is_shared(simulated, change, steps, message):
    x = simulated.share(np.zeros((5, 2)), 0, "x")
    good = {"x": Rows(x, np.zeros((3, 3), int)), "total": np.zeros(2), "c": PublicValue(np.ones((3, 2)))}
    simulated.run(COUNTING, good, loop=Loop(3))
    with pytest.raises(InputError, match=message):
        simulated.run(COUNTING, change(good), loop=Loop(steps))


def test_rows_of_another_width_or_scale_are_refused(simulated):
    for handle in (simulated.share(np.zeros((5, 3)), 0, "wide"), simulated.share(np.zeros((5, 2)), 1, "scaled"),
                   simulated.share(np.zeros(()), 0, "scalar")):  # fmt: skip
        inputs = {"x": Rows(handle, np.zeros((1, 3), int)), "total": np.zeros(2), "c": PublicValue(np.ones(2))}
        with pytest.raises(InputError, match="expected rows of shape .*" + handle.name):
            simulated.run(COUNTING, inputs)


def test_results_belong_to_who_ran_the_job(tls):
    data = Regression(steps=2)
    with Held(tls) as held:
        x, y = held.share(data.x), held.share(data.y)
        result = held.own(tls.run(SGD, sgd_inputs(data, x, y), loop=Loop(2)))
        with pytest.raises(HandleNotFound):
            revealed(tls.stranger, {"w": result["w/new"]})
        with pytest.raises(HandleNotFound):
            tls.stranger.run(SGD, sgd_inputs(data, x, y), loop=Loop(2))
        for client in tls.stranger._clients:
            assert client.delete([result["w/new"].id]) == 0


def test_a_loop_ends_at_its_deadline_and_keeps_nothing(cluster):
    steps = 4000
    data = Regression(steps=steps)
    with Held(cluster) as held:
        x, y = held.share(data.x), held.share(data.y)
        with pytest.raises(DeadlineExceeded):
            cluster.run(SGD, sgd_inputs(data, x, y), deadline=0.2, loop=Loop(steps))
        quiet(cluster)


def test_a_large_schedule_goes_in_pieces(local):
    """Public values and indices beyond one message."""
    steps, width = 3, 70_000
    b = PlanBuilder()
    x = b.input("x", (40_000,), 0, "client")
    total = b.input("total", (width,), 0, "client")
    c = b.input("c", (width,), 0, "client", public=True)
    sum_ = b.add("broadcast", b.add("reshape", b.add("reduce_sum", x, axes=[0], keepdims=False), shape=[1]),
                 shape=[width])  # fmt: skip
    b.output(b.add("add", total, b.add("add", sum_, c)), "total/new", [], carry="total")
    generator = np.random.default_rng(0)
    values, factors = generator.integers(-9, 9, 50), generator.integers(-9, 9, (steps, width))
    indices = generator.integers(0, 50, (steps, 40_000))
    with Held(local) as held:
        inputs = {
            "x": Rows(held.share(values, 0), indices), "total": np.zeros(width), "c": PublicValue(factors),
        }  # fmt: skip
        result = held.own(local.run(b.build("large", "compute"), inputs, loop=Loop(steps)))
        assert (revealed(local, result)["total/new"] == values[indices].sum() + factors.sum(axis=0)).all()


# --- protocols --------------------------------------------------------------------------------------------------------
def test_what_is_kept_is_masked_anew_and_counted():
    """In whatever form: no mask of the job is stored, the same value twice gets two masks, one round for all."""
    kernel = default_kernel()
    keys = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
    channels = memory_network(3)
    parties = [
        make_party(i, kernel, channels[i], {j: keys[min(i, j), max(i, j)] for j in range(3) if j != i})
        for i in range(3)
    ]
    x = np.arange(12, dtype=U).reshape(3, 4)
    l0, l1 = (kernel.random(secrets.token_bytes(16), 0, 12).reshape(3, 4) for _ in range(2))
    held = [(x + l0 + l1, l0), (x + l0 + l1, l1), (l0 - l1, l0 + l1)]

    def program(p, given):
        square = p.bilinear(times, (3, 4), given, given)
        return p.keep(given, square, square, p.constant(np.asarray(U(7))))

    kept = run_parties([lambda i=i: program(parties[i], parties[i].masked(*held[i])) for i in range(3)])
    counting = CountingTrio(kernel)
    program(counting, counting.input((3, 4)))
    assert counting.cost == parties[0].cost == parties[1].cost and counting.cost.rounds == 1
    masks = set()
    for (m0, own0), (m1, own1), (skew, both), value in zip(*kept, (x, x * x, x * x, U(7)), strict=True):
        assert np.array_equal(m0, m1) and np.array_equal(skew, own0 - own1)
        assert np.array_equal(both, own0 + own1) and np.array_equal(m0 - both, value)
        masks |= {*own0.ravel().tolist(), *own1.ravel().tolist()}
        for array in (m0, own0, m1, own1, skew, both):
            assert array.base is None, "a view keeps more alive than itself"
    assert len(masks) == 2 * (12 * 3 + 1) and not masks & {*l0.ravel().tolist(), *l1.ravel().tolist()}
