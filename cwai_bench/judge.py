"""The judge: facts and measurements against our rules, the person's criteria, a baseline and the peers.

A pure function from a Run to a Report: it opens no device and reads no file, so that old runs can be judged again.
The gate's policy is written in ARCHITECTURE.md ("Verdicts"); ``_gate`` is that page as code.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import signal
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone

import msgspec

from cwai_bench.alike import Alike
from cwai_bench.baseline import Baseline
from cwai_bench.checks import (
    CHECKS,
    ConfigurableCheck,
    ConsistencyCheck,
    DoesNotApply,
    FactView,
    NodeCheck,
    NotKnown,
    Value,
)
from cwai_bench.checks.kind import node_kind
from cwai_bench.config import Criteria, Criterion, Suppress, nearest
from cwai_bench.errors import UsageError
from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    Facts,
    Gate,
    ItemKind,
    Measurement,
    NodeRecord,
    ProbeSpec,
    RankEvent,
    ReasonCode,
    Report,
    Run,
    Scalar,
    Severity,
    Stats,
    Status,
    Subject,
    Suppression,
    ValueGroup,
    Verdict,
    stats_of,
)
from cwai_bench.render.nodeset import fold, natural
from cwai_bench.render.units import gigabits, gigabytes, microseconds, size
from cwai_bench.sources import Container
from cwai_bench.text import Text, plain

KIND_CHECK = "same.kind"
"""The consistency item that says whether nodes are alike at all; a node that fails it is not compared further."""
HINT_NODES = 5
"""Below so many nodes of a kind there is no hint about outliers: a majority of three says nothing."""
MODIFIED_Z_LIMIT = 3.5
"""Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): |0.6745 (x - median) / MAD| above it is one."""
OBSERVED_LIMIT = 400
VALUE_LIMIT = 2000
"""Characters shown of what one item observed, and of a value that is compared across nodes."""
REASONS_LIMIT = 20
"""Reasons that the gate lists."""
ALL = Subject("group", "all")
_CHECK_KINDS = (Status.FAIL, Status.UNKNOWN, Status.WARN, Status.PASS, Status.SKIP, Status.NA)
_SEVERITIES = (Severity.CRITICAL, Severity.MAJOR, Severity.MINOR)

NODES = CheckInfo(
    "run.nodes",
    ItemKind.PROBE,
    "run",
    Text("Every node reported", "所有节点均已上报"),
    Text("the journals of the run, one from each node", "本次运行中各节点的日志"),
    Text("each node's journal arrived, and was closed properly", "每个节点的日志均已收到且正常结束"),
    Text(
        "look whether the node is up and reachable; its journal may lie in the spool folder there",
        "请检查该节点是否在线、网络是否可达；其日志可能仍在该节点的暂存目录中",
    ),
    Severity.CRITICAL,
    Action.ISOLATE,
    [],
    required=True,
)
RANKS = CheckInfo(
    "run.ranks",
    ItemKind.PROBE,
    "run",
    Text("Every rank came to its end", "所有进程（rank）均正常结束"),
    Text("each rank's heartbeats and its state in /proc, watched from outside", "从进程外部观察其心跳与 /proc 状态"),
    Text(
        "no rank died, was stopped, fell silent, or was lost with its node",
        "没有进程异常退出、被暂停、失去响应或随节点丢失",
    ),
    Text(
        "look at the kernel log of that node for OOM kills, and for GPU, NPU and NIC errors at that time",
        "请检查该节点内核日志中同一时刻的 OOM、GPU、NPU 与网卡错误",
    ),
    Severity.CRITICAL,
    Action.ISOLATE,
    [],
    required=True,
)


def judge(
    run: Run,
    *,
    criteria: Criteria | None = None,
    baseline: str | Baseline | None = None,
    allow_unknown: bool = False,
) -> Report:
    """Judge a run. ``baseline``: the name of a node of the run, or a baseline from a file.

    Raises UsageError when ``baseline`` names no node of the run.
    """
    notes = _idle_criteria(run, criteria)
    verdicts = check_facts(
        run.facts,
        run.plan.checks,
        nodes=[n.name for n in run.nodes],
        criteria=criteria,
        baseline=baseline,
    )
    verdicts += _node_verdicts(run)
    verdicts += _rank_verdicts(run)
    for spec in run.plan.probes:
        verdicts += _probe_verdicts(run, spec, criteria)
    today = _day(run)
    suppressions = criteria.suppressions if criteria is not None else ()
    verdicts = _suppressed(verdicts, [s for s in suppressions if s.until >= today])
    infos = {id: _info(id) for id in run.plan.checks} | {spec.info.id: spec.info for spec in run.plan.probes}
    infos |= {i.id: i for i in (NODES, RANKS) if any(v.check == i.id for v in verdicts)}
    interrupted = run.settings.get("interrupted", 0)
    environment, differing = _environment(run)
    return Report(
        run_id=run.run_id,
        run_type=run.run_type,
        status=run.status,
        command=run.command,
        version=run.version,
        started=run.started,
        finished=run.finished,
        utc_offset=run.utc_offset,
        world_size=run.world_size,
        nodes=run.nodes,
        baseline=baseline.node if isinstance(baseline, Baseline) else baseline,
        environment=environment,
        settings=run.settings,
        plan=run.plan,
        checks=list(infos.values()),
        verdicts=verdicts,
        measurements=[
            m if m.stats is not None else msgspec.structs.replace(m, stats=stats_of(m.samples))
            for m in run.measurements
        ],
        events=run.events,
        counts={status.value: sum(v.status is status for v in verdicts) for status in _CHECK_KINDS},
        gate=_gate(
            verdicts,
            infos,
            has_baseline=baseline is not None,
            interrupted=int(interrupted) if isinstance(interrupted, int | float) else 0,
            allow_unknown=allow_unknown,
        ),
        notes=notes + differing + _privilege_note(verdicts) + _expired(s for s in suppressions if s.until < today),
    )


def check_facts(
    facts: Sequence[Facts],
    ids: Iterable[str],
    *,
    nodes: Sequence[str] = (),
    criteria: Criteria | None = None,
    baseline: str | Baseline | None = None,
) -> list[Verdict]:
    """Judge the checks ``ids`` on ``facts``. ``nodes``: all that should have facts (those of ``facts`` when empty).

    Raises UsageError when ``baseline`` names none of them.
    """
    by_node = {f.node: f for f in facts}
    names = list(dict.fromkeys([*nodes, *by_node]))
    if isinstance(baseline, str) and baseline not in names:
        near = difflib.get_close_matches(baseline, names, 1, 0.4)
        raise UsageError(
            Text("the baseline {b!r} is no node of this run", "基线 {b!r} 不是本次运行中的节点").fill(b=baseline),
            Text("did you mean {n}?", "是否想用 {n}？").fill(n=near[0])
            if near
            else Text("its nodes: {n}", "其节点：{n}").fill(n=fold(names)),
        )
    verdicts: list[Verdict] = []
    alike = Alike(facts)
    kinds = {f.node: alike.ask("kind of node", f, node_kind) for f in facts}
    for id in ids:
        if id not in CHECKS:
            verdicts += [_unknown_check(id, node) for node in names]
            continue
        check = CHECKS[id]
        if isinstance(check, NodeCheck):
            verdicts += [_node_verdict(check, node, by_node.get(node), alike) for node in names]
        elif isinstance(check, ConfigurableCheck):
            criterion = criteria.get(id) if criteria is not None else None
            verdicts += _configurable_verdicts(check, criterion, names, by_node, alike)
        else:
            verdicts += _consistency_verdicts(check, names, by_node, kinds, alike, baseline)
    return verdicts


def _info(id: str) -> CheckInfo:
    if id in CHECKS:
        return CHECKS[id].info
    unknown = Text("not known to this version of cwai-bench", "当前版本的 cwai-bench 不包含此项")
    return CheckInfo(
        id, ItemKind.NODE, "host", plain(id), unknown, unknown, unknown, Severity.MINOR, Action.NONE, [], required=True
    )


def _unknown_check(id: str, node: str) -> Verdict:
    info = _info(id)
    return Verdict(
        id, info.kind, Subject("node", node), node, Status.UNKNOWN, detail=info.method, reason_code="unsupported"
    )


# ------------------------------------------------------------------------------------------------------ node items

_NODE_LOST = Text("this node delivered no facts", "该节点未提供数据")
_OF_CONTAINER = Text(
    "seen from inside a container ({k}): this is the container's answer, not the host's",
    "在容器（{k}）内检测：结果反映容器而非宿主机",
)


@dataclass(frozen=True)
class _Found:
    """What a check says of a node, whichever node that is."""

    status: Status
    observed: str = ""
    expected: Text | None = None
    detail: Text | None = None
    reason_code: ReasonCode = ""
    evidence: list[Evidence] = field(default_factory=list)


def _verdict(
    info: CheckInfo, node: str, facts: Facts | None, look: Callable[[FactView], _Found], alike: Alike
) -> Verdict:
    """What ``look`` finds, or UNKNOWN or SKIP when it could not come to a verdict. A bug in a check ends no run."""

    def attempt(view: FactView) -> _Found:
        try:
            return look(view)
        except NotKnown as e:
            status, code, reason = Status.UNKNOWN, e.reason_code, e.reason
        except DoesNotApply as e:
            status, code, reason = Status.SKIP, e.reason_code, e.reason
        except Exception as e:
            status, code, reason = Status.UNKNOWN, "error", _bug(e)
        return _Found(status, detail=reason, reason_code=code, evidence=view.evidence(status))

    found = (
        _Found(Status.UNKNOWN, detail=_NODE_LOST, reason_code="node_lost")
        if facts is None
        else alike.ask(info.id, facts, attempt)
    )
    return Verdict(
        info.id,
        info.kind,
        Subject("node", node),
        node,
        found.status,
        found.observed,
        found.expected,
        found.detail,
        found.reason_code,
        info.action if found.status in (Status.FAIL, Status.WARN) else Action.NONE,
        found.evidence,
    )


def _bug(error: Exception) -> Text:
    bug = f"{type(error).__name__}: {error}"[:300]
    return Text("a bug of cwai-bench, please report it: {b}", "cwai-bench 的缺陷，请上报：{b}").fill(b=bug)


def _node_verdict(check: NodeCheck, node: str, facts: Facts | None, alike: Alike) -> Verdict:
    def look(view: FactView) -> _Found:
        outcome = check.judge(view)
        evidence = view.evidence(outcome.status)  # before the container is asked about, which is none
        return _Found(
            outcome.status,
            outcome.observed[:OBSERVED_LIMIT],
            outcome.expected or check.info.criterion,
            _with_container(outcome.detail, check.seen, view),
            evidence=evidence,
        )

    return _verdict(check.info, node, facts, look, alike)


def _with_container(detail: Text | None, seen: str, view: FactView) -> Text | None:
    """``detail``, and, for what is the container's own, that it is."""
    if seen != "container":
        return detail
    try:
        kind = view.call("container", Container).kind
    except NotKnown:
        return detail
    if not kind:
        return detail
    note = _OF_CONTAINER.fill(k=kind)
    return note if detail is None else Text(f"{detail.en}; {note.en}", f"{detail.zh}；{note.zh}")


