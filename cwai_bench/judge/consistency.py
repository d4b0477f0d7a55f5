"""One value of each node against the baseline, or, with none, against those of its peers."""

from __future__ import annotations

import hashlib
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from cwai_bench.baseline import Baseline
from cwai_bench.checks import ConsistencyCheck, DoesNotApply, FactView, NotKnown, Value
from cwai_bench.checks.kind import node_kind
from cwai_bench.judge.alike import Alike, Answer
from cwai_bench.judge.found import (
    ALL,
    NODE_LOST,
    OBSERVED_LIMIT,
    VALUE_LIMIT,
    Found,
    bug,
    joined,
    proof,
    verdicts_of,
)
from cwai_bench.model import ReasonCode, Status, ValueGroup, Verdict
from cwai_bench.render.nodeset import fold
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
        return Held(check.value(view))
    except DoesNotApply as e:
        return Held(None, True, e.reason_code, e.reason)
    except NotKnown as e:
        return Held(None, False, e.reason_code, e.reason)
    except Exception as e:
        return Held(None, False, "error", bug(e))


_LOST = Held(None, reason_code="node_lost", reason=NODE_LOST)


def consistency_verdicts(
    check: ConsistencyCheck,
    answers: Sequence[Answer[Held]],
    kinds: Sequence[str],
    alike: Alike,
    baseline: str | Baseline | None,
) -> list[Verdict]:
    """``kinds``: what kind of node each is, by its place."""
    answers = [*answers, Answer(_LOST, alike.lost)] if alike.lost else list(answers)
    if baseline is None:
        return [_listed(check, answers, kinds, alike)]
    base_at = -1
    if isinstance(baseline, Baseline):
        view = FactView(baseline.facts)
        base, base_kind = held_by(check, view), node_kind(view)
    else:
        base_at = alike.names.index(baseline)
        base, base_kind = next(a.said for a in answers if base_at in a.at), kinds[base_at]
    if check.info.id == KIND_CHECK:
        base_kind = ""
    found: list[Answer[Found]] = []
    for answer in answers:
        parts: dict[tuple[bool, bool], list[int]] = {}
        for i in answer.at:
            other_kind = bool(base_kind and kinds[i]) and kinds[i] != base_kind
            parts.setdefault((i == base_at, other_kind), []).append(i)
        found += [
            Answer(_compared(check, answer.said, base, is_baseline=is_baseline, other_kind=other_kind), at)
            for (is_baseline, other_kind), at in parts.items()
        ]
    verdicts = verdicts_of(check.info, found, alike, check.value)
    # The values of all, once: on the first verdict.
    groups = _groups(check, answers, alike, base_at)
    if base_at < 0 and not base.absent and base.value is not None:
        shown = base.shown(check)
        groups = [msgspec.structs.replace(g, is_baseline=g.value == shown) for g in groups]
    return [msgspec.structs.replace(verdicts[0], groups=groups), *verdicts[1:]] if verdicts else []


_FINE: ReasonCode = ""


def _compared(check: ConsistencyCheck, own: Held, base: Held, *, is_baseline: bool, other_kind: bool) -> Found:
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
    return Found(status, own.shown(check), plain(base.shown(check)), detail, reason_code)


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


def _groups(check: ConsistencyCheck, answers: Sequence[Answer[Held]], alike: Alike, base_at: int) -> list[ValueGroup]:
    """The values and who has them: the largest group first, those that could not be read (``?``) last."""
    places: dict[str, list[int]] = {}
    for answer in answers:
        places.setdefault(answer.said.shown(check), []).extend(answer.at)
    ordered = sorted(places.items(), key=lambda g: (g[0] == "?", -len(g[1]), g[0]))
    return [ValueGroup(value, alike.named(sorted(at)), base_at in at) for value, at in ordered]


def _listed(check: ConsistencyCheck, answers: Sequence[Answer[Held]], kinds: Sequence[str], alike: Alike) -> Verdict:
    """With no baseline nothing is judged: the values are listed, with a hint that does not vote."""
    info = check.info
    groups = _groups(check, answers, alike, -1)
    known = [answer for answer in answers if answer.said.value is not None]
    if not known:
        # Nowhere does it apply; or it may, and nobody could say.
        first = min((a.said for a in answers), key=lambda own: own.absent, default=Held(None, True, "absent"))
        status = Status.SKIP if first.absent else Status.UNKNOWN
        return Verdict(info.id, info.kind, ALL, [], status, "", None, first.reason, first.reason_code, groups=groups)
    unread = sorted(i for a in answers if a.said.value is None and not a.said.absent for i in a.at)
    detail = Text("not known of {n}", "未获知：{n}").fill(n=fold(alike.named(unread))) if unread else None
    values = [g.value for g in groups if g.value != "?"]
    observed = values[0] if len(values) == 1 else f"{len(values)}: " + " | ".join(values[:OBSERVED_LIMIT])
    return Verdict(
        info.id,
        info.kind,
        ALL,
        [],
        Status.NA,
        observed[:OBSERVED_LIMIT],
        None,
        detail,
        "no_baseline",
        evidence=proof(known, Status.NA, alike, check.value, len(alike.names)) if len(values) == 1 else [],
        groups=groups,
        hint=_hint(check, known, kinds, alike),
    )


def _hint(check: ConsistencyCheck, known: Sequence[Answer[Held]], kinds: Sequence[str], alike: Alike) -> Text | None:
    """Who stands out among nodes of the same kind; it never changes a verdict."""
    by_kind: dict[str, dict[int, Value | None]] = {}
    for answer in known:
        for i in answer.at:
            by_kind.setdefault(kinds[i], {})[i] = answer.said.value
    parts: list[Text] = []
    for peers in by_kind.values():
        odd = set(_odd_ones(check, peers)) if len(peers) >= HINT_NODES else set()
        if odd:
            usual = [v for i, v in peers.items() if i not in odd]
            numbers = [v for v in usual if isinstance(v, int | float)]
            common = (
                check.show(statistics.median(numbers)) if numbers else Counter(map(str, usual)).most_common(1)[0][0]
            )
            form = Text("most have {c}; {n} differ", "多数为 {c}；{n} 与之不同")
            parts.append(form.fill(c=common, n=fold(alike.named(sorted(odd)))))
    return joined(parts)


def _odd_ones(check: ConsistencyCheck, peers: Mapping[int, Value | None]) -> list[int]:
    numbers = {i: float(v) for i, v in peers.items() if isinstance(v, int | float)}
    if len(numbers) == len(peers):
        median = statistics.median(numbers.values())
        spread = statistics.median(abs(v - median) for v in numbers.values())
        # On a tight fleet the spread is nothing and every z is huge: the deviation must matter as well.
        return [
            i
            for i, v in numbers.items()
            if abs(v - median) > check.tolerance * abs(median) and 0.6745 * abs(v - median) > MODIFIED_Z_LIMIT * spread
        ]
    common, count = Counter(map(str, peers.values())).most_common(1)[0]
    return [] if count * 2 <= len(peers) else [i for i, v in peers.items() if str(v) != common]
