"""Three parties of `trio` in one process, for tests: a session shares values, runs a program at each party, adds up."""

import itertools
import secrets

import numpy as np

from private_keras.protocols.trio import CountingTrio, make_party
from private_keras.ring import default_kernel
from private_keras.ring.native_kernel import NativeKernel
from private_keras.ring.steps import Draw
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
    """Fresh keys and channels for each `run`; keeps what the last run sent, declared and received."""

    def __init__(self, kernel=None, record: bool = False, keys: dict | None = None):
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
            held[0].append((m, l0))
            held[1].append((m, l1))
            held[2].append((None, l0 + l1))

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


class Ledger(NativeKernel):
    """Records which words of which stream each step read, and the keys of streams that were made as a whole."""

    def __init__(self):
        super().__init__()
        self.used: list[Draw] = []
        self.keys: set[bytes] = set()

    def random(self, key, nonce, count, *, first_block=0):
        self.keys.add(key)
        return super().random(key, nonce, count, first_block=first_block)

    def words(self, words):
        return super().words(self._source(words))

    def _source(self, words):
        if isinstance(words, Draw):
            self.used.append(words)
        return super()._source(words)

    def read(self) -> dict[tuple[bytes, int], list[tuple[int, int]]]:
        """By stream: the distinct parts that were read, as (first word, end)."""
        streams = {}
        for draw in self.used:
            if draw.size:
                streams.setdefault((draw.key, draw.nonce), set()).add((draw.first, draw.first + draw.size))
        return {stream: sorted(parts) for stream, parts in streams.items()}


def expect_draws_for_one_thing(ledgers: list[Ledger], keys: dict[tuple[int, int], bytes]) -> None:
    """Parts of a stream that steps read do not overlap, except that what was read in pieces may be read again as a
    whole: masks of wires, of which products are dealt. Both ends of a key have read the same streams, start to end.
    """
    read = [ledger.read() for ledger in ledgers]
    for streams in read:
        assert streams
        for parts in streams.values():
            smallest = [
                (start, end) for start, end in parts
                if not any((s, e) != (start, end) and start <= s and e <= end for s, e in parts)
            ]  # fmt: skip
            assert smallest[0][0] == 0
            assert all(end == start for (_, end), (start, _) in itertools.pairwise(smallest))
            cuts = {0, *(end for _, end in smallest)}
            assert all(start in cuts and end in cuts for start, end in parts)
    for (i, j), key in keys.items():
        one, other = (
            {nonce: max(end for _, end in parts) for (k, nonce), parts in read[e].items() if k == key} for e in (i, j)
        )  # fmt: skip
        assert one == other