# ----------------------------------------------------------------------------------------------- configurable items


def _configurable_verdicts(
    check: ConfigurableCheck,
    criterion: Criterion | None,
    names: Sequence[str],
    by_node: Mapping[str, Facts],
    alike: Alike,
) -> list[Verdict]:
    info = check.info
    if criterion is None:
        reason = Text("no criterion was given for it", "未设定判据")
        return [Verdict(info.id, info.kind, ALL, "", Status.SKIP, detail=reason, reason_code="no_criterion")]

    def look(view: FactView) -> _Found:
        assert criterion is not None
        found = check.values(view)
        values = dict(found) if isinstance(found, Mapping) else {"": found}
        values = {name: value for name, value in values.items() if not name or criterion.applies_to(name)}
        if not values:
            raise NotKnown("absent", Text("nothing here is what the criterion is about", "没有符合判据限定条件的对象"))
        if not criterion.fits(check.unit):
            raise NotKnown(
                "not_comparable",
                Text("the criterion is not in {u}", "判据的单位不是 {u}").fill(u=check.unit),
            )
        bad = {name: value for name, value in values.items() if not criterion.holds(value)}
        shown = bad or values
        status = Status.FAIL if bad else Status.PASS
        evidence = view.evidence(status)
        return _Found(
            status,
            ", ".join(f"{name} {show(v, check.unit)}".strip() for name, v in sorted(shown.items()))[:OBSERVED_LIMIT],
            criterion.words(),
            _with_container(None, check.seen, view),
            evidence=evidence,
        )

    return [_verdict(info, node, by_node.get(node), look, alike) for node in names]


