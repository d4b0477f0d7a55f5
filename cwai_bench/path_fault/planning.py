"""Which probes to make next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cwai_bench.matrix import node_of
from cwai_bench.model import PathProbe, PathProbes
from cwai_bench.path_fault.explanations import PortEvent, Posterior, posteriors
from cwai_bench.path_fault.seen import FIRM, Seen
from cwai_bench.path_fault.telling import NAMED, named_parts


@dataclass(frozen=True)
class _Level:
    """How closely to look: ``entropies`` of each pair, each ``repeats`` times. ``wide``: the suspects with an end of
    every other node; ``near``: with their referees, and nothing else."""

    entropies: int
    repeats: int = 1
    wide: bool = False
    near: bool = False


LEVELS = (
    _Level(8),
    _Level(24),
    _Level(16, 4, near=True),
    _Level(16, wide=True),
    _Level(32, 4),
    _Level(8, 32, near=True),
    _Level(128, near=True),
)
"""The first tells what is dead, the second what loses, the third whether always the same entropies are bad, the fourth
where ends begin that are fine with a suspect; then more of all, the same few entropies again and again, and last many
of them for links that few have."""
WORTH = 512
"""Probes below which a round asks what the next one would have."""
REFEREES = 3
SUSPECTS = 8
WIDE = 64
"""Ends up to which a suspect meets all of them on the wide level; of more, one of each node."""
LIMIT = 4096
"""Probes of one round: a quarter of a second at 64 KiB each over one 10 Gb/s NIC."""


def plan(
    ends: Sequence[str],
    probes: Sequence[PathProbe],
    events: Sequence[PortEvent] = (),
    counters: Mapping[str, Mapping[str, int | None]] | None = None,
    *,
    meet: Callable[[str, str], bool] | None = None,
    limit: int = LIMIT,
) -> list[PathProbes]:
    """Which probes to make next, ``limit`` of them at most; none when nothing was bad or no more can be learnt.

    ``ends``: all that may be asked (``node/NIC``), in an order in which neighbours are near. ``probes``: all that was
    seen so far, to begin with what the transfer saw whose path died. ``meet``: whether two ends can reach one another
    at all (those of other rails may not); ends of one node are never asked to.

    First each suspect end meets referees on three other nodes, and these one another; its node's other NICs meet some
    as well; and all other nodes meet in a ring, for what looks like one node may be a switch. What is named is asked
    no further. What is not is looked at more closely (``LEVELS``).
    """
    found: list[PathProbes] = []
    for posterior in posteriors(probes, events, counters or {}):
        course = _Course(ends, meet, posterior.seen, probes)
        left = limit - sum(len(each.entropies) * each.repeats for each in found)
        asked = {(each.source, each.target) for each in found}
        found += [each for each in _next(course, posterior, left) if (each.source, each.target) not in asked]
    return found


def _next(course: _Course, posterior: Posterior, limit: int) -> list[PathProbes]:
    """What is left to ask at the first level; where that is hardly worth a round, at the next as well."""
    firm = posterior.seen.firm()
    named = named_parts(posterior)
    likely = {key for key, value in posterior.probability.items() if value > 1 - NAMED and key in posterior.shape}
    explained = {p for key in named for p in posterior.shape[key].pairs}
    doubted = {p for key in likely - set(named) for p in posterior.shape[key].pairs}
    bad = [int(p) for p in np.flatnonzero(firm > 0) if firm[p] > FIRM or p in doubted or p in explained]
    bad = bad or [int(p) for p in np.flatnonzero(firm > 0)]
    open_ = [p for p in bad if p not in explained and p in doubted]
    found: dict[tuple[str, str], PathProbes] = {}
    for level in LEVELS if open_ else LEVELS[:1]:
        pairs = course.around(bad, level) + course.ring(bad) if level is LEVELS[0] else course.around(open_, level)
        made = sum(len(each.entropies) * each.repeats for each in found.values())
        found |= {(each.source, each.target): each for each in course.asked(level, pairs, limit - made)}
        if sum(len(each.entropies) * each.repeats for each in found.values()) >= WORTH:
            break
    return list(found.values())


class _Course:
    """Which pairs to ask, and what of that was asked before."""

    def __init__(
        self,
        ends: Sequence[str],
        meet: Callable[[str, str], bool] | None,
        seen: Seen,
        probes: Sequence[PathProbe],
    ) -> None:
        self.seen, self.firm = seen, seen.firm()
        self.meet = meet
        self.of_node: dict[str, list[str]] = defaultdict(list)
        for end in dict.fromkeys([*ends, *seen.ends]):
            self.of_node[node_of(end)].append(end)
        self.nodes = list(self.of_node)
        self.odds = {(seen.ends[a], seen.ends[b]): float(self.firm[p]) for p, (a, b) in enumerate(seen.pairs)}
        self.asked_before = Counter((probe.source, probe.target, probe.entropy) for probe in probes)

    def between(self, one: str, other: str) -> float:
        """How surely the pair is bad rather than fine; 0 where it was never asked."""
        return self.odds.get((min(one, other), max(one, other)), 0.0)

    def can_meet(self, one: str, other: str) -> bool:
        return node_of(one) != node_of(other) and (self.meet is None or self.meet(one, other))

    def suspects(self, bad: Sequence[int]) -> list[str]:
        """Ends of bad pairs, those first of which most is bad."""
        weight: dict[str, float] = defaultdict(float)
        for p in bad:
            for number in self.seen.pairs[p]:
                weight[self.seen.ends[number]] += min(float(self.firm[p]), 10.0)
        for (a, b), odds in self.odds.items():
            if odds < 0:
                for end in (a, b):
                    if end in weight:
                        weight[end] += max(odds, -5.0)
        return sorted(weight, key=lambda end: (-weight[end], end))[:SUSPECTS]

    def around(self, bad: Sequence[int], level: _Level) -> list[tuple[str, str]]:
        suspects = self.suspects(bad)
        pairs = [(self.seen.ends[a], self.seen.ends[b]) for a, b in (self.seen.pairs[p] for p in bad)]
        pairs = [pair for pair in pairs if pair[0] in suspects and pair[1] in suspects][: SUSPECTS**2]
        if level.wide:
            every = [end for ends in self.of_node.values() for end in ends]
            if len(every) > WIDE:
                return [(end, other) for end in suspects for other in self.one_of(end, self.nodes, len(self.nodes))]
            return [(end, other) for end in suspects for other in every if self.can_meet(end, other)]
        homes = {node_of(end) for end in suspects}
        others = [node for node in self.nodes if node not in homes]
        referees: dict[str, None] = {}
        for end in suspects:
            chosen = self.referees(end, others)
            pairs += [(end, other) for other in chosen]
            referees.update(dict.fromkeys(chosen))
        if not level.near:
            pairs += [(a, b) for a in referees for b in referees if a < b and self.can_meet(a, b)]
        for end in suspects if not level.near else ():
            for sibling in self.of_node[node_of(end)]:
                if sibling not in suspects:
                    pairs += [(sibling, other) for other in self.referees(sibling, others)[:2]]
        if not others:  # of two nodes each is the other's only witness
            pairs += [(end, other) for end in suspects for node in sorted(homes) for other in self.of_node[node]]
        return [pair for pair in dict.fromkeys(pairs) if self.can_meet(*pair)]

    def referees(self, end: str, nodes: Sequence[str]) -> list[str]:
        """Ends of other nodes: of those that ``end`` was fine with and of those that it was not, as many each; where
        nothing is known, far from one another. One of each node as long as there are enough."""
        candidates = self.one_of(end, nodes, len(nodes))
        friends = sorted((o for o in candidates if self.between(end, o) < 0), key=lambda o: self.between(end, o))
        foes = sorted((o for o in candidates if self.between(end, o) > 0), key=lambda o: -self.between(end, o))
        chosen = [*friends[:REFEREES], *foes[:REFEREES]]
        rest = [o for o in candidates if o not in chosen]
        missing = max(0, REFEREES - len(chosen))
        chosen += [rest[i * len(rest) // missing] for i in range(min(missing, len(rest)))] if missing else []
        return list(dict.fromkeys(chosen))

    def one_of(self, end: str, nodes: Sequence[str], count: int) -> list[str]:
        """For each of ``nodes`` the end that ``end`` can meet: one that it met, else of its rail, else any."""
        rail = end.partition("/")[2]
        found = []
        for node in nodes:
            able = [other for other in self.of_node[node] if self.can_meet(end, other)]
            able.sort(key=lambda o: (self.between(end, o) == 0.0, o.partition("/")[2] != rail))
            found += able[:1]
        return found[:count]

    def ring(self, bad: Sequence[int]) -> list[tuple[str, str]]:
        """Each node that no suspect is of with the next one, on the rails of the suspects."""
        suspects = self.suspects(bad)
        homes = {node_of(end) for end in suspects}
        others = [node for node in self.nodes if node not in homes]
        rails = list(dict.fromkeys(end.partition("/")[2] for end in suspects))[:2]
        pairs = []
        for at, node in enumerate(others):
            following = others[(at + 1) % len(others)]
            for rail in rails:
                end = next((e for e in self.of_node[node] if e.partition("/")[2] == rail), None)
                if end is not None:
                    pairs += [(end, other) for other in self.one_of(end, [following], 1)]
        return pairs

    def asked(self, level: _Level, pairs: Sequence[tuple[str, str]], limit: int) -> list[PathProbes]:
        """What of this was not asked yet; each pair in the direction in which it was asked before."""
        found = []
        left = limit
        for one, other in {(min(pair), max(pair)): pair for pair in reversed(pairs)}.values():
            ways = [(one, other), (other, one)]
            source, target = max(ways, key=lambda way: any(self.asked_before[*way, e] for e in range(level.entropies)))
            lacking = [e for e in range(level.entropies) if self.asked_before[source, target, e] < level.repeats]
            lacking = lacking[: left // level.repeats]
            if lacking:
                found.append(PathProbes(source, target, lacking, level.repeats))
                left -= len(lacking) * level.repeats
        return found
