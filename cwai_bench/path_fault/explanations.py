"""What explains the probes: parts, two or three of them at once, and how probable each is."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from cwai_bench.model import PathPart, PathProbe, PathStatus
from cwai_bench.path_fault.seen import PRIOR, Pair, Seen, log_sum
from cwai_bench.port_counters import BROKEN, ETHERNET_ERRORS, FLAPS, LINK_ERRORS, NPU_BROKEN, NPU_ETHERNET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SAME_NODE = 2.0
"""Two NICs of one node fail together more often than two of different nodes: one card has both ports."""
EVENT, COUNTED = 7.0, 5.0
"""Logarithms of how much more often a bad NIC has an event of its port (1 to 1,000), or errors counted (1 to 150)."""
LINK_COUNTERS = frozenset((*LINK_ERRORS, *FLAPS, *ETHERNET_ERRORS, *BROKEN, *NPU_ETHERNET, *NPU_BROKEN))
NEGLIGIBLE = 12.0
"""What is less probable than the best by more than this, as a logarithm, is not looked at."""
THREES = 8
"""Best explanations by two parts to which a third is tried."""
MAJORS = 96
"""Parts that are weighed against one another, the likeliest first."""

Sign = Literal["port_down", "port_error"]


@dataclass(frozen=True)
class PortEvent:
    """What the port of ``end`` said of itself (IBV_EVENT_PORT_ERR, a link that went down)."""

    end: str
    sign: Sign


@dataclass(frozen=True)
class Part:
    """A NIC, a node or the fabric: ``ends`` by number, ``pairs`` that meet it. ``cost``: what it takes to say which
    ends are on which side, as a logarithm: of so many ways to part them one fits any few stray failures."""

    kind: PathPart
    ends: tuple[int, ...]
    pairs: tuple[int, ...]
    cost: float = 0.0

    @property
    def key(self) -> tuple[PathPart, tuple[int, ...]]:
        """All ways in which the fabric may be bad are one part: hosts cannot tell its links apart."""
        return (self.kind, () if self.kind == "fabric" else self.ends)


Key = tuple[PathPart, tuple[int, ...]]
FABRIC: Key = ("fabric", ())


@dataclass
class Weighed:
    """An explanation: its parts, its posterior probability; of each part how probable it is that it meets only some
    entropies; of each pair how probable it is that a path of its own is bad."""

    parts: tuple[Part, ...]
    weight: float
    some: tuple[float, ...]
    path: Floats


@dataclass
class Posterior:
    seen: Seen
    weighed: list[Weighed]
    hinted: dict[int, list[str]]
    probability: dict[Key, float] = field(default_factory=dict)
    shape: dict[Key, Part] = field(default_factory=dict)
    some: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Add up. Where only some entropies of one end, node or pair are bad, half of that may be the fabric's."""
        total: dict[Key, float] = defaultdict(float)
        some: dict[Key, float] = defaultdict(float)
        patchy = np.where(self.seen.firm() > 0, self.seen.effects(self.seen.one)[:, self.seen.some].sum(1), 0.0)
        for each in self.weighed:
            no_fabric = 1.0
            for part, patch in zip(each.parts, each.some, strict=True):
                own = 1.0 if part.kind == "fabric" or self._is_hinted(part) else 1 - patch / 2
                total[part.key] += each.weight * own
                some[part.key] += each.weight * patch
                no_fabric *= 1.0 if part.kind == "fabric" else own
                self.shape.setdefault(part.key, part)
            for p in np.flatnonzero(each.path > 1e-3):
                key: Key = ("path", self.seen.pairs[p])
                own = 1 - float(patchy[p]) / 2
                total[key] += each.weight * float(each.path[p]) * own
                some[key] += each.weight * float(each.path[p]) * float(patchy[p])
                no_fabric *= 1 - float(each.path[p]) * (1 - own)
                self.shape.setdefault(key, Part("path", self.seen.pairs[p], (int(p),)))
            if not any(part.kind == "fabric" for part in each.parts):
                total[FABRIC] += each.weight * (1 - no_fabric)
        self.probability = {key: value for key, value in total.items() if value > 1e-4}
        self.some = {key: some[key] / max(total[key], 1e-12) for key in self.probability}

    def _is_hinted(self, part: Part) -> bool:
        return part.kind == "nic" and part.ends[0] in self.hinted


