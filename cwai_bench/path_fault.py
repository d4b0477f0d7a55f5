"""Which part made a path fail: named from small probes over ends and entropies, and which probes to make next.

Pure; whoever drives it goes :func:`plan` → probes → :func:`localise`, for a few rounds, until the plan is empty.
Import it where it is used: it needs numpy.

A probe is bad when it failed; then all is asked again of those that were slow. A *part* makes probes bad that meet it:
a NIC those of its end, a node those of all its ends, a path those of one pair, a fabric those between groups of ends.
It meets a share ``ρ`` of the flows (a flow is source, target, entropy; a link inside the fabric has only those that are
hashed onto it, all else has them all) and makes a share ``s`` of their probes bad (all when dead, some when it loses).
Without any part one probe in a hundred is bad (``NOISE``). Neither share is known: likelihoods are averaged over a grid
of both, which prefers by itself what explains as much with less. Explanations are: nothing, one part, two at once,
a third beside the best two; each with any number of paths; weighed by how rare a part is (``PRIOR``).

So each part has a posterior probability, the **confidence**: the sum over all explanations with it. It is right as far
as the model is: of a hundred parts named at 0.98 two may be wrong when faults come as often as ``PRIOR`` says. One is
named at ``NAMED`` or more; a NIC or a node only when ends of two other nodes say so, or its own port does; a path when
neither end has another. When it is as good as sure that something is bad, and no part alone is, that is *ambiguous*.
These are always so from hosts:

- a NIC and its node, where the node has no other NIC that was probed;
- a node that has two NICs, and both of these at once;
- bad entropies of one end alone, which may be its uplink's or those of the uplink of all the others;
- a NIC or node beside a bad switch that is bad in the same way: it may hang on it.

A switch on which but one or two of the ends hang is told as these: what only one end uses is its uplink. Groups for a
fabric fault are found by joining ends, those first that are most surely fine with one another (greedy additive edge
contraction, Keuper et al. 2015). A fault behind a larger one is not seen.

Port events and counters of errors on the link make their NIC as much more probable as they are rare otherwise
(``EVENT``, ``COUNTED``). Of completions, 4, 9 and 10 (local protection, remote invalid request, remote access) tell of
configuration and are no fault of a path; 5 (flushed) follows from an error before and tells nothing; 12 (transport
retry exceeded) is a probe that failed. (Numbers: rdma-core, libibverbs/verbs.h, ``enum ibv_wc_status``.)

:mod:`cwai_bench.matrix` judges a grid in which each pair has one figure and most were measured, and a part is bad with
three quarters of its partners by a depth that noise does not explain. Here pairs are few and chosen, a pair has a
hundred yes-or-no answers, and the question is how many: a fault of one entropy in sixteen has no depth. What both hold:
two partners must say so, and two that are bad are not fine with one another, else they share a switch.
:mod:`cwai_bench.probes.slow_part` plans groups of any size for one figure, and asks ``matrix`` who it is.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from cwai_bench.errors import UsageError
from cwai_bench.matrix import node_of
from cwai_bench.model import (
    Action,
    Drain,
    PathCandidate,
    PathFinding,
    PathFindingKind,
    PathPart,
    PathProbe,
    PathProbes,
    PathStatus,
    PathTally,
)
from cwai_bench.port_counters import BROKEN, ETHERNET_ERRORS, FLAPS, LINK_ERRORS, NPU_BROKEN, NPU_ETHERNET
from cwai_bench.text import Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

NOISE = 0.01
PRIOR: dict[PathPart, float] = {"nic": -4.0, "node": -4.5, "fabric": -5.5, "path": -6.5}
"""Natural logarithms: one NIC in 55 is bad in a group of which something is; one path in 665. Two at once are as rare
as their product says, and that is meant to be often: a third explanation costs a second look, a wrong one a node."""
SAME_NODE = 2.0
"""Two NICs of one node fail together more often than two of different nodes: one card has both ports."""
NAMED = 0.98
EVENT, COUNTED = 7.0, 5.0
"""Logarithms of how much more often a bad NIC has an event of its port (1 to 1,000), or errors counted (1 to 150)."""
DEAD = 0.9
"""The share of its probes beyond which what is bad is so altogether."""
SLOW = 0.85
"""Below this share of what it usually reaches a probe is slow: three standard deviations of 5 % noise."""
CONFIGURATION = frozenset((4, 9, 10))
FLUSHED = 5
LINK_COUNTERS = frozenset((*LINK_ERRORS, *FLAPS, *ETHERNET_ERRORS, *BROKEN, *NPU_ETHERNET, *NPU_BROKEN))
NEGLIGIBLE = 12.0
"""What is less probable than the best by more than this, as a logarithm, is not looked at."""
PROOF, PROOF_FINE = 16, 8
"""Pairs kept as proof of a finding."""
THREES = 8
"""Best explanations by two parts to which a third is tried."""
MAJORS = 96
"""Parts that are weighed against one another, the likeliest first."""

NO_ENDS = Text(
    "a probe from {source!r} to {target!r} is none between two ends",
    "从 {source!r} 到 {target!r} 的探测不是两端之间的探测",
)
NAME_ENDS = Text(
    "name two different ends, each node/NIC (node1/mlx5_0)", "请给出两个不同的端，各写作 节点/网卡（node1/mlx5_0）"
)

_ALL = (0.999, 0.95, 0.75, 0.5, 0.3, 0.15, 0.06)
"""Shares of probes that a part may make bad which meets all flows; those that are seen come on top."""
_SOME = tuple((rho, s) for rho in (0.75, 0.45, 0.25, 0.12, 0.06) for s in (0.999, 0.4))
_FITTED = 4
"""Ends whose own share of bad probes is tried as well: of a thousand probes 0.22 and 0.25 are not the same."""
_FIRM = 3.0
"""A logarithm of odds beyond which a pair counts as bad, or as fine."""

Sign = Literal["port_down", "port_error"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class PortEvent:
    """What the port of ``end`` said of itself (IBV_EVENT_PORT_ERR, a link that went down)."""

    end: str
    sign: Sign


def status_of(figure: float | None, usual: float) -> PathStatus:
    """A probe's outcome by its figure, held against what the same pair usually reaches, in the same unit."""
    if figure is None:
        return "failed"
    return "slow" if figure < SLOW * usual else "ok"


