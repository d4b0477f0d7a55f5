"""Who reported and who came to the end: verdicts on nodes and ranks as such."""

from __future__ import annotations

import signal

from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, joined
from cwai_bench.model import (
    Action,
    CheckInfo,
    ItemKind,
    NodeRecord,
    RankEvent,
    ReasonCode,
    Run,
    Severity,
    Status,
    Subject,
    Verdict,
)
from cwai_bench.text import Text

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


def node_verdicts(run: Run) -> list[Verdict]:
    """One verdict for each node that did not report as it should; one PASS when all did."""

    def lost(node: NodeRecord) -> Verdict:
        code: ReasonCode = node.reason_code or ("node_lost" if not node.present else "aborted")
        detail = node.note or (
            Text("its journal never came", "未收到其日志")
            if not node.present
            else Text("its journal ends early", "其日志提前结束")
        )
        return Verdict(
            NODES.id,
            NODES.kind,
            Subject("node", node.name),
            [node.name],
            Status.UNKNOWN,
            "",
            None,
            detail,
            code,
            NODES.action,
        )

    bad = [lost(n) for n in run.nodes if not (n.present and n.complete)]
    count = len(run.nodes)
    if bad or not count:
        return bad
    return [Verdict(NODES.id, NODES.kind, ALL, [], Status.PASS, f"{count}/{count}")]


_ENDS: dict[str, Text] = {
    "died": Text("it ended without a word", "异常退出，未留下任何信息"),
    "stalled": Text("it stopped, or fell silent", "停止运行或失去响应"),
    "lost": Text("its node stopped answering", "其所在节点失去响应"),
    "overdue": Text("it was still waiting past its deadline", "超过时限仍在等待"),
    "failed": Text("it ended with an error of its own", "因自身错误而结束"),
}


def rank_verdicts(run: Run) -> list[Verdict]:
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
        return [Verdict(RANKS.id, RANKS.kind, ALL, [], Status.UNKNOWN, "", None, reason, "aborted")]
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
                [],
                Status.UNKNOWN,
                f"{len(finished)}/{run.world_size}",
                None,
                reason,
                "rank_lost",
            )
        ]
    return [Verdict(RANKS.id, RANKS.kind, ALL, [], Status.PASS, f"{len(finished)}/{run.world_size}")]


def _rank_verdict(event: RankEvent, *, fatal: bool) -> Verdict:
    where = [event.item, *(f"{k}={v}" for k, v in event.progress.items())] if event.item else []
    if event.signal:
        where.insert(0, signal_name(event.signal))
    codes: dict[str, ReasonCode] = {"failed": "error", "overdue": "timeout"}
    said = _ENDS[event.state]
    return Verdict(
        RANKS.id,
        RANKS.kind,
        Subject("rank", f"{event.node}/rank{event.rank}"),
        [event.node],
        Status.FAIL if fatal else Status.UNKNOWN,
        " ".join([event.state, *where])[:OBSERVED_LIMIT],
        None,
        said if event.detail is None else joined([said, event.detail]),
        codes.get(event.state, "rank_lost"),
        RANKS.action if fatal else Action.NONE,
    )


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
