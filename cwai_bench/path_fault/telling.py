"""What is said of it: the parts that are named, what is ambiguous, what is misconfigured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cwai_bench.matrix import node_of
from cwai_bench.model import Action, Drain, PathCandidate, PathFinding, PathFindingKind, PathProbe
from cwai_bench.path_fault.explanations import FABRIC, Key, PortEvent, Posterior, Weighed, posteriors
from cwai_bench.path_fault.seen import FIRM, Seen

NAMED = 0.98
DEAD = 0.9
"""The share of its probes beyond which what is bad is so altogether."""
PROOF, PROOF_FINE = 16, 8
"""Pairs kept as proof of a finding."""


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
    for posterior in posteriors(probes, events, counters or {}):
        told = {key for finding in found for key in _said(finding)}
        # What fails now and then may be slow now and then: that is one fault.
        found += [finding for finding in _tell(posterior) if not told.intersection(_said(finding))]
    seen = Seen(probes, "failed")
    return found + _refused(seen) + _flakes(seen, events, found)


def _said(finding: PathFinding) -> set[tuple[str, tuple[str, ...]]]:
    """The parts that a finding speaks of."""
    parts: list[tuple[str, list[str]]] = [(c.kind, c.ends) for c in finding.candidates]
    parts = parts or [(finding.kind, finding.ends)]
    return {(kind, () if kind == "fabric" else tuple(ends)) for kind, ends in parts}


def _tell(posterior: Posterior) -> list[PathFinding]:
    named = named_parts(posterior)
    if FABRIC in named:
        named = [key for key in named if key[0] not in ("nic", "node") or not _may_hang_on(posterior, key)]
    return [_named_finding(posterior, key) for key in named] + _undecided(posterior, set(named))


def named_parts(posterior: Posterior) -> list[Key]:
    keys = [key for key, value in posterior.probability.items() if value >= NAMED and _is_vouched(posterior, key)]
    return sorted(keys, key=lambda key: (-round(posterior.probability[key], 6), key))


def _may_hang_on(posterior: Posterior, key: Key) -> bool:
    """Of a NIC or a node beside a bad switch: it is bad as what hangs on that is, with all flows and as often, so that
    it may hang on it as well. Nobody told hosts where they are."""
    if posterior.some[FABRIC] > 0.5 or posterior.some[key] > 0.5:
        return False
    seen = posterior.seen
    shares = [
        seen.bad[pairs].sum() / seen.tried[pairs].sum()
        for pairs in ([p for p in posterior.shape[k].pairs if seen.firm()[p] > 0] for k in (FABRIC, key))
        if pairs
    ]
    return len({share > DEAD for share in shares}) == 1


def _is_vouched(posterior: Posterior, key: Key) -> bool:
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
        # (What of that may be the fabric's counts as well: it is no path either.)
        likely = posterior.probability.items()
        hosts = [(k[1], v * (1 + posterior.some[k] / 2)) for k, v in likely if k[0] in ("nic", "node")]
        return not all(sum(v for held, v in hosts if end in held) > 0.5 for end in ends)
    if kind not in ("nic", "node") or any(end in posterior.hinted for end in ends):
        return True
    seen = posterior.seen
    firm = seen.firm()
    own = {seen.nodes[end] for end in ends}
    met = {seen.nodes[e] for p in posterior.shape[key].pairs if firm[p] > FIRM for e in seen.pairs[p]}
    return len(met - own) > 1


def _undecided(posterior: Posterior, named: set[Key]) -> list[PathFinding]:
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


def _any_of(seen: Seen, each: Weighed, keys: set[Key]) -> float:
    if any(part.key in keys for part in each.parts):
        return 1.0
    none = 1.0
    for p in np.flatnonzero(each.path > 1e-3):
        if ("path", seen.pairs[p]) in keys:
            none *= 1 - float(each.path[p])
    return 1 - none


def _named_finding(posterior: Posterior, key: Key) -> PathFinding:
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


def _has_other(seen: Seen, end: int) -> bool:
    """Whether the end's node has another NIC that is fine with somebody."""
    firm = seen.firm()
    others = [e for e, node in enumerate(seen.nodes) if node == seen.nodes[end] and e != end]
    return any(firm[p] < 0 for other in others for p in seen.of_end[other])


def _ambiguous_finding(posterior: Posterior, keys: set[Key], pairs: set[int], sure: float) -> PathFinding:
    seen = posterior.seen
    likely = sorted(keys, key=lambda key: (-round(posterior.probability[key], 6), key))
    candidates = [
        PathCandidate(
            key[0], [seen.ends[end] for end in posterior.shape[key].ends], round(posterior.probability[key], 4)
        )
        for key in likely
    ]
    if FABRIC not in keys and any(posterior.some[key] > 1 - NAMED for key in likely):
        share = round(posterior.probability.get(FABRIC, 0.0), 4)
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
    posterior: Posterior,
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


def _fine(seen: Seen, ends: Sequence[int], bad: Sequence[int]) -> list[int]:
    """Pairs that are fine, of the ends on either side of what is bad: those of both sides first, then the surest."""
    firm = seen.firm()
    met = {end for p in bad for end in seen.pairs[p]}
    near = [p for p in range(len(seen.pairs)) if firm[p] < 0 and met.intersection(seen.pairs[p])]
    near.sort(key=lambda p: (-len(met.intersection(seen.pairs[p])), round(float(firm[p]), 6), seen.pairs[p]))
    return near[:PROOF_FINE]


def _refused(seen: Seen) -> list[PathFinding]:
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


def _flakes(seen: Seen, events: Sequence[PortEvent], found: Sequence[PathFinding]) -> list[PathFinding]:
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