def _explain(seen: Seen, events: Sequence[PortEvent], counters: Mapping[str, Mapping[str, int | None]]) -> Posterior:
    hinted: dict[int, list[str]] = defaultdict(list)
    bonus: dict[int, float] = defaultdict(float)
    number = {end: i for i, end in enumerate(seen.ends)}
    for event in sorted(set(events), key=lambda e: (e.end, e.sign)):
        if event.end in number:
            hinted[number[event.end]].append(event.sign)
            bonus[number[event.end]] = EVENT
    for end, grown in counters.items():
        names = sorted(name for name, by in grown.items() if name in LINK_COUNTERS and by)
        if names and end in number:
            hinted[number[end]] += names
            bonus[number[end]] = max(bonus[number[end]], COUNTED)
    hosts = _hosts(seen)
    prior = {part.key: PRIOR[part.kind] + (bonus.get(part.ends[0], 0.0) if part.kind == "nic" else 0) for part in hosts}
    hosts = _likeliest(seen, hosts, prior)
    parts = [*hosts, *_fabrics(seen, hosts)]
    explanations: list[_Explanation] = [((), 0.0, ())]
    if parts:
        explanations += _singles_and_twos(seen, parts, prior)
    best = max(score for _, score, _ in explanations)
    near = [each for each in explanations if each[1] > best - NEGLIGIBLE]
    near.sort(key=lambda each: -each[1])
    total = math.fsum(math.exp(score - best) for _, score, _ in near)
    weighed = []
    for own, score, effects in near:
        weight = math.exp(score - best) / total
        some = tuple(float(effect[seen.some].sum()) for effect in effects)
        weighed.append(Weighed(own, weight, some, _paths_beside(seen, own, effects)))
    return Posterior(seen, weighed, dict(hinted))


def _hosts(seen: Seen) -> list[Part]:
    """The NICs and nodes that some bad probe has met."""
    bad = seen.bad > 0
    parts = [Part("nic", (end,), tuple(own)) for end, own in sorted(seen.of_end.items()) if bad[own].any()]
    of_node: dict[str, list[int]] = defaultdict(list)
    for end in sorted(seen.of_end):
        of_node[seen.nodes[end]].append(end)
    for ends in of_node.values():
        own = sorted({p for end in ends for p in seen.of_end[end]})
        if bad[own].any():
            parts.append(Part("node", tuple(ends), tuple(own)))
    return parts


def _likeliest(seen: Seen, parts: Sequence[Part], prior: Mapping[Key, float]) -> list[Part]:
    """Parts that explain more than they cost; where these are too many, the likeliest (all of those that are equal)."""
    score = {p.key: prior[p.key] + float(seen.averaged(seen.gain[list(p.pairs)].sum(0))) for p in parts}
    kept = [part for part in parts if score[part.key] > -2]
    if len(kept) > MAJORS:
        least = sorted((score[part.key] for part in kept), reverse=True)[MAJORS - 1] - 1e-9
        kept = [part for part in kept if score[part.key] >= least]
    return sorted(kept, key=lambda part: -score[part.key])


def _fabrics(seen: Seen, hosts: Sequence[Part]) -> list[Part]:
    """Groups of ends that are fine within and bad with one another, with and without the likeliest parts beside."""
    found: dict[tuple[int, ...], Part] = {}
    for beside in (None, *hosts[:6]):
        free = np.ones(len(seen.pairs), dtype=bool)
        if beside is not None:
            free[list(beside.pairs)] = False
        odds = np.where(free[:, None], seen.one - seen.null[:, None], 0.0)
        for some in (True, False):
            effects = np.flatnonzero(some == seen.some)
            best = int(effects[np.argmax(np.maximum(odds[:, effects], 0).sum(0))])
            if not odds[:, best].max() > 0:
                continue
            groups = _groups(seen, odds[:, best])
            odds_ends = {end for p in np.flatnonzero(odds[:, best]) for end in seen.pairs[p]}
            group = np.array(groups)
            across = tuple(p for p, (a, b) in enumerate(seen.pairs) if free[p] and group[a] != group[b])
            if across and across not in found and _is_shared(seen, groups, odds[:, best]):
                ends = tuple(sorted({end for p in across if odds[p, best] > 0 for end in seen.pairs[p]}))
                found_in = Counter(groups[end] for end in odds_ends)
                named = [size for size in found_in.values() if size > 1]
                sizes = np.array([*named, *([single] if (single := len(odds_ends) - sum(named)) else [])], dtype=float)
                cost = float((sizes * np.log(sizes / sizes.sum())).sum())
                found[across] = Part("fabric", ends, across, cost)
    return list(found.values())


