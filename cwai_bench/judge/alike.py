"""Like nodes have like facts, and a check is a pure function of facts: what it said of one it would say of the next.

In a cluster most nodes differ in a few readings out of two hundred. So the judge asks a check once for each set of
answers that it looks at, not once for each node: which readings those are is seen when it looks. A check that asks who
the node is, or when it was read, is asked again for every node.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cwai_bench.checks import Asked, FactView, told
from cwai_bench.model import Facts, Reading
from cwai_bench.render.nodeset import natural

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """``said`` of the nodes ``at`` (places in :attr:`Alike.names`, rising)."""

    said: T
    at: Sequence[int]


class Alike:
    """The nodes of a run in natural order, and which of their readings are the same.

    ``nodes``: all that should have facts; ``lost`` are the places of those that have none.
    """

    def __init__(self, facts: Iterable[Facts], nodes: Iterable[str] = ()) -> None:
        by_node = {f.node: f for f in facts}
        self.names = sorted(dict.fromkeys([*nodes, *by_node]), key=natural)
        self.facts = [by_node.get(name) for name in self.names]
        self.present = [i for i, f in enumerate(self.facts) if f is not None]
        self.lost = [i for i, f in enumerate(self.facts) if f is None]
        self._seen: dict[Asked, list[int] | None] = {}
        self._classes: dict[tuple[Asked, ...], dict[tuple[int, ...], list[int]]] = {(): {(): self.present}}

    def _column(self, asked: Asked) -> list[int] | None:
        """A number for what each node has there, the same for the same, -1 for nothing; None where all have the same.
        How long it took to read is no content."""
        if asked in self._seen:
            return self._seen[asked]
        source = asked if isinstance(asked, str) else asked[0]
        numbers: dict[object, int] = {}
        column = [-1] * len(self.names)
        known: tuple[Reading, int] | None = None
        for i in self.present:
            facts = self.facts[i]
            assert facts is not None
            reading = facts.readings.get(source)
            if reading is None:
                continue
            if known is None or reading is not known[0]:
                known = reading, numbers.setdefault(told(reading, asked), len(numbers))
            column[i] = known[1]
        self._seen[asked] = column if len({column[i] for i in self.present}) > 1 else None
        return self._seen[asked]

    def ask(self, questions: Sequence[Callable[[FactView], T]]) -> list[list[Answer[T]]]:
        """What each question's answers are, and of which nodes; together of all that have facts.

        Node by node, and all questions of one before the next, so that what is decoded for one question is still at
        hand for the others.
        """
        collects = gc.isenabled()
        gc.disable()  # it would walk all facts of all nodes again and again, and find nothing: checks make no cycles
        try:
            return self._ask(questions)
        finally:
            if collects:
                gc.enable()

    def _ask(self, questions: Sequence[Callable[[FactView], T]]) -> list[list[Answer[T]]]:
        answers: list[list[Answer[T]]] = [[] for _ in questions]
        open_ = [bytearray(b"\1") * len(self.names) for _ in questions]
        left = [len(self.present)] * len(questions)  # most have their answer after the first node
        asking: Sequence[int] = range(len(questions))
        for i in self.present:
            facts = self.facts[i]
            assert facts is not None
            asking = [number for number in asking if left[number]]
            for number in asking:
                if not open_[number][i]:
                    continue
                view = FactView(facts)
                said = questions[number](view)
                at: Sequence[int] = [i] if view.asked_who else self._like(i, view.asked)
                for j in at:
                    open_[number][j] = 0
                left[number] -= len(at)
                answers[number].append(Answer(said, at))
        return answers

    def _like(self, i: int, asked: Iterable[Asked]) -> list[int]:
        """The nodes of which one learns the same by looking at ``asked`` as of the node at ``i``. Any of them would
        have been looked at in the same places and no others: so classes of different ``asked`` never overlap."""
        differing = {a: column for a in asked if (column := self._column(a)) is not None}
        columns = list(differing.values())
        classes = self._classes.get(tuple(differing))
        if classes is None:
            classes = self._classes[tuple(differing)] = {}
            for j in self.present:
                classes.setdefault(tuple(column[j] for column in columns), []).append(j)
        return classes[tuple(column[i] for column in columns)]

    def named(self, at: Iterable[int]) -> list[str]:
        return [self.names[i] for i in at]
