"""What a check says of a node, whichever node that is, and how it becomes a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cwai_bench.checks import (
    CHECKS,
    DoesNotApply,
    FactView,
    NotKnown,
)
from cwai_bench.judge.alike import Alike
from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    Facts,
    ItemKind,
    ReasonCode,
    Severity,
    Status,
    Subject,
    Verdict,
)
from cwai_bench.text import Text, plain

OBSERVED_LIMIT = 400
VALUE_LIMIT = 2000
"""Characters shown of what one item observed, and of a value that is compared across nodes."""
ALL = Subject("group", "all")


def info_of(id: str) -> CheckInfo:
    if id in CHECKS:
        return CHECKS[id].info
    unknown = Text("not known to this version of cwai-bench", "当前版本的 cwai-bench 不包含此项")
    return CheckInfo(
        id, ItemKind.NODE, "host", plain(id), unknown, unknown, unknown, Severity.MINOR, Action.NONE, [], required=True
    )


def unknown_check(id: str, node: str) -> Verdict:
    info = info_of(id)
    return Verdict(
        id, info.kind, Subject("node", node), node, Status.UNKNOWN, detail=info.method, reason_code="unsupported"
    )


NODE_LOST = Text("this node delivered no facts", "该节点未提供数据")


@dataclass(frozen=True)
class Found:
    """What a check says of a node, whichever node that is."""

    status: Status
    observed: str = ""
    expected: Text | None = None
    detail: Text | None = None
    reason_code: ReasonCode = ""
    evidence: list[Evidence] = field(default_factory=list)


def verdict_of(
    info: CheckInfo, node: str, facts: Facts | None, look: Callable[[FactView], Found], alike: Alike
) -> Verdict:
    """What ``look`` finds, or UNKNOWN or SKIP when it could not come to a verdict. A bug in a check ends no run."""

    def attempt(view: FactView) -> Found:
        try:
            return look(view)
        except NotKnown as e:
            status, code, reason = Status.UNKNOWN, e.reason_code, e.reason
        except DoesNotApply as e:
            status, code, reason = Status.SKIP, e.reason_code, e.reason
        except Exception as e:
            status, code, reason = Status.UNKNOWN, "error", bug(e)
        return Found(status, detail=reason, reason_code=code, evidence=view.evidence(status))

    found = (
        Found(Status.UNKNOWN, detail=NODE_LOST, reason_code="node_lost")
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


def bug(error: Exception) -> Text:
    bug = f"{type(error).__name__}: {error}"[:300]
    return Text("a bug of cwai-bench, please report it: {b}", "cwai-bench 的缺陷，请上报：{b}").fill(b=bug)


def joined(texts: Sequence[Text]) -> Text | None:
    return Text("; ".join(t.en for t in texts), "；".join(t.zh for t in texts)) if texts else None