# ---------------------------------------------------------------------------------------------- the data


class _Seen:
    """Probes counted, of which those are bad that are ``worse``. ``pairs[p]``: two ends, the lower number first.

    ``null``, ``one``: log-likelihood of a pair's probes when no part meets it, and when one of each effect does;
    ``alone``: when a path of its own does. ``base``, ``gain``, ``deep``: the same with a path beside as rare as one is.
    """

    def __init__(self, probes: Sequence[PathProbe], worse: PathStatus) -> None:
        self.refused: dict[tuple[str, str], list[PathProbe]] = defaultdict(list)
        cells: dict[tuple[str, str, int], list[int]] = {}
        figures: dict[tuple[str, str], list[float]] = defaultdict(list)
        codes: dict[tuple[str, str], set[int]] = defaultdict(set)
        statuses: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for probe in probes:
            if "/" not in probe.source or "/" not in probe.target or probe.source == probe.target:
                raise UsageError(NO_ENDS.fill(source=probe.source, target=probe.target), NAME_ENDS)
            key = (min(probe.source, probe.target), max(probe.source, probe.target))
            if probe.code in CONFIGURATION:
                self.refused[key].append(probe)
                continue
            if probe.code == FLUSHED or (worse == "slow" and probe.status == "failed"):
                continue
            cell = cells.setdefault((probe.source, probe.target, probe.entropy), [0, 0])
            cell[0] += 1
            cell[1] += probe.status == worse
            statuses[key][probe.status] += 1
            if probe.figure is not None:
                figures[key].append(probe.figure)
            if probe.code:
                codes[key].add(probe.code)
        keys = sorted(statuses)
        self.ends = sorted({end for key in keys for end in key})
        self.nodes = [node_of(end) for end in self.ends]
        number = {end: i for i, end in enumerate(self.ends)}
        self.pairs: list[Pair] = [(number[a], number[b]) for a, b in keys]
        place = {key: p for p, key in enumerate(keys)}
        self.cells: list[list[tuple[int, int, int]]] = [[] for _ in keys]
        for (source, target, entropy), (n, b) in cells.items():
            self.cells[place[min(source, target), max(source, target)]].append((entropy, n, b))
        self.tried = np.array([statuses[key].total() for key in keys], dtype=np.int64)
        self.bad = np.array([statuses[key][worse] for key in keys], dtype=np.int64)
        self.tallies = [
            PathTally(
                *key,
                tried=statuses[key].total(),
                failed=statuses[key]["failed"],
                slow=statuses[key]["slow"],
                entropies=len({e for e, _, _ in self.cells[p]}),
                bad_entropies=len({e for e, _, b in self.cells[p] if b}),
                figure=float(np.median(figures[key])) if figures[key] else None,
                codes=sorted(codes[key]),
            )
            for p, key in enumerate(keys)
        ]
        self.of_end: dict[int, list[int]] = defaultdict(list)
        for p, pair in enumerate(self.pairs):
            for end in pair:
                self.of_end[end].append(p)
        effects = [*((1.0, s) for s in sorted({*_ALL, *self._shares()})), *_SOME]
        self.rho, self.s = np.array(effects).T
        self.some: Bools = self.rho < 1
        self._weigh()

    def _shares(self) -> list[float]:
        """Shares of bad probes of the ends that have most pairs with several of them, without those that are dead."""
        share = self.bad / np.maximum(self.tried, 1)
        told = (self.bad > 2) & (share > 3 * NOISE) & (share < 0.9)
        own = {end: [p for p in pairs if told[p]] for end, pairs in self.of_end.items()}
        most = sorted((int(self.bad[pairs].sum()), end) for end, pairs in own.items() if len(pairs) > 1)
        return [float(self.bad[own[end]].sum() / self.tried[own[end]].sum()) for _, end in most[-_FITTED:]]

    def _weigh(self) -> None:
        rho, s, size = self.rho, self.s, len(self.rho)
        kinds = sorted({(n, b) for cells in self.cells for _, n, b in cells})
        column = {kind: k for k, kind in enumerate(kinds)}
        counts = np.zeros((len(self.cells), len(kinds)))
        for p, cells in enumerate(self.cells):
            for _, n, b in cells:
                counts[p, column[n, b]] += 1
        self._counts = counts
        n, b = (np.array(kinds, dtype=float).reshape(-1, 2).T)[:, :, None]

        def likelihood(bad: Floats) -> Floats:
            out: Floats = np.exp(b * np.log(bad) + (n - b) * np.log1p(-bad))
            return out

        def either(*shares: Floats) -> Floats:
            fine = np.prod(np.broadcast_arrays(*(1 - each for each in shares)), axis=0)
            out: Floats = (1 - (1 - NOISE) * fine)[None]
            return out

        none = likelihood(np.full((1, 1), NOISE))
        first = likelihood(either(s))
        self.null: Floats = counts @ np.log(none[:, 0])
        self.one: Floats = counts @ np.log((1 - rho) * none + rho * first)
        both = likelihood(either(np.repeat(s, size), np.tile(s, size))).reshape(len(kinds), size, size)
        mixed = (
            np.multiply.outer(1 - rho, 1 - rho) * none[:, :, None]
            + np.multiply.outer(rho, 1 - rho) * first[:, :, None]
            + np.multiply.outer(1 - rho, rho) * first[:, None, :]
            + np.multiply.outer(rho, rho) * both
        )
        self._log_two: Floats = np.log(mixed).reshape(len(kinds), size * size)
        self.alone: Floats = _mean(self.one, 1)
        self.base = self._or_path(self.null, 0)
        self.gain: Floats = self._or_path(self.one, 1) - self.base[:, None]

    def _or_path(self, log: Floats, axes: int) -> Floats:
        rare = PRIOR["path"]
        alone = self.alone.reshape(len(self.alone), *[1] * axes)
        out: Floats = np.logaddexp(math.log1p(-math.exp(rare)) + log, rare + alone)
        return out

    def deep(self, pairs: Ints) -> Floats:
        """What two parts together gain on each of ``pairs`` beyond what each gains alone: pair × effect × effect."""
        alone, base = self.alone[pairs, None, None], self.base[pairs, None, None]
        size = len(self.rho)
        log = (self._counts[pairs] @ self._log_two).reshape(len(pairs), size, size)
        rare = PRIOR["path"]
        both = np.logaddexp(math.log1p(-math.exp(rare)) + log, rare + alone) - base
        gain = self.gain[pairs]
        out: Floats = both - gain[:, :, None] - gain[:, None, :]
        return out

    def firm(self) -> Floats:
        """How surely each pair is bad rather than fine, by its best effect: a logarithm of odds."""
        out: Floats = self.alone - self.null
        return out