def _groups(seen: Seen, odds: Floats) -> list[int]:
    """Which group each end is in. Two groups are joined while their pairs together are rather fine than bad."""
    ends = sorted({end for p in np.flatnonzero(odds) for end in seen.pairs[p]})
    place = {end: i for i, end in enumerate(ends)}
    between = np.zeros((len(ends), len(ends)))
    for p in np.flatnonzero(odds):
        a, b = (place[end] for end in seen.pairs[p])
        between[a, b] = between[b, a] = odds[p]
    group = np.arange(len(ends))
    while between.size and between.min() < -1e-9:
        a, b = sorted(divmod(int(between.argmin()), len(ends)))
        between[a] += between[b]
        between[:, a] = between[a]
        between[b], between[:, b], between[a, a] = 0.0, 0.0, 0.0
        group[group == b] = a
    out = [-1 - end for end in range(len(seen.ends))]
    for end in ends:
        out[end] = int(group[place[end]])
    return out


def _is_shared(seen: Seen, groups: Sequence[int], odds: Floats) -> bool:
    """Whether what lies between these groups is more than the uplinks of one or two ends, or nodes: these are told as
    such, when it is clear which they are."""
    nodes: dict[int, set[str]] = defaultdict(set)
    between: dict[Pair, float] = defaultdict(float)
    for p in np.flatnonzero(odds):
        a, b = sorted(groups[end] for end in seen.pairs[p])
        for end in seen.pairs[p]:
            nodes[groups[end]].add(seen.nodes[end])
        if a != b:
            between[a, b] += float(odds[p])
    # Of a group within one node its node, of larger ones nothing: no uplink of one node is between two of these.
    single = {group: next(iter(own)) for group, own in nodes.items() if len(own) == 1}
    edges = [(single.get(a, ""), single.get(b, "")) for (a, b), total in between.items() if total > 0]
    covers = _covers(edges, 2)
    least = min(map(len, covers), default=0)
    several = sum(len(cover) == least for cover in covers) > 1
    return not covers or (several and len({node for edge in edges for node in edge if node}) > 2)


def _covers(edges: Sequence[tuple[str, str]], most: int) -> set[frozenset[str]]:
    """Sets of ``most`` nodes at most of which each edge has one."""
    if not edges:
        return {frozenset()}
    if not most:
        return set()
    found = set()
    for node in filter(None, edges[0]):
        found |= {cover | {node} for cover in _covers([edge for edge in edges if node not in edge], most - 1)}
    return found


_Explanation = tuple[tuple[Part, ...], float, "tuple[Floats, ...]"]


