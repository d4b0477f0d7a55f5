"""Several paths at once: did every byte come, did a path fail, which part is at fault, is their sum used.

Data that is wrong and a path that failed by itself are failures. So is a path that alone carries less than half of what
its peers do; from ``path_fault.SLOW`` down it is a warning. That together they carry less than alone is a warning too,
and never more: paths may share a CPU, a PCIe link or an uplink by the way the nodes are built.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from cwai_bench.config import Criterion
from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, joined
from cwai_bench.model import (
    Action,
    Measurement,
    PathChange,
    PathFault,
    PathFinding,
    ProbeSpec,
    ReasonCode,
    Run,
    Status,
    Subject,
    SubjectKind,
    Transfer,
    Verdict,
)
from cwai_bench.path_bound import DUE, OURS, PATH, Figures, figures_of
from cwai_bench.render import labels
from cwai_bench.render.units import gigabits, number
from cwai_bench.text import Text

SLOW, DEAD_SLOW = 0.85, 0.5
"""Of what the other paths of the lane carry at most times: three standard deviations of 5 % noise
(``path_fault.SLOW``), and what no noise explains (a link that came up at a lower speed has half of it or less)."""
SAID = 4
"""Changes of a path that a verdict tells."""


def multipath_verdicts(run: Run, spec: ProbeSpec, criterion: Criterion | None = None) -> list[Verdict]:
    """One verdict for each pair of nodes (or node), and one for each path or part that is not well. None where nothing
    was told, which is for the caller to say."""
    own = [m for m in run.measurements if m.spec == spec.id]
    transfers = [t for t in run.transfers if t.spec == spec.id]
    faults = [f for f in run.path_faults if f.spec == spec.id]
    verdicts: list[Verdict] = []
    for found in figures_of(own):
        paths = _on_paths(spec, found, transfers, faults)
        verdicts += [_on_lane(spec, found, transfers, faults, paths, criterion), *paths]
    verdicts += list(_on_parts(spec, faults, verdicts))
    # What a rank said of itself: it could not even begin.
    broken = [m for m in own if m.metric == spec.probe]
    return verdicts + [
        _verdict(spec, m.subject, [m.node], Status.UNKNOWN, "", None, m.reason, m.reason_code) for m in broken
    ]


def _verdict(
    spec: ProbeSpec,
    subject: Subject,
    nodes: Sequence[str],
    status: Status,
    observed: str,
    expected: Text | None,
    detail: Text | None,
    code: ReasonCode = "",
    action: Action | None = None,
) -> Verdict:
    if action is None:
        action = spec.info.action if status is Status.FAIL else Action.NONE
    return Verdict(
        spec.info.id,
        spec.info.kind,
        subject,
        list(nodes),
        status,
        observed[:OBSERVED_LIMIT],
        expected,
        detail,
        code,
        action,
    )


def _joined(parts: Iterable[Text | None]) -> Text | None:
    return joined([part for part in parts if part is not None])


# ----------------------------------------------------------------------------------------------- lanes


def _on_lane(
    spec: ProbeSpec,
    found: Figures,
    transfers: Sequence[Transfer],
    faults: Sequence[PathFault],
    paths: Sequence[Verdict],
    criterion: Criterion | None,
) -> Verdict:
    subject = Subject("node" if found.within_node else "link", found.lane)
    nodes = [found.lane] if found.within_node else []

    def verdict(
        status: Status, detail: Text | None, code: ReasonCode = "", observed: str = "", expected: Text | None = None
    ) -> Verdict:
        return _verdict(spec, subject, nodes, status, observed or _observed(found), expected, detail, code)

    wrong = [m for m in found.measurements if m.correct is False]
    if wrong:
        return verdict(Status.FAIL, _joined(_wrong(m) for m in wrong[:8]), "wrong_data")
    tried = [m for m in found.measurements if m.metric != PATH]
    broken = [m for m in tried if m.status in ("error", "timeout", "aborted")]
    ours = [m for m in broken if m.parameters.get("policy") == OURS]
    if broken and any(m.status == "ok" for m in tried):
        # The paths carried one transfer and not the next: that is what nobody may lose a job by.
        status = Status.FAIL if ours and not all(m.status == "aborted" for m in ours) else Status.WARN
        return verdict(status, _joined(_broken(m) for m in broken[:4]), broken[0].reason_code)
    if OURS not in found.goodput:
        skipped = [m for m in tried if m.status == "skip"]
        if skipped and not broken:
            return verdict(Status.SKIP, skipped[0].reason, skipped[0].reason_code)
        said = broken or [m for m in found.measurements if m.status != "ok"]
        why = _joined(_broken(m) for m in said[:4]) or _NOTHING
        return verdict(Status.UNKNOWN, why, said[0].reason_code if said else "error")
    if criterion is not None:
        held = [m for m in tried if m.parameters.get("policy") == OURS and criterion.selects(m.parameters)]
        if not held or not criterion.fits("bit/s"):
            return verdict(Status.UNKNOWN, _NOT_ABOUT, "not_comparable", expected=criterion.words())
        met = criterion.holds(found.goodput[OURS] * 8)
        return verdict(
            Status.PASS if met else Status.FAIL, _survived(found, transfers, faults), "", "", criterion.words()
        )
    status, detail, expected = _against_bound(found, told=bool(paths))
    return verdict(status, _joined([detail, _survived(found, transfers, faults)]), expected=expected)


def _against_bound(found: Figures, *, told: bool) -> tuple[Status, Text | None, Text | None]:
    """Status, why, and what was demanded. ``told``: a verdict on a path says why already."""
    share, due = found.share(), DUE[found.scenario]
    if share is None:
        return Status.PASS, _WITHIN if found.within_node else None, None
    demand = Text("at least {d:.0%} of {b} Gb/s, {w}", "不低于 {b} Gb/s（{w}）的 {d:.0%}").fill(
        d=due, b=gigabits(found.bound), w=_BOUNDS[found.scenario != "as_is"]
    )
    if share >= due:
        return Status.PASS, None, demand
    return Status.WARN, None if told or found.scenario != "as_is" else _SHARED, demand


_BOUNDS = (
    Text("the sum of the paths alone", "各路径单独吞吐之和"),
    Text("what the planted fault leaves", "计入所设故障后的上限"),
)
_SHARED = Text(
    "alone the paths are well: together they share something (CPU, PCIe, an uplink)",
    "各路径单独正常，同时使用时则共享某处（CPU、PCIe 或上行链路）",
)
_WITHIN = Text(
    "within one machine the paths share its processor, so nothing is expected of their sum",
    "同一台机器内的路径共享处理器，因此对总吞吐不作要求",
)
_NOTHING = Text("no transfer over all paths came to its end", "没有任何一次全路径传输完成")
_NOT_ABOUT = Text("no measurement is what the criterion is about", "没有与判据相符的测量")


def _observed(found: Figures) -> str:
    """Ours first, then the other policies, the best of them first."""
    order = sorted(found.goodput, key=lambda policy: (policy != OURS, -found.goodput[policy]))
    shown = []
    for policy in order:
        share = found.share(policy)
        more = f" ({share:.1%})" if share is not None and policy == OURS else ""
        shown.append(f"{policy} {gigabits(found.goodput[policy])}{more}")
    return ", ".join(shown) + " Gb/s" if shown else ""


def _broken(m: Measurement) -> Text:
    named = m.parameters.get("policy")
    where = m.subject.id if m.metric == PATH else f"{m.subject.id} ({named})"
    return Text("{w}: {r}", "{w}：{r}").fill(w=where, r=m.reason or labels.MEASURE_STATUS[m.status])


def _wrong(m: Measurement) -> Text:
    return Text(
        "{s} ({p}): {n} bytes are not what was sent, the first at {a}",
        "{s}（{p}）：{n} 字节与发送内容不符，首个位于 {a}",
    ).fill(
        s=m.subject.id,
        p=m.parameters.get("policy"),
        n=m.parameters.get("bad_count", "?"),
        a=m.parameters.get("first_bad_index", "?"),
    )


def _survived(found: Figures, transfers: Sequence[Transfer], faults: Sequence[PathFault]) -> Text | None:
    """Of a rehearsal: what became of the path, how long it took, and what the probes made of it."""
    traced = [t for t in transfers if lane_of(t) == found.lane and t.policy == OURS and t.planted]
    if not traced:
        return None
    first = traced[0]
    hit = first.planted[0]
    name = path_of(first, hit.path)
    parts = [
        Text("{k} on {p} {a} s after the first byte", "首字节后 {a} 秒在 {p} 上设置：{k}").fill(
            k=labels.SCENARIO[found.scenario], p=name, a=number(hit.begin, 3)
        )
    ]
    changes = [c for c in first.changes if c.path == hit.path and c.at >= hit.begin]
    parts += [_told(first, change) for change in changes[:SAID]]
    if first.recovered > hit.begin:
        parts.append(
            Text(
                "all that it had held was there by another way {t} ms after that",
                "其所持数据在 {t} 毫秒后全部经其他路径到达",
            ).fill(t=number((first.recovered - hit.begin) * 1e3, 3))
        )
    parts += [in_words(f) for f in faults if f.rehearsed and name in f.paths]
    return joined(parts)


# ----------------------------------------------------------------------------------------------- paths


def lane_of(transfer: Transfer) -> str:
    return transfer.source if transfer.source == transfer.target else f"{transfer.source}→{transfer.target}"


def path_of(transfer: Transfer, path: int) -> str:
    """Name of a path of the engine: that of its NICs."""
    one = transfer.paths[path]
    return one.source if one.source == one.target else f"{one.source}→{one.target}"


def _on_paths(
    spec: ProbeSpec, found: Figures, transfers: Sequence[Transfer], faults: Sequence[PathFault]
) -> list[Verdict]:
    """On each path that carried nothing alone, that is slow beside its peers, or that failed by itself."""
    failed = _failed(found, transfers)
    verdicts = []
    for name, rate in found.alone.items():
        others = [other for path, other in found.alone.items() if path != name and other > 0]
        looked = [in_words(f) for f in faults if not f.rehearsed and name in f.paths]
        subject = Subject("nic" if found.within_node else "link", name)
        usual = median(others) if others else 0.0
        observed = f"{gigabits(rate)} Gb/s" if rate > 0 else ""
        expected = _PEERS.fill(s=f"{SLOW:.0%}", u=gigabits(usual)) if others else None
        if rate <= 0:
            if others:  # with no other path nobody knows whether it is the path
                bad = [m for m in found.measurements if m.metric == PATH and m.subject.id == name and m.status != "ok"]
                verdicts.append(
                    _verdict(
                        spec,
                        subject,
                        [],
                        Status.FAIL,
                        "",
                        expected,
                        _joined([_ALONE_NOTHING, *(m.reason for m in bad[:1]), *looked]),
                    )
                )
        elif name in failed:
            detail = joined([*failed[name], *looked])
            verdicts.append(_verdict(spec, subject, [], Status.FAIL, "", None, detail))
        elif others and not found.within_node and rate < SLOW * usual * _scale(found, name):
            share = rate / (usual * _scale(found, name))
            words = Text("alone it carries {s:.0%} of what the others do", "单独吞吐仅为其他路径的 {s:.0%}").fill(
                s=share
            )
            # Of two that differ the slower one is as likely what both should be.
            status = Status.FAIL if share < DEAD_SLOW and len(others) > 1 else Status.WARN
            verdicts.append(_verdict(spec, subject, [], status, observed, expected, _joined([words, *looked])))
    return verdicts


_PEERS = Text("at least {s} of the median of the other paths, {u} Gb/s", "不低于其他路径中位数 {u} Gb/s 的 {s}")
_ALONE_NOTHING = Text("alone it carried nothing", "单独使用时无法传输")


def _scale(found: Figures, name: str) -> float:
    """By how much its ports are slower than those of the others, where all say how fast they are."""
    speeds: dict[str, float] = {}
    for m in found.measurements:
        if m.metric == PATH and isinstance(speed := m.parameters.get("port_speed"), int | float):
            speeds[m.subject.id] = float(speed)
    others = [speeds[path] for path in found.alone if path != name and path in speeds]
    if name not in speeds or len(others) < len(found.alone) - 1:
        return 1.0
    return min(1.0, speeds[name] / median(others))


def _failed(found: Figures, transfers: Sequence[Transfer]) -> dict[str, list[Text]]:
    """Paths that failed though nothing was planted on them, and how."""
    told_of: dict[str, list[Text]] = {}
    for transfer in transfers:
        if lane_of(transfer) != found.lane or transfer.scenario != found.scenario:
            continue
        planted = {one.path for one in transfer.planted}
        for k, path in enumerate(transfer.paths):
            changes = [c for c in transfer.changes if c.path == k]
            if k in planted or (path.connected and not any(c.state == "failed" for c in changes)):
                continue
            name = path_of(transfer, k)
            if name not in told_of:
                never = [] if path.connected else [_NEVER]
                told_of[name] = [*never, *(_told(transfer, change) for change in changes[:SAID])]
    return told_of


_NEVER = Text("it was not connected at the beginning", "开始时未能连接")


def _told(transfer: Transfer, change: PathChange) -> Text:
    """A change of a path in words: ``after 0.61 s: suspect (nothing was delivered for too long)``."""
    why = labels.PATH_CAUSE.get(change.cause, Text(change.cause, change.cause))
    if change.code:
        why = Text("{w}: {e}", "{w}：{e}").fill(w=why, e=os.strerror(change.code))
    state = labels.PATH_STATE[change.state]
    if transfer.paths[change.path].connections > 1:
        state = labels.OF_CONNECTION.fill(n=change.connection + 1, what=state)
    return Text("after {t} s: {s} ({w})", "{t} 秒：{s}（{w}）").fill(t=number(change.at, 3), s=state, w=why)


# ----------------------------------------------------------------------------------------------- parts


def in_words(fault: PathFault) -> Text:
    """What the probes say of it."""
    finding = fault.finding
    made = Text("{n} TCP probes", "{n} 次 TCP 探测").fill(n=fault.probes)
    if finding is None:
        said = Text("{m}: all fine", "{m}：均正常") if fault.probes else Text("nobody could probe it", "无法探测")
        return said.fill(m=made)
    said = Text("{m}: {f}", "{m}：{f}").fill(m=made, f=finding_in_words(finding))
    return Text("{s} (rehearsed)", "{s}（演练）").fill(s=said) if fault.rehearsed else said


def finding_in_words(finding: PathFinding) -> Text:
    named = " ↔ ".join(finding.ends) if finding.kind == "path" else ", ".join(finding.ends)
    if finding.kind == "ambiguous":
        parts = [
            Text("{k} {e}", "{k} {e}").fill(k=labels.PATH_PART[c.kind], e=" ↔ ".join(c.ends))
            for c in finding.candidates
        ]
        either = Text(" or ".join(p.en for p in parts), " 或 ".join(p.zh for p in parts))
        return Text("ambiguous: {e}", "无法判定：{e}").fill(e=either)
    return Text(
        "{k} {e}, confidence {c:.0%}, {b} of {t} probes of it bad",
        "{k} {e}，置信度 {c:.0%}，相关探测 {t} 次中 {b} 次异常",
    ).fill(k=labels.PATH_PART[finding.kind], e=named, c=finding.confidence, b=finding.bad, t=finding.tried)


_PARTS: dict[str, SubjectKind] = {"nic": "nic", "node": "node", "path": "link"}


def _on_parts(spec: ProbeSpec, faults: Sequence[PathFault], known: Sequence[Verdict]) -> Iterator[Verdict]:
    """On each NIC, node or path that the probes name, and that has no verdict as a path already."""
    have = {v.subject for v in known}
    for fault in faults:
        finding = fault.finding
        if fault.rehearsed or finding is None or finding.kind in ("ambiguous", "flake"):
            continue
        if finding.kind == "path" and set(fault.paths) & {v.subject.id for v in known}:
            continue
        kind = _PARTS.get(finding.kind)
        if kind is None:
            subject, nodes = ALL, []
        elif finding.kind == "node":
            subject, nodes = Subject(kind, finding.nodes[0]), list(finding.nodes)
        else:
            subject, nodes = Subject(kind, "→".join(finding.ends)), list(finding.nodes) if kind == "nic" else []
        if subject in have:
            continue
        have.add(subject)
        yield _verdict(spec, subject, nodes, Status.FAIL, "", None, finding_in_words(finding), "", finding.drain.action)
