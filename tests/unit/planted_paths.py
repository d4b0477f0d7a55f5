"""Simulated fabrics in which parts fail, probes over them, and whether hosts could tell which part it is.

Leaf and spine: an end hangs on a leaf, flows between leaves are hashed onto spines. What could be told is computed from
the fabric alone: an explanation is one element or two; it is as good as the truth when it makes the same pairs bad in
the same way; and a fault can be told when every such explanation has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cwai_bench.model import PathFinding, PathProbe, PathProbes
from cwai_bench.path_fault import localise, plan, status_of

USUAL = 4.9e10
NOISE = 0.05
STRAY = 0.005
"""Probes that fail without any reason."""
SEEN_ENTROPIES = 8
"""Queue pairs of the transfer whose path died."""
ROUNDS = 16

Pair = tuple[str, str]
Class = tuple[str, tuple[str, ...]]
"""What a finding says: kind, and ends (of a fabric none: which link it is hosts cannot tell)."""
EFFECTS = ("dead", "lossy", "slow")
DEAD = 1
"""All flows of a pair are dead. Each effect has two bits: all flows, some flows."""


@dataclass(frozen=True)
class Element:
    """``kind``: nic, node, path, leaf, link (of ``leaf`` to ``spine``), spine. And what is not there, but might be as
    far as hosts know: ``others``, an uplink of the leaf of all but ``ends``; ``switch``, one with ``ends``."""

    kind: str
    ends: tuple[str, ...] = ()
    leaf: int = -1
    spine: int = -1


@dataclass(frozen=True)
class Fault:
    """``effect``: dead, slow (by 30 %), lossy (``share`` of the probes)."""

    element: Element
    effect: str
    share: float = 1.0


def node_of(end: str) -> str:
    return end.partition("/")[0]


def rail_of(end: str) -> str:
    return end.partition("/")[2]


class Fabric:
    """``per_leaf`` nodes share a leaf, or with ``rails`` a leaf for each of their NICs; ``spines`` above;
    ``rail_only``: NICs of different rails cannot meet."""

    def __init__(
        self, seed: int, nodes: int, nics: int, per_leaf: int, spines: int, rails: bool, rail_only: bool = False
    ) -> None:
        self.rng = np.random.default_rng([seed, nodes, nics])
        self.salt = int(self.rng.integers(1 << 60))
        self.nodes = [f"node{i}" for i in range(nodes)]
        self.ends = [f"node{i}/mlx5_{k}" for i in range(nodes) for k in range(nics)]
        self.leaf = {
            f"node{i}/mlx5_{k}": i // per_leaf * (nics if rails else 1) + (k if rails else 0)
            for i in range(nodes)
            for k in range(nics)
        }
        self.spines, self.rail_only = spines, rail_only
        self.faults: list[Fault] = []
        self.made = self.rounds = 0

    def meet(self, one: str, other: str) -> bool:
        return node_of(one) != node_of(other) and (not self.rail_only or rail_of(one) == rail_of(other))

    @cached_property
    def pairs(self) -> list[Pair]:
        return [(a, b) for a, b in combinations(self.ends, 2) if self.meet(a, b)]

    def spine_of(self, source: str, target: str, entropy: int) -> int:
        flow = f"{self.salt} {source} {target} {entropy}".encode()
        return int.from_bytes(blake2b(flow, digest_size=4).digest(), "little") % self.spines

    def describe(self) -> str:
        leaves = len(set(self.leaf.values()))
        return f"{len(self.nodes)} nodes, {len(self.ends)} NICs, {leaves} leaves, {self.spines} spines"

    # ---- what elements do

    def touched(self, element: Element, pair: Pair) -> str:
        """How the flows of a pair meet an element: ``all`` of them, ``some``, or none (``""``)."""
        a, b = pair
        leaves = {self.leaf[a], self.leaf[b]}
        if element.kind in ("nic", "node"):
            return "all" if {a, b} & set(element.ends) else ""
        if element.kind == "path":
            return "all" if set(pair) == set(element.ends) else ""
        if element.kind == "leaf":
            return "all" if element.leaf in leaves else ""
        if element.kind == "others":
            return "some" if (a in element.ends) != (b in element.ends) else ""
        across = len(leaves) == 2 and (element.kind == "spine" or element.leaf in leaves)
        return ("some" if self.spines > 1 else "all") if across else ""

    def meets(self, element: Element, source: str, target: str, entropy: int) -> bool:
        how = self.touched(element, (source, target))
        return how == "all" or (how == "some" and self.spine_of(source, target, entropy) == element.spine)

    def probe(self, source: str, target: str, entropy: int) -> PathProbe:
        self.made += 1
        figure: float | None = USUAL * (1 + NOISE * float(self.rng.standard_normal()))
        if self.rng.random() < STRAY:
            figure = None
        for fault in self.faults:
            there = self.meets(fault.element, source, target, entropy)
            back = self.meets(fault.element, target, source, entropy)  # what is acknowledged comes back
            if fault.effect == "slow":
                figure = figure * 0.7 if figure and there else figure
            elif (there or back) and self.rng.random() < fault.share:
                figure = None
        return PathProbe(source, target, entropy, status_of(figure, USUAL), figure, 12 if figure is None else 0)

    def probes(self, asked: Iterable[PathProbes]) -> list[PathProbe]:
        self.rounds += 1
        found = []
        for each in asked:
            assert self.meet(each.source, each.target)
            found += [self.probe(each.source, each.target, e) for e in each.entropies for _ in range(each.repeats)]
        return found

    # ---- what could be told

    def classes(self, element: Element) -> frozenset[Class]:
        """What a right answer names, in the words of a host. Nothing is right where a host cannot tell an uplink from
        the others' one."""
        if element.kind in ("nic", "node", "path"):
            return frozenset([(element.kind, tuple(sorted(element.ends)))])
        if element.kind in ("spine", "others", "switch"):
            return frozenset([("fabric", ())])
        own = [end for end in self.ends if self.leaf[end] == element.leaf]
        nodes = sorted({node_of(end) for end in own})
        if element.kind == "link":
            rest = {node_of(end) for end in self.ends if self.leaf[end] != element.leaf}
            return frozenset([("fabric", ())]) if len(nodes) > 1 and len(rest) > 1 else frozenset()
        if len(nodes) > 2:
            return frozenset([("fabric", ())])
        found: set[Class] = set()
        for node in nodes:
            ends = tuple(sorted(end for end in own if node_of(end) == node))
            whole = len(ends) > 1 and len(ends) == sum(node_of(end) == node for end in self.ends)
            found |= {("node", ends)} if whole else {("nic", (end,)) for end in ends}
        return frozenset(found)

    def true(self, element: Element) -> set[Class]:
        """What is no wrong accusation: a part of the fabric, and as well what only one end or node uses of it."""
        own = [end for end in self.ends if self.leaf[end] == element.leaf]
        if element.kind not in ("leaf", "link", "spine"):
            return set(self.classes(element))
        if element.kind == "link" and len({node_of(end) for end in own}) == 1:
            return {("fabric", ()), *self.classes(Element("leaf", leaf=element.leaf))}
        return {("fabric", ()), *self.classes(element)}

    @cached_property
    def elements(self) -> list[Element]:
        every = [Element("nic", (end,)) for end in self.ends]
        of_node = {node: tuple(end for end in self.ends if node_of(end) == node) for node in self.nodes}
        every += [Element("node", ends) for ends in of_node.values()]
        every += [Element("others", (end,)) for end in self.ends]
        every += [Element("others", ends) for ends in of_node.values() if len(ends) > 1]
        leaves = sorted(set(self.leaf.values()))
        every += [Element("leaf", leaf=leaf) for leaf in leaves]
        if len(leaves) > 1:
            every += [Element("spine", spine=s) for s in range(min(1, self.spines))]
            every += [Element("link", leaf=leaf, spine=0) for leaf in leaves if self.spines]
        return every

    def met(self, element: Element) -> NDArray[np.int64]:
        """For each pair 2 where all of its flows meet the element, 1 where some do, else 0."""
        a, b = self._numbers
        if element.kind in ("nic", "node", "others"):
            own = np.isin(np.arange(len(self.ends)), [self.ends.index(end) for end in element.ends])
            return np.where(own[a] != own[b], 1 if element.kind == "others" else 2, 0)
        if element.kind == "switch":
            own = np.isin(np.arange(len(self.ends)), [self.ends.index(end) for end in element.ends])
            return 2 * (own[a] | own[b]).astype(np.int64)
        if element.kind == "path":
            return np.array([2 * (set(pair) == set(element.ends)) for pair in self.pairs])
        leaf = np.array([self.leaf[end] for end in self.ends])
        own = (leaf[a] == element.leaf) | (leaf[b] == element.leaf)
        if element.kind == "leaf":
            return 2 * own.astype(np.int64)
        across = (leaf[a] != leaf[b]) & (own | (element.kind == "spine"))
        return np.where(across, 1, 0)

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        number = {end: i for i, end in enumerate(self.ends)}
        return np.array([number[a] for a, _ in self.pairs]), np.array([number[b] for _, b in self.pairs])

    def larger(self) -> list[Element]:
        """Switches that hosts must reckon with beside a bad one: nobody told them which ends hang on it, so that others
        that are bad in the same way may as well."""
        found = []
        for one, other in combinations(self.faults, 2):
            ends: set[str] = set()
            for fault in (one, other):
                hang = {end for end in self.ends if self.leaf[end] == fault.element.leaf}
                ends |= hang if fault.element.kind == "leaf" else set(fault.element.ends)
            if {one.element.kind, other.element.kind} <= {"leaf", "nic", "node"} and len({*map(node_of, ends)}) > 2:
                found.append(Element("switch", tuple(sorted(ends))))
        return found

    def identifiable(self) -> dict[Fault, bool]:
        truth = _overlaid([_mask(self.met(f.element), f.effect) for f in self.faults])
        effects = sorted({fault.effect for fault in self.faults})
        where = np.flatnonzero(truth)
        paths = [Element("path", self.pairs[p]) for p in where] if len(where) <= 2 else []
        paths += [fault.element for fault in self.faults if fault.element.kind == "path"]
        options: list[tuple[Element, NDArray[np.int64]]] = []
        for element in dict.fromkeys([*self.elements, *paths, *self.larger()]):
            met = self.met(element)
            if not met.any() or (met > 0)[truth == 0].any():
                continue
            for effect in effects:
                mask = _mask(met, effect)
                if not (mask & ~truth)[truth != DEAD].any():
                    options.append((element, mask))
        alike = [self.classes(element) for element, mask in options if (mask == truth).all()]
        masks = np.array([mask for _, mask in options]).reshape(len(options), len(truth))
        for one, first in options:
            lacking = np.flatnonzero(first != truth)
            if not len(lacking):
                continue  # alone it is as good, and so it is with any other
            # Whoever completes it does so at the first pair that it lacks: few do.
            there = _overlaid([masks[:, lacking[0]], np.full(len(options), first[lacking[0]])])
            for i in np.flatnonzero(there == truth[lacking[0]]):
                if (_overlaid([first, masks[i]]) == truth).all():
                    alike.append(self.classes(one) | self.classes(options[i][0]))
        out = {}
        for fault in self.faults:
            own = self.classes(fault.element)
            out[fault] = bool(own) and bool(alike) and all(own <= other for other in alike)
        return out

    # ---- a case

    def transfer(self, fault: Fault) -> list[PathProbe]:
        """What a transfer between two nodes has seen whose paths meet the fault."""
        met = [pair for pair in self.pairs if self.touched(fault.element, pair)]
        for _ in range(200):
            a, b = met[int(self.rng.integers(len(met)))]
            rails = sorted({rail_of(end) for end in self.ends})
            both = [(f"{node_of(a)}/{rail}", f"{node_of(b)}/{rail}") for rail in rails]
            both = list(dict.fromkeys([(a, b), *both]))
            seen = [self.probe(x, y, e) for x, y in both for e in range(SEEN_ENTROPIES)]
            bad = [
                p
                for p in seen
                if p.status != "ok"
                and (
                    self.meets(fault.element, p.source, p.target, p.entropy)
                    or self.meets(fault.element, p.target, p.source, p.entropy)
                )
            ]
            if bad:
                return seen
        raise AssertionError("a fault that no transfer meets")

    def found(self) -> list[PathFinding]:
        probes = [probe for fault in self.faults for probe in self.transfer(fault)]
        for _ in range(ROUNDS):
            asked = plan(self.ends, probes, meet=self.meet)
            if not asked:
                break
            probes += self.probes(asked)
        self.seen = probes
        return localise(probes)


