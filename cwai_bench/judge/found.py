"""What a check says of a node, whichever node that is, and how that becomes verdicts: one for all that came out alike.

What proves a verdict is made by asking the check once more. So it costs nothing where it is not kept: of nodes that
came out alike a few different answers are enough, and the journal has what every node said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cwai_bench.checks import CHECKS, DoesNotApply, FactView, NotKnown
from cwai_bench.judge.alike import Alike, Answer
from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    ItemKind,
    ReasonCode,
    Severity,
    Status,
    Subject,
    Verdict,
)
from cwai_bench.render.nodeset import fold
from cwai_bench.text import Text, plain
from cwai_bench.text import joined as _joined

OBSERVED_LIMIT = 400
VALUE_LIMIT = 2000
"""Characters shown of what one item observed, and of a value that is compared across nodes."""
ANSWERS_KEPT = 4
"""Different answers kept as evidence of a verdict on several nodes."""
PROVEN, PROVEN_CALM = 200, 20
"""Verdicts of one item that have evidence: of those that somebody must see to, and of the others."""
ALL = Subject("group", "all")
NODE_LOST = Text("this node delivered no facts", "该节点未提供数据")
_CALM = (Status.PASS, Status.SKIP, Status.NA)


@dataclass(frozen=True)
class Found:
    """What a check says of a node, whichever node that is. ``expected``: where it is not the item's criterion."""

    status: Status
    observed: str = ""
    expected: Text | None = None
    detail: Text | None = None
    reason_code: ReasonCode = ""


def attempt(look: Callable[[FactView], Found]) -> Callable[[FactView], Found]:
    """``look``, or UNKNOWN or SKIP when it could not come to a verdict. A bug in a check ends no run."""

    def looked(view: FactView) -> Found:
        try:
            return look(view)
        except NotKnown as e:
            return Found(Status.UNKNOWN, detail=e.reason, reason_code=e.reason_code)
        except DoesNotApply as e:
            return Found(Status.SKIP, detail=e.reason, reason_code=e.reason_code)
        except Exception as e:
            return Found(Status.UNKNOWN, detail=bug(e), reason_code="error")

    return looked


def bug(error: Exception) -> Text:
    bug = f"{type(error).__name__}: {error}"[:300]
    return Text("a bug of cwai-bench, please report it: {b}", "cwai-bench 的缺陷，请上报：{b}").fill(b=bug)


def verdicts_of(
    info: CheckInfo, answers: Iterable[Answer[Found]], alike: Alike, raw: Callable[[FactView], Any] | None
) -> list[Verdict]:
    """A verdict for each way in which the item came out. ``raw`` is the check itself, asked again for its evidence."""
    same: dict[Found, list[Answer[Found]]] = {}
    for answer in answers:
        same.setdefault(answer.said, []).append(answer)
    verdicts = []
    proven = {True: 0, False: 0}
    for found, given in same.items():
        calm = found.status in _CALM
        proven[calm] += 1
        keep = raw is not None and proven[calm] <= (PROVEN_CALM if calm else PROVEN)
        at = given[0].at if len(given) == 1 else sorted(i for answer in given for i in answer.at)
        nodes = alike.named(at)
        verdicts.append(
            Verdict(
                info.id,
                info.kind,
                Subject("node", fold(nodes)),
                nodes,
                found.status,
                found.observed,
                found.expected,
                found.detail,
                found.reason_code,
                info.action if found.status in (Status.FAIL, Status.WARN) else Action.NONE,
                proof(given, found.status, alike, raw, len(at)) if keep and raw is not None else [],
            )
        )
    return verdicts


def proof(
    given: Sequence[Answer[Any]], status: Status, alike: Alike, raw: Callable[[FactView], Any], everybody: int
) -> list[Evidence]:
    """What was read on the nodes of the first few of the answers ``given``; ``everybody``: of how many nodes the
    verdict speaks."""
    who: dict[tuple[str, str, bool], list[int]] = {}
    for answer in given[:ANSWERS_KEPT]:
        for piece in evidence(raw, alike, answer.at[0], status):
            who.setdefault((piece.source, piece.text, piece.truncated), []).extend(answer.at)
    return [Evidence(*piece, nodes=[] if len(at) == everybody else alike.named(at)) for piece, at in who.items()]


def evidence(raw: Callable[[FactView], Any], alike: Alike, place: int, status: Status) -> list[Evidence]:
    """What the check ``raw`` looks at on the node at ``place``."""
    facts = alike.facts[place]
    if facts is None:
        return []
    view = FactView(facts)
    try:
        raw(view)
    except Exception:
        pass  # what it had looked at by then is why
    return view.evidence(status)


def narrowed(verdict: Verdict, nodes: Sequence[str]) -> Verdict:
    """A verdict on several nodes, of these ``nodes`` alone."""
    if len(nodes) == len(verdict.nodes):
        return verdict
    kept = set(nodes)
    left = [
        msgspec.structs.replace(e, nodes=[n for n in e.nodes if n in kept])
        for e in verdict.evidence
        if not e.nodes or kept & set(e.nodes)
    ]
    return msgspec.structs.replace(verdict, subject=Subject("node", fold(nodes)), nodes=list(nodes), evidence=left)


def lost_nodes(alike: Alike) -> list[Answer[Found]]:
    """What is said of the nodes that delivered nothing, whatever the item."""
    if not alike.lost:
        return []
    return [Answer(Found(Status.UNKNOWN, detail=NODE_LOST, reason_code="node_lost"), alike.lost)]


def info_of(id: str) -> CheckInfo:
    if id in CHECKS:
        return CHECKS[id].info
    unknown = Text("not known to this version of cwai-bench", "当前版本的 cwai-bench 不包含此项")
    return CheckInfo(
        id, ItemKind.NODE, "host", plain(id), unknown, unknown, unknown, Severity.MINOR, Action.NONE, [], required=True
    )


def unknown_check(id: str, alike: Alike) -> list[Verdict]:
    info = info_of(id)
    found = Found(Status.UNKNOWN, detail=info.method, reason_code="unsupported")
    return verdicts_of(info, [Answer(found, range(len(alike.names)))], alike, None)


def joined(texts: Sequence[Text]) -> Text | None:
    return _joined(texts) if texts else None