def show(value: Value, unit: str) -> str:
    """A value for a person: ``512 GiB``, ``100 Gb/s``, ``1.5 s``, ``unlimited``."""
    if isinstance(value, str):
        return value
    if value == float("inf"):
        return "unlimited"
    if unit == "B":
        return size(int(value))
    if unit == "bit/s":
        return f"{gigabits(value / 8)} Gb/s"
    return f"{value:g} s" if unit == "s" else f"{value:g}"


# ------------------------------------------------------------------------------------------------- consistency items


@dataclass(frozen=True)
class _Held:
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


def _held(check: ConsistencyCheck, view: FactView) -> _Held:
    try:
        return _Held(check.value(view), view=view)
    except DoesNotApply as e:
        return _Held(None, True, e.reason_code, e.reason, view)
    except NotKnown as e:
        return _Held(None, False, e.reason_code, e.reason, view)
    except Exception as e:
        return _Held(None, False, "error", _bug(e))


def _consistency_verdicts(
    check: ConsistencyCheck,
    names: Sequence[str],
    by_node: Mapping[str, Facts],
    kinds: Mapping[str, str],
    alike: Alike,
    baseline: str | Baseline | None,
) -> list[Verdict]:
    lost = _Held(None, reason_code="node_lost", reason=_NODE_LOST)
    held = {
        node: alike.ask(check.info.id, by_node[node], lambda view: _held(check, view)) if node in by_node else lost
        for node in names
    }
    if baseline is None:
        return [_listed(check, held, kinds)]
    if isinstance(baseline, Baseline):
        against, base_name = _held(check, FactView(baseline.facts)), ""
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
    check: ConsistencyCheck, node: str, own: _Held, base: _Held, *, is_baseline: bool, other_kind: bool
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
    elif not _same(check, own.value, base.value):
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


