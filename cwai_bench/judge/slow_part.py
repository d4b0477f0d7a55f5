"""Which part makes a collective slow: a verdict on each node, card or link that the search has named."""

from __future__ import annotations

from cwai_bench.judge.found import ALL
from cwai_bench.model import Action, Measurement, ProbeSpec, Run, Status, Subject, SubjectKind, Verdict
from cwai_bench.render.units import gigabytes
from cwai_bench.text import Text

SLOW_PART = ".slow_part"
"""What the id of the probe, and the metric of what it has named, end with."""
FAIL_BELOW = 0.85
"""Of what the others reach. The search itself names nothing that noise of 5 % may explain."""
_KINDS: dict[str, SubjectKind] = {"node": "node", "card": "card", "link": "link"}


def slow_part_verdicts(run: Run, spec: ProbeSpec) -> list[Verdict]:
    """None where the search did not come to a result, which is for the caller to say."""
    said = [m for m in run.measurements if m.spec == spec.id and m.metric.endswith(SLOW_PART)]
    # Every rank has come to the same, and the first of them says it.
    left = [m for m in said if m.status != "ok"]
    named = [m for m in said if m.status == "ok" and m.parameters.get("kind")]
    if left and not named:
        first = left[0]
        status = Status.SKIP if first.status == "skip" else Status.UNKNOWN
        return [_verdict(spec, ALL, [], status, "", first.reason, first)]
    if not said:
        return []
    return [_on(spec, m) for m in named] or [_verdict(spec, ALL, [], Status.PASS, _observed(said[0]), _NONE, said[0])]


_NONE = Text("no node, card or link stands out", "没有任何节点、加速卡或链路明显偏慢")
_NAMED = {
    "node": Text("groups with this node are slow, all others are not", "包含该节点的分组偏慢，其余分组正常"),
    "card": Text("groups with this card are slow, all others are not", "包含该卡的分组偏慢，其余分组正常"),
    "link": Text(
        "it is slow between these two, and either is well with others", "两者之间偏慢，而各自与其他成员之间正常"
    ),
    "ambiguous": Text(
        "one of these, or the link between them; the figures do not decide", "为其中之一或其间链路，数据不足以判定"
    ),
}


def _on(spec: ProbeSpec, m: Measurement) -> Verdict:
    kind, members = str(m.parameters["kind"]), str(m.parameters["members"]).split(",")
    observed, usual = m.samples[0] if m.samples else None, m.parameters.get("usual")
    share = observed / usual if observed is not None and isinstance(usual, int | float) and usual > 0 else None
    if kind not in _KINDS:
        subject, nodes, status = ALL, [], Status.WARN
    else:
        subject = Subject(_KINDS[kind], " ↔ ".join(members))
        nodes = sorted({member.partition("/")[0] for member in members}) if kind != "link" else []
        status = Status.FAIL if share is None or share < FAIL_BELOW else Status.WARN
    detail = Text("{w}: {m}", "{w}：{m}").fill(w=_NAMED[kind], m=", ".join(members))
    return _verdict(spec, subject, nodes, status, _observed(m), detail, m)


def _observed(m: Measurement) -> str:
    if not m.samples:
        return ""
    usual = m.parameters.get("usual")
    others = f", others {gigabytes(usual)}" if isinstance(usual, int | float) else ""
    return f"{gigabytes(m.samples[0])} GB/s busbw{others}"


def _verdict(
    spec: ProbeSpec,
    subject: Subject,
    nodes: list[str],
    status: Status,
    observed: str,
    detail: Text | None,
    m: Measurement,
) -> Verdict:
    action = spec.info.action if status is Status.FAIL else Action.NONE
    code = m.reason_code if status in (Status.UNKNOWN, Status.SKIP) else ""
    return Verdict(spec.info.id, spec.info.kind, subject, nodes, status, observed, None, detail, code, action)