def _mean(log: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Logarithm of the mean of exponentials."""
    top = log.max(axis=axis, keepdims=True)
    out: Floats = np.log(np.exp(log - top).mean(axis=axis)) + np.squeeze(top, axis)
    return out


# ----------------------------------------------------------------------------------------- explanations


@dataclass(frozen=True)
class _Part:
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
_FABRIC: Key = ("fabric", ())


@dataclass
class _Weighed:
    """An explanation: its parts, its posterior probability; of each part how probable it is that it meets only some
    entropies; of each pair how probable it is that a path of its own is bad."""

    parts: tuple[_Part, ...]
    weight: float
    some: tuple[float, ...]
    path: Floats


@dataclass
class _Posterior:
    seen: _Seen
    weighed: list[_Weighed]
    hinted: dict[int, list[str]]
    probability: dict[Key, float] = field(default_factory=dict)
    shape: dict[Key, _Part] = field(default_factory=dict)
    some: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Add up. Where only some entropies of one end, node or pair are bad, half of that may be the fabric's."""
        total: dict[Key, float] = defaultdict(float)
        some: dict[Key, float] = defaultdict(float)
        patchy = np.where(self.seen.firm() > 0, _softmax(self.seen.one)[:, self.seen.some].sum(1), 0.0)
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
                self.shape.setdefault(key, _Part("path", self.seen.pairs[p], (int(p),)))
            if not any(part.kind == "fabric" for part in each.parts):
                total[_FABRIC] += each.weight * (1 - no_fabric)
        self.probability = {key: value for key, value in total.items() if value > 1e-4}
        self.some = {key: some[key] / max(total[key], 1e-12) for key in self.probability}

    def _is_hinted(self, part: _Part) -> bool:
        return part.kind == "nic" and part.ends[0] in self.hinted


def _softmax(log: Floats) -> Floats:
    out: Floats = np.exp(log - log.max(axis=-1, keepdims=True))
    out /= out.sum(axis=-1, keepdims=True)
    return out


def _explain(seen: _Seen, events: Sequence[PortEvent], counters: Mapping[str, Mapping[str, int | None]]) -> _Posterior:
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
        weighed.append(_Weighed(own, weight, some, _paths_beside(seen, own, effects)))
    return _Posterior(seen, weighed, dict(hinted))


def _hosts(seen: _Seen) -> list[_Part]:
    """The NICs and nodes that some bad probe has met."""
    bad = seen.bad > 0
    parts = [_Part("nic", (end,), tuple(own)) for end, own in sorted(seen.of_end.items()) if bad[own].any()]
    of_node: dict[str, list[int]] = defaultdict(list)
    for end in sorted(seen.of_end):
        of_node[seen.nodes[end]].append(end)
    for ends in of_node.values():
        own = sorted({p for end in ends for p in seen.of_end[end]})
        if bad[own].any():
            parts.append(_Part("node", tuple(ends), tuple(own)))
    return parts


def _likeliest(seen: _Seen, parts: Sequence[_Part], prior: Mapping[Key, float]) -> list[_Part]:
    """Parts that explain more than they cost; where these are too many, the likeliest (all of those that are equal)."""
    score = {p.key: prior[p.key] + float(_mean(seen.gain[list(p.pairs)].sum(0), 0)) for p in parts}
    kept = [part for part in parts if score[part.key] > -2]
    if len(kept) > MAJORS:
        least = sorted((score[part.key] for part in kept), reverse=True)[MAJORS - 1] - 1e-9
        kept = [part for part in kept if score[part.key] >= least]
    return sorted(kept, key=lambda part: -score[part.key])


def _fabrics(seen: _Seen, hosts: Sequence[_Part]) -> list[_Part]:
    """Groups of ends that are fine within and bad with one another, with and without the likeliest parts beside."""
    found: dict[tuple[int, ...], _Part] = {}
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
                found[across] = _Part("fabric", ends, across, cost)
    return list(found.values())


def _groups(seen: _Seen, odds: Floats) -> list[int]:
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


def _is_shared(seen: _Seen, groups: Sequence[int], odds: Floats) -> bool:
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


_Explanation = tuple[tuple[_Part, ...], float, "tuple[Floats, ...]"]


def _singles_and_twos(seen: _Seen, parts: Sequence[_Part], prior: Mapping[Key, float]) -> list[_Explanation]:
    """Each part and each two of them, with the logarithm of prior times likelihood (that of nothing is 0), and of each
    part the probabilities of its effects."""
    meets = np.zeros((len(parts), len(seen.pairs)))
    for c, part in enumerate(parts):
        meets[c, list(part.pairs)] = 1
    rare = [prior.get(part.key, PRIOR[part.kind]) + part.cost for part in parts]
    gain = meets @ seen.gain
    out: list[_Explanation] = []
    for c, part in enumerate(parts):
        out.append(((part,), rare[c] + float(_mean(gain[c], 0)), (_softmax(gain[c]),)))
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
        joint = (
            (overlap[:, used] @ deep[used]).reshape(-1, size, size) + gain[c][None, :, None] + gain[near][:, None, :]
        )
        for d, table, score in zip(near, joint, _mean(joint, (1, 2)), strict=True):
            together = SAME_NODE if _on_one_node(seen, parts[c], parts[d]) else 0.0
            weight = np.exp(table - table.max())
            weight /= weight.sum()
            out.append(
                ((parts[c], parts[d]), rare[c] + rare[d] + together + float(score), (weight.sum(1), weight.sum(0)))
            )
    return [*out, *_threes(seen, parts, rare, out)]


def _threes(
    seen: _Seen, parts: Sequence[_Part], rare: Sequence[float], less: Sequence[_Explanation]
) -> list[_Explanation]:
    """A third part beside the best two, by what these do not meet: else what it does would look like so many paths."""
    twos = sorted((each for each in less if len(each[0]) == 2), key=lambda each: -each[1])[:THREES]
    out: dict[frozenset[_Part], _Explanation] = {}
    for own, score, effects in twos:
        met = {p for part in own for p in part.pairs}
        for part, cost in zip(parts, rare, strict=True):
            left = [p for p in part.pairs if p not in met]
            if part in own or not left or (part.kind == "fabric" and any(each.kind == "fabric" for each in own)):
                continue
            gain = seen.gain[left].sum(0)
            total = score + cost + float(_mean(gain, 0))
            key = frozenset((*own, part))
            if key not in out or out[key][1] < total:
                out[key] = ((*own, part), total, (*effects, _softmax(gain)))
    return list(out.values())


def _on_one_node(seen: _Seen, one: _Part, other: _Part) -> bool:
    return one.kind == other.kind == "nic" and seen.nodes[one.ends[0]] == seen.nodes[other.ends[0]]


def _paths_beside(seen: _Seen, parts: Sequence[_Part], effects: Sequence[Floats]) -> Floats:
    """How probable it is of each pair that beside ``parts`` a path of its own is bad."""
    log = seen.null.copy()
    for part, effect in zip(parts, effects, strict=True):
        own = np.array(part.pairs)
        with_it = np.logaddexp.reduce(seen.one[own] + np.log(np.maximum(effect, 1e-30)), axis=1)
        log[own] = np.maximum(log[own], with_it)
    odds = PRIOR["path"] + seen.alone - log
    out: Floats = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
    return out


# --------------------------------------------------------------------------------------------- telling


def localise(
    probes: Sequence[PathProbe],
    events: Sequence[PortEvent] = (),
    counters: Mapping[str, Mapping[str, int | None]] | None = None,
) -> list[PathFinding]:
    """What the probes say: the parts that are named, what is ambiguous, what is misconfigured. Nothing bad, no finding.

    ``counters``: by end, by how much each counter grew meanwhile (names as in :mod:`cwai_bench.port_counters`). Raises
    UsageError when an end is not ``node/NIC``, or a probe goes to itself.
    """
    found: list[PathFinding] = []
    for posterior in _posteriors(probes, events, counters or {}):
        told = {key for finding in found for key in _said(finding)}
        # What fails now and then may be slow now and then: that is one fault.
        found += [finding for finding in _tell(posterior) if not told.intersection(_said(finding))]
    seen = _Seen(probes, "failed")
    return found + _refused(seen) + _flakes(seen, events, found)


def _said(finding: PathFinding) -> set[tuple[str, tuple[str, ...]]]:
    """The parts that a finding speaks of."""
    parts: list[tuple[str, list[str]]] = [(c.kind, c.ends) for c in finding.candidates]
    parts = parts or [(finding.kind, finding.ends)]
    return {(kind, () if kind == "fabric" else tuple(ends)) for kind, ends in parts}


def _posteriors(
    probes: Sequence[PathProbe], events: Sequence[PortEvent], counters: Mapping[str, Mapping[str, int | None]]
) -> list[_Posterior]:
    """What explains the probes that failed, and those that were slow: two faults at once are often of two sorts."""
    sorts: tuple[PathStatus, ...] = ("failed", "slow")
    every = [_Seen(probes, sort) for sort in sorts if any(probe.status == sort for probe in probes)]
    return [_explain(seen, events, counters) for seen in every if seen.bad.any()]


def _tell(posterior: _Posterior) -> list[PathFinding]:
    named = _named(posterior)
    if _FABRIC in named:
        named = [key for key in named if key[0] not in ("nic", "node") or not _may_hang_on(posterior, key)]
    return [_named_finding(posterior, key) for key in named] + _undecided(posterior, set(named))


def _named(posterior: _Posterior) -> list[Key]:
    keys = [key for key, value in posterior.probability.items() if value >= NAMED and _is_vouched(posterior, key)]
    return sorted(keys, key=lambda key: (-round(posterior.probability[key], 6), key))


def _may_hang_on(posterior: _Posterior, key: Key) -> bool:
    """Of a NIC or a node beside a bad switch: it is bad as what hangs on that is, with all flows and as often, so that
    it may hang on it as well. Nobody told hosts where they are."""
    if posterior.some[_FABRIC] > 0.5 or posterior.some[key] > 0.5:
        return False
    seen = posterior.seen
    shares = [
        seen.bad[pairs].sum() / seen.tried[pairs].sum()
        for pairs in ([p for p in posterior.shape[k].pairs if seen.firm()[p] > 0] for k in (_FABRIC, key))
        if pairs
    ]
    return len({share > DEAD for share in shares}) == 1


def _is_vouched(posterior: _Posterior, key: Key) -> bool:
    """Of a NIC or a node: ends of two other nodes are bad with it, or its own port says so. Of a fabric: it was
    seen which ends it is between."""
    kind, ends = key
    if key not in posterior.shape:  # the fabric, for want of a better explanation of what some entropies meet
        return False
    if kind == "path":  # several of one end are rather something else
        others = [k for k, v in posterior.probability.items() if k[0] == "path" and k != key and v > 0.5]
        if any(set(ends) & set(other[1]) for other in others):
            return False
        # Between two ends that are bad by themselves more is bad than with either: that is no path of its own.
        hosts = [(held, v) for (of, held), v in posterior.probability.items() if of in ("nic", "node")]
        return not all(sum(v for held, v in hosts if end in held) > 0.5 for end in ends)
    if kind not in ("nic", "node") or any(end in posterior.hinted for end in ends):
        return True
    seen = posterior.seen
    firm = seen.firm()
    own = {seen.nodes[end] for end in ends}
    met = {seen.nodes[e] for p in posterior.shape[key].pairs if firm[p] > _FIRM for e in seen.pairs[p]}
    return len(met - own) > 1


def _undecided(posterior: _Posterior, named: set[Key]) -> list[PathFinding]:
    """Parts of which one is bad almost surely, and nobody knows which: those that may be behind the same bad pairs."""
    seen = posterior.seen
    firm = seen.firm()
    doubted = {
        key: {p for p in posterior.shape[key].pairs if firm[p] > 0}
        for key, value in posterior.probability.items()
        if value > 1 - NAMED and key not in named and key in posterior.shape
    }
    groups: list[tuple[set[Key], set[int]]] = []
    for key in sorted(doubted):
        together, pairs = {key}, set(doubted[key])
        apart = []
        for others, theirs in groups:
            if pairs & theirs:
                together |= others
                pairs |= theirs
            else:
                apart.append((others, theirs))
        groups = [*apart, (together, pairs)]
    found = []
    for keys, pairs in groups:
        sure = math.fsum(each.weight * _any_of(seen, each, keys) for each in posterior.weighed)
        if sure >= NAMED:
            found.append(_ambiguous_finding(posterior, keys, pairs, sure))
    return found


def _any_of(seen: _Seen, each: _Weighed, keys: set[Key]) -> float:
    if any(part.key in keys for part in each.parts):
        return 1.0
    none = 1.0
    for p in np.flatnonzero(each.path > 1e-3):
        if ("path", seen.pairs[p]) in keys:
            none *= 1 - float(each.path[p])
    return 1 - none


def _named_finding(posterior: _Posterior, key: Key) -> PathFinding:
    seen, part = posterior.seen, posterior.shape[key]
    ends = [seen.ends[end] for end in part.ends]
    nodes = list(dict.fromkeys(map(node_of, ends)))
    some = posterior.some[key] > 0.5
    pairs = [p for p in part.pairs if part.kind != "fabric" or seen.firm()[p] > 0]
    whole = bool(seen.bad[pairs].sum() > DEAD * seen.tried[pairs].sum())
    if part.kind == "nic":
        drain = Drain(Action.ISOLATE, ends, [] if _has_other(seen, part.ends[0]) else nodes)
    elif part.kind == "node":
        drain = Drain(Action.ISOLATE, [], nodes)
    else:  # other paths and other entropies carry on; ends that a dead switch cuts off are no fault of theirs
        drain = Drain(Action.MONITOR)
    return _finding(posterior, part.kind, part.ends, pairs, posterior.probability[key], drain, some and not whole)


def _has_other(seen: _Seen, end: int) -> bool:
    """Whether the end's node has another NIC that is fine with somebody."""
    firm = seen.firm()
    others = [e for e, node in enumerate(seen.nodes) if node == seen.nodes[end] and e != end]
    return any(firm[p] < 0 for other in others for p in seen.of_end[other])


def _ambiguous_finding(posterior: _Posterior, keys: set[Key], pairs: set[int], sure: float) -> PathFinding:
    seen = posterior.seen
    likely = sorted(keys, key=lambda key: (-round(posterior.probability[key], 6), key))
    candidates = [
        PathCandidate(
            key[0], [seen.ends[end] for end in posterior.shape[key].ends], round(posterior.probability[key], 4)
        )
        for key in likely
    ]
    if _FABRIC not in keys and any(posterior.some[key] > 1 - NAMED for key in likely):
        share = round(posterior.probability.get(_FABRIC, 0.0), 4)
        candidates.append(PathCandidate("fabric", [], share))
    ends = sorted({end for key in likely for end in posterior.shape[key].ends})
    homes = {seen.nodes[end] for end in ends}
    if len(homes) == 1 and all(c.kind in ("nic", "node") for c in candidates):
        nics = [seen.ends[end] for end in ends]
        whole = any(c.kind == "node" for c in candidates)
        drain = Drain(Action.ISOLATE, nics, sorted(homes) if whole else [])
    else:
        drain = Drain(Action.MONITOR)
    return _finding(posterior, "ambiguous", ends, sorted(pairs), min(sure, 1.0), drain, False, candidates)


def _finding(
    posterior: _Posterior,
    kind: PathFindingKind,
    ends: Sequence[int],
    pairs: Sequence[int],
    confidence: float,
    drain: Drain,
    some: bool,
    candidates: list[PathCandidate] | None = None,
) -> PathFinding:
    seen = posterior.seen
    firm = seen.firm()
    bad = sorted((p for p in pairs if firm[p] > 0), key=lambda p: (-round(float(firm[p]), 6), seen.pairs[p]))
    names = [seen.ends[end] for end in ends]
    tried, count = int(seen.tried[list(pairs)].sum()), int(seen.bad[list(pairs)].sum())
    return PathFinding(
        kind=kind,
        ends=names,
        nodes=list(dict.fromkeys(map(node_of, names))),
        confidence=round(min(confidence, 1.0), 4),
        drain=drain,
        share=round(count / max(1, tried), 4),
        some_entropies=some,
        bad=count,
        tried=tried,
        proof=[seen.tallies[p] for p in bad[:PROOF]],
        fine=[seen.tallies[p] for p in _fine(seen, ends, bad)],
        signs=[f"{seen.ends[end]} {sign}" for end in ends for sign in posterior.hinted.get(end, ())],
        codes=sorted({code for p in bad for code in seen.tallies[p].codes}),
        candidates=candidates or [],
    )


def _fine(seen: _Seen, ends: Sequence[int], bad: Sequence[int]) -> list[int]:
    """Pairs that are fine, of the ends on either side of what is bad: those of both sides first, then the surest."""
    firm = seen.firm()
    met = {end for p in bad for end in seen.pairs[p]}
    near = [p for p in range(len(seen.pairs)) if firm[p] < 0 and met.intersection(seen.pairs[p])]
    near.sort(key=lambda p: (-len(met.intersection(seen.pairs[p])), round(float(firm[p]), 6), seen.pairs[p]))
    return near[:PROOF_FINE]


def _refused(seen: _Seen) -> list[PathFinding]:
    """Completions that tell of access rights or keys: said of the pair, since either side may have them wrong."""
    return [
        PathFinding(
            kind="configuration",
            ends=list(pair),
            nodes=list(dict.fromkeys(map(node_of, pair))),
            confidence=1.0,
            drain=Drain(Action.FIX_CONFIG),
            share=1.0,
            bad=len(refused),
            tried=len(refused),
            codes=sorted({probe.code for probe in refused}),
        )
        for pair, refused in sorted(seen.refused.items())
    ]


def _flakes(seen: _Seen, events: Sequence[PortEvent], found: Sequence[PathFinding]) -> list[PathFinding]:
    """Ports that told of trouble and whose probes were all fine."""
    told = {end for finding in found for end in finding.ends}
    flakes = []
    for end in sorted({event.end for event in events} - told):
        own = [p for p, pair in enumerate(seen.pairs) if end in (seen.ends[pair[0]], seen.ends[pair[1]])]
        if own and not seen.bad[own].any():
            flakes.append(
                PathFinding(
                    kind="flake",
                    ends=[end],
                    nodes=[node_of(end)],
                    confidence=1.0,
                    drain=Drain(Action.MONITOR),
                    tried=int(seen.tried[own].sum()),
                    fine=[seen.tallies[p] for p in own[:PROOF_FINE]],
                    signs=[f"{end} {sign}" for sign in sorted({e.sign for e in events if e.end == end})],
                )
            )
    return flakes


# -------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class _Level:
    """How closely to look: ``entropies`` of each pair, each ``repeats`` times. ``wide``: the suspects with an end of
    every other node; ``near``: with their referees, and nothing else."""

    entropies: int
    repeats: int = 1
    wide: bool = False
    near: bool = False


LEVELS = (_Level(8), _Level(24), _Level(16, 4, near=True), _Level(16, wide=True), _Level(32, 4), _Level(128, near=True))
"""The first tells what is dead, the second what loses, the third whether always the same entropies are bad, the fourth
where ends begin that are fine with a suspect; then more of all for links that few entropies have."""
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
    for posterior in _posteriors(probes, events, counters or {}):
        course = _Course(ends, meet, posterior.seen, probes)
        left = limit - sum(len(each.entropies) * each.repeats for each in found)
        asked = {(each.source, each.target) for each in found}
        found += [each for each in _next(course, posterior, left) if (each.source, each.target) not in asked]
    return found


def _next(course: _Course, posterior: _Posterior, limit: int) -> list[PathProbes]:
    """What is left to ask at the first level; where that is hardly worth a round, at the next as well."""
    firm = posterior.seen.firm()
    named = _named(posterior)
    likely = {key for key, value in posterior.probability.items() if value > 1 - NAMED and key in posterior.shape}
    explained = {p for key in named for p in posterior.shape[key].pairs}
    doubted = {p for key in likely - set(named) for p in posterior.shape[key].pairs}
    bad = [int(p) for p in np.flatnonzero(firm > 0) if firm[p] > _FIRM or p in doubted or p in explained]
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
        seen: _Seen,
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
            pairs += [(end, other) for end in suspects for node in homes for other in self.of_node[node]]
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
