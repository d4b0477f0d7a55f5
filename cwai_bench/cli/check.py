"""``cwai-bench check``: the server check alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cwai_bench.cli import options
from cwai_bench.cli.output import write_json
from cwai_bench.cli.parser import Parser
from cwai_bench.text import Lang, Text

USAGE = "[options]"


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    options.choosing(parser)
    parser.add("--list", action="store_true", help=Text("list all items and exit", "列出全部检测项并退出"))
    parser.add(
        "--from",
        metavar="RUN",
        dest="from_run",
        help=Text("judge the facts of a saved run; read nothing", "只判定已保存运行中的数据，不采集"),
    )
    options.launching(parser)
    options.over_ssh(parser)
    options.judging(parser)
    options.common(parser)
    args = options.parse(parser, argv)
    if args.list:
        _list(args, options.lang_of(args, lang))
        return 0
    if args.from_run:
        from cwai_bench.cli import report

        return report.judge_facts(args, options.lang_of(args, lang))
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "check", argv, lang, "check"))


def _list(args: argparse.Namespace, lang: Lang) -> None:
    from cwai_bench.checks import CHECKS, long_run
    from cwai_bench.cli.execute import order_of
    from cwai_bench.model import ItemKind
    from cwai_bench.plan import select
    from cwai_bench.probes import PROBES

    own = order_of(args, "check", "check", [], lang).scripts
    every = [c.info for c in CHECKS.values()] + [s.spec.info for s in own] + [p.info for p in PROBES.values()]
    chosen = [i for i in every if select([i.id], args.items, args.skip)]
    if args.json:
        write_json(chosen)
        return
    kinds = {
        ItemKind.NODE: Text("node", "节点通用"),
        ItemKind.CONSISTENCY: Text("consistency", "多节点一致性"),
        ItemKind.CONFIGURABLE: Text("configurable", "节点可配置"),
        ItemKind.SCRIPT: Text("script", "自定义脚本"),
        ItemKind.PROBE: Text("probe", "探测"),
    }
    width = max((len(i.id) for i in chosen), default=0)
    for info in chosen:
        unasked = "" if long_run(info.id) is None else f" (--disruptive {info.id})"
        line = f"{info.id:<{width}}  [{kinds[info.kind].to(lang)}] {info.title.to(lang)}{unasked}"
        sys.stdout.write(line + "\n")
        if args.verbose:
            for label, text in (
                (Text("method", "检测方法"), info.method),
                (Text("criterion", "判断标准"), info.criterion),
                (Text("suggestion", "处理建议"), info.suggestion),
            ):
                sys.stdout.write(f"{'':<{width}}    {label.to(lang)}: {text.to(lang)}\n")
    sys.stdout.write(Text("{n} items", "共 {n} 项").fill(n=len(chosen)).to(lang) + "\n")