def _same(check: ConsistencyCheck, own: Value | None, base: Value | None) -> bool:
    if isinstance(own, int | float) and isinstance(base, int | float):
        return abs(own - base) <= check.tolerance * abs(base)
    return own == base


def _groups(check: ConsistencyCheck, held: Mapping[str, _Held], base_name: str) -> list[ValueGroup]:
    """The values and who has them: the largest group first, those that could not be read (``?``) last."""
    nodes: dict[str, list[str]] = {}
    for node, own in held.items():
        nodes.setdefault(own.shown(check), []).append(node)
    ordered = sorted(nodes.items(), key=lambda g: (g[0] == "?", -len(g[1]), g[0]))
    return [ValueGroup(value, sorted(names, key=natural), base_name in names) for value, names in ordered]


def _listed(check: ConsistencyCheck, held: Mapping[str, _Held], kinds: Mapping[str, str]) -> Verdict:
    """With no baseline nothing is judged: the values are listed, with a hint that does not vote."""
    info = check.info
    known = {node: own for node, own in held.items() if own.value is not None}
    groups = _groups(check, held, "")
    if not known:
        # Nowhere does it apply; or it may, and nobody could say.
        first = min(held.values(), key=lambda own: own.absent, default=_Held(None, True, "absent"))
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


def _hint(check: ConsistencyCheck, known: Mapping[str, _Held], kinds: Mapping[str, str]) -> Text | None:
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


# ------------------------------------------------------------------------------------------------------------ probes


def _probe_verdicts(run: Run, spec: ProbeSpec, criteria: Criteria | None) -> list[Verdict]:
    """One verdict for each subject that the probe measured; what all ranks did together is one subject.

    An UNKNOWN besides when it measured nothing, or did not come to its end.
    """
    by_subject: dict[Subject, list[Measurement]] = {}
    for m in run.measurements:
        if m.spec == spec.id:
            by_subject.setdefault(ALL if m.subject.kind == "rank" else m.subject, []).append(m)
    criterion = None if criteria is None else criteria.get(spec.info.id)
    kin = {s.id for s in run.plan.probes if s.info.id == spec.info.id}
    # What a criterion is not about is left alone by it, if there is something in the run that it is about.
    if criterion is not None and _meant(criterion, [m for m in run.measurements if m.spec in kin]):
        about = {subject: criterion if _meant(criterion, ms) else None for subject, ms in by_subject.items()}
    else:
        about = dict.fromkeys(by_subject, criterion)
    verdicts = [_measured(spec, subject, ms, about[subject]) for subject, ms in by_subject.items()]
    if verdicts and not _unfinished(run, spec):
        return verdicts
    end = _unmeasured(run, spec)
    if ALL not in by_subject:
        return [*verdicts, end]
    return [_cut_short(v, end) if v.subject == ALL and v.status is Status.PASS else v for v in verdicts]


def _unfinished(run: Run, spec: ProbeSpec) -> bool:
    """True when a rank began the probe and is not known to have ended it."""
    states = {state: {e.rank for e in run.events if e.item == spec.id and e.state == state} for state in _ITEM_STATES}
    return bool(states["item_begin"] - states["item_end"])


_ITEM_STATES = ("item_begin", "item_end")


def _cut_short(verdict: Verdict, end: Verdict) -> Verdict:
    """What was measured is kept and shown; why it is not all of it is the verdict."""
    return msgspec.structs.replace(
        verdict, status=end.status, detail=end.detail, reason_code=end.reason_code, action=Action.NONE
    )


