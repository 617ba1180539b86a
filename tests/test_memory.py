"""Memory of a server's arrays: what is in an array stays there, what is freed is used again, and no more is kept."""

import contextvars
import ctypes
import gc
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from private_keras.cluster import LocalCluster
from private_keras.protocols.rounds import Rounds
from private_keras.ring import array_memory
from tests.clusters import dense_data, dense_plan

MEMORY = array_memory()
LARGE = 1 << 16
SLACK = 8 << 20
handler_of = np._core.multiarray.get_handler_name


def within(call):
    """Runs a callable in a context whose arrays come from the memory."""

    def entered():
        MEMORY.use()
        return call()

    return contextvars.Context().run(entered)


def forget():
    """Nothing is kept when this returns."""
    gc.collect()
    MEMORY.tend()
    MEMORY.tend()


def test_only_the_context_that_asked_for_it():
    inside = within(lambda: np.zeros(9))
    outside = np.zeros(9)
    assert handler_of(inside) == "private_keras"
    assert handler_of(outside) != "private_keras"
    names = []

    def start():
        thread = threading.Thread(target=lambda: names.append(handler_of(np.zeros(9))))
        thread.start()
        thread.join()

    within(start)
    assert names == [handler_of(outside)]


@pytest.mark.parametrize("nbytes", [LARGE + 1, LARGE + 64, 100_000, 1 << 20, (1 << 23) - 8, 1 << 23, (1 << 23) + 8])
def test_large_arrays_start_at_cache_lines(nbytes):
    for array in within(lambda: [np.empty(nbytes, np.uint8), np.zeros(nbytes, np.uint8)]):
        assert array.ctypes.data % 64 == 0


def test_branches_of_a_step_are_in_its_context():
    made = within(lambda: Rounds().together(lambda: np.zeros(9), lambda: Rounds().together(lambda: np.zeros(9))[0]))
    assert [handler_of(array) for array in made] == ["private_keras"] * 2


SIZES = st.one_of(st.integers(0, 300), st.integers(LARGE - 40, LARGE + 40), st.integers(LARGE, 1 << 22))
ACTIONS = st.lists(st.tuples(st.sampled_from(["make", "zeros", "drop", "resize", "tend"]), SIZES), max_size=40)


@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS)
def test_arrays_keep_their_contents(actions):
    def act():
        held: list[tuple[np.ndarray, int]] = []
        for number, (action, size) in enumerate(actions):
            mark = number % 251 + 1
            if action == "make":
                held.append((np.full(size, mark, np.uint8), mark))
            elif action == "zeros":
                array = np.zeros(size, np.uint8)
                assert not array.any()
                array[:] = mark
                held.append((array, mark))
            elif action == "tend":
                MEMORY.tend()
            elif held:
                array, mark = held.pop(size % len(held))
                if action == "resize":
                    kept = min(size, array.size)
                    array.resize(size, refcheck=False)
                    assert (array[:kept] == mark).all() and not array[kept:].any()
                    array[:] = mark
                    held.append((array, mark))
        for array, mark in held:
            assert (array == mark).all()

    within(act)


def test_freed_memory_is_used_again():
    forget()

    def act():
        first = np.ones(1 << 20)
        at = first.ctypes.data
        del first
        smaller = np.ones(1 << 19)
        assert smaller.ctypes.data == at

    within(act)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(LARGE + 1, 1 << 24), min_size=2, max_size=30), seed=st.integers(0, 1 << 32))
def test_no_more_is_kept_than_was_used_lately(sizes, seed):
    forget()
    before, _ = MEMORY.held()
    order = np.random.default_rng(seed).integers(0, 3, len(sizes))

    def act():
        live, peak = [], before
        for size, drops in zip(sizes, order, strict=True):
            live.append(np.empty(size, np.uint8))
            used, kept = MEMORY.held()
            assert used >= before + sum(a.nbytes for a in live)
            peak = max(peak, used)
            assert used + kept <= peak + peak // 8 + SLACK
            del live[:drops]
            used_now, kept_now = MEMORY.held()
            assert used_now + kept_now == used + kept

    within(act)
    gc.collect()
    assert MEMORY.held()[0] == before


def test_what_is_unused_is_given_back():
    forget()
    used, kept = MEMORY.held()
    assert kept == 0
    within(lambda: np.ones(1 << 22))
    assert MEMORY.held() == (used, MEMORY.held()[1]) and MEMORY.held()[1] >= 1 << 25
    MEMORY.tend()  # it was used since the last call
    assert MEMORY.held()[1] >= 1 << 25
    MEMORY.tend()
    assert MEMORY.held() == (used, 0)
    assert not within(lambda: np.zeros(1 << 22)).any()


def test_refuses_what_no_machine_holds():
    with pytest.raises((MemoryError, ValueError)):
        within(lambda: np.empty(1 << 59, np.uint64))
    with pytest.raises(MemoryError):
        within(lambda: np.empty(1 << 47, np.uint64))
    assert within(lambda: np.ones(1 << 20)).all()


def test_threads_side_by_side():
    def churn(mark):
        rng = np.random.default_rng(mark)
        held = []
        for _ in range(200):
            array = np.full(int(rng.integers(LARGE, 1 << 20)), mark, np.uint8)
            held.append(array)
            if len(held) > 5:
                assert (held.pop(0) == mark).all()

    failed = []

    def guarded(mark):
        try:
            within(lambda: churn(mark))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        MEMORY.tend()
    for thread in threads:
        thread.join()
    assert not failed


def touched(pid):
    """Resident KiB of the mappings that are kept out of core files: the memory of a server's arrays."""
    resident = total = 0
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            if line.startswith("Rss:"):
                resident = int(line.split()[1])
            elif line.startswith("VmFlags:") and "dd" in line.split()[1:]:
                total += resident
    return total


def test_servers_use_it_and_give_it_back_when_idle():
    data = dense_data(batch=512, units=256, features=256)
    with LocalCluster() as cluster:
        most, done = [0] * 3, threading.Event()

        def watch():  # a server that is through gives it back while others still compute
            while not done.is_set():
                most[:] = map(max, most, map(touched, cluster.pids))

        watcher = threading.Thread(target=watch)
        watcher.start()
        ends = time.monotonic() + 60
        while not all(now > 1024 for now in most):
            assert time.monotonic() < ends, most
            cluster.run(dense_plan(batch=512, units=256, features=256), data)
        done.set()
        watcher.join()
        ends = time.monotonic() + 60
        while any(touched(pid) > 2048 for pid in cluster.pids):
            assert time.monotonic() < ends, [touched(pid) for pid in cluster.pids]
            time.sleep(0.2)


def test_locked_pages_are_cleared_too():
    """The system does not take back what is locked, yet it counts as cleared afterwards."""
    nbytes, libc = 1 << 20, ctypes.CDLL(None, use_errno=True)

    def scenario():
        forget()
        array = np.full(nbytes, 255, np.uint8)
        address = ctypes.c_void_p(array.ctypes.data)
        if libc.mlock(address, ctypes.c_size_t(nbytes)) != 0:
            pytest.skip("no memory may be locked here")
        try:
            del array
            forget()
            return [np.zeros(nbytes, np.uint8).any() for _ in range(2)]
        finally:
            libc.munlock(address, ctypes.c_size_t(nbytes))

    assert within(scenario) == [False, False]
