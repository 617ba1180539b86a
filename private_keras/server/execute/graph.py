"""Which step of a plan can start when, and how long values are needed.

Steps are numbered as in the plan and run as soon as their operands are there, so that independent ones share rounds. A
value is forgotten after its last use.

Steps that only rearrange or scale one value run just before the step that uses their result: by then their operand may
have become masked, and what is computed from a masked value is masked, for nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from private_keras.plan.plan import Plan
from private_keras.protocols.protocol import Protocol, Share
from private_keras.server.execute.values import Operation, Value

LATE = frozenset({"reshape", "transpose", "broadcast", "pad", "negate", "shift"})
# Steps that open nothing, whatever their operands are.
LOCAL = LATE | {"constant", "slice", "gather", "concatenate", "add", "subtract", "reduce_sum", "sum_pool", "random"}

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


class Walk:
    """One run of a graph: the values that there are.

    Args:
        graph: of a plan.
        inputs: the plan's inputs by name.
        protocol: whose shares the values are.
        compute: what steps do.

    Attributes:
        values: by name, those that are still needed.
        most: the most elements that results of steps held at the end of one.
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, Value], protocol: Protocol, compute: Compute):
        self._graph = graph
        self._protocol = protocol
        self._compute = compute
        self._uses = dict(graph.uses)
        self._needs = list(graph.needs)
        self._done: set[int] = set()
        self._live = 0
        self.most = 0
        self.values: dict[str, Value] = {name: value for name, value in inputs.items() if self._uses.get(name)}

    def work(self, index: int) -> None:
        """Runs a step, and before it what waited for it."""
        # Other steps run while this one waits, and may run late steps that it needs, too; from here on none does.
        self._protocol.settle(self._shares(index))
        for late in self._graph.late[index]:
            if late not in self._done:
                self._done.add(late)
                self._run(late)
                self._forget_behind(late)
        self._run(index)

    def local(self, index: int) -> bool:
        """Whether a step that begins now waits for no round."""
        at = self._graph.operations[index]
        return at.public or at.step.op in LOCAL and not self._protocol.settling(self._shares(index))

    def _shares(self, index: int) -> list[Share]:
        """Operands of a step and of the late ones before it, as far as they are there."""
        values = self.values
        found = [values.get(name) for name in self._graph.operands[index]]
        return [value for value in found if isinstance(value, Share)]

    def after(self, index: int) -> list[int]:
        """Forgets what the step was the last to use; numbers of the steps that can start now."""
        self._forget_behind(index)
        ready = []
        for user in self._graph.users[index]:
            self._needs[user] -= 1
            if not self._needs[user]:
                ready.append(user)
        return ready

    def _run(self, index: int) -> None:
        at = self._graph.operations[index]
        results = self._compute(index, [self.values[name] for name in at.inputs])
        for name, value in zip(self._graph.results[index], results, strict=True):
            self.values[name] = value
            self._live += self._graph.sizes[name]

    def _forget_behind(self, index: int) -> None:
        self.most = max(self.most, self._live)
        for name in self._graph.results[index]:
            if not self._uses.get(name):
                self._forget(name)
        for name in self._graph.operations[index].inputs:
            self._uses[name] -= 1
            if not self._uses[name]:
                self._forget(name)

    def _forget(self, name: str) -> None:
        del self.values[name]
        self._live -= self._graph.sizes.get(name, 0)