def _unmeasured(run: Run, spec: ProbeSpec) -> Verdict:
    lost = [e for e in run.events if e.state in ("died", "stalled", "lost")]
    code: ReasonCode = "error"
    detail = Text("it was planned, and did not come to its end", "已列入计划，但未能完成")
    if lost:
        code = "rank_lost"
        detail = Text(
            "it did not come to its end: rank {r} on {n} was lost", "未能完成：{n} 上的 rank {r} 已丢失"
        ).fill(r=lost[0].rank, n=lost[0].node)
    elif run.settings.get("interrupted") or any(not n.present for n in run.nodes):
        code = "aborted"
        detail = Text("the run ended before it", "运行在此项之前已结束")
    return Verdict(
        spec.info.id,
        spec.info.kind,
        Subject("group", spec.id),
        "",
        Status.UNKNOWN,
        "",
        spec.info.criterion,
        detail,
        code,
    )


def _measured(spec: ProbeSpec, subject: Subject, ms: list[Measurement], criterion: Criterion | None) -> Verdict:
    info = spec.info
    node = ms[0].node if len({m.node for m in ms}) == 1 and subject.kind != "group" else ""

    def verdict(
        status: Status,
        observed: str = "",
        detail: Text | None = None,
        code: ReasonCode = "",
        expected: Text | None = None,
        at: str = node,
    ) -> Verdict:
        action = info.action if status is Status.FAIL else Action.NONE
        return Verdict(
            info.id, info.kind, subject, at, status, observed, expected or info.criterion, detail, code, action
        )

    good = [m for m in ms if m.status == "ok" and m.samples]
    wrong = [m for m in ms if m.correct is False]
    if wrong:
        nodes = {m.node for m in wrong}
        return verdict(
            Status.FAIL,
            _summary(good),
            _joined([_wrong(m) for m in wrong[:8]]),
            "wrong_data",
            at=nodes.pop() if len(nodes) == 1 else "",
        )
    broken = [m for m in ms if m.status in ("error", "timeout", "aborted")]
    if broken:
        codes: dict[str, ReasonCode] = {"timeout": "timeout", "aborted": "aborted"}
        first = broken[0]
        return verdict(
            Status.UNKNOWN,
            _summary(good),
            first.reason or Text("it ended with {s}", "测量状态为 {s}").fill(s=first.status),
            first.reason_code or codes.get(first.status, "error"),
        )
    skipped = [m for m in ms if m.status == "skip"]
    if not good:
        if skipped:
            return verdict(Status.SKIP, "", skipped[0].reason, skipped[0].reason_code or "unsupported")
        return verdict(Status.UNKNOWN, "", Text("it gave no samples", "没有采到样本"), "error")
    silent = _silent_ranks(good)
    if silent:
        reason = Text("no result of rank {r}", "缺少 rank {r} 的结果").fill(r=", ".join(map(str, silent[:20])))
        return verdict(Status.UNKNOWN, _summary(good), reason, "rank_lost")
    detail = skipped[0].reason if skipped else None
    if criterion is None:
        return verdict(Status.PASS, _summary(good), detail)
    return _held_against(criterion, good, verdict, detail)


def _silent_ranks(ms: list[Measurement]) -> list[int]:
    """Ranks that a collective counts on and that did not report every size that others did."""
    by_size: dict[Scalar | None, set[int]] = {}
    for m in ms:
        by_size.setdefault(m.parameters.get("bytes"), set()).add(m.rank)
    expected = ms[0].parameters.get("ranks") if "bus_factor" in ms[0].parameters else None
    if not isinstance(expected, int):
        return []
    return sorted(set().union(*(set(range(expected)) - ranks for ranks in by_size.values())))


def _meant(criterion: Criterion, ms: Iterable[Measurement]) -> list[tuple[Measurement, str, float]]:
    """The measurements that a criterion is about, each with a unit that it is written in and the median in that."""
    return [
        (m, unit, value)
        for m in ms
        if criterion.selects(m.parameters)
        for unit, value in _medians(m).items()
        if criterion.fits(unit)
    ]


def _held_against(
    criterion: Criterion, ms: list[Measurement], verdict: Callable[..., Verdict], detail: Text | None
) -> Verdict:
    """Each measurement that the criterion selects must hold by its median."""
    words = criterion.words()
    meant = _meant(criterion, ms)
    if not meant:
        reason = Text("no measurement is what the criterion is about", "没有与判据相符的测量")
        return verdict(Status.UNKNOWN, _summary(ms), reason, "not_comparable", words)
    bad = [(m, unit) for m, unit, value in meant if not criterion.holds(value)]
    if not bad:
        return verdict(Status.PASS, _summary(ms), detail, "", words)
    return verdict(Status.FAIL, ", ".join(_figure(m, unit) for m, unit in bad[:4]), detail, "", words)


