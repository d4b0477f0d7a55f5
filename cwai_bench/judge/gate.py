"""The gate: verdicts into one exit code and its reasons, and what a person suppressed.

ARCHITECTURE.md ("Verdicts") is its policy; ``gate_of`` is that page as code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timezone

import msgspec

from cwai_bench.config import Suppress
from cwai_bench.judge.found import narrowed
from cwai_bench.judge.presence import NODES, RANKS, signal_name
from cwai_bench.model import (
    CheckInfo,
    Gate,
    ItemKind,
    Run,
    Severity,
    Status,
    Suppression,
    Verdict,
)
from cwai_bench.render.nodeset import fold, natural
from cwai_bench.text import Text, plain

REASONS_LIMIT = 20
"""Reasons that the gate lists."""
SAID_LIMIT = 60
"""Characters of a value that is compared across nodes up to which a reason quotes it whole."""


_SEVERITIES = (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR)


def day_of(run: Run) -> date:
    """The day on which the run began, where it ran: judged again later, it comes out the same."""
    try:
        return datetime.fromtimestamp(run.started + run.utc_offset, timezone.utc).date()
    except (OverflowError, ValueError, OSError):
        return date.max  # no day: then nothing is suppressed


def suppress(verdicts: Sequence[Verdict], suppressions: Sequence[Suppress]) -> list[Verdict]:
    """The verdicts, those marked that need somebody's attention and that a suppression covers: the first one counts.

    That a node or a rank was lost is never passed over.
    """

    marked: list[Verdict] = []
    for v in verdicts:
        of_item = [s for s in suppressions if s.item == v.check]
        if not of_item or v.status not in (Status.FAIL, Status.WARN, Status.UNKNOWN) or v.check in (NODES.id, RANKS.id):
            marked.append(v)
            continue
        covered: dict[Suppress | None, list[str]] = {}
        for node in v.nodes or [""]:
            why = next((s for s in of_item if s.covers(v.check, node)), None)
            covered.setdefault(why, []).append(node)
        for why, nodes in covered.items():
            part = narrowed(v, nodes) if len(covered) > 1 else v
            suppressed = why and Suppression(why.owner, why.reason, why.until.isoformat())
            marked.append(msgspec.structs.replace(part, suppressed=suppressed))
    return marked


def expired(suppressions: Iterable[Suppress]) -> list[Text]:
    return [
        Text(
            "the suppression of {i} by {o} ended on {d}: it has no effect", "{o} 对 {i} 的豁免已于 {d} 到期，不再生效"
        ).fill(i=s.item, o=s.owner, d=s.until.isoformat())
        for s in suppressions
    ]


def gate_of(
    verdicts: Sequence[Verdict],
    infos: Mapping[str, CheckInfo],
    *,
    has_baseline: bool,
    interrupted: int,
    allow_unknown: bool,
) -> Gate:
    """0 every required item passed · 1 something failed · 3 no verdict · 128 + n ended by signal n."""
    passed_over = [v for v in verdicts if v.suppressed is not None]
    verdicts = [v for v in verdicts if v.suppressed is None]
    required = [v for v in verdicts if _is_required(v, infos, has_baseline)]
    failed = [v for v in required if v.status is Status.FAIL]
    unknown = [v for v in required if v.status is Status.UNKNOWN]
    judged = [
        v
        for v in required
        if v.status in (Status.PASS, Status.WARN, Status.FAIL) and v.check not in (NODES.id, RANKS.id)
    ]
    warned = [v for v in required if v.status is Status.WARN]
    because: list[Text] = []
    if interrupted:
        because.append(Text("it was stopped by {s}", "被 {s} 中断").fill(s=signal_name(interrupted)))
    because += _reasons(failed, infos, Text("{t}: failed on {n}{o}", "{t}：{n} 不通过{o}"))
    told = [v for v in unknown if not v.follows_from_loss]
    follow = [v for v in told if v.reason_code == "cause"]
    told = [v for v in told if v.reason_code != "cause"]
    because += _reasons(told, infos, Text("{t}: not known of {n}{o}", "{t}：{n} 未知{o}"))
    because += _consequences(follow)
    if not judged:
        because.append(Text("nothing was measured or judged", "没有任何测量或判定"))
    if failed:
        status, code = Status.FAIL, 1
    elif not judged or (unknown and not allow_unknown):
        status, code = Status.UNKNOWN, 3
    else:
        status, code = (Status.WARN if warned or unknown else Status.PASS), 0
        passed = {v.check for v in required if v.status is Status.PASS} - {v.check for v in warned + unknown}
        done = Text("items passed: {n}", "{n} 项通过").fill(n=len(passed))
        because.insert(0, done)
        if unknown:
            because.insert(1, Text("items not known were allowed", "已允许未知项"))
        because += _reasons(warned, infos, Text("{t}: warning on {n}{o}", "{t}：{n} 告警{o}"))
    if interrupted:
        code = 128 + interrupted
        status = Status.FAIL if failed else Status.UNKNOWN
    named: set[str] = set()
    for v in required:
        to_blame = v.subject.kind not in ("link", "group") or v.reason_code == "wrong_data"
        if (v.status is Status.FAIL and to_blame) or (v.check == NODES.id and v.reason_code == "node_lost"):
            named.update(v.nodes)
    if len(because) > REASONS_LIMIT:
        more = len(because) - REASONS_LIMIT
        because = [*because[:REASONS_LIMIT], Text("and {m} more", "另有 {m} 条").fill(m=more)]
    because += _suppression_reasons(passed_over, infos)
    return Gate(status, code, because, sorted(named, key=natural))


def _is_required(verdict: Verdict, infos: Mapping[str, CheckInfo], has_baseline: bool) -> bool:
    """Node items, probes that started; consistency items with a baseline; configurable items with a criterion.

    A script unless its author said otherwise. A node item whose tool is optional is not required where that tool is
    missing.
    """
    if verdict.kind is ItemKind.CONSISTENCY:
        return has_baseline
    if verdict.kind is ItemKind.SCRIPT:
        return infos[verdict.check].required
    if verdict.kind is ItemKind.NODE and verdict.reason_code == "missing_tool" and not infos[verdict.check].required:
        return False
    return verdict.reason_code != "no_criterion"


def _suppression_reasons(verdicts: Sequence[Verdict], infos: Mapping[str, CheckInfo]) -> list[Text]:
    """What the gate passed over, one reason for each suppression: however long the list, none is hidden."""
    alike: dict[tuple[str, Suppression], list[Verdict]] = {}
    for v in verdicts:
        assert v.suppressed is not None
        alike.setdefault((v.check, v.suppressed), []).append(v)
    form = Text(
        "not counted: {t} on {n} ({s}), suppressed until {d} by {o}: {r}",
        "不计入：{n} 的“{t}”（{s}），由 {o} 豁免至 {d}：{r}",
    )
    return [
        form.fill(
            t=infos[check].title,
            n=fold(name for v in group for name in v.nodes or [v.subject.id]),
            s="/".join(dict.fromkeys(v.status.value for v in group)),
            d=why.until,
            o=why.owner,
            r=why.reason,
        )
        for (check, why), group in alike.items()
    ]


def _consequences(verdicts: Sequence[Verdict]) -> list[Text]:
    """One reason for each cause, however many items it leaves unknown."""
    by_cause: dict[Text, list[Verdict]] = {}
    for v in verdicts:
        by_cause.setdefault(v.detail or plain(""), []).append(v)
    form = Text("{c} items not known of {n}: {d}", "{n} 有 {c} 项未知：{d}")
    return [
        form.fill(d=cause, c=len({v.check for v in group}), n=fold(s.id for v in group for s in v.subjects))
        for cause, group in by_cause.items()
    ]


def _reasons(verdicts: Sequence[Verdict], infos: Mapping[str, CheckInfo], form: Text) -> list[Text]:
    """One reason for each item, the most severe first."""
    by_check: dict[str, list[Verdict]] = {}
    for v in verdicts:
        by_check.setdefault(v.check, []).append(v)
    ordered = sorted(by_check, key=lambda id: _SEVERITIES.index(infos[id].severity))
    found = []
    for id in ordered:
        group = by_check[id]
        named = fold(subject.id for v in group for subject in v.subjects)
        alone = len(group) == 1 and len(group[0].nodes) < 2
        first = group[0]
        long = first.kind is ItemKind.CONSISTENCY and len(first.observed) > SAID_LIMIT
        said = first.detail if long and first.detail is not None else plain(first.observed)
        observed = Text(" ({s})", "（{s}）").fill(s=said) if alone and first.observed else ""
        found.append(form.fill(t=infos[id].title, n=named, o=observed))
    return found
