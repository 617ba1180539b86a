"""Three parties of `trio` in one process, for tests: a session shares values, runs a program at each party, adds up."""

import secrets
from typing import NamedTuple

import numpy as np

from private_keras.protocols.trio import CountingTrio, make_party
from private_keras.protocols.trio.party import Party
from private_keras.ring import default_kernel
from private_keras.ring.native_kernel import NativeKernel
from private_keras.ring.steps import Draw, Words
from private_keras.transport.memory import memory_network, run_parties

U = np.uint64
M = 1 << 64


def ring(values) -> np.ndarray:
    """Integers (any size, signed) to ring elements."""
    array = np.asarray(values, dtype=object)
    return np.array([int(v) % M for v in array.ravel()], U).reshape(array.shape)


def signed(elements: np.ndarray) -> np.ndarray:
    return elements.astype(np.int64)


class Session:
    """Fresh keys and channels for each `run`; keeps what the last run sent, declared and received.

    Args:
        twist: given a value's number and each party's (m, l), gives what the parties get instead.
    """

    def __init__(self, kernel=None, record: bool = False, keys: dict | None = None, twist=None):
        self.twist = twist
        self.kernel = kernel or default_kernel()
        self.record = record
        self.keys = keys

    def run(self, program, *secret_values: np.ndarray):
        """program(protocol, *shares) -> one share or a tuple of shares; returns what is opened, as ring elements."""
        keys = self.keys or {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
        self.channels = memory_network(3, record=self.record)
        self.parties = [
            make_party(i, self.kernel, self.channels[i], {j: keys[min(i, j), max(i, j)] for j in range(3) if j != i})
            for i in range(3)
        ]
        held = [[], [], []]
        for x in secret_values:
            l0, l1 = (self.kernel.random(secrets.token_bytes(16), 0, x.size).reshape(x.shape) for _ in range(2))
            m = x + l0 + l1
            parts = [(m, l0), (m, l1), (l0 - l1, l0 + l1)]
            if self.twist is not None:
                parts = self.twist(len(held[0]), parts)
            for party, part in enumerate(parts):
                held[party].append(part)

        def one(i):
            def go():
                p = self.parties[i]
                result = program(p, *(p.masked(m, mask) for m, mask in held[i]))
                return [p.output(r) for r in (result if isinstance(result, tuple) else (result,))]

            return go

        outputs = run_parties([one(i) for i in range(3)])
        # A stream that two servers use for different things would unmask what it should hide.
        for i, j in keys:
            assert self.parties[i].draws[j] == self.parties[j].draws[i], f"parties {i} and {j} drew differently"
        opened = [
            np.sum(np.stack([a, b, c]), axis=0, dtype=U, keepdims=True)[0] for a, b, c in zip(*outputs, strict=True)
        ]
        counting = CountingTrio(self.kernel)
        program(counting, *(counting.input(x.shape) for x in secret_values))
        self.counted = counting.cost
        self.declared = self.parties[0].cost
        return opened if len(opened) > 1 else opened[0]

    def measured(self):
        """(rounds, {(i, j): bytes}) that really went through the channels in the last run."""
        sent = {}
        for i in range(3):
            for j, channel in self.channels[i].items():
                if channel.traffic.sent:
                    sent[i, j] = channel.traffic.sent
        return self.channels[0][1].traffic.rounds, sent


class Read(NamedTuple):
    """Words first .. end-1 of a stream, and what they were read as: the step, or masks, first or again."""

    first: int
    end: int
    role: str


WIRES, WIRES_AGAIN = "masks of wires", "masks of wires again"
HALVES, HALVES_AGAIN = "halves of masks", "halves of masks again"


class Watched:
    """An engine that tells which words each step reads."""

    def __init__(self, engine, read):
        self._engine = engine
        self._tell = read

    def __getattr__(self, name):
        found = getattr(self._engine, name)
        if not callable(found):
            return found

        def step(*given):
            for argument in given:
                self._tell(name, argument)
            return found(*given)

        return step


class Ledger(NativeKernel):
    """Records what one party asked for, which words of which stream each step read, as what, and in which order; and
    the keys of streams that were made as a whole.
    """

    def __init__(self):
        super().__init__()
        self.asked: dict[tuple[bytes, int], int] = {}
        self.reads: dict[tuple[bytes, int], list[Read]] = {}
        self.keys: set[bytes] = set()
        self._roles: list[tuple[Words, str]] = []
        self._engine = Watched(self._engine, self._read)

    def watch(self, party: Party) -> Party:
        """Takes down the size of each draw of the party from now on."""
        draw = party.draw

        def asked(peer: int, words: int) -> Draw:
            made = draw(peer, words)
            assert (made.key, made.nonce) not in self.asked, "one stream for two draws"
            self.asked[made.key, made.nonce] = words
            return made

        party.draw = asked
        return party

    def random(self, key, nonce, count, *, first_block=0):
        self.keys.add(key)
        return super().random(key, nonce, count, first_block=first_block)

    def words(self, words):
        self._note(words, "words")
        return super().words(words)

    def add(self, x, y, out=None):
        self._roles = [(x, HALVES), (y, HALVES)] if isinstance(x, Draw) and isinstance(y, Draw) else []
        return super().add(x, y, out)

    def subtract(self, x, y, out=None):
        self._roles = [(x, HALVES_AGAIN), (y, HALVES_AGAIN)] if isinstance(x, Draw) and isinstance(y, Draw) else []
        return super().subtract(x, y, out)

    def digits_compare(self, m, offsets, width, digits, party, masks, **options):
        self._roles = [(masks, WIRES)]
        return super().digits_compare(m, offsets, width, digits, party, masks, **options)

    def tree_combine(self, mine, theirs, kept, products, own_masks, width, n, level, party, next_masks, **options):
        self._roles = [(own_masks, WIRES_AGAIN), (next_masks, WIRES)]
        return super().tree_combine(
            mine, theirs, kept, products, own_masks, width, n, level, party, next_masks, **options
        )

    def _read(self, step, words):
        roles = self._roles if step in ("digits_compare", "tree_combine", "add_words") else []
        self._note(words, next((role for of, role in roles if of is words), step))

    def _note(self, words: Words, role: str) -> None:
        if isinstance(words, Draw) and words.size:
            read = Read(words.first, words.first + words.size, role)
            self.reads.setdefault((words.key, words.nonce), []).append(read)


def expect_draws_for_one_thing(ledgers: list[Ledger], keys: dict[tuple[int, int], bytes]) -> None:
    """Every word that was drawn is read, and once, except that evaluators read masks of wires again, as a whole, to
    combine what they opened under them, and that the helper, who adds up both halves of a mask, may read them again for
    their difference. Both ends of a key drew the same streams.
    """
    for ledger in ledgers:
        assert ledger.asked
        asked = {stream: size for stream, size in ledger.asked.items() if size}
        assert ledger.reads.keys() == asked.keys()
        for stream, size in asked.items():
            _expect_one_reading(ledger.reads[stream], size)
    for (i, j), key in keys.items():
        one, other = (
            {nonce: size for (k, nonce), size in ledgers[e].asked.items() if k == key} for e in (i, j)
        )  # fmt: skip
        assert one == other


def _expect_one_reading(reads: list[Read], size: int) -> None:
    parts = sorted(read for read in reads if read.role not in (WIRES_AGAIN, HALVES_AGAIN))
    assert [part.first for part in parts] == [0, *(part.end for part in parts[:-1])] and parts[-1].end == size
    before: list[Read] = []
    for read in reads:
        if read.role == HALVES_AGAIN:
            assert any(of.role == HALVES and of.first <= read.first <= read.end <= of.end for of in before)
            continue
        if read.role != WIRES_AGAIN:
            before.append(read)
            continue
        of = [part for part in before if read.first < part.end and part.first < read.end]
        assert {part.role for part in of} == {WIRES}, "what is read again was the masks of wires, once"
        assert min(of).first == read.first and max(of).end == read.end
        before.append(read)