def _medians(m: Measurement) -> dict[str, float]:
    """The median in the units of criteria. A collective is judged by its time, or by its bus bandwidth."""
    median = _stats(m).p50
    if m.unit == "B/s":
        return {"bit/s": median * 8}
    count, factor = m.parameters.get("bytes"), m.parameters.get("bus_factor")
    if m.unit == "s" and median > 0 and isinstance(count, int) and isinstance(factor, int | float):
        return {"s": median, "bit/s": count * factor / median * 8}
    return {m.unit: median}


def _stats(m: Measurement) -> Stats:
    found = m.stats or stats_of(m.samples)
    assert found is not None  # only measurements with samples come here
    return found


def _figure(m: Measurement, unit: str) -> str:
    """The median of a measurement as a person reads it, and at which message size."""
    medians = _medians(m)
    if unit == "bit/s" and len(medians) > 1:
        return f"{gigabytes(medians[unit] / 8)} GB/s busbw{_where(m)}"
    if unit == "bit/s":
        return f"{gigabits(medians[unit] / 8)} Gb/s{_where(m)}"
    if unit == "s":
        return f"p50 {microseconds(medians[unit])} us, p99 {microseconds(_stats(m).p99)} us{_where(m)}"
    return f"{medians[unit]:g}{_where(m)}"


def _where(m: Measurement) -> str:
    """At which message size, over how many streams, and whether both ways at once."""
    count, streams = m.parameters.get("bytes"), m.parameters.get("streams")
    parts = [size(count)] if isinstance(count, int) and not isinstance(count, bool) else []
    parts += [f"×{streams}"] if isinstance(streams, int) and streams > 1 else []
    parts += ["⇄"] if m.parameters.get("direction") == "two-way" else []
    return f" ({', '.join(parts)})" if parts else ""


def _summary(ms: list[Measurement]) -> str:
    """The highest bandwidth and the time of the smallest message, of each metric; of ranks together, the slowest."""
    points: dict[tuple[str, Scalar | None], list[Measurement]] = {}
    for m in ms:
        points.setdefault((m.metric, m.parameters.get("bytes")), []).append(m)
    together = "bus_factor" in ms[0].parameters if ms else False
    best: dict[tuple[str, str], Measurement] = {}
    for m in ((min if together else max)(point, key=_speed) for point in points.values()):
        for unit, value in _medians(m).items():
            known = best.setdefault((m.metric, unit), m)
            if _bytes(m) < _bytes(known) if unit == "s" else value > _medians(known)[unit]:
                best[m.metric, unit] = m
    several = len({metric for metric, _ in best}) > 1
    shown = [(f"{metric} " if several else "") + _figure(m, unit) for (metric, unit), m in best.items()]
    return "; ".join(shown)[:OBSERVED_LIMIT]


def _bytes(m: Measurement) -> float:
    count = m.parameters.get("bytes")
    return count if isinstance(count, int | float) else 0.0


def _speed(m: Measurement) -> float:
    """Larger is better: bandwidth, or time the other way round."""
    return -_stats(m).p50 if m.unit == "s" else _stats(m).p50


def _wrong(m: Measurement) -> Text:
    """Who got wrong data, and where in it."""
    known = {
        k: v for k, v in m.parameters.items() if k in ("first_bad_index", "bad_count", "operation", "bytes", "peer")
    }
    at = ", ".join(f"{k} {v}" for k, v in known.items())
    said = m.reason or Text("the data that arrived was wrong", "收到的数据有误")
    return Text("rank {r} on {n}: {s} ({a})", "{n} 上的 rank {r}：{s}（{a}）").fill(
        r=m.rank, n=m.node, s=said, a=at or m.metric
    )


def _joined(texts: Sequence[Text]) -> Text | None:
    return Text("; ".join(t.en for t in texts), "；".join(t.zh for t in texts)) if texts else None


# ----------------------------------------------------------------------------------------------------- nodes and ranks


def _node_verdicts(run: Run) -> list[Verdict]:
    """One verdict for each node that did not report as it should; one PASS when all did."""

    def lost(node: NodeRecord) -> Verdict:
        code: ReasonCode = "node_lost" if not node.present else "aborted"
        detail = node.note or (
            Text("its journal never came", "未收到其日志")
            if not node.present
            else Text("its journal ends early", "其日志提前结束")
        )
        return Verdict(
            NODES.id,
            NODES.kind,
            Subject("node", node.name),
            node.name,
            Status.UNKNOWN,
            "",
            NODES.criterion,
            detail,
            code,
            NODES.action,
        )

    bad = [lost(n) for n in run.nodes if not (n.present and n.complete)]
    count = len(run.nodes)
    if bad or not count:
        return bad
    return [Verdict(NODES.id, NODES.kind, ALL, "", Status.PASS, f"{count}/{count}", NODES.criterion)]


