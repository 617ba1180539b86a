"""Which step of a plan can start when, and how long values are needed.

Steps are numbered as in the plan and run as soon as their operands are there, so that independent ones share rounds. A
value is forgotten after its last use.

Constants, and steps that only rearrange or scale one value, run just before the step that uses their result: by then
their operand may have become masked, and what is computed from a masked value is masked, for nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.values import Operation, Value

LATE = frozenset({"constant", "reshape", "transpose", "broadcast", "pad", "negate", "shift"})
# Steps that open nothing, whatever their operands are.
LOCAL = LATE | {"slice", "gather", "concatenate", "add", "subtract", "reduce_sum", "sum_pool", "random"}

# The results of a step, its own and the bits that it keeps, from its number and operands.
Compute = Callable[[int, list[Value]], Sequence[Value]]


class Graph:
    """The steps of a plan and what they need of each other. Holds nothing of a run.

    Attributes:
        operations: the steps, ready to run.
        first: numbers of those that need no other.
        users: by step, which steps wait for it.
        needs: by step, how many steps it waits for.
        late: by step, what is run just before it, in order, unless it was run for another.
        operands: by step, the values that it and those need, each once.
        results: by step, the names of what it gives.
        unused: by step, those that nobody uses.
        local: by step, whether it opens nothing as long as nobody is masking its operands.
        uses: how often each value is used, by steps and as a result of the plan.
        sizes: elements of every result of a step; kept bits are counted as elements.
    """

    def __init__(self, plan: Plan, operations: Sequence[Operation]):
        self.operations = tuple(operations)
        results = {item.value for item in plan.outputs}
        self.uses: Counter[str] = Counter(item.value for item in plan.outputs)
        self.sizes: dict[str, int] = {}
        self.users: list[list[int]] = [[] for _ in operations]
        self.needs: list[int] = []
        self.late: list[list[int]] = []
        self.operands: list[tuple[str, ...]] = []
        self.results: list[tuple[str, ...]] = []
        self.local = [at.public or at.passes or at.step.op in LOCAL for at in operations]
        self.first: list[int] = []
        used = {name for at in operations for name in at.inputs}
        # By value: the steps to wait for, and the late steps to run, until it is there.
        behind: dict[str, tuple[frozenset[int], frozenset[int]]] = {}
        for index, at in enumerate(operations):
            self.uses.update(at.inputs)
            known = [behind[name] for name in at.inputs if name in behind]
            sources = frozenset().union(*(steps for steps, _ in known))
            before = frozenset().union(*(steps for _, steps in known))
            late = at.step.op in LATE and at.step.output in used - results
            self.late.append([] if late else sorted(before))
            behind_it = (operations[number].inputs for number in self.late[-1])
            self.operands.append(tuple(dict.fromkeys([*at.inputs, *chain.from_iterable(behind_it)])))
            self.results.append((at.step.output, at.keeps) if at.keeps else (at.step.output,))
            self.needs.append(0 if late else len(sources))
            if not late:
                for source in sources:
                    self.users[source].append(index)
                if not sources:
                    self.first.append(index)
            after = (sources, before | {index}) if late else (frozenset({index}), frozenset())
            self.sizes[at.step.output] = at.result.size
            behind[at.step.output] = after
            if at.keeps:
                self.sizes[at.keeps] = at.operands[0].size
                behind[at.keeps] = after
        self.unused = [tuple(name for name in names if not self.uses[name]) for names in self.results]


class Walk:
    """One run of a graph: the values that there are.

    Args:
        graph: of a plan.
        inputs: the plan's inputs by name.
        protocol: whose shares the values are.
        compute: what steps do.

    Attributes:
        values: by name, those that are still needed.
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, Value], protocol: Protocol, compute: Compute):
        self._graph = graph
        self._protocol = protocol
        self._rounds = protocol.rounds
        self._compute = compute
        self._uses = dict(graph.uses)
        self._needs = list(graph.needs)
        self._done: set[int] = set()
        self.values: dict[str, Value] = {name: value for name, value in inputs.items() if name in self._uses}

    def work(self, index: int) -> None:
        """Runs a step, and before it what waited for it."""
        # Other steps run while this one waits, and may run late steps that it needs, too; from here on none does.
        if self._rounds.posted:
            self._protocol.settle(self._shares(index))
        for late in self._graph.late[index]:
            if late not in self._done:
                self._done.add(late)
                self.run(late)
                self.forget_behind(late)
        self.run(index)

    def local(self, index: int) -> bool:
        """Whether a step that begins now waits for no round."""
        if not self._graph.local[index]:
            return False
        if not self._rounds.posted or self._graph.operations[index].public:
            return True
        return not self._protocol.settling(self._shares(index))

    def _shares(self, index: int) -> list[Share]:
        """Operands of a step and of the late ones before it, as far as they are there."""
        values = self.values
        found = [values.get(name) for name in self._graph.operands[index]]
        return [value for value in found if isinstance(value, Share)]

    def after(self, index: int) -> list[int]:
        """Forgets what the step was the last to use; numbers of the steps that can start now."""
        self.forget_behind(index)
        ready = []
        for user in self._graph.users[index]:
            self._needs[user] -= 1
            if not self._needs[user]:
                ready.append(user)
        return ready

    def run(self, index: int) -> None:
        """A step, whose results are there afterwards."""
        values = self.values
        results = self._compute(index, [values[name] for name in self._graph.operations[index].inputs])
        for name, value in zip(self._graph.results[index], results, strict=True):
            values[name] = value

    def forget_behind(self, index: int) -> None:
        """What the step was the last to use is not there afterwards."""
        values, uses = self.values, self._uses
        for name in self._graph.unused[index]:
            del values[name]
        for name in self._graph.operations[index].inputs:
            uses[name] -= 1
            if not uses[name]:
                del values[name]


class MeasuredWalk(Walk):
    """One that also counts what the values take.

    Attributes:
        most: the most elements that results of steps held at the end of one.
    """

    most = _live = 0

    def run(self, index: int) -> None:
        super().run(index)
        self._live += sum(self._graph.sizes[name] for name in self._graph.results[index])

    def forget_behind(self, index: int) -> None:
        self.most = max(self.most, self._live)
        names = {*self._graph.unused[index], *self._graph.operations[index].inputs}
        super().forget_behind(index)
        self._live -= sum(self._graph.sizes.get(name, 0) for name in names if name not in self.values)
