"""``cwai-bench history list|show|stop|delete``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cwai_bench.cli import options
from cwai_bench.cli.output import columns, write_json
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from cwai_bench.history import Entry

USAGE = "list | show RUN | stop RUN | delete RUN   [options]"

_STATUS = {
    "running": Text("running", "进行中"),
    "complete": Text("complete", "完成"),
    "partial": Text("partial", "不完整"),
    "terminated": Text("terminated", "已终止"),
    "error": Text("error", "错误"),
}
_VERBS = ("list", "show", "stop", "delete")


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    parser.add("verb", metavar="list|show|stop|delete", choices=_VERBS, help=Text("what to do", "操作"))
    parser.add(
        "run", metavar="RUN", nargs="?", help=Text("run id, the end of one, or 'last'", "运行编号、编号末尾或 last")
    )
    parser.add(
        "--type",
        choices=("run", "check", "rdma", "collective", "gpu", "multipath"),
        help=Text("only runs of this type", "仅列出此类型"),
    )
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    lang = options.lang_of(args, lang)
    import msgspec

    from cwai_bench import history
    from cwai_bench.launch import keeper

    store = options.store_of(args)
    holder = keeper.holder_of_node()
    if args.verb == "list":
        listed = [
            msgspec.structs.replace(e, status="running") if holder and e.run_id == holder.run_id else e
            for e in history.entries(store, args.type)
        ]
        _list(listed, args, lang)
        return 0
    if not args.run:
        raise UsageError(
            Text("history {v} needs a run", "history {v} 需要运行编号").fill(v=args.verb),
            Text("list them: cwai-bench history list", "查看列表：cwai-bench history list"),
        )
    found = history.find(args.run, store)
    running = holder is not None and holder.run_id == found.run_id
    if args.verb == "stop":
        if holder is None or not running:
            raise UsageError(
                Text("{r} does not run on this node", "{r} 未在本节点运行").fill(r=found.run_id),
                Text("see what runs: cwai-bench history list", "查看运行中的检测：cwai-bench history list"),
            )
        try:
            os.kill(holder.pid, signal.SIGTERM)
        except PermissionError as e:
            raise UsageError(
                Text("{r} belongs to {u}", "{r} 属于用户 {u}").fill(r=found.run_id, u=holder.user),
                Text("ask them to stop it", "请联系该用户停止"),
            ) from e
        sys.stdout.write(Text("stopping {r}", "正在停止 {r}").fill(r=found.run_id).to(lang) + "\n")
        return 0
    if args.verb == "delete" and running:
        raise UsageError(
            Text("{r} is still running", "{r} 仍在运行").fill(r=found.run_id),
            Text("stop it first: cwai-bench history stop {r}", "请先停止：cwai-bench history stop {r}").fill(
                r=found.run_id
            ),
        )
    if args.verb == "delete":
        history.delete(found)
        sys.stdout.write(Text("deleted {r}", "已删除 {r}").fill(r=found.run_id).to(lang) + "\n")
        return 0
    return _show(found, args, lang)


def _list(found: list[Entry], args: argparse.Namespace, lang: Lang) -> None:
    if args.json:
        saved = [
            {
                f: getattr(e, f)
                for f in ("run_id", "run_type", "started", "finished", "status", "nodes", "gate", "exit_code")
            }
            | {"folder": str(e.folder), "note": e.note}
            for e in found
        ]
        write_json(saved)
        return
    if not found:
        sys.stdout.write(Text("no runs yet", "还没有运行记录").to(lang) + "\n")
        return
    rows = []
    for e in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(e.started)) + "Z" if e.started else "-"
        seconds = f"{e.finished - e.started:.1f} s" if e.started else "-"
        gate = f"{e.gate.value} ({e.exit_code})" if e.gate is not None else "-"
        nodes = Text("{n} node(s)", "{n} 个节点").fill(n=e.nodes).to(lang)
        note = e.note.to(lang) if e.note else ""
        rows.append([e.run_id, when, seconds, nodes, _STATUS[e.status].to(lang), gate, note])
    sys.stdout.write(columns(rows))


def _show(found: Entry, args: argparse.Namespace, lang: Lang) -> int:
    from cwai_bench import history, render
    from cwai_bench.cli.execute import laid_out

    try:
        report = history.report_of(found, render.report_from_json)
    except OSError as e:
        raise UsageError(
            Text("cannot read {p}: {e}", "无法读取 {p}：{e}").fill(p=found.folder, e=e.strerror),
            Text("check its permissions", "请检查其权限"),
        ) from e
    if report is None:
        raise UsageError(
            Text("{r} was never judged: it was killed", "{r} 未完成判定：运行曾被终止").fill(r=found.run_id),
            Text("finish it: cwai-bench report {r}", "完成它：cwai-bench report {r}").fill(r=found.run_id),
        )
    if args.json:
        sys.stdout.write((found.folder / history.PUBLISHED).read_text(encoding="utf-8"))
        return 0
    sys.stdout.write(laid_out(report, args, lang, sys.stdout.isatty()).rstrip("\n") + "\n")
    sys.stdout.write(Text("report: {p}", "报告：{p}").fill(p=found.folder / "report.html").to(lang) + "\n")
    return 0
