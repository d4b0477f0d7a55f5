"""Like nodes have like facts, and a check is a pure function of facts: what it said of one it would say of the next.

In a cluster most nodes differ in a few readings out of two hundred. So the judge asks a check once for each set of
answers that it looks at, not once for each node: which readings those are is seen when it looks. A check that asks who
the node is, or when it was read, is asked again for every node.
"""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from cwai_bench.checks import Asked, FactView, told
from cwai_bench.model import Facts, Reading
from cwai_bench.render.nodeset import natural

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")

NODES_APART = 2000
"""From twice as many on, nodes are judged by several processes, one for each CPU: each of them has so many at least."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """``said`` of the nodes ``at`` (places in :attr:`Alike.names`, rising)."""

    said: T
    at: Sequence[int]


class _Classes:
    """The nodes at ``present`` by what they have in ``columns``."""

    def __init__(self, columns: Sequence[list[int]], present: Iterable[int]) -> None:
        self._columns = columns
        self._at: dict[tuple[int, ...], list[int]] = {}
        for i in present:
            self._at.setdefault(tuple(column[i] for column in columns), []).append(i)

    def of(self, i: int) -> list[int]:
        return self._at[tuple(column[i] for column in self._columns)]


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
        """A number for what each node has there, the same for the same, -1 for nothing; None where all have the same.
        How long it took to read is no content."""
        self._first: dict[Asked, list[Reading]] = {}
        """The first reading with each of these numbers."""
        self._classes: dict[tuple[Asked, ...], _Classes] = {}

    def _compare(self, asked: Iterable[Asked]) -> None:
        """See what the nodes have at ``asked``: all that is asked of one reading before the next reading, so that it
        is decoded once."""
        by_source: dict[str, list[Asked]] = {}
        for a in asked:
            if a not in self._seen:
                by_source.setdefault(a if isinstance(a, str) else a[0], []).append(a)
        for source, of_source in by_source.items():
            readings = [facts.readings.get(source) for i in self.present if (facts := self.facts[i]) is not None]
            distinct = {id(reading): reading for reading in readings}
            numbers: list[dict[object, int]] = [{} for _ in of_source]
            known: dict[int, list[int]] = {}
            for place, reading in distinct.items():
                if reading is None:
                    known[place] = [-1] * len(of_source)
                    continue
                known[place] = []
                for number, a in zip(numbers, of_source, strict=True):
                    known[place].append(number.setdefault(told(reading, a), len(number)))
                    if len(number) > len(self._first.setdefault(a, [])):
                        self._first[a].append(reading)
            for at, a in enumerate(of_source):
                number_of = {place: found[at] for place, found in known.items()}
                if len(set(number_of.values())) < 2:
                    self._seen[a] = None
                    continue
                column = self._seen[a] = [-1] * len(self.names)
                for i, reading in zip(self.present, readings, strict=True):
                    column[i] = number_of[id(reading)]

    def ask(self, questions: Sequence[Callable[[FactView], T]]) -> list[list[Answer[T]]]:
        """What each question's answers are, and of which nodes; together of all that have facts. Nodes judged by
        several processes may have the same answer more than once.

        Node by node, and all questions of one before the next, so that what is decoded for one question is still at
        hand for the others.
        """
        collects = gc.isenabled()
        gc.disable()  # it would walk all facts of all nodes again and again, and find nothing: checks make no cycles
        try:
            return self._ask_apart(questions, min(len(os.sched_getaffinity(0)), len(self.present) // NODES_APART))
        finally:
            if collects:
                gc.enable()

    def _ask_apart(self, questions: Sequence[Callable[[FactView], T]], processes: int) -> list[list[Answer[T]]]:
        if processes < 2:
            return self._ask(questions)
        share = -(-len(self.present) // processes)
        parts = [self._part(self.present[at : at + share]) for at in range(0, len(self.present), share)]
        # Forked, not spawned: the facts are there already. A child computes, answers and ends.
        forked = multiprocessing.get_context("fork")
        children = []
        for part in parts[1:]:
            here, there = forked.Pipe(duplex=False)
            child = forked.Process(target=_answer, args=(part, questions, there), daemon=True)
            child.start()
            there.close()
            children.append((child, here))
        answers = parts[0]._ask(questions)
        for child, here in children:
            try:
                for said, more in zip(answers, here.recv(), strict=True):
                    said.extend(more)
            except EOFError:
                child.join()
                raise RuntimeError(f"a process that judged a part of the nodes ended with {child.exitcode}") from None
            child.join()
        return answers

    def _part(self, present: list[int]) -> Alike:
        """Of these nodes alone, at the same places."""
        part = copy.copy(self)
        part.present = present
        part._seen, part._first, part._classes = {}, {}, {}
        return part

    def _ask(self, questions: Sequence[Callable[[FactView], T]]) -> list[list[Answer[T]]]:
        answers: list[list[Answer[T]]] = [[] for _ in questions]
        open_ = [bytearray(b"\1") * len(self.names) for _ in questions]
        left = [len(self.present)] * len(questions)  # most have their answer after the first node
        asking: Sequence[int] = range(len(questions))
        for i in self.present:
            facts = self.facts[i]
            assert facts is not None
            asking = [number for number in asking if left[number]]
            stand_in = partial(self._stand_in, i)
            looked: list[tuple[int, T, FactView]] = []
            for number in asking:
                if open_[number][i]:
                    view = FactView(facts, stand_in)
                    looked.append((number, questions[number](view), view))
            self._compare(dict.fromkeys(a for _, _, view in looked if not view.asked_who for a in view.asked))
            for number, said, view in looked:
                at: Sequence[int] = [i] if view.asked_who else self._like(i, tuple(view.asked))
                for j in at:
                    open_[number][j] = 0
                left[number] -= len(at)
                answers[number].append(Answer(said, at))
        return answers

    def _stand_in(self, i: int, asked: Asked) -> Reading | None:
        """The first reading of which one learns the same at ``asked`` as of that of the node at ``i``."""
        if asked not in self._first:
            return None
        column = self._seen[asked]
        return self._first[asked][0 if column is None else column[i]]

    def _like(self, i: int, asked: tuple[Asked, ...]) -> list[int]:
        """The nodes of which one learns the same by looking at ``asked`` as of the node at ``i``. Any of them would
        have been looked at in the same places and no others: so classes of different ``asked`` never overlap."""
        found = self._classes.get(asked)
        if found is None:
            differing = {a: column for a in asked if (column := self._seen[a]) is not None}
            found = self._classes.get(tuple(differing)) or _Classes(list(differing.values()), self.present)
            self._classes[asked] = self._classes[tuple(differing)] = found
        return found.of(i)

    def named(self, at: Iterable[int]) -> list[str]:
        return [self.names[i] for i in at]


def _answer(part: Alike, questions: Sequence[Callable[[FactView], object]], to: Connection) -> None:
    to.send(part._ask(questions))
