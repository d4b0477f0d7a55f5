"""One value of each node against the baseline, or, with none, against those of its peers."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from cwai_bench.baseline import Baseline
from cwai_bench.checks import (
    ConsistencyCheck,
    DoesNotApply,
    FactView,
    NotKnown,
    Value,
)
from cwai_bench.checks.kind import node_kind
from cwai_bench.judge.alike import Alike
from cwai_bench.judge.found import ALL, NODE_LOST, OBSERVED_LIMIT, VALUE_LIMIT, bug
from cwai_bench.model import (
    Action,
    Evidence,
    Facts,
    ReasonCode,
    Status,
    Subject,
    ValueGroup,
    Verdict,
)
from cwai_bench.render.nodeset import fold, natural
from cwai_bench.text import Text, plain

KIND_CHECK = "same.kind"
"""The consistency item that says whether nodes are alike at all; a node that fails it is not compared further."""
HINT_NODES = 5
"""Below so many nodes of a kind there is no hint about outliers: a majority of three says nothing."""
MODIFIED_Z_LIMIT = 3.5
"""Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): |0.6745 (x - median) / MAD| above it is one."""


@dataclass(frozen=True)
class Held:
    """What a node has: a value, or why none (``absent`` when the item does not apply to it)."""

    value: Value | None
    absent: bool = False
    reason_code: ReasonCode = ""
    reason: Text | None = None
    view: FactView | None = None

    def evidence(self, status: Status) -> list[Evidence]:
        return [] if self.view is None else self.view.evidence(status)

    def shown(self, check: ConsistencyCheck) -> str:
        if self.absent:
            return "–"
        if self.value is None:
            return "?"
        return _bounded(self.value) if isinstance(self.value, str) else check.show(self.value)


def _bounded(value: str) -> str:
    """``value``; of a very long one the beginning, with a mark that keeps different ones different."""
    if len(value) <= VALUE_LIMIT:
        return value
    return f"{value[:VALUE_LIMIT]}… #{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def held_by(check: ConsistencyCheck, view: FactView) -> Held:
    try:
        return Held(check.value(view), view=view)
    except DoesNotApply as e:
        return Held(None, True, e.reason_code, e.reason, view)
    except NotKnown as e:
        return Held(None, False, e.reason_code, e.reason, view)
    except Exception as e:
        return Held(None, False, "error", bug(e))


def consistency_verdicts(
    check: ConsistencyCheck,
    names: Sequence[str],
    by_node: Mapping[str, Facts],
    kinds: Mapping[str, str],
    alike: Alike,
    baseline: str | Baseline | None,
) -> list[Verdict]:
    lost = Held(None, reason_code="node_lost", reason=NODE_LOST)
    held = {
        node: alike.ask(check.info.id, by_node[node], lambda view: held_by(check, view)) if node in by_node else lost
        for node in names
    }
    if baseline is None:
        return [_listed(check, held, kinds)]
    if isinstance(baseline, Baseline):
        against, base_name = held_by(check, FactView(baseline.facts)), ""
        base_kind = node_kind(FactView(baseline.facts))
    else:
        against, base_name, base_kind = held[baseline], baseline, kinds.get(baseline, "")
    verdicts = []
    for node in names:
        other_kind = bool(base_kind and kinds.get(node)) and kinds[node] != base_kind and check.info.id != KIND_CHECK
        verdicts.append(
            _compared(check, node, held[node], against, is_baseline=node == base_name, other_kind=other_kind)
        )
    # The values of all, once: on the first verdict.
    groups = _groups(check, held, base_name)
    if not base_name and not against.absent and against.value is not None:
        shown = against.shown(check)
        groups = [msgspec.structs.replace(g, is_baseline=g.value == shown) for g in groups]
    return [msgspec.structs.replace(verdicts[0], groups=groups), *verdicts[1:]] if verdicts else []


_FINE: ReasonCode = ""


def _compared(
    check: ConsistencyCheck, node: str, own: Held, base: Held, *, is_baseline: bool, other_kind: bool
) -> Verdict:
    info = check.info
    status, detail, reason_code = Status.PASS, None, _FINE
    if own.value is None and not own.absent:
        status, detail, reason_code = Status.UNKNOWN, own.reason, own.reason_code
    elif base.value is None and not base.absent:
        status, reason_code = Status.UNKNOWN, "baseline_lacks"
        detail = Text("the baseline lacks it: {r}", "基线缺少该项：{r}").fill(r=base.reason or "?")
    elif other_kind:
        status, reason_code = Status.SKIP, "not_comparable"
        detail = Text("another kind of node than the baseline: see {k}", "与基线节点类型不同，见 {k}").fill(
            k=KIND_CHECK
        )
    elif own.absent and base.absent:
        status, detail, reason_code = Status.SKIP, own.reason, own.reason_code
    elif is_baseline:
        detail = Text("baseline", "基线")
    elif not same(check, own.value, base.value):
        status, detail = Status.FAIL, _difference(own.value, base.value)
    return Verdict(
        info.id,
        info.kind,
        Subject("node", node),
        node,
        status,
        own.shown(check),
        plain(base.shown(check)),
        detail,
        reason_code,
        info.action if status is Status.FAIL else Action.NONE,
        own.evidence(status),
    )


def _difference(own: Value | None, base: Value | None) -> Text | None:
    """Of two long listings the parts that only one has; None when the values are short enough to be seen whole."""
    if not (isinstance(own, str) and isinstance(base, str)):
        return None
    here, there = (set(re.split(r"[,;] ", value)) for value in (own, base))
    if len(here | there) < 3:
        return None
    return Text("only here: {h}; only on the baseline: {t}", "仅此节点：{h}；仅基线：{t}").fill(
        h=", ".join(sorted(here - there))[:400] or "-", t=", ".join(sorted(there - here))[:400] or "-"
    )


def same(check: ConsistencyCheck, own: Value | None, base: Value | None) -> bool:
    if isinstance(own, int | float) and isinstance(base, int | float):
        return abs(own - base) <= check.tolerance * abs(base)
    return own == base


def _groups(check: ConsistencyCheck, held: Mapping[str, Held], base_name: str) -> list[ValueGroup]:
    """The values and who has them: the largest group first, those that could not be read (``?``) last."""
    nodes: dict[str, list[str]] = {}
    for node, own in held.items():
        nodes.setdefault(own.shown(check), []).append(node)
    ordered = sorted(nodes.items(), key=lambda g: (g[0] == "?", -len(g[1]), g[0]))
    return [ValueGroup(value, sorted(names, key=natural), base_name in names) for value, names in ordered]


def _listed(check: ConsistencyCheck, held: Mapping[str, Held], kinds: Mapping[str, str]) -> Verdict:
    """With no baseline nothing is judged: the values are listed, with a hint that does not vote."""
    info = check.info
    known = {node: own for node, own in held.items() if own.value is not None}
    groups = _groups(check, held, "")
    if not known:
        # Nowhere does it apply; or it may, and nobody could say.
        first = min(held.values(), key=lambda own: own.absent, default=Held(None, True, "absent"))
        status = Status.SKIP if first.absent else Status.UNKNOWN
        reason, code = first.reason, first.reason_code
        return Verdict(info.id, info.kind, ALL, "", status, "", info.criterion, reason, code, groups=groups)
    unread = [node for node, own in held.items() if own.value is None and not own.absent]
    detail = Text("not known of {n}", "未获知：{n}").fill(n=fold(unread)) if unread else None
    values = [g.value for g in groups if g.value != "?"]
    observed = values[0] if len(values) == 1 else f"{len(values)}: " + " | ".join(values)
    first_known = next(iter(known.values()))
    return Verdict(
        info.id,
        info.kind,
        ALL,
        "",
        Status.NA,
        observed[:OBSERVED_LIMIT],
        info.criterion,
        detail,
        "no_baseline",
        evidence=first_known.evidence(Status.NA) if len(values) == 1 else [],
        groups=groups,
        hint=_hint(check, known, kinds),
    )


def _hint(check: ConsistencyCheck, known: Mapping[str, Held], kinds: Mapping[str, str]) -> Text | None:
    """Who stands out among nodes of the same kind; it never changes a verdict."""
    parts: list[Text] = []
    for kind in dict.fromkeys(kinds.get(node, "") for node in known):
        peers = {node: own.value for node, own in known.items() if kinds.get(node, "") == kind}
        if len(peers) < HINT_NODES:
            continue
        odd = _odd_ones(check, peers)
        if odd:
            usual = [v for n, v in peers.items() if n not in odd]
            most = max(set(map(str, usual)), key=[str(v) for v in usual].count) if isinstance(usual[0], str) else None
            common = (
                most
                if most is not None
                else check.show(statistics.median(v for v in usual if isinstance(v, int | float)))
            )
            parts.append(Text("most have {c}; {n} differ", "多数为 {c}；{n} 与之不同").fill(c=common, n=fold(odd)))
    return Text("; ".join(p.en for p in parts), "；".join(p.zh for p in parts)) if parts else None


def _odd_ones(check: ConsistencyCheck, peers: Mapping[str, Value | None]) -> list[str]:
    numbers = {node: float(v) for node, v in peers.items() if isinstance(v, int | float)}
    if len(numbers) == len(peers):
        median = statistics.median(numbers.values())
        spread = statistics.median(abs(v - median) for v in numbers.values())
        # On a tight fleet the spread is nothing and every z is huge: the deviation must matter as well.
        return [
            node
            for node, v in numbers.items()
            if abs(v - median) > check.tolerance * abs(median) and 0.6745 * abs(v - median) > MODIFIED_Z_LIMIT * spread
        ]
    values = [str(v) for v in peers.values()]
    common = max(set(values), key=values.count)
    if values.count(common) * 2 <= len(values):
        return []
    return [node for node, v in peers.items() if str(v) != common]
