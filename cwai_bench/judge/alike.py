"""Like nodes have like facts, and a check is a pure function of facts: what it said of one it would say of the next.

In a cluster most nodes differ in a few readings out of two hundred. So the judge asks a check once for each set of
answers that it looks at, not once for each node: which readings those are is seen when it looks. A check that asks who
the node is, or when it was read, is asked again for every node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from cwai_bench.checks import FactView
from cwai_bench.model import Facts

T = TypeVar("T")


class Alike:
    """What was said of the facts seen so far. ``facts``: of all the nodes that will be asked about."""

    def __init__(self, facts: Iterable[Facts]) -> None:
        self._numbers: dict[tuple[Hashable, ...], int] = {}
        self._nodes = {f.node: self._contents(f) for f in facts}
        self._said: defaultdict[Hashable, dict[tuple[str, ...], dict[tuple[int, ...], Any]]] = defaultdict(dict)

    def _contents(self, facts: Facts) -> dict[str, int]:
        """A number for each reading, the same for the same content. How long it took to read is no content."""
        numbers = self._numbers
        return {
            source: numbers.setdefault((r.status, r.text, r.detail, r.exit_code, r.truncated), len(numbers))
            for source, r in facts.readings.items()
        }

    def ask(self, question: Hashable, facts: Facts, answer: Callable[[FactView], T]) -> T:
        """``answer`` of ``facts``, or what it was for a node before in which all that it looked at was the same."""
        contents = self._nodes[facts.node]
        said = self._said[question]
        for asked, answers in said.items():
            key = tuple(contents.get(source, -1) for source in asked)
            if key in answers:
                known: T = answers[key]
                return known
        view = FactView(facts)
        found = answer(view)
        if not view.asked_who:
            asked = tuple(view.asked)
            said.setdefault(asked, {})[tuple(contents.get(source, -1) for source in asked)] = found
        return found