_ENDS: dict[str, Text] = {
    "died": Text("it ended without a word", "异常退出，未留下任何信息"),
    "stalled": Text("it stopped, or fell silent", "停止运行或失去响应"),
    "lost": Text("its node stopped answering", "其所在节点失去响应"),
    "overdue": Text("it was still waiting past its deadline", "超过时限仍在等待"),
    "failed": Text("it ended with an error of its own", "因自身错误而结束"),
}


def _rank_verdicts(run: Run) -> list[Verdict]:
    """Who died, stalled or was lost: FAIL. Who merely failed or was overdue: UNKNOWN, unless another explains it.

    When a node was lost, a death elsewhere decides nothing: a launcher that loses a node kills the other ranks without
    a word. Then it is UNKNOWN too, and blames no node.
    """
    node_lost = any(not n.present for n in run.nodes)
    blames = ("stalled", "lost") if node_lost else ("died", "stalled", "lost")
    worst: dict[int, RankEvent] = {}
    order = ("died", "stalled", "lost", "failed", "overdue")
    for event in run.events:
        if event.state not in order:
            continue
        known = worst.get(event.rank)
        if known is None or order.index(event.state) < order.index(known.state):
            worst[event.rank] = event
    culprits = [e for e in worst.values() if e.state in blames]
    shown = culprits or list(worst.values())
    verdicts = [_rank_verdict(e, fatal=e.state in blames) for e in sorted(shown, key=lambda e: e.rank)]
    if verdicts or not run.plan.probes:
        return verdicts
    finished = {e.rank for e in run.events if e.state == "finished"}
    if run.settings.get("interrupted"):
        reason = Text("the run was interrupted", "运行被中断")
        return [Verdict(RANKS.id, RANKS.kind, ALL, "", Status.UNKNOWN, "", RANKS.criterion, reason, "aborted")]
    if len(finished) < run.world_size:
        missing = sorted(set(range(run.world_size)) - finished)
        reason = Text("no end is known of rank {r}", "未获知 rank {r} 的结束状态").fill(
            r=", ".join(map(str, missing[:20]))
        )
        return [
            Verdict(
                RANKS.id,
                RANKS.kind,
                ALL,
                "",
                Status.UNKNOWN,
                f"{len(finished)}/{run.world_size}",
                RANKS.criterion,
                reason,
                "rank_lost",
            )
        ]
    return [Verdict(RANKS.id, RANKS.kind, ALL, "", Status.PASS, f"{len(finished)}/{run.world_size}", RANKS.criterion)]