def _singles_and_twos(seen: Seen, parts: Sequence[Part], prior: Mapping[Key, float]) -> list[_Explanation]:
    """Each part and each two of them, with the logarithm of prior times likelihood (that of nothing is 0), and of each
    part the probabilities of its effects."""
    meets = np.zeros((len(parts), len(seen.pairs)))
    for c, part in enumerate(parts):
        meets[c, list(part.pairs)] = 1
    rare = [prior.get(part.key, PRIOR[part.kind]) + part.cost for part in parts]
    gain = meets @ seen.gain
    out: list[_Explanation] = []
    for c, part in enumerate(parts):
        out.append(((part,), rare[c] + float(seen.averaged(gain[c])), (seen.effects(gain[c]),)))
    shared = np.flatnonzero(meets.sum(0) > 1)
    size = len(seen.rho)
    deep = seen.deep(shared).reshape(len(shared), size * size)
    alone = np.array([score for _, score, _ in out])
    for c in range(len(parts) - 1):
        # Two together explain hardly more than each does: most are far from the best one anyhow.
        near = [d for d in range(c + 1, len(parts)) if alone[c] + alone[d] > alone.max() - NEGLIGIBLE]
        near = [d for d in near if parts[c].pairs != parts[d].pairs]  # neither adds to the other
        near = [d for d in near if not parts[c].kind == parts[d].kind == "fabric"]
        if not near:
            continue
        overlap = meets[near][:, shared] * meets[c, shared]
        used = np.flatnonzero(overlap.any(0))
        joint = (overlap[:, used] @ deep[used]).reshape(-1, size, size)
        joint += (gain[c] + seen.prior)[None, :, None] + (gain[near] + seen.prior)[:, None, :]
        # Two that hang on one bad switch: what meets both is not worse for it.
        hung = gain[c] + gain[near] - (meets[near] * meets[c]) @ seen.gain
        for d, table, score, once in zip(near, joint, log_sum(joint, (1, 2)), hung, strict=True):
            together = SAME_NODE if _on_one_node(seen, parts[c], parts[d]) else 0.0
            weight = np.exp(table - table.max())
            weight /= weight.sum()
            out.append(
                ((parts[c], parts[d]), rare[c] + rare[d] + together + float(score), (weight.sum(1), weight.sum(0)))
            )
            alike = float(seen.averaged(once)) - math.log(size)  # no likelier than two that happen to be alike
            if alike > score and _on_two_nodes(seen, parts[c], parts[d]):
                effect = seen.effects(once)
                out.append(((parts[c], parts[d]), rare[c] + rare[d] + alike, (effect, effect)))
    return [*out, *_threes(seen, parts, rare, out)]


def _threes(
    seen: Seen, parts: Sequence[Part], rare: Sequence[float], less: Sequence[_Explanation]
) -> list[_Explanation]:
    """A third part beside the best two, by what these do not meet: else what it does would look like so many paths."""
    twos = sorted((each for each in less if len(each[0]) == 2), key=lambda each: -each[1])[:THREES]
    out: dict[frozenset[Part], _Explanation] = {}
    for own, score, effects in twos:
        met = {p for part in own for p in part.pairs}
        for part, cost in zip(parts, rare, strict=True):
            left = [p for p in part.pairs if p not in met]
            if part in own or not left or (part.kind == "fabric" and any(each.kind == "fabric" for each in own)):
                continue
            gain = seen.gain[left].sum(0)
            total = score + cost + float(seen.averaged(gain))
            key = frozenset((*own, part))
            if key not in out or out[key][1] < total:
                out[key] = ((*own, part), total, (*effects, seen.effects(gain)))
    return list(out.values())


def _on_one_node(seen: Seen, one: Part, other: Part) -> bool:
    return one.kind == other.kind == "nic" and seen.nodes[one.ends[0]] == seen.nodes[other.ends[0]]


def _on_two_nodes(seen: Seen, one: Part, other: Part) -> bool:
    hosts = {one.kind, other.kind} <= {"nic", "node"}
    return hosts and not {seen.nodes[end] for end in one.ends} & {seen.nodes[end] for end in other.ends}


def _paths_beside(seen: Seen, parts: Sequence[Part], effects: Sequence[Floats]) -> Floats:
    """How probable it is of each pair that beside ``parts`` a path of its own is bad."""
    log = seen.null.copy()
    for part, effect in zip(parts, effects, strict=True):
        own = np.array(part.pairs)
        with_it = np.logaddexp.reduce(seen.one[own] + np.log(np.maximum(effect, 1e-30)), axis=1)
        log[own] = np.maximum(log[own], with_it)
    odds = PRIOR["path"] + seen.alone - log
    out: Floats = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
    return out


def posteriors(
    probes: Sequence[PathProbe], events: Sequence[PortEvent], counters: Mapping[str, Mapping[str, int | None]]
) -> list[Posterior]:
    """What explains the probes that failed, and those that were slow: two faults at once are often of two sorts."""
    sorts: tuple[PathStatus, ...] = ("failed", "slow")
    every = [Seen(probes, sort) for sort in sorts if any(probe.status == sort for probe in probes)]
    return [_explain(seen, events, counters) for seen in every if seen.bad.any()]
