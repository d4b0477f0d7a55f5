"""What the net plugin of a running job says of its paths, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from cwai_bench.cli.output import columns
from cwai_bench.discover.net_plugin import NetPlugin, Path
from cwai_bench.model import PathFinding
from cwai_bench.render import labels, units
from cwai_bench.render.multipath import part_of
from cwai_bench.render.untrusted import neutral
from cwai_bench.text import Lang, Text, plain

HEAD = (
    Text("Path of the net plugin", "网络插件的路径"),
    Text("State", "状态"),
    Text("Carried", "已传输"),
    Text("Lost", "丢失"),
    Text("Stalls", "停滞次数"),
    Text("Failures", "故障次数"),
)
WAYS = {
    "send": Text("to {peer}: {how} {local} > {remote}", "发往 {peer}：{how} {local} > {remote}"),
    "receive": Text("from {peer}: {how} {local} < {remote}", "来自 {peer}：{how} {local} < {remote}"),
}
FAILED = {
    "send": Text("to {peer}: failed: {why}", "发往 {peer}：已失败：{why}"),
    "receive": Text("from {peer}: failed: {why}", "来自 {peer}：已失败：{why}"),
}
STATE_WHY = Text("{state} ({why}, {ago} ago)", "{state}（{why}，{ago}前）")
FINDING = Text("what is down: {what}, confidence {sure}", "故障部位：{what}，置信度 {sure}")
MORE = Text("{n} connections of the job are not shown", "另有 {n} 个连接未列出")


def told(findings: Sequence[PathFinding], lang: Lang) -> str:
    """A line for each finding; nothing is down, no line."""
    lines = [FINDING.fill(what=part_of(finding), sure=f"{finding.confidence:.0%}") for finding in findings]
    return "".join(neutral(line.to(lang)) + "\n" for line in lines)


def table(net: NetPlugin, lang: Lang) -> str:
    """A row for each path: over TCP by its addresses, over RDMA by its devices; above it what comms failed of."""
    rows = [[head.to(lang) for head in HEAD]]
    lines = []
    for comm in net.comms:
        if comm.error:
            failed = FAILED.get(comm.direction, plain("{peer}: {why}"))
            lines.append(neutral(failed.fill(peer=comm.peer, why=comm.error).to(lang)))
        for path in comm.paths:
            way = WAYS.get(comm.direction, plain("{peer}: {how} {local} {remote}"))
            rdma = comm.transport == "rdma"
            ends = (path.local_name, path.remote_name) if rdma else (path.local, path.remote)
            how = comm.transport.upper()
            rows.append(
                [
                    neutral(way.fill(peer=comm.peer, how=how, local=ends[0], remote=ends[1]).to(lang)),
                    neutral(_state(path).to(lang)),
                    units.size(path.bytes),
                    units.size(path.lost),
                    str(path.stalls),
                    str(path.failures),
                ]
            )
    if net.left_out:
        lines.append(MORE.fill(n=net.left_out).to(lang))
    return "\n".join([*lines, columns(rows)]) + "\n"


def _state(path: Path) -> Text:
    state = labels.PATH_STATE.get(path.state, plain(path.state))
    if not path.cause:
        return state
    why = labels.PATH_CAUSE.get(path.cause, plain(path.cause))
    if path.error:
        why = Text("{why}: {error}", "{why}：{error}").fill(why=why, error=path.error)
    return STATE_WHY.fill(state=state, why=why, ago=units.span(path.ago_ms / 1000))