def _rank_verdict(event: RankEvent, *, fatal: bool) -> Verdict:
    where = [event.item, *(f"{k}={v}" for k, v in event.progress.items())] if event.item else []
    if event.signal:
        where.insert(0, _signal_name(event.signal))
    codes: dict[str, ReasonCode] = {"failed": "error", "overdue": "timeout"}
    said = _ENDS[event.state]
    return Verdict(
        RANKS.id,
        RANKS.kind,
        Subject("rank", f"{event.node}/rank{event.rank}"),
        event.node,
        Status.FAIL if fatal else Status.UNKNOWN,
        " ".join([event.state, *where])[:OBSERVED_LIMIT],
        RANKS.criterion,
        said if event.detail is None else _joined([said, event.detail]),
        codes.get(event.state, "rank_lost"),
        RANKS.action if fatal else Action.NONE,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# ------------------------------------------------------------------------------------------------------ suppressions


def _day(run: Run) -> date:
    """The day on which the run began, where it ran: judged again later, it comes out the same."""
    try:
        return datetime.fromtimestamp(run.started + run.utc_offset, timezone.utc).date()
    except (OverflowError, ValueError, OSError):
        return date.max  # no day: then nothing is suppressed


def _suppressed(verdicts: Sequence[Verdict], suppressions: Sequence[Suppress]) -> list[Verdict]:
    """The verdicts, those marked that need somebody's attention and that a suppression covers: the first one counts.

    That a node or a rank was lost is never passed over.
    """

    def marked(v: Verdict) -> Verdict:
        if v.status not in (Status.FAIL, Status.WARN, Status.UNKNOWN) or v.check in (NODES.id, RANKS.id):
            return v
        why = next((s for s in suppressions if s.covers(v.check, v.node)), None)
        if why is None:
            return v
        return msgspec.structs.replace(v, suppressed=Suppression(why.owner, why.reason, why.until.isoformat()))

    return [marked(v) for v in verdicts]


def _expired(suppressions: Iterable[Suppress]) -> list[Text]:
    return [
        Text(
            "the suppression of {i} by {o} ended on {d}: it has no effect", "{o} 对 {i} 的豁免已于 {d} 到期，不再生效"
        ).fill(i=s.item, o=s.owner, d=s.until.isoformat())
        for s in suppressions
    ]


# -------------------------------------------------------------------------------------------------------------- gate


def _gate(
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
        because.append(Text("it was stopped by {s}", "被 {s} 中断").fill(s=_signal_name(interrupted)))
    because += _reasons(failed, infos, Text("{t}: failed on {n}{o}", "{t}：{n} 不通过{o}"))
    because += _reasons(unknown, infos, Text("{t}: not known of {n}{o}", "{t}：{n} 未知{o}"))
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
    named = {v.node for v in verdicts if v.status is Status.FAIL and v.node and v.subject.kind not in ("link", "group")}
    named |= {v.node for v in verdicts if v.status is Status.FAIL and v.node and v.reason_code == "wrong_data"}
    named |= {v.node for v in verdicts if v.check == NODES.id and v.node and v.reason_code == "node_lost"}
    if len(because) > REASONS_LIMIT:
        more = len(because) - REASONS_LIMIT
        because = [*because[:REASONS_LIMIT], Text("and {m} more", "另有 {m} 条").fill(m=more)]
    because += _suppression_reasons(passed_over, infos)
    return Gate(status, code, because, sorted(named, key=natural))


def _is_required(verdict: Verdict, infos: Mapping[str, CheckInfo], has_baseline: bool) -> bool:
    """Node items, probes that started; consistency items with a baseline; configurable items with a criterion.

    A node item whose tool is optional is not required where that tool is missing.
    """
    if verdict.kind is ItemKind.CONSISTENCY:
        return has_baseline
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
            n=fold(v.node or v.subject.id for v in group),
            s="/".join(dict.fromkeys(v.status.value for v in group)),
            d=why.until,
            o=why.owner,
            r=why.reason,
        )
        for (check, why), group in alike.items()
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
        named = fold(v.node if v.subject.kind == "node" else v.subject.id for v in group)
        observed = f" ({group[0].observed})" if len(group) == 1 and group[0].observed else ""
        found.append(form.fill(t=infos[id].title, n=named, o=observed))
    return found


# ------------------------------------------------------------------------------------------------------- environment

_SHARED = {
    "kernel": "same.kernel",
    "os": "same.os",
    "cpu": "same.cpu.model",
    "cpus": "same.cpu.topology",
    "memory": "same.memory",
}


def _environment(run: Run) -> tuple[dict[str, str], list[Text]]:
    """What all nodes share, and a note of what they do not."""
    shared = dict(run.environment)
    differing: list[str] = []
    for key, id in _SHARED.items():
        if id not in CHECKS or not run.facts:
            continue
        check = CHECKS[id]
        assert isinstance(check, ConsistencyCheck)
        held = [_held(check, FactView(facts)) for facts in run.facts]
        known = [h for h in held if h.value is not None]
        if not known:
            continue
        if all(_same(check, h.value, known[0].value) for h in known):
            shared[key] = known[0].shown(check)
        else:
            differing.append(key)
            shared.pop(key, None)
    if not differing:
        return shared, []
    words = ", ".join(differing)
    return shared, [Text("the nodes differ in: {w}", "各节点不一致的环境信息：{w}").fill(w=words)]


def _idle_criteria(run: Run, criteria: Criteria | None) -> list[Text]:
    """A note of the criteria that nothing in this run was held against. Raises UsageError for items that take none."""
    if criteria is None:
        return []
    measured = {spec.info.id for spec in run.plan.probes}
    idle = []
    for item in criteria.items:
        if item in CHECKS and not isinstance(CHECKS[item], ConfigurableCheck):
            raise UsageError(
                Text(
                    "{f}: {i} has a rule of its own and takes no criterion", "{f}：{i} 使用内置规则，不能设定判据"
                ).fill(f=criteria.name, i=item),
                nearest(item, [c.info.id for c in CHECKS.values() if isinstance(c, ConfigurableCheck)]),
            )
        if item not in run.plan.checks and item not in measured:
            idle.append(item)
    if not idle:
        return []
    return [
        Text("criteria that no item of this run was held against: {i}", "本次运行中未用到的判据：{i}").fill(
            i=", ".join(idle)
        )
    ]


def _privilege_note(verdicts: Sequence[Verdict]) -> list[Text]:
    """What privilege would have shown, said once."""
    denied = sorted({v.check for v in verdicts if v.reason_code == "permission"})
    if not denied:
        return []
    return [
        Text(
            "{n} items need more privilege; run as root to judge them: {l}",
            "{n} 项因权限不足未判定，可用 root 运行：{l}",
        ).fill(n=len(denied), l=", ".join(denied))
    ]
