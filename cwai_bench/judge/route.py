"""Over which NIC a rank's data goes: as its library logged it, else the one nearest to its card, else not known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from cwai_bench.checks import DoesNotApply, NotKnown
from cwai_bench.checks.rdma import named
from cwai_bench.checks.topology import nearest_nics
from cwai_bench.model import Facts, Measurement, ProbeSpec, Run
from cwai_bench.readers import Unreadable
from cwai_bench.readers.collective_log import SOCKET, CollectiveLog, collective_log
from cwai_bench.text import Text

SOURCE = "log:nccl:"
"""What the source of a reading of the library's log begins with; spec and rank of the process follow."""

Logs = Mapping[str, Mapping[int, CollectiveLog]]
"""By node, and rank of the process."""


def logs_of(run: Run, spec: ProbeSpec) -> dict[str, dict[int, CollectiveLog]]:
    """What the library logged in each process; without what cannot be read."""
    begins = f"{SOURCE}{spec.id}:"
    found: dict[str, dict[int, CollectiveLog]] = {}
    for facts in run.facts:
        for source, reading in facts.readings.items():
            rank = source.removeprefix(begins)
            if rank != source and rank.isdecimal() and reading.status == "ok":
                with contextlib.suppress(Unreadable):
                    found.setdefault(facts.node, {})[int(rank)] = collective_log(reading.text)
    return found


def nics_of(run: Run, ms: Iterable[Measurement], logs: Logs) -> dict[tuple[str, int], Text]:
    """By node and rank, in words, the NIC of each that received wrong data; ``ms``: those of all ranks."""
    ranks: dict[str, set[int]] = {}
    wrong: dict[tuple[str, int], Measurement] = {}
    for m in ms:
        ranks.setdefault(m.node, set()).add(m.rank)
        if m.correct is False:
            wrong[m.node, m.rank] = m
    facts = {f.node: f for f in run.facts}
    return {
        (node, rank): _nic(
            str(m.parameters.get("card", "")),
            _log(logs.get(node, {}), sorted(ranks[node]), rank),
            facts.get(node),
            alone=len(ranks) == 1,
        )
        for (node, rank), m in wrong.items()
    }


def _log(logs: Mapping[int, CollectiveLog], here: list[int], rank: int) -> CollectiveLog | None:
    """That of the process which drives ``rank``, one of those ``here``: all on a node have as many, in their order
    (``probes/cards.py``)."""
    if not logs or len(here) % len(logs):
        return None
    return logs[sorted(logs)[here.index(rank) * len(logs) // len(here)]]


def _nic(card: str, log: CollectiveLog | None, facts: Facts | None, *, alone: bool) -> Text:
    used = _used(log) if log is not None else []
    if used:
        return _USED.fill(n=named(used))
    if alone:
        return _NONE
    if not card:
        return _UNKNOWN.fill(w=_NO_CARD)
    if facts is None:
        return _UNKNOWN.fill(w=_NO_FACTS)
    try:
        return _NEAREST.fill(n=named(nearest_nics(facts, card)), c=card)
    except (NotKnown, DoesNotApply) as e:
        return _UNKNOWN.fill(w=e.reason)


def _used(log: CollectiveLog) -> list[str]:
    by_sockets = any(way.by == SOCKET for way in log.between_nodes)
    return log.used_nics + (list(log.interfaces) if by_sockets else [])


_USED = Text("NIC {n}, by the library's log", "网卡 {n}（据通信库日志）")
_NEAREST = Text(
    "NIC nearest to {c}: {n} (the library's log does not tell which it used)",
    "距 {c} 最近的网卡：{n}（通信库日志未给出实际使用的网卡）",
)
_NONE = Text("all ranks are on one node: no NIC is needed", "所有进程位于同一节点，无需网卡")
_UNKNOWN = Text("its NIC is not known: {w}", "网卡未知：{w}")
_NO_CARD = Text("the library does not tell, and the data is in the host's memory", "通信库未给出，且数据位于主机内存")
_NO_FACTS = Text("nothing was read on this node", "未读取该节点的数据")