def said(findings: Iterable[PathFinding]) -> set[Class]:
    return {
        (f.kind, () if f.kind == "fabric" else tuple(sorted(f.ends)))
        for f in findings
        if f.kind not in ("ambiguous", "flake")
    }


def _mask(met: NDArray[np.int64], effect: str) -> NDArray[np.int64]:
    bit = 2 * EFFECTS.index(effect)
    return np.where(met == 2, 1 << bit, np.where(met == 1, 2 << bit, 0))


def _overlaid(masks: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """What each pair suffers of all; what is dead altogether hides the rest."""
    both = np.bitwise_or.reduce(masks)
    return np.where(both & DEAD, DEAD, both)


@dataclass(frozen=True)
class Outcome:
    """Of planted faults how many can be told, of these how many were; cases with an accusation that is not true; of the
    faults that cannot be told (or were not) how many ended as ambiguous; what went wrong."""

    planted: int
    could: int
    right: int
    blamed: int
    ambiguous: int
    unsaid: int
    rounds: float
    probes: float
    wrong: list[str]


def fabric_of(seed: int, rng: np.random.Generator) -> Fabric:
    if seed % 50 == 0:
        nodes, nics = 64, 8
    elif seed % 2:
        nodes, nics = int(rng.integers(3, 9)), int(rng.choice([1, 2, 4, 8]))
    else:
        nodes, nics = int(rng.integers(9, 33)), int(rng.choice([1, 2, 4]))
    rails = bool(nics > 1 and rng.random() < 0.5)
    per_leaf = int(rng.choice([1, 2, 4, 8, 16, 64]))
    return Fabric(seed, nodes, nics, per_leaf, int(rng.choice([2, 4, 8])), rails, bool(rails and rng.random() < 0.3))


def plant(fabric: Fabric, rng: np.random.Generator) -> Fault:
    leaves = sorted(set(fabric.leaf.values()))
    kinds = ["nic", "nic", "node", "path", "leaf"] + (["spine", "link", "link"] if len(leaves) > 1 else [])
    effect = str(rng.choice(["dead", "dead", "slow", "lossy"]))
    while True:
        kind = str(rng.choice(kinds))
        end = fabric.ends[int(rng.integers(len(fabric.ends)))]
        leaf, spine = int(rng.choice(leaves)), int(rng.integers(fabric.spines))
        own = {
            "nic": Element("nic", (end,)),
            "node": Element("node", tuple(e for e in fabric.ends if node_of(e) == node_of(end))),
            "path": Element("path", fabric.pairs[int(rng.integers(len(fabric.pairs)))]),
            "leaf": Element("leaf", leaf=leaf),
            "spine": Element("spine", spine=spine),
            "link": Element("link", leaf=leaf, spine=spine),
        }[kind]
        if any(fabric.touched(own, pair) for pair in fabric.pairs):
            return Fault(own, effect, float(rng.uniform(0.2, 0.7)) if effect == "lossy" else 1.0)


def simulate(seeds: Iterable[int], faults: int) -> Outcome:
    planted = could = right = blamed = ambiguous = unsaid = 0
    rounds, probes = [], []
    wrong: list[str] = []
    for seed in seeds:
        rng = np.random.default_rng([seed, faults])
        fabric = fabric_of(seed, rng)
        while len(fabric.faults) < faults:
            fault = plant(fabric, rng)
            if all(fault.element != other.element for other in fabric.faults):
                fabric.faults.append(fault)
        findings = fabric.found()
        rounds.append(fabric.rounds)
        probes.append(fabric.made)
        truth = set().union(*(fabric.true(fault.element) for fault in fabric.faults))
        named = said(findings)
        is_ambiguous = any(f.kind == "ambiguous" for f in findings)
        case = f"seed {seed}: {fabric.describe()}, {fabric.faults}: {sorted(named)}" + " ambiguous" * is_ambiguous
        if not named <= truth:
            blamed += 1
            wrong.append(f"blamed {case}")
        for fault, is_identifiable in fabric.identifiable().items():
            planted += 1
            could += is_identifiable
            own = fabric.classes(fault.element)
            if own and own <= named:
                right += is_identifiable
            else:
                ambiguous += is_ambiguous
                unsaid += not is_ambiguous
                if is_identifiable:
                    wrong.append(f"missed {case}")
                elif not is_ambiguous:
                    wrong.append(f"silent {case}")
    return Outcome(
        planted, could, right, blamed, ambiguous, unsaid, float(np.mean(rounds)), float(np.mean(probes)), wrong
    )
