"""The view: a Report put into words, once, for all formats. A template then only lays out what stands here.

Every string in it is neutral (``untrusted``), every number a string in a pretty unit, every text in both languages.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    NodeRecord,
    RankEvent,
    Report,
    Severity,
    Status,
    Subject,
    Suppression,
    Verdict,
)
from cwai_bench.render import chart, labels, measured, units
from cwai_bench.render.nodeset import fold, natural
from cwai_bench.render.table import Cell, Column, Figure, Row, Section, Table
from cwai_bench.render.untrusted import neutral_struct
from cwai_bench.text import Lang, Text, plain

_TO_BE_SEEN_TO = (Status.FAIL, Status.UNKNOWN, Status.WARN)
WORST_FIRST = (Status.FAIL, Status.UNKNOWN, Status.WARN, Status.PASS, Status.NA, Status.SKIP)
"""The order in which things are shown; the status of an item is the first of these that any of its verdicts has."""

EVIDENCE_SHOWN = 4
"""Pieces of evidence shown for one result: nodes that answered alike look alike; report.json has them all."""


PASSED_APART = 4
"""Results that passed are shown one by one up to this many."""
BRIEF_LIMIT = 60
"""Characters of a value that is compared across nodes up to which it is shown whole in a line."""
RESULTS_SHOWN = 200
"""Results shown of one item; report.json has them all."""


@dataclass(frozen=True)
class Fact:
    """``aside`` follows the value, on a line of its own where the line is short."""

    label: Text
    value: Text
    aside: Text | None = None

    def line(self, lang: Lang) -> str:
        return self.value.to(lang) + ("" if self.aside is None else " " + self.aside.to(lang))


@dataclass(frozen=True)
class Proof:
    """What was read, as it was read, and the folded set of subjects of which it was."""

    subjects: str
    source: str
    text: str
    truncated: bool


@dataclass(frozen=True)
class Result:
    """Subjects for which an item came out alike. ``where`` is the folded set of them, ``count`` how many."""

    status: Status
    where: Text
    count: int
    brief: Text
    observed: str
    expected: Text | None
    detail: Text | None
    reason: Text | None
    action: Text | None
    hint: Text | None
    suppressed: Text | None
    """Until when, by whom and why it does not count for the gate."""
    proofs: list[Proof]
    proofs_note: Text | None
    """Says how much evidence is not shown here."""


@dataclass(frozen=True)
class Group:
    """Nodes that have one value of a consistency item."""

    value: str
    nodes: str
    count: int
    is_baseline: bool


@dataclass(frozen=True)
class Item:
    """One item over all nodes. ``attention``: it failed, warns, or should be known and is not; ``suppressed``: and
    nothing of that counts for the gate."""

    id: str
    title: Text
    kind: ItemKind
    status: Status
    baseline: Text
    compared: bool
    required: bool
    weight: Text
    where: Text
    brief: Text
    method: Text
    criterion: Text
    suggestion: Text
    action: Text
    results: list[Result]
    results_note: Text | None
    """Says how many results are not shown here."""
    groups: list[Group]
    attention: bool
    suppressed: bool
    cause: Text | None
    """Why it is not known, where that is all there is to it and another item has failed for it."""


@dataclass(frozen=True)
class Tally:
    status: Status
    count: int


@dataclass(frozen=True)
class Piece:
    """A piece of the bar of all items: ``count`` items from ``start``."""

    status: Status
    start: int
    count: int


@dataclass(frozen=True)
class View:
    run_id: str
    title: Text
    subtitle: Text
    status: Status
    verdict: Text
    code_means: Text
    because: list[Text]
    leave_out: str
    facts: list[Fact]
    nodes_done: Text
    passed: int
    items_total: int
    items_applying: int
    """Those that are not skipped."""
    passed_note: Text
    """Items passed of all, and what the others are: ``38/52 (3 failed, 11 not judged)``."""
    tallies: list[Tally]
    """Items by status, worst first, without those that no item has."""
    bar: list[Piece]
    notices: list[Text]
    items: list[Item]
    sections: list[Section]


def view(report: Report) -> View:
    """Everything that a person may see of ``report``."""
    report = neutral_struct(report)
    items = _items(report)
    counts = {status: sum(item.status is status for item in items) for status in WORST_FIRST}
    tallies = [Tally(status, n) for status, n in counts.items() if n]
    duration = report.finished - report.started
    run_type = labels.RUN_TYPE.get(report.run_type, plain(report.run_type))
    nodes_done = _nodes_done(report.nodes)
    return View(
        run_id=report.run_id,
        title=run_type,
        subtitle=labels.WORLD.fill(
            nodes=labels.counted(len(report.nodes), *labels.NODE_COUNT),
            ranks=labels.counted(report.world_size, *labels.RANK_COUNT),
        ),
        status=report.gate.status,
        verdict=labels.GATE[report.gate.status],
        code_means=labels.CODE_MEANS.fill(
            code=report.gate.exit_code,
            meaning=labels.EXIT_MEANING.get(report.gate.exit_code, labels.GATE[report.gate.status]),
        ),
        because=report.gate.because,
        leave_out=fold(sorted(report.gate.leave_out, key=natural)),
        facts=[
            Fact(labels.REPORT_ID, plain(report.run_id)),
            Fact(labels.CHECK_TYPE, run_type),
            _moment(labels.START, report.started, report.utc_offset),
            _moment(labels.END, report.finished, report.utc_offset),
            Fact(labels.DURATION, plain(units.hms(duration))),
            Fact(labels.RUN_STATUS_LABEL, labels.RUN_STATUS[report.status]),
            Fact(labels.NODES_DONE, nodes_done),
            Fact(labels.RANKS, plain(str(report.world_size))),
            Fact(labels.BASELINE, labels.NOT_SET if report.baseline is None else plain(report.baseline)),
            Fact(labels.TOOL, plain(f"cwai-bench {report.version}")),
            Fact(labels.COMMAND, plain(shlex.join(report.command))),
        ],
        nodes_done=nodes_done,
        passed=counts[Status.PASS],
        items_total=len(items),
        items_applying=len(items) - sum(t.count for t in tallies if t.status is Status.SKIP),
        passed_note=_passed_note(tallies, len(items)),
        tallies=tallies,
        bar=_bar(tallies),
        notices=_notices(report),
        items=items,
        sections=[
            *measured.sections(report),
            *_events(report),
            *_plan(report),
            *_pairs_of("environment", labels.ENVIRONMENT, report.environment),
            *_pairs_of("settings", labels.SETTINGS, {k: measured.shown(k, v) for k, v in report.settings.items()}),
        ],
    )


def _passed_note(tallies: list[Tally], total: int) -> Text:
    """How many passed of those that apply here, and what the others are."""
    counts = {t.status: t.count for t in tallies if t.count}
    skipped = counts.pop(Status.SKIP, 0)
    counts.pop(Status.PASS, None)
    passed, applying = total - skipped - sum(counts.values()), total - skipped
    note = plain(f"{passed}/{applying}")
    if counts:
        others = [labels.SOME.fill(n=n, status=labels.STATUS[status]) for status, n in counts.items()]
        words = Text(", ".join(o.en for o in others), "，".join(o.zh for o in others))
        note = labels.PASSED_AND.fill(n=passed, m=applying, others=words)
    if skipped:
        left = labels.SOME.fill(n=skipped, status=labels.STATUS[Status.SKIP])
        note = Text(f"{note.en}; {left.en}", f"{note.zh}；{left.zh}")
    return note


def _moment(label: Text, epoch: float, utc_offset: int) -> Fact:
    return Fact(label, plain(units.utc(epoch)), plain(f"({units.local(epoch, utc_offset)})"))


def _nodes_done(nodes: list[NodeRecord]) -> Text:
    """``7/8 (not whole: node8)``."""
    missing = [n.name for n in nodes if not (n.present and n.complete)]
    done = f"{len(nodes) - len(missing)}/{len(nodes)}"
    if not missing:
        return plain(done)
    return labels.DONE_BUT.fill(done=done, nodes=fold(sorted(missing, key=natural)))


def _notices(report: Report) -> list[Text]:
    # A network check that measured TCP instead of RDMA says so at the top.
    instead = [x.reason for x in report.plan.left_out if x.what == "verbs"] if report.run_type == "rdma" else []
    if report.status == "complete":
        return [*instead, *report.notes]
    return [labels.RUN_IS.fill(status=labels.RUN_STATUS[report.status]), *instead, *report.notes]


def _bar(tallies: list[Tally]) -> list[Piece]:
    pieces, start = [], 0
    for tally in sorted(tallies, key=lambda t: _ALONG_BAR.index(t.status)):
        pieces.append(Piece(tally.status, start, tally.count))
        start += tally.count
    return pieces


_ALONG_BAR = (Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.NA, Status.SKIP)


# ---------------------------------------------------------------------------------------------- items


def _items(report: Report) -> list[Item]:
    by_check: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in report.verdicts:
        by_check[verdict.check].append(verdict)
    known = {info.id: info for info in report.checks}
    for check, verdicts in by_check.items():  # a verdict is shown even when the report does not say what it is of
        known.setdefault(check, _undescribed(check, verdicts[0].kind))
    everybody = Everybody(frozenset(node.name for node in report.nodes), report.world_size)
    items = [_item(info, by_check.get(id, []), report.baseline, everybody) for id, info in known.items()]
    grave = {info.id: list(Severity).index(info.severity) for info in known.values()}
    return sorted(
        items,
        key=lambda item: (
            WORST_FIRST.index(item.status),
            not item.required,
            grave[item.id] if item.attention else 0,  # what passed stays in the order of the catalogue
        ),
    )


def _undescribed(check: str, kind: ItemKind) -> CheckInfo:
    none = labels.DASH
    return CheckInfo(
        check, kind, "", plain(check), none, none, none, Severity.MINOR, Action.NONE, needs=[], required=False
    )


def _item(info: CheckInfo, verdicts: list[Verdict], baseline: str | None, everybody: Everybody) -> Item:
    alike: dict[bytes, list[Verdict]] = defaultdict(list)
    for v in verdicts:
        same = (v.status, v.observed, v.expected, v.detail, v.reason_code, v.action, v.hint, v.suppressed)
        alike[msgspec.json.encode(same)].append(v)
    results = [_result(info, vs, everybody) for vs in _fewer(list(alike.values()))]
    results.sort(key=lambda r: (WORST_FIRST.index(r.status), -r.count))
    # With no verdict at all nothing is known of it, whatever the reason: it must not read as passed.
    status = results[0].status if results else Status.UNKNOWN
    worst = [v for v in verdicts if v.status is status]
    attention = any(v.status in _TO_BE_SEEN_TO and not v.follows_from_loss for v in verdicts) or not verdicts
    required = _required(info, verdicts, baseline)
    more = max(0, len(results) - RESULTS_SHOWN)
    return Item(
        id=info.id,
        title=info.title,
        kind=info.kind,
        status=status,
        baseline=_baseline(info.kind, baseline),
        compared=info.kind is ItemKind.CONSISTENCY,
        required=required,
        weight=labels.WEIGHT.fill(
            severity=labels.SEVERITY[info.severity], required=labels.REQUIRED if required else labels.OPTIONAL
        ),
        where=where([s for v in worst for s in v.subjects], everybody),
        brief=results[0].brief if results else labels.NO_VERDICT,
        method=info.method,
        criterion=info.criterion,
        suggestion=info.suggestion,
        action=_action(worst) if attention else labels.ACTION[Action.NONE],
        results=results[:RESULTS_SHOWN],
        results_note=labels.MORE_RESULTS.fill(n=more) if more else None,
        groups=_groups(verdicts),
        attention=attention,
        suppressed=attention and all(v.suppressed is not None for v in verdicts if v.status in _TO_BE_SEEN_TO),
        cause=_cause([v for v in verdicts if v.status in _TO_BE_SEEN_TO]),
    )


def _fewer(alike: list[list[Verdict]]) -> list[list[Verdict]]:
    """Where nodes or ranks passed with a different value each (an uptime, a time measured) they are one result."""
    passed = [vs for vs in alike if vs[0].status is Status.PASS]
    if len(passed) <= PASSED_APART:
        return alike
    return [[v for vs in passed for v in vs], *(vs for vs in alike if vs[0].status is not Status.PASS)]


def _required(info: CheckInfo, verdicts: list[Verdict], baseline: str | None) -> bool:
    """As the gate has it: an item across nodes counts with a baseline, a configurable one with a criterion."""
    if info.kind is ItemKind.CONSISTENCY:
        return baseline is not None
    if info.kind is ItemKind.CONFIGURABLE:
        return any(v.reason_code != "no_criterion" for v in verdicts)
    return info.required


def _cause(verdicts: list[Verdict]) -> Text | None:
    causes = {v.detail for v in verdicts}
    if len(causes) != 1 or any(v.reason_code != "cause" or v.suppressed is not None for v in verdicts):
        return None
    return causes.pop()


def _action(verdicts: list[Verdict]) -> Text:
    """The most drastic action that a verdict asks for: Action lists them in that order."""
    asked = [action for action in Action if action is not Action.NONE and any(v.action is action for v in verdicts)]
    return labels.ACTION[asked[-1]] if asked else labels.DASH


def _baseline(kind: ItemKind, baseline: str | None) -> Text:
    if kind is not ItemKind.CONSISTENCY:
        return labels.DASH
    return labels.NO if baseline is None else labels.YES_NAMED.fill(name=baseline)


def _result(info: CheckInfo, verdicts: list[Verdict], everybody: Everybody) -> Result:
    v = verdicts[0]
    subjects = [s for w in verdicts for s in w.subjects]
    proofs = _proofs(verdicts)
    more = max(0, len(proofs) - EVIDENCE_SHOWN)
    return Result(
        status=v.status,
        where=where(subjects, everybody),
        count=len(subjects),
        brief=_brief(info, v),
        observed=_span_of({w.observed for w in verdicts}),
        expected=expected_of(info, v),
        detail=v.detail,
        reason=labels.REASON.get(v.reason_code),
        action=labels.ACTION[v.action] if v.action is not Action.NONE else None,
        hint=v.hint,
        suppressed=_why_suppressed(v.suppressed),
        proofs=proofs[:EVIDENCE_SHOWN],
        proofs_note=labels.MORE_EVIDENCE.fill(n=more) if more else None,
    )


def _why_suppressed(why: Suppression | None) -> Text | None:
    if why is None:
        return None
    return labels.SUPPRESSED_WHY.fill(until=why.until, owner=why.owner, reason=why.reason)


def _span_of(observed: set[str]) -> str:
    """The one value, or the first and the last of several."""
    ordered = sorted(observed, key=natural)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} … {ordered[-1]}"


def _proofs(verdicts: list[Verdict]) -> list[Proof]:
    """Nodes of which the very same was read share one piece."""
    alike: dict[tuple[str, str, bool], list[Subject]] = defaultdict(list)
    for v in verdicts:
        for e in v.evidence:
            of = [Subject("node", n) for n in e.nodes] if e.nodes else v.subjects
            alike[e.source, e.text, e.truncated] += of
    return [Proof(folded(subjects), *piece) for piece, subjects in alike.items()]


def expected_of(info: CheckInfo | None, v: Verdict) -> Text | None:
    """What it should have been, of what was judged."""
    judged = v.status in (Status.FAIL, Status.WARN, Status.PASS)
    return v.expected or (info.criterion if info is not None and judged else None)


def _brief(info: CheckInfo, v: Verdict) -> Text:
    """What was found, in a line: the value and what it should have been; of what is not known, why."""
    reason = v.detail or labels.REASON.get(v.reason_code, plain(""))
    if v.status in (Status.UNKNOWN, Status.SKIP):
        return reason
    if v.status in (Status.FAIL, Status.WARN):
        if v.kind is ItemKind.CONSISTENCY and v.detail is not None and len(v.observed) > BRIEF_LIMIT:
            return v.detail  # where two long lists differ
        if v.observed:
            return labels.NOT_BUT.fill(observed=v.observed, expected=expected_of(info, v))
        return v.detail or plain(v.observed)
    return plain(v.observed) if v.observed else reason


@dataclass(frozen=True)
class Everybody:
    """Of whom a run is: when all of them are meant, that is said instead of a long list."""

    nodes: frozenset[str]
    ranks: int


def where(subjects: list[Subject], everybody: Everybody) -> Text:
    """The subjects as a folded set, or "all n nodes", "all n ranks"."""
    ids = {s.id for s in subjects}
    kinds = {s.kind for s in subjects}
    if kinds == {"group"} and ids == {"all"}:
        subjects, ids, kinds = [Subject("node", n) for n in everybody.nodes], set(everybody.nodes), {"node"}
    if kinds == {"node"} and ids == everybody.nodes and len(ids) > 2:
        return labels.ALL_NODES.fill(n=len(ids))
    if kinds == {"rank"} and len(ids) == everybody.ranks > 2:
        return labels.ALL_RANKS.fill(n=len(ids))
    return plain(folded(subjects))


def folded(subjects: Iterable[Subject]) -> str:
    """The folded set of subjects: ``node[1-8]``, ``node[1-8]/eth0``, ``node1/rank[0-3]``, ``node1→node2``."""
    by_part: dict[str, set[str]] = defaultdict(set)
    ranks: dict[str, set[str]] = defaultdict(set)
    links: set[str] = set()
    for subject in subjects:
        node, slash, part = subject.id.partition("/")
        if subject.kind == "link":
            links.add(subject.id)
        elif subject.kind == "rank" and part:
            ranks[node].add(part)
        else:
            by_part[slash + part].add(node)
    sets = [fold(sorted(nodes, key=natural)) + part for part, nodes in by_part.items()]
    sets += [f"{node}/{fold(sorted(parts, key=natural))}" for node, parts in ranks.items()]
    return ",".join(sets + sorted(links, key=natural))


def _groups(verdicts: list[Verdict]) -> list[Group]:
    """Value groups of an item, the largest first; every verdict of an item carries the same ones."""
    found = next((v.groups for v in verdicts if v.groups), [])
    groups = [Group(g.value, fold(sorted(g.nodes, key=natural)), len(g.nodes), g.is_baseline) for g in found]
    return sorted(groups, key=lambda g: (not g.is_baseline, -g.count))


# ---------------------------------------------------------------------------- ranks, plan, environment

_FATAL = ("died", "stalled", "lost", "failed")
LANES_SHOWN = 40
"""Ranks up to which their timeline is drawn; beyond, the table says it."""
_TELLING = ("died", "stalled", "lost", "failed", "overdue", "signalled")


def _events(report: Report) -> list[Section]:
    """What happened to ranks, other than that they did their work."""
    telling = sorted((e for e in report.events if e.state in _TELLING), key=lambda e: e.time)
    if not telling:
        return []
    rows = [
        Row(
            [
                Cell(units.clock(e.time)),
                Cell(units.number(e.time - report.started)),
                Cell(str(e.rank)),
                Cell(e.node),
                Cell(_what_happened(e)),
                Cell(e.item),
                Cell(measured.parameters(e.progress)),
                Cell(e.detail or plain("")),
            ],
            bad=e.state in _FATAL,
        )
        for e in telling
    ]
    columns = [
        Column(labels.TIME_UTC),
        Column(labels.SINCE_START, numeric=True),
        Column(labels.RANK, numeric=True),
        Column(labels.NODE, words=True),
        Column(labels.WHAT),
        Column(labels.ITEM),
        Column(labels.PROGRESS, words=True),
        Column(labels.DETAIL_SHORT, words=True),
    ]
    return [Section("ranks", labels.RANK_EVENTS, [Table(None, columns, rows)], _timeline(report, telling))]


def _what_happened(event: RankEvent) -> Text:
    state = labels.RANK_STATE[event.state]
    return labels.ENDED_BY.fill(state=state, n=event.signal) if event.signal else state


def _timeline(report: Report, telling: list[RankEvent]) -> list[Figure]:
    lanes: dict[str, list[chart.Event]] = defaultdict(list)
    for e in telling:
        lane = f"{e.node} rank {e.rank}"
        lanes[lane].append(chart.Event(e.time - report.started, labels.RANK_STATE[e.state], bad=e.state in _FATAL))
    if len(lanes) > LANES_SHOWN:
        return []
    svg = chart.timeline(list(lanes.items()), report.finished - report.started, labels.SINCE_START, units.short)
    return [Figure(labels.TIMELINE, svg, wide=True)]


def _plan(report: Report) -> list[Section]:
    plan = report.plan
    tables = []
    if plan.left_out:
        rows = [
            Row([Cell(x.what), Cell(labels.REASON.get(x.reason_code, labels.DASH)), Cell(x.reason)])
            for x in plan.left_out
        ]
        columns = [Column(labels.ITEM), Column(labels.REASON_LABEL), Column(labels.DETAIL_SHORT, words=True)]
        tables.append(Table(labels.LEFT_OUT, columns, rows))
    if plan.scripts:
        rows = [
            Row(
                [
                    Cell(script.info.id),
                    Cell(script.info.title),
                    Cell(script.nodes or "*"),
                    Cell(units.span(script.expected) if script.expected else labels.DASH),
                    Cell(units.span(script.limit)),
                    Cell(script.digest),
                ]
            )
            for script in plan.scripts
        ]
        columns = [
            Column(labels.ITEM),
            Column(labels.NAME),
            Column(labels.WHERE),
            Column(labels.EXPECTED_TIME, numeric=True),
            Column(labels.DEADLINE, numeric=True),
            Column(labels.DIGEST, words=True),
        ]
        tables.append(Table(labels.SCRIPTS, columns, rows))
    if plan.probes:
        rows = [
            Row(
                [
                    Cell(spec.id),
                    Cell(spec.info.title),
                    Cell(units.span(spec.expected)),
                    Cell(units.span(spec.deadline)),
                    Cell(measured.parameters(spec.parameters)),
                ]
            )
            for spec in plan.probes
        ]
        columns = [
            Column(labels.ITEM),
            Column(labels.NAME),
            Column(labels.EXPECTED_TIME, numeric=True),
            Column(labels.DEADLINE, numeric=True),
            Column(labels.PARAMETERS, words=True),
        ]
        tables.append(Table(labels.PROBES, columns, rows, folded=len(rows) > measured.ROWS_OPEN))
    checks = labels.counted(len(plan.checks), *labels.CHECK_COUNT)
    if plan.scripts:
        scripts = labels.counted(len(plan.scripts), *labels.SCRIPT_COUNT)
        checks = Text(f"{checks.en}, {scripts.en}", f"{checks.zh}、{scripts.zh}")
    note = labels.PLAN_NOTE.fill(
        checks=checks,
        probes=labels.counted(len(plan.probes), *labels.PROBE_COUNT),
        time=units.span(plan.expected),
        left=len(plan.left_out),
    )
    if plan.budget is not None:
        note = labels.PLAN_BUDGET.fill(note=note, budget=units.span(plan.budget))
    return [Section("plan", labels.PLAN, tables, note=note)]


def _pairs_of(id: str, title: Text, values: dict[str, str]) -> list[Section]:
    if not values:
        return []
    rows = [Row([Cell(name), Cell(value)]) for name, value in sorted(values.items())]
    return [Section(id, title, [Table(None, [Column(labels.NAME), Column(labels.VALUE, words=True)], rows)])]
